//! RuntimeClass: what a pod of a class takes besides its containers, and on which nodes it can run.

use serde_json::{Value, json};

use super::{forbidden, is_pod, tolerations};
use crate::admission::Attributes;
use crate::reply;
use api::{ApiError, amounts};

pub fn mutate(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !is_pod(attributes) {
        return Ok(());
    }
    let Some(class) = class(attributes, pod)? else {
        return Ok(());
    };
    let overhead = &class["overhead"]["podFixed"];
    if class["overhead"].is_object() {
        if is_other(&pod["spec"]["overhead"], overhead) && pod["spec"]["overhead"].is_object() {
            return Err(forbidden(attributes, OTHER_OVERHEAD));
        }
        pod["spec"]["overhead"] = overhead.clone();
    }
    let scheduling = &class["scheduling"];
    let selector = scheduling["nodeSelector"].as_object();
    for (key, value) in selector.into_iter().flatten() {
        let asked = &mut pod["spec"]["nodeSelector"];
        if asked[key].is_string() && asked[key] != *value {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; \
                 pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(&asked[key])
            );
            return Err(forbidden(attributes, why));
        }
        if asked.is_null() {
            *asked = json!({});
        }
        asked[key] = value.clone();
    }
    if let Some(tolerated) = scheduling["tolerations"].as_array() {
        tolerations::merge(pod, tolerated);
    }
    Ok(())
}

pub fn validate(attributes: &Attributes<'_>, pod: Option<&Value>) -> Result<(), ApiError> {
    let Some(pod) = pod.filter(|_| is_pod(attributes)) else {
        return Ok(());
    };
    let (overhead, class) = (&pod["spec"]["overhead"], class(attributes, pod)?);
    let of_class = class.map_or(Value::Null, |class| class["overhead"].clone());
    if of_class.is_object() {
        return match is_other(overhead, &of_class["podFixed"]) {
            true => Err(forbidden(attributes, OTHER_OVERHEAD)),
            false => Ok(()),
        };
    }
    if overhead.is_object() {
        let why =
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return Err(forbidden(attributes, why));
    }
    Ok(())
}

const OTHER_OVERHEAD: &str =
    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn is_other(asked: &Value, of_class: &Value) -> bool {
    amounts::read(asked) != amounts::read(of_class)
}

/// The class that the pod names.
fn class(attributes: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, ApiError> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else {
        return Ok(None);
    };
    let kind = api::find("node.k8s.io", "v1", "runtimeclasses");
    let kind = kind.ok_or(ApiError::NoSuchResource)?;
    match attributes.state.objects.cache.get(kind, "", name) {
        Some(class) => Ok(Some(reply::parse(&class.bytes())?)),
        None => {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            Err(forbidden(attributes, why))
        }
    }
}
