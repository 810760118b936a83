//! Nodes whose agent is silent: marked, tainted, their pods taken out of service and at last
//! evicted. Pure; when a lease was last renewed is an argument, by this process's clock.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::action::{Action, Delete, Plan, about};
use super::controller::{Controller, Due, Watches};
use super::object::{Key, NodeRow, Object, PodRow};
use super::world::{Address, Diff, World};
use api::meta::timestamp;
use client::Kind;

/// A lease that was not renewed for this long is lost.
pub const GRACE: SignedDuration = SignedDuration::from_secs(40);
/// How long a pod without a word on it stays on a node that is not ready.
const DEFAULT_TOLERATION_SECONDS: i64 = 300;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Where nodes' leases are.
const NODE_LEASES: &str = "kube-node-lease";

/// Marks, taints and empties nodes. Its work is about a node.
pub struct NodeController {
    started: Timestamp,
    /// By node: the lease's time of renewal, and when that was seen to change.
    renewed: BTreeMap<String, (Option<Timestamp>, Timestamp)>,
}

impl NodeController {
    pub fn new(started: Timestamp) -> Self {
        Self {
            started,
            renewed: BTreeMap::new(),
        }
    }
}

impl Controller for NodeController {
    fn name(&self) -> &'static str {
        "node lifecycle"
    }

    fn account(&self) -> &'static str {
        "node-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::NODE, Kind::LEASE, Kind::POD])
    }

    /// A node lives while its lease's time of renewal changes, or when it says that it is ready
    /// again. Clocks are not compared.
    fn hear(&mut self, diff: &Diff, now: Timestamp) {
        let Some(new) = &diff.new else {
            if diff.object().kind == Kind::NODE {
                self.renewed.remove(&diff.object().key.name);
            }
            return;
        };
        let name = &new.key.name;
        let known = self.renewed.get(name).map(|(renewed, _)| *renewed);
        if let Some(lease) = new.as_lease().filter(|_| new.key.namespace == NODE_LEASES) {
            if known != Some(lease.renewed) {
                self.renewed.insert(name.clone(), (lease.renewed, now));
            }
        } else if says_ready(new) && !diff.old.as_deref().is_some_and(says_ready) {
            self.renewed.insert(name.clone(), (known.flatten(), now));
        }
    }

    /// A pod may have to leave a node that is not well at once.
    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        for object in diff.versions() {
            if object.kind == Kind::NODE {
                due.insert((Kind::NODE, object.key.clone()));
            }
            let Some(row) = object.as_pod().filter(|row| !row.node.is_empty()) else {
                continue;
            };
            let key = Key::new("", &row.node);
            let node = world.get(Kind::NODE, &key).and_then(|node| node.as_node());
            if node.is_some_and(|node| node.ready != "True" || !node.taints.is_empty()) {
                due.insert((Kind::NODE, key));
            }
        }
    }

    fn plan(&mut self, world: &World, (_, key): &Address, now: Timestamp) -> Option<Plan> {
        let node = world.get(Kind::NODE, key)?;
        let heard = self.renewed.get(&key.name).map(|(_, heard)| *heard);
        let view = View {
            node,
            row: node.as_node()?,
            pods: world.pods_on(&key.name),
            renewed: heard
                .unwrap_or_default()
                .max(self.started)
                .max(node.meta.created),
            now,
        };
        Some(plan(&view))
    }
}

/// Only the node's own agent says so.
fn says_ready(object: &Object) -> bool {
    object.as_node().is_some_and(|node| node.ready == "True")
}

/// What a plan for one node is made from.
pub struct View<'a> {
    pub node: &'a Object,
    pub row: &'a NodeRow,
    pub pods: Vec<(&'a Object, &'a PodRow)>,
    /// When its lease was last seen renewed, or this process's own start.
    pub renewed: Timestamp,
    pub now: Timestamp,
}

/// Marks the node if its lease is lost, sets the taints that its state asks for, and evicts.
pub fn plan(view: &View) -> Plan {
    if view.node.meta.deleting.is_some() {
        return Plan::default();
    }
    let deadline = view.renewed + GRACE;
    let lost = view.now >= deadline;
    let mut actions = Vec::new();
    let mut again = (!lost).then(|| view.now.duration_until(deadline));
    if lost {
        actions.extend(mark_lost(view));
    }
    let state = if lost {
        "Unknown"
    } else {
        view.row.ready.as_str()
    };
    let taints = taints(view, state);
    if taints != view.row.taints {
        let value = if taints.is_empty() {
            Value::Null
        } else {
            json!(taints)
        };
        let body = json!({"spec": {"taints": value}});
        actions.push(Action::merge_exact(view.node, "", body));
    }
    let evictions = evict(view, &taints, &mut actions);
    again = [again, evictions].into_iter().flatten().min();
    Plan { actions, again }
}

