//! Namespaces: a finalizer of the server's keeps one until it is empty.

use serde_json::{Value, json};

use super::keep;

const FINALIZER: &str = "kubernetes";

pub fn create(object: &mut Value) {
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
pub fn update(new: &mut Value, old: &Value) {
    if !new["spec"].is_object() {
        new["spec"] = json!({});
    }
    keep(new, old, "/spec", "finalizers");
}
