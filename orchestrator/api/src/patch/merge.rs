//! RFC 7386: objects merge, null deletes, everything else replaces.

use serde_json::Value;

use crate::{resource::Resource, status::ApiError};

/// The patched object; `patch` is the parsed body.
pub fn apply(_resource: &Resource, original: &Value, patch: &Value) -> Result<Value, ApiError> {
    if !patch.is_object() {
        return Err(ApiError::BadRequest(
            "error decoding patch: a merge patch is an object".into(),
        ));
    }
    let mut patched = original.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn null_deletes_and_lists_are_replaced() {
        let pods = crate::find("", "v1", "pods").unwrap();
        let object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        let patched = apply(pods, &object, &json!({"a": {"b": null, "d": 3}, "l": [3]})).unwrap();
        assert_eq!(patched, json!({"a": {"c": 2, "d": 3}, "l": [3]}));
        assert_eq!(apply(pods, &object, &json!([])).unwrap_err().code(), 400);
    }
}
