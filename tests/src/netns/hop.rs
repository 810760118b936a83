//! A router with a smaller MTU on a path that was direct: what path-MTU discovery is for.

use std::net::IpAddr;

use anyhow::Result;

use super::{Cluster, Netns, OUTSIDE, OUTSIDE_V6, plug, underlay_addr};

/// The router's number on the underlay.
const HOP: u8 = 254;

/// Who speaks through the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrow {
    /// Nodes with each other.
    Underlay,
    /// Nodes with the client outside, both ways.
    Outside,
}

impl Cluster {
    /// From now on packets on this path, both families and directions, cross a router that forwards
    /// none larger than `mtu` and says so. All links keep their own MTU. Once a cluster.
    pub fn narrow(&mut self, path: Narrow, mtu: u16) -> Result<()> {
        let hop = Netns::create(format!("{}-hop", self.name))?;
        let (v4, v6) = underlay_addr(HOP);
        plug(&self.underlay, &hop, "hop", v4, Some(v6))?;
        hop.sysctl("ipv4/ip_forward", "1")?;
        hop.sysctl("ipv6/conf/all/forwarding", "1")?;
        for conf in ["all", "eth0"] {
            hop.sysctl(&format!("ipv4/conf/{conf}/send_redirects"), "0")?;
        }
        let ends: Vec<(&Netns, [IpAddr; 2])> = self
            .nodes
            .iter()
            .map(|node| (&node.netns, [node.v4(), node.v6()]))
            .chain([(&self.outside, [OUTSIDE.into(), OUTSIDE_V6.into()])])
            .collect();
        let mut routes = String::new();
        for addr in ends.iter().flat_map(|(_, addrs)| addrs) {
            routes += &format!("route replace {addr} dev eth0 mtu lock {mtu}\n");
        }
        hop.batch(&routes)?;
        let outside = ends.len() - 1;
        for (from, (netns, _)) in ends.iter().enumerate() {
            // The router sends neighbours to each other directly, if they listen.
            netns.ipv6("eth0", &[("accept_redirects", "0")])?;
            let mut routes = String::new();
            for (to, (_, addrs)) in ends.iter().enumerate() {
                let crosses_outside = (from == outside) != (to == outside);
                let between_nodes = from != outside && to != outside && from != to;
                let through = match path {
                    Narrow::Underlay => between_nodes,
                    Narrow::Outside => crosses_outside,
                };
                for addr in addrs.iter().filter(|_| through) {
                    let via: IpAddr = if addr.is_ipv4() { v4.into() } else { v6.into() };
                    routes += &format!("route replace {addr} via {via} dev eth0\n");
                }
            }
            netns.batch(&routes)?;
        }
        self.hop = Some(hop);
        Ok(())
    }
}
