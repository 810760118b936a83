//! Pods of which it was said that they would be ended, and that were not: it is taken back (KEP-3329). Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::json;

use super::DELETION_TIMEOUT;
use crate::action::{Action, Plan};
use crate::object::Object;
use crate::taint_eviction::DISRUPTION_TARGET;
use api::meta::timestamp;

/// The reason of a node, which may take any time to end a pod: what it says is never taken back.
const BY_KUBELET: &str = "TerminationByKubelet";

/// Since when somebody but its node says that a pod is to be ended.
pub fn announced(status: &PodStatus) -> Option<Timestamp> {
    let mut conditions = status.conditions.iter().flatten();
    let said = conditions.find(|it| it.type_ == DISRUPTION_TARGET && it.status == "True")?;
    let is_nodes = said.reason.as_deref() == Some(BY_KUBELET);
    let since = said.last_transition_time.as_ref().map(|at| at.0);
    since.filter(|_| !is_nodes)
}

/// Takes it back after two minutes, from a pod that goes on.
pub fn plan(pod: &Object, now: Timestamp) -> Option<Plan> {
    let row = pod.as_pod()?;
    let goes_on = pod.meta.deleting.is_none() && !row.finished();
    let since = row.disrupted.filter(|_| goes_on)?;
    let wait = now.duration_until(since + DELETION_TIMEOUT);
    if wait > SignedDuration::ZERO {
        return Some(Plan {
            actions: Vec::new(),
            again: Some(wait),
        });
    }
    let condition = json!({
        "type": DISRUPTION_TARGET,
        "status": "False",
        "reason": null,
        "message": null,
        "lastTransitionTime": timestamp(now),
    });
    // Of the pod that was seen: whoever is about to end it may have said so anew.
    let body = json!({
        "metadata": {"resourceVersion": pod.meta.revision.to_string()},
        "status": {"conditions": [condition]},
    });
    Some(Plan {
        actions: vec![Action::strategic(pod, "status", body)],
        again: None,
    })
}
