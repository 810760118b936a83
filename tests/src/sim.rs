//! The whole control plane simulated from a seed: an in-memory API, the engines of controllers and
//! scheduler, made-up nodes. Watches lag, writes fail or only seem to, processes restart; then all
//! is calm, and the objects must be what their users asked for.

pub mod api;
pub mod check;
pub mod cluster;
pub mod life;
pub mod metrics;
mod node;
mod processes;
pub use processes::Faults;
pub mod rng;
pub mod sets;
pub mod storage;
