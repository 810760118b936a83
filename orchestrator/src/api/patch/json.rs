//! RFC 6902: a list of operations on paths.

use serde_json::Value;

use crate::api::{scheme::Resource, status::ApiError};

/// More operations than this are refused, as Kubernetes does.
const MAX_OPERATIONS: usize = 10_000;

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
    json_patch::patch(&mut patched, &operations)
        .map_err(|e| ApiError::Unprocessable(e.to_string()))?;
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
