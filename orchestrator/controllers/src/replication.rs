//! ReplicaSets and ReplicationControllers: as many active pods as they say. Pure.
//!
//! A stale cache never makes too many pods: a task runs once at a time, and the answers to its
//! creates are in the world before it runs again. An answer that is lost makes none either: the next plan asks
//! for the same names.

pub mod row;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::row::{SetRow, SetStatus};
use super::action::{self, Action, Create, Delete, Plan};
use super::controller::{Controller, Due, Ending, Watches};
use super::names::Names;
use super::object::{Key, Object, Phase, PodRow};
use super::world::{Address, Diff, World};
use client::Kind;

/// Keeps as many pods as sets of one kind say. Its work is about a set.
pub struct SetController {
    kind: Kind,
    watches: &'static [Kind],
    /// By set: why its last create failed.
    refused: BTreeMap<Address, String>,
    /// By set: the names of pods whose creation is under way.
    names: BTreeMap<Address, Names>,
}

impl SetController {
    pub fn of(kind: Kind) -> Self {
        let watches: &[Kind] = match kind {
            Kind::REPLICA_SET => &[Kind::POD, Kind::REPLICA_SET],
            _ => &[Kind::POD, Kind::REPLICATION_CONTROLLER],
        };
        Self {
            kind,
            watches,
            refused: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }
}

impl Controller for SetController {
    fn name(&self) -> &'static str {
        self.kind.plural
    }

    fn account(&self) -> &'static str {
        match self.kind {
            Kind::REPLICA_SET => "replicaset-controller",
            _ => "replication-controller",
        }
    }

    fn watches(&self) -> Watches {
        Watches::Only(self.watches)
    }

    fn hear(&mut self, diff: &Diff, _now: Timestamp) {
        if diff.new.is_none() {
            let object = diff.object();
            let about = (object.kind, object.key.clone());
            self.refused.remove(&about);
            self.names.remove(&about);
        }
    }

    /// Of a pod the set that controls it, or, for an orphan, every set that would adopt it.
    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        for object in diff.versions() {
            if object.kind == self.kind {
                due.insert((self.kind, object.key.clone()));
                continue;
            }
            match object.controller() {
                Some(owner) => {
                    let set = world.by_uid(&owner.uid);
                    due.extend(set.map(|set| (set.kind, set.key.clone())));
                }
                None => due.extend(world.selecting(object)),
            }
        }
        due.retain(|(kind, _)| *kind == self.kind);
    }

    fn plan(&mut self, world: &World, about: &Address, now: Timestamp) -> Option<Plan> {
        let refused = self.refused.get(about).map(String::as_str);
        let view = gather(world, self.kind, &about.1, refused, now)?;
        let names = self.names.entry(about.clone());
        let names = names.or_insert_with(|| Names::new(now));
        names.settle(|name| is_pod(world, &about.1.namespace, name));
        let is_taken = |name: &str| is_pod(world, &about.1.namespace, name);
        Some(plan(&view, names, &is_taken))
    }

    fn ended(&mut self, about: &Address, ending: &Ending) {
        match ending {
            Ending::Done => drop(self.refused.remove(about)),
            Ending::Failed {
                creating: true,
                message,
                ..
            } => drop(self.refused.insert(about.clone(), message.clone())),
            Ending::Failed { .. } => {}
        }
    }
}

fn is_pod(world: &World, namespace: &str, name: &str) -> bool {
    let key = Key::new(namespace, name);
    world.get(Kind::POD, &key).is_some()
}

/// What a plan for one set is made from.
pub struct View<'a> {
    pub set: &'a Object,
    pub row: &'a SetRow,
    /// The pods that it controls, and those that nothing controls and that it selects.
    pub pods: Vec<(&'a Object, &'a PodRow)>,
    /// How many active pods of sets with the same owner run on a node.
    pub crowd: BTreeMap<String, usize>,
    /// The namespace is going away: nothing can be created in it.
    pub namespace_ending: bool,
    /// Why the last create failed.
    pub refused: Option<&'a str>,
    pub now: Timestamp,
}

/// Pods created or deleted by one plan, at most.
const BURST: usize = 500;

/// Between a pod that failed at once and its replacement.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// 1 s · 2^9 is more than the longest pause.
const LONGEST_SHIFT: u32 = 9;

