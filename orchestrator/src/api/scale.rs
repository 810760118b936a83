//! The scale subresource: a view of a workload's replicas.

use serde_json::Value;

use super::{scheme::Resource, status::ApiError};

/// The Scale of a workload, with the workload's metadata.
pub fn of(_resource: &Resource, _object: &Value) -> Result<Value, ApiError> {
    todo!()
}

/// The workload with the replicas that `scale` asks for.
pub fn apply(_resource: &Resource, _object: &Value, _scale: &Value) -> Result<Value, ApiError> {
    todo!()
}
