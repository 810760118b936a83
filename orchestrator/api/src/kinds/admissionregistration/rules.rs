//! Which requests a webhook or a policy is for: rules and selectors.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::MATCH_POLICIES;
use crate::defaults::{items, set};
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors, names};

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];

/// What a rule that does not say is for: objects in namespaces and others.
pub fn default(holder: &mut Value, list: &str) {
    for rule in items(holder, list) {
        set(rule, "scope", || "*".into());
    }
}

/// Of `matchConstraints` of a policy and `matchResources` of a binding.
pub fn default_match(resources: &mut Value) {
    if !resources.is_object() {
        return;
    }
    set(resources, "matchPolicy", || "Equivalent".into());
    for selector in ["namespaceSelector", "objectSelector"] {
        set(resources, selector, || json!({}));
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        default(resources, list);
    }
}

pub fn match_resources(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    errors.one_of(&at.field("matchPolicy"), &MATCH_POLICIES);
    for field in ["namespaceSelector", "objectSelector"] {
        label_selector(&at.field(field), errors);
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        let rules = at.field(field);
        for item in rules.items() {
            object_names(&item.field("resourceNames"), errors);
            rule(&item, errors);
        }
    }
}

pub fn rule(rule: &At<'_>, errors: &mut Errors) {
    let operations = rule.field("operations");
    required_and_alone(&operations, "operations", errors);
    for operation in operations.items() {
        if !OPERATIONS.contains(&operation.text()) {
            errors.not_supported(&operation, &OPERATIONS);
        }
    }
    required_and_alone(&rule.field("apiGroups"), "API groups", errors);
    let versions = rule.field("apiVersions");
    required_and_alone(&versions, "API versions", errors);
    for version in versions.items().filter(At::is_empty) {
        errors.required(&version, "");
    }
    resources(&rule.field("resources"), errors);
    errors.one_of_if_any(&rule.field("scope"), &SCOPES);
}

fn object_names(list: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for name in list.items() {
        errors.check(&name, names::path_segment(name.text()));
        if !seen.insert(name.text().to_owned()) {
            errors.duplicate(&name);
        }
    }
}

fn required_and_alone(list: &At<'_>, what: &str, errors: &mut Errors) {
    if list.is_empty() {
        errors.required(list, "");
    }
    let stars = list.items().filter(|item| item.text() == "*").count();
    if stars > 0 && list.items().count() > 1 {
        errors.invalid(
            list,
            format!("if '*' is present, must not specify other {what}"),
        );
    }
}

/// Resources with and without subresources; a star on either side stands for all.
fn resources(list: &At<'_>, errors: &mut Errors) {
    if list.is_empty() {
        errors.required(list, "");
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    for item in list.items() {
        let text = item.text();
        if text.is_empty() {
            errors.required(&item, "");
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else {
            continue;
        };
        let covered = [
            (whole.contains(resource), format!("{resource}/*")),
            (everywhere.contains(sub), format!("*/{sub}")),
        ];
        for (_, by) in covered.iter().filter(|(is, _)| *is) {
            errors.invalid(
                &item,
                format!("if '{by}' is present, must not specify {text}"),
            );
        }
        if sub == "*" {
            whole.insert(resource.to_owned());
        }
        if resource == "*" {
            everywhere.insert(sub.to_owned());
        }
    }
    let has = |wanted: &str| list.items().any(|item| item.text() == wanted);
    if has("*/*") && list.items().count() > 1 {
        let why = "if '*/*' is present, must not specify other resources";
        errors.invalid(list, why);
    }
    let is_plain = |item: &At<'_>| item.text() != "*" && !item.text().contains('/');
    if has("*") && list.items().any(|item| is_plain(&item) && !item.is_empty()) {
        errors.invalid(
            list,
            "if '*' is present, must not specify other resources without subresources",
        );
    }
}
