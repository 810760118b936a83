//! Strategic merge: lists merge by key as the schema says, `$patch` and its kin direct it.

use serde_json::Value;

use crate::api::{scheme::Resource, status::ApiError};

/// The patched object; `patch` is the parsed body.
pub fn apply(_resource: &Resource, _original: &Value, _patch: &Value) -> Result<Value, ApiError> {
    todo!()
}
