//! `counters_v1`: packets by verdict and by drop reason. `service_counters_v1`,
//! `backend_counters_v1`: connections. `drops_v2`: the dropped packets
//! themselves.

use super::{MapKind, MapSpec, NO_PREALLOC, Owner};
use crate::layout::layout;
use crate::verdict::{DropReason, Verdict};

/// The row that counts records which found no room in `drops_v2`.
pub const LOST: u32 = 63;

/// The row that counts packets which XDP finished; they are counted by verdict and reason as well.
pub const XDP: u32 = 62;

/// The row that counts clients for which `affinity_v1` had no room: served, but not remembered.
pub const UNREMEMBERED: u32 = 61;

/// Verdicts have the rows below this, drop reasons those from it on.
pub const FIRST_REASON: u32 = 16;

pub const COUNTERS: MapSpec = MapSpec {
    name: "counters_v1",
    kind: MapKind::PerCpuArray,
    key_size: 4,
    value_size: 8,
    max_entries: 64,
    flags: 0,
    owner: Owner::Datapath,
    holds: "verdict or drop reason -> packets",
};

pub const DROPS: MapSpec = MapSpec {
    name: "drops_v2",
    kind: MapKind::RingBuffer,
    key_size: 0,
    value_size: 0,
    max_entries: 256 * 1024,
    flags: 0,
    owner: Owner::Datapath,
    holds: "records of dropped packets",
};

pub const SERVICE_COUNTERS: MapSpec = per_cpu("service_counters_v1", 65_536, "Service number");
pub const BACKEND_COUNTERS: MapSpec = per_cpu(
    "backend_counters_v1",
    super::services::MAX_BACKENDS,
    "backend number",
);

const fn per_cpu(name: &'static str, max_entries: u32, holds: &'static str) -> MapSpec {
    MapSpec {
        name,
        kind: MapKind::PerCpuHash,
        key_size: size_of::<u32>() as u32,
        value_size: size_of::<Connections>() as u32,
        max_entries,
        flags: NO_PREALLOC,
        owner: Owner::Datapath,
        holds,
    }
}

layout! {
    /// What one processor counted for a Service or a backend.
    pub struct Connections {
        /// Connections and flows that were opened.
        pub opened: u64,
        /// Those refused or dropped instead.
        pub refused: u64,
    }
}

/// The row of `counters_v1` that counts a verdict.
#[inline(always)]
pub const fn verdict_row(verdict: Verdict) -> u32 {
    verdict.number()
}

/// The row of `counters_v1` that counts a reason.
#[inline(always)]
pub const fn reason_row(reason: DropReason) -> u32 {
    FIRST_REASON + reason.number()
}
