//! rbac.authorization.k8s.io/v1 ClusterRoleBinding.

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;

use super::{GROUP, binding};
use crate::resource::{Behaviour, Resource, Scope};
use crate::validation::NameRule;

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::RoleBinding,
        scope: Scope::Cluster,
        name_rule: NameRule::PathSegment,
        default: binding::default,
        validate: |object, errors| binding::validate(object, Scope::Cluster, errors),
        validate_update: binding::validate_update,
        printer: binding::COLUMNS,
        ..Resource::of::<ClusterRoleBinding>(
            GROUP,
            "rbac",
            "clusterrolebinding",
            "clusterrolebindings",
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row};

    fn binding() -> Value {
        json!({
            "metadata": {"name": "operators"},
            "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "Group", "name": "ops"}],
        })
    }

    #[test]
    fn the_group_of_a_role_and_of_people_need_not_be_said() {
        let stored = created(&resource(), binding());
        assert_eq!(stored["roleRef"]["apiGroup"], GROUP);
        assert_eq!(stored["subjects"][0]["apiGroup"], GROUP);
    }

    #[test]
    fn a_binding_of_the_cluster_names_namespaces_and_cluster_roles() {
        assert_wrong(
            &resource(),
            &binding(),
            &[
                (
                    "/roleRef",
                    json!({"kind": "Role", "name": "a"}),
                    r#"roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole""#,
                ),
                (
                    "/subjects/0",
                    json!({"kind": "ServiceAccount", "name": "ci"}),
                    "subjects[0].namespace: Required value",
                ),
            ],
        );
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let old = created(&resource(), binding());
        assert_refused(
            &resource(),
            &old,
            &[(
                "/roleRef/name",
                json!("view"),
                r#"roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"}: cannot change roleRef"#,
            )],
        );
    }

    #[test]
    fn a_row_shows_the_role_and_who_has_it() {
        assert_eq!(
            row(&resource(), &binding()),
            json!([
                "operators",
                "ClusterRole/cluster-admin",
                "10m",
                "",
                "ops",
                ""
            ])
        );
    }
}
