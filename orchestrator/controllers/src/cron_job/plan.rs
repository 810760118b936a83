//! What is done about one CronJob: old Jobs go, the due one is made, the status says which run. Pure.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::times::{Times, times, until};
use crate::action::{self, Action, Create, Delete, Plan};
use crate::job::status::finished_at;
use crate::object::Object;
use api::kinds::batch::schedule;
use client::Kind;

/// The time of the schedule for which a Job was made.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// A CronJob and the Jobs that it controls.
pub struct View<'a> {
    pub object: &'a Object,
    pub spec: &'a CronJobSpec,
    pub old: CronJobStatus,
    pub jobs: Vec<(&'a Object, &'a Job)>,
    pub now: Timestamp,
}

/// The next step of a CronJob.
pub fn plan(view: &View) -> Plan {
    let mut actions = forget_old(view);
    let mut status = view.old.clone();
    let active = follow(view, &mut status, &mut actions);
    let mut again = None;
    if view.object.meta.deleting.is_none() && view.spec.suspend != Some(true) {
        again = start(view, &active, &mut status, &mut actions);
    }
    actions.extend(write(view, &status));
    Plan { actions, again }
}

/// Deletes finished Jobs beyond the number that is kept, the oldest first.
fn forget_old(view: &View) -> Vec<Action> {
    let mut gone = Vec::new();
    for (kind, kept) in [
        ("Complete", view.spec.successful_jobs_history_limit),
        ("Failed", view.spec.failed_jobs_history_limit),
    ] {
        let Some(kept) = kept.and_then(|kept| usize::try_from(kept).ok()) else {
            continue;
        };
        let jobs = view.jobs.iter();
        let mut jobs: Vec<_> = jobs
            .filter(|(job, typed)| end(typed) == Some(kind) && job.meta.deleting.is_none())
            .collect();
        jobs.sort_by_key(|(job, typed)| {
            let start = typed.status.as_ref().and_then(|it| it.start_time.as_ref());
            (start.map(|at| at.0), job.key.name.clone())
        });
        let excess = jobs.len().saturating_sub(kept);
        gone.extend(jobs[..excess].iter().map(|(job, _)| delete(view, job)));
    }
    gone
}

/// Puts those that run into the status, takes out those that do not any more, and tells of them.
fn follow<'a>(
    view: &View<'a>,
    status: &mut CronJobStatus,
    actions: &mut Vec<Action>,
) -> Vec<&'a Object> {
    let listed = view.old.active.clone().unwrap_or_default();
    let is_listed = |job: &Object| {
        let uid = Some(&job.meta.uid);
        listed.iter().any(|it| it.uid.as_ref() == uid)
    };
    let mut active = Vec::new();
    for (job, typed) in &view.jobs {
        match end(typed) {
            None if is_listed(job) || scheduled(view, job).is_some() => active.push(*job),
            None => {}
            Some(how) if is_listed(job) => {
                let name = &job.key.name;
                let text = format!("Saw completed job: {name}, condition: {how}");
                actions.push(Action::normal(view.object, "SawCompletedJob", text));
            }
            Some(_) => {}
        }
        if end(typed) == Some("Complete") {
            let at = typed
                .status
                .as_ref()
                .and_then(|it| it.completion_time.clone());
            let last = status.last_successful_time.as_ref().map(|at| at.0);
            if at.as_ref().map(|at| at.0) > last {
                status.last_successful_time = at;
            }
        }
    }
    let is_there = |it: &&ObjectReference| {
        let uid = it.uid.as_ref();
        view.jobs.iter().any(|(job, _)| Some(&job.meta.uid) == uid)
    };
    for missing in listed.iter().filter(|it| !is_there(it)) {
        let name = missing.name.as_deref().unwrap_or_default();
        let text = format!("Active job went missing: {name}");
        actions.push(Action::normal(view.object, "MissingJob", text));
    }
    let known = |job: &&Object| {
        let old = listed
            .iter()
            .find(|it| it.uid.as_ref() == Some(&job.meta.uid));
        old.cloned().unwrap_or_else(|| reference(job))
    };
    let list: Vec<ObjectReference> = active.iter().map(known).collect();
    status.active = Some(list).filter(|list| !list.is_empty());
    active
}

