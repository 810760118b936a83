//! rbac.authorization.k8s.io/v1 RoleBinding.

use k8s_openapi::api::rbac::v1::RoleBinding;

use super::{GROUP, binding};
use crate::resource::{Behaviour, Resource, Scope};
use crate::validation::NameRule;

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::RoleBinding,
        name_rule: NameRule::PathSegment,
        default: binding::default,
        validate: |object, errors| binding::validate(object, Scope::Namespaced, errors),
        validate_update: binding::validate_update,
        printer: binding::COLUMNS,
        ..Resource::of::<RoleBinding>(GROUP, "rbac", "rolebinding", "rolebindings")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row};

    fn binding() -> Value {
        json!({
            "metadata": {"name": "read:pods"},
            "roleRef": {"kind": "Role", "name": "pod-reader"},
            "subjects": [
                {"kind": "User", "name": "jane"},
                {"kind": "ServiceAccount", "name": "ci", "namespace": "build"},
            ],
        })
    }

    #[test]
    fn the_group_of_a_role_and_of_people_need_not_be_said() {
        let stored = created(&resource(), binding());
        assert_eq!(stored["roleRef"]["apiGroup"], GROUP);
        assert_eq!(stored["subjects"][0]["apiGroup"], GROUP);
        assert_eq!(stored["subjects"][1].get("apiGroup"), None);
    }

    #[test]
    fn a_binding_names_a_role_and_subjects_of_known_kinds() {
        let first = "/subjects/0";
        assert_wrong(
            &resource(),
            &binding(),
            &[
                (
                    "/roleRef",
                    json!({"kind": "Rule", "name": ""}),
                    r#"[roleRef.kind: Unsupported value: "Rule": supported values: "Role", "ClusterRole", roleRef.name: Required value]"#,
                ),
                (
                    "/roleRef",
                    json!({"kind": "Role", "name": "a", "apiGroup": "b"}),
                    r#"roleRef.apiGroup: Unsupported value: "b": supported values: "rbac.authorization.k8s.io""#,
                ),
                (
                    first,
                    json!({"kind": "Person", "name": "jane"}),
                    r#"subjects[0].kind: Unsupported value: "Person": supported values: "ServiceAccount", "User", "Group""#,
                ),
                (
                    first,
                    json!({"kind": "User", "name": ""}),
                    r#"[subjects[0].name: Required value, subjects[0].name: Invalid value: "": user name cannot be empty]"#,
                ),
                (
                    first,
                    json!({"kind": "ServiceAccount", "name": "a", "apiGroup": GROUP}),
                    r#"subjects[0].apiGroup: Unsupported value: "rbac.authorization.k8s.io": supported values: """#,
                ),
            ],
        );
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let old = created(&resource(), binding());
        let other = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": "admin"});
        assert_refused(
            &resource(),
            &old,
            &[
                ("/subjects", json!([]), ""),
                (
                    "/roleRef",
                    other,
                    r#"roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"admin"}: cannot change roleRef"#,
                ),
            ],
        );
    }

    #[test]
    fn a_row_shows_the_role_and_who_has_it() {
        assert_eq!(
            row(&resource(), &binding()),
            json!([
                "read:pods",
                "Role/pod-reader",
                "10m",
                "jane",
                "",
                "build/ci"
            ])
        );
    }
}
