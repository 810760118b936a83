//! rbac.authorization.k8s.io/v1 Role.

use k8s_openapi::api::rbac::v1::Role;

use super::GROUP;
use crate::columns::CREATED;
use crate::resource::{Behaviour, Resource, Scope};
use crate::validation::{At, Errors, NameRule};

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Role,
        name_rule: NameRule::PathSegment,
        validate: |object, errors| rules(object, Scope::Namespaced, errors),
        printer: CREATED,
        ..Resource::of::<Role>(GROUP, "rbac", "role", "roles")
    }
}

/// The rules of a role, which lives in a namespace or not.
pub(super) fn rules(object: &At<'_>, scope: Scope, errors: &mut Errors) {
    let rules = object.field("rules");
    rules.items().for_each(|at| rule(&at, scope, errors));
}

fn rule(rule: &At<'_>, scope: Scope, errors: &mut Errors) {
    let verbs = rule.field("verbs");
    if verbs.is_empty() {
        errors.required(&verbs, "verbs must contain at least one value");
    }
    let urls = rule.field("nonResourceURLs");
    let [groups, resources, names] =
        ["apiGroups", "resources", "resourceNames"].map(|field| rule.field(field));
    if !urls.is_empty() {
        if scope == Scope::Namespaced {
            let why = "namespaced rules cannot apply to non-resource URLs";
            errors.invalid(&urls, why);
        }
        if ![&groups, &resources, &names].iter().all(|at| at.is_empty()) {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&urls, why);
        }
        return;
    }
    if groups.is_empty() {
        errors.required(&groups, "resource rules must supply at least one api group");
    }
    if resources.is_empty() {
        errors.required(
            &resources,
            "resource rules must supply at least one resource",
        );
    }
    if !names.is_empty() && resources.items().count() > 1 {
        errors.required(&names, "resource names cannot apply to multiple resources");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{assert_wrong, created, row};

    fn role() -> Value {
        json!({
            "metadata": {"name": "system:leader-election"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        })
    }

    #[test]
    fn a_role_may_have_colons_in_its_name_and_is_stored_as_it_is_written() {
        assert_eq!(created(&resource(), role())["rules"], role()["rules"]);
    }

    #[test]
    fn a_rule_says_what_and_how() {
        let first = "/rules/0";
        assert_wrong(
            &resource(),
            &role(),
            &[
                (
                    "/metadata",
                    json!({"name": "a/b"}),
                    r#"metadata.name: Invalid value: "a/b": may not contain '/'"#,
                ),
                (
                    first,
                    json!({}),
                    "[rules[0].verbs: Required value: verbs must contain at least one value, \
                     rules[0].apiGroups: Required value: resource rules must supply at least one \
                     api group, rules[0].resources: Required value: resource rules must supply at \
                     least one resource]",
                ),
                (
                    first,
                    json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}),
                    r#"rules[0].nonResourceURLs: Invalid value: ["/healthz"]: namespaced rules cannot apply to non-resource URLs"#,
                ),
                (
                    first,
                    json!({
                        "verbs": ["get"], "apiGroups": [""], "resources": ["pods", "nodes"],
                        "resourceNames": ["a"],
                    }),
                    "rules[0].resourceNames: Required value: resource names cannot apply to \
                     multiple resources",
                ),
            ],
        );
    }

    #[test]
    fn a_row_shows_when_the_role_was_made() {
        let row = row(&resource(), &role());
        assert_eq!(
            row,
            json!(["system:leader-election", "2026-01-02T03:04:05Z"])
        );
    }
}
