//! admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy. What its expressions may be is `policy`'s.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use serde_json::{Value, json};

use super::conditions::{is_blank, match_conditions};
use super::{FAILURE_POLICIES, GROUP, rules};
use crate::columns::{AGE, Column, NAME, Printer, age, list, name, text};
use crate::defaults::set;
use crate::policy;
use crate::prepare::keep_metadata;
use crate::resource::{Generation, Resource, Scope, Subresource};
use crate::validation::{At, Errors, names};

const MAX_AUDIT_ANNOTATIONS: usize = 20;

const MAX_VALUE_EXPRESSION_BYTES: usize = 5 << 10;

const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];

/// Words of the language that name no variable.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

pub fn resource() -> Resource {
    Resource {
        categories: vec!["api-extensions".into()],
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        generation: Generation::Spec,
        has_status: true,
        default,
        create: |object| checked(object, 1),
        update: |new, old| {
            let before = old["metadata"]["generation"].as_i64().unwrap_or(1);
            checked(new, before + i64::from(new["spec"] != old["spec"]));
        },
        update_status: keep_metadata,
        validate,
        printer: COLUMNS,
        ..Resource::of::<ValidatingAdmissionPolicy>(
            GROUP,
            "admissionregistration",
            "validatingadmissionpolicy",
            "validatingadmissionpolicies",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Validations", "How many validations there are"),
        Column::text("ParamKind", "The kind of objects with parameters"),
        AGE,
    ],
    cells,
};

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    set(spec, "failurePolicy", || "Fail".into());
    if let Some(constraints) = spec.get_mut("matchConstraints") {
        rules::default_match(constraints);
    }
}

/// Clients wait for this before they use a policy. Expressions are checked when they are written, and
/// what an object is they see as a value of any type, so there is nothing to warn of.
fn checked(object: &mut Value, generation: i64) {
    object["status"]["observedGeneration"] = generation.into();
    set(&mut object["status"], "typeChecking", || json!({}));
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    errors.one_of(&spec.field("failurePolicy"), &FAILURE_POLICIES);
    let kind = spec.field("paramKind");
    if !kind.is_null() {
        param_kind(&kind, errors);
    }
    let constraints = spec.field("matchConstraints");
    if constraints.is_null() {
        errors.required(&constraints, "");
    } else {
        rules::match_resources(&constraints, errors);
        let rules = constraints.field("resourceRules");
        if rules.is_empty() {
            errors.required(&rules, "");
        }
    }
    match_conditions(&spec.field("matchConditions"), !kind.is_null(), errors);
    let variables = spec.field("variables");
    variables.items().for_each(|at| variable(&at, errors));
    let [validations, annotations] =
        ["validations", "auditAnnotations"].map(|field| spec.field(field));
    if validations.is_empty() && annotations.is_empty() {
        for at in [&validations, &annotations] {
            let why = "validations or auditAnnotations must contain at least one item";
            errors.required(at, why);
        }
        return;
    }
    validations.items().for_each(|at| validation(&at, errors));
    let metadata = object.field("metadata");
    audit_annotations(&annotations, metadata.field("name").text(), errors);
    expressions(&spec, errors);
}

/// Expressions must compile, in a policy with which nothing else is wrong.
pub(super) fn expressions(spec: &At<'_>, errors: &mut Errors) {
    if !errors.is_empty() {
        return;
    }
    for problem in policy::check(spec.value) {
        let list = spec.field(problem.list);
        let Some(item) = list.items().nth(problem.index) else {
            continue;
        };
        match problem.inside {
            Some(inside) => {
                let inside = item.field(inside);
                errors.invalid(&inside.field(problem.field), problem.why);
            }
            None => errors.invalid(&item.field(problem.field), problem.why),
        }
    }
}

pub(super) fn param_kind(kind: &At<'_>, errors: &mut Errors) {
    let (version, name) = (kind.field("apiVersion"), kind.field("kind"));
    let parts: Vec<&str> = version.text().split('/').collect();
    match parts[..] {
        [""] => errors.required(&version, ""),
        [only] => version_of_params(&version, only, errors),
        [group, of_it] => {
            if !group.is_empty()
                && let Err(why) = names::subdomain(group)
            {
                errors.invalid_value(&version, group, why);
            }
            version_of_params(&version, of_it, errors);
        }
        _ => {
            let why = format!("unexpected GroupVersion string: {}", version.text());
            errors.invalid(&version, why);
        }
    }
    if name.is_empty() {
        errors.required(&name, "");
    } else if let Err(why) = names::label_1035(&name.text().to_lowercase()) {
        let why = format!("may have mixed case, but should otherwise match: {why}");
        errors.invalid(&name, why);
    }
}

fn version_of_params(at: &At<'_>, version: &str, errors: &mut Errors) {
    if version.is_empty() {
        errors.invalid(at, "version must be specified");
    } else if let Err(why) = names::label_1035(version) {
        errors.invalid_value(at, version, why);
    }
}

pub(super) fn variable(variable: &At<'_>, errors: &mut Errors) {
    let (name, expression) = (variable.field("name"), variable.field("expression"));
    if is_blank(&name) {
        errors.required(&name, "name is not specified");
    } else if !is_identifier(name.text()) {
        errors.invalid(&name, "name is not a valid CEL identifier");
    }
    if is_blank(&expression) {
        errors.required(&expression, "expression is not specified");
    }
}

fn is_identifier(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.chars().all(fits)
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && !RESERVED.contains(&text)
}

