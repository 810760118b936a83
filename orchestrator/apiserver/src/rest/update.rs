//! PUT and PATCH of an object, its status, its scale, or a namespace's finalizers.
//!
//! Both make a new object out of the present one; `write` checks and commits it. Without a precondition
//! of the client a lost race is tried again.

use axum::http::StatusCode;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use super::{Answer, Call, create, subresource};
use crate::objects::{Current, WriteError};
use crate::request::Verb;
use crate::write::{Part, RETRIES, Writer};
use crate::{authz, negotiate, options, versions};
use api::status::Target;
use api::{self, ApiError, Cause, CauseKind, Format, Resource, Subresource, meta};

/// The content type of a server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// PUT: the whole object.
pub async fn replace(call: &Call) -> Answer {
    let scale = call.target.subresource == Some(Subresource::Scale);
    let body_kind: &Resource = if scale {
        &api::kinds::SCALE
    } else {
        call.resource()
    };
    let mut object = call.decode(body_kind)?;
    call.warnings.add((body_kind.warn)(&object));
    call.check_namespace(&mut object)?;
    check_name(call, &mut object)?;
    let required = meta::resource_version(&object).to_owned();
    change(call, |current| {
        check_revision(call, current, &required)?;
        match scale {
            true => api::scale::apply(call.resource(), &current.with_revision(), &object),
            false => Ok(object.clone()),
        }
    })
    .await
}

/// PATCH: what is to be different, or what the caller wants to be so.
pub async fn patch(call: &Call) -> Answer {
    if negotiate::content_type(&call.headers) == APPLY {
        return apply(call).await;
    }
    if call.query.get("force").is_some() {
        let why = "may not be specified for non-apply patch";
        return Err(options::refused("PatchOptions", "force", why));
    }
    let kind = PatchKind::of(call)?;
    let mode = call.field_validation()?;
    let body = api::decode::patch_body(&call.body, Format::Json, mode)?;
    let patch = body.object;
    call.trail.sent_patch(&patch);
    let scale = call.target.subresource == Some(Subresource::Scale);
    call.warnings.add(body.warnings);
    change(call, |current| {
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
        let decoded = patched_kind.canonical(patched, mode);
        let mut decoded = decoded.map_err(|error| unfit(patched_kind, &patch, error))?;
        call.check_namespace(&mut decoded.object)?;
        check_name(call, &mut decoded.object)?;
        check_revision(call, current, meta::resource_version(&decoded.object))?;
        call.warnings.add(decoded.warnings);
        call.warnings.add((patched_kind.warn)(&decoded.object));
        match scale {
            true => api::scale::apply(call.resource(), &current.with_revision(), &decoded.object),
            false => Ok(decoded.object),
        }
    })
    .await
}

/// A patch that makes of an object what its kind is not is invalid, where a body would be malformed: so
/// Kubernetes has it, and kubectl tells the two apart. The patch is told as far as `MOST_TOLD`, but not
/// that of a Secret: answers come into logs of others.
fn unfit(kind: &Resource, patch: &Value, error: ApiError) -> ApiError {
    const MOST_TOLD: usize = 1024;
    let ApiError::BadRequest(why) = error else {
        return error;
    };
    let told: String = match kind.kind == "Secret" && kind.group.is_empty() {
        true => "(a Secret's)".to_owned(),
        false => patch.to_string().chars().take(MOST_TOLD).collect(),
    };
    // Without what the object would be read as, which the client knows.
    let why = why.split_once(" cannot be handled as a ");
    let why = why.and_then(|(_, rest)| rest.split_once(": "));
    let why = why.map_or("it does not fit", |(_, why)| why);
    ApiError::Invalid {
        target: Target::default(),
        causes: vec![Cause {
            field: "patch".into(),
            kind: CauseKind::Invalid,
            message: format!("{}: {told:?}: {why}", CauseKind::Invalid.text()),
        }],
    }
}

