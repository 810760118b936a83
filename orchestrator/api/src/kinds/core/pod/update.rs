//! What of a pod may change once it is there.

use serde_json::Value;

use crate::validation::changes::{differences, replace};
use crate::validation::{At, Errors};

const FORBIDDEN: &str = "pod updates may not change fields other than \
    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub fn pod_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    for list in ["containers", "initContainers"] {
        let (now, before) = (new.field(list), old.field(list));
        if length(&now) != length(&before) {
            errors.forbidden(&now, "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(
        &new.field("activeDeadlineSeconds"),
        &old.field("activeDeadlineSeconds"),
        errors,
    );
    tolerations(&new.field("tolerations"), &old.field("tolerations"), errors);
    gates(
        &new.field("schedulingGates"),
        &old.field("schedulingGates"),
        errors,
    );
    let mut rest = new.value.clone();
    allow(&mut rest, old.value);
    if rest != *old.value {
        let changed = differences(&rest, old.value, "spec");
        errors.forbidden(
            &new,
            &format!("{FORBIDDEN}\n  changed: {}\n", changed.join(", ")),
        );
    }
}

fn length(list: &At<'_>) -> usize {
    list.value.as_array().map_or(0, Vec::len)
}

fn deadline(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    if old.is_null() {
        return;
    }
    if new.is_null() {
        errors.invalid(new, "must not update from a positive integer to nil value");
    } else if new.number() > old.number() {
        errors.invalid(new, "must be less than or equal to previous value");
    }
}

/// Each toleration that was there must still be; only how long it tolerates may differ.
fn tolerations(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let without_seconds = |toleration: &Value| {
        let mut rest = toleration.clone();
        rest.as_object_mut()
            .map(|rest| rest.remove("tolerationSeconds"));
        rest
    };
    let now: Vec<Value> = new.items().map(|t| without_seconds(t.value)).collect();
    if !old.items().all(|t| now.contains(&without_seconds(t.value))) {
        errors.forbidden(
            new,
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

/// A gate can only be opened.
fn gates(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    for gate in new.items() {
        if !old.items().any(|before| before.value == gate.value) {
            let name = gate.field("name");
            let detail = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                name.text()
            );
            errors.forbidden(new, &detail);
        }
    }
}

/// Puts the old values in place of what may change.
fn allow(new: &mut Value, old: &Value) {
    for list in ["containers", "initContainers"] {
        let before = old[list].as_array().into_iter().flatten();
        let now = new
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten();
        for (now, before) in now.zip(before) {
            if now["name"] == before["name"] {
                replace(now, before, "image");
            }
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        replace(new, old, field);
    }
    let grace = "terminationGracePeriodSeconds";
    if old[grace].as_i64().is_some_and(|seconds| seconds < 0) && new[grace] == 1 {
        replace(new, old, grace);
    }
}
