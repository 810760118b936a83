//! admissionregistration.k8s.io/v1 MutatingAdmissionPolicy. What its expressions may be is `policy`'s.
//!
//! Kubernetes has it as v1beta1 since 1.34; the types are those of v1alpha1, which differ in nothing.

use k8s_openapi::api::admissionregistration::v1alpha1::MutatingAdmissionPolicy;
use serde_json::Value;

use super::conditions::{is_blank, match_conditions};
use super::validating_admission_policy::{expressions, param_kind, variable};
use super::{FAILURE_POLICIES, GROUP, rules};
use crate::columns::{AGE, Column, NAME, Printer, age, list, name, text};
use crate::defaults::set;
use crate::resource::{Generation, Resource, Scope};
use crate::validation::{At, Errors};

/// The kinds of mutation, and where each says what it does.
const MUTATIONS: [(&str, &str); 2] = [
    ("ApplyConfiguration", "applyConfiguration"),
    ("JSONPatch", "jsonPatch"),
];

pub fn resource() -> Resource {
    Resource {
        version: "v1".into(),
        definition: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy".into(),
        categories: vec!["api-extensions".into()],
        scope: Scope::Cluster,
        generation: Generation::Spec,
        default,
        validate,
        printer: COLUMNS,
        ..Resource::of::<MutatingAdmissionPolicy>(
            GROUP,
            "admissionregistration",
            "mutatingadmissionpolicy",
            "mutatingadmissionpolicies",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Mutations", "How many mutations there are"),
        Column::text("ParamKind", "The kind of objects with parameters"),
        AGE,
    ],
    cells: |object, now| {
        let params = match text(object, "/spec/paramKind/kind") {
            "" => "<unset>".to_owned(),
            kind => format!("{}/{kind}", text(object, "/spec/paramKind/apiVersion")),
        };
        vec![
            name(object),
            list(object, "/spec/mutations").len().into(),
            params.into(),
            age(object, now),
        ]
    },
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

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    errors.one_of(&spec.field("failurePolicy"), &FAILURE_POLICIES);
    errors.one_of(&spec.field("reinvocationPolicy"), &["IfNeeded", "Never"]);
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
    let mutations = spec.field("mutations");
    if mutations.is_empty() {
        errors.required(&mutations, "mutations must contain at least one item");
    }
    mutations.items().for_each(|at| mutation(&at, errors));
    expressions(&spec, errors);
}

fn mutation(mutation: &At<'_>, errors: &mut Errors) {
    let kind = mutation.field("patchType");
    if !MUTATIONS.iter().any(|(name, _)| *name == kind.text()) {
        return errors.one_of(&kind, &MUTATIONS.map(|(name, _)| name));
    }
    for (name, field) in MUTATIONS {
        let at = mutation.field(field);
        if name != kind.text() {
            if !at.is_null() {
                let why = format!("must not be specified when patchType is {}", kind.text());
                errors.forbidden(&at, &why);
            }
            continue;
        }
        let why = format!("must be specified when patchType is {name}");
        if at.is_null() {
            errors.required(&at, &why);
            continue;
        }
        let expression = at.field("expression");
        if is_blank(&expression) {
            errors.required(&expression, "expression is not specified");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::old::testing::{assert_same, view};
    use crate::kinds::testing::{assert_wrong, created, row};

    fn policy() -> Value {
        json!({
            "metadata": {"name": "labels"},
            "spec": {
                "reinvocationPolicy": "Never",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
                    "resources": ["deployments"],
                }]},
                "mutations": [{
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {"expression": "Object{}"},
                }],
            },
        })
    }

    #[test]
    fn a_policy_fails_and_matches_equivalents_unless_it_says_otherwise() {
        let stored = created(&resource(), policy());
        assert_eq!(stored["apiVersion"], "admissionregistration.k8s.io/v1");
        assert_eq!(stored["spec"]["failurePolicy"], "Fail");
        assert_eq!(
            stored["spec"]["matchConstraints"]["matchPolicy"],
            "Equivalent"
        );
        assert_eq!(
            row(&resource(), &stored),
            json!(["labels", 1, "<unset>", "10m"])
        );
    }

    #[test]
    fn a_mutation_is_of_one_kind_and_says_what_it_does() {
        let at = "/spec/mutations/0";
        let path = "spec.mutations[0]";
        let cases = [
            (
                json!({"patchType": "Odd"}),
                format!(
                    r#"{path}.patchType: Unsupported value: "Odd": supported values: "ApplyConfiguration", "JSONPatch""#
                ),
            ),
            (
                json!({"patchType": "JSONPatch"}),
                format!(
                    "{path}.jsonPatch: Required value: must be specified when patchType is JSONPatch"
                ),
            ),
            (
                json!({"patchType": "JSONPatch", "jsonPatch": {"expression": " "}}),
                format!("{path}.jsonPatch.expression: Required value: expression is not specified"),
            ),
        ];
        for (mutation, why) in cases {
            assert_wrong(&resource(), &policy(), &[(at, mutation, &why)]);
        }
    }

    #[test]
    fn the_beta_version_is_the_same_policy() {
        let view = view(GROUP, "v1beta1", "mutatingadmissionpolicies");
        assert_same(view, policy(), policy());
    }
}
