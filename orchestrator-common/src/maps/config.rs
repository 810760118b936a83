//! `config_v3`: what a node's programs must know before they see a packet.

use super::{MapSpec, Owner};
use crate::addr::{Addr, Mac, Port, Prefix};
use crate::layout::layout;

pub const CONFIG: MapSpec = MapSpec::array::<Config>(
    "config_v3",
    1,
    Owner::Agent,
    "the node's own facts, one row",
);

layout! {
    /// What a node is in one IP family. A family that it does not have holds [`Prefix::NONE`] and
    /// unspecified addresses: no packet is in it.
    pub struct Family {
        /// The node's own address on the uplink: the source of masqueraded packets.
        pub node: Addr,
        /// The node inside the overlay: the first address of its share, on `orch-host`.
        pub gateway: Addr,
        /// The share's own number, held by no socket: the source of what must come back to this
        /// node to be translated again.
        pub translation: Addr,
        /// All pods of the cluster.
        pub pods: Prefix,
        /// All Services of the cluster. The range's own number stands for the node's own addresses
        /// where the node sends datagrams to a node port.
        pub services: Prefix,
        /// The mask of one node's share of the pod range: what keys `nodes_v1`.
        pub node_mask: Addr,
    }
}

layout! {
    /// Row 0. All zero until the agent has written it; the programs then drop with `NoConfig`.
    pub struct Config {
        pub v4: Family,
        pub v6: Family,
        /// The tunnel's source, of the underlay's family.
        pub underlay: Addr,
        /// Interfaces: the uplink, the VXLAN device, `orch-net`; `orch-cut`, 0 on an IPv4 underlay.
        pub uplink: u32,
        pub overlay: u32,
        pub host: u32,
        pub cut: u32,
        pub vni: u32,
        pub vxlan_port: Port,
        /// Reserved node ports, first and last: never given to a masqueraded flow.
        pub node_port_first: Port,
        pub node_port_last: Port,
        /// The uplink's: what `announced_v1` is answered with.
        pub uplink_mac: Mac,
        /// The largest IP packet inside the overlay.
        pub mtu: u32,
        /// `Config::DSR`.
        pub flags: u32,
    }
}

impl Config {
    /// External clients are answered by the backend's own node.
    pub const DSR: u32 = 1;

    /// The row of an address's family.
    #[inline(always)]
    pub const fn family(&self, addr: &Addr) -> &Family {
        if addr.is_v4() { &self.v4 } else { &self.v6 }
    }

    /// Whether a port is reserved for Services.
    #[inline(always)]
    pub const fn is_node_port(&self, port: Port) -> bool {
        port.host() >= self.node_port_first.host() && port.host() <= self.node_port_last.host()
    }
}

impl Family {
    /// A family that the node does not have.
    pub const NONE: Family = Family {
        node: Addr::UNSPECIFIED,
        gateway: Addr::UNSPECIFIED,
        translation: Addr::UNSPECIFIED,
        pods: Prefix::NONE,
        services: Prefix::NONE,
        node_mask: Addr::UNSPECIFIED,
    };
}
