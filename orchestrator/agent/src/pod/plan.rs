//! What to do next for one pod: `plan(&View) -> Vec<Action>`. Pure.
//!
//! Owns the order of a pod's life: sandbox, network, init containers one by one, containers,
//! restarts with back-off, and its end ([`end`]). The executor (`worker`) does what is listed, looks
//! again and asks again; a plan without a step to take says only when to look next.

mod end;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Template, Pod};

use super::backoff;
use super::refuse::Refusal;
use super::resize::{self, Pending};
use super::shape::{self, Outcome};
use crate::network::drain::{Drain, Progress};
use crate::node::running::Eviction;
use crate::runtime::{Container, Resources, Role, State};
use datapath::Addrs;
use end::Ending;

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
    /// By container id: how far its `postStart` is. None: it has none, or an earlier agent ran it.
    pub post_starts: BTreeMap<String, PostStart>,
    /// By container id: its `preStop`, once it was begun.
    pub pre_stops: BTreeMap<String, PreStop>,
    /// By container id: those that were asked to stop.
    pub signalled: BTreeMap<String, Signalled>,
    /// By container id: what its probes say.
    pub probes: BTreeMap<String, Probed>,
    /// By container id: the termination message of a container that has ended.
    pub termination_messages: BTreeMap<String, String>,
    /// Why this node does not run the pod at all.
    pub refused: Option<Refusal>,
    /// Why the pod may not run on, though it could.
    pub evicted: Option<Eviction>,
    /// Why the pod does not get the amounts that its spec says.
    pub resize: Option<Pending>,
    /// When what still ran of a pod that has run to its end was told to end.
    pub retired_at: Option<Timestamp>,
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

/// How far a container's `postStart` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostStart {
    Running,
    Done,
    Failed(String),
}

/// A `preStop` that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreStop {
    /// How long it may take.
    pub until: Timestamp,
    pub ended: bool,
}

/// A container that was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signalled {
    pub at: Timestamp,
    pub kill_at: Timestamp,
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
    /// Gives a container other limits.
    Resize {
        id: String,
        container: String,
        resources: Resources,
    },
    /// Notes that what still runs of a pod that has run to its end is told to end now.
    Retire,
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

impl Action {
    /// Whether the engine has other containers, or others of them run, once this is done.
    pub fn changes_containers(&self) -> bool {
        match self {
            Action::CreateSandbox { .. }
            | Action::Start { .. }
            | Action::Resize { .. }
            | Action::Stop { .. }
            | Action::Kill { .. }
            | Action::Remove { .. }
            | Action::RemoveSandbox { .. } => true,
            Action::Attach { .. }
            | Action::EnsureImage { .. }
            | Action::Retire
            | Action::Drain
            | Action::PreStop { .. }
            | Action::ReportEnd
            | Action::Release
            | Action::CleanUp
            | Action::Confirm
            | Action::Finish
            | Action::WakeAt(_) => false,
        }
    }
}

