//! apps/v1 ControllerRevision: what a DaemonSet or StatefulSet was.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;

use crate::columns::{AGE, Column, NAME, Printer, age, list, name, number, text};
use crate::resource::Resource;
use crate::validation::{At, Errors};

pub fn resource() -> Resource {
    Resource {
        validate,
        validate_update: |new, old, errors| {
            errors.immutable(&new.field("data"), &old.field("data"));
        },
        printer: COLUMNS,
        ..Resource::of::<ControllerRevision>(
            "apps",
            "apps",
            "controllerrevision",
            "controllerrevisions",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Controller", "The controller of the object"),
        Column::text("Revision", "The number of the revision"),
        AGE,
    ],
    cells,
};

fn validate(object: &At<'_>, errors: &mut Errors) {
    let data = object.field("data");
    if data.is_null() {
        errors.required(&data, "data is mandatory");
    }
    errors.not_negative(&object.field("revision"));
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        controller(object).into(),
        number(object, "/revision").into(),
        age(object, now),
    ]
}

/// `daemonset.apps/web`, of the owner that controls the object.
fn controller(object: &Value) -> String {
    let owners = list(object, "/metadata/ownerReferences");
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else {
        return "<none>".to_owned();
    };
    let kind = text(owner, "/kind").to_lowercase();
    let name = text(owner, "/name");
    match text(owner, "/apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{change, columns, created, row, with, wrong};

    fn revision() -> Value {
        json!({
            "metadata": {"name": "db-6d5f", "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u",
                "controller": true,
            }]},
            "data": {"spec": {"template": {"$patch": "replace"}}},
            "revision": 3,
        })
    }

    #[test]
    fn a_revision_is_stored_as_it_is() {
        let stored = created(&resource(), revision());
        assert_eq!(stored["data"], revision()["data"]);
        assert_eq!(stored["metadata"].get("generation"), None);
        assert_eq!(stored.get("status"), None);
    }

    #[test]
    fn a_revision_has_data_and_a_number() {
        assert_eq!(
            wrong(&resource(), with(&revision(), "/data", Value::Null)),
            "data: Required value: data is mandatory"
        );
        assert_eq!(
            wrong(&resource(), with(&revision(), "/revision", (-1).into())),
            "revision: Invalid value: -1: must be greater than or equal to 0"
        );
    }

    #[test]
    fn the_number_changes_and_the_data_does_not() {
        let old = created(&resource(), revision());
        assert_eq!(change(&resource(), &old, json!({"revision": 4})), "");
        assert_eq!(
            change(&resource(), &old, json!({"data": {"spec": null}})),
            "data: Invalid value: {}: field is immutable"
        );
    }

    #[test]
    fn a_row_names_the_controller() {
        assert_eq!(
            columns(&resource()),
            ["Name", "Controller", "Revision", "Age"]
        );
        let stored = created(&resource(), revision());
        assert_eq!(
            row(&resource(), &stored),
            json!(["db-6d5f", "statefulset.apps/db", 3, "10m"])
        );
    }
}
