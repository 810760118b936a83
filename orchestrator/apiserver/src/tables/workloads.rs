//! Tables of replication controllers, replica sets and deployments.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, Column, NAME, Printer, age, format_labels, format_selector, list, name, number, text,
};

const DESIRED: Column = Column::integer("Desired", "How many pods there should be");
const CURRENT: Column = Column::integer("Current", "How many pods there are");
const READY: Column = Column::integer("Ready", "How many pods are ready");
const CONTAINERS: Column = Column::wide("Containers", "Names of the containers");
const IMAGES: Column = Column::wide("Images", "Images of the containers");
const SELECTOR: Column = Column::wide("Selector", "Labels of the pods");

/// ReplicationControllers.
pub const REPLICATION_CONTROLLERS: Printer = Printer {
    columns: &[
        NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR,
    ],
    cells: |object, now| replicated(object, now, format_labels(object.pointer("/spec/selector"))),
};

/// ReplicaSets.
pub const REPLICA_SETS: Printer = Printer {
    columns: &[
        NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR,
    ],
    cells: |object, now| {
        replicated(
            object,
            now,
            format_selector(object.pointer("/spec/selector")),
        )
    },
};

/// Deployments.
pub const DEPLOYMENTS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Ready", "How many of the wanted pods are ready"),
        Column::integer("Up-to-date", "How many pods have the present template"),
        Column::integer("Available", "How many pods have been ready long enough"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: deployment,
};

fn replicated(object: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    vec![
        name(object),
        number(object, "/spec/replicas").into(),
        number(object, "/status/replicas").into(),
        number(object, "/status/readyReplicas").into(),
        age(object, now),
        containers(object, "/name").into(),
        containers(object, "/image").into(),
        selector.into(),
    ]
}

fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let (ready, wanted) = (
        number(object, "/status/readyReplicas"),
        number(object, "/spec/replicas"),
    );
    vec![
        name(object),
        format!("{ready}/{wanted}").into(),
        number(object, "/status/updatedReplicas").into(),
        number(object, "/status/availableReplicas").into(),
        age(object, now),
        containers(object, "/name").into(),
        containers(object, "/image").into(),
        format_selector(object.pointer("/spec/selector")).into(),
    ]
}

fn containers(object: &Value, field: &str) -> String {
    let containers = list(object, "/spec/template/spec/containers");
    containers
        .iter()
        .map(|container| text(container, field))
        .collect::<Vec<_>>()
        .join(",")
}
