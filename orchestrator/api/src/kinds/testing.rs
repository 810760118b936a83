//! What the tests of the kinds share: what a create, an update and a table make of an object,
//! without a server.

use serde_json::{Value, json};

use crate::{FieldValidation, Resource, Subresource, meta, patch};

/// The uid of every created object.
pub const UID: &str = "7c2b9a54-0000-4000-8000-000000000001";
/// When every object is created, and ten minutes later, when the tables are printed.
const CREATED: &str = "2026-01-02T03:04:05Z";
const PRINTED: &str = "2026-01-02T03:14:05Z";

/// The object as a create stores it, or what is wrong with it. Its namespace is default if the kind
/// has namespaces and the object names none.
pub fn create(resource: &Resource, object: Value) -> Result<Value, String> {
    let mut object = decoded(resource, object)?;
    resource.prepare_for_create(&mut object);
    meta::stamp(&mut object, UID, CREATED.parse().expect("a time"));
    resource.default(&mut object);
    said(resource.validate(&object, None, None))?;
    Ok(object)
}

/// The object as a create stores it; the test fails if it is wrong.
pub fn created(resource: &Resource, object: Value) -> Value {
    create(resource, object).unwrap_or_else(|why| panic!("{why}"))
}

/// What is wrong with a new object, without the kind and the name in front; empty if nothing is.
pub fn wrong(resource: &Resource, object: Value) -> String {
    create(resource, object).err().unwrap_or_default()
}

/// The object as an update of the whole stores it, or what is wrong with the change.
fn replace(
    resource: &Resource,
    old: &Value,
    new: Value,
    sub: Option<Subresource>,
) -> Result<Value, String> {
    let mut new = decoded(resource, new)?;
    resource.prepare_for_update(&mut new, old, sub);
    resource.default(&mut new);
    said(resource.validate(&new, Some(old), sub))?;
    Ok(new)
}

/// The object as an update of the whole stores it; the test fails if the change is wrong.
pub fn updated(resource: &Resource, old: &Value, new: Value, sub: Option<Subresource>) -> Value {
    replace(resource, old, new, sub).unwrap_or_else(|why| panic!("{why}"))
}

/// What is wrong with an update of the whole; empty if it is allowed.
pub fn refused(resource: &Resource, old: &Value, new: Value, sub: Option<Subresource>) -> String {
    replace(resource, old, new, sub).err().unwrap_or_default()
}

/// The object after a merge patch of it, or what is wrong with the change.
pub fn update(
    resource: &Resource,
    old: &Value,
    change: Value,
    sub: Option<Subresource>,
) -> Result<Value, String> {
    let new = patch::merge::apply(resource, old, &change).map_err(|e| e.to_string())?;
    replace(resource, old, new, sub)
}

/// What is wrong with a merge patch; empty if it is allowed.
pub fn change(resource: &Resource, old: &Value, change: Value) -> String {
    update(resource, old, change, None)
        .err()
        .unwrap_or_default()
}

/// The object with one part put in its place, given as a JSON pointer; null takes it away.
pub fn with(object: &Value, pointer: &str, part: Value) -> Value {
    let mut object = object.clone();
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    let mut at = &mut object;
    for step in parent.split('/').skip(1) {
        at = match step.parse::<usize>() {
            Ok(index) if at.is_array() => &mut at[index],
            _ => &mut at[step],
        };
    }
    match (at, part) {
        (Value::Object(map), Value::Null) => {
            map.remove(field);
        }
        (Value::Array(list), part) => list[field.parse::<usize>().expect("an index")] = part,
        (at, part) => at[field] = part,
    }
    object
}

/// The cells of the object's row, ten minutes after its creation.
pub fn row(resource: &Resource, object: &Value) -> Value {
    let now = PRINTED.parse().expect("a time");
    let object = with(object, "/metadata/creationTimestamp", json!(CREATED));
    json!((resource.printer.cells)(&object, now))
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

/// Asserts the text for each wrong object: what is put where in a right one, and what is said of it.
pub fn assert_wrong(resource: &Resource, right: &Value, cases: &[(&str, Value, &str)]) {
    assert_eq!(wrong(resource, right.clone()), "", "the right one");
    for (pointer, part, why) in cases {
        let object = with(right, pointer, part.clone());
        assert_eq!(wrong(resource, object), *why, "{pointer}: {part}");
    }
}

/// Asserts the text for each wrong update of a stored object.
pub fn assert_refused(resource: &Resource, old: &Value, cases: &[(&str, Value, &str)]) {
    for (pointer, part, why) in cases {
        let new = with(old, pointer, part.clone());
        assert_eq!(refused(resource, old, new, None), *why, "{pointer}: {part}");
    }
}

fn decoded(resource: &Resource, mut object: Value) -> Result<Value, String> {
    if resource.namespaced() && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!("default");
    }
    let decoded = resource.canonical(object, FieldValidation::Strict);
    Ok(decoded.map_err(|error| error.to_string())?.object)
}

fn said(outcome: Result<(), crate::ApiError>) -> Result<(), String> {
    outcome.map_err(|error| {
        let text = error.to_string();
        match text.split_once(" is invalid: ") {
            Some((_, why)) => why.to_owned(),
            None => text,
        }
    })
}
