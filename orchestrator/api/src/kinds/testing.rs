//! What the tests of the kinds share: an object's way through a create, an update and a table.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{FieldValidation, Resource, Subresource};

/// An object as it is stored after a create, in the namespace default if the kind has namespaces.
pub fn created(resource: &Resource, object: Value) -> Value {
    let mut object = decoded(resource, object);
    resource.prepare_for_create(&mut object);
    object
}

/// What is wrong with a new object, without the kind and the name in front; empty if nothing is.
pub fn wrong(resource: &Resource, object: Value) -> String {
    let object = created(resource, object);
    said(resource.validate(&object, None, None))
}

/// An object as it is stored after an update.
pub fn updated(resource: &Resource, old: &Value, new: Value, sub: Option<Subresource>) -> Value {
    let mut new = decoded(resource, new);
    resource.prepare_for_update(&mut new, old, sub);
    new
}

/// What is wrong with a change.
pub fn refused(resource: &Resource, old: &Value, new: Value, sub: Option<Subresource>) -> String {
    let new = updated(resource, old, new, sub);
    said(resource.validate(&new, Some(old), sub))
}

/// The object with one part put in its place; null takes it away.
pub fn with(object: &Value, pointer: &str, part: Value) -> Value {
    let mut object = object.clone();
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    let parent = object.pointer_mut(parent).expect("a place in the object");
    match (parent, part) {
        (Value::Object(map), Value::Null) => {
            map.remove(field);
        }
        (Value::Array(list), part) => list[field.parse::<usize>().expect("an index")] = part,
        (parent, part) => parent[field] = part,
    }
    object
}

/// A row of the table, an hour after the epoch.
pub fn row(resource: &Resource, object: &Value) -> Vec<Value> {
    let now = Timestamp::from_second(3600).expect("in range");
    let mut object = object.clone();
    object["metadata"]["creationTimestamp"] = "1970-01-01T00:30:00Z".into();
    (resource.printer.cells)(&object, now)
}

/// Asserts the text for each wrong object: what is put where in a right one, and what is said of it.
pub fn assert_wrong(resource: &Resource, right: &Value, cases: &[(&str, Value, &str)]) {
    assert_eq!(wrong(resource, right.clone()), "", "the right one");
    for (pointer, part, why) in cases {
        let object = with(right, pointer, part.clone());
        assert_eq!(wrong(resource, object), *why, "{pointer}: {part}");
    }
}

/// The same for updates of a stored object.
pub fn assert_refused(resource: &Resource, old: &Value, cases: &[(&str, Value, &str)]) {
    for (pointer, part, why) in cases {
        let new = with(old, pointer, part.clone());
        assert_eq!(refused(resource, old, new, None), *why, "{pointer}: {part}");
    }
}

fn decoded(resource: &Resource, mut object: Value) -> Value {
    if resource.namespaced() && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!("default");
    }
    let decoded = resource.canonical(object, FieldValidation::Strict);
    decoded.expect("the object is of its type").object
}

fn said(outcome: Result<(), crate::ApiError>) -> String {
    let text = outcome.err().map(|e| e.to_string()).unwrap_or_default();
    match text.split_once(" is invalid: ") {
        Some((_, why)) => why.to_owned(),
        None => text,
    }
}
