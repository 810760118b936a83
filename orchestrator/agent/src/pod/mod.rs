//! One pod: what it asks for, what is refused, the pure plan, the worker that carries it out, probes and status.

pub mod backoff;
pub mod defaults;
pub mod double;
pub mod downward;
pub mod env;
pub mod log_links;
pub mod plan;
pub mod pods;
pub mod prober;
pub mod probes;
pub mod qos;
pub mod quantity;
pub mod refuse;
pub mod resize;
pub mod shape;
pub mod status;
pub mod whole;
pub mod worker;
