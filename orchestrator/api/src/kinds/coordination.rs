//! The kinds of the group coordination.

pub mod lease;
