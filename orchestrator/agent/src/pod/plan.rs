//! What to do next for one pod: `plan(&View) -> Vec<Action>`. Pure.
//!
//! Owns the order of a pod's life: sandbox, network, init containers one by one, containers,
//! restarts with back-off, and its end: first it leaves its Services (`drain`), then hooks, signals,
//! kills. The executor (`pod_worker`) does what is listed, looks
//! again and asks again; a plan without a step to take says only when to look next.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Template, Pod};

use super::backoff;
use super::refuse::Refusal;
use super::shape::{self, Outcome, Policy};
use crate::network::drain::{self, Drain, Progress};
use crate::runtime::{Container, Role, State};
use datapath::Addrs;

/// How long the containers of an evicted pod have to end: they take more than is theirs.
const EVICTION_GRACE: SignedDuration = SignedDuration::from_secs(1);

/// Everything that decides about one pod.
pub struct View<'a> {
    pub pod: &'a Pod,
    /// The API has no such pod any more.
    pub gone: bool,
    pub now: Timestamp,
    /// All its containers, sandboxes included.
    pub containers: &'a [Container],
    pub memory: &'a Memory,
}

/// What the executor remembers between plans. An agent may lose it at any time: it is found again
/// by doing the same steps, all of which are idempotent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// The sandbox whose network is wired, and the pod's addresses.
    pub attached: Option<Attached>,
    /// The pod's last addresses; they stay in the status of a pod that has ended.
    pub addrs: Option<Addrs>,
    /// By container name: is the image of its next start on the node?
    pub images: BTreeMap<String, ImageState>,
    /// By container name (empty: the sandbox): why its last start failed before it ran.
    pub failures: BTreeMap<String, Failure>,
    /// How far the pod has left its Services, since it was told to end.
    pub drain: Option<Drain>,
    /// By container id: whether its `preStop` has ended.
    pub hooks: BTreeMap<String, bool>,
    /// By container id: when a container that was asked to stop is killed.
    pub signalled: BTreeMap<String, Timestamp>,
    /// By container id: what its probes say.
    pub probes: BTreeMap<String, Probed>,
    /// By container id: the termination message of a container that has ended.
    pub termination_messages: BTreeMap<String, String>,
    /// Why this node does not run the pod at all.
    pub refused: Option<Refusal>,
    /// Why the pod may not run on, though it could.
    pub evicted: Option<String>,
    /// The last status of a pod that ends was written.
    pub reported_end: bool,
    /// Address, link and volumes were given back.
    pub released: bool,
    /// The pod's files were removed.
    pub cleaned: bool,
    pub confirmed: bool,
}

/// A wired sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub sandbox: String,
    pub addrs: Addrs,
}

/// Where the image of a container's next start is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageState {
    Ready,
    Pulling,
    Failed(Failure),
}

/// A step that did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
    pub at: Timestamp,
    pub count: u32,
}

impl Failure {
    /// When to try again.
    pub fn retry_at(&self) -> Timestamp {
        self.at + backoff::delay(self.count)
    }
}

/// What a container's probes say. Without probes: started, ready and not failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    pub started: bool,
    pub ready: bool,
    /// Why the container must be restarted.
    pub failed: Option<FailedProbe>,
}

/// A probe because of which a container must be restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedProbe {
    pub why: String,
    /// How long the container may take to stop, where the probe says that itself.
    pub grace_seconds: Option<i64>,
}

