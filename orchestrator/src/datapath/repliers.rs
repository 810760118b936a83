//! The filter before `flows_v1` when it is newer than the flows: an earlier agent's programs did not
//! keep it.

use std::path::Path;

use aya::maps::{Array, HashMap, MapData};
use orchestrator_common::maps::flows::{self, FLOWS, Flow, REPLIERS};
use orchestrator_common::{Scope, Tuple};

use super::DatapathError;
use super::maps::{failed, open};

type Row = [u8; REPLIERS.value_size as usize];

pub struct Repliers {
    flows: HashMap<MapData, Tuple, Flow>,
    rows: Array<MapData, Row>,
    is_new: bool,
}

impl Repliers {
    /// Opens what is pinned in `dir`.
    pub fn open(dir: &Path) -> Result<Self, DatapathError> {
        let rows: Array<MapData, Row> = open(dir, &REPLIERS)?;
        let mut is_new = true;
        for row in rows.iter() {
            let row = row.map_err(failed("read", REPLIERS.name))?;
            is_new &= row.iter().all(|byte| *byte == 0);
        }
        Ok(Self {
            flows: open(dir, &FLOWS)?,
            rows,
            is_new,
        })
    }

    /// Notes who answers in the flows that are there, unless the programs do so from the beginning.
    /// Before they begin, and once more for what was opened meanwhile.
    pub fn note(&mut self) -> Result<(), DatapathError> {
        if !self.is_new {
            return Ok(());
        }
        for entry in self.flows.iter() {
            let (key, flow) = entry.map_err(failed("read", FLOWS.name))?;
            if flow.direction != Flow::REPLY || key.scope != Scope::SERVICE {
                continue;
            }
            let (index, byte) = flows::replier(&key.src, key.src_port);
            let mut row = self
                .rows
                .get(&index, 0)
                .map_err(failed("read", REPLIERS.name))?;
            row[byte as usize] = 1;
            self.rows
                .set(index, row, 0)
                .map_err(failed("write to", REPLIERS.name))?;
        }
        Ok(())
    }
}
