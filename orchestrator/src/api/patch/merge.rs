//! RFC 7386: objects merge, null deletes, everything else replaces.

use serde_json::Value;

use crate::api::{scheme::Resource, status::ApiError};

/// The patched object; `patch` is the parsed body.
pub fn apply(_resource: &Resource, _original: &Value, _patch: &Value) -> Result<Value, ApiError> {
    todo!()
}
