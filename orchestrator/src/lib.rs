//! An orchestrator whose network is the kernel: the command line. Its parts are the crates beside `src`.
//!
//! `ARCHITECTURE.md` beside this crate is the map.

pub mod cli;

/// Of every program that links this crate, benches too. Most of what the API server does is to make and to
/// drop trees of JSON: beside glibc's heap it takes a seventh less CPU for the same load.
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;
