//! The node itself: joining, its object and lease, its certificate, what the machine has.

pub mod cgroup;
pub mod facts;
pub mod farewell;
pub mod fence;
pub mod heartbeat;
pub mod join;
pub mod pressure;
pub mod register;
pub mod renewal;
pub mod reset;
pub mod running;
pub mod static_pods;
pub mod usage;
