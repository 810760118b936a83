//! The audit log: who has asked for what, and what became of it.
//!
//! A [`Trail`] goes with each request, from its first look at the policy to the last byte of its
//! answer; whoever learns something that belongs into the log tells the trail. While nothing is
//! logged a trail is empty and costs nothing.

mod trail;

pub use trail::{Level, Trail};
