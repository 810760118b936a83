//! `nodes_v1`: the overlay's whole table, one row a node.

use super::{MapSpec, Owner};
use crate::addr::Addr;
use crate::layout::layout;

pub const NODES: MapSpec = MapSpec::hash::<Addr, Node>(
    "nodes_v1",
    16384,
    Owner::Agent,
    "a node's share of the pod range (its first address, masked) -> where to tunnel; not this node's own",
);

impl Node {
    /// The row is keyed by an address of the node's: who may send with direct server return, and to
    /// whom no other node answers directly.
    pub const VTEP: u32 = 1;
    /// On the uplink's own link: its address is the tunnel's next hop.
    pub const NEIGHBOUR: u32 = 2;
}

layout! {
    /// Another node. Its row both routes to it and says which tunnel source may send for its pods.
    pub struct Node {
        pub vtep: Addr,
        pub flags: u32,
        pub reserved: u32,
    }
}
