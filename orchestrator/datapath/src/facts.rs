//! What a node knows of itself: what the rows of every table are computed from, beside what the API says.
//! Pure.

use orchestrator_common::maps::config::Family;
use orchestrator_common::{Addr, Mac, Port, Prefix};

/// What a node knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The node's name in the API.
    pub name: String,
    /// [`Family::NONE`] where the node has no pods of the family.
    pub v4: Family,
    pub v6: Family,
    /// The tunnel's source.
    pub underlay: Addr,
    pub uplink: u32,
    pub overlay: u32,
    /// `orch-net`.
    pub host: u32,
    /// `orch-cut`, 0 if there is none.
    pub cut: u32,
    /// `orch-host`'s and `orch-net`'s.
    pub host_mac: Mac,
    pub net_mac: Mac,
    pub uplink_mac: Mac,
    pub vni: u32,
    pub vxlan_port: Port,
    /// The largest IP packet inside the overlay.
    pub mtu: u32,
    /// The node's own network namespace.
    pub netns_cookie: u64,
    /// Clients outside are answered by the backend's own node: other nodes may send for them.
    pub dsr: bool,
    /// Nodes in this range are on the uplink's own link.
    pub neighbourhood: Prefix,
    /// Where this node's agent reaches the API server.
    pub servers: Vec<Addr>,
}

impl Facts {
    /// The row of an address's family.
    pub fn family(&self, addr: &Addr) -> &Family {
        if addr.is_v4() { &self.v4 } else { &self.v6 }
    }

    /// The addresses that the node itself holds: on the uplink and inside the overlay.
    pub fn own_addresses(&self) -> impl Iterator<Item = Addr> {
        let families = [&self.v4, &self.v6];
        let held = families.map(|family| [family.node, family.gateway]);
        held.into_iter()
            .flatten()
            .filter(|addr| *addr != Addr::UNSPECIFIED)
    }
}
