//! Pods that nobody else ends: of nodes that are gone, and finished ones in excess. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::action::{Action, Delete, Plan};
use super::controller::{Controller, Due, Watches, all_of};
use super::object::{Key, Object, PodRow};
use super::world::{Address, Diff, World};
use client::Kind;

/// A node is believed gone after this.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// Finished pods are kept up to this number.
const FINISHED_KEPT: usize = 12_500;

/// Removes pods that nobody else ends. Its work is about a node that is not there, or about all finished
/// pods.
#[derive(Default)]
pub struct PodGcController {
    /// By node: when it was first missed.
    missing: BTreeMap<String, Timestamp>,
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
            if diff.new.is_none() && !world.pods_on(&object.key.name).is_empty() {
                due.insert((Kind::NODE, object.key.clone()));
            }
            return;
        }
        for row in diff.versions().filter_map(|pod| pod.as_pod()) {
            let node = Key::new("", &row.node);
            if !row.node.is_empty() && world.get(Kind::NODE, &node).is_none() {
                due.insert((Kind::NODE, node));
            }
        }
        let ended =
            |pod: Option<&Object>| pod.and_then(Object::as_pod).is_some_and(PodRow::finished);
        let one_more = ended(diff.new.as_deref()) && !ended(diff.old.as_deref());
        if one_more && world.finished_pods().len() > FINISHED_KEPT {
            due.insert(all_of(Kind::POD));
        }
    }

    fn due_at_start(&self, world: &World, due: &mut Due) {
        due.insert(all_of(Kind::POD));
        let nodes = world.nodes_of_pods().map(|name| Key::new("", name));
        let missing = nodes.filter(|node| world.get(Kind::NODE, node).is_none());
        due.extend(missing.map(|node| (Kind::NODE, node)));
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, now: Timestamp) -> Option<Plan> {
        if *kind == Kind::POD {
            return Some(plan_finished(world));
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
    Plan {
        actions: pods
            .map(|(pod, _)| remove(pod, vec![node.clone()]))
            .collect(),
        again: None,
    }
}

/// Removes the oldest finished pods, if there are too many.
pub fn plan_finished(world: &World) -> Plan {
    let keys = world.finished_pods();
    let excess = keys.len().saturating_sub(FINISHED_KEPT);
    if excess == 0 {
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

fn remove(pod: &Object, unless_any: Vec<(Kind, Key, String)>) -> Action {
    Action::Delete(Delete {
        grace_seconds: Some(0),
        unless_any,
        ..Delete::of(pod)
    })
}

#[cfg(test)]
mod tests;
