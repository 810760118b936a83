//! Conversion webhooks: the review that is sent, and what may be in the answer. Pure but for `convert`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::State;
use api::{ApiError, Resource, Webhook, meta};

/// How long a webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);
const REVIEW: &str = "apiextensions.k8s.io";

/// The objects in the version of `to`. Those that are in it already are not sent.
///
/// # Errors
/// The webhook cannot be reached, says no, or answers with something else than these objects.
pub async fn convert(
    state: &State,
    webhook: &Webhook,
    to: &Resource,
    mut objects: Vec<Value>,
) -> Result<Vec<Value>, ApiError> {
    let desired = to.api_version();
    let others = |object: &&mut Value| object["apiVersion"] != *desired;
    let mut others: Vec<&mut Value> = objects.iter_mut().filter(others).collect();
    if others.is_empty() {
        return Ok(objects);
    }
    let sent: Vec<Value> = others.iter().map(|object| (**object).clone()).collect();
    let failed = |why: String| {
        let from = sent[0]["apiVersion"].as_str().unwrap_or_default();
        ApiError::Internal(format!(
            "conversion webhook for {from}, Kind={} failed: {why}",
            to.kind
        ))
    };
    let uid = uuid::Uuid::new_v4().to_string();
    let review = review(&webhook.reviews, &uid, &desired, &sent).map_err(failed)?;
    let answer = state.converters.ask(state, webhook, &review, TIMEOUT).await;
    let answer = answer.map_err(failed)?;
    let converted = converted(&review, &answer, &sent, &desired).map_err(failed)?;
    for (object, new) in others.iter_mut().zip(converted) {
        **object = new;
    }
    drop(others);
    Ok(objects)
}

/// What is asked, in the first version of the review that both understand.
pub fn review(
    versions: &[Box<str>],
    uid: &str,
    desired: &str,
    objects: &[Value],
) -> Result<Value, String> {
    let known = |version: &&Box<str>| ["v1", "v1beta1"].contains(&&***version);
    let version = versions.iter().find(known);
    let version = version.ok_or("no supported conversion review versions")?;
    Ok(json!({
        "kind": "ConversionReview",
        "apiVersion": format!("{REVIEW}/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": desired, "objects": objects},
    }))
}

/// The objects of an answer, in the order in which they were sent.
pub fn converted(
    review: &Value,
    answer: &Value,
    sent: &[Value],
    desired: &str,
) -> Result<Vec<Value>, String> {
    let response = &answer["response"];
    let is_v1 = review["apiVersion"] == format!("{REVIEW}/v1");
    let gvk = (&answer["apiVersion"], &answer["kind"]);
    if is_v1 && gvk != (&review["apiVersion"], &review["kind"]) {
        let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        return Err(format!(
            "expected webhook response of {REVIEW}/v1, Kind=ConversionReview, got {}, Kind={}",
            said(gvk.0),
            said(gvk.1)
        ));
    }
    if response.is_null() {
        return Err("no response provided".into());
    }
    let uid = &review["request"]["uid"];
    if is_v1 && response["uid"] != *uid {
        let got = response["uid"].as_str().unwrap_or_default();
        return Err(format!("expected response.uid={uid}, got {got:?}"));
    }
    let result = &response["result"];
    if result["status"] != "Success" {
        let said = result["message"].as_str().filter(|text| !text.is_empty());
        return Err(said.map(str::to_owned).unwrap_or_else(|| {
            let status = result["status"].as_str().unwrap_or_default();
            format!("response.result.status was '{status}', not 'Success'")
        }));
    }
    let objects = response["convertedObjects"].as_array();
    let objects = objects.map(Vec::as_slice).unwrap_or_default();
    if objects.len() != sent.len() {
        return Err(format!(
            "webhook returned {} objects, expected {}",
            objects.len(),
            sent.len()
        ));
    }
    let all = objects.iter().zip(sent).enumerate();
    all.map(|(at, (object, sent))| {
        checked(object, sent, desired)
            .map_err(|why| format!("invalid converted object at index {at}: {why}"))
    })
    .collect()
}

