//! GET of one object.

use axum::http::StatusCode;

use super::{Answer, Call};
use crate::reply;

/// The object as it is. What was written before the request began is in the cache, so there is
/// nothing to wait for, whatever resourceVersion the client asks for.
pub fn get(call: &Call) -> Answer {
    let found = call
        .state
        .objects
        .get(call.resource(), call.namespace(), call.name())?;
    let bytes = call.sight().bytes(&found);
    reply::object(&call.wanted, call.resource(), bytes, StatusCode::OK)
}
