//! The kinds of the group policy.

pub mod eviction;
pub mod old;
pub mod pod_disruption_budget;
