//! Which pods a Job adopts, creates and stops. Pure.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::plan::sooner;
use super::row::{FAILURES, IGNORED, INDEX, TRACKING};
use super::view::{Pod, Tally, View, pause};
use crate::action::{self, Action, Create};
use crate::names::Names;
use crate::object::Phase;
use api::selector::LabelSelector;
use client::Kind;

/// Pods created or deleted by one plan, at most.
const BURST: usize = 500;

/// What is done about the number of pods.
#[derive(Default)]
pub struct Change<'a> {
    /// Deleted without being counted.
    pub give_up: Vec<Pod<'a>>,
    /// Deleted; the Job is decided.
    pub stop: Vec<Pod<'a>>,
    pub create: Vec<Create>,
    pub again: Option<SignedDuration>,
}

/// Adopts matching orphans that run, releases own pods that match no more; gives the pods that are the Job's.
pub fn claim<'a>(view: &View<'a>) -> (Vec<Action>, Vec<Pod<'a>>) {
    let selector = LabelSelector::from_object(view.spec.selector.as_ref());
    let selector = selector.ok().filter(|it| !it.is_everything());
    let matches = |pod: &Pod| {
        let labels = &pod.object.meta.labels;
        selector.as_ref().is_some_and(|it| it.matches(labels))
    };
    let uid = &view.job.meta.uid;
    let is_going = view.job.meta.deleting.is_some();
    let mut actions = Vec::new();
    let mut own = Vec::new();
    for pod in &view.pods {
        match pod.object.controller() {
            Some(owner) if owner.uid != *uid => {}
            Some(_) if matches(pod) => own.push(*pod),
            Some(_) if !is_going => actions.push(release(pod, uid)),
            Some(_) => {}
            None if !is_going && pod.is_active() && matches(pod) => {
                actions.push(adopt(view, pod));
                own.push(Pod {
                    adopted: true,
                    ..*pod
                });
            }
            None => {}
        }
    }
    (actions, own)
}

fn adopt(view: &View, pod: &Pod) -> Action {
    let mut owners = pod.object.meta.owners.clone();
    owners.push(action::controller_reference(view.job));
    let mut finalizers = pod.object.meta.finalizers.clone();
    if !pod.is_tracked() {
        finalizers.push(TRACKING.to_owned());
    }
    let body = json!({"metadata": {
        "ownerReferences": action::owners_json(&owners),
        "finalizers": finalizers,
    }});
    // A pod that has ended meanwhile is not adopted: it may have been counted before.
    Action::merge_exact(pod.object, "", body)
}

fn release(pod: &Pod, uid: &str) -> Action {
    let owners = pod.object.meta.owners.iter();
    let owners: Vec<_> = owners.filter(|owner| owner.uid != uid).cloned().collect();
    let finalizers = pod.object.meta.finalizers.iter();
    let finalizers: Vec<_> = finalizers.filter(|it| *it != TRACKING).collect();
    let or_null = |value: Value| match value.as_array().is_some_and(Vec::is_empty) {
        true => Value::Null,
        false => value,
    };
    let body = json!({"metadata": {
        "ownerReferences": or_null(action::owners_json(&owners)),
        "finalizers": or_null(json!(finalizers)),
    }});
    Action::merge_exact(pod.object, "", body)
}

/// The Job is decided: nothing of it runs on.
pub fn stop_all<'a>(tally: &Tally<'a>) -> Change<'a> {
    Change {
        stop: tally.active.clone(),
        ..Change::default()
    }
}

/// Creates or deletes, never both: what is too much goes first.
pub fn manage<'a>(
    view: &View<'a>,
    tally: &Tally<'a>,
    own: &[Pod<'a>],
    names: &mut Names,
) -> Change<'a> {
    if view.job.meta.deleting.is_some() {
        return Change::default();
    }
    let wanted = wanted(view, tally);
    let give_up = too_many(view, tally, wanted);
    if !give_up.is_empty() || view.is_suspended() || view.namespace_ending {
        return Change {
            give_up,
            ..Change::default()
        };
    }
    let ending = match view.replaces_failed_only() {
        true => tally.terminating.len(),
        false => 0,
    };
    let missing = wanted.saturating_sub(tally.active.len() + ending);
    if missing == 0 {
        return Change::default();
    }
    if view.limit_per_index().is_none()
        && let Some(wait) = wait_for_all(view, own)
    {
        return Change {
            again: Some(wait),
            ..Change::default()
        };
    }
    create(view, tally, own, missing.min(BURST), names)
}

/// How many pods are to be active.
fn wanted(view: &View, tally: &Tally) -> usize {
    let most = view.parallelism();
    match view.completions() {
        _ if view.is_suspended() => 0,
        // A queue of work is empty once a pod has found it so.
        None if tally.succeeded > 0 => tally.active.len().min(most),
        None => most,
        Some(completions) => {
            let left = u64::from(completions).saturating_sub(tally.succeeded);
            usize::try_from(left).unwrap_or(usize::MAX).min(most)
        }
    }
}

/// The pods that go: those that nobody counts and those of no index first, then those whose loss hurts least.
fn too_many<'a>(view: &View, tally: &Tally<'a>, wanted: usize) -> Vec<Pod<'a>> {
    let mut ranked = tally.active.clone();
    ranked.sort_by_cached_key(|pod| {
        (
            !pod.row.node.is_empty(),
            match pod.row.phase {
                Phase::Pending => 0,
                Phase::Unknown => 1,
                _ => 2,
            },
            pod.row.ready,
            pod.row.deletion_cost,
            Reverse(pod.row.ready_since.filter(|_| pod.row.ready)),
            Reverse(pod.row.restarts),
            Reverse(pod.object.meta.created),
            pod.object.key.name.clone(),
        )
    });
    let mut seen = BTreeSet::new();
    // Of two pods of an index the better one stays.
    let is_useless = |pod: &Pod| {
        let is_stray = !pod.is_tracked() && !pod.adopted;
        let is_double = view.is_indexed()
            && view
                .index(pod)
                .is_none_or(|index| tally.done.contains(index) || !seen.insert(index));
        is_stray || is_double
    };
    let mut reversed = ranked;
    reversed.reverse();
    let (mut victims, mut rest): (Vec<Pod>, Vec<Pod>) = reversed.into_iter().partition(is_useless);
    while rest.len() > wanted {
        victims.extend(rest.pop());
    }
    victims.truncate(BURST);
    victims
}

