//! `config_v1`: what a node's programs must know before they see a packet.

use super::{MapSpec, Owner};
use crate::addr::{Addr, Port, Prefix};
use crate::layout::layout;

pub const CONFIG: MapSpec = MapSpec::array::<Config>(
    "config_v1",
    1,
    Owner::Agent,
    "the node's own facts, one row",
);

layout! {
    /// Row 0. All zero until the agent has written it; the programs then drop with `NoConfig`.
    pub struct Config {
        /// The node's underlay address: tunnel source and masquerade address.
        pub node: Addr,
        /// The first address of the node's share of the pod range, on `orch-host`.
        pub gateway: Addr,
        /// All pods of the cluster.
        pub pods: Prefix,
        /// All Services of the cluster.
        pub services: Prefix,
        /// The mask of one node's share of the pod range: what keys `nodes_v1`.
        pub node_mask: Addr,
        /// Interfaces: the uplink, the VXLAN device, `orch-net`.
        pub uplink: u32,
        pub overlay: u32,
        pub host: u32,
        pub vni: u32,
        pub vxlan_port: Port,
        /// Reserved node ports, first and last: never given to a masqueraded flow.
        pub node_port_first: Port,
        pub node_port_last: Port,
        pub reserved: u16,
        pub flags: u32,
        pub reserved_word: u32,
    }
}
