//! Pods that nobody else ends: of nodes that are gone, and finished ones in excess. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

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

/// Removes pods that nobody else ends. Its work is about all pods.
#[derive(Default)]
pub struct PodGcController {
    /// By node: when it was first missed.
    missing: BTreeMap<String, Timestamp>,
}

impl Controller for PodGcController {
    fn name(&self) -> &'static str {
        "pod garbage collector"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::POD, Kind::NODE])
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        let has_none = |pod: &Object| {
            let row = pod.as_pod().filter(|row| !row.node.is_empty());
            row.is_some_and(|row| world.get(Kind::NODE, &Key::new("", &row.node)).is_none())
        };
        let is_due = match object.kind {
            Kind::NODE => diff.new.is_none() && !world.pods_on(&object.key.name).is_empty(),
            _ => diff.versions().any(|pod| has_none(pod)),
        };
        let ended = |pod: &Option<Arc<Object>>| {
            let row = pod.as_ref().and_then(|pod| pod.as_pod());
            row.is_some_and(PodRow::finished)
        };
        let one_more = ended(&diff.new) && !ended(&diff.old);
        if is_due || (one_more && world.finished_pods().len() > FINISHED_KEPT) {
            due.insert(all_of(Kind::POD));
        }
    }

    fn due_at_start(&self, _world: &World, due: &mut Due) {
        due.insert(all_of(Kind::POD));
    }

    fn plan(&mut self, world: &World, _about: &Address, now: Timestamp) -> Option<Plan> {
        Some(plan(&gather(world, &mut self.missing, now)))
    }
}

/// What the plan is made from.
pub struct View<'a> {
    /// Nodes that pods name and that are not there.
    pub missing: Vec<Missing<'a>>,
    /// All finished pods, if there are too many.
    pub finished: Vec<&'a Object>,
    pub now: Timestamp,
}

/// A node that is not there, since when, and its pods.
pub struct Missing<'a> {
    pub node: String,
    pub since: Timestamp,
    pub pods: Vec<(&'a Object, &'a PodRow)>,
}

/// Collects the view; `since` remembers when a node was first missed.
pub fn gather<'a>(
    world: &'a World,
    since: &mut BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> View<'a> {
    let is_missing = |name: &&String| world.get(Kind::NODE, &Key::new("", name)).is_none();
    let names: Vec<&String> = world.nodes_of_pods().filter(is_missing).collect();
    since.retain(|name, _| names.contains(&name));
    let missing = names.into_iter().map(|name| {
        let since = *since.entry(name.clone()).or_insert(now);
        Missing {
            node: name.clone(),
            since,
            pods: world.pods_on(name),
        }
    });
    let missing = missing.collect();
    let finished = world.finished_pods();
    let finished = if finished.len() > FINISHED_KEPT {
        let pods = finished.filter_map(|key| world.get(Kind::POD, key));
        pods.map(AsRef::as_ref).collect()
    } else {
        Vec::new()
    };
    View {
        missing,
        finished,
        now,
    }
}

/// Removes, without waiting for an agent, what no agent will confirm.
pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    for Missing { node, since, pods } in &view.missing {
        let at = *since + QUARANTINE;
        if at > view.now {
            let wait = view.now.duration_until(at);
            plan.again = Some(plan.again.map_or(wait, |other| other.min(wait)));
            continue;
        }
        let node = (Kind::NODE, Key::new("", node), String::new());
        plan.actions
            .extend(pods.iter().map(|(pod, _)| remove(pod, vec![node.clone()])));
    }
    let excess = view.finished.len().saturating_sub(FINISHED_KEPT);
    if excess > 0 {
        let mut oldest_first = view.finished.clone();
        oldest_first.sort_by_key(|pod| (pod.meta.created, pod.key.clone()));
        plan.actions.extend(
            oldest_first
                .into_iter()
                .take(excess)
                .map(|pod| remove(pod, vec![])),
        );
    }
    plan
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