/// The node's conditions become unknown, its pods not ready.
fn mark_lost(view: &View) -> Vec<Action> {
    let mut actions = Vec::new();
    let now = timestamp(view.now);
    if view.row.ready != "Unknown" {
        let mut types: Vec<&str> = view.row.conditions.iter().map(String::as_str).collect();
        if !types.contains(&"Ready") {
            types.push("Ready");
        }
        let conditions: Vec<_> = types
            .into_iter()
            .map(|type_| {
                json!({
                    "type": type_,
                    "status": "Unknown",
                    "reason": "NodeStatusUnknown",
                    "message": "Kubelet stopped posting node status.",
                    "lastTransitionTime": now,
                })
            })
            .collect();
        let body = json!({"status": {"conditions": conditions}});
        actions.push(Action::strategic(view.node, "status", body));
        let text = format!("Node {} status is now: NodeNotReady", view.node.key.name);
        actions.push(Action::normal(view.node, "NodeNotReady", text));
    }
    for (pod, _) in view.pods.iter().filter(|(_, row)| row.ready) {
        let condition = json!({
            "type": "Ready",
            "status": "False",
            "reason": "NodeNotReady",
            "lastTransitionTime": now,
        });
        let body = json!({"status": {"conditions": [condition]}});
        actions.push(Action::strategic(pod, "status", body));
        actions.push(Action::warning(
            pod,
            "NodeNotReady",
            "Node is not ready".to_owned(),
        ));
    }
    actions
}

/// The node's taints with those that its state asks for; present ones keep their time.
fn taints(view: &View, state: &str) -> Vec<Taint> {
    let wanted: &[(&str, &str)] = match state {
        "True" => &[],
        "Unknown" => &[(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)],
        "False" => &[(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)],
        // A node that never was ready has nothing to leave; the scheduler waits for it by itself.
        _ => &[],
    };
    let is_ours = |taint: &Taint| taint.key == NOT_READY || taint.key == UNREACHABLE;
    let is =
        |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let mut taints: Vec<Taint> = view
        .row
        .taints
        .iter()
        .filter(|taint| !is_ours(taint) || wanted.iter().any(|want| is(taint, *want)))
        .cloned()
        .collect();
    for &(key, effect) in wanted {
        if !taints.iter().any(|taint| is(taint, (key, effect))) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(view.now)),
                value: None,
            });
        }
    }
    taints
}

/// Deletes the pods that tolerate the node's NoExecute taints no longer; tells when the next is
/// due.
fn evict(view: &View, taints: &[Taint], actions: &mut Vec<Action>) -> Option<SignedDuration> {
    let mut again: Option<SignedDuration> = None;
    for (pod, row) in view
        .pods
        .iter()
        .filter(|(pod, _)| pod.meta.deleting.is_none())
    {
        let due = taints
            .iter()
            .filter(|taint| taint.effect == NO_EXECUTE)
            .filter_map(|taint| leaves_at(taint, &row.tolerations, view.now))
            .min();
        match due {
            Some(at) if at <= view.now => {
                let text = format!(
                    "Marking for deletion Pod {}/{}",
                    pod.key.namespace, pod.key.name
                );
                actions.push(Action::normal(pod, "TaintManagerEviction", text));
                let about = Some(about(pod));
                actions.push(Action::Delete(Delete {
                    about,
                    ..Delete::of(pod)
                }));
            }
            Some(at) => {
                let wait = view.now.duration_until(at);
                again = Some(again.map_or(wait, |other| other.min(wait)));
            }
            None => {}
        }
    }
    again
}

/// When a pod with these tolerations leaves because of the taint; None if it may stay.
fn leaves_at(taint: &Taint, tolerations: &[Toleration], now: Timestamp) -> Option<Timestamp> {
    let since = taint.time_added.as_ref().map_or(now, |time| time.0);
    let matching: Vec<&Toleration> = tolerations
        .iter()
        .filter(|toleration| tolerates(toleration, taint))
        .collect();
    if matching.is_empty() {
        let ours = taint.key == NOT_READY || taint.key == UNREACHABLE;
        let seconds = if ours { DEFAULT_TOLERATION_SECONDS } else { 0 };
        return Some(since + SignedDuration::from_secs(seconds));
    }
    let seconds = matching
        .iter()
        .filter_map(|toleration| toleration.toleration_seconds)
        .min()?;
    Some(since + SignedDuration::from_secs(seconds.max(0)))
}

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
