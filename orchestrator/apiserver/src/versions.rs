//! Objects between the version that a client speaks and the one that is stored.
//!
//! For nearly every request the two are the same, and nothing here costs anything then.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::objects::Current;
use super::{State, custom, reply};
use api::{ApiError, Conversion, Resource, Served};

/// What a client wrote, as it is to be stored.
pub async fn stored(state: &State, served: &Served, object: Value) -> Result<Value, ApiError> {
    if served.is_same() {
        return Ok(object);
    }
    let object = converted_one(state, served, &served.storage, object).await?;
    served.to_stored(object)
}

/// What is stored, in the version that the client speaks.
pub async fn shown_value(state: &State, served: &Served, object: Value) -> Result<Value, ApiError> {
    if served.is_same() {
        return Ok(object);
    }
    let object = converted_one(state, served, &served.resource, object).await?;
    served.to_served(object)
}

/// The present object to be changed: as the store is to have it from now on, and in the version that
/// the client speaks. What was stored in an older version is neither.
pub async fn shown(
    state: &State,
    served: &Served,
    current: Current,
) -> Result<(Current, Current), ApiError> {
    let value = converted_one(state, served, &served.storage, current.value.clone()).await?;
    let stored = Current { value, ..current };
    let shown = Current {
        value: shown_value(state, served, stored.value.clone()).await?,
        ..stored.clone()
    };
    Ok((stored, shown))
}

/// The bytes of an object, in the version that the client speaks.
pub async fn shown_bytes(state: &State, served: &Served, bytes: Bytes) -> Result<Bytes, ApiError> {
    let mut all = all_shown(state, served, vec![bytes]).await?;
    all.pop()
        .ok_or_else(|| reply::internal("an object was lost in conversion"))
}

/// The same of several objects; a webhook is asked once for all of them.
pub async fn all_shown(
    state: &State,
    served: &Served,
    mut objects: Vec<Bytes>,
) -> Result<Vec<Bytes>, ApiError> {
    if served.is_same() {
        return Ok(objects);
    }
    let head = head(&served.resource);
    let is_other = |object: &&mut Bytes| !object.starts_with(head.as_bytes());
    let others: Vec<&mut Bytes> = objects.iter_mut().filter(is_other).collect();
    let parsed: Result<Vec<Value>, ApiError> =
        others.iter().map(|object| reply::parse(object)).collect();
    let converted = converted(state, served, &served.resource, parsed?).await?;
    for (object, new) in others.into_iter().zip(converted) {
        let new = served.to_served(new)?;
        *object = served.resource.serialize(&new).into();
    }
    Ok(objects)
}

/// What objects of a version begin with, as they are serialised.
fn head(resource: &Resource) -> String {
    format!("{{\"apiVersion\":\"{}\",", resource.api_version())
}

async fn converted_one(
    state: &State,
    served: &Served,
    to: &Arc<Resource>,
    object: Value,
) -> Result<Value, ApiError> {
    let mut all = converted(state, served, to, vec![object]).await?;
    all.pop()
        .ok_or_else(|| reply::internal("an object was lost in conversion"))
}

/// What a webhook makes of objects; those of kinds without one are as they are.
async fn converted(
    state: &State,
    served: &Served,
    to: &Arc<Resource>,
    objects: Vec<Value>,
) -> Result<Vec<Value>, ApiError> {
    match &served.conversion {
        Conversion::Webhook(webhook) => custom::convert(state, webhook, to, objects).await,
        _ => Ok(objects),
    }
}
