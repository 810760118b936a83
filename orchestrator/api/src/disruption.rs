//! What a PodDisruptionBudget says of an eviction, and how an eviction is noted in it (KEP-85, policy/v1). Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use serde_json::{Value, json};

use crate::meta;
use crate::selector::LabelSelector;
use crate::status::ApiError;

/// Evictions that a budget's controller has not seen done, at most.
const MAX_DISRUPTED: usize = 2000;
/// After so many seconds a client may ask again while the budget's status is older than the budget.
const RETRY_AFTER_SECONDS: i32 = 10;

const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// The condition that says whether any pod may be evicted now.
pub const ALLOWED: &str = "DisruptionAllowed";

/// A pod that no budget protects: it does not serve, or it goes already.
pub fn is_unprotected(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
    matches!(phase, "Succeeded" | "Failed" | "Pending") || meta::is_terminating(pod)
}

/// Whether the budget is for pods with the labels of this one. An empty selector is for all, an absent one for
/// none.
pub fn protects(budget: &Value, pod: &Value) -> bool {
    let selector = &budget["spec"]["selector"];
    let parsed = serde_json::from_value(selector.clone()).ok();
    let parsed = parsed.and_then(|selector| LabelSelector::from_object(Some(&selector)).ok());
    let labels = meta::string_map(&pod["metadata"]["labels"]);
    !selector.is_null() && parsed.is_some_and(|selector| selector.matches(&labels))
}

/// A pod that is not ready does not count, and may go whatever is allowed: always, if the budget says so, else
/// while enough others are healthy (KEP-3017).
pub fn spares_unready(budget: &Value, pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let is_ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
    if conditions.is_some_and(|conditions| conditions.iter().any(is_ready)) {
        return false;
    }
    let status = &budget["status"];
    let [healthy, desired] = ["currentHealthy", "desiredHealthy"].map(|it| number(&status[it]));
    match budget["spec"]["unhealthyPodEvictionPolicy"].as_str() {
        Some("AlwaysAllow") => true,
        _ => desired > 0 && healthy >= desired,
    }
}

/// The budget after an eviction of the pod of that name, or why there can be none now.
pub fn spend(budget: &Value, pod: &str, now: Timestamp) -> Result<Value, ApiError> {
    let (name, status) = (meta::name(budget), &budget["status"]);
    let generation = number(&budget["metadata"]["generation"]);
    if number(&status["observedGeneration"]) < generation {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refusal(Some(RETRY_AFTER_SECONDS), why));
    }
    let forbidden = |why: &str| {
        let text = format!("poddisruptionbudgets.policy \"{name}\" is forbidden: {why}");
        Err(ApiError::Forbidden {
            target: crate::status::Target {
                group: "policy".into(),
                kind: "poddisruptionbudgets".into(),
                name: name.to_owned(),
                uid: String::new(),
            },
            message: text,
        })
    };
    let allowed = number(&status["disruptionsAllowed"]);
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    let noted = status["disruptedPods"]
        .as_object()
        .map_or(0, |map| map.len());
    if noted > MAX_DISRUPTED {
        return forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        );
    }
    if allowed == 0 {
        let why = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number(&status["desiredHealthy"]),
            number(&status["currentHealthy"]),
        );
        return Err(refusal(None, why));
    }
    let mut spent = budget.clone();
    spent["status"]["disruptionsAllowed"] = (allowed - 1).into();
    spent["status"]["disruptedPods"][pod] = meta::timestamp(now).into();
    if allowed == 1 {
        set_condition(&mut spent["status"], false, "InsufficientPods", "", now);
    }
    Ok(spent)
}

/// A pod that several budgets protect is not evicted.
pub fn several() -> ApiError {
    ApiError::Given(Box::new(Status {
        code: Some(500),
        message: Some(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does \
             not support."
                .into(),
        ),
        status: Some("Failure".into()),
        ..Status::default()
    }))
}

/// Puts the condition into a budget's status, as of the generation that the status is of.
pub fn set_condition(
    status: &mut Value,
    allowed: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let value = if allowed { "True" } else { "False" };
    let old = conditions.iter().find(|it| it["type"] == ALLOWED);
    let since = old.filter(|it| it["status"] == value);
    let since = since.map_or_else(
        || Value::from(meta::timestamp(now)),
        |it| it["lastTransitionTime"].clone(),
    );
    conditions.retain(|it| it["type"] != ALLOWED);
    conditions.push(json!({
        "type": ALLOWED,
        "status": value,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
        "observedGeneration": number(&status["observedGeneration"]),
    }));
    status["conditions"] = conditions.into();
}

