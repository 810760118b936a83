//! Defaults of each kind, as Kubernetes fills them in. Every function is idempotent.

mod network;
mod pod;
mod workload;

use base64::Engine as _;
use serde_json::{Map, Value, json};

pub use network::{endpoint_slice, endpoints, service};
pub use pod::pod;
pub use workload::{deployment, replica_set, replication_controller};

/// The label that every namespace carries its own name in.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

pub fn namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    if name.is_string() {
        object["metadata"]["labels"][NAMESPACE_NAME] = name;
    }
}

/// `podCIDR` and the first of `podCIDRs` are the same.
pub fn node(object: &mut Value) {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let spec = &mut object["spec"];
    if let Some(first) = spec["podCIDRs"].get(0).cloned() {
        set(spec, "podCIDR", || first);
    } else if spec["podCIDR"]
        .as_str()
        .is_some_and(|cidr| !cidr.is_empty())
    {
        spec["podCIDRs"] = json!([spec["podCIDR"]]);
    }
    drop_nulls(spec);
}

/// `stringData` is merged into `data` and not kept.
pub fn secret(object: &mut Value) {
    set(object, "type", || "Opaque".into());
    let Some(Value::Object(plain)) = object.get_mut("stringData").map(Value::take) else {
        drop_nulls(object);
        return;
    };
    let engine = base64::engine::general_purpose::STANDARD;
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        object["data"][key] = engine.encode(text).into();
    }
    drop_nulls(object);
}

/// An event's two newest fields are always there.
pub fn event(object: &mut Value) {
    set(object, "reportingComponent", || "".into());
    set(object, "reportingInstance", || "".into());
    set(object, "source", || json!({}));
}

/// Sets a field that is absent, null or an empty string.
fn set(object: &mut Value, field: &str, default: impl FnOnce() -> Value) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    match object.get(field) {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(_) => return,
    }
    object.insert(field.into(), default());
}

/// The items of a list field.
fn items<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Removes nulls that indexing has left.
fn drop_nulls(object: &mut Value) {
    let map: Option<&mut Map<String, Value>> = object.as_object_mut();
    map.into_iter()
        .for_each(|map| map.retain(|_, value| !value.is_null()));
}

#[cfg(test)]
mod tests;
