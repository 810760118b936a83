//! DaemonSets: a pod on each node that they are for. Pure.
//!
//! ```text
//! nodes ─▶ fit ─▶ Runs, Stays, Never ─┐
//! pods, by the node that they are for ─┴▶ manage: missing made, failed and superfluous deleted
//!                                           └─ nothing to do ─▶ roll: old pods deleted, or joined by new ones
//! ```

mod nodes;
mod pods;
mod roll;
pub mod row;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use self::nodes::{Fit, fit};
use self::row::{DaemonRow, DaemonStatus};
use super::action::{self, Action, Plan};
use super::controller::{Controller, Due, Watches};
use super::failures::Failures;
use super::object::{Key, Object, Phase, PodRow};
use super::replication::available_at;
use super::revisions::{self, POD_LABEL, RevisionRef, Snapshot, Standing};
use super::world::{Address, Diff, World};
use client::Kind;

/// Keeps DaemonSets. Its work is about one.
#[derive(Default)]
pub struct DaemonSetController {
    failures: Failures,
}

impl Controller for DaemonSetController {
    fn name(&self) -> &'static str {
        "daemonsets"
    }

    fn account(&self) -> &'static str {
        "daemon-set-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[
            Kind::DAEMON_SET,
            Kind::POD,
            Kind::NODE,
            Kind::CONTROLLER_REVISION,
        ])
    }

    fn hear(&mut self, diff: &Diff, now: Timestamp) {
        let object = diff.object();
        match object.kind {
            Kind::POD => {
                let node = object.as_pod().map(node_of).unwrap_or_default();
                self.failures.hear(diff, node, now);
            }
            Kind::DAEMON_SET if diff.new.is_none() => self.failures.forget(&object.meta.uid),
            _ => {}
        }
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        if diff.object().kind == Kind::NODE {
            return due.extend(of_node(world, diff));
        }
        revisions::due(Kind::DAEMON_SET, world, diff, due);
    }

    fn plan(&mut self, world: &World, about: &Address, now: Timestamp) -> Option<Plan> {
        plan(world, &about.1, Some(&self.failures), now)
    }
}

/// The sets to which a node is something else than before. A heartbeat concerns none.
fn of_node(world: &World, diff: &Diff) -> Due {
    let of = |set: &DaemonRow, node: Option<&Object>| node.map(|node| fit(&set.placement, node));
    let (old, new) = (diff.old.as_deref(), diff.new.as_deref());
    let taints = |node: &Object| node.as_node().map(|row| row.taints.clone());
    let same = |old: &Object, new: &Object| {
        old.meta.labels == new.meta.labels && taints(old) == taints(new)
    };
    if old.zip(new).is_some_and(|(old, new)| same(old, new)) {
        return Due::new();
    }
    let sets = world.all(Kind::DAEMON_SET);
    let changed = sets.filter(|set| {
        let row = set.as_daemon_set();
        row.is_some_and(|row| of(row, old) != of(row, new))
    });
    changed.map(|set| (set.kind, set.key.clone())).collect()
}

/// The node that a pod is on or is for.
fn node_of(row: &PodRow) -> &str {
    if row.node.is_empty() {
        &row.target
    } else {
        &row.node
    }
}

/// A pod of the set.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    pub pod: &'a Object,
    pub row: &'a PodRow,
}

/// What a plan for one set is made from.
pub struct View<'a> {
    pub object: &'a Object,
    pub row: &'a DaemonRow,
    /// All nodes, by name.
    pub nodes: BTreeMap<&'a str, Fit>,
    /// Its pods, by the node that they are for, oldest first.
    pub pods: BTreeMap<&'a str, Vec<Member<'a>>>,
    /// The revision of the template.
    pub revision: RevisionRef<'a>,
    pub failures: Option<&'a Failures>,
    pub now: Timestamp,
}

/// Pods made by one plan, at most; and as many deleted.
const BURST: usize = 250;

/// What is to be done about the pods.
#[derive(Default)]
pub struct Turn<'a> {
    pub create_on: Vec<&'a str>,
    pub delete: Vec<&'a Object>,
    pub told: Vec<Action>,
    pub again: Option<SignedDuration>,
}

