//! Where writes go: the real maps (`maps`) or an in-memory stand-in (`fake`).

use std::collections::BTreeSet;

use super::DatapathError;
use super::delta::Op;
use super::table::Tables;

/// The agent-owned maps.
pub trait Kernel {
    /// Every row there is.
    fn read(&self) -> Result<Tables, DatapathError>;

    /// The numbers of the backends that flows and clients hold on to, each while its generation is the
    /// same.
    fn remembered(&self) -> Result<BTreeSet<u32>, DatapathError>;

    /// Writes in order. Returns how many were done, and why not the next one: after an error that one's
    /// map is as before. Idempotent: deleting what is absent succeeds.
    fn write(&mut self, ops: &[Op]) -> (usize, Result<(), DatapathError>);
}