/// Collects the view of the set at `key`.
pub fn gather<'a>(
    world: &'a World,
    kind: Kind,
    key: &Key,
    refused: Option<&'a str>,
    now: Timestamp,
) -> Option<View<'a>> {
    let set = world.get(kind, key)?;
    let mut crowd = BTreeMap::new();
    let siblings = match set.controller() {
        Some(owner) => world
            .dependents(&owner.uid)
            .map(|set| set.meta.uid.as_str())
            .collect(),
        None => vec![set.meta.uid.as_str()],
    };
    for pod in siblings.into_iter().flat_map(|uid| world.dependents(uid)) {
        if let Some(row) = pod.as_pod().filter(|row| active(pod, row)) {
            *crowd.entry(row.node.clone()).or_insert(0) += 1;
        }
    }
    let namespace = world.get(Kind::NAMESPACE, &Key::new("", &key.namespace));
    let pods = world.claimable(set).into_iter();
    let pods = pods.filter_map(|pod| Some((pod, pod.as_pod()?)));
    Some(View {
        set,
        row: set.as_set()?,
        pods: pods.collect(),
        crowd,
        namespace_ending: namespace.is_some_and(|namespace| namespace.meta.deleting.is_some()),
        refused,
        now,
    })
}

/// Claims pods, writes the status, and creates or deletes the difference. `names` are for new pods.
pub fn plan(view: &View, names: &mut Names, is_taken: &dyn Fn(&str) -> bool) -> Plan {
    let (mut actions, mine) = claim(view);
    let hold = hold(view, &mine);
    let active: Vec<_> = mine
        .into_iter()
        .filter(|(pod, row)| active(pod, row))
        .collect();
    let (status, mut again) = status(view, &active);
    if status != view.row.status {
        actions.push(write_status(view, &status));
    }
    if view.set.meta.deleting.is_none() {
        let wanted = usize::try_from(view.row.replicas).unwrap_or(0);
        if active.len() < wanted
            && let Some(wait) = hold
        {
            again = Some(again.map_or(wait, |other| other.min(wait)));
        } else if active.len() < wanted && !view.namespace_ending {
            let count = (wanted - active.len()).min(BURST);
            let set = (view.set.key.name.as_str(), view.set.meta.uid.as_str());
            let names = names.draw(set, &vec![None; count], is_taken);
            actions.extend(names.iter().map(|name| create(view, name)));
        } else if active.len() > wanted {
            let victims = choose_victims(view, active, wanted);
            actions.extend(victims.into_iter().map(|pod| {
                let about = Some(action::about(view.set));
                Action::Delete(Delete {
                    about,
                    ..Delete::of(pod)
                })
            }));
        }
    }
    Plan { actions, again }
}

/// How long to wait before failed pods are replaced: an agent that refuses one refuses its successor. The
/// pause doubles with every round of failures, and begins when the newest failed pod was made, so that a
/// pod that fails late is replaced at once.
fn hold(view: &View, mine: &[PodRef]) -> Option<SignedDuration> {
    let failed = mine.iter().filter(|(_, row)| row.phase == Phase::Failed);
    let newest = failed.clone().map(|(pod, _)| pod.meta.created).max()?;
    let wanted = usize::try_from(view.row.replicas).unwrap_or(0).max(1);
    let rounds = failed.count().div_ceil(wanted) - 1;
    let shift = u32::try_from(rounds).unwrap_or(u32::MAX).min(LONGEST_SHIFT);
    let pause = (FIRST_PAUSE * (1 << shift)).min(LONGEST_PAUSE);
    let wait = view.now.duration_until(newest + pause);
    (wait > SignedDuration::ZERO).then_some(wait)
}

/// It counts: neither finished nor on its way out.
pub fn active(pod: &Object, row: &PodRow) -> bool {
    !row.finished() && pod.meta.deleting.is_none()
}

/// When a ready pod counts as available, if it does one day.
pub fn available_at(row: &PodRow, min_ready_seconds: i32) -> Option<Timestamp> {
    if !row.ready {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(Timestamp::MIN);
    }
    Some(row.ready_since? + SignedDuration::from_secs(min_ready_seconds.into()))
}

type PodRef<'a> = (&'a Object, &'a PodRow);

/// Adopts matching orphans, releases own pods that match no more; gives the pods that are ours.
fn claim<'a>(view: &View<'a>) -> (Vec<Action>, Vec<PodRef<'a>>) {
    let uid = &view.set.meta.uid;
    let mut actions = Vec::new();
    let mut mine = Vec::new();
    for &(pod, row) in &view.pods {
        let matches = || view.row.selector.matches(&pod.meta.labels);
        match pod.controller() {
            Some(owner) if owner.uid != *uid => {}
            Some(_) if matches() => mine.push((pod, row)),
            Some(_) if view.set.meta.deleting.is_none() => {
                actions.push(action::release(pod, uid));
            }
            Some(_) => {}
            None => {
                if view.set.meta.deleting.is_none() && active(pod, row) && matches() {
                    let owner = action::controller_reference(view.set);
                    actions.push(action::adopt(pod, owner));
                    mine.push((pod, row));
                }
            }
        }
    }
    (actions, mine)
}

