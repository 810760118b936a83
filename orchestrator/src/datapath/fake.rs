//! The maps in memory, with room that runs out on demand: the stand-in for tests.

use std::collections::BTreeMap;

use super::DatapathError;
use super::delta::{Op, replay};
use super::kernel::Kernel;
use super::table::Tables;

#[derive(Clone, Debug, Default)]
pub struct Fake {
    pub tables: Tables,
    pub generations: BTreeMap<u32, u32>,
    /// Every write, in order.
    pub log: Vec<Op>,
    /// Writes that still succeed; `None` is no limit.
    pub room: Option<usize>,
}

impl Kernel for Fake {
    fn read(&self) -> Result<Tables, DatapathError> {
        Ok(self.tables.clone())
    }

    fn write(&mut self, ops: &[Op]) -> (usize, Result<(), DatapathError>) {
        for (done, op) in ops.iter().enumerate() {
            if let Some(room) = &mut self.room {
                let Some(left) = room.checked_sub(1) else {
                    let full = std::io::ErrorKind::StorageFull.into();
                    return (done, Err(DatapathError::io("write to a full map", full)));
                };
                *room = left;
            }
            if let Op::Raise(id) = op {
                *self.generations.entry(*id).or_default() += 1;
            }
            replay(&mut self.tables, op);
            self.log.push(op.clone());
        }
        (ops.len(), Ok(()))
    }
}
