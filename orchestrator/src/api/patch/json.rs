//! RFC 6902: a list of operations on paths.

use json_patch::PatchOperation;
use serde_json::Value;

use crate::api::{scheme::Resource, status::ApiError};

/// More operations than this are refused, as Kubernetes does.
const MAX_OPERATIONS: usize = 10_000;

/// What copies may add: a few of them in a row grow without bound.
const MAX_COPIED: usize = 3 << 20;

/// The patched object; `patch` is the parsed body.
pub fn apply(_resource: &Resource, original: &Value, patch: &Value) -> Result<Value, ApiError> {
    let operations = patch.as_array().ok_or_else(|| {
        ApiError::BadRequest("error decoding patch: a JSON patch is a list of operations".into())
    })?;
    if operations.len() > MAX_OPERATIONS {
        return Err(ApiError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| ApiError::BadRequest(format!("error decoding patch: {e}")))?;
    let mut patched = original.clone();
    let mut copied = 0;
    for (at, operation) in operations.0.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            copied += copy.from.resolve(&patched).map_or(0, size);
            if copied > MAX_COPIED {
                return Err(ApiError::TooLarge(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is \
                     {copied}, exceeding the limit {MAX_COPIED}"
                )));
            }
        }
        json_patch::patch(&mut patched, std::slice::from_ref(operation))
            .map_err(|e| ApiError::Unprocessable(format!("operation {at}: {}", e.kind)))?;
    }
    Ok(patched)
}

/// Bytes of a value on the wire, about.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 5,
        Value::String(text) => text.len() + 2,
        Value::Array(list) => list.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(map) => {
            map.iter()
                .map(|(key, item)| key.len() + size(item) + 4)
                .sum::<usize>()
                + 2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn copies_cannot_grow_an_object_without_bound() {
        let pods = crate::api::find("", "v1", "pods").unwrap();
        let copies: Vec<Value> = (0..64)
            .map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"}))
            .collect();
        let error = apply(pods, &json!({"a": ["x"]}), &copies.into()).unwrap_err();
        assert_eq!(error.code(), 413);
    }

    #[test]
    fn operations_apply_in_order_and_all_or_none() {
        let pods = crate::api::find("", "v1", "pods").unwrap();
        let object = json!({"metadata": {"labels": {"a": "b"}}});
        let patch = json!([
            {"op": "test", "path": "/metadata/labels/a", "value": "b"},
            {"op": "add", "path": "/metadata/labels/c", "value": "d"},
            {"op": "remove", "path": "/metadata/labels/a"},
        ]);
        let patched = apply(pods, &object, &patch).unwrap();
        assert_eq!(patched, json!({"metadata": {"labels": {"c": "d"}}}));
        let cases = [
            (
                json!([{"op": "test", "path": "/metadata/labels/a", "value": "x"}]),
                422,
            ),
            (json!([{"op": "remove", "path": "/nowhere"}]), 422),
            (json!([{"op": "jump", "path": "/a"}]), 400),
            (json!({"op": "add"}), 400),
        ];
        for (patch, code) in cases {
            assert_eq!(
                apply(pods, &object, &patch).unwrap_err().code(),
                code,
                "{patch}"
            );
        }
    }
}
