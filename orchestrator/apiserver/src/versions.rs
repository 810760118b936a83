//! Objects between the version that a client speaks and the one that is stored.
//!
//! For nearly every request the two are the same, and nothing here costs anything then.

use bytes::Bytes;
use serde_json::Value;

use super::objects::Current;
use super::reply;
use api::{ApiError, Served};

/// What a client wrote, as it is to be stored.
pub async fn stored(served: &Served, object: Value) -> Result<Value, ApiError> {
    served.to_stored(object)
}

/// What is stored, in the version that the client speaks.
pub async fn shown_value(served: &Served, object: Value) -> Result<Value, ApiError> {
    served.to_served(object)
}

/// The present object, in the version that the client speaks.
pub async fn shown(served: &Served, current: &Current) -> Result<Current, ApiError> {
    Ok(Current {
        value: shown_value(served, current.value.clone()).await?,
        ..current.clone()
    })
}

/// The bytes of an object, in the version that the client speaks.
pub async fn shown_bytes(served: &Served, bytes: Bytes) -> Result<Bytes, ApiError> {
    if served.is_same() {
        return Ok(bytes);
    }
    let object = served.to_served(reply::parse(&bytes)?)?;
    Ok(served.resource.serialize(&object).into())
}

/// The same of several objects at once.
pub async fn all_shown(served: &Served, objects: Vec<Bytes>) -> Result<Vec<Bytes>, ApiError> {
    if served.is_same() {
        return Ok(objects);
    }
    let mut shown = Vec::with_capacity(objects.len());
    for bytes in objects {
        shown.push(shown_bytes(served, bytes).await?);
    }
    Ok(shown)
}
