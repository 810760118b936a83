//! Pods that nobody else ends: of nodes that are gone or out of service, deleted ones that no node has, and
//! finished ones in excess. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::action::{Action, Delete, Plan};
use super::controller::{Controller, Due, Watches, all_of};
use super::object::{Key, NodeRow, Object, PodRow};
use super::taint_eviction::disrupt;
use super::world::{Address, Diff, World};
use client::Kind;

/// A node is believed gone after this.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// Finished pods are kept up to this number, unless the server is told otherwise.
pub const FINISHED_KEPT: usize = 12_500;
/// An administrator says by it that a node is off, and that nothing of it runs.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Removes pods that nobody else ends. Its work is about a node that is not there or out of service, about a pod
/// that has none, or about all finished pods.
pub struct PodGcController {
    /// How many finished pods are kept; zero: all.
    finished_kept: usize,
    /// By node: when it was first missed.
    missing: BTreeMap<String, Timestamp>,
}

impl PodGcController {
    pub fn keeping(finished_kept: usize) -> Self {
        Self {
            finished_kept,
            missing: BTreeMap::new(),
        }
    }

    fn has_too_many(&self, world: &World) -> bool {
        self.finished_kept > 0 && world.finished_pods().len() > self.finished_kept
    }
}

impl Controller for PodGcController {
    fn name(&self) -> &'static str {
        "pod garbage collector"
    }

    fn account(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::POD, Kind::NODE])
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        if object.kind == Kind::NODE {
            let row = diff.new.as_deref().map(|node| node.as_node());
            let is_served = row.is_some_and(|row| !row.is_some_and(is_out_of_service));
            if !is_served && !world.pods_on(&object.key.name).is_empty() {
                due.insert((Kind::NODE, object.key.clone()));
            }
            return;
        }
        for row in diff.versions().filter_map(|pod| pod.as_pod()) {
            let node = Key::new("", &row.node);
            let found = world.get(Kind::NODE, &node).map(|node| node.as_node());
            let is_served = found.is_some_and(|row| !row.is_some_and(is_out_of_service));
            if !row.node.is_empty() && !is_served {
                due.insert((Kind::NODE, node));
            }
        }
        if diff.new.as_deref().is_some_and(is_nobodys) {
            due.insert((Kind::POD, object.key.clone()));
        }
        let ended =
            |pod: Option<&Object>| pod.and_then(Object::as_pod).is_some_and(PodRow::finished);
        let one_more = ended(diff.new.as_deref()) && !ended(diff.old.as_deref());
        if one_more && self.has_too_many(world) {
            due.insert(all_of(Kind::POD));
        }
    }

    fn due_at_start(&self, world: &World, due: &mut Due) {
        due.insert(all_of(Kind::POD));
        let nodes = world.nodes_of_pods().map(|name| Key::new("", name));
        let unserved = nodes.filter(|node| {
            let found = world.get(Kind::NODE, node).map(|node| node.as_node());
            found.is_none_or(|row| row.is_some_and(is_out_of_service))
        });
        due.extend(unserved.map(|node| (Kind::NODE, node)));
        let nobodys = world.all(Kind::POD).filter(|pod| is_nobodys(pod));
        due.extend(nobodys.map(|pod| (Kind::POD, pod.key.clone())));
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, now: Timestamp) -> Option<Plan> {
        if *kind == Kind::POD && key.name.is_empty() {
            return Some(plan_finished(world, self.finished_kept));
        }
        if *kind == Kind::POD {
            let pod = world.get(Kind::POD, key).filter(|pod| is_nobodys(pod))?;
            let actions = end(pod, None, vec![], now);
            let again = None;
            return Some(Plan { actions, again });
        }
        let node = world.get(Kind::NODE, key).and_then(|node| node.as_node());
        if node.is_some_and(is_out_of_service) {
            return Some(plan_out_of_service(world, &key.name, now));
        }
        gather(world, &key.name, &mut self.missing, now).map(|view| plan(&view))
    }
}

