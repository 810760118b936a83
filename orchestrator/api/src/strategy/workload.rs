//! Controllers of pods: their status is their controller's.

use serde_json::{Value, json};

use super::keep;

pub fn create(object: &mut Value) {
    object["status"] = json!({});
}

/// These publish how many replicas there are from the start.
pub fn create_replicas(object: &mut Value) {
    object["status"] = json!({"replicas": 0});
}

pub fn update_status(new: &mut Value, old: &Value) {
    keep(new, old, "/metadata", "labels");
}
