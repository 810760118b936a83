//! Nodes whose agent is silent: marked, tainted, their pods taken out of service; `taint_eviction` then empties
//! them. Pure; when a lease was last renewed is an argument, by this process's clock.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::action::{Action, Delete, Plan};
use super::controller::{Controller, Due, Watches};
use super::object::{Key, NodeRow, Object, PodRow};
use super::taint_eviction::{NO_EXECUTE, disrupt};
use super::world::{Address, Diff, World};
use api::meta::timestamp;
use client::Kind;

/// A lease that was not renewed for this long is lost.
pub const GRACE: SignedDuration = SignedDuration::from_secs(40);
/// The agent of a node whose lease lasts no longer than this kills, when the lease ends, what must not run twice.
const FENCED: SignedDuration = SignedDuration::from_secs(10);
/// From the end of such a lease until the node's pods are replaced: that long may killing take.
const FENCE_MARGIN: SignedDuration = SignedDuration::from_secs(2);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NO_SCHEDULE: &str = "NoSchedule";

/// Conditions that close a node to new pods when they are true, and by which taint; and a node that is cordoned.
const CLOSING: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Where nodes' leases are.
const NODE_LEASES: &str = "kube-node-lease";

/// Marks and taints nodes. Its work is about a node.
pub struct NodeController {
    started: Timestamp,
    renewed: BTreeMap<String, Heard>,
}

/// What was heard of a node last.
#[derive(Clone, Copy, Default)]
struct Heard {
    /// The lease's time of renewal, by the node's clock.
    renewed: Option<Timestamp>,
    /// When that was seen to change, or the node to be ready again.
    at: Timestamp,
    /// How long the lease lasts, if its node fences.
    fenced: Option<SignedDuration>,
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
        let known = self.renewed.get(name).copied();
        if let Some(lease) = new.as_lease().filter(|_| new.key.namespace == NODE_LEASES) {
            if known.is_none_or(|known| known.renewed != lease.renewed) {
                let lasts = lease
                    .seconds
                    .map(|seconds| SignedDuration::from_secs(seconds.into()));
                let heard = Heard {
                    renewed: lease.renewed,
                    at: now,
                    fenced: lasts.filter(|lasts| *lasts <= FENCED && !lasts.is_negative()),
                };
                self.renewed.insert(name.clone(), heard);
            }
        } else if says_ready(new) && !diff.old.as_deref().is_some_and(says_ready) {
            let heard = Heard {
                at: now,
                ..known.unwrap_or_default()
            };
            self.renewed.insert(name.clone(), heard);
        }
    }

    /// A pod of a node that is not well is not ready.
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
        let heard = self.renewed.get(&key.name).copied().unwrap_or_default();
        let view = View {
            node,
            row: node.as_node()?,
            pods: world.pods_on(&key.name),
            renewed: heard.at.max(self.started).max(node.meta.created),
            fenced: heard.fenced,
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
    /// How long its lease lasts, if its agent fences.
    pub fenced: Option<SignedDuration>,
    pub now: Timestamp,
}

/// Marks the node if its lease is lost, and sets the taints that its state asks for.
pub fn plan(view: &View) -> Plan {
    if view.node.meta.deleting.is_some() {
        return Plan::default();
    }
    let deadline = view.renewed + view.fenced.map_or(GRACE, |lasts| lasts + FENCE_MARGIN);
    let lost = view.now >= deadline;
    let mut actions = Vec::new();
    let again = (!lost).then(|| view.now.duration_until(deadline));
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
    // The scheduler must not put them back onto this node.
    if lost {
        actions.extend(replace_fenced(view));
    }
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

/// Removes the pods that the node's agent has killed by now: whoever made them makes them anew, elsewhere.
fn replace_fenced(view: &View) -> Vec<Action> {
    let fenced = view.pods.iter().filter(|_| view.fenced.is_some());
    let fast = fenced.filter(|(_, row)| row.fails_over_fast && !row.finished());
    let why = "the node's lease has ended, and its agent has killed the pod";
    let replace = |pod: &Object| {
        [
            disrupt(pod, "DeletionByNodeFailover", why, view.now),
            Action::warning(pod, "NodeFailover", why.to_owned()),
            Action::Delete(Delete {
                grace_seconds: Some(0),
                ..Delete::of(pod)
            }),
        ]
    };
    fast.flat_map(|(pod, _)| replace(pod)).collect()
}

/// The keys of the taints that keep new pods away from a node.
pub fn closed_by(unschedulable: Option<bool>, conditions: &[NodeCondition]) -> Vec<&'static str> {
    let is_true = |name: &str| {
        let mut found = conditions.iter();
        found.any(|it| it.type_ == name && it.status == "True")
    };
    let closing = CLOSING.iter().filter(|(condition, _)| is_true(condition));
    let cordoned = (unschedulable == Some(true)).then_some(UNSCHEDULABLE);
    closing.map(|(_, taint)| *taint).chain(cordoned).collect()
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
    let closed = view.row.closed_by.iter().map(|key| (*key, NO_SCHEDULE));
    let wanted: Vec<(&str, &str)> = wanted.iter().copied().chain(closed).collect();
    let is_ours = |taint: &Taint| {
        let closing = CLOSING.iter().map(|(_, key)| *key);
        let mut keys = closing.chain([NOT_READY, UNREACHABLE, UNSCHEDULABLE]);
        keys.any(|key| taint.key == key)
    };
    let is =
        |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let mut taints: Vec<Taint> = view
        .row
        .taints
        .iter()
        .filter(|taint| !is_ours(taint) || wanted.iter().any(|want| is(taint, *want)))
        .cloned()
        .collect();
    for (key, effect) in wanted {
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

#[cfg(test)]
mod tests;
