//! What the tests of the kinds put objects through: what a create, an update and a table make of
//! them, without a server.

use serde_json::{Value, json};

use crate::{FieldValidation, Resource, Subresource, meta, patch};

/// The uid that every created object gets.
pub const UID: &str = "7c2b9a54-0000-4000-8000-000000000001";

/// The object as a create stores it, or what is wrong with it.
pub fn create(resource: &Resource, object: Value) -> Result<Value, String> {
    let decoded = resource
        .canonical(object, FieldValidation::Strict)
        .map_err(|error| error.to_string())?;
    let mut object = decoded.object;
    if resource.namespaced() && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = "default".into();
    }
    resource.prepare_for_create(&mut object);
    meta::stamp(&mut object, UID, "2026-01-02T03:04:05Z".parse().unwrap());
    resource.default(&mut object);
    resource
        .validate(&object, None, None)
        .map_err(|error| bare(resource, &object, &error.to_string()))?;
    Ok(object)
}

/// The same of an object that must be right.
pub fn created(resource: &Resource, object: Value) -> Value {
    create(resource, object).unwrap_or_else(|why| panic!("{why}"))
}

/// What is wrong with the object; empty when it is right. The kind and name are left out.
pub fn refused(resource: &Resource, object: Value) -> String {
    create(resource, object).err().unwrap_or_default()
}

/// The object after a merge patch of it, or what is wrong with the change.
pub fn update(
    resource: &Resource,
    old: &Value,
    change: Value,
    sub: Option<Subresource>,
) -> Result<Value, String> {
    let mut new = patch::merge::apply(resource, old, &change).map_err(|e| e.to_string())?;
    resource.prepare_for_update(&mut new, old, sub);
    resource.default(&mut new);
    resource
        .validate(&new, Some(old), sub)
        .map_err(|error| bare(resource, &new, &error.to_string()))?;
    Ok(new)
}

/// What is wrong with the change; empty when it is allowed.
pub fn change(resource: &Resource, old: &Value, change: Value) -> String {
    update(resource, old, change, None)
        .err()
        .unwrap_or_default()
}

/// A base with one field, given as a JSON pointer, set.
pub fn with(base: &Value, pointer: &str, value: Value) -> Value {
    let mut object = base.clone();
    let mut at = &mut object;
    for step in pointer.split('/').skip(1) {
        at = match step.parse::<usize>() {
            Ok(index) if at.is_array() => &mut at[index],
            _ => &mut at[step],
        };
    }
    *at = value;
    object
}

/// The cells of the object's row at 2026-01-02T03:14:05Z, ten minutes after every creation.
pub fn row(resource: &Resource, object: &Value) -> Value {
    let now = "2026-01-02T03:14:05Z".parse().unwrap();
    json!((resource.printer.cells)(object, now))
}

/// The names of the columns; wide ones in brackets.
pub fn columns(resource: &Resource) -> Vec<String> {
    let columns = resource.printer.columns.iter().map(|column| {
        let column = column.definition();
        let name = column["name"].as_str().unwrap();
        match column["priority"].as_u64() {
            Some(0) => name.to_owned(),
            _ => format!("[{name}]"),
        }
    });
    columns.collect()
}

fn bare(resource: &Resource, object: &Value, error: &str) -> String {
    let kind = match &*resource.group {
        "" => resource.kind.to_string(),
        group => format!("{}.{group}", resource.kind),
    };
    let prefix = format!("{kind} {:?} is invalid: ", meta::name(object));
    error.strip_prefix(&prefix).unwrap_or(error).to_owned()
}
