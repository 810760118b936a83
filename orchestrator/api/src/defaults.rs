//! What defaults are made with.

use serde_json::{Map, Value};

/// Sets a field that is absent, null or an empty string.
pub fn set(object: &mut Value, field: &str, default: impl FnOnce() -> Value) {
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
pub fn items<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Removes nulls that indexing has left.
pub fn drop_nulls(object: &mut Value) {
    let map: Option<&mut Map<String, Value>> = object.as_object_mut();
    map.into_iter()
        .for_each(|map| map.retain(|_, value| !value.is_null()));
}

#[cfg(test)]
mod tests;