/// Records the revision, or sees to the pods; then the status.
pub fn plan(world: &World, key: &Key, failures: Option<&Failures>, now: Timestamp) -> Option<Plan> {
    let object = world.get(Kind::DAEMON_SET, key)?.as_ref();
    let row = object.as_daemon_set()?.as_ref();
    let (history, mut actions) = revisions::claim(world, object, &row.selector);
    let namespace = world.get(Kind::NAMESPACE, &Key::new("", &key.namespace));
    let namespace_ending = namespace.is_some_and(|it| it.meta.deleting.is_some());
    let ending = object.meta.deleting.is_some() || namespace_ending;
    let snapshot = Snapshot {
        owner: object,
        annotations: &row.annotations,
        template: &row.template,
        collisions: row.status.collisions,
        hash_label: POD_LABEL,
    };
    let revision = match revisions::standing(world, &snapshot, &history) {
        Standing::Recorded(revision) => revision,
        _ if ending => {
            return Some(Plan {
                actions,
                again: None,
            });
        }
        Standing::Missing(record) => {
            actions.push(*record);
            return Some(Plan {
                actions,
                again: None,
            });
        }
        Standing::Taken => {
            let count = row.status.collisions.saturating_add(1);
            let body = json!({"status": {"collisionCount": count}});
            actions.push(Action::merge(object, "status", body));
            return Some(Plan {
                actions,
                again: None,
            });
        }
    };
    let pods = claim(world, object, row, &mut actions);
    let nodes = world.all(Kind::NODE);
    let nodes = nodes.map(|node| (node.key.name.as_str(), fit(&row.placement, node)));
    let view = View {
        object,
        row,
        nodes: nodes.collect(),
        pods,
        revision,
        failures,
        now,
    };
    let turn = if ending { Turn::default() } else { turn(&view) };
    Some(finish(&view, actions, turn, &history, ending))
}

fn finish(
    view: &View,
    mut actions: Vec<Action>,
    turn: Turn,
    history: &[RevisionRef],
    ending: bool,
) -> Plan {
    let (status, soon) = status(view);
    if status != view.row.status {
        let body = json!({"status": status.to_json()});
        actions.push(Action::merge(view.object, "status", body));
    }
    actions.extend(turn.told);
    let deleted = turn.delete.into_iter().take(BURST);
    actions.extend(deleted.map(|pod| pods::delete(view, pod)));
    let made = turn.create_on.into_iter().take(BURST);
    actions.extend(made.map(|node| pods::create(view, node)));
    if !ending {
        actions.extend(clean_up(view, history));
    }
    let again = [turn.again, soon].into_iter().flatten().min();
    Plan { actions, again }
}

/// The set's own pods by node. One that matches no more is released, an orphan that does is adopted.
fn claim<'a>(
    world: &'a World,
    set: &Object,
    row: &DaemonRow,
    actions: &mut Vec<Action>,
) -> BTreeMap<&'a str, Vec<Member<'a>>> {
    let uid = &set.meta.uid;
    let ending = set.meta.deleting.is_some();
    let mut pods: BTreeMap<&str, Vec<Member>> = BTreeMap::new();
    for pod in world.claimable(set) {
        let Some(pod_row) = pod.as_pod() else {
            continue;
        };
        let matches = row.selector.matches(&pod.meta.labels);
        match pod.controller().map(|owner| owner.uid == *uid) {
            Some(true) if matches => {}
            Some(true) if !ending => {
                actions.push(action::release(pod, uid));
                continue;
            }
            None if matches && !ending && pod.meta.deleting.is_none() => {
                let owner = action::controller_reference(set);
                actions.push(action::adopt(pod, owner));
            }
            _ => continue,
        }
        let member = Member { pod, row: pod_row };
        pods.entry(node_of(pod_row)).or_default().push(member);
    }
    for members in pods.values_mut() {
        members.sort_by_key(|member| (member.pod.meta.created, member.pod.key.clone()));
    }
    pods
}

/// What is missing or too much comes before what is old.
fn turn<'a>(view: &View<'a>) -> Turn<'a> {
    let turn = manage(view);
    if turn.create_on.is_empty() && turn.delete.is_empty() {
        let mut rolled = roll::roll(view);
        rolled.again = turn.again;
        return rolled;
    }
    turn
}

/// A pod where there is to be one, none where there is to be none. A pod that ends is waited for.
fn manage<'a>(view: &View<'a>) -> Turn<'a> {
    let mut turn = Turn::default();
    for (node, fit) in &view.nodes {
        let members = view.pods.get(node).map(Vec::as_slice).unwrap_or_default();
        match (fit, members.is_empty()) {
            (Fit::Runs, true) => turn.create_on.push(node),
            (_, true) => {}
            (Fit::Never, false) => {
                let there = members.iter().map(|member| member.pod);
                turn.delete
                    .extend(there.filter(|pod| pod.meta.deleting.is_none()));
            }
            (_, false) => manage_node(view, node, members, &mut turn),
        }
    }
    // The node that it waits for is gone.
    for (node, members) in &view.pods {
        if !node.is_empty() && !view.nodes.contains_key(node) {
            let waiting = members.iter().filter(|member| member.row.node.is_empty());
            let pods = waiting.map(|member| member.pod);
            turn.delete
                .extend(pods.filter(|pod| pod.meta.deleting.is_none()));
        }
    }
    turn
}

