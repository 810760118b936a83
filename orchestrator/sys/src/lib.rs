//! What every part of a process needs: supervised tasks and ordered shutdown, fair turns, telemetry,
//! certificates, files that are whole or absent, files below directories that others write, mounts, and
//! the front of a server: its connections and what a client may cost on one. Imports nothing of ours.

pub mod beneath;
pub mod certificates;
pub mod connections;
pub mod descriptors;
pub mod files;
pub mod front;
mod give_way;
pub mod https;
mod keep_alive;
pub mod mounts;
pub mod ownership;
pub mod privileges;
pub mod random;
pub mod relay;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod turns;

pub use give_way::give_way;
pub use keep_alive::keep_alive;
pub use shutdown::Shutdown;
pub use tasks::Tasks;
pub use turns::Turns;
