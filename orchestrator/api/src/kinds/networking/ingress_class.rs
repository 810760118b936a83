//! networking.k8s.io/v1 IngressClass.

use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::Value;

use crate::columns::{AGE, Column, NAME, Printer, age, name, text};
use crate::defaults::set;
use crate::resource::{Generation, Resource, Scope};
use crate::validation::{At, Errors, names};

const MAX_CONTROLLER_BYTES: usize = 250;

pub fn resource() -> Resource {
    Resource {
        scope: Scope::Cluster,
        generation: Generation::Spec,
        default,
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<IngressClass>(
            "networking.k8s.io",
            "networking",
            "ingressclass",
            "ingressclasses",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Controller", "Who serves the Ingresses of this class"),
        Column::text("Parameters", "An object with more for the controller"),
        AGE,
    ],
    cells: |object, now| {
        vec![
            name(object),
            text(object, "/spec/controller").into(),
            parameters(object).into(),
            age(object, now),
        ]
    },
};

fn default(object: &mut Value) {
    if let Some(parameters) = object.pointer_mut("/spec/parameters") {
        set(parameters, "scope", || "Cluster".into());
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let controller = spec.field("controller");
    if controller.is_empty() {
        errors.required(&controller, "");
    } else {
        if controller.text().len() > MAX_CONTROLLER_BYTES {
            errors.too_long(&controller, MAX_CONTROLLER_BYTES);
        }
        domain_prefixed_path(&controller, errors);
    }
    let parameters = spec.field("parameters");
    if parameters.is_null() {
        return;
    }
    typed_reference(&parameters, errors);
    let (scope, namespace) = (parameters.field("scope"), parameters.field("namespace"));
    match scope.text() {
        "Namespace" if namespace.is_null() => {
            errors.required(&namespace, "`parameters.scope` is set to 'Namespace'");
        }
        "Namespace" => errors.check(&namespace, names::label(namespace.text())),
        "Cluster" if !namespace.is_null() => {
            errors.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'");
        }
        "Cluster" => {}
        _ => errors.not_supported(&scope, &["Cluster", "Namespace"]),
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    errors.immutable(&new.field("controller"), &old.field("controller"));
}

/// What has a group, a kind and a name.
pub(super) fn typed_reference(at: &At<'_>, errors: &mut Errors) {
    let group = at.field("apiGroup");
    if !group.is_null() {
        errors.check(&group, names::subdomain(group.text()));
    }
    for field in ["kind", "name"] {
        let part = at.field(field);
        if part.is_empty() {
            errors.required(&part, "");
        } else {
            errors.check(&part, names::path_segment(part.text()));
        }
    }
}

/// `acme.io/foo`
fn domain_prefixed_path(at: &At<'_>, errors: &mut Errors) {
    let parts = at.text().split_once('/');
    let Some((domain, path)) = parts.filter(|(a, b)| !a.is_empty() && !b.is_empty()) else {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.invalid(at, why);
        return;
    };
    if let Err(why) = names::subdomain(domain) {
        errors.invalid_value(at, domain, why);
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    if !path.chars().all(fits) {
        let why = r"invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        errors.invalid_value(at, path, why);
    }
}

/// `Kind.group/name`
fn parameters(object: &Value) -> String {
    let Some(parameters) = object.pointer("/spec/parameters") else {
        return "<none>".into();
    };
    let (kind, name) = (text(parameters, "/kind"), text(parameters, "/name"));
    match text(parameters, "/apiGroup") {
        "" => format!("{kind}/{name}"),
        group => format!("{kind}.{group}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row};

    fn class() -> Value {
        json!({
            "metadata": {"name": "nginx"},
            "spec": {
                "controller": "k8s.io/ingress-nginx",
                "parameters": {"apiGroup": "k8s.example", "kind": "Parameters", "name": "all"},
            },
        })
    }

    #[test]
    fn parameters_are_the_clusters_unless_they_say_otherwise() {
        let stored = created(&resource(), class());
        assert_eq!(stored["spec"]["parameters"]["scope"], "Cluster");
        assert_eq!(stored["metadata"]["generation"], 1);
    }

    #[test]
    fn a_class_without_a_controller_or_with_strange_parameters_is_refused() {
        let parameters = "/spec/parameters";
        assert_wrong(
            &resource(),
            &class(),
            &[
                (
                    "/spec/controller",
                    Value::Null,
                    "spec.controller: Required value",
                ),
                (
                    "/spec/controller",
                    json!("nginx"),
                    r#"spec.controller: Invalid value: "nginx": must be a domain-prefixed path (such as "acme.io/foo")"#,
                ),
                (
                    parameters,
                    json!({"kind": "A", "name": "b", "scope": "Namespace"}),
                    "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
                ),
                (
                    parameters,
                    json!({"kind": "A", "name": "b", "namespace": "c"}),
                    "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
                ),
                (
                    parameters,
                    json!({"kind": "A", "name": "b", "scope": "World"}),
                    r#"spec.parameters.scope: Unsupported value: "World": supported values: "Cluster", "Namespace""#,
                ),
                (
                    parameters,
                    json!({"kind": "", "name": "a/b"}),
                    r#"[spec.parameters.kind: Required value, spec.parameters.name: Invalid value: "a/b": may not contain '/']"#,
                ),
            ],
        );
    }

    #[test]
    fn the_controller_of_a_class_does_not_change() {
        let old = created(&resource(), class());
        assert_refused(
            &resource(),
            &old,
            &[
                (
                    "/spec/controller",
                    json!("a.b/c"),
                    r#"spec.controller: Invalid value: "a.b/c": field is immutable"#,
                ),
                ("/spec/parameters", Value::Null, ""),
            ],
        );
    }

    #[test]
    fn a_row_shows_the_controller_and_its_parameters() {
        assert_eq!(
            row(&resource(), &class()),
            json!([
                "nginx",
                "k8s.io/ingress-nginx",
                "Parameters.k8s.example/all",
                "10m"
            ])
        );
    }
}
