//! Pods: a new one is pending, and its spec says what every pod gets.

use serde_json::{Value, json};

use super::keep;
use crate::quantity::Quantity;

/// How long a pod stays on a node that is not ready or unreachable, unless it says otherwise.
const TOLERATION_SECONDS: i64 = 300;

pub fn create(object: &mut Value) {
    object["status"] = json!({"phase": "Pending", "qosClass": qos_class(&object["spec"])});
    if object["spec"]["schedulingGates"][0].is_object() {
        object["status"]["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    let spec = &mut object["spec"];
    if spec["priority"].is_null() {
        spec["priority"] = 0.into();
    }
    if spec["preemptionPolicy"].is_null() {
        spec["preemptionPolicy"] = "PreemptLowerPriority".into();
    }
    tolerate(spec, "node.kubernetes.io/not-ready");
    tolerate(spec, "node.kubernetes.io/unreachable");
}

pub fn update(new: &mut Value, old: &Value) {
    // The class follows from resources, which an update does not change.
    keep(new, old, "", "status");
}

pub fn update_status(new: &mut Value, old: &Value) {
    if new["status"].is_object() {
        keep(new, old, "/status", "qosClass");
        for (first, all) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
            follow(&mut new["status"], &old["status"], first, all);
        }
    }
}

/// A client that knows only one of an address and the list that it is the first of changes it
/// alone; the other one follows.
fn follow(new: &mut Value, old: &Value, first: &str, all: &str) {
    match (new[first] == old[first], new[all] == old[all]) {
        (false, true) if new[first].is_string() => new[all] = json!([{"ip": new[first]}]),
        (true, false) if new[all][0]["ip"].is_string() => new[first] = new[all][0]["ip"].clone(),
        _ => {}
    }
}

fn tolerate(spec: &mut Value, key: &str) {
    let tolerations = spec["tolerations"].as_array();
    let tolerated = tolerations.into_iter().flatten().any(|t| {
        let key_fits = t["key"].as_str().unwrap_or_default();
        let effect = t["effect"].as_str().unwrap_or_default();
        (key_fits == key || key_fits.is_empty()) && matches!(effect, "NoExecute" | "")
    });
    if tolerated {
        return;
    }
    let toleration = json!({
        "key": key,
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": TOLERATION_SECONDS,
    });
    match spec["tolerations"].as_array_mut() {
        Some(list) => list.push(toleration),
        None => spec["tolerations"] = json!([toleration]),
    }
}

/// Guaranteed: every container limits cpu and memory and asks for just that. BestEffort: none asks
/// for or limits any. Burstable: the rest.
fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    let lists = ["containers", "initContainers"].map(|list| spec[list].as_array());
    for container in lists.into_iter().flatten().flatten() {
        for resource in ["cpu", "memory"] {
            let amount = |list: &str| {
                let text = container["resources"][list][resource].as_str()?;
                Quantity::parse(text).ok().filter(|q| !q.is_zero())
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
