//! `socket_services_v1`: which Service's address a socket asked for.

use super::{MapKind, MapSpec, NO_PREALLOC, Owner};
use crate::addr::{Addr, Port};
use crate::layout::layout;

pub const SOCKET_SERVICES: MapSpec = MapSpec {
    name: "socket_services_v1",
    kind: MapKind::SocketStorage,
    key_size: size_of::<i32>() as u32,
    value_size: size_of::<SocketService>() as u32,
    max_entries: 0,
    flags: NO_PREALLOC,
    owner: Owner::Datapath,
    holds: "socket -> the Service's address, for getpeername",
};

layout! {
    /// Written by `connect4`. `getpeername4` restores the Service's address only while the peer is
    /// still the backend that was chosen then: a socket may be connected anew, and not to a
    /// Service.
    pub struct SocketService {
        pub service: Addr,
        pub backend: Addr,
        pub service_port: Port,
        pub backend_port: Port,
    }
}
