//! RFC 6902: a list of operations on paths.

use serde_json::Value;

use crate::api::{scheme::Resource, status::ApiError};

/// The patched object; `patch` is the parsed body.
pub fn apply(_resource: &Resource, _original: &Value, _patch: &Value) -> Result<Value, ApiError> {
    todo!()
}
