//! What every object goes through before it is created or updated, and what selectors see of it.

mod metadata;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::kinds::core::pod;
use super::resource::{Absent, Generation, Name, Resource, Subresource};

/// Clears what a client may not set, and sets what the server owns but for time and uid.
pub(super) fn for_create(resource: &Resource, object: &mut Value) {
    // First, so that no default is made from a uid that the client sent.
    metadata::prepare_for_create(object);
    resource.default(object);
    if resource.generation != Generation::None {
        object["metadata"]["generation"] = 1.into();
    }
    (resource.create)(object);
}

/// Keeps of `old` what this path may not touch, and counts the generation.
pub(super) fn for_update(
    resource: &Resource,
    new: &mut Value,
    old: &Value,
    sub: Option<Subresource>,
) {
    // What the client left to a default has not changed.
    resource.default(new);
    metadata::prepare_for_update(new, old);
    match sub {
        Some(Subresource::Status) => {
            keep_all_but_status(new, old);
            keep(new, old, "/metadata", "ownerReferences");
            (resource.update_status)(new, old);
        }
        Some(Subresource::Approval) => {
            let conditions = new["status"]["conditions"].take();
            keep_all_but_metadata(new, old);
            (resource.update_status)(new, old);
            set_conditions(new, conditions);
        }
        Some(Subresource::Finalize) => {
            let finalizers = new["spec"]["finalizers"].take();
            keep(new, old, "", "status");
            keep(new, old, "", "spec");
            if finalizers.is_null() {
                remove(new, "/spec", "finalizers");
            } else {
                new["spec"]["finalizers"] = finalizers;
            }
        }
        Some(Subresource::EphemeralContainers) => {
            let wanted = new["spec"]["ephemeralContainers"].take();
            keep_all_but_metadata(new, old);
            keep_metadata(new, old);
            keep(new, old, "/metadata", "ownerReferences");
            new["spec"]["ephemeralContainers"] = wanted;
            resource.default(new);
        }
        Some(Subresource::Resize) => {
            pod::resize::prepare(new, old);
            resource.default(new);
        }
        Some(
            Subresource::Attach
            | Subresource::Binding
            | Subresource::Eviction
            | Subresource::Exec
            | Subresource::Log
            | Subresource::PortForward
            | Subresource::Proxy
            | Subresource::Token,
        ) => {}
        None | Some(Subresource::Scale) => {
            if resource.has_status {
                keep(new, old, "", "status");
            }
            (resource.update)(new, old);
        }
    }
    if !matches!(sub, Some(Subresource::Status | Subresource::Approval)) {
        count_generation(resource.generation, new, old);
    }
}

/// The fields that a field selector may name, with this object's values.
pub(super) fn selectable_fields(resource: &Resource, object: &Value) -> BTreeMap<Name, String> {
    let text = |at: &str| match object.pointer(at) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let mut fields = BTreeMap::from([("metadata.name".into(), text("/metadata/name"))]);
    if resource.namespaced() {
        fields.insert("metadata.namespace".into(), text("/metadata/namespace"));
    }
    for field in &resource.fields {
        let mut value = text(&field.at);
        if value.is_empty() {
            value = match field.absent {
                Absent::Is(text) => text.to_owned(),
                Absent::At(other) => text(other),
            };
        }
        fields.insert(field.name.clone(), value);
    }
    fields
}

fn keep_all_but_status(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    for part in ["metadata", "status"] {
        match new.get_mut(part).map(Value::take) {
            Some(value) => kept[part] = value,
            None => remove(&mut kept, "", part),
        }
    }
    *new = kept;
}

fn keep_all_but_metadata(new: &mut Value, old: &Value) {
    let metadata = new["metadata"].take();
    *new = old.clone();
    new["metadata"] = metadata;
}

fn set_conditions(object: &mut Value, conditions: Value) {
    if !conditions.is_null() {
        object["status"]["conditions"] = conditions;
    } else {
        remove(object, "/status", "conditions");
    }
}

/// For kinds whose status is written without any other change of metadata.
pub(crate) fn keep_metadata(new: &mut Value, old: &Value) {
    for field in ["annotations", "finalizers", "labels"] {
        keep(new, old, "/metadata", field);
    }
}

/// Puts the old value of a field in place of the new one.
pub(crate) fn keep(new: &mut Value, old: &Value, at: &str, field: &str) {
    match old.pointer(at).and_then(|parent| parent.get(field)) {
        Some(value) => {
            if let Some(Value::Object(parent)) = new.pointer_mut(at) {
                parent.insert(field.into(), value.clone());
            }
        }
        None => remove(new, at, field),
    }
}

pub(crate) fn remove(object: &mut Value, at: &str, field: &str) {
    if let Some(Value::Object(parent)) = object.pointer_mut(at) {
        parent.remove(field);
    }
}

fn count_generation(rule: Generation, new: &mut Value, old: &Value) {
    if rule == Generation::None {
        return;
    }
    let metadata = |object: &Value| object["metadata"]["annotations"].clone();
    let changed = if rule != Generation::Content && new.get("spec").is_some() {
        new["spec"] != old["spec"]
            || (rule == Generation::SpecAndAnnotations && metadata(new) != metadata(old))
    } else {
        // A kind without a spec: everything but metadata is what it says.
        let mut before = old.clone();
        before["metadata"] = new["metadata"].clone();
        before != *new
    };
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
    new["metadata"]["generation"] = json!(generation + i64::from(changed));
}

#[cfg(test)]
mod tests;
