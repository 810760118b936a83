//! An orchestrator whose network is the kernel: the command line. Its parts are the crates beside `src`.
//!
//! `ARCHITECTURE.md` beside this crate is the map.

pub mod cli;
