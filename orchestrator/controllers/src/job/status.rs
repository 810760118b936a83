//! A Job's status: counts, indexes, conditions, and the events that tell of them. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::plan::{Outcome, Settled};
use super::verdict::{self, Verdict};
use super::view::{Pod, Tally, View};
use crate::action::Action;

const COMPLETE: &str = "Complete";
const FAILED: &str = "Failed";
const SUSPENDED: &str = "Suspended";

/// It is Complete or Failed.
pub fn is_finished(status: &JobStatus) -> bool {
    finished_at(status).is_some()
}

/// When it became Complete or Failed.
pub fn finished_at(status: &JobStatus) -> Option<Option<Timestamp>> {
    let mut conditions = status.conditions.iter().flatten();
    let is_end = |it: &&JobCondition| [COMPLETE, FAILED].contains(&it.type_.as_str());
    let end = conditions.find(|it| is_end(it) && it.status == "True")?;
    Some(end.last_transition_time.as_ref().map(|at| at.0))
}

/// The status that follows. Pods that are noted and have lost their finalizer are counted now; those that lose it
/// now are noted.
pub fn next(
    view: &View,
    tally: &Tally,
    own: &[Pod],
    verdict: Option<&Verdict>,
    settled: &[Settled],
) -> JobStatus {
    let mut status = view.old.clone();
    let some = |count: usize| Some(i32::try_from(count).unwrap_or(i32::MAX));
    status.active = some(tally.active.len()).filter(|count| *count > 0);
    status.ready = some(tally.ready);
    status.terminating = some(tally.terminating.len());
    suspend_or_start(view, &mut status);
    let left = count(view, settled, &mut status);
    if view.is_indexed() {
        let done = tally.done.to_string();
        status.completed_indexes = Some(done).filter(|it| !it.is_empty());
        let total = usize::try_from(tally.done.len()).unwrap_or(usize::MAX);
        status.succeeded = some(total).filter(|count| *count > 0);
        let by_index = view.limit_per_index().is_some();
        status.failed_indexes = by_index.then(|| tally.lost.to_string());
    }
    let Some(verdict) = verdict else {
        return status;
    };
    let said = (verdict.reason.as_str(), verdict.message.as_str());
    set(&mut status, verdict.kind, "True", said, view.now);
    let is_over = tally.active.is_empty()
        && tally.terminating.is_empty()
        && left == 0
        && !own.iter().any(Pod::is_tracked);
    if is_over {
        let succeeded = verdict.kind == verdict::SUCCESS;
        let kind = if succeeded { COMPLETE } else { FAILED };
        set(&mut status, kind, "True", said, view.now);
        if succeeded {
            status.completion_time = Some(Time(seconds(view.now)));
        }
    }
    status
}

/// Writes the status if it says anything new, and tells of it.
pub fn write(view: &View, next: &JobStatus) -> Vec<Action> {
    let (was, mut is) = (json!(view.old), json!(next));
    if was == is {
        return Vec::new();
    }
    for field in was.as_object().into_iter().flat_map(|it| it.keys()) {
        if is[field].is_null() {
            is[field] = Value::Null;
        }
    }
    // Both lists are there, so that a merge empties them.
    let uncounted = &mut is["uncountedTerminatedPods"];
    for list in ["succeeded", "failed"] {
        let before = &was["uncountedTerminatedPods"][list];
        if uncounted[list].is_null() && !before.is_null() {
            uncounted[list] = Value::Null;
        }
    }
    let mut actions = vec![Action::merge_exact(
        view.job,
        "status",
        json!({"status": is}),
    )];
    actions.extend(events(view, next));
    actions
}

fn suspend_or_start(view: &View, status: &mut JobStatus) {
    let was = condition(&view.old, SUSPENDED).is_some_and(|it| it.status == "True");
    if view.is_suspended() {
        if !was {
            set(
                status,
                SUSPENDED,
                "True",
                ("JobSuspended", "Job suspended"),
                view.now,
            );
        }
        return;
    }
    if was {
        set(
            status,
            SUSPENDED,
            "False",
            ("JobResumed", "Job resumed"),
            view.now,
        );
    }
    // The time while it was suspended does not count.
    if was || status.start_time.is_none() {
        status.start_time = Some(Time(seconds(view.now)));
    }
}

