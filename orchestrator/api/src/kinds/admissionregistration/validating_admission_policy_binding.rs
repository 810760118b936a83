//! admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding: where a policy is in force.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use serde_json::Value;

use super::{GROUP, rules};
use crate::columns::{AGE, Column, NAME, Printer, age, format_selector, name, text};
use crate::defaults::set;
use crate::resource::{Generation, Resource, Scope};
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors, names};

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

pub fn resource() -> Resource {
    Resource {
        categories: vec!["api-extensions".into()],
        scope: Scope::Cluster,
        generation: Generation::Spec,
        default,
        validate,
        printer: COLUMNS,
        ..Resource::of::<ValidatingAdmissionPolicyBinding>(
            GROUP,
            "admissionregistration",
            "validatingadmissionpolicybinding",
            "validatingadmissionpolicybindings",
        )
    }
}

pub(super) const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("PolicyName", "The policy"),
        Column::text("ParamRef", "The objects with its parameters"),
        AGE,
    ],
    cells,
};

pub(super) fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    if let Some(params) = spec.get_mut("paramRef") {
        set(params, "parameterNotFoundAction", || "Deny".into());
    }
    if let Some(resources) = spec.get_mut("matchResources") {
        rules::default_match(resources);
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    validate_reach(object, errors);
    let spec = object.field("spec");
    actions(&spec.field("validationActions"), errors);
}

/// The policy, its parameters and what it is about.
pub(super) fn validate_reach(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let policy = spec.field("policyName");
    if policy.is_empty() {
        errors.required(&policy, "");
    } else {
        errors.check(&policy, names::subdomain(policy.text()));
    }
    let params = spec.field("paramRef");
    if !params.is_null() {
        param_ref(&params, errors);
    }
    rules::match_resources(&spec.field("matchResources"), errors);
}

fn param_ref(params: &At<'_>, errors: &mut Errors) {
    let (name, selector) = (params.field("name"), params.field("selector"));
    match (name.is_empty(), selector.is_null()) {
        (false, false) => {
            for at in [&name, &selector] {
                errors.forbidden(at, "name and selector are mutually exclusive");
            }
        }
        (true, true) => errors.required(params, "one of name or selector must be specified"),
        _ => {}
    }
    errors.check(&name, names::path_segment(name.text()));
    label_selector(&selector, errors);
    let action = params.field("parameterNotFoundAction");
    errors.one_of(&action, &["Deny", "Allow"]);
}

fn actions(actions: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for action in actions.items() {
        if !ACTIONS.contains(&action.text()) {
            errors.not_supported(&action, &ACTIONS);
        }
        if !seen.insert(action.text().to_owned()) {
            errors.duplicate(&action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        errors.invalid(
            actions,
            "must not contain both Deny and Warn (repeating the same validation failure \
             information in the API response and headers serves no purpose)",
        );
    }
    if seen.is_empty() {
        errors.required(actions, "at least one validation action is required");
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let params = object.pointer("/spec/paramRef").map(|params| {
        match (text(params, "/namespace"), text(params, "/name")) {
            (_, "") => format_selector(params.get("selector")),
            // Whether the parameters have a namespace of their own is not known here.
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        }
    });
    vec![
        name(object),
        text(object, "/spec/policyName").into(),
        params.unwrap_or_else(|| "<unset>".into()).into(),
        age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{assert_wrong, created, row, updated, with};

    fn binding() -> Value {
        json!({
            "metadata": {"name": "replica-limit"},
            "spec": {
                "policyName": "replica-limit",
                "paramRef": {"name": "limits", "namespace": "default"},
                "matchResources": {"namespaceSelector": {"matchLabels": {"env": "test"}}},
                "validationActions": ["Deny"],
            },
        })
    }

    #[test]
    fn a_binding_denies_without_parameters_unless_it_says_otherwise() {
        let spec = created(&resource(), binding())["spec"].clone();
        assert_eq!(spec["paramRef"]["parameterNotFoundAction"], "Deny");
        assert_eq!(spec["matchResources"]["matchPolicy"], "Equivalent");
        assert_eq!(spec["matchResources"]["objectSelector"], json!({}));
    }

    #[test]
    fn a_binding_without_a_policy_or_an_action_is_refused() {
        assert_wrong(
            &resource(),
            &binding(),
            &[
                (
                    "/spec/policyName",
                    json!(""),
                    "spec.policyName: Required value",
                ),
                (
                    "/spec/validationActions",
                    json!([]),
                    "spec.validationActions: Required value: at least one validation action is \
                     required",
                ),
                (
                    "/spec/validationActions",
                    json!(["Deny", "Warn"]),
                    r#"spec.validationActions: Invalid value: ["Deny","Warn"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"#,
                ),
                (
                    "/spec/paramRef",
                    json!({}),
                    "spec.paramRef: Required value: one of name or selector must be specified",
                ),
                (
                    "/spec/paramRef",
                    json!({"name": "a", "selector": {}}),
                    "[spec.paramRef.name: Forbidden: name and selector are mutually exclusive, \
                     spec.paramRef.selector: Forbidden: name and selector are mutually exclusive]",
                ),
            ],
        );
    }

    #[test]
    fn a_change_of_a_binding_counts_a_generation() {
        let old = created(&resource(), binding());
        let new = with(&old, "/spec/validationActions", json!(["Audit"]));
        assert_eq!(
            updated(&resource(), &old, new, None)["metadata"]["generation"],
            2
        );
    }

    #[test]
    fn a_row_shows_the_policy_and_its_parameters() {
        assert_eq!(
            row(&resource(), &binding()),
            json!(["replica-limit", "replica-limit", "default/limits", "10m"])
        );
    }
}
