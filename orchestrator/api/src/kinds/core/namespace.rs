//! v1 Namespace. A finalizer of the server's keeps one until it is empty.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use crate::columns::{AGE, Column, NAME, Printer, age, name, text};
use crate::prepare::keep;
use crate::resource::{Behaviour, Field, Resource, Scope, Subresource};
use crate::validation::NameRule;

const FINALIZER: &str = "kubernetes";

/// The label that every namespace carries its own name in.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Namespace,
        short_names: vec!["ns".into()],
        scope: Scope::Cluster,
        verbs: &[
            "create", "delete", "get", "list", "patch", "update", "watch",
        ],
        subresources: vec![Subresource::Finalize, Subresource::Status],
        fields: vec![
            Field::at("name", "/metadata/name"),
            Field::of("status.phase"),
        ],
        name_rule: NameRule::Label,
        has_status: true,
        default,
        create,
        update,
        printer: COLUMNS,
        ..Resource::of::<Namespace>("", "core", "namespace", "namespaces")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "Whether the namespace is in use or going"),
        AGE,
    ],
    cells: |object, now| {
        vec![
            name(object),
            text(object, "/status/phase").into(),
            age(object, now),
        ]
    },
};

fn default(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    if name.is_string() {
        object["metadata"]["labels"][NAMESPACE_NAME] = name;
    }
}

fn create(object: &mut Value) {
    object["status"] = json!({"phase": "Active"});
    let finalizers = &mut object["spec"]["finalizers"];
    let has = finalizers
        .as_array()
        .is_some_and(|list| list.iter().any(|f| f == FINALIZER));
    if has {
        return;
    }
    match finalizers.as_array_mut() {
        Some(list) => list.push(FINALIZER.into()),
        None => *finalizers = json!([FINALIZER]),
    }
}

/// Only the finalize subresource changes the finalizers.
fn update(new: &mut Value, old: &Value) {
    if !new["spec"].is_object() {
        new["spec"] = json!({});
    }
    keep(new, old, "/spec", "finalizers");
}
