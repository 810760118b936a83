//! POST of an Eviction: a pod is told why it goes, and deleted, if its disruption budget allows it.
//!
//! ```text
//! pod ─▶ its budget: status −1, pod noted, at the revision that was read ─▶ pod: DisruptionTarget ─▶ deletion
//! ```
//!
//! The budget pays before the pod goes, so that evictions side by side never take more than is allowed. Its
//! controller counts a noted pod as gone until it is, or for two minutes.

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::delete::{self, Options};
use super::{Answer, Call};
use crate::objects::{Current, WriteError};
use crate::reply;
use crate::write::{Part, RETRIES, Writer};
use api::{self, ApiError, Subresource, disruption, meta};

pub async fn evict(call: &Call) -> Answer {
    let (writer, options) = asked(call).await?;
    for _ in 1..RETRIES {
        match evict_as_seen(call, &writer, options.clone()).await {
            // The pod has become another one since it was judged; the client has not said which it means.
            Err(ApiError::Conflict { .. }) if options.resource_version.is_none() => {}
            done => return done,
        }
    }
    evict_as_seen(call, &writer, options).await
}

async fn evict_as_seen(call: &Call, writer: &Writer<'_>, mut options: Options) -> Answer {
    let resource = call.storage();
    let (namespace, name) = (call.namespace(), call.name());
    let current = call.state.objects.current(resource, namespace, name)?;
    options.check(resource, &current)?;
    if may_go_as_it_is(call, &current, options.dry_run).await? {
        options.resource_version = Some(current.revision.to_string());
    }
    writer
        .change(namespace, name, |current| {
            options.check(resource, current)?;
            if meta::is_terminating(&current.value) {
                return Ok(current.value.clone());
            }
            Ok(disrupted(current.value.clone(), Timestamp::now()))
        })
        .await?;
    // The revision that was named was this one; it is one older now.
    options.resource_version = None;
    delete::delete_one(call, namespace, name, &options).await?;
    Ok(reply::success(
        &call.wanted,
        StatusCode::CREATED,
        Value::Null,
    ))
}

/// What the client asks for, reviewed, and who writes it.
async fn asked(call: &Call) -> Result<(Writer<'_>, Options), ApiError> {
    let eviction = call.decode(&api::kinds::EVICTION).or_else(|error| {
        let old = call.decode(&api::kinds::OLD_EVICTION);
        old.map_err(|_| error)
    });
    let mut eviction = eviction?;
    let named = meta::name(&eviction);
    if !named.is_empty() && named != call.name() {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({named}) does not match the name on the URL ({})",
            call.name()
        )));
    }
    call.check_namespace(&mut eviction)?;
    let mut options = Options::from_query(&call.query)?;
    let writer = Writer {
        // What the client sends says it too, in its options.
        dry_run: options.dry_run || !eviction["deleteOptions"]["dryRun"].is_null(),
        ..call.writer(Part::Of(Subresource::Eviction))?
    };
    let pod = (call.namespace(), call.name());
    writer
        .review_body(&api::kinds::EVICTION, pod, &mut eviction)
        .await?;
    if eviction["deleteOptions"].is_object() {
        let body = eviction["deleteOptions"].to_string();
        let body = api::decode::delete_options(body.as_bytes(), api::Format::Json)?;
        options.take(body)?;
    }
    let writer = Writer {
        dry_run: options.dry_run,
        manager: None,
        ..writer
    };
    Ok((writer, options))
}

/// Takes one from the budget of the pod, or says why it may not go now. True: nothing was taken, since a pod in
/// this state does not count; it may go as it is, and in no other state.
async fn may_go_as_it_is(call: &Call, pod: &Current, dry_run: bool) -> Result<bool, ApiError> {
    if disruption::is_unprotected(&pod.value) {
        return Ok(!meta::is_terminating(&pod.value));
    }
    let found = api::find("policy", "v1", "poddisruptionbudgets");
    let budgets = found.ok_or(ApiError::NoSuchResource)?;
    let (objects, mut turn) = (&call.state.objects, None);
    for _ in 0..RETRIES {
        let (_, all) = objects.cache.list(budgets, Some(call.namespace()));
        let mut protecting = Vec::new();
        for budget in all {
            let budget = Current::of(&budget)?;
            if disruption::protects(&budget.value, &pod.value) {
                protecting.push(budget);
            }
        }
        let budget = match protecting.as_slice() {
            [] => return Ok(false),
            [budget] => budget,
            _ => return Err(disruption::several()),
        };
        if disruption::spares_unready(&budget.value, &pod.value) {
            return Ok(true);
        }
        let spent = disruption::spend(&budget.value, call.name(), Timestamp::now())?;
        let writer = Writer {
            part: Part::Of(Subresource::Status),
            dry_run,
            ..Writer::server(&call.state, budgets)
        };
        match writer.update(budget, spent).await {
            Ok(_) => return Ok(false),
            Err(WriteError::Failed(error)) => return Err(error),
            Err(WriteError::Changed) => {}
        }
        let (namespace, name) = (call.namespace(), meta::name(&budget.value));
        objects
            .wait_for_turn(&mut turn, budgets, namespace, name)
            .await;
    }
    Err(ApiError::Timeout(format!(
        "couldn't update PodDisruptionBudget of pod {:?} due to conflicts",
        call.name()
    )))
}

/// The pod with the condition that says that it is to go (KEP-3329).
fn disrupted(mut pod: Value, now: Timestamp) -> Value {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": meta::timestamp(now),
    });
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "DisruptionTarget");
        conditions.push(condition);
    }
    pod
}
