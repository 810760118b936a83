//! The status that follows from a budget and its pods. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::scale::Count;
use super::{DELETION_TIMEOUT, Noted, View};
use crate::action::{Action, Plan};
use api::disruption;

/// Writes what has changed, and tells of what stands in the way.
pub fn plan(view: &View) -> Plan {
    let old = json!(view.typed.status.clone().unwrap_or_default());
    let (noted, again, late) = noted(view);
    let (next, mut events) = match &view.count {
        Count::Known { pods, unmanaged } => {
            let next = counted(view, *pods, &noted, &old);
            (next, unmanaged.then(|| unmanaged_pods(view)))
        }
        Count::Failed(why) => {
            let text = format!("Failed to calculate the number of expected pods: {why}");
            let event = Action::warning(view.budget, "CalculateExpectedPodCountFailed", text);
            (failed(view, why, &old), Some(event))
        }
        Count::Unknown(_) => return Plan::default(),
    };
    let retry = matches!(view.count, Count::Failed(_)).then_some(RETRY);
    let again = [again, retry].into_iter().flatten().min();
    if next == old {
        return Plan {
            actions: late,
            again,
        };
    }
    if view.pods.is_empty() && events.is_none() {
        let text = "No matching pods found".to_owned();
        events = Some(Action::normal(view.budget, "NoPods", text));
    }
    let mut actions = vec![write(view, &old, next)];
    actions.extend(events.into_iter().chain(late));
    Plan { actions, again }
}

const RETRY: SignedDuration = SignedDuration::from_secs(31);

/// The evicted pods that are still to go, when the first of them is due, and what is told of those that are late.
fn noted(view: &View) -> (Noted, Option<SignedDuration>, Vec<Action>) {
    let status = view.typed.status.as_ref();
    let old = status.and_then(|status| status.disrupted_pods.as_ref());
    let (mut noted, mut again, mut late) = (Noted::new(), None, Vec::new());
    for (pod, _) in view
        .pods
        .iter()
        .filter(|(pod, _)| pod.meta.deleting.is_none())
    {
        let Some(since) = old.and_then(|old| old.get(&pod.key.name)) else {
            continue;
        };
        let wait = view.now.duration_until(since.0 + DELETION_TIMEOUT);
        if wait <= SignedDuration::ZERO {
            let (namespace, name) = (&pod.key.namespace, &view.budget.key.name);
            let text =
                format!("Pod was expected by PDB {namespace}/{name} to be deleted but it wasn't");
            late.push(Action::warning(pod, "NotDeleted", text));
            continue;
        }
        noted.insert(pod.key.name.clone(), since.0);
        again = [again, Some(wait)].into_iter().flatten().min();
    }
    (noted, again, late)
}

fn counted(view: &View, expected: u64, noted: &Noted, old: &Value) -> Value {
    let healthy = view.pods.iter().filter(|(pod, row)| {
        let goes = pod.meta.deleting.is_some() || noted.contains_key(&pod.key.name);
        row.ready && !goes
    });
    let healthy = healthy.count() as u64;
    let desired = desired(view, expected);
    // A budget without pods allows nothing, so that it holds for the first ones as well.
    let allowed = match expected {
        0 => 0,
        _ => healthy.saturating_sub(desired),
    };
    let mut next = json!({
        "observedGeneration": view.budget.meta.generation,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "conditions": old["conditions"],
    });
    if !noted.is_empty() {
        let times = noted.iter();
        let times = times.map(|(name, at)| (name, Value::from(api::meta::timestamp(*at))));
        next["disruptedPods"] = json!(times.collect::<BTreeMap<_, _>>());
    }
    let reason = match allowed {
        0 => "InsufficientPods",
        _ => "SufficientPods",
    };
    disruption::set_condition(&mut next, allowed > 0, reason, "", view.now);
    next
}

fn desired(view: &View, expected: u64) -> u64 {
    let Some(spec) = &view.typed.spec else {
        return 0;
    };
    let amount = |amount: &IntOrString| match amount {
        IntOrString::Int(count) => u64::try_from(*count).unwrap_or(0),
        IntOrString::String(percent) => {
            let percent = percent.strip_suffix('%').and_then(|it| it.parse().ok());
            let percent: u64 = percent.unwrap_or(0);
            expected.saturating_mul(percent).div_ceil(100)
        }
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => expected.saturating_sub(amount(most)),
        (None, Some(least)) => amount(least),
        (None, None) => 0,
    }
}

/// Nothing is allowed while it is not known how many pods there should be.
fn failed(view: &View, why: &str, old: &Value) -> Value {
    let mut next = old.clone();
    next["disruptionsAllowed"] = 0.into();
    disruption::set_condition(&mut next, false, "SyncFailed", why, view.now);
    next
}

fn unmanaged_pods(view: &View) -> Action {
    let selector = view
        .typed
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    let selector = json!(selector);
    let text = format!(
        "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a \
         result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. \
         To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
    );
    Action::warning(view.budget, "UnmanagedPods", text)
}

fn write(view: &View, old: &Value, mut next: Value) -> Action {
    let keys = |map: &Value| -> BTreeSet<String> {
        let map = map.as_object().into_iter();
        map.flat_map(|map| map.keys().cloned()).collect()
    };
    let now = keys(&next["disruptedPods"]);
    for gone in keys(&old["disruptedPods"]).difference(&now) {
        next["disruptedPods"][gone] = Value::Null;
    }
    Action::merge_exact(view.budget, "status", json!({"status": next}))
}
