//! The kinds of the group admissionregistration.k8s.io.

mod conditions;
pub mod mutating_admission_policy;
pub mod mutating_admission_policy_binding;
pub mod mutating_webhook_configuration;
pub mod old;
mod rules;
pub mod validating_admission_policy;
pub mod validating_admission_policy_binding;
pub mod validating_webhook_configuration;
mod webhook;

pub const GROUP: &str = "admissionregistration.k8s.io";

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];

const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
