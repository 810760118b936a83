//! One node: registers it, keeps its lease, runs its pods and hands the datapath its view.
//!
//! Order of a start: engine and membership side by side; the node's object and lease; as soon as
//! the node has a pod range the datapath and the pods that still run; then everything that watches.
//! An agent that stops or dies leaves pods, links and the datapath at work; the next one adopts them.

pub mod backoff;
pub mod client;
pub mod container_spec;
pub mod defaults;
pub mod downward;
pub mod drain;
pub mod drops;
pub mod env;
pub mod events;
pub mod facts;
pub mod feed;
pub mod health_checks;
pub mod heartbeat;
pub mod image_name;
pub mod image_root;
pub mod ipam;
pub mod join;
pub mod metrics;
pub mod pod_net;
pub mod pod_plan;
pub mod pod_qos;
pub mod pod_shape;
pub mod pod_status;
pub mod pod_worker;
pub mod pods;
pub mod prober;
pub mod probes;
pub mod quantity;
pub mod refuse;
pub mod register;
pub mod renewal;
pub mod reset;
pub mod runtime;
pub mod serve;
pub mod sources;
pub mod start;
pub mod volumes;
pub mod watched;
pub mod wiring;

pub use start::{AgentConfig, AgentError, run};
