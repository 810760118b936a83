//! The datapath against its rivals, side by side: load, sides, cases, statistics, report.
//!
//! Every side is a small cluster of network namespaces of the same shape; rounds of the sides are
//! interleaved, and a ratio is taken within a round, so that a machine whose speed drifts slows
//! both. Our socket programs are attached to a cgroup of our own side's load processes only.

pub mod agent;
pub mod awake;
pub mod case;
pub mod cases;
pub mod cluster;
pub mod death;
pub mod dns;
pub mod engine_alone;
pub mod floor;
pub mod load;
pub mod pods;
pub mod programs;
pub mod report;
pub mod rival;
pub mod rounds;
pub mod rules;
pub mod service;
pub mod side;
pub mod stage;
pub mod statistics;