/// How long pods wait after failures, counted since the last success.
fn wait_for_all(view: &View, own: &[Pod]) -> Option<SignedDuration> {
    let ended = |pod: &&Pod| pod.job.ended.unwrap_or(pod.object.meta.created);
    let of = |phase: Phase| own.iter().filter(move |pod| pod.row.phase == phase);
    let success = of(Phase::Succeeded).map(|pod| ended(&pod)).max();
    let since = success.unwrap_or(Timestamp::MIN);
    let failed = of(Phase::Failed).map(|pod| ended(&pod));
    let failed: Vec<Timestamp> = failed.filter(|at| *at > since).collect();
    pause(failed.len() as u64, failed.iter().max().copied()?, view.now)
}

fn create<'a>(
    view: &View<'a>,
    tally: &Tally<'a>,
    own: &[Pod<'a>],
    missing: usize,
    names: &mut Names,
) -> Change<'a> {
    let taken: BTreeSet<&str> = own.iter().map(|pod| pod.object.key.name.as_str()).collect();
    let is_taken = |name: &str| taken.contains(name);
    let job = (view.job.key.name.as_str(), view.job.meta.uid.as_str());
    let (indexes, again) = match view.completions().filter(|_| view.is_indexed()) {
        None => (vec![None; missing], None),
        Some(completions) => pending(view, tally, completions, missing),
    };
    let names = names.draw(job, &indexes, is_taken);
    let pairs = indexes.into_iter().zip(names);
    Change {
        create: pairs
            .map(|(index, name)| new_pod(view, tally, index, &name))
            .collect(),
        again,
        ..Change::default()
    }
}

/// The first indexes that nothing is done about, and how long those wait that may not yet be tried again.
fn pending(
    view: &View,
    tally: &Tally,
    completions: u32,
    missing: usize,
) -> (Vec<Option<u32>>, Option<SignedDuration>) {
    let mut busy: BTreeSet<u32> = tally
        .active
        .iter()
        .filter_map(|pod| view.index(pod))
        .collect();
    if view.replaces_failed_only() {
        busy.extend(tally.terminating.iter().filter_map(|pod| view.index(pod)));
    }
    let mut found = Vec::new();
    let mut again = None;
    let mut index = 0;
    while index < completions && found.len() < missing {
        let past = tally.done.end_of(index).or(tally.lost.end_of(index));
        if let Some(last) = past {
            index = last.saturating_add(1);
            continue;
        }
        let failed = tally.held.get(&index);
        let wait = failed.and_then(|pod| {
            let (failures, ignored) = view.failures_after(pod);
            let last = pod.job.ended.unwrap_or(pod.object.meta.created);
            pause(u64::from(failures) + u64::from(ignored), last, view.now)
        });
        match wait {
            _ if busy.contains(&index) => {}
            Some(wait) => again = sooner(again, Some(wait)),
            None => found.push(Some(index)),
        }
        index += 1;
    }
    (found, again)
}

fn new_pod(view: &View, tally: &Tally, index: Option<u32>, name: &str) -> Create {
    let template = view.spec.template.clone();
    let metadata = template.metadata.unwrap_or_default();
    let mut labels = metadata.labels.unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    let mut finalizers = metadata.finalizers.unwrap_or_default();
    if !finalizers.iter().any(|it| it == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    let mut spec = json!(template.spec.unwrap_or_default());
    if let Some(index) = index {
        labels.insert(INDEX.to_owned(), index.to_string());
        annotations.insert(INDEX.to_owned(), index.to_string());
        spec["hostname"] = format!("{}-{index}", view.job.key.name).into();
        for list in ["initContainers", "containers"] {
            let containers = spec[list].as_array_mut().into_iter().flatten();
            containers.for_each(name_index);
        }
        if view.limit_per_index().is_some() {
            let failed = tally.held.get(&index);
            let (failures, ignored) = failed.map_or((0, 0), |pod| view.failures_after(pod));
            annotations.insert(FAILURES.to_owned(), failures.to_string());
            if ignored > 0 {
                annotations.insert(IGNORED.to_owned(), ignored.to_string());
            }
        }
    }
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": view.job.key.namespace,
            "labels": labels,
            "annotations": annotations,
            "finalizers": finalizers,
            "ownerReferences": action::owners_json(&[action::controller_reference(view.job)]),
        },
        "spec": spec,
    });
    Create {
        kind: Kind::POD,
        namespace: view.job.key.namespace.clone(),
        object,
        if_absent: true,
        about: Some(action::about(view.job)),
    }
}

/// Tells a container its index, unless it has a variable of that name.
fn name_index(container: &mut Value) {
    const VARIABLE: &str = "JOB_COMPLETION_INDEX";
    let env = &mut container["env"];
    if env.is_null() {
        *env = json!([]);
    }
    let Some(env) = env.as_array_mut() else {
        return;
    };
    if env.iter().all(|it| it["name"] != VARIABLE) {
        let field = format!("metadata.labels['{INDEX}']");
        env.push(json!({
            "name": VARIABLE,
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": field}},
        }));
    }
}
