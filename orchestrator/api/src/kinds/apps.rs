//! The kinds of the group apps.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod old;
pub mod replica_set;
pub mod stateful_set;
pub mod workload;
