//! GET of one object.

use axum::http::StatusCode;

use super::{Answer, Call};

/// The object as it is. What was written before the request began is in the cache, so there is
/// nothing to wait for, whatever resourceVersion the client asks for.
pub async fn get(call: &Call) -> Answer {
    let found = call
        .state
        .objects
        .get(call.storage(), call.namespace(), call.name())?;
    let bytes = call.sight().bytes(&found);
    call.show(bytes, StatusCode::OK).await
}
