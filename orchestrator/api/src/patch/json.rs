//! RFC 6902: a list of operations on paths.

use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde_json::Value;

use crate::decode::limits::{self, MAX_DEPTH};
use crate::{resource::Resource, status::ApiError};

/// More operations than this are refused, as Kubernetes does.
const MAX_OPERATIONS: usize = 10_000;

/// What copies may add: a few of them in a row grow without bound.
const MAX_COPIED: usize = 3 << 20;

/// What operations may cost that change little: bytes that are moved, items of lists that make way.
const MAX_WORK: usize = 32 << 20;

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
    let (mut copied, mut work) = (0, 0);
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
        work += cost(operation, &patched);
        if work > MAX_WORK {
            return Err(ApiError::TooLarge(format!(
                "operation {at}: the patch moves too much and changes too long lists: send it in \
                 parts"
            )));
        }
        if reach(operation, &patched) > MAX_DEPTH {
            return Err(ApiError::Unprocessable(format!(
                "operation {at}: exceeded max depth: more than {MAX_DEPTH} objects and lists would \
                 be inside each other"
            )));
        }
        json_patch::patch(&mut patched, std::slice::from_ref(operation))
            .map_err(|e| ApiError::Unprocessable(format!("operation {at}: {}", e.kind)))?;
    }
    Ok(patched)
}

/// What an operation costs besides the bytes that it brings.
fn cost(operation: &PatchOperation, object: &Value) -> usize {
    // An item that is put into a list, or taken out, moves those behind it.
    let shifted = |path: &Pointer| {
        let list = path.parent().and_then(|parent| parent.resolve(object).ok());
        list.and_then(Value::as_array).map_or(0, Vec::len)
    };
    match operation {
        PatchOperation::Move(op) => {
            op.from.resolve(object).map_or(0, size) + shifted(&op.from) + shifted(&op.path)
        }
        operation => shifted(operation.path()),
    }
}

/// How deep the object is where the operation has changed it.
fn reach(operation: &PatchOperation, object: &Value) -> usize {
    let depth = |from: &Pointer| from.resolve(object).map_or(0, limits::depth);
    let inside = match operation {
        PatchOperation::Add(op) => limits::depth(&op.value),
        PatchOperation::Replace(op) => limits::depth(&op.value),
        PatchOperation::Copy(op) => depth(&op.from),
        PatchOperation::Move(op) => depth(&op.from),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return 0,
    };
    operation.path().count() + inside
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
        let pods = crate::find("", "v1", "pods").unwrap();
        let copies: Vec<Value> = (0..64)
            .map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"}))
            .collect();
        let error = apply(pods, &json!({"a": ["x"]}), &copies.into()).unwrap_err();
        assert_eq!(error.code(), 413);
    }

    #[test]
    fn operations_cannot_build_an_object_of_any_depth() {
        let pods = crate::find("", "v1", "pods").unwrap();
        let nest = |levels: usize| (0..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        // Each goes into the one before.
        let adds =
            (1..20).map(|n| json!({"op": "add", "path": "/a".repeat(n * 50), "value": nest(50)}));
        let adds: Vec<Value> = adds.collect();
        let error = apply(pods, &nest(50), &adds.into()).unwrap_err();
        assert_eq!(error.code(), 422, "{error}");
        let moves = (0..20).flat_map(|_| {
            let path = "/a".repeat(60);
            [
                json!({"op": "add", "path": "/b", "value": nest(61)}),
                json!({"op": "move", "from": "/a", "path": format!("/b{path}")}),
                json!({"op": "move", "from": "/b", "path": "/a"}),
            ]
        });
        let moves: Vec<Value> = moves.collect();
        let error = apply(pods, &nest(50), &moves.into()).unwrap_err();
        assert_eq!(error.code(), 422, "{error}");
    }

    #[test]
    fn operations_that_move_a_long_list_again_and_again_are_refused() {
        let pods = crate::find("", "v1", "pods").unwrap();
        let long = json!({"a": vec![0; 100_000], "b": 1});
        let removals: Vec<Value> = (0..MAX_OPERATIONS)
            .map(|_| json!({"op": "remove", "path": "/a/0"}))
            .collect();
        let error = apply(pods, &long, &removals.into()).unwrap_err();
        assert_eq!(error.code(), 413, "{error}");
        let one = json!([{"op": "remove", "path": "/a/0"}, {"op": "remove", "path": "/b"}]);
        assert!(apply(pods, &long, &one).is_ok());
    }

    #[test]
    fn operations_apply_in_order_and_all_or_none() {
        let pods = crate::find("", "v1", "pods").unwrap();
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
