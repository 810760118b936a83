//! The maps in memory, with room that runs out on demand: the stand-in for tests.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_common::{Addr, Port};

use super::DatapathError;
use super::delta::{Op, replay};
use super::kernel::Kernel;
use super::table::Tables;

#[derive(Clone, Debug, Default)]
pub struct Fake {
    pub tables: Tables,
    pub generations: BTreeMap<u32, u32>,
    /// Somebody was given each backend that there ever was, and remembers: its number and generation.
    pub clients: BTreeMap<(u32, u32), (Addr, Port)>,
    /// Every write, in order.
    pub log: Vec<Op>,
    /// Writes that still succeed; `None` is no limit.
    pub room: Option<usize>,
}

impl Kernel for Fake {
    fn read(&self) -> Result<Tables, DatapathError> {
        Ok(self.tables.clone())
    }

    fn remembered(&self) -> Result<BTreeSet<u32>, DatapathError> {
        let held = self.clients.keys();
        let held = held.filter(|(number, generation)| self.generation(*number) == *generation);
        Ok(held.map(|(number, _)| *number).collect())
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
            match op {
                Op::Raise(id) => *self.generations.entry(*id).or_default() += 1,
                Op::PutBackend(_, row) => {
                    let held = (row.id, self.generation(row.id));
                    self.clients.insert(held, (row.addr, row.port));
                }
                _ => {}
            }
            replay(&mut self.tables, op);
            self.log.push(op.clone());
        }
        (ops.len(), Ok(()))
    }
}

impl Fake {
    pub fn generation(&self, backend: u32) -> u32 {
        self.generations.get(&backend).copied().unwrap_or(0)
    }
}
