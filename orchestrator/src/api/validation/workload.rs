//! Controllers of pods: selectors that select their own template, replicas, strategy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta_v1;

use super::{At, Errors, names, pod};
use crate::api::{meta, selector::LabelSelector};

const MISMATCH: &str = "`selector` does not match template `labels`";
const EMPTY: &str = "empty selector is invalid for deployment";

pub fn replication_controller(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    errors.not_negative(&spec.field("minReadySeconds"));
    errors.not_negative(&spec.field("replicas"));
    let selector = spec.field("selector");
    if selector.is_empty() {
        errors.required(&selector, "");
    }
    let template = spec.field("template");
    if template.is_null() {
        errors.required(&template, "");
        return;
    }
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    let selector = LabelSelector::from_map(&meta::string_map(selector.value));
    if !selector.is_everything() && !selector.matches(&meta::string_map(labels.value)) {
        errors.invalid(&labels, MISMATCH);
    }
    template_of_a_controller(&template, errors);
}

pub fn replica_set(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    errors.not_negative(&spec.field("minReadySeconds"));
    errors.not_negative(&spec.field("replicas"));
    selected_template(&spec, errors);
}

pub fn deployment(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    errors.not_negative(&spec.field("replicas"));
    errors.not_negative(&spec.field("minReadySeconds"));
    errors.not_negative(&spec.field("revisionHistoryLimit"));
    selected_template(&spec, errors);
    strategy(&spec.field("strategy"), errors);
    let deadline = spec.field("progressDeadlineSeconds");
    if deadline.is_null() {
        return;
    }
    errors.not_negative(&deadline);
    if deadline.number() <= spec.field("minReadySeconds").number() {
        errors.invalid(&deadline, "must be greater than minReadySeconds");
    }
}

pub fn scale(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    errors.not_negative(&spec.field("replicas"));
}

pub fn selector_is_immutable(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    errors.immutable(&new.field("selector"), &old.field("selector"));
}

fn selected_template(spec: &At<'_>, errors: &mut Errors) {
    let selector = spec.field("selector");
    label_selector(&selector, errors);
    let template = spec.field("template");
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    let typed = serde_json::from_value::<meta_v1::LabelSelector>(selector.value.clone());
    let parsed = typed
        .ok()
        .and_then(|s| LabelSelector::from_object(Some(&s)).ok());
    // Decoding fills in an empty selector where there is none, which is what people forget.
    if selector.is_empty() {
        errors.required(&selector, "");
        errors.invalid(&labels, MISMATCH);
    } else if parsed.as_ref().is_some_and(LabelSelector::is_everything) {
        errors.invalid(&selector, EMPTY);
    } else if parsed.is_some_and(|s| !s.matches(&meta::string_map(labels.value))) {
        errors.invalid(&labels, MISMATCH);
    }
    if template.is_null() {
        errors.required(&template, "");
        return;
    }
    template_of_a_controller(&template, errors);
}

/// A controller's pods run for ever.
fn template_of_a_controller(template: &At<'_>, errors: &mut Errors) {
    pod::template(template, errors);
    let spec = template.field("spec");
    let policy = spec.field("restartPolicy");
    if !policy.is_empty() && policy.text() != "Always" {
        errors.not_supported(&policy, &["Always"]);
    }
    let deadline = spec.field("activeDeadlineSeconds");
    if !deadline.is_null() {
        errors.forbidden(
            &deadline,
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

pub fn label_selector(selector: &At<'_>, errors: &mut Errors) {
    const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];
    super::object::labels(&selector.field("matchLabels"), errors);
    let expressions = selector.field("matchExpressions");
    for expression in expressions.items() {
        requirement(&expression, &OPERATORS, errors);
        let values = expression.field("values");
        for value in values.items() {
            errors.check(&value, names::label_value(value.text()));
        }
    }
}

/// What selectors of labels and of nodes have in common: a key, an operator, as many values as it takes.
pub fn requirement(expression: &At<'_>, operators: &[&str], errors: &mut Errors) {
    let key = expression.field("key");
    errors.check(&key, names::label_key(key.text()));
    let values = expression.field("values");
    let operator = expression.field("operator");
    match operator.text() {
        unknown if !operators.contains(&unknown) => {
            errors.invalid(&operator, "not a valid selector operator");
        }
        "In" | "NotIn" if values.is_empty() => errors.required(
            &values,
            "must be specified when `operator` is 'In' or 'NotIn'",
        ),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
            &values,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "Gt" | "Lt" if values.value.as_array().map_or(0, Vec::len) != 1 => errors.required(
            &values,
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        ),
        _ => {}
    }
}

fn strategy(strategy: &At<'_>, errors: &mut Errors) {
    let kind = strategy.field("type");
    let rolling = strategy.field("rollingUpdate");
    match kind.text() {
        "Recreate" if !rolling.is_null() => errors.forbidden(
            &rolling,
            "may not be specified when strategy `type` is 'Recreate'",
        ),
        "Recreate" => {}
        "RollingUpdate" => {
            let (most, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
            number_or_percent(&most, errors);
            number_or_percent(&surge, errors);
            if is_zero(&most) && is_zero(&surge) {
                errors.invalid(&most, "may not be 0 when `maxSurge` is 0");
            }
            if percent(&most).is_some_and(|percent| percent > 100) {
                errors.invalid(&most, "must not be greater than 100%");
            }
        }
        _ => errors.not_supported(&kind, &["Recreate", "RollingUpdate"]),
    }
}

fn number_or_percent(at: &At<'_>, errors: &mut Errors) {
    if !at.value.is_string() {
        errors.not_negative(at);
    } else if percent(at).is_none() {
        errors.invalid(
            at,
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. \
             '1%',  or '93%', regex used for validation is '[0-9]+%')",
        );
    }
}

fn percent(at: &At<'_>) -> Option<u64> {
    at.value.as_str()?.strip_suffix('%')?.parse().ok()
}

fn is_zero(at: &At<'_>) -> bool {
    percent(at).map_or_else(|| at.value == 0, |percent| percent == 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_percentage_is_digits_and_a_sign() {
        for (text, number) in [("25%", Some(25)), ("%", None), ("25", None), ("-1%", None)] {
            assert_eq!(percent(&At::root(&json!(text))), number, "{text}");
        }
    }
}
