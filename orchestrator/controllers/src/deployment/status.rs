//! A Deployment's status and conditions, as `kubectl rollout status` reads them. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{SetRef, View, rollout::Bounds};
use crate::action::Action;

/// What the plan did that conditions tell of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Nothing,
    Created(String),
    Found(String),
    /// The set could not be made: its name, and why.
    Refused(String, String),
    Paused,
    Resumed,
}

/// The status that follows from the sets, and when a deadline should be looked at again.
pub fn status(
    view: &View,
    bounds: Bounds,
    new: Option<SetRef>,
    step: &Step,
) -> (DeploymentStatus, Option<SignedDuration>) {
    let old = view.deployment.status.clone().unwrap_or_default();
    let sum = |of: fn(&SetRef) -> i32| view.sets.iter().map(of).sum::<i32>();
    let total = sum(|(_, row)| row.status.replicas);
    let available = sum(|(_, row)| row.status.available);
    let mut next = DeploymentStatus {
        replicas: some(total),
        updated_replicas: some(new.map_or(0, |(_, row)| row.status.replicas)),
        ready_replicas: some(sum(|(_, row)| row.status.ready)),
        available_replicas: some(available),
        unavailable_replicas: some((total - available).max(0)),
        observed_generation: Some(view.object.meta.generation),
        collision_count: old.collision_count.filter(|n| *n > 0),
        conditions: old.conditions.clone(),
        ..DeploymentStatus::default()
    };
    if view.collision {
        next.collision_count = Some(old.collision_count.unwrap_or(0) + 1);
    }
    let enough = available >= bounds.min_available();
    let condition = if enough {
        (
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    set(&mut next, condition, view.now, false);
    let again = progress(view, &old, &mut next, new, step);
    failure(view, &mut next);
    (next, again)
}

/// The write of `next`, if it says anything new.
pub fn write(view: &View, next: &DeploymentStatus) -> Option<Action> {
    let old = view.deployment.status.clone().unwrap_or_default();
    let (was, mut is) = (to_json(&old), to_json(next));
    if was == is {
        return None;
    }
    if was["conditions"] == is["conditions"]
        && let Some(fields) = is.as_object_mut()
    {
        // What others write there meanwhile stays.
        fields.remove("conditions");
    }
    Some(Action::merge(view.object, "status", json!({"status": is})))
}

fn to_json(status: &DeploymentStatus) -> Value {
    let field = |n: Option<i32>| n.filter(|n| *n != 0);
    json!({
        "replicas": field(status.replicas),
        "updatedReplicas": field(status.updated_replicas),
        "readyReplicas": field(status.ready_replicas),
        "availableReplicas": field(status.available_replicas),
        "unavailableReplicas": field(status.unavailable_replicas),
        "observedGeneration": status.observed_generation,
        "collisionCount": status.collision_count,
        "conditions": status.conditions,
    })
}

/// The condition Progressing.
fn progress(
    view: &View,
    old: &DeploymentStatus,
    next: &mut DeploymentStatus,
    new: Option<SetRef>,
    step: &Step,
) -> Option<SignedDuration> {
    let spec = view.spec();
    let deadline = spec.progress_deadline_seconds.unwrap_or(600);
    if deadline == i32::MAX {
        if let Some(conditions) = &mut next.conditions {
            conditions.retain(|c| c.type_ != PROGRESSING);
        }
        return None;
    }
    let name = match (new, step) {
        (Some((set, _)), _) => format!("ReplicaSet \"{}\"", set.key.name),
        _ => format!("Deployment \"{}\"", view.object.key.name),
    };
    tell_step(next, step, view.now);
    if spec.paused == Some(true) || matches!(step, Step::Refused(..)) {
        return None;
    }
    let wanted = spec.replicas.unwrap_or(1);
    let current = find(next, PROGRESSING).cloned();
    let complete_before = current
        .as_ref()
        .is_some_and(|c| c.reason.as_deref() == Some(COMPLETE));
    if next.replicas == next.updated_replicas && complete_before {
        return None;
    }
    if new.is_some() && complete(wanted, next) {
        let text = format!("{name} has successfully progressed.");
        set(next, (PROGRESSING, "True", COMPLETE, &text), view.now, true);
    } else if progressed(old, next) {
        let text = format!("{name} is progressing.");
        set(
            next,
            (PROGRESSING, "True", "ReplicaSetUpdated", &text),
            view.now,
            true,
        );
    } else if let Some(current) = current {
        return overdue(view, next, &current, deadline, &name);
    }
    Some(SignedDuration::from_secs(deadline.into()))
}

/// What the plan did, in the condition Progressing.
fn tell_step(next: &mut DeploymentStatus, step: &Step, now: Timestamp) {
    match step {
        Step::Created(set_name) => {
            let text = format!("Created new replica set \"{set_name}\"");
            set(
                next,
                (PROGRESSING, "True", "NewReplicaSetCreated", &text),
                now,
                true,
            );
        }
        Step::Found(set_name) => {
            let text = format!("Found new replica set \"{set_name}\"");
            set(
                next,
                (PROGRESSING, "True", "FoundNewReplicaSet", &text),
                now,
                true,
            );
        }
        Step::Refused(set_name, why) => {
            let text = format!("Failed to create new replica set \"{set_name}\": {why}");
            set(next, (PROGRESSING, "False", REFUSED, &text), now, false);
        }
        Step::Paused => {
            let text = "Deployment is paused";
            set(
                next,
                (PROGRESSING, "Unknown", "DeploymentPaused", text),
                now,
                true,
            );
        }
        Step::Resumed => {
            let text = "Deployment is resumed";
            set(
                next,
                (PROGRESSING, "Unknown", "DeploymentResumed", text),
                now,
                true,
            );
        }
        Step::Nothing => {}
    }
}

/// Turns a rollout that has not moved for too long into a failed one.
fn overdue(
    view: &View,
    next: &mut DeploymentStatus,
    current: &DeploymentCondition,
    deadline: i32,
    name: &str,
) -> Option<SignedDuration> {
    if current.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let since = current.last_update_time.as_ref().map_or(view.now, |t| t.0);
    let at = since + SignedDuration::from_secs(deadline.into());
    if at > view.now {
        return Some(view.now.duration_until(at));
    }
    let text = format!("{name} has timed out progressing.");
    set(
        next,
        (PROGRESSING, "False", TIMED_OUT, &text),
        view.now,
        true,
    );
    None
}

/// The new set is all there is and all of it is available.
pub fn complete(wanted: i32, status: &DeploymentStatus) -> bool {
    let is = |n: Option<i32>| n.unwrap_or(0) == wanted;
    is(status.updated_replicas) && is(status.replicas) && is(status.available_replicas)
}

fn progressed(old: &DeploymentStatus, next: &DeploymentStatus) -> bool {
    let rose =
        |of: fn(&DeploymentStatus) -> Option<i32>| of(next).unwrap_or(0) > of(old).unwrap_or(0);
    let superseded = |status: &DeploymentStatus| {
        status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0)
    };
    rose(|s| s.updated_replicas)
        || superseded(next) < superseded(old)
        || rose(|s| s.ready_replicas)
        || rose(|s| s.available_replicas)
}

/// Copies a set's failure to create pods, or takes the condition away.
fn failure(view: &View, next: &mut DeploymentStatus) {
    let reported = view
        .sets
        .iter()
        .find_map(|(_, row)| row.status.failure.as_ref());
    match reported {
        Some((reason, message)) => {
            set(
                next,
                ("ReplicaFailure", "True", reason, message),
                view.now,
                false,
            );
        }
        None => {
            if let Some(conditions) = &mut next.conditions {
                conditions.retain(|c| c.type_ != "ReplicaFailure");
            }
        }
    }
}

/// Sets a condition. Its transition time changes with its status; its update time with its reason
/// too, or whenever `touch` says that it tells of something new.
fn set(
    status: &mut DeploymentStatus,
    (type_, value, reason, message): (&str, &str, &str, &str),
    now: Timestamp,
    touch: bool,
) {
    let now = Time(seconds(now));
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().position(|c| c.type_ == type_);
    let old = known.map(|index| conditions[index].clone());
    let same_status = old.as_ref().is_some_and(|c| c.status == value);
    let same = same_status
        && old
            .as_ref()
            .is_some_and(|c| c.reason.as_deref() == Some(reason));
    let old_transition = old.as_ref().and_then(|c| c.last_transition_time.clone());
    let old_update = old.as_ref().and_then(|c| c.last_update_time.clone());
    let condition = DeploymentCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: old_transition.filter(|_| same_status).or(Some(now.clone())),
        last_update_time: old_update.filter(|_| same && !touch).or(Some(now)),
    };
    match known {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == type_)
}

/// Times travel in whole seconds.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn some(n: i32) -> Option<i32> {
    Some(n).filter(|n| *n != 0)
}

const PROGRESSING: &str = "Progressing";
/// The reason, of the condition and of the event, that a set could not be made.
pub const REFUSED: &str = "ReplicaSetCreateError";
const COMPLETE: &str = "NewReplicaSetAvailable";
pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";