/// Moves uids from the lists to the counts, and adds new ones; gives how many stay in the lists.
fn count(view: &View, settled: &[Settled], status: &mut JobStatus) -> usize {
    let old = view
        .old
        .uncounted_terminated_pods
        .clone()
        .unwrap_or_default();
    let tracked = view.pods.iter().filter(|pod| pod.is_tracked());
    let tracked: BTreeSet<&str> = tracked.map(Pod::uid).collect();
    let is_tracked = |uid: &String| tracked.contains(uid.as_str());
    let move_on = |list: Option<Vec<String>>, outcome: Outcome, count: &mut Option<i32>| {
        let list = list.unwrap_or_default();
        let before = list.len();
        let mut list: Vec<String> = list.into_iter().filter(is_tracked).collect();
        let moved = i32::try_from(before - list.len()).unwrap_or(0);
        if moved > 0 {
            *count = Some(count.unwrap_or(0).saturating_add(moved));
        }
        let new = settled.iter().filter(|it| it.counts == Some(outcome));
        let by_index = view.is_indexed() && outcome == Outcome::Succeeded;
        let new = new.filter(|_| !by_index);
        list.extend(new.map(|it| it.pod.uid().to_owned()));
        list
    };
    let succeeded = move_on(old.succeeded, Outcome::Succeeded, &mut status.succeeded);
    let failed = move_on(old.failed, Outcome::Failed, &mut status.failed);
    let left = succeeded.len() + failed.len();
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
        succeeded: Some(succeeded).filter(|list| !list.is_empty()),
        failed: Some(failed).filter(|list| !list.is_empty()),
    });
    left
}

fn events(view: &View, next: &JobStatus) -> Vec<Action> {
    let mut events = Vec::new();
    let turned = |kind: &str, to: &str| {
        let now = condition(next, kind).filter(|it| it.status == to)?;
        let before = condition(&view.old, kind).is_some_and(|it| it.status == to);
        (!before).then_some(now)
    };
    for (kind, to, reason, text) in [
        (SUSPENDED, "True", "Suspended", "Job suspended"),
        (SUSPENDED, "False", "Resumed", "Job resumed"),
        (COMPLETE, "True", "Completed", "Job completed"),
    ] {
        if turned(kind, to).is_some() {
            events.push(Action::normal(view.job, reason, text.to_owned()));
        }
    }
    let wanted = view.spec.completions;
    if turned(COMPLETE, "True").is_some() && wanted.is_some_and(|n| next.succeeded > Some(n)) {
        let text = "Too many succeeded pods running after completion count reached";
        events.push(Action::warning(
            view.job,
            "TooManySucceededPods",
            text.to_owned(),
        ));
    }
    if let Some(failed) = turned(FAILED, "True") {
        let reason = failed.reason.as_deref().unwrap_or_default();
        let known = FAILURE_REASONS.iter().find(|it| **it == reason);
        let text = failed.message.clone().unwrap_or_default();
        events.push(Action::warning(view.job, known.unwrap_or(&FAILED), text));
    }
    events
}

const FAILURE_REASONS: [&str; 5] = [
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
];

fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|it| it.type_ == kind)
}

fn set(
    status: &mut JobStatus,
    kind: &str,
    value: &str,
    (reason, message): (&str, &str),
    now: Timestamp,
) {
    let now = Some(Time(seconds(now)));
    let conditions = status.conditions.get_or_insert_default();
    if conditions
        .iter()
        .any(|it| it.type_ == kind && it.status == value)
    {
        return;
    }
    conditions.retain(|it| it.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: now.clone(),
        last_transition_time: now,
    });
}

/// As the API writes times.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
