//! How a pod ends: it leaves its Services (`drain`), then hooks, stop signals, kills; and what is given back.
//! Sidecars are asked to stop after the containers that they serve, in reverse order (KEP-753).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::{Action, View, still_waiting};
use crate::network::drain::{self, Progress};
use crate::pod::shape;
use crate::runtime::{Container, Role};

/// What every container has between its stop signal and SIGKILL, however late it was asked: a kubelet's
/// `minimumGracePeriodInSeconds`.
const LEAST_GRACE: SignedDuration = SignedDuration::from_secs(2);

/// Why and until when a container is stopped.
pub struct Ending {
    pub why: String,
    pub deadline: Timestamp,
    /// How far the pod has left its Services.
    pub seen: Progress,
    /// Nothing that ends before it still runs.
    pub in_turn: bool,
}

/// A pod that has run to its end keeps its containers (their logs) and gives back the rest.
pub fn retire(view: &View) -> Vec<Action> {
    let mut actions = Vec::new();
    let runs = shape::members(view.containers).any(Container::is_running);
    let Some(since) = view.memory.retired_at.or((!runs).then_some(view.now)) else {
        return vec![Action::Retire];
    };
    let own = shape::grace_period(view.pod);
    let evicted = view.memory.evicted.as_ref();
    let grace = evicted.map_or(own, |eviction| eviction.most_grace.min(own));
    let why = "Stopping container of a pod that has ended";
    if stop_all(view, why, since + grace, Progress::DONE, &mut actions) {
        return actions;
    }
    let sandboxes = view
        .containers
        .iter()
        .filter(|it| it.identity.role == Role::Sandbox);
    actions.extend(sandboxes.map(|sandbox| Action::RemoveSandbox {
        id: sandbox.id.clone(),
    }));
    if actions.is_empty() && !view.memory.released {
        actions.push(Action::Release);
    }
    actions
}

/// A pod that is deleted: leave, stop, report, remove, give back, confirm.
pub fn end(view: &View) -> Vec<Action> {
    let mut actions = Vec::new();
    let deadline = match (&view.pod.metadata.deletion_timestamp, view.gone) {
        (Some(time), false) => time.0,
        _ => view.now,
    };
    let seen = leave(view, deadline, &mut actions);
    if stop_all(view, "Stopping container", deadline, seen, &mut actions) {
        return actions;
    }
    actions.clear();
    if !view.gone && !view.memory.reported_end {
        return vec![Action::ReportEnd];
    }
    for container in view.containers {
        let id = container.id.clone();
        actions.push(match container.identity.role {
            Role::Sandbox => Action::RemoveSandbox { id },
            Role::Init | Role::Main | Role::Ephemeral => Action::Remove { id },
        });
    }
    // Members first: a sandbox that goes before them takes their namespace's name with it.
    actions.sort_by_key(|action| matches!(action, Action::RemoveSandbox { .. }));
    if !view.memory.released {
        actions.push(Action::Release);
    }
    if !view.memory.cleaned {
        actions.push(Action::CleanUp);
    }
    if !view.gone && !view.memory.confirmed {
        actions.push(match still_waiting(view, "") {
            Some(wait) => wait,
            None => Action::Confirm,
        });
    }
    if view.gone && actions.is_empty() {
        actions.push(Action::Finish);
    }
    actions
}

/// How far the pod has left its Services; what is not seen in time is not waited for.
fn leave(view: &View, deadline: Timestamp, actions: &mut Vec<Action>) -> Progress {
    if deadline <= view.now {
        return Progress::DONE;
    }
    let Some(drain) = &view.memory.drain else {
        actions.push(Action::Drain);
        return Progress::default();
    };
    let seen = drain::progress(drain, view.now, deadline);
    if seen != Progress::DONE {
        actions.push(Action::WakeAt(drain::until(drain.since, deadline)));
    }
    seen
}

/// Stops what runs; true while something does.
fn stop_all(
    view: &View,
    why: &str,
    deadline: Timestamp,
    seen: Progress,
    actions: &mut Vec<Action>,
) -> bool {
    let members = shape::members(view.containers);
    let running: Vec<&Container> = members.filter(|it| it.is_running()).collect();
    for container in &running {
        let ending = Ending {
            why: format!("{why} {}", container.identity.name),
            deadline,
            seen,
            in_turn: !is_needed(view.pod, container, &running),
        };
        stop(view, container, ending, actions);
    }
    !running.is_empty()
}

/// Whether a container that started after this sidecar still runs.
fn is_needed(pod: &Pod, sidecar: &Container, running: &[&Container]) -> bool {
    let inits = shape::init_templates(pod);
    let place = |it: &Container| {
        let own = |index: &usize| inits[*index].name == it.identity.name;
        (0..inits.len()).find(own)
    };
    let sidecar = place(sidecar).filter(|index| shape::is_sidecar(&inits[*index]));
    let Some(sidecar) = sidecar else {
        return false;
    };
    running.iter().any(|other| match other.identity.role {
        Role::Main => true,
        Role::Init => place(other).is_some_and(|other| other > sidecar),
        Role::Sandbox | Role::Ephemeral => false,
    })
}

/// Runs the hook once, asks once, and kills when the time is up. A later plan may only shorten the
/// time. A hook waits neither for connections to end nor for other containers: whoever needs that waits in it.
pub fn stop(view: &View, container: &Container, ending: Ending, actions: &mut Vec<Action>) {
    let Ending {
        why,
        deadline,
        seen,
        in_turn,
    } = ending;
    let id = container.id.clone();
    let name = container.identity.name.clone();
    if let Some(signalled) = view.memory.signalled.get(&id) {
        let least = signalled.at + LEAST_GRACE;
        let kill_at = signalled.kill_at.min(deadline.max(least));
        if kill_at > view.now {
            return actions.push(Action::WakeAt(kill_at));
        }
        actions.push(Action::Kill { id });
        // Looks again even if the engine's news of the death is lost.
        return actions.push(Action::WakeAt(view.now + LEAST_GRACE));
    }
    let hook = view.memory.pre_stops.get(&id);
    let deadline = hook.map_or(deadline, |hook| hook.until.min(deadline));
    let is_late = deadline <= view.now;
    let hooked = match hook {
        Some(hook) => hook.ended,
        None => !shape::has_pre_stop(view.pod, &name),
    };
    if hook.is_none() && !hooked && !is_late && seen.left {
        actions.push(Action::PreStop {
            id: id.clone(),
            container: name.clone(),
            why: why.clone(),
            until: deadline,
        });
    }
    if is_late || (hooked && in_turn && seen == Progress::DONE) {
        let kill_at = deadline.max(view.now + LEAST_GRACE);
        actions.push(Action::Stop {
            id,
            container: name,
            why,
            kill_at,
        });
        actions.push(Action::WakeAt(kill_at));
    } else {
        actions.push(Action::WakeAt(deadline));
    }
}
