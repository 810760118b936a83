//! The kinds of the group flowcontrol.apiserver.k8s.io.

pub mod flow_schema;
pub mod old;
pub mod priority_level_configuration;

use std::collections::BTreeSet;

use crate::validation::{At, Errors};

pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// Conditions of a status: each has a type, and there is one of each.
fn validate_status(object: &At<'_>, errors: &mut Errors) {
    let status = object.field("status");
    let conditions = status.field("conditions");
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let kind = condition.field("type");
        if !seen.insert(kind.text().to_owned()) {
            errors.duplicate(&kind);
        }
        if kind.is_empty() {
            errors.required(&kind, "must not be empty");
        }
    }
}
