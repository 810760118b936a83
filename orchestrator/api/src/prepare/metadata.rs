//! Metadata that belongs to the server: what a client may not set or change.

use serde_json::{Map, Value};

use super::{keep, remove};

/// Set by the server, never by a client. `managedFields` are `apply`'s, before this.
const SYSTEM: [&str; 5] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "selfLink",
];

/// A new object has no history.
pub fn prepare_for_create(object: &mut Value) {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    for field in SYSTEM {
        remove(object, "/metadata", field);
    }
    remove(object, "/metadata", "uid");
}

/// What the server owns stays as it is; a uid that the client sends is kept for the check.
pub fn prepare_for_update(new: &mut Value, old: &Value) {
    if !new["metadata"].is_object() {
        new["metadata"] = Value::Object(Map::new());
    }
    for field in SYSTEM {
        keep(new, old, "/metadata", field);
    }
    for field in ["uid", "name", "namespace"] {
        if new["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .is_empty()
        {
            keep(new, old, "/metadata", field);
        }
    }
}
