//! POST: a new object.

use axum::http::StatusCode;
use serde_json::Value;

use super::{Answer, Call};
use crate::admission;
use crate::node_writes;
use crate::objects::WriteError;
use crate::write::{Part, RETRIES};
use api::{ApiError, meta};

/// Decodes, completes, checks and writes a new object.
pub async fn create(call: &Call) -> Answer {
    let writer = call.writer(Part::Object)?;
    let resource = call.resource();
    let mut object = call.decode(resource)?;
    call.warnings.add((resource.warn)(&object));
    call.check_namespace(&mut object)?;
    if !meta::resource_version(&object).is_empty() {
        return Err(ApiError::BadRequest(
            "resourceVersion should not be set on objects to be created".to_owned(),
        ));
    }
    let mut object = call.stored(object).await?;
    check(call, &object)?;
    for attempt in 1.. {
        // To be tried again with another name.
        let unnamed = meta::name(&object).is_empty().then(|| object.clone());
        let generated = admission::generate_name(&mut object)?;
        let name = meta::name(&object).to_owned();
        match writer.create(std::mem::take(&mut object)).await {
            Ok(bytes) => {
                return call.show(bytes, StatusCode::CREATED).await;
            }
            Err(WriteError::Failed(error)) => return Err(error),
            // Another object got the same random name: draw again.
            Err(WriteError::Changed) if generated && attempt < RETRIES => {
                object = unnamed.unwrap_or_default();
            }
            Err(WriteError::Changed) => {
                let objects = &call.state.objects;
                let found = objects.current(call.storage(), call.namespace(), &name);
                return Err(match found {
                    Ok(found) if meta::is_terminating(&found.value) => {
                        ApiError::still_going(resource, &name)
                    }
                    _ => ApiError::already_exists(resource, &name),
                });
            }
        }
    }
    unreachable!("the loop only ends by returning")
}

/// Whether the caller may make such an object, there and now.
pub fn check(call: &Call, object: &Value) -> Result<(), ApiError> {
    let resource = call.storage();
    node_writes::check(&call.user, resource, object, None)?;
    admission::namespace_is_open(&call.state, resource, call.namespace(), meta::name(object))
}
