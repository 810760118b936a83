//! What no object may claim, whatever it says: the ranges of pods and of Services, this node's own
//! addresses, the API server. Pure.
//!
//! The API server refuses objects that claim these. This is the second check, on the node that would send
//! its packets elsewhere: a Service at the API server's address would also cut its agent off from hearing
//! that the Service is gone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use orchestrator_common::maps::config::Family;
use orchestrator_common::{Addr, Prefix};

use super::facts::Facts;
use super::view::NodeView;

/// Of one node. Its own addresses may change; the ranges stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    families: Vec<Family>,
    own: BTreeSet<Addr>,
    servers: BTreeSet<Addr>,
}

impl Reserved {
    pub fn of(facts: &Facts) -> Self {
        Self {
            families: vec![facts.v4, facts.v6],
            own: facts.own_addresses().collect(),
            servers: facts.servers.iter().copied().collect(),
        }
    }

    /// The node itself is at this address.
    pub fn is_own(&self, addr: &Addr) -> bool {
        self.own.contains(addr)
    }

    /// No Service has this address as one outside the cluster.
    pub fn is_inside(&self, addr: &Addr) -> bool {
        let of_a_link = match IpAddr::from(*addr) {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let of_this_machine = self.is_own(addr) || addr.is_own() || of_a_link;
        of_this_machine || self.in_ranges(addr) || self.servers.contains(addr)
    }

    /// The share of the pods' ranges that an address lies in, as nodes' ranges are keyed.
    pub fn share(&self, addr: &Addr) -> Option<Addr> {
        let mut families = self.families.iter();
        let family = families.find(|family| family.pods.contains(addr))?;
        Some(addr.masked(&family.node_mask))
    }

    /// A node without what cannot be a node's: ranges that are no share of the cluster's, addresses of
    /// pods, of Services or of the API server.
    pub fn cut(&self, mut node: NodeView) -> NodeView {
        node.pod_cidrs.retain(|cidr| {
            let range = Prefix::new(cidr.ip(), cidr.prefix());
            let mut families = self.families.iter();
            families.any(|it| it.pods.contains(&range.addr) && it.node_mask == range.mask)
        });
        let foreign = |addr: &Addr| !self.in_ranges(addr) && !self.servers.contains(addr);
        node.addrs = node
            .addrs
            .iter()
            .filter(|addr| foreign(&(*addr).into()))
            .collect();
        node
    }

    /// Every address that is this node's own in one of the two.
    pub fn own_of_either<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Addr> {
        self.own.union(&other.own)
    }

    fn in_ranges(&self, addr: &Addr) -> bool {
        let ranges = self.families.iter();
        let mut ranges = ranges.flat_map(|family| [&family.pods, &family.services]);
        ranges.any(|range| range.contains(addr))
    }
}
