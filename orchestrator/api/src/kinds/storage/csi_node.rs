//! storage.k8s.io/v1 CSINode: the drivers of a node.

use std::collections::BTreeSet;

use k8s_openapi::api::storage::v1::CSINode;

use super::{GROUP, parameters::csi_driver};
use crate::columns::{AGE, Column, NAME, Printer, age, list, name};
use crate::resource::{Behaviour, Resource, Scope};
use crate::validation::{At, Errors, names};

const MAX_NODE_ID_BYTES: usize = 256;

pub fn resource() -> Resource {
    Resource {
        scope: Scope::Cluster,
        answers_with_object: true,
        behaviour: Behaviour::NodeDrivers,
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<CSINode>(GROUP, "storage", "csinode", "csinodes")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Drivers", "How many drivers the node has"),
        AGE,
    ],
    cells: |object, now| {
        let drivers = list(object, "/spec/drivers").len();
        vec![name(object), drivers.into(), age(object, now)]
    },
};

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let drivers = spec.field("drivers");
    let mut seen = BTreeSet::new();
    for driver in drivers.items() {
        let (name, node) = (driver.field("name"), driver.field("nodeID"));
        csi_driver(&name, errors);
        if node.is_empty() {
            errors.required(&node, "");
        }
        if node.text().len() > MAX_NODE_ID_BYTES {
            errors.invalid(
                &node,
                format!("must be {MAX_NODE_ID_BYTES} characters or less"),
            );
        }
        let allocatable = driver.field("allocatable");
        errors.not_negative(&allocatable.field("count"));
        if !seen.insert(name.text().to_owned()) {
            errors.duplicate(&name);
        }
        topology_keys(&driver, errors);
    }
}

fn topology_keys(driver: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    let keys = driver.field("topologyKeys");
    for key in keys.items() {
        if key.is_empty() {
            errors.required(driver, "");
        }
        if !seen.insert(key.text().to_owned()) {
            errors.duplicate_value(driver, key.value);
        }
        if let Err(why) = names::label_key(key.text()) {
            errors.invalid_value(driver, key.text(), why);
        }
    }
}

/// A driver comes and goes whole.
fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    let (new, old) = (new.field("drivers"), old.field("drivers"));
    for before in old.items() {
        let same = |now: &At<'_>| now.value["name"] == before.value["name"];
        for now in new.items().filter(same) {
            if now.value != before.value {
                errors.invalid_part(&new, now.value, "field is immutable");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row};

    fn node() -> Value {
        json!({
            "metadata": {"name": "node-1"},
            "spec": {"drivers": [{"name": "ebs.csi.aws.com", "nodeID": "i-1", "topologyKeys": ["zone"]}]},
        })
    }

    #[test]
    fn the_drivers_of_a_node_are_stored_as_they_are_written() {
        assert_eq!(created(&resource(), node())["spec"], node()["spec"]);
    }

    #[test]
    fn a_driver_has_a_name_and_knows_the_node_by_one() {
        let driver = "/spec/drivers/0";
        assert_wrong(
            &resource(),
            &node(),
            &[
                (
                    driver,
                    json!({"name": "a.b", "nodeID": ""}),
                    "spec.drivers[0].nodeID: Required value",
                ),
                (
                    driver,
                    json!({"name": "a.b", "nodeID": "n", "allocatable": {"count": -1}}),
                    "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or \
                     equal to 0",
                ),
                (
                    driver,
                    json!({"name": "a.b", "nodeID": "n", "topologyKeys": ["z", "z"]}),
                    r#"spec.drivers[0]: Duplicate value: "z""#,
                ),
                (
                    "/spec/drivers",
                    json!([{"name": "a.b", "nodeID": "n"}, {"name": "a.b", "nodeID": "m"}]),
                    r#"spec.drivers[1].name: Duplicate value: "a.b""#,
                ),
            ],
        );
    }

    #[test]
    fn a_driver_of_a_node_is_replaced_but_not_changed() {
        let old = created(&resource(), node());
        assert_refused(
            &resource(),
            &old,
            &[
                ("/spec/drivers", json!([{"name": "c.d", "nodeID": "n"}]), ""),
                (
                    "/spec/drivers/0/nodeID",
                    json!("i-2"),
                    r#"spec.drivers: Invalid value: {"name":"ebs.csi.aws.com","nodeID":"i-2","topologyKeys":["zone"]}: field is immutable"#,
                ),
            ],
        );
    }

    #[test]
    fn a_row_counts_the_drivers() {
        let row = row(&resource(), &node());
        assert_eq!(row, json!(["node-1", 1, "10m"]));
    }
}