fn validation(validation: &At<'_>, errors: &mut Errors) {
    let [expression, other, message, reason] =
        ["expression", "messageExpression", "message", "reason"].map(|f| validation.field(f));
    if is_blank(&expression) {
        errors.required(&expression, "expression is not specified");
    }
    if !other.is_empty() && is_blank(&other) {
        errors.invalid(&other, "must be non-empty if specified");
    }
    if !message.is_empty() && is_blank(&message) {
        errors.invalid(&message, "message must be non-empty if specified");
    } else if message.text().trim().contains(['\n', '\r']) {
        errors.invalid(&message, "message must not contain line breaks");
    }
    errors.one_of_if_any(&reason, &REASONS);
}

fn audit_annotations(annotations: &At<'_>, policy: &str, errors: &mut Errors) {
    if annotations.items().count() > MAX_AUDIT_ANNOTATIONS {
        let why = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        errors.invalid(annotations, why);
    }
    let mut seen = BTreeSet::new();
    for annotation in annotations.items() {
        let (key, value) = (annotation.field("key"), annotation.field("valueExpression"));
        let full = format!("{policy}/{}", key.text());
        if let Err(why) = names::label_key(&full) {
            errors.invalid_value(&key, &full, why);
        }
        if is_blank(&value) {
            errors.required(&value, "valueExpression is not specified");
        } else if value.text().trim().len() > MAX_VALUE_EXPRESSION_BYTES {
            let why = format!("must not exceed {MAX_VALUE_EXPRESSION_BYTES} bytes in length");
            errors.required(&value, &why);
        }
        if !seen.insert(key.text().to_owned()) {
            errors.duplicate(&key);
        }
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let kind = match object.pointer("/spec/paramKind") {
        Some(kind) => format!("{}/{}", text(kind, "/apiVersion"), text(kind, "/kind")),
        None => "<unset>".into(),
    };
    vec![
        name(object),
        list(object, "/spec/validations").len().into(),
        kind.into(),
        age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{assert_wrong, created, row, updated, with};

    fn policy() -> Value {
        json!({
            "metadata": {"name": "replica-limit"},
            "spec": {
                "paramKind": {"apiVersion": "rules.example.com/v1", "kind": "ReplicaLimit"},
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
                    "resources": ["deployments"],
                }]},
                "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
                "validations": [{"expression": "variables.replicas <= params.max"}],
            },
        })
    }

    #[test]
    fn a_policy_fails_closed_and_is_for_equivalent_requests_unless_it_says_otherwise() {
        let stored = created(&resource(), policy());
        assert_eq!(stored["spec"]["failurePolicy"], "Fail");
        let constraints = &stored["spec"]["matchConstraints"];
        assert_eq!(constraints["matchPolicy"], "Equivalent");
        assert_eq!(constraints["namespaceSelector"], json!({}));
        assert_eq!(constraints["objectSelector"], json!({}));
        assert_eq!(constraints["resourceRules"][0]["scope"], "*");
        let status = json!({"observedGeneration": 1, "typeChecking": {}});
        assert_eq!(stored["status"], status);
    }

    #[test]
    fn a_policy_that_checks_nothing_or_says_nothing_is_refused() {
        assert_wrong(
            &resource(),
            &policy(),
            &[
                (
                    "/spec/matchConstraints",
                    Value::Null,
                    "spec.matchConstraints: Required value",
                ),
                (
                    "/spec/matchConstraints",
                    json!({}),
                    "spec.matchConstraints.resourceRules: Required value",
                ),
                (
                    "/spec/validations",
                    json!([]),
                    "[spec.validations: Required value: validations or auditAnnotations must \
                     contain at least one item, spec.auditAnnotations: Required value: validations \
                     or auditAnnotations must contain at least one item]",
                ),
                (
                    "/spec/validations/0",
                    json!({"expression": " ", "message": "a\nb", "reason": "Because"}),
                    r#"[spec.validations[0].expression: Required value: expression is not specified, spec.validations[0].message: Invalid value: "a\nb": message must not contain line breaks, spec.validations[0].reason: Unsupported value: "Because": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge"]"#,
                ),
                (
                    "/spec/variables/0",
                    json!({"name": "for", "expression": "1"}),
                    r#"spec.variables[0].name: Invalid value: "for": name is not a valid CEL identifier"#,
                ),
                (
                    "/spec/paramKind",
                    json!({"apiVersion": "a/b/c", "kind": ""}),
                    r#"[spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c, spec.paramKind.kind: Required value]"#,
                ),
                (
                    "/spec/auditAnnotations",
                    json!([{"key": "a", "valueExpression": "1"}, {"key": "a", "valueExpression": ""}]),
                    r#"[spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified, spec.auditAnnotations[1].key: Duplicate value: "a"]"#,
                ),
            ],
        );
    }

    #[test]
    fn a_change_of_a_policy_counts_a_generation() {
        let old = created(&resource(), policy());
        let new = with(&old, "/spec/failurePolicy", json!("Ignore"));
        let new = updated(&resource(), &old, new, None);
        assert_eq!(new["metadata"]["generation"], 2);
        assert_eq!(new["status"]["observedGeneration"], 2);
    }

    #[test]
    fn a_row_shows_how_many_validations_and_which_parameters() {
        assert_eq!(
            row(&resource(), &policy()),
            json!([
                "replica-limit",
                1,
                "rules.example.com/v1/ReplicaLimit",
                "10m",
            ])
        );
    }
}
