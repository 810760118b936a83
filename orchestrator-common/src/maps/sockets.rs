//! `socket_services_v2`, `socket_services_v1`: which Service's address a socket asked for.
//!
//! A row of the first goes with its socket, by `sock_release`. Socket storage is only for those that find no
//! room there: it is allocated anew for each socket and given back much later, which costs a connect() 1.2 us
//! (Linux 6.18). Sockets of the kernel itself (a mount's) are never released so, and leave their rows.

use super::{MapKind, MapSpec, NO_PREALLOC, Owner};
use crate::addr::{Addr, Port};
use crate::layout::layout;

pub const SOCKET_SERVICES: MapSpec = MapSpec::hash::<u64, SocketService>(
    "socket_services_v2",
    65_536,
    Owner::Datapath,
    "socket's cookie -> the Service's address, for getpeername",
);

pub const SOCKET_STORAGE: MapSpec = MapSpec {
    name: "socket_services_v1",
    kind: MapKind::SocketStorage,
    key_size: size_of::<i32>() as u32,
    value_size: size_of::<SocketService>() as u32,
    max_entries: 0,
    flags: NO_PREALLOC,
    owner: Owner::Datapath,
    holds: "socket -> the same, of those that found the other table full",
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

impl SocketService {
    #[inline(always)]
    pub const fn same(&self, other: &SocketService) -> bool {
        self.service.same(&other.service)
            && self.backend.same(&other.backend)
            && self.service_port.wire == other.service_port.wire
            && self.backend_port.wire == other.backend_port.wire
    }
}