/// One step of the executor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    EnsureImage {
        container: String,
        image: String,
        policy: String,
    },
    CreateSandbox {
        attempt: u32,
    },
    Attach {
        sandbox: String,
        pid: u32,
    },
    Start {
        container: String,
        role: Role,
        attempt: u32,
        generation: u32,
        level: u32,
    },
    /// Watches the pod leave its Services.
    Drain,
    /// Runs a container's `preStop`, but not for longer than until then.
    PreStop {
        id: String,
        container: String,
        why: String,
        until: Timestamp,
    },
    /// Asks a container to stop; it is killed at `kill_at`.
    Stop {
        id: String,
        container: String,
        why: String,
        kill_at: Timestamp,
    },
    Kill {
        id: String,
    },
    Remove {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    /// Writes the status while the exit codes are still there.
    ReportEnd,
    /// Gives back address, link and volumes.
    Release,
    /// Removes the pod's files.
    CleanUp,
    /// Tells the API that nothing of the pod runs.
    Confirm,
    /// The executor of this pod has nothing left to do.
    Finish,
    WakeAt(Timestamp),
}

/// What an executor that does the list in order may do now.
pub fn plan(view: &View) -> Vec<Action> {
    if view.gone || view.pod.metadata.deletion_timestamp.is_some() {
        return end(view);
    }
    match shape::outcome(view) {
        Outcome::Active => run(view),
        Outcome::Succeeded | Outcome::Failed { .. } => retire(view),
    }
}

/// A pod that shall run.
fn run(view: &View) -> Vec<Action> {
    let mut actions = Vec::new();
    let sandbox = shape::sandbox(view.containers);
    match sandbox.map(|sandbox| (sandbox, &sandbox.state)) {
        Some((sandbox, State::Running { pid, .. })) => {
            attach_or_start(view, sandbox, *pid, &mut actions);
        }
        other => rebuild_sandbox(view, other.map(|(sandbox, _)| sandbox), &mut actions),
    }
    if let Some(deadline) = shape::active_deadline(view.pod) {
        actions.push(Action::WakeAt(deadline));
    }
    actions
}

/// The sandbox is not there, or dead: whatever lived in it has lost its network.
fn rebuild_sandbox(view: &View, dead: Option<&Container>, actions: &mut Vec<Action>) {
    let orphans = shape::members(view.containers).filter(|container| container.is_running());
    let kills: Vec<Action> = orphans
        .map(|orphan| Action::Kill {
            id: orphan.id.clone(),
        })
        .collect();
    if !kills.is_empty() {
        actions.extend(kills);
        return;
    }
    if let Some(dead) = dead {
        actions.push(Action::RemoveSandbox {
            id: dead.id.clone(),
        });
    }
    if let Some(wait) = still_waiting(view, "") {
        actions.push(wait);
        return;
    }
    // Looked for while the sandbox starts: the pull, if there is one, is the longer way.
    for template in first_wanted(view) {
        ensure_image(view, template, actions);
    }
    let generations = view
        .containers
        .iter()
        .map(|container| container.identity.generation);
    let attempt = generations.max().map_or(0, |newest| newest + 1);
    actions.push(Action::CreateSandbox { attempt });
}

/// The templates that start first: the first init container, or all containers.
fn first_wanted<'a>(view: &View<'a>) -> Vec<&'a Template> {
    match shape::init_templates(view.pod).first() {
        Some(first) => vec![first],
        None => shape::main_templates(view.pod).iter().collect(),
    }
}

fn attach_or_start(view: &View, sandbox: &Container, pid: u32, actions: &mut Vec<Action>) {
    let attached = view
        .memory
        .attached
        .as_ref()
        .is_some_and(|it| it.sandbox == sandbox.id);
    if !attached {
        match still_waiting(view, "") {
            Some(wait) => actions.push(wait),
            None => actions.push(Action::Attach {
                sandbox: sandbox.id.clone(),
                pid,
            }),
        }
        return;
    }
    let generation = sandbox.identity.attempt;
    let stale = shape::members(view.containers)
        .filter(|container| container.is_running() && container.identity.generation != generation);
    actions.extend(stale.map(|container| Action::Kill {
        id: container.id.clone(),
    }));
    let unfinished = shape::unfinished_init(view.pod, view.containers, generation);
    match unfinished {
        Some(template) => advance(view, template, Role::Init, generation, actions),
        None => {
            for template in shape::main_templates(view.pod) {
                advance(view, template, Role::Main, generation, actions);
            }
        }
    }
    for (template, _) in shape::ephemeral_templates(view.pod) {
        begin_once(view, &template, generation, actions);
    }
    prune(view, actions);
}

