//! The filter before `flows_v1` where flows are older than it: programs of an earlier agent opened them, and
//! its pods' programs go on to for a while, without a note.

use std::path::Path;

use aya::maps::{Array, MapData};
use orchestrator_common::maps::flows::{FLOWS, REPLIERS};

use super::DatapathError;
use super::maps::failed;

type Row = [u8; REPLIERS.value_size as usize];

/// Pins a filter that lets everybody through, until a reboot, if `dir` has flows and no filter. Whole or
/// not at all, and before the programs are loaded.
pub fn ensure(dir: &Path) -> Result<(), DatapathError> {
    let pin = dir.join(REPLIERS.name);
    if !dir.join(FLOWS.name).exists() || pin.exists() {
        return Ok(());
    }
    let rows = Array::<MapData, Row>::create(REPLIERS.max_entries, 0);
    let mut rows = rows.map_err(failed("make", REPLIERS.name))?;
    let row = [1; REPLIERS.value_size as usize];
    for index in 0..REPLIERS.max_entries {
        let done = rows.set(index, row, 0);
        done.map_err(failed("write to", REPLIERS.name))?;
    }
    rows.pin(pin)
        .map_err(|error| DatapathError::kernel(format!("pin the map {}", REPLIERS.name), error))
}
