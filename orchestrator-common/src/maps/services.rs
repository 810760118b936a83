//! `services_v1`, `backends_v1`, `generations_v1`: what a Service's address becomes.
//!
//! Choosing a backend reads one row of each of the first two: the rows of a Service are slots 0 to
//! count - 1. Written so that every moment is safe: backends before the Service that counts them, a
//! smaller count before backends go.

use super::{MapKind, MapSpec, NO_PREALLOC, Owner};
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

/// Inner maps are arrays of slots, `Service::maglev` long.
pub const MAGLEV: MapSpec = MapSpec {
    name: "maglev_v1",
    kind: MapKind::HashOfMaps,
    key_size: size_of::<u32>() as u32,
    value_size: size_of::<u32>() as u32,
    max_entries: 16_384,
    flags: NO_PREALLOC,
    owner: Owner::Agent,
    holds: "Service number -> its Maglev table: position -> slot",
};

pub const SOURCE_RANGES: MapSpec = MapSpec {
    name: "source_ranges_v1",
    kind: MapKind::LpmTrie,
    key_size: size_of::<SourceRange>() as u32,
    value_size: size_of::<u32>() as u32,
    max_entries: 65_536,
    flags: NO_PREALLOC,
    owner: Owner::Agent,
    holds: "Service number, range -> its clients are admitted",
};

layout! {
    pub struct ServiceKey {
        pub addr: Addr,
        pub port: Port,
        pub proto: Proto,
        /// `ServiceKey::INSIDE` or `OUTSIDE`: for whom the row is. A Service's own address has no
        /// row for outside, which is what keeps outside out.
        pub scope: u8,
    }
}

impl ServiceKey {
    /// Asked by a pod or by the node.
    pub const INSIDE: u8 = 0;
    /// Asked by somebody on the uplink.
    pub const OUTSIDE: u8 = 1;

    /// For who asks inside the cluster.
    #[inline(always)]
    pub const fn new(addr: Addr, port: Port, proto: Proto) -> ServiceKey {
        ServiceKey {
            addr,
            port,
            proto,
            scope: ServiceKey::INSIDE,
        }
    }

    #[inline(always)]
    pub const fn outside(addr: Addr, port: Port, proto: Proto) -> ServiceKey {
        ServiceKey {
            addr,
            port,
            proto,
            scope: ServiceKey::OUTSIDE,
        }
    }

    /// A node port stands under the family's unspecified address.
    #[inline(always)]
    pub const fn node_port(self) -> ServiceKey {
        ServiceKey {
            addr: self.addr.any_of_family(),
            ..self
        }
    }
}

layout! {
    pub struct Service {
        /// Stable over the agent's restarts; 0 is no Service.
        pub id: u32,
        /// Backends in slots 0 to count - 1; 0 refuses.
        pub count: u32,
        /// `Service::SOURCE_RANGES` and the like; the upper half is the length of the Service's
        /// Maglev table, 0 to choose by chance.
        pub flags: u32,
        /// Session affinity in seconds, 0 for none.
        pub affinity_s: u32,
    }
}

impl Service {
    /// Only clients in `source_ranges_v1` may ask.
    pub const SOURCE_RANGES: u32 = 1;
    /// Has endpoints, but none that this row may use: asking is dropped instead of refused, so that
    /// who asks tries another node.
    pub const ELSEWHERE: u32 = 2;

    #[inline(always)]
    pub const fn maglev(&self) -> u32 {
        self.flags >> 16
    }

    pub const fn with_maglev(self, length: u16) -> Service {
        Service {
            flags: (self.flags & 0xffff) | ((length as u32) << 16),
            ..self
        }
    }
}

layout! {
    /// Key of `source_ranges_v1`. The first field is the kernel's: leading bits of the rest.
    pub struct SourceRange {
        /// 32 bits of `service`, then the range's own; 96 more for IPv4.
        pub prefix_length: u32,
        pub service: u32,
        pub addr: Addr,
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