fn refusal(retry_after_seconds: Option<i32>, why: String) -> ApiError {
    ApiError::Given(Box::new(Status {
        code: Some(429),
        reason: Some("TooManyRequests".into()),
        message: Some(VIOLATES.into()),
        status: Some("Failure".into()),
        details: Some(StatusDetails {
            retry_after_seconds,
            causes: Some(vec![StatusCause {
                reason: Some("DisruptionBudget".into()),
                message: Some(why),
                field: None,
            }]),
            ..StatusDetails::default()
        }),
        ..Status::default()
    }))
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({
            "metadata": {"name": "db", "generation": 2},
            "spec": {"selector": {"matchLabels": {"app": "db"}}},
            "status": {"observedGeneration": 2, "disruptionsAllowed": allowed,
                "currentHealthy": 2, "desiredHealthy": 2, "expectedPods": 3},
        })
    }

    fn why(error: &ApiError) -> String {
        let details = error.status().details.unwrap_or_default();
        let cause = details.causes.unwrap_or_default().remove(0);
        format!(
            "{}: {}",
            cause.reason.unwrap_or_default(),
            cause.message.unwrap_or_default()
        )
    }

    #[test]
    fn an_eviction_takes_one_and_is_noted() {
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let once = spend(&budget(2), "a", now).unwrap();
        assert_eq!(once["status"]["disruptionsAllowed"], 1);
        assert_eq!(
            once["status"]["disruptedPods"],
            json!({"a": "2026-01-01T00:10:00Z"})
        );
        assert_eq!(once["status"]["conditions"], Value::Null);
        let twice = spend(&once, "b", now).unwrap();
        assert_eq!(
            twice["status"]["conditions"][0]["reason"],
            "InsufficientPods"
        );
        let error = spend(&twice, "c", now).unwrap_err();
        assert_eq!(error.code(), 429);
        assert_eq!(error.to_string(), VIOLATES);
        assert_eq!(error.retry_after_seconds(), None);
        assert_eq!(
            why(&error),
            "DisruptionBudget: The disruption budget db needs 2 healthy pods and has 2 currently"
        );
    }

    #[test]
    fn a_budget_whose_status_is_older_than_itself_allows_nothing() {
        let mut changed = budget(2);
        changed["metadata"]["generation"] = 3.into();
        let error = spend(&changed, "a", Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!((error.code(), error.retry_after_seconds()), (429, Some(10)));
        assert_eq!(
            why(&error),
            "DisruptionBudget: The disruption budget db is still being processed by the server."
        );
    }

    #[test]
    fn damaged_budgets_allow_nothing() {
        let error = spend(&budget(-1), "a", Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(error.code(), 403);
        let mut full = budget(1);
        for pod in 0..=MAX_DISRUPTED {
            full["status"]["disruptedPods"][pod.to_string()] = "2026-01-01T00:10:00Z".into();
        }
        assert_eq!(
            spend(&full, "a", Timestamp::UNIX_EPOCH).unwrap_err().code(),
            403
        );
    }

    #[test]
    fn pods_that_do_not_serve_may_go() {
        let with = |status: Value| json!({"metadata": {"labels": {"app": "db"}}, "status": status});
        assert!(is_unprotected(&with(json!({}))));
        assert!(is_unprotected(&with(json!({"phase": "Failed"}))));
        let unready = with(json!({"phase": "Running"}));
        assert!(!is_unprotected(&unready) && protects(&budget(0), &unready));
        assert!(
            spares_unready(&budget(0), &unready),
            "enough others are healthy"
        );
        let mut few = budget(0);
        few["status"]["currentHealthy"] = 1.into();
        assert!(!spares_unready(&few, &unready));
        few["spec"]["unhealthyPodEvictionPolicy"] = "AlwaysAllow".into();
        assert!(spares_unready(&few, &unready));
        let ready = with(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert!(!spares_unready(&few, &ready));
    }

    #[test]
    fn an_empty_selector_is_for_all_and_an_absent_one_for_none() {
        let pod = json!({"metadata": {}});
        let with = |selector: Value| json!({"spec": {"selector": selector}});
        assert!(protects(&with(json!({})), &pod));
        assert!(!protects(&with(Value::Null), &pod));
        assert!(!protects(&with(json!({"matchLabels": {"a": "b"}})), &pod));
    }
}
