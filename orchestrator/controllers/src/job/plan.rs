//! What is done about one Job: pods are claimed, counted, stopped and created. Pure.
//!
//! ```text
//! a pod ends ──▶ status: uncounted += uid ──▶ finalizer off the pod ──▶ status: uncounted −= uid, count += 1
//! ```
//!
//! The first write demands that the Job is as the plan saw it, and so does the last, which is made only once the
//! pod is seen without its finalizer. A controller may therefore end between any two of them: no pod is counted
//! twice, and none is lost.

use jiff::SignedDuration;
use serde_json::json;

use super::pods::{self, Change};
use super::row::TRACKING;
use super::status;
use super::verdict::{self, Verdict};
use super::view::{Pod, Tally, View};
use crate::action::{self, Action, Delete, Patch, Plan};
use crate::names::Names;
use client::PatchKind;

/// The name of this controller in `spec.managedBy`.
const OURS: &str = "kubernetes.io/job-controller";
/// Ended pods that one status names as not yet counted, at most.
const MAX_UNCOUNTED: usize = 500;

/// A pod that loses its finalizer, and whether it is counted as one that succeeded or failed.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'a> {
    pub pod: Pod<'a>,
    pub counts: Option<Outcome>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Succeeded,
    Failed,
}

/// The next step of a Job.
pub fn plan(view: &View, names: &mut Names) -> Plan {
    let manager = view.spec.managed_by.as_deref();
    if manager.is_some_and(|manager| manager != OURS) {
        return Plan::default();
    }
    if status::is_finished(&view.old) {
        let left = view.pods.iter().filter(|pod| pod.is_tracked());
        let left = left.filter(|pod| pod.object.controller().is_some());
        let patches: Vec<Patch> = left.map(untrack).collect();
        return Plan {
            actions: side_by_side(patches),
            again: None,
        };
    }
    let (mut actions, own) = pods::claim(view);
    let tally = view.tally(&own);
    let verdict = verdict::of(view, &tally);
    let change = match &verdict {
        Some(_) => pods::stop_all(&tally),
        None => pods::manage(view, &tally, &own, names),
    };
    let settled = settled(view, &tally, &own, verdict.as_ref());
    let next = status::next(view, &tally, &own, verdict.as_ref(), &settled);
    actions.extend(status::write(view, &next));
    actions.extend(side_by_side(
        settled.iter().map(|it| untrack(&it.pod)).collect(),
    ));
    let deadline = verdict::deadline(view).filter(|_| verdict.is_none());
    let again = [change.again, deadline].into_iter().flatten().min();
    actions.extend(carry_out(view, change));
    Plan { actions, again }
}

fn carry_out(view: &View, change: Change) -> Vec<Action> {
    let about = Some(action::about(view.job));
    // A pod that has ended meanwhile keeps its finalizer, and is counted.
    let given_up = change.give_up.iter().filter(|pod| pod.is_tracked());
    let mut actions: Vec<Action> = given_up
        .map(|pod| action::drop_finalizer(pod.object, TRACKING))
        .collect();
    let deleted = change.give_up.iter().chain(&change.stop);
    actions.extend(deleted.map(|pod| {
        Action::Delete(Delete {
            about: about.clone(),
            ..Delete::of(pod.object)
        })
    }));
    actions.extend(change.create.into_iter().map(Action::Create));
    actions
}

/// The pods whose time with a finalizer is over, and what each counts as.
fn settled<'a>(
    view: &View<'a>,
    tally: &Tally<'a>,
    own: &[Pod<'a>],
    verdict: Option<&Verdict>,
) -> Vec<Settled<'a>> {
    let (succeeded, failed) = view.uncounted();
    let mut settled = Vec::new();
    let mut noted = succeeded.len() + failed.len();
    for &pod in own.iter().filter(|pod| pod.is_tracked()) {
        let Some(outcome) = outcome(view, &pod, verdict) else {
            if view.job.meta.deleting.is_some() || verdict.is_some() {
                settled.push(Settled { pod, counts: None });
            }
            continue;
        };
        let held = view.index(&pod).and_then(|index| tally.held.get(&index));
        let is_held = held.is_some_and(|held| held.uid() == pod.uid());
        if is_held && verdict.is_none() && view.job.meta.deleting.is_none() {
            continue;
        }
        let is_noted = succeeded.contains(pod.uid()) || failed.contains(pod.uid());
        let counts = Some(outcome).filter(|outcome| match outcome {
            _ if is_noted || !view.belongs(&pod) => false,
            Outcome::Succeeded => true,
            Outcome::Failed => super::policy::failure(view.spec, &pod).counts(),
        });
        // Successes of an indexed Job are noted by their index.
        let takes_room = counts.is_some() && !(view.is_indexed() && outcome == Outcome::Succeeded);
        if takes_room {
            if noted >= MAX_UNCOUNTED {
                break;
            }
            noted += 1;
        }
        settled.push(Settled { pod, counts });
    }
    settled
}

/// How a pod ended; when the Job has failed, that of every other pod too.
fn outcome(view: &View, pod: &Pod, verdict: Option<&Verdict>) -> Option<Outcome> {
    let job_fails = verdict.is_some_and(|verdict| verdict.kind == verdict::FAILURE);
    match pod.row.phase {
        crate::object::Phase::Succeeded => Some(Outcome::Succeeded),
        _ if view.has_failed(pod) || job_fails => Some(Outcome::Failed),
        _ => None,
    }
}

/// Takes the finalizer off, whatever else has happened to the pod.
fn untrack(pod: &Pod) -> Patch {
    untrack_object(pod.object)
}

/// The same of a pod that no Job counts.
pub fn untrack_object(pod: &crate::object::Object) -> Patch {
    Patch {
        kind: pod.kind,
        key: pod.key.clone(),
        subresource: "",
        how: PatchKind::Strategic,
        body: json!({"metadata": {
            "uid": pod.meta.uid,
            "$deleteFromPrimitiveList/finalizers": [TRACKING],
        }}),
    }
}

pub fn side_by_side(patches: Vec<Patch>) -> Vec<Action> {
    match patches.is_empty() {
        true => Vec::new(),
        false => vec![Action::PatchAll(patches)],
    }
}

/// The shorter of two pauses, either of which may not be.
pub fn sooner(a: Option<SignedDuration>, b: Option<SignedDuration>) -> Option<SignedDuration> {
    [a, b].into_iter().flatten().min()
}
