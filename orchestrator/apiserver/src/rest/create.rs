//! POST: a new object.

use axum::http::StatusCode;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use super::{Answer, Call, RETRIES};
use crate::admission;
use crate::objects::WriteError;
use crate::services::Claim;
use crate::{node_writes, reply};
use api::{ApiError, Decoded, meta};

/// Decodes, completes, checks and writes a new object.
pub async fn create(call: &Call) -> Answer {
    let dry_run = call.query.dry_run()?;
    let resource = call.resource();
    let Decoded {
        mut object,
        warnings,
    } = call.decode(resource)?;
    call.check_namespace(&mut object)?;
    if !meta::resource_version(&object).is_empty() {
        return Err(ApiError::BadRequest(
            "resourceVersion should not be set on objects to be created".to_owned(),
        ));
    }
    node_writes::check(&call.user, resource, &object, None)?;
    admission::namespace_is_open(&call.state, resource, call.namespace(), meta::name(&object))?;
    for attempt in 1.. {
        let mut object = object.clone();
        let generated = admission::generate_name(&mut object)?;
        match write(call, object, dry_run).await {
            Ok(bytes) => {
                let answer = reply::object(&call.wanted, resource, bytes, StatusCode::CREATED)?;
                return Ok(reply::warn(answer, &warnings));
            }
            Err((WriteError::Failed(error), _)) => return Err(error),
            // Another object got the same random name: draw again.
            Err((WriteError::Changed, _)) if generated && attempt < RETRIES => {}
            Err((WriteError::Changed, name)) => {
                return Err(ApiError::already_exists(resource, &name));
            }
        }
    }
    unreachable!("the loop only ends by returning")
}

/// One try; an error comes with the name that was tried.
async fn write(
    call: &Call,
    mut object: Value,
    dry_run: bool,
) -> Result<Bytes, (WriteError, String)> {
    let resource = call.resource();
    let name = meta::name(&object).to_owned();
    let failed = |error| (WriteError::Failed(error), name.clone());
    resource.prepare_for_create(&mut object);
    meta::stamp(&mut object, &admission::new_uid(), Timestamp::now());
    resource.default(&mut object);
    admission::complete(&call.state, resource, &mut object).map_err(failed)?;
    resource.validate(&object, None, None).map_err(failed)?;
    let existing = call
        .state
        .objects
        .cache
        .get(resource, call.namespace(), &name);
    if existing.is_some() {
        return Err((WriteError::Changed, name));
    }
    let claim = Claim::make(&call.state, resource, &mut object, None).map_err(failed)?;
    if dry_run {
        return Ok(resource.serialize(&object).into());
    }
    let companions = admission::companions(&call.state, resource, &object).map_err(failed)?;
    let bytes = call
        .state
        .objects
        .create(resource, &object, companions)
        .await;
    let bytes = bytes.map_err(|error| (error, name))?;
    claim.keep();
    Ok(bytes)
}