/// Makes the Job that is due, if it may run; gives when the next one is.
fn start(
    view: &View,
    active: &[&Object],
    status: &mut CronJobStatus,
    actions: &mut Vec<Action>,
) -> Option<SignedDuration> {
    let warn = |reason: &'static str, text: String| Action::warning(view.object, reason, text);
    let zone = match view.spec.time_zone.as_deref() {
        None => TimeZone::UTC,
        Some(name) => match TimeZone::get(name) {
            Ok(zone) => zone,
            Err(why) => {
                let text = format!("invalid timeZone: {name:?}: {why}");
                actions.push(warn("UnknownTimeZone", text));
                return None;
            }
        },
    };
    let schedule = match schedule::parse(&view.spec.schedule) {
        Ok(schedule) => schedule,
        Err(why) => {
            let text = format!("unparseable schedule: {:?} : {why}", view.spec.schedule);
            actions.push(warn("UnparseableSchedule", text));
            return None;
        }
    };
    let made = view.object.meta.created;
    let since = view.old.last_schedule_time.as_ref().map_or(made, |at| at.0);
    let deadline = view.spec.starting_deadline_seconds;
    let deadline = deadline.map(|seconds| SignedDuration::from_secs(seconds.clamp(0, MAX_SECONDS)));
    let oldest = deadline.map(|deadline| view.now - deadline);
    let Times {
        due,
        too_many,
        next,
    } = times(&schedule, &zone, since, oldest, view.now);
    let again = next.map(|at| until(at, view.now));
    let Some(due) = due else { return again };
    if too_many {
        let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        actions.push(warn("TooManyMissedTimes", text.to_owned()));
    }
    if is_made(view, due) {
        // Its Job is there, and only the status was not written: nothing is replaced by it once more.
        status.last_schedule_time = Some(Time(due));
        return again;
    }
    match view.spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            let event = Action::normal(view.object, "JobAlreadyActive", text.to_owned());
            actions.push(event);
            return again;
        }
        Some("Replace") => {
            let running = active.iter().filter(|job| job.meta.deleting.is_none());
            actions.extend(running.map(|job| delete(view, job)));
            status.active = None;
        }
        _ => {}
    }
    actions.push(create(view, due, &zone));
    status.last_schedule_time = Some(Time(due));
    again
}

/// A thousand years.
const MAX_SECONDS: i64 = 1000 * 366 * 86_400;

/// The name says the minute, so that a Job that was made and whose making was not heard of is not made again.
fn job_name(view: &View, due: Timestamp) -> String {
    format!("{}-{}", view.object.key.name, due.as_second() / 60)
}

/// Whether the Job of that time is there already.
fn is_made(view: &View, due: Timestamp) -> bool {
    let name = job_name(view, due);
    view.jobs.iter().any(|(job, _)| job.key.name == name)
}

fn create(view: &View, due: Timestamp, zone: &TimeZone) -> Action {
    let template = &view.spec.job_template;
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    let local = due.to_zoned(zone.clone());
    let local = match local.offset().is_zero() {
        true => local.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        false => local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    };
    annotations.insert(SCHEDULED.to_owned(), local);
    let object = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(view, due),
            "namespace": view.object.key.namespace,
            "labels": metadata.labels,
            "annotations": annotations,
            "ownerReferences": action::owners_json(&[action::controller_reference(view.object)]),
        },
        "spec": template.spec,
    });
    Action::Create(Create {
        kind: Kind::JOB,
        namespace: view.object.key.namespace.clone(),
        object,
        if_absent: true,
        about: Some(action::about(view.object)),
    })
}

fn delete(view: &View, job: &Object) -> Action {
    Action::Delete(Delete {
        propagation: Some("Background"),
        about: Some(action::about(view.object)),
        ..Delete::of(job)
    })
}

fn write(view: &View, status: &CronJobStatus) -> Option<Action> {
    if *status == view.old {
        return None;
    }
    let mut body = json!(status);
    if status.active.is_none() {
        body["active"] = Value::Null;
    }
    Some(Action::merge_exact(
        view.object,
        "status",
        json!({"status": body}),
    ))
}

/// The number in the name of a Job that was made by schedule.
fn scheduled(view: &View, job: &Object) -> Option<i64> {
    let rest = job.key.name.strip_prefix(view.object.key.name.as_str())?;
    rest.strip_prefix('-')?.parse().ok()
}

fn reference(job: &Object) -> ObjectReference {
    ObjectReference {
        api_version: Some(job.kind.api_version()),
        kind: Some(job.kind.kind.to_owned()),
        namespace: Some(job.key.namespace.clone()),
        name: Some(job.key.name.clone()),
        uid: Some(job.meta.uid.clone()),
        resource_version: Some(job.meta.revision.to_string()),
        field_path: None,
    }
}

/// Which of the two ways a Job ended.
fn end(job: &Job) -> Option<&'static str> {
    let status = job.status.as_ref()?;
    finished_at(status)?;
    let mut conditions = status.conditions.iter().flatten();
    let failed = conditions.any(|it| it.type_ == "Failed" && it.status == "True");
    Some(if failed { "Failed" } else { "Complete" })
}
