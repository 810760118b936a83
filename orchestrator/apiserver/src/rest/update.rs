//! PUT and PATCH of an object, its status, its scale, or a namespace's finalizers.
//!
//! Both end in `write`: the new object is checked against the one that it replaces and written if
//! that one is still there. Without a precondition of the client a lost race is tried again.

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::Value;

use super::{Answer, Call, RETRIES, subresource};
use crate::admission;
use crate::objects::{Current, WriteError};
use crate::services::{self, Claim};
use crate::{negotiate, node_writes, nodes, reply};
use api::{self, ApiError, Behaviour, Decoded, Format, Resource, Subresource, meta};

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

/// Reads the object, makes the new one out of it and writes that, until nobody came in between.
async fn change(
    call: &Call,
    warnings: &[String],
    mut make: impl FnMut(&Current) -> Result<Value, ApiError>,
) -> Answer {
    let dry_run = call.query.dry_run()?;
    for _ in 0..RETRIES {
        let objects = &call.state.objects;
        let current = objects.current(call.resource(), call.namespace(), call.name())?;
        let new = make(&current)?;
        match write(call, &current, new, dry_run).await {
            Ok(bytes) => return Ok(reply::warn(answer(call, bytes)?, warnings)),
            Err(WriteError::Failed(error)) => return Err(error),
            Err(WriteError::Changed) => {}
        }
    }
    Err(ApiError::modified(call.resource(), call.name()))
}

fn answer(call: &Call, bytes: Bytes) -> Answer {
    match call.target.subresource {
        Some(Subresource::Scale) => subresource::scale_answer(call, &bytes),
        _ => reply::object(&call.wanted, call.resource(), bytes, StatusCode::OK),
    }
}

/// One try to put `new` in the place of `current`; also how the server changes objects itself.
async fn write(
    call: &Call,
    current: &Current,
    mut new: Value,
    dry_run: bool,
) -> Result<Bytes, WriteError> {
    let (state, resource) = (&call.state, call.resource());
    // A Scale names replicas only: what it changes is the object's spec.
    let sub = call
        .target
        .subresource
        .filter(|sub| *sub != Subresource::Scale);
    let old = &current.value;
    keep_identity(resource, &mut new, old).map_err(WriteError::Failed)?;
    resource.prepare_for_update(&mut new, old, sub);
    resource.default(&mut new);
    if sub.is_none() {
        admission::keep_given(resource, &mut new, old);
    }
    resource
        .validate(&new, Some(old), sub)
        .map_err(WriteError::Failed)?;
    node_writes::check(&call.user, resource, &new, Some(old)).map_err(WriteError::Failed)?;
    check_pod_addresses(call, &new, old).map_err(WriteError::Failed)?;
    let claim = Claim::make(state, resource, &mut new, Some(old)).map_err(WriteError::Failed)?;
    if new == *old {
        return Ok(current.bytes.clone());
    }
    if dry_run {
        let bytes = resource.serialize(&new);
        return Ok(super::super::wire::with_revision(&bytes, current.revision));
    }
    if is_finished(resource, &new) {
        let (namespace, name) = (call.namespace(), call.name());
        state
            .objects
            .remove(resource, namespace, name, current.revision)
            .await?;
        drop(claim);
        services::release(state, old);
        let bytes = resource.serialize(&new);
        return Ok(super::super::wire::with_revision(&bytes, current.revision));
    }
    let bytes = state
        .objects
        .update(resource, &new, current.revision)
        .await?;
    claim.keep();
    Ok(bytes)
}

/// A node tells only addresses of its own for its pods.
fn check_pod_addresses(call: &Call, new: &Value, old: &Value) -> Result<(), ApiError> {
    let resource = call.resource();
    let Some(node) = call.user.node() else {
        return Ok(());
    };
    if resource.behaviour != Behaviour::Pod {
        return Ok(());
    }
    let nodes = api::find("", "v1", "nodes").ok_or(ApiError::NoSuchResource)?;
    let objects = &call.state.objects;
    let node = objects.current(nodes, "", node)?.value;
    nodes::check_pod_addresses(&node, new, old)
        .map_err(|why| ApiError::forbidden(resource, meta::name(new), why))
}

/// Metadata that no client changes, and the uid as a precondition.
fn keep_identity(resource: &Resource, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    let (asked, uid) = (meta::uid(new).to_owned(), meta::uid(old));
    if !asked.is_empty() && asked != uid {
        let why =
            format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}");
        return Err(ApiError::conflict(resource, meta::name(old), why));
    }
    let Some(metadata) = new["metadata"].as_object_mut() else {
        return Ok(());
    };
    metadata.remove("resourceVersion");
    metadata.remove("managedFields");
    metadata.remove("selfLink");
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    Ok(())
}

/// An object that waits for its deletion goes when the last finalizer does.
fn is_finished(resource: &Resource, object: &Value) -> bool {
    let spec_finalizers = object["spec"]["finalizers"]
        .as_array()
        .is_some_and(|f| !f.is_empty());
    let namespace = resource.behaviour == Behaviour::Namespace;
    let graceful = object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or_default();
    meta::is_terminating(object)
        && meta::finalizers(object).is_empty()
        && graceful == 0
        && !(namespace && spec_finalizers)
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
