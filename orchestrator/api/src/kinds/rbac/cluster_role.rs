//! rbac.authorization.k8s.io/v1 ClusterRole.

use k8s_openapi::api::rbac::v1::ClusterRole;

use super::{GROUP, role::rules};
use crate::columns::CREATED;
use crate::resource::{Behaviour, Resource, Scope};
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors, NameRule};

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Role,
        scope: Scope::Cluster,
        name_rule: NameRule::PathSegment,
        validate,
        printer: CREATED,
        ..Resource::of::<ClusterRole>(GROUP, "rbac", "clusterrole", "clusterroles")
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    rules(object, Scope::Cluster, errors);
    let aggregation = object.field("aggregationRule");
    if aggregation.is_null() {
        return;
    }
    let selectors = aggregation.field("clusterRoleSelectors");
    if selectors.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.required(&selectors, why);
    }
    selectors.items().for_each(|at| label_selector(&at, errors));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{assert_wrong, created, row};

    fn role() -> Value {
        json!({
            "metadata": {"name": "system:monitoring"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]},
            "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
        })
    }

    #[test]
    fn a_cluster_role_is_stored_as_it_is_written() {
        let stored = created(&resource(), role());
        assert_eq!(stored["rules"], role()["rules"]);
        assert_eq!(stored["aggregationRule"], role()["aggregationRule"]);
    }

    #[test]
    fn a_rule_is_for_resources_or_for_paths() {
        assert_wrong(
            &resource(),
            &role(),
            &[
                (
                    "/rules/0",
                    json!({"nonResourceURLs": ["/a"], "verbs": ["get"], "resources": ["pods"]}),
                    r#"rules[0].nonResourceURLs: Invalid value: ["/a"]: rules cannot apply to both regular resources and non-resource URLs"#,
                ),
                (
                    "/aggregationRule",
                    json!({}),
                    "aggregationRule.clusterRoleSelectors: Required value: at least one \
                     clusterRoleSelector required if aggregationRule is non-nil",
                ),
            ],
        );
    }

    #[test]
    fn a_row_shows_when_the_role_was_made() {
        let row = row(&resource(), &role());
        assert_eq!(row, json!(["system:monitoring", "2026-01-02T03:04:05Z"]));
    }
}
