//! Whether a Job is decided, and why: what its condition SuccessCriteriaMet or FailureTarget says. Its pods are
//! stopped then, and when all are, it is Complete or Failed (KEP-3939, KEP-3998). Pure.

use jiff::SignedDuration;

use super::policy::{self, Failure};
use super::view::{Pod, Tally, View};
use crate::object::Phase;

pub const SUCCESS: &str = "SuccessCriteriaMet";
pub const FAILURE: &str = "FailureTarget";

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `SUCCESS` or `FAILURE`.
    pub kind: &'static str,
    pub reason: String,
    pub message: String,
}

/// What the Job's conditions say already, or what follows from its pods; the first reason counts.
pub fn of(view: &View, tally: &Tally) -> Option<Verdict> {
    let failure = |(reason, message): (&str, String)| verdict(FAILURE, reason, &message);
    said(view, SUCCESS)
        .or_else(|| said(view, FAILURE))
        .or_else(|| by_policy(view).map(failure))
        .or_else(|| too_many_failures(view, tally).map(failure))
        .or_else(|| too_late(view).map(failure))
        .or_else(|| failed_indexes(view, tally).map(failure))
        .or_else(|| {
            let met = view.completions().filter(|_| view.is_indexed());
            let met =
                met.and_then(|completions| policy::success(view.spec, &tally.done, completions));
            met.map(|message| verdict(SUCCESS, "SuccessPolicy", &message))
        })
        .or_else(|| is_complete(view, tally).then(completed))
}

/// How long until the Job has run for as long as it may.
pub fn deadline(view: &View) -> Option<SignedDuration> {
    let seconds = view.spec.active_deadline_seconds?;
    let start = view.old.start_time.as_ref().map(|at| at.0);
    let end =
        start.unwrap_or(view.now) + SignedDuration::from_secs(seconds.clamp(0, LONGEST_SECONDS));
    let is_running = !view.is_suspended();
    is_running.then(|| view.now.duration_until(end).max(SignedDuration::ZERO))
}

/// A thousand years.
const LONGEST_SECONDS: i64 = 1000 * 366 * 86_400;

fn verdict(kind: &'static str, reason: &str, message: &str) -> Verdict {
    Verdict {
        kind,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

fn said(view: &View, kind: &'static str) -> Option<Verdict> {
    let mut conditions = view.old.conditions.iter().flatten();
    let found = conditions.find(|it| it.type_ == kind && it.status == "True")?;
    Some(verdict(
        kind,
        found.reason.as_deref().unwrap_or_default(),
        found.message.as_deref().unwrap_or_default(),
    ))
}

fn by_policy(view: &View) -> Option<(&'static str, String)> {
    view.spec.pod_failure_policy.as_ref()?;
    let failed = view.pods.iter().filter(|pod| is_own(view, pod));
    let mut failed = failed.filter(|pod| view.has_failed(pod));
    failed.find_map(|pod| match policy::failure(view.spec, pod) {
        Failure::FailsJob(message) => Some(("PodFailurePolicy", message)),
        _ => None,
    })
}

fn is_own(view: &View, pod: &Pod) -> bool {
    let owner = pod.object.controller();
    owner.is_some_and(|owner| owner.uid == view.job.meta.uid)
}

fn too_many_failures(view: &View, tally: &Tally) -> Option<(&'static str, String)> {
    let limit = u64::try_from(view.spec.backoff_limit.unwrap_or(6)).unwrap_or(0);
    let pod = view.spec.template.spec.as_ref();
    let restarts_inside = pod.is_some_and(|pod| pod.restart_policy.as_deref() == Some("OnFailure"));
    let running = tally.active.iter();
    let running = running.filter(|pod| matches!(pod.row.phase, Phase::Running | Phase::Pending));
    let restarts = running.map(|pod| pod.row.restarts + pod.job.init_restarts);
    let restarts: u64 = restarts
        .map(|count| u64::try_from(count).unwrap_or(0))
        .sum();
    let restarted = restarts_inside && restarts > 0 && restarts >= limit;
    (restarted || tally.failed > limit).then(|| {
        let message = "Job has reached the specified backoff limit";
        ("BackoffLimitExceeded", message.to_owned())
    })
}

fn too_late(view: &View) -> Option<(&'static str, String)> {
    view.old.start_time.as_ref()?;
    let message = "Job was active longer than specified deadline";
    deadline(view)?
        .is_zero()
        .then(|| ("DeadlineExceeded", message.to_owned()))
}

fn failed_indexes(view: &View, tally: &Tally) -> Option<(&'static str, String)> {
    view.limit_per_index()?;
    let lost = tally.lost.len();
    let most = view.spec.max_failed_indexes;
    if most.is_some_and(|most| lost > u64::try_from(most).unwrap_or(0)) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(("MaxFailedIndexesExceeded", message.to_owned()));
    }
    let all = u64::from(view.completions().unwrap_or(0));
    let over = lost > 0 && lost + tally.done.len() >= all;
    over.then(|| ("FailedIndexes", "Job has failed indexes".to_owned()))
}

/// Nothing runs any more, and as many pods succeeded as are wanted: any, where no number is said.
fn is_complete(view: &View, tally: &Tally) -> bool {
    let enough = match view.completions() {
        None => tally.succeeded > 0,
        Some(wanted) => tally.succeeded >= u64::from(wanted),
    };
    enough && tally.active.is_empty()
}

fn completed() -> Verdict {
    let message = "Reached expected number of succeeded pods";
    verdict(SUCCESS, "CompletionsReached", message)
}
