//! `services_v1`, `backends_v1`, `generations_v1`: what a Service's address becomes.
//!
//! Choosing a backend reads one row of each of the first two: the rows of a Service are slots 0 to
//! count - 1. Written so that every moment is safe: backends before the Service that counts them, a
//! smaller count before backends go.

use super::{MapSpec, Owner};
use crate::addr::{Addr, Port, Proto};
use crate::layout::layout;

/// Backend numbers are below this: they index `generations_v1`.
pub const MAX_BACKENDS: u32 = 262_144;

pub const SERVICES: MapSpec = MapSpec::hash::<ServiceKey, Service>(
    "services_v1",
    65_536,
    Owner::Agent,
    "address, port, protocol -> Service",
);

pub const BACKENDS: MapSpec = MapSpec::hash::<BackendKey, Backend>(
    "backends_v1",
    MAX_BACKENDS,
    Owner::Agent,
    "Service number, slot -> backend",
);

pub const GENERATIONS: MapSpec = MapSpec::array::<u32>(
    "generations_v1",
    MAX_BACKENDS,
    Owner::Agent,
    "backend number -> generation, raised when the backend goes: its UDP flows then choose again",
);

layout! {
    pub struct ServiceKey {
        pub addr: Addr,
        pub port: Port,
        pub proto: Proto,
        pub reserved: u8,
    }
}

impl ServiceKey {
    #[inline(always)]
    pub const fn new(addr: Addr, port: Port, proto: Proto) -> ServiceKey {
        ServiceKey {
            addr,
            port,
            proto,
            reserved: 0,
        }
    }
}

layout! {
    pub struct Service {
        /// Stable over the agent's restarts; 0 is no Service.
        pub id: u32,
        /// Backends in slots 0 to count - 1; 0 refuses.
        pub count: u32,
        pub flags: u32,
        /// Session affinity in seconds, 0 for none. Not read yet.
        pub affinity_s: u32,
    }
}

layout! {
    pub struct BackendKey {
        pub service: u32,
        pub slot: u32,
    }
}

layout! {
    pub struct Backend {
        pub addr: Addr,
        pub port: Port,
        pub flags: u16,
        /// The backend's number, the same under every Service that has it.
        pub id: u32,
    }
}