/// One ephemeral container, which is started once whatever becomes of it.
fn begin_once(view: &View, template: &Template, generation: u32, actions: &mut Vec<Action>) {
    let role = Role::Ephemeral;
    match shape::latest(view.containers, &template.name) {
        None if shape::first_attempt(view.pod, role, &template.name) == 0 => {
            advance(view, template, role, generation, actions);
        }
        // Left behind between create and start: it never ran.
        Some(latest) if latest.state == State::Created => {
            advance(view, template, role, generation, actions);
        }
        _ => {}
    }
}

/// One container: start it, restart it, watch it.
fn advance(
    view: &View,
    template: &Template,
    role: Role,
    generation: u32,
    actions: &mut Vec<Action>,
) {
    let latest = shape::latest(view.containers, &template.name);
    let mut start = |attempt: u32, level: u32| {
        if let Some(wait) = still_waiting(view, &template.name) {
            actions.push(wait);
        } else if ensure_image(view, template, actions) {
            let container = template.name.clone();
            actions.push(Action::Start {
                container,
                role,
                attempt,
                generation,
                level,
            });
        }
    };
    let Some(latest) = latest else {
        return start(shape::first_attempt(view.pod, role, &template.name), 0);
    };
    match &latest.state {
        // Left behind between create and start: it never ran.
        State::Created => actions.push(Action::Remove {
            id: latest.id.clone(),
        }),
        State::Running { .. } => watch(view, template, latest, actions),
        State::Exited(exit) => {
            let attempt = latest.identity.attempt + 1;
            if latest.identity.generation != generation {
                // Its sandbox died: not its own failure.
                return start(attempt, latest.identity.level);
            }
            let failed_only = role == Role::Init || shape::policy(view.pod) != Policy::Always;
            let changed = latest.identity.spec_hash != shape::spec_hash(template);
            if failed_only && exit.code == 0 && exit.start_error.is_none() {
                return;
            }
            if role == Role::Main && shape::policy(view.pod) == Policy::Never {
                return;
            }
            let restart = backoff::restart(latest, exit);
            if restart.at > view.now && !changed {
                actions.push(Action::WakeAt(restart.at));
            } else {
                start(attempt, restart.level);
            }
        }
    }
}

/// A running container ends when a probe says so or when its image was changed.
fn watch(view: &View, template: &Template, latest: &Container, actions: &mut Vec<Action>) {
    let failed = view
        .memory
        .probes
        .get(&latest.id)
        .and_then(|probed| probed.failed.clone());
    let changed = latest.identity.spec_hash != shape::spec_hash(template);
    let changed = changed.then(|| FailedProbe {
        why: format!(
            "Container {} definition changed, will be restarted",
            template.name
        ),
        grace_seconds: None,
    });
    if let Some(FailedProbe { why, grace_seconds }) = failed.or(changed) {
        let own = grace_seconds.map(SignedDuration::from_secs);
        let grace = own.unwrap_or_else(|| shape::grace_period(view.pod));
        stop(view, latest, why, view.now + grace, Progress::DONE, actions);
    }
}

/// Asks for the image of the next start; true when it is there.
fn ensure_image(view: &View, template: &Template, actions: &mut Vec<Action>) -> bool {
    let ensure = || Action::EnsureImage {
        container: template.name.clone(),
        image: template.image.clone().unwrap_or_default(),
        policy: shape::pull_policy(template),
    };
    match view.memory.images.get(&template.name) {
        Some(ImageState::Ready) => return true,
        Some(ImageState::Pulling) => {}
        Some(ImageState::Failed(failure)) if failure.retry_at() > view.now => {
            let told = failure.at + shape::PULL_ERROR_SHOWN;
            actions.push(Action::WakeAt(if told > view.now {
                told
            } else {
                failure.retry_at()
            }));
        }
        Some(ImageState::Failed(_)) | None => actions.push(ensure()),
    }
    false
}

