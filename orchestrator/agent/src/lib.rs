//! One node: registers it, keeps its lease, runs its pods and hands the datapath its view.
//!
//! Order of a start: engine and membership side by side; the node's object and lease; as soon as
//! the node has a pod range the datapath and the pods that still run; then everything that watches.
//! An agent that stops or dies leaves pods, links and the datapath at work; the next one adopts them.

pub mod api;
pub mod dns;
mod grpc;
pub mod metrics;
pub mod network;
pub mod node;
pub mod pod;
pub mod runtime;
pub mod start;
mod telling;
pub mod volumes;

pub use start::{AgentConfig, AgentError, run};