/// Server-side apply: the fields that the caller wants, which it owns from now on. An object that is not
/// there is made.
async fn apply(call: &Call) -> Answer {
    let (resource, mode) = (call.resource(), call.field_validation()?);
    let body = api::decode::patch_body(&call.body, Format::Yaml, mode)?;
    let mut applied = body.object;
    check_is_object(&applied)?;
    call.trail.sent_patch(&applied);
    call.check_namespace(&mut applied)?;
    check_name(call, &mut applied)?;
    if call.target.subresource == Some(Subresource::Scale) {
        applied = api::apply::configuration_of_scale(resource, &applied);
    }
    // Asked for its warnings, and for what is of a wrong type: required fields that are filled in would
    // count as applied.
    call.warnings.add(body.warnings);
    call.warnings
        .add(resource.canonical(applied.clone(), mode)?.warnings);
    let force = call.query.flag("force");
    let manager = call.manager()?;
    let merged = |live: Option<&Value>| {
        let by = manager.at(Timestamp::now());
        api::apply::apply(resource, live, &applied, &by, force)
    };
    let writer = Writer {
        manager: None,
        ..call.writer(part(call))?
    };
    let exists = || {
        call.state
            .objects
            .get(call.storage(), call.namespace(), call.name())
            .is_ok()
    };
    for _ in 0..RETRIES {
        if call.target.subresource.is_some() || exists() {
            return change_by(call, &writer, |current| {
                let new = merged(Some(&current.value))?;
                check_revision(call, current, meta::resource_version(&new))?;
                Ok(new)
            })
            .await;
        }
        let new = merged(None)?;
        if !meta::uid(&new).is_empty() {
            let why = "uid mismatch: the provided object specified a uid, and no object was found";
            return Err(ApiError::conflict(resource, call.name(), why.to_owned()));
        }
        // Who may change an object may not make one, unless that right is there as well.
        let wish = authz::Wish::of(Verb::Create, &call.target, &call.query);
        authz::objects(&call.state, &call.user, wish)?;
        let new = call.stored(new).await?;
        create::check(call, &new)?;
        match writer.create(new).await {
            Ok(bytes) => {
                return call.show(bytes, StatusCode::CREATED).await;
            }
            Err(WriteError::Failed(error)) => return Err(error),
            // Another one of this name was made meanwhile.
            Err(WriteError::Changed) => {}
        }
    }
    Err(ApiError::modified(resource, call.name()))
}

/// What is applied is not decoded by a schema before it is looked at.
fn check_is_object(applied: &Value) -> Result<(), ApiError> {
    let wrong = |what: &str| Err(ApiError::BadRequest(format!("{what}: must be an object")));
    match applied.as_object().map(|object| object.get("metadata")) {
        None => wrong("the body of an apply"),
        Some(Some(metadata)) if !metadata.is_object() && !metadata.is_null() => wrong("metadata"),
        Some(_) => Ok(()),
    }
}

/// Writes what `make` makes of the object, and answers it. Both are in the version that the client
/// speaks.
async fn change(call: &Call, make: impl FnMut(&Current) -> Result<Value, ApiError>) -> Answer {
    change_by(call, &call.writer(part(call))?, make).await
}

async fn change_by(
    call: &Call,
    writer: &Writer<'_>,
    mut make: impl FnMut(&Current) -> Result<Value, ApiError>,
) -> Answer {
    let (objects, mut turn) = (&call.state.objects, None);
    for _ in 0..RETRIES {
        let current = objects.current(call.storage(), call.namespace(), call.name())?;
        let (current, new) = if call.target.served.is_same() {
            let new = make(&current)?;
            (current, new)
        } else {
            let served = &call.target.served;
            let (current, shown) = versions::shown(&call.state, served, current).await?;
            (current, call.stored(make(&shown)?).await?)
        };
        match writer.update(&current, new).await {
            Ok(bytes) => return answer(call, bytes).await,
            Err(WriteError::Failed(error)) => return Err(error),
            // Another write came in between.
            Err(WriteError::Changed) => {}
        }
        objects
            .wait_for_turn(&mut turn, call.storage(), call.namespace(), call.name())
            .await;
    }
    Err(ApiError::modified(call.resource(), call.name()))
}

/// A Scale names replicas only: what it changes is the object's spec.
fn part(call: &Call) -> Part {
    match call.target.subresource {
        None | Some(Subresource::Scale) => Part::Object,
        Some(sub) => Part::Of(sub),
    }
}

async fn answer(call: &Call, bytes: Bytes) -> Answer {
    match call.target.subresource {
        Some(Subresource::Scale) => subresource::scale_answer(call, &bytes).await,
        _ => call.show(bytes, StatusCode::OK).await,
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

/// The types of patch that objects of a kind take. A custom kind's schema does not say how a strategic
/// patch merges.
pub fn patch_types(resource: &Resource) -> &'static [&'static str] {
    match resource.custom.is_some() {
        true => &[JSON, MERGE, APPLY],
        false => &[JSON, MERGE, APPLY, STRATEGIC],
    }
}

impl PatchKind {
    fn of(call: &Call) -> Result<Self, ApiError> {
        let kind: &Resource = match call.target.subresource {
            Some(Subresource::Scale) => &api::kinds::SCALE,
            _ => call.resource(),
        };
        let accepted = patch_types(kind);
        match negotiate::content_type(&call.headers).as_str() {
            JSON => Ok(Self::Json),
            MERGE => Ok(Self::Merge),
            STRATEGIC if accepted.contains(&STRATEGIC) => Ok(Self::Strategic),
            _ => Err(negotiate::unknown_format(accepted)),
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