fn still_waiting(view: &View, name: &str) -> Option<Action> {
    let failure = view.memory.failures.get(name)?;
    let retry_at = match name {
        "" => failure.at + backoff::short_delay(failure.count),
        _ => failure.retry_at(),
    };
    (retry_at > view.now).then_some(Action::WakeAt(retry_at))
}

/// Of every container the last attempt and the one before it (for `logs --previous`) are kept.
fn prune(view: &View, actions: &mut Vec<Action>) {
    let names: BTreeSet<&str> = shape::members(view.containers)
        .map(|it| it.identity.name.as_str())
        .collect();
    for name in names {
        let attempts = shape::attempts(view.containers, name);
        let old = attempts
            .iter()
            .rev()
            .skip(2)
            .filter(|container| !container.is_running());
        actions.extend(old.map(|container| Action::Remove {
            id: container.id.clone(),
        }));
    }
    let newest = shape::sandbox(view.containers).map(|sandbox| &sandbox.id);
    let sandboxes = view
        .containers
        .iter()
        .filter(|it| it.identity.role == Role::Sandbox);
    let old = sandboxes.filter(|sandbox| Some(&sandbox.id) != newest);
    actions.extend(old.map(|sandbox| Action::Remove {
        id: sandbox.id.clone(),
    }));
}

/// A pod that has run to its end keeps its containers (their logs) and gives back the rest.
fn retire(view: &View) -> Vec<Action> {
    let mut actions = Vec::new();
    let grace = match view.memory.evicted {
        Some(_) => EVICTION_GRACE.min(shape::grace_period(view.pod)),
        None => shape::grace_period(view.pod),
    };
    let deadline = view.now + grace;
    let why = "Stopping container of a pod that has ended";
    if stop_all(view, why, deadline, Progress::DONE, &mut actions) {
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
fn end(view: &View) -> Vec<Action> {
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
    let mut any = false;
    for container in shape::members(view.containers).filter(|it| it.is_running()) {
        any = true;
        let why = format!("{why} {}", container.identity.name);
        stop(view, container, why, deadline, seen, actions);
    }
    any
}

/// Runs the hook once, asks once, and kills when the time is up. A later plan may only shorten the
/// time. A hook waits for no connection to end: whoever has one waits in it.
fn stop(
    view: &View,
    container: &Container,
    why: String,
    deadline: Timestamp,
    seen: Progress,
    actions: &mut Vec<Action>,
) {
    let id = container.id.clone();
    let name = container.identity.name.clone();
    match view.memory.signalled.get(&id) {
        None if deadline <= view.now => actions.push(Action::Kill { id }),
        None => {
            let hooked = match view.memory.hooks.get(&id) {
                Some(ended) => *ended,
                None if !shape::has_pre_stop(view.pod, &name) => true,
                None => {
                    if seen.left {
                        actions.push(Action::PreStop {
                            id: id.clone(),
                            container: name.clone(),
                            why: why.clone(),
                            until: deadline,
                        });
                    }
                    false
                }
            };
            if hooked && seen == Progress::DONE {
                actions.push(Action::Stop {
                    id,
                    container: name,
                    why,
                    kill_at: deadline,
                });
            }
            actions.push(Action::WakeAt(deadline));
        }
        Some(kill_at) => {
            let kill_at = (*kill_at).min(deadline);
            if kill_at <= view.now {
                actions.push(Action::Kill { id });
                // Looks again even if the engine's news of the death is lost.
                actions.push(Action::WakeAt(view.now + SignedDuration::from_secs(2)));
            } else {
                actions.push(Action::WakeAt(kill_at));
            }
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "life_tests.rs"]
mod life_tests;
