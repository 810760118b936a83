//! Match conditions: names and expressions, which must compile.

use std::collections::BTreeSet;

use crate::policy;
use crate::validation::{At, Errors, names};

const MAX_CONDITIONS: usize = 64;

/// `has_params`: expressions may name the parameters of a policy.
pub fn match_conditions(conditions: &At<'_>, has_params: bool, errors: &mut Errors) {
    let count = conditions.items().count();
    if count > MAX_CONDITIONS {
        errors.too_many(conditions, count, MAX_CONDITIONS);
    }
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let (name, expression) = (condition.field("name"), condition.field("expression"));
        if is_blank(&expression) {
            errors.required(&expression, "");
        } else {
            let outcome = policy::check_condition(expression.text(), has_params);
            errors.check(&expression, outcome);
        }
        if name.is_empty() {
            errors.required(&name, "");
            continue;
        }
        errors.check(&name, names::label_key(name.text()));
        if !seen.insert(name.text().to_owned()) {
            errors.duplicate(&name);
        }
    }
}

/// Nothing but white-space.
pub fn is_blank(at: &At<'_>) -> bool {
    at.text().trim().is_empty()
}
