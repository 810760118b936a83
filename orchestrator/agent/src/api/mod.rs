//! What the agent and the API server tell each other: its client, the objects that pods refer to, events, and what it serves itself.

pub mod client;
pub mod events;
pub mod pauses;
pub mod serve;
pub mod servers;
mod silence;
pub mod sources;
pub mod trust_bundles;
pub mod watched;
