//! `fragments_v1`: the ports of datagrams in pieces, of which only the first piece has them.

use super::{MapKind, MapSpec, Owner};
use crate::addr::{Addr, Port, Proto};
use crate::layout::layout;

/// Least recently used goes first: a piece without its first is dropped, and the sender's transport
/// knows that of every network.
pub const FRAGMENTS: MapSpec = MapSpec {
    name: "fragments_v1",
    kind: MapKind::LruHash,
    key_size: size_of::<FragmentKey>() as u32,
    value_size: size_of::<FragmentPorts>() as u32,
    max_entries: 8192,
    flags: 0,
    owner: Owner::Datapath,
    holds: "datagram in pieces -> its ports",
};

layout! {
    /// What all pieces of a datagram share (RFC 791, RFC 8200 section 4.5).
    pub struct FragmentKey {
        pub src: Addr,
        pub dst: Addr,
        /// In network order, IPv4's 16 bits in the lower half.
        pub id: u32,
        pub proto: Proto,
        pub reserved: [u8; 3],
    }
}

layout! {
    pub struct FragmentPorts {
        pub src_port: Port,
        pub dst_port: Port,
    }
}