fn status(view: &View, active: &[PodRef]) -> (SetStatus, Option<SignedDuration>) {
    let labels = view
        .row
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref());
    let labels = labels
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let full = |pod: &Object| {
        labels
            .iter()
            .all(|(k, v)| pod.meta.labels.get(k) == Some(v))
    };
    let mut status = SetStatus {
        replicas: count(active.len()),
        fully_labeled: count(active.iter().filter(|(pod, _)| full(pod)).count()),
        ready: count(active.iter().filter(|(_, row)| row.ready).count()),
        available: 0,
        observed_generation: view.set.meta.generation,
        failure: None,
    };
    let mut again: Option<SignedDuration> = None;
    for (_, row) in active {
        match available_at(row, view.row.min_ready_seconds) {
            Some(at) if at <= view.now => status.available += 1,
            Some(at) => {
                let wait = view.now.duration_until(at);
                again = Some(again.map_or(wait, |other| other.min(wait)));
            }
            None => {}
        }
    }
    if active.len() < usize::try_from(view.row.replicas).unwrap_or(0) {
        status.failure = view
            .refused
            .map(|message| ("FailedCreate".to_owned(), message.to_owned()));
    }
    (status, again)
}

fn write_status(view: &View, status: &SetStatus) -> Action {
    let some = |n: i32| if n == 0 { Value::Null } else { json!(n) };
    let mut body = json!({"status": {
        "replicas": status.replicas,
        "fullyLabeledReplicas": some(status.fully_labeled),
        "readyReplicas": some(status.ready),
        "availableReplicas": some(status.available),
        "observedGeneration": status.observed_generation,
    }});
    if status.failure != view.row.status.failure {
        // Conditions of others stay.
        body["status"]["conditions"] = match &status.failure {
            None => json!([{"type": "ReplicaFailure", "$patch": "delete"}]),
            Some((reason, message)) => json!([{
                "type": "ReplicaFailure",
                "status": "True",
                "reason": reason,
                "message": message,
                "lastTransitionTime": api::meta::timestamp(view.now),
            }]),
        };
    }
    Action::strategic(view.set, "status", body)
}

fn create(view: &View, name: &str) -> Action {
    let template = view.row.template.clone().unwrap_or_default();
    let metadata = template.metadata.unwrap_or_default();
    let mut meta = json!({
        "name": name,
        "generateName": format!("{}-", view.set.key.name),
        "namespace": view.set.key.namespace,
        "labels": metadata.labels,
        "annotations": metadata.annotations,
        "finalizers": metadata.finalizers,
        "ownerReferences": action::owners_json(&[action::controller_reference(view.set)]),
    });
    if let Some(fields) = meta.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": template.spec,
    });
    Action::Create(Create {
        kind: Kind::POD,
        namespace: view.set.key.namespace.clone(),
        object,
        if_absent: true,
        about: Some(action::about(view.set)),
    })
}

/// The pods that go first: those whose loss hurts least.
fn choose_victims<'a>(view: &View, active: Vec<PodRef<'a>>, keep: usize) -> Vec<&'a Object> {
    let mut ranked = active;
    ranked.sort_by_cached_key(|(pod, row)| rank(view, pod, row));
    let excess = (ranked.len() - keep).min(BURST);
    ranked
        .into_iter()
        .take(excess)
        .map(|(pod, _)| pod)
        .collect()
}

/// Kubernetes' order of preference; smaller goes first.
fn rank(view: &View, pod: &Object, row: &PodRow) -> impl Ord + use<> {
    let crowd = view.crowd.get(&row.node).copied().unwrap_or(0);
    (
        (
            !row.node.is_empty(),
            phase_rank(row.phase),
            row.ready,
            row.deletion_cost,
        ),
        Reverse(crowd),
        Reverse(row.ready_since.filter(|_| row.ready)),
        Reverse(row.restarts),
        Reverse(pod.meta.created),
        pod.key.name.clone(),
    )
}

fn phase_rank(phase: Phase) -> u8 {
    match phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        _ => 2,
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