/// The converted object with the metadata of the one that was sent: a webhook changes labels and
/// annotations, and nothing else of it.
fn checked(object: &Value, sent: &Value, desired: &str) -> Result<Value, String> {
    let mut object = object.clone();
    if object["apiVersion"] != desired {
        let got = object["apiVersion"].as_str().unwrap_or_default();
        return Err(format!(
            "invalid groupVersion (expected {desired}, received {got})"
        ));
    }
    if object["kind"] != sent["kind"] {
        return Err(format!(
            "invalid kind (expected {}, received {})",
            sent["kind"].as_str().unwrap_or_default(),
            object["kind"].as_str().unwrap_or_default()
        ));
    }
    if !object["metadata"].is_object() {
        return Err("invalid metadata of type object in input".into());
    }
    for field in ["name", "namespace", "uid"] {
        let (new, old) = (&object["metadata"][field], &sent["metadata"][field]);
        if new.as_str().unwrap_or_default() != old.as_str().unwrap_or_default() {
            return Err(format!(
                "metadata.{field}: Invalid value: {new}: must be unchanged during conversion"
            ));
        }
    }
    let mut metadata = sent["metadata"].clone();
    for field in ["labels", "annotations"] {
        let texts = &object["metadata"][field];
        let is_map = texts
            .as_object()
            .is_some_and(|map| map.values().all(Value::is_string));
        if !texts.is_null() && !is_map {
            return Err(format!("metadata.{field}: must be a map of strings"));
        }
        match texts {
            Value::Null => {
                if let Some(metadata) = metadata.as_object_mut() {
                    metadata.remove(field);
                }
            }
            texts => metadata[field] = texts.clone(),
        }
    }
    object["metadata"] = metadata;
    debug_assert_eq!(meta::name(&object), meta::name(sent));
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str) -> Value {
        json!({"apiVersion": format!("example.com/{version}"), "kind": "Web",
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "finalizers": ["x/y"],
                "labels": {"a": "b"}},
            "spec": {"host": "h"}})
    }

    fn ask(version: &str) -> Value {
        review(&[version.into()], "1", "example.com/v2", &[object("v1")]).unwrap()
    }

    fn answer(response: Value) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": response})
    }

    fn outcome(answer: &Value) -> Result<Vec<Value>, String> {
        converted(&ask("v1"), answer, &[object("v1")], "example.com/v2")
    }

    #[test]
    fn a_review_is_in_the_first_version_that_both_know() {
        let versions: Vec<Box<str>> = vec!["v2".into(), "v1beta1".into(), "v1".into()];
        let asked = review(&versions, "1", "example.com/v2", &[]).unwrap();
        assert_eq!(asked["apiVersion"], "apiextensions.k8s.io/v1beta1");
        assert!(review(&versions[..1], "1", "x", &[]).is_err());
    }

    #[test]
    fn a_webhook_changes_labels_and_annotations_and_no_other_metadata() {
        let mut new = object("v2");
        new["spec"] = json!({"url": "h"});
        new["metadata"] = json!({"name": "a", "namespace": "b", "uid": "u",
            "annotations": {"c": "d"}, "creationTimestamp": null});
        let said = json!({"uid": "1", "result": {"status": "Success"}, "convertedObjects": [new]});
        let mut expected = object("v2");
        expected["spec"] = json!({"url": "h"});
        expected["metadata"] = json!({"name": "a", "namespace": "b", "uid": "u",
            "finalizers": ["x/y"], "annotations": {"c": "d"}});
        assert_eq!(outcome(&answer(said)), Ok(vec![expected]));
    }

    #[test]
    fn an_answer_that_is_none_is_refused_with_the_reason() {
        let success = |objects: Value| json!({"uid": "1", "result": {"status": "Success"}, "convertedObjects": objects});
        let mut renamed = object("v2");
        renamed["metadata"]["name"] = "other".into();
        let failed = json!({"uid": "1", "result": {"status": "Failed", "message": "no idea"}});
        for (said, why) in [
            (json!(null), "no response provided"),
            (
                json!({"uid": "2"}),
                "expected response.uid=\"1\", got \"2\"",
            ),
            (failed, "no idea"),
            (
                json!({"uid": "1", "result": {}}),
                "response.result.status was '', not 'Success'",
            ),
            (success(json!([])), "webhook returned 0 objects, expected 1"),
            (
                success(json!([object("v1")])),
                "invalid converted object at index 0: invalid groupVersion (expected \
                 example.com/v2, received example.com/v1)",
            ),
            (
                success(json!([renamed])),
                "invalid converted object at index 0: metadata.name: Invalid value: \"other\": must \
                 be unchanged during conversion",
            ),
        ] {
            assert_eq!(outcome(&answer(said)), Err(why.to_owned()));
        }
        assert!(
            outcome(&json!({"response": {}}))
                .unwrap_err()
                .starts_with("expected webhook")
        );
    }
}
