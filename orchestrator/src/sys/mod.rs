//! What every part of a process needs: clock, supervised tasks and ordered shutdown, telemetry,
//! certificates, files that are whole or absent. Imports nothing of ours.

pub mod certificates;
pub mod clock;
pub mod files;
pub mod random;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod tls;

pub use clock::{Clock, ManualClock, SystemClock};
pub use shutdown::Shutdown;
pub use tasks::Tasks;
