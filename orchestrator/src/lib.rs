//! An orchestrator whose network is the kernel: one library, one binary.
//!
//! `ARCHITECTURE.md` beside this crate is the map; `cargo xtask tidy` checks who may import whom.

pub mod agent;
pub mod api;
pub mod apiserver;
pub mod cli;
pub mod client;
pub mod controllers;
pub mod datapath;
pub mod scheduler;
pub mod store;
pub mod sys;
