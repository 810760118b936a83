//! Pods that nobody else ends: of nodes that are gone, and finished ones in excess. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::action::{Action, Delete, Plan};
use super::object::{Key, Object, PodRow};
use super::world::World;
use client::Kind;

/// A node is believed gone after this.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// Finished pods are kept up to this number.
const FINISHED_KEPT: usize = 12_500;

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
        actions: pods.map(|(pod, _)| remove(pod, vec![node.clone()])).collect(),
        again: None,
    }
}

/// Removes the oldest finished pods, if there are too many.
pub fn plan_finished(world: &World) -> Plan {
    let (count, oldest_first) = world.finished_pods();
    let excess = count.saturating_sub(FINISHED_KEPT);
    let actions = oldest_first.take(excess).map(|pod| remove(pod, vec![]));
    Plan {
        actions: actions.collect(),
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
