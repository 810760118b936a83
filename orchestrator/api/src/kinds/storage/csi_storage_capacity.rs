//! storage.k8s.io/v1 CSIStorageCapacity: how much of a class a part of the cluster has left.

use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use super::GROUP;
use crate::columns::{Column, NAME, Printer, name, text};
use crate::resource::Resource;
use crate::validation::selector::label_selector;
use crate::validation::{At, Errors, names};

pub fn resource() -> Resource {
    Resource {
        answers_with_object: true,
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<CSIStorageCapacity>(
            GROUP,
            "storage",
            "csistoragecapacity",
            "csistoragecapacities",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("StorageClassName", "The class of the volumes"),
        Column::text("Capacity", "How much is left"),
    ],
    cells: |object, _| {
        let capacity = match text(object, "/capacity") {
            "" => "<unset>",
            capacity => capacity,
        };
        vec![
            name(object),
            text(object, "/storageClassName").into(),
            capacity.into(),
        ]
    },
};

fn validate(object: &At<'_>, errors: &mut Errors) {
    label_selector(&object.field("nodeTopology"), errors);
    let class = object.field("storageClassName");
    if let Err(why) = names::subdomain(class.text()) {
        errors.invalid_value(&class, class.text(), why);
    }
    let capacity = object.field("capacity");
    if capacity.text().starts_with('-') {
        errors.invalid(&capacity, "must be greater than or equal to 0");
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    for field in ["nodeTopology", "storageClassName"] {
        errors.immutable(&new.field(field), &old.field(field));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row};

    fn capacity() -> Value {
        json!({
            "metadata": {"name": "csisc-1"},
            "storageClassName": "fast",
            "nodeTopology": {"matchLabels": {"zone": "a"}},
            "capacity": "1024Mi",
        })
    }

    #[test]
    fn a_capacity_becomes_canonical() {
        assert_eq!(created(&resource(), capacity())["capacity"], "1Gi");
    }

    #[test]
    fn a_capacity_is_of_a_class_and_not_negative() {
        assert_wrong(
            &resource(),
            &capacity(),
            &[
                (
                    "/capacity",
                    json!("-1"),
                    r#"capacity: Invalid value: "-1": must be greater than or equal to 0"#,
                ),
                (
                    "/nodeTopology",
                    json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                    "nodeTopology.matchExpressions[0].values: Required value: must be specified \
                     when `operator` is 'In' or 'NotIn'",
                ),
            ],
        );
    }

    #[test]
    fn what_a_capacity_is_of_does_not_change() {
        let old = created(&resource(), capacity());
        assert_refused(
            &resource(),
            &old,
            &[
                ("/capacity", json!("1"), ""),
                (
                    "/storageClassName",
                    json!("slow"),
                    r#"storageClassName: Invalid value: "slow": field is immutable"#,
                ),
                (
                    "/nodeTopology",
                    json!({}),
                    "nodeTopology: Invalid value: {}: field is immutable",
                ),
            ],
        );
    }

    #[test]
    fn a_row_shows_how_much_is_left() {
        assert_eq!(
            row(&resource(), &created(&resource(), capacity())),
            json!(["csisc-1", "fast", "1Gi"])
        );
    }
}
