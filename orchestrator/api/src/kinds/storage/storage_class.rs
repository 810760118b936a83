//! storage.k8s.io/v1 StorageClass.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::{GROUP, parameters};
use crate::columns::{AGE, Column, NAME, Printer, age, is_true, text};
use crate::defaults::set;
use crate::resource::{Resource, Scope};
use crate::validation::{At, Errors, names};

/// Marks the class of claims that name none.
pub const IS_DEFAULT: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

pub fn resource() -> Resource {
    Resource {
        short_names: vec!["sc".into()],
        scope: Scope::Cluster,
        answers_with_object: true,
        default,
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<StorageClass>(GROUP, "storage", "storageclass", "storageclasses")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Provisioner", "Who makes the volumes"),
        Column::text("ReclaimPolicy", "What becomes of a volume without a claim"),
        Column::text("VolumeBindingMode", "When a volume is made for a claim"),
        Column::text("AllowVolumeExpansion", "Whether volumes can grow"),
        AGE,
    ],
    cells,
};

fn default(object: &mut Value) {
    set(object, "reclaimPolicy", || "Delete".into());
    set(object, "volumeBindingMode", || "Immediate".into());
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    parameters::driver(&object.field("provisioner"), errors);
    parameters::parameters(&object.field("parameters"), errors);
    let policy = object.field("reclaimPolicy");
    errors.one_of_if_any(&policy, &["Delete", "Retain"]);
    let mode = object.field("volumeBindingMode");
    errors.one_of(&mode, &["Immediate", "WaitForFirstConsumer"]);
    let topologies = object.field("allowedTopologies");
    for term in topologies.items() {
        topology(&term.field("matchLabelExpressions"), errors);
    }
}

fn topology(requirements: &At<'_>, errors: &mut Errors) {
    let mut keys = BTreeSet::new();
    for requirement in requirements.items() {
        let (key, values) = (requirement.field("key"), requirement.field("values"));
        if values.is_empty() {
            errors.required(&values, "");
        }
        let mut seen = BTreeSet::new();
        for value in values.items() {
            if !seen.insert(value.text().to_owned()) {
                errors.duplicate(&value);
            }
        }
        errors.check(&key, names::label_key(key.text()));
        if !keys.insert(key.text().to_owned()) {
            errors.duplicate(&key);
        }
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let fields = ["parameters", "provisioner", "reclaimPolicy"];
    parameters::unchanged(new, old, &fields, errors);
    let mode = "volumeBindingMode";
    errors.immutable(&new.field(mode), &old.field(mode));
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        parameters::name_of_a_class(object, &IS_DEFAULT),
        text(object, "/provisioner").into(),
        text(object, "/reclaimPolicy").into(),
        text(object, "/volumeBindingMode").into(),
        json!(is_true(object, "/allowVolumeExpansion")),
        age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row};

    fn class() -> Value {
        json!({
            "metadata": {"name": "fast", "annotations": {IS_DEFAULT[0]: "true"}},
            "provisioner": "ebs.csi.aws.com",
            "parameters": {"type": "gp3"},
            "allowVolumeExpansion": true,
        })
    }

    #[test]
    fn volumes_are_deleted_and_made_at_once_unless_the_class_says_otherwise() {
        let stored = created(&resource(), class());
        assert_eq!(stored["reclaimPolicy"], "Delete");
        assert_eq!(stored["volumeBindingMode"], "Immediate");
        assert_eq!(stored["parameters"], class()["parameters"]);
    }

    #[test]
    fn a_class_without_a_provisioner_or_with_unknown_words_is_refused() {
        let topology =
            |values: Value| json!([{"matchLabelExpressions": [{"key": "zone", "values": values}]}]);
        assert_wrong(
            &resource(),
            &class(),
            &[
                ("/provisioner", Value::Null, "provisioner: Required value"),
                (
                    "/reclaimPolicy",
                    json!("Recycle"),
                    r#"reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain""#,
                ),
                (
                    "/volumeBindingMode",
                    json!("Late"),
                    r#"volumeBindingMode: Unsupported value: "Late": supported values: "Immediate", "WaitForFirstConsumer""#,
                ),
                (
                    "/parameters",
                    json!({"": "a"}),
                    r#"parameters: Invalid value: "": field can not be empty."#,
                ),
                (
                    "/allowedTopologies",
                    topology(json!([])),
                    "allowedTopologies[0].matchLabelExpressions[0].values: Required value",
                ),
                (
                    "/allowedTopologies",
                    topology(json!(["a", "a"])),
                    r#"allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: "a""#,
                ),
            ],
        );
    }

    #[test]
    fn what_volumes_were_made_with_does_not_change() {
        let old = created(&resource(), class());
        assert_refused(
            &resource(),
            &old,
            &[
                ("/allowVolumeExpansion", json!(false), ""),
                (
                    "/parameters",
                    json!({"type": "io2"}),
                    "parameters: Forbidden: updates to parameters are forbidden.",
                ),
                (
                    "/provisioner",
                    json!("a.b"),
                    "provisioner: Forbidden: updates to provisioner are forbidden.",
                ),
                (
                    "/reclaimPolicy",
                    json!("Retain"),
                    "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
                ),
                (
                    "/volumeBindingMode",
                    json!("WaitForFirstConsumer"),
                    r#"volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable"#,
                ),
            ],
        );
    }

    #[test]
    fn a_row_marks_the_default_class() {
        assert_eq!(
            row(&resource(), &created(&resource(), class())),
            json!([
                "fast (default)",
                "ebs.csi.aws.com",
                "Delete",
                "Immediate",
                true,
                "10m",
            ])
        );
    }
}
