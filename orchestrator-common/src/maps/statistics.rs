//! `counters_v1`: packets by verdict and by drop reason. `drops_v1`: the dropped packets
//! themselves.

use super::{MapKind, MapSpec, Owner};
use crate::verdict::{DropReason, Verdict};

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
    name: "drops_v1",
    kind: MapKind::RingBuffer,
    key_size: 0,
    value_size: 0,
    max_entries: 256 * 1024,
    flags: 0,
    owner: Owner::Datapath,
    holds: "records of dropped packets",
};

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
