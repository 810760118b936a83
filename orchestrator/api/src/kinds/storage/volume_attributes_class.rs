//! storage.k8s.io/v1beta1 VolumeAttributesClass: Kubernetes 1.33 has no v1 of it.

use k8s_openapi::api::storage::v1beta1::VolumeAttributesClass;

use super::{GROUP, parameters};
use crate::columns::{AGE, Column, NAME, Printer, age, text};
use crate::resource::{Resource, Scope};
use crate::validation::{At, Errors};

/// Marks the class of claims that name none.
const IS_DEFAULT: [&str; 1] = ["volumeattributesclass.alpha.kubernetes.io/is-default-class"];

pub fn resource() -> Resource {
    Resource {
        short_names: vec!["vac".into()],
        scope: Scope::Cluster,
        answers_with_object: true,
        validate,
        validate_update: |new, old, errors| {
            parameters::unchanged(new, old, &["driverName", "parameters"], errors);
        },
        printer: COLUMNS,
        ..Resource::of::<VolumeAttributesClass>(
            GROUP,
            "storage",
            "volumeattributesclass",
            "volumeattributesclasses",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("DriverName", "The CSI driver that knows the attributes"),
        AGE,
    ],
    cells: |object, now| {
        vec![
            parameters::name_of_a_class(object, &IS_DEFAULT),
            text(object, "/driverName").into(),
            age(object, now),
        ]
    },
};

fn validate(object: &At<'_>, errors: &mut Errors) {
    parameters::driver(&object.field("driverName"), errors);
    let all = object.field("parameters");
    parameters::parameters(&all, errors);
    if all.is_empty() {
        errors.required(&all, "must contain at least one key/value pair");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row};

    fn class() -> Value {
        json!({
            "metadata": {"name": "gold"},
            "driverName": "ebs.csi.aws.com",
            "parameters": {"iops": "4000"},
        })
    }

    #[test]
    fn a_class_is_stored_as_it_is_written() {
        let stored = created(&resource(), class());
        assert_eq!(stored["apiVersion"], "storage.k8s.io/v1beta1");
        assert_eq!(stored["parameters"], class()["parameters"]);
    }

    #[test]
    fn a_class_says_whose_attributes_it_has_and_which() {
        assert_wrong(
            &resource(),
            &class(),
            &[
                ("/driverName", json!(""), "driverName: Required value"),
                (
                    "/parameters",
                    json!({}),
                    "parameters: Required value: must contain at least one key/value pair",
                ),
            ],
        );
    }

    #[test]
    fn a_class_does_not_change() {
        let old = created(&resource(), class());
        assert_refused(
            &resource(),
            &old,
            &[
                (
                    "/driverName",
                    json!("a.b"),
                    "driverName: Forbidden: updates to driverName are forbidden.",
                ),
                (
                    "/parameters",
                    json!({"iops": "1"}),
                    "parameters: Forbidden: updates to parameters are forbidden.",
                ),
            ],
        );
    }

    #[test]
    fn a_row_shows_the_driver() {
        let row = row(&resource(), &class());
        assert_eq!(row, json!(["gold", "ebs.csi.aws.com", "10m"]));
    }
}
