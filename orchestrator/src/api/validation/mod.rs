//! What an object may hold: Kubernetes' rules, paths and messages.

use serde_json::Value;

use super::{
    scheme::{Resource, Subresource},
    status::ApiError,
};

/// Checks a defaulted object.
pub(super) fn validate(
    _resource: &Resource,
    _new: &Value,
    _old: Option<&Value>,
    _sub: Option<Subresource>,
) -> Result<(), ApiError> {
    todo!()
}
