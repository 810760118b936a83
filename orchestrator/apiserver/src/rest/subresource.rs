//! Parts of an object with a shape of their own: the scale of a workload, the binding of a pod.

use axum::http::StatusCode;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::request::Target;
use crate::write::{Part, Writer};
use crate::{reply, versions};
use api::{self, ApiError, Subresource, meta};

/// GET of a Scale.
pub async fn get_scale(call: &Call) -> Answer {
    let found = call
        .state
        .objects
        .get(call.storage(), call.namespace(), call.name())?;
    scale_answer(call, &found.bytes()).await
}

/// The Scale of a workload's bytes.
pub async fn scale_answer(call: &Call, bytes: &Bytes) -> Answer {
    let bytes = &versions::shown_bytes(&call.state, &call.target.served, bytes.clone()).await?;
    let scale = api::scale::of(call.resource(), &reply::parse(bytes)?)?;
    reply::made(&call.wanted, &api::kinds::SCALE, StatusCode::OK, &scale)
}

/// POST of a Binding: gives a pod to a node, once.
pub async fn bind(call: &Call) -> Answer {
    let mut binding = call.decode(&api::kinds::BINDING)?;
    let named = meta::name(&binding);
    if !named.is_empty() && named != call.name() {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({named}) does not match the name on the URL ({})",
            call.name()
        )));
    }
    call.check_namespace(&mut binding)?;
    let writer = Writer {
        manager: None,
        ..call.writer(Part::Of(Subresource::Binding))?
    };
    let pod = (call.namespace(), call.name());
    writer
        .review_body(&api::kinds::BINDING, pod, &mut binding)
        .await?;
    let node = binding["target"]["name"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::BadRequest(
            "target.name: Required value".to_owned(),
        ));
    }
    writer
        .change(call.namespace(), call.name(), |current| {
            bound(call, &current.value, &binding, node)
        })
        .await?;
    Ok(reply::success(
        &call.wanted,
        StatusCode::CREATED,
        Value::Null,
    ))
}

/// POST of a Binding to the old collection: its name is the pod's.
pub async fn bind_named(call: &Call) -> Answer {
    let binding = call.decode(&api::kinds::BINDING)?;
    let name = meta::name(&binding);
    if name.is_empty() {
        let why = "metadata.name: Required value: name or generateName is required";
        return Err(ApiError::BadRequest(why.to_owned()));
    }
    let pods = call
        .state
        .registry
        .snapshot()
        .find("", "v1", "pods")
        .cloned();
    let served = pods.ok_or(ApiError::NoSuchResource)?;
    let target = Target {
        served,
        name: Some(name.to_owned()),
        subresource: Some(Subresource::Binding),
        ..call.target.clone()
    };
    bind(&Call {
        state: call.state.clone(),
        user: call.user.clone(),
        target,
        verb: call.verb,
        query: call.query.clone(),
        headers: call.headers.clone(),
        wanted: call.wanted,
        body: call.body.clone(),
        warnings: call.warnings.clone(),
        trail: call.trail.clone(),
    })
    .await
}

/// The pod on its node, or why it cannot be there.
fn bound(call: &Call, pod: &Value, binding: &Value, node: &str) -> Result<Value, ApiError> {
    let name = call.name();
    let conflict = |why: String| ApiError::conflict(call.resource(), name, why);
    let asked = meta::uid(binding);
    if !asked.is_empty() && asked != meta::uid(pod) {
        return Err(conflict(format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {}",
            meta::uid(pod)
        )));
    }
    if meta::is_terminating(pod) {
        return Err(conflict(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        )));
    }
    if let Some(has) = pod["spec"]["nodeName"]
        .as_str()
        .filter(|has| !has.is_empty())
    {
        return Err(conflict(format!(
            "pod {name} is already assigned to node \"{has}\""
        )));
    }
    let mut new = pod.clone();
    new["spec"]["nodeName"] = node.into();
    if let Some(annotations) = binding["metadata"]["annotations"].as_object() {
        for (key, value) in annotations {
            new["metadata"]["annotations"][key] = value.clone();
        }
    }
    set_scheduled(&mut new);
    Ok(new)
}

fn set_scheduled(pod: &mut Value) {
    let now = meta::timestamp(Timestamp::now());
    let scheduled = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": now,
    });
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(scheduled);
    }
}