fn manage_node<'a>(view: &View<'a>, node: &'a str, members: &[Member<'a>], turn: &mut Turn<'a>) {
    let mut running = Vec::new();
    for member in members {
        match member.row.phase {
            _ if member.pod.meta.deleting.is_some() => {}
            Phase::Failed | Phase::Succeeded => replace(view, node, *member, turn),
            _ => running.push(*member),
        }
    }
    let superfluous = match &view.row.rolling {
        Some(rolling) if roll::count(&rolling.max_surge, view.nodes.len()) > 0 => {
            roll::superfluous(view, &running)
        }
        _ => running.iter().skip(1).map(|member| member.pod).collect(),
    };
    turn.delete.extend(superfluous);
}

/// A pod that has ended is deleted; its successor comes when it is gone. Failures in a row make that take longer.
fn replace<'a>(view: &View<'a>, node: &str, member: Member<'a>, turn: &mut Turn<'a>) {
    let pod = member.pod;
    let failed = member.row.phase == Phase::Failed;
    let failures = view.failures.filter(|_| failed);
    let uid = &view.object.meta.uid;
    if let Some(wait) = failures.and_then(|it| it.wait(uid, node, pod.meta.created, view.now)) {
        turn.again = Some(turn.again.map_or(wait, |other| other.min(wait)));
        return;
    }
    let (namespace, name) = (&pod.key.namespace, &pod.key.name);
    turn.told.push(if failed {
        let text = format!(
            "Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it"
        );
        Action::warning(view.object, "FailedDaemonPod", text)
    } else {
        let text = format!(
            "Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it"
        );
        Action::normal(view.object, "SucceededDaemonPod", text)
    });
    turn.delete.push(pod);
}

impl View<'_> {
    pub fn is_updated(&self, pod: &Object) -> bool {
        let hash = pod.meta.labels.get(POD_LABEL);
        hash.is_some_and(|hash| hash == pods::hash(self.revision.0))
    }

    pub fn is_available(&self, member: &Member) -> bool {
        let at = available_at(member.row, self.row.min_ready_seconds);
        at.is_some_and(|at| at <= self.now)
    }
}

/// The oldest pod of a node counts.
fn status(view: &View) -> (DaemonStatus, Option<SignedDuration>) {
    let mut status = DaemonStatus {
        observed_generation: view.object.meta.generation,
        collisions: view.row.status.collisions,
        ..DaemonStatus::default()
    };
    let mut again: Option<SignedDuration> = None;
    for (node, fit) in &view.nodes {
        let pods = view.pods.get(node).map(Vec::as_slice).unwrap_or_default();
        if *fit != Fit::Runs {
            status.misscheduled += i32::from(!pods.is_empty());
            continue;
        }
        status.desired += 1;
        let Some(oldest) = pods.first() else {
            continue;
        };
        status.current += 1;
        status.ready += i32::from(oldest.row.ready);
        status.available += i32::from(view.is_available(oldest));
        status.updated += i32::from(view.is_updated(oldest.pod));
        let times = pods.iter().filter_map(|member| {
            let at = available_at(member.row, view.row.min_ready_seconds)?;
            (at > view.now).then(|| view.now.duration_until(at))
        });
        again = again.into_iter().chain(times).min();
    }
    status.unavailable = status.desired - status.available;
    (status, again)
}

/// Deletes the oldest revisions beyond the limit that no pod has.
fn clean_up(view: &View, history: &[RevisionRef]) -> Vec<Action> {
    let members = view.pods.values().flatten();
    let hashes: BTreeSet<&str> = members
        .filter_map(|member| member.pod.meta.labels.get(POD_LABEL))
        .map(String::as_str)
        .collect();
    let is_live = |revision: &Object| {
        hashes.contains(pods::hash(revision)) || revision.key == view.revision.0.key
    };
    let live = history.iter().filter(|(revision, _)| is_live(revision));
    let live: BTreeSet<&str> = live
        .map(|(revision, _)| revision.key.name.as_str())
        .collect();
    let excess = history.len().saturating_sub(view.row.history_limit + 1);
    revisions::truncate(history, &live, excess)
}

#[cfg(test)]
mod tests;
