//! The kinds of the group policy.

pub mod eviction;
