//! Pods leave nodes whose NoExecute taints they do not tolerate, or no longer. Pure.
//!
//! A pod's patience counts from when the taint was put on the node (`timeAdded`, else when this controller first
//! saw it), or from when the pod came to the node, if that was later. A taint that goes cancels what waits.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Taint, Toleration};
use serde_json::json;

use super::action::{Action, Delete, Plan, about};
use super::controller::{Controller, Due, Watches};
use super::object::{Key, Object, PodRow};
use super::world::{Address, Diff, World};
use api::meta::timestamp;
use client::Kind;

pub const NO_EXECUTE: &str = "NoExecute";

/// Says in a pod's status that it is ended from outside (KEP-3329).
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// Evicts by taints. Its work is about a node.
#[derive(Default)]
pub struct TaintEvictionController {
    /// By node: its NoExecute taints that do not say when they were put there, and when they were first seen.
    seen: BTreeMap<String, Vec<(Taint, Timestamp)>>,
}

impl Controller for TaintEvictionController {
    fn name(&self) -> &'static str {
        "taint eviction"
    }

    fn account(&self) -> &'static str {
        "node-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::NODE, Kind::POD])
    }

    fn hear(&mut self, diff: &Diff, now: Timestamp) {
        let object = diff.object();
        if object.kind != Kind::NODE {
            return;
        }
        let name = &object.key.name;
        let row = diff.new.as_deref().and_then(Object::as_node);
        let undated = row.iter().flat_map(|row| evicting(&row.taints));
        let undated = undated.filter(|taint| taint.time_added.is_none());
        let before = self.seen.remove(name).unwrap_or_default();
        let seen: Vec<_> = undated
            .map(|taint| {
                let known = before.iter().find(|(known, _)| known == taint);
                (taint.clone(), known.map_or(now, |(_, since)| *since))
            })
            .collect();
        if !seen.is_empty() {
            self.seen.insert(name.clone(), seen);
        }
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        for object in diff.versions() {
            let node = match object.as_pod() {
                Some(row) => Key::new("", &row.node),
                None => object.key.clone(),
            };
            let found = world.get(Kind::NODE, &node).and_then(|node| node.as_node());
            if found.is_some_and(|row| evicting(&row.taints).next().is_some()) {
                due.insert((Kind::NODE, node));
            }
        }
    }

    fn plan(&mut self, world: &World, (_, key): &Address, now: Timestamp) -> Option<Plan> {
        let node = world.get(Kind::NODE, key)?.as_node()?;
        let seen = self.seen.get(&key.name);
        let since = |taint: &Taint| {
            let added = taint.time_added.as_ref().map(|time| time.0);
            let first = seen.and_then(|all| all.iter().find(|(known, _)| known == taint));
            added.or(first.map(|(_, since)| *since)).unwrap_or(now)
        };
        let taints = evicting(&node.taints).map(|taint| (taint, since(taint)));
        Some(plan(&View {
            taints: taints.collect(),
            pods: world.pods_on(&key.name),
            now,
        }))
    }
}

/// A node's NoExecute taints since when, and its pods.
pub struct View<'a> {
    pub taints: Vec<(&'a Taint, Timestamp)>,
    pub pods: Vec<(&'a Object, &'a PodRow)>,
    pub now: Timestamp,
}

fn evicting(taints: &[Taint]) -> impl Iterator<Item = &Taint> {
    taints.iter().filter(|taint| taint.effect == NO_EXECUTE)
}

/// Deletes the pods whose patience is over; tells when the next one's is.
pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let going = |pod: &Object| pod.meta.deleting.is_some();
    for (pod, row) in view.pods.iter().filter(|(pod, _)| !going(pod)) {
        let here = row.scheduled.unwrap_or(pod.meta.created);
        let due = view.taints.iter().filter_map(|(taint, since)| {
            let patience = patience(taint, &row.tolerations)?;
            Some((*since).max(here) + patience)
        });
        match due.min() {
            Some(at) if at <= view.now => plan.actions.extend(evict(pod, view.now)),
            Some(at) => {
                let wait = view.now.duration_until(at);
                plan.again = Some(plan.again.map_or(wait, |other| other.min(wait)));
            }
            None => {}
        }
    }
    plan
}

fn evict(pod: &Object, now: Timestamp) -> [Action; 3] {
    let Key { namespace, name } = &pod.key;
    let text = format!("Marking for deletion Pod {namespace}/{name}");
    let why = "Taint manager: deleting due to NoExecute taint";
    [
        disrupt(pod, "DeletionByTaintManager", why, now),
        Action::normal(pod, "TaintManagerEviction", text),
        Action::Delete(Delete {
            about: Some(about(pod)),
            ..Delete::of(pod)
        }),
    ]
}

/// Says on a pod who ends it and why, before it is ended.
pub fn disrupt(pod: &Object, reason: &str, message: &str, now: Timestamp) -> Action {
    let condition = json!({
        "type": DISRUPTION_TARGET,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": timestamp(now),
    });
    Action::strategic(
        pod,
        "status",
        json!({"status": {"conditions": [condition]}}),
    )
}

/// How long a pod with these tolerations stays in spite of the taint; None: for ever. Of several that fit, the
/// first counts.
fn patience(taint: &Taint, tolerations: &[Toleration]) -> Option<SignedDuration> {
    let fitting = tolerations.iter().find(|it| tolerates(it, taint));
    let Some(fitting) = fitting else {
        return Some(SignedDuration::ZERO);
    };
    let seconds = fitting.toleration_seconds?;
    // A pod may say as much as it likes; a century is for ever.
    Some(SignedDuration::from_secs(seconds.clamp(0, LONGEST_SECONDS)))
}

const LONGEST_SECONDS: i64 = 100 * 365 * 86_400;

/// Kubernetes' rule: an empty key with `Exists` is every taint, an empty effect every effect.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_empty_or = |text: &Option<String>, wanted: &str| {
        text.as_deref()
            .is_none_or(|text| text.is_empty() || text == wanted)
    };
    if !is_empty_or(&toleration.effect, &taint.effect) || !is_empty_or(&toleration.key, &taint.key)
    {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => {
            toleration.key.as_deref().is_some_and(|key| !key.is_empty())
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests;