/// What an executor that does the list in order may do now.
pub fn plan(view: &View) -> Vec<Action> {
    if view.gone || view.pod.metadata.deletion_timestamp.is_some() {
        return end::end(view);
    }
    match shape::outcome(view) {
        Outcome::Active => run(view),
        Outcome::Succeeded | Outcome::Failed { .. } => end::retire(view),
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
    advance_all(view, generation, actions);
    for (template, _) in shape::ephemeral_templates(view.pod) {
        begin_once(view, &template, generation, actions);
    }
    prune(view, actions);
}

/// The init container whose turn it is and the sidecars before it, or all sidecars and containers. They are
/// started in order, each when the one before has been started and its `postStart` has ended.
fn advance_all(view: &View, generation: u32, actions: &mut Vec<Action>) {
    let unfinished = shape::unfinished_init(view, generation).map(|it| &it.name);
    let inits = shape::init_templates(view.pod);
    let reached = inits.iter().position(|it| Some(&it.name) == unfinished);
    let last = reached.map_or(inits.len(), |reached| reached + 1);
    let inits = inits[..last].iter().enumerate();
    let inits = inits.filter(|(index, it)| Some(*index) == reached || shape::is_sidecar(it));
    let mains = shape::main_templates(view.pod).iter();
    let mains = mains.filter(|_| reached.is_none());
    let roles = inits.map(|(_, it)| (it, Role::Init));
    let mut held = false;
    for (template, role) in roles.chain(mains.map(|it| (it, Role::Main))) {
        let turn = Turn {
            role,
            generation,
            held,
        };
        let before = actions.len();
        advance(view, template, turn, actions);
        held |= holds_back(view, template, &actions[before..]);
    }
}

/// Whether the containers after this one have to wait for it: its image comes, it is started by this very plan
/// and has a hook to run then, or that hook runs.
fn holds_back(view: &View, template: &Template, planned: &[Action]) -> bool {
    let lifecycle = template.lifecycle.as_ref();
    let has_hook = lifecycle.is_some_and(|lifecycle| lifecycle.post_start.is_some());
    let starts = planned.iter().any(|action| match action {
        Action::EnsureImage { .. } => true,
        Action::Start { .. } => has_hook,
        _ => false,
    });
    let latest = shape::latest(view.containers, &template.name).filter(|it| it.is_running());
    let hook = latest.and_then(|latest| view.memory.post_starts.get(&latest.id));
    let pulled = view.memory.images.get(&template.name) == Some(&ImageState::Pulling);
    starts || hook == Some(&PostStart::Running) || (pulled && latest.is_none())
}

/// One ephemeral container, which is started once whatever becomes of it.
fn begin_once(view: &View, template: &Template, generation: u32, actions: &mut Vec<Action>) {
    let role = Role::Ephemeral;
    let turn = Turn {
        role,
        generation,
        held: false,
    };
    match shape::latest(view.containers, &template.name) {
        None if shape::first_attempt(view.pod, role, &template.name) == 0 => {
            advance(view, template, turn, actions);
        }
        // Left behind between create and start: it never ran.
        Some(latest) if latest.state == State::Created => {
            advance(view, template, turn, actions);
        }
        _ => {}
    }
}

/// As what a container is looked at.
#[derive(Debug, Clone, Copy)]
struct Turn {
    role: Role,
    generation: u32,
    /// A container before it is not done starting.
    held: bool,
}

/// One container: start it, restart it, watch it.
fn advance(view: &View, template: &Template, turn: Turn, actions: &mut Vec<Action>) {
    let Turn {
        role,
        generation,
        held,
    } = turn;
    let latest = shape::latest(view.containers, &template.name);
    let mut start = |attempt: u32, level: u32| {
        if let Some(wait) = still_waiting(view, &template.name) {
            actions.push(wait);
        } else if ensure_image(view, template, actions) && !held {
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
            let changed = latest.identity.spec_hash != shape::spec_hash(template);
            if !shape::restarts(view.pod, template, role, exit) {
                return;
            }
            let restart = backoff::restart(latest, exit);
            let changed = changed || resize::change(view.pod, template, latest.resources).is_some();
            if restart.at > view.now && !changed {
                actions.push(Action::WakeAt(restart.at));
            } else {
                start(attempt, restart.level);
            }
        }
    }
}

/// A running container ends when a probe or its `postStart` says so, or when its image was changed.
fn watch(view: &View, template: &Template, latest: &Container, actions: &mut Vec<Action>) {
    let probed = view.memory.probes.get(&latest.id);
    let failed = probed.and_then(|probed| probed.failed.clone());
    let hook = view.memory.post_starts.get(&latest.id);
    let hook = matches!(hook, Some(PostStart::Failed(_))).then(|| "FailedPostStartHook".to_owned());
    let changed = latest.identity.spec_hash != shape::spec_hash(template);
    let changed = changed.then(|| {
        let name = &template.name;
        format!("Container {name} definition changed, will be restarted")
    });
    let resized = resize::change(view.pod, template, latest.resources);
    let restarts = |wanted: &Resources| resize::needs_restart(template, latest.resources, *wanted);
    let resize = resized.filter(restarts).map(|_| {
        let name = &template.name;
        format!("Container {name} resize requires restart")
    });
    let other = hook.or(changed).or(resize).map(|why| FailedProbe {
        why,
        grace_seconds: None,
    });
    if let Some(FailedProbe { why, grace_seconds }) = failed.or(other) {
        let own = grace_seconds.map(SignedDuration::from_secs);
        let ending = Ending {
            why,
            deadline: view.now + own.unwrap_or_else(|| shape::grace_period(view.pod)),
            seen: Progress::DONE,
            in_turn: true,
        };
        return end::stop(view, latest, ending, actions);
    }
    if let Some(resources) = resized {
        actions.push(match still_waiting(view, &resize::key(&template.name)) {
            Some(wait) => wait,
            None => Action::Resize {
                id: latest.id.clone(),
                container: template.name.clone(),
                resources,
            },
        });
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
    // What a mount waits for comes of itself: a driver, an attachment, a claim.
    let retry_at = match name {
        _ if failure.reason == "FailedMount" => failure.at + backoff::short_delay(failure.count),
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

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "life_tests.rs"]
mod life_tests;
