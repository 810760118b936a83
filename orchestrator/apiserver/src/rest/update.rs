//! PUT and PATCH of an object, its status, its scale, or a namespace's finalizers.
//!
//! Both make a new object out of the present one; `write` checks and commits it. Without a precondition
//! of the client a lost race is tried again.

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::Value;

use super::{Answer, Call, subresource};
use crate::objects::Current;
use crate::write::Part;
use crate::{negotiate, reply};
use api::{self, ApiError, Decoded, Format, Resource, Subresource, meta};

/// PUT: the whole object.
pub async fn replace(call: &Call) -> Answer {
    let scale = call.target.subresource == Some(Subresource::Scale);
    let body_kind: &Resource = if scale {
        &api::kinds::SCALE
    } else {
        call.resource()
    };
    let Decoded {
        mut object,
        warnings,
    } = call.decode(body_kind)?;
    call.check_namespace(&mut object)?;
    check_name(call, &mut object)?;
    let required = meta::resource_version(&object).to_owned();
    change(call, &warnings, |current| {
        check_revision(call, current, &required)?;
        match scale {
            true => api::scale::apply(call.resource(), &current.with_revision(), &object),
            false => Ok(object.clone()),
        }
    })
    .await
}

/// PATCH: what is to be different.
pub async fn patch(call: &Call) -> Answer {
    let kind = PatchKind::of(call)?;
    let mode = call.field_validation()?;
    let body = api::decode::patch_body(&call.body, Format::Json, mode)?;
    let patch = body.object;
    let scale = call.target.subresource == Some(Subresource::Scale);
    let mut warnings = Vec::new();
    // What the last try reported is what the client hears.
    let collected = &mut warnings;
    let answer = change(call, &[], |current| {
        let mut original = current.with_revision();
        if scale {
            original = api::scale::of(call.resource(), &original)?;
        }
        let patched_kind: &Resource = if scale {
            &api::kinds::SCALE
        } else {
            call.resource()
        };
        let patched = kind.apply(patched_kind, &original, &patch)?;
        let mut decoded = patched_kind.canonical(patched, mode)?;
        call.check_namespace(&mut decoded.object)?;
        check_name(call, &mut decoded.object)?;
        check_revision(call, current, meta::resource_version(&decoded.object))?;
        *collected = decoded.warnings;
        match scale {
            true => api::scale::apply(call.resource(), &current.with_revision(), &decoded.object),
            false => Ok(decoded.object),
        }
    })
    .await?;
    Ok(reply::warn(answer, &[body.warnings, warnings].concat()))
}

/// Writes what `make` makes of the object, and answers it.
async fn change(
    call: &Call,
    warnings: &[String],
    make: impl FnMut(&Current) -> Result<Value, ApiError>,
) -> Answer {
    // A Scale names replicas only: what it changes is the object's spec.
    let part = match call.target.subresource {
        None | Some(Subresource::Scale) => Part::Object,
        Some(sub) => Part::Of(sub),
    };
    let writer = call.writer(part)?;
    let bytes = writer.change(call.namespace(), call.name(), make).await?;
    Ok(reply::warn(answer(call, bytes)?, warnings))
}

fn answer(call: &Call, bytes: Bytes) -> Answer {
    match call.target.subresource {
        Some(Subresource::Scale) => subresource::scale_answer(call, &bytes),
        _ => reply::object(&call.wanted, call.resource(), bytes, StatusCode::OK),
    }
}

fn check_name(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let name = meta::name(object);
    if name.is_empty() {
        object["metadata"]["name"] = call.name().into();
        return Ok(());
    }
    if name != call.name() {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name()
        )));
    }
    Ok(())
}

/// The client saw this revision, or does not care.
fn check_revision(call: &Call, current: &Current, required: &str) -> Result<(), ApiError> {
    if required.is_empty() || required == "0" || required == current.revision.to_string() {
        return Ok(());
    }
    Err(ApiError::modified(call.resource(), call.name()))
}

/// The kinds of patch, by content type.
#[derive(Clone, Copy)]
enum PatchKind {
    Json,
    Merge,
    Strategic,
}

impl PatchKind {
    fn of(call: &Call) -> Result<Self, ApiError> {
        match negotiate::content_type(&call.headers).as_str() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Err(ApiError::UnsupportedMediaType(
                "this server does not serve server-side apply: use client-side apply (kubectl \
                 apply without --server-side) or another kind of patch"
                    .to_owned(),
            )),
            _ => Err(ApiError::UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json"
                    .to_owned(),
            )),
        }
    }

    fn apply(
        self,
        resource: &Resource,
        original: &Value,
        patch: &Value,
    ) -> Result<Value, ApiError> {
        match self {
            Self::Json => api::patch::json::apply(resource, original, patch),
            Self::Merge => api::patch::merge::apply(resource, original, patch),
            Self::Strategic => api::patch::strategic::apply(resource, original, patch),
        }
    }
}
