//! Where writes go: the real maps (`maps`) or an in-memory stand-in (`fake`).

use super::DatapathError;
use super::delta::Op;
use super::table::Tables;

/// The agent-owned maps.
pub trait Kernel {
    /// Every row there is.
    fn read(&self) -> Result<Tables, DatapathError>;

    /// One write. Idempotent: deleting what is absent succeeds. After an error the map is as before.
    fn write(&mut self, op: Op) -> Result<(), DatapathError>;
}