/// A node that is not there, since when, and its pods.
pub struct View<'a> {
    pub node: &'a str,
    pub since: Timestamp,
    pub pods: Vec<(&'a Object, &'a PodRow)>,
    pub now: Timestamp,
}

/// Collects the view of a node that pods name; None, if it is there or has no pods. `since` remembers when
/// a node was first missed.
pub fn gather<'a>(
    world: &'a World,
    node: &'a str,
    since: &mut BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> Option<View<'a>> {
    let pods = world.pods_on(node);
    if pods.is_empty() || world.get(Kind::NODE, &Key::new("", node)).is_some() {
        since.remove(node);
        return None;
    }
    Some(View {
        node,
        since: *since.entry(node.to_owned()).or_insert(now),
        pods,
        now,
    })
}

/// Removes, without waiting for an agent, what no agent will confirm.
pub fn plan(view: &View) -> Plan {
    let at = view.since + QUARANTINE;
    if at > view.now {
        return Plan {
            again: Some(view.now.duration_until(at)),
            ..Plan::default()
        };
    }
    let node = (Kind::NODE, Key::new("", view.node), String::new());
    let pods = view.pods.iter();
    let why = Some("PodGC: node no longer exists");
    let actions = pods.flat_map(|(pod, _)| end(pod, why, vec![node.clone()], view.now));
    Plan {
        actions: actions.collect(),
        again: None,
    }
}

/// Removes what was to end on a node that is off: nobody else will say that it has ended.
fn plan_out_of_service(world: &World, node: &str, now: Timestamp) -> Plan {
    let pods = world.pods_on(node).into_iter();
    let going = pods.filter(|(pod, _)| pod.meta.deleting.is_some());
    Plan {
        actions: going
            .flat_map(|(pod, _)| end(pod, None, vec![], now))
            .collect(),
        again: None,
    }
}

/// Not ready, and an administrator says that it is off.
pub(crate) fn is_out_of_service(node: &NodeRow) -> bool {
    let is_off = node.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE);
    is_off && node.ready != "True"
}

/// Deleted before it was given a node.
fn is_nobodys(pod: &Object) -> bool {
    pod.meta.deleting.is_some() && pod.as_pod().is_some_and(|row| row.node.is_empty())
}

/// Removes the oldest finished pods, if there are more than are kept; zero keeps all.
pub fn plan_finished(world: &World, kept: usize) -> Plan {
    let keys = world.finished_pods();
    let excess = keys.len().saturating_sub(kept);
    if excess == 0 || kept == 0 {
        return Plan::default();
    }
    let mut pods: Vec<_> = keys.filter_map(|key| world.get(Kind::POD, key)).collect();
    pods.sort_by_key(|pod| (pod.meta.created, pod.key.clone()));
    let oldest = pods.into_iter().take(excess);
    Plan {
        actions: oldest.map(|pod| remove(pod, vec![])).collect(),
        again: None,
    }
}

/// Says that a pod has failed, unless it has ended by itself, and removes it.
fn end(
    pod: &Object,
    why: Option<&str>,
    unless_any: Vec<(Kind, Key, String)>,
    now: Timestamp,
) -> Vec<Action> {
    let mut actions = Vec::new();
    if !pod.as_pod().is_some_and(PodRow::finished) {
        let failed = json!({"status": {"phase": "Failed"}});
        let disrupted = why.map(|why| disrupt(pod, "DeletionByPodGC", why, now));
        actions.extend(disrupted);
        actions.push(Action::strategic(pod, "status", failed));
    }
    actions.push(remove(pod, unless_any));
    actions
}

fn remove(pod: &Object, unless_any: Vec<(Kind, Key, String)>) -> Action {
    Action::Delete(Delete {
        grace_seconds: Some(0),
        unless_any,
        ..Delete::of(pod)
    })
}

#[cfg(test)]
mod tests;
