//! What mutating and validating webhooks have in common.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{FAILURE_POLICIES, MATCH_POLICIES, conditions::match_conditions, rules};
use crate::columns::{AGE, Column, NAME, Printer, age, list, name};
use crate::defaults::{items, set};
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors, names, webhooks};

/// Requests of a dry run reach webhooks without side effects only.
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];

/// What a webhook could say in v1beta1.
const SIDE_EFFECTS_OF_V1BETA1: &[&str] = &["None", "NoneOnDryRun", "Some", "Unknown"];

pub const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Webhooks", "How many webhooks there are"),
        AGE,
    ],
    cells,
};

pub fn default(object: &mut Value) {
    for webhook in items(object, "webhooks") {
        set(webhook, "failurePolicy", || "Fail".into());
        set(webhook, "matchPolicy", || "Equivalent".into());
        set(webhook, "namespaceSelector", || json!({}));
        set(webhook, "objectSelector", || json!({}));
        set(webhook, "timeoutSeconds", || 10.into());
        rules::default(webhook, "rules");
        if let Some(service) = webhook.pointer_mut("/clientConfig/service") {
            set(service, "port", || 443.into());
        }
    }
}

pub fn validate(object: &At<'_>, errors: &mut Errors) {
    let all = object.field("webhooks");
    let mut seen = BTreeSet::new();
    for at in all.items() {
        webhook(&at, SIDE_EFFECTS, errors);
        let missing = "must specify one of v1, v1beta1";
        webhooks::review_versions(&at.field("admissionReviewVersions"), missing, errors);
        let name = at.field("name");
        if !name.is_empty() && !seen.insert(name.text().to_owned()) {
            errors.duplicate(&name);
        }
    }
}

/// Names may repeat, a webhook may have side effects, and speak a version that nobody knows yet.
pub fn validate_of_v1beta1(object: &At<'_>, errors: &mut Errors) {
    let all = object.field("webhooks");
    for at in all.items() {
        webhook(&at, SIDE_EFFECTS_OF_V1BETA1, errors);
    }
}

fn webhook(webhook: &At<'_>, side_effects: &[&str], errors: &mut Errors) {
    fully_qualified(&webhook.field("name"), errors);
    let rules = webhook.field("rules");
    rules.items().for_each(|at| rules::rule(&at, errors));
    errors.one_of_if_any(&webhook.field("failurePolicy"), &FAILURE_POLICIES);
    errors.one_of_if_any(&webhook.field("matchPolicy"), &MATCH_POLICIES);
    let effects = webhook.field("sideEffects");
    if effects.is_empty() {
        let why = format!("must specify one of {}", side_effects.join(", "));
        errors.required(&effects, &why);
    } else {
        errors.one_of(&effects, side_effects);
    }
    let timeout = webhook.field("timeoutSeconds");
    if !(1..=30).contains(&timeout.number()) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(&timeout, why);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        label_selector(&webhook.field(field), errors);
    }
    let policy = webhook.field("reinvocationPolicy");
    errors.one_of_if_any(&policy, &["IfNeeded", "Never"]);
    webhooks::client(&webhook.field("clientConfig"), errors);
    match_conditions(&webhook.field("matchConditions"), false, errors);
}

/// A domain of three parts.
fn fully_qualified(name: &At<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(name, "");
    } else if let Err(why) = names::subdomain(name.text()) {
        errors.invalid(name, why);
    } else if name.text().split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.invalid(name, why);
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = list(object, "/webhooks").len();
    vec![name(object), count.into(), age(object, now)]
}
