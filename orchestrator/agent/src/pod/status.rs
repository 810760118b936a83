//! What the API is told of a pod: `status(&View, &Place) -> PodStatus`. Pure.
//!
//! Owns phase, conditions, container states and their reasons. Decides nothing: what is done next is
//! `pod_plan`'s.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Template, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, PodCondition, PodIP, PodStatus,
    ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff;
use super::plan::{ImageState, PostStart, View};
use super::qos;
use super::resize::{self, Pending};
use super::shape::{self, Outcome};
use crate::runtime::{Container, Exit, Role, State};
use datapath::Addrs;

/// Conditions that are there only while a pod's amounts change.
const RESIZE_CONDITIONS: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// What a kubelet says of a container whose end it did not see: killed.
const LOST_EXIT_CODE: i32 = 137;

/// Where the pod is: facts of the node and of the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub node_ips: Addrs,
    /// When this agent first saw the pod.
    pub accepted_at: Timestamp,
}

/// The pod's status as of now.
pub fn status(view: &View, place: &Place) -> PodStatus {
    let (mut init, mut main, mut ephemeral) = (Vec::new(), Vec::new(), Vec::new());
    // As a kubelet does: of a pod that it rejects it names no container.
    if shape::refusal(view).is_none() {
        init = statuses(view, shape::init_templates(view.pod), Role::Init);
        main = statuses(view, shape::main_templates(view.pod), Role::Main);
        let templates = shape::ephemeral_templates(view.pod);
        let templates: Vec<Template> = templates.into_iter().map(|(it, _)| it).collect();
        ephemeral = statuses(view, &templates, Role::Ephemeral);
    }
    let outcome = shape::outcome(view);
    let phase = phase(view, &outcome, &init, &main);
    if matches!(phase, "Failed" | "Succeeded") {
        end_the_lost(&mut init, &mut main);
    }
    let (reason, message) = match &outcome {
        Outcome::Failed { reason, message } if phase == "Failed" => {
            (reason.clone(), message.clone())
        }
        _ => (None, None),
    };
    let known = view.pod.status.as_ref();
    let addrs = pod_addrs(view, place);
    let texts = |addrs: Addrs| addrs.iter().map(|ip| ip.to_string());
    let start_time = known.and_then(|status| status.start_time.clone());
    PodStatus {
        observed_generation: view.pod.metadata.generation,
        conditions: Some(conditions(view, &outcome, &init, &main)),
        container_statuses: (!main.is_empty()).then_some(main),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        host_ip: texts(place.node_ips).next(),
        host_ips: Some(texts(place.node_ips).map(|ip| HostIP { ip }).collect()),
        pod_ip: addrs.and_then(|addrs| texts(addrs).next()),
        pod_ips: addrs.map(|addrs| texts(addrs).map(|ip| PodIP { ip }).collect()),
        phase: Some(phase.to_owned()),
        qos_class: Some(qos::class(view.pod).to_owned()),
        reason,
        message,
        start_time: Some(start_time.unwrap_or_else(|| seconds(place.accepted_at))),
        ..Default::default()
    }
}

/// Kubernetes' `Time` has no fractions.
pub fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

fn pod_addrs(view: &View, place: &Place) -> Option<Addrs> {
    let known = || {
        let status = view.pod.status.as_ref()?;
        let listed = status.pod_ips.iter().flatten().map(|it| &it.ip);
        let listed = listed.chain(&status.pod_ip);
        let known: Addrs = listed.filter_map(|ip| ip.parse::<IpAddr>().ok()).collect();
        Some(known).filter(|known| !known.is_empty())
    };
    let host = shape::host_network(view.pod).then_some(place.node_ips);
    host.or(view.memory.addrs).or_else(known)
}

/// What of a pod that has ended did not end by its own state was lost, as a kubelet says it: all containers of a
/// pod that was initialized, and the init containers before the last one that began.
fn end_the_lost(init: &mut [ContainerStatus], main: &mut [ContainerStatus]) {
    let is_initialized = main.iter().any(has_run)
        || init.last().is_none_or(|last| {
            let state = last.state.as_ref();
            let ended = state.and_then(|state| state.terminated.as_ref());
            ended.is_some_and(|ended| ended.exit_code == 0) || last.started == Some(true)
        });
    let begun = init.iter().rposition(has_run).map_or(0, |last| last + 1);
    let mains = main.iter_mut().filter(|_| is_initialized);
    for status in init[..begun].iter_mut().chain(mains) {
        let state = status.state.as_ref();
        if state.is_some_and(|state| state.terminated.is_some()) {
            continue;
        }
        let lost = ContainerStateTerminated {
            container_id: status.container_id.clone(),
            exit_code: LOST_EXIT_CODE,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(
                "The container could not be located when the pod was terminated".to_owned(),
            ),
            ..Default::default()
        };
        status.state = Some(ContainerState {
            terminated: Some(lost),
            ..Default::default()
        });
        (status.ready, status.started) = (false, Some(false));
    }
}

fn statuses(view: &View, templates: &[Template], role: Role) -> Vec<ContainerStatus> {
    templates
        .iter()
        .map(|template| container_status(view, template, role))
        .collect()
}

fn container_status(view: &View, template: &Template, role: Role) -> ContainerStatus {
    let attempts = shape::attempts(view.containers, &template.name);
    let ended = view.gone || view.pod.metadata.deletion_timestamp.is_some();
    if let Some(known) = shape::known_status(view.pod, role, &template.name)
        && attempts.is_empty()
        && (ended
            || shape::outcome(view) != Outcome::Active
            || role == Role::Init && shape::initialized(view))
    {
        return known.clone();
    }
    let latest = attempts.last().copied();
    let previous = attempts.iter().rev().nth(1).copied();
    let (state, last_state) = states(view, template, role, latest, previous);
    let probed = latest.and_then(|container| view.memory.probes.get(&container.id));
    let started = latest.is_some_and(|latest| shape::has_started(view, latest));
    let ready = match role {
        Role::Init if !shape::is_sidecar(template) => latest
            .and_then(Container::exit)
            .is_some_and(|exit| exit.code == 0),
        Role::Ephemeral => false,
        _ => started && probed.is_none_or(|probed| probed.ready),
    };
    let attempt = latest.map_or_else(
        || shape::first_attempt(view.pod, role, &template.name),
        |container| container.identity.attempt,
    );
    ContainerStatus {
        name: template.name.clone(),
        image: image_of(template, latest),
        image_id: latest.map(image_id).unwrap_or_default(),
        container_id: latest.map(container_id),
        restart_count: i32::try_from(attempt).unwrap_or(i32::MAX),
        ready,
        started: Some(started),
        state: Some(state),
        last_state,
        allocated_resources: requests_of(template).filter(|_| latest.is_some()),
        resources: latest.and_then(|latest| actual(view, template, role, latest)),
        ..Default::default()
    }
}

/// What it runs or ran as: the spec's image may have been changed since.
fn image_of(template: &Template, latest: Option<&Container>) -> String {
    let image = latest.map(|latest| &latest.image);
    image
        .or(template.image.as_ref())
        .cloned()
        .unwrap_or_default()
}

fn requests_of(template: &Template) -> Option<BTreeMap<String, Quantity>> {
    let requests = template.resources.as_ref()?.requests.clone();
    requests.filter(|requests| !requests.is_empty())
}

/// The amounts that a container has: what it was given, once the engine has given it that.
fn actual(
    view: &View,
    template: &Template,
    role: Role,
    latest: &Container,
) -> Option<ResourceRequirements> {
    let given = template.resources.clone()?;
    let given = ResourceRequirements {
        claims: None,
        ..given
    };
    let known = shape::known_status(view.pod, role, &template.name);
    let known = known.and_then(|known| known.resources.clone());
    let resources = match resize::change(view.pod, template, latest.resources) {
        Some(_) if latest.is_running() => known.unwrap_or(given),
        _ => given,
    };
    (resources != ResourceRequirements::default()).then_some(resources)
}

/// A container's id as a status has it.
pub fn container_id(container: &Container) -> String {
    format!("docker://{}", container.id)
}

fn image_id(container: &Container) -> String {
    format!("docker://{}", container.image_id)
}

/// `state` and `lastState`.
fn states(
    view: &View,
    template: &Template,
    role: Role,
    latest: Option<&Container>,
    previous: Option<&Container>,
) -> (ContainerState, Option<ContainerState>) {
    let ended = |container: Option<&Container>| {
        let container = container?;
        container
            .exit()
            .map(|exit| terminated(view, container, exit))
    };
    let Some(latest) = latest else {
        return (waiting(view, template, role), None);
    };
    match &latest.state {
        // As long as its hook runs it is not said to be running.
        State::Running { .. } if is_hooked(view, latest) => {
            (waiting(view, template, role), ended(previous))
        }
        State::Running { started_at, .. } => {
            let running = ContainerStateRunning {
                started_at: Some(seconds(*started_at)),
            };
            (
                ContainerState {
                    running: Some(running),
                    ..Default::default()
                },
                ended(previous),
            )
        }
        State::Created => (waiting(view, template, role), ended(previous)),
        State::Exited(exit) => match next_start(view, template, role, latest, exit) {
            Some(waiting) => (waiting, Some(terminated(view, latest, exit))),
            None => (terminated(view, latest, exit), ended(previous)),
        },
    }
}

/// Whether a container's `postStart` runs or has failed.
fn is_hooked(view: &View, container: &Container) -> bool {
    let hook = view.memory.post_starts.get(&container.id);
    matches!(hook, Some(PostStart::Running | PostStart::Failed(_)))
}

/// Why a container that ended does not run again yet; none when it has no reason to wait.
fn next_start(
    view: &View,
    template: &Template,
    role: Role,
    latest: &Container,
    exit: &Exit,
) -> Option<ContainerState> {
    if view.gone || view.pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let restarts = shape::restarts(view.pod, template, role, exit);
    if !restarts || shape::outcome(view) != Outcome::Active {
        return None;
    }
    if let Some(problem) = problem(view, &template.name) {
        return Some(problem);
    }
    let restart = backoff::restart(latest, exit);
    (restart.at > view.now).then(|| {
        let pod = &view.pod.metadata;
        let message = format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            backoff::text(restart.delay),
            template.name,
            pod.name.as_deref().unwrap_or_default(),
            pod.namespace.as_deref().unwrap_or_default(),
            pod.uid.as_deref().unwrap_or_default(),
        );
        wait("CrashLoopBackOff", Some(message))
    })
}

/// The state of a container that has never run.
fn waiting(view: &View, template: &Template, role: Role) -> ContainerState {
    if let Some(problem) = problem(view, &template.name) {
        return problem;
    }
    let latest = shape::latest(view.containers, &template.name);
    let hook = latest.and_then(|latest| view.memory.post_starts.get(&latest.id));
    if let Some(PostStart::Failed(why)) = hook {
        return wait("PostStartHookError", Some(why.clone()));
    }
    let initializing = role == Role::Main && !shape::initialized(view);
    let first_init = shape::init_templates(view.pod).first();
    let own_turn =
        role == Role::Init && first_init.is_some_and(|first| first.name == template.name);
    let later = initializing || role == Role::Init && !own_turn;
    wait(
        if later {
            "PodInitializing"
        } else {
            "ContainerCreating"
        },
        None,
    )
}

/// What stands between a container and its next start.
fn problem(view: &View, name: &str) -> Option<ContainerState> {
    if let Some(ImageState::Failed(failure)) = view.memory.images.get(name) {
        let never = failure.reason == "ErrImageNeverPull" || failure.reason == "InvalidImageName";
        let fresh = failure.at + shape::PULL_ERROR_SHOWN > view.now;
        return Some(if never || fresh {
            wait(&failure.reason, Some(failure.message.clone()))
        } else {
            let image = shape::image_of(view.pod, name);
            let message = format!(
                "Back-off pulling image \"{image}\": {}: {}",
                failure.reason, failure.message
            );
            wait("ImagePullBackOff", Some(message))
        });
    }
    let failure = view.memory.failures.get(name)?;
    // A container that waits for its volumes is being created; events tell for which.
    if matches!(failure.reason.as_str(), "" | "FailedMount") {
        return None;
    }
    Some(wait(&failure.reason, Some(failure.message.clone())))
}

fn wait(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some(reason.to_owned()),
        message,
    };
    ContainerState {
        waiting: Some(waiting),
        ..Default::default()
    }
}

fn terminated(view: &View, container: &Container, exit: &Exit) -> ContainerState {
    let reason = match exit {
        Exit {
            start_error: Some(_),
            ..
        } => "ContainerCannotRun",
        Exit {
            oom_killed: true, ..
        } => "OOMKilled",
        Exit { code: 0, .. } => "Completed",
        _ => "Error",
    };
    let termination_message = || {
        let message = view.memory.termination_messages.get(&container.id);
        message.filter(|message| !message.is_empty()).cloned()
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(container_id(container)),
        exit_code: exit.code,
        reason: Some(reason.to_owned()),
        message: exit.start_error.clone().or_else(termination_message),
        started_at: Some(seconds(exit.started_at)),
        finished_at: Some(seconds(exit.finished_at)),
        signal: None,
    };
    ContainerState {
        terminated: Some(terminated),
        ..Default::default()
    }
}

fn phase(
    view: &View,
    outcome: &Outcome,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> &'static str {
    let known = view
        .pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    // The end of a pod is said when nothing of it runs any more.
    let runs = shape::members(view.containers).any(Container::is_running);
    match outcome {
        Outcome::Succeeded if !runs || known == Some("Succeeded") => return "Succeeded",
        Outcome::Failed { .. } if !runs || known == Some("Failed") => return "Failed",
        _ => {}
    }
    let initializes = init.iter().any(|status| is_incomplete(view, status));
    if initializes && main.iter().all(|status| !has_run(status)) {
        return "Pending";
    }
    let never_ran = |status: &ContainerStatus| !has_run(status);
    if main.iter().any(never_ran) && known != Some("Running") {
        "Pending"
    } else {
        "Running"
    }
}

/// Whether an init container has not done its work, or has not started where it stays.
fn is_incomplete(view: &View, status: &ContainerStatus) -> bool {
    match shape::template(view.pod, &status.name) {
        Some(_) => status.started != Some(true),
        None => !status.ready,
    }
}

fn has_run(status: &ContainerStatus) -> bool {
    let ran = |state: &Option<ContainerState>| {
        state
            .as_ref()
            .is_some_and(|it| it.running.is_some() || it.terminated.is_some())
    };
    ran(&status.state) || ran(&status.last_state)
}

/// Whether a container runs or has ended, as its state says.
fn is_begun(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    state.is_some_and(|it| it.running.is_some() || it.terminated.is_some())
}

/// Kubernetes' pod conditions; those that others wrote stay as they are.
fn conditions(
    view: &View,
    outcome: &Outcome,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> Vec<PodCondition> {
    let names = |list: &mut dyn Iterator<Item = &ContainerStatus>| {
        let names = list.map(|status| status.name.as_str());
        names.collect::<Vec<_>>().join(" ")
    };
    let stays = |status: &&ContainerStatus| shape::template(view.pod, &status.name).is_some();
    let sidecars = init.iter().filter(stays);
    let unready = names(&mut sidecars.chain(main).filter(|status| !status.ready));
    let incomplete = names(&mut init.iter().filter(|status| is_incomplete(view, status)));
    let over = match outcome {
        Outcome::Succeeded => Some(("PodCompleted", String::new())),
        Outcome::Failed { .. } => Some(("PodFailed", String::new())),
        Outcome::Active => None,
    };
    let not_ready = over.or_else(|| {
        let message = format!("containers with unready status: [{unready}]");
        (!unready.is_empty()).then_some(("ContainersNotReady", message))
    });
    let gate = readiness_gate(view).filter(|_| not_ready.is_none());
    // Sidecars that start again do not take it back.
    let begun = *outcome == Outcome::Succeeded || main.iter().any(is_begun);
    let initialized = (!incomplete.is_empty() && !begun).then(|| {
        let message = format!("containers with incomplete status: [{incomplete}]");
        ("ContainersNotInitialized", message)
    });
    let wired = view.memory.attached.is_some()
        && shape::sandbox(view.containers).is_some_and(Container::is_running);
    let ours = [
        (
            "PodReadyToStartContainers",
            (!wired).then(|| ("", String::new())),
        ),
        ("Initialized", initialized),
        ("Ready", not_ready.clone().or(gate)),
        ("ContainersReady", not_ready),
    ];
    let mut conditions: Vec<PodCondition> = ours
        .into_iter()
        .map(|(kind, problem)| condition(view, kind, problem.is_none(), problem))
        .collect();
    conditions.extend(resize_conditions(view));
    conditions.extend(disruption(view));
    let known = view
        .pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let known = known.unwrap_or_default().into_iter();
    for other in known.filter(|it| !RESIZE_CONDITIONS.contains(&it.type_.as_str())) {
        if conditions.iter().all(|ours| ours.type_ != other.type_) {
            conditions.push(other);
        }
    }
    conditions
}

/// That the node ends the pod (KEP-3329).
fn disruption(view: &View) -> Option<PodCondition> {
    let eviction = view.memory.evicted.as_ref();
    let eviction = eviction.filter(|eviction| eviction.is_disruption)?;
    let why = Some(("TerminationByKubelet", eviction.message.clone()));
    Some(condition(view, "DisruptionTarget", true, why))
}

/// What is said while a pod's amounts change.
fn resize_conditions(view: &View) -> Vec<PodCondition> {
    let mut conditions = Vec::new();
    let [pending, in_progress] = RESIZE_CONDITIONS;
    if let Some(Pending { reason, message }) = &view.memory.resize {
        let why = Some((*reason, message.clone()));
        conditions.push(condition(view, pending, true, why));
    }
    let changing = shape::members(view.containers).filter(|it| it.is_running());
    let mut changing = changing.filter_map(|container| {
        let template = shape::template(view.pod, &container.identity.name)?;
        resize::change(view.pod, template, container.resources).map(|_| template)
    });
    if let Some(template) = changing.next() {
        let failure = view.memory.failures.get(&resize::key(&template.name));
        let why = failure.map(|it| ("Error", it.message.clone()));
        conditions.push(condition(view, in_progress, true, why));
    }
    conditions
}

fn readiness_gate(view: &View) -> Option<(&'static str, String)> {
    let spec = view.pod.spec.as_ref()?;
    let known = view
        .pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let open = |kind: &str| {
        known
            .into_iter()
            .flatten()
            .any(|it| it.type_ == kind && it.status == "True")
    };
    let gates = spec.readiness_gates.iter().flatten();
    let shut = gates
        .map(|gate| gate.condition_type.as_str())
        .find(|kind| !open(kind))?;
    let message = format!("the status of pod readiness gate \"{shut}\" is not \"True\"");
    Some(("ReadinessGatesNotReady", message))
}

fn condition(view: &View, kind: &str, holds: bool, why: Option<(&str, String)>) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let known = view
        .pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let before = known
        .into_iter()
        .flatten()
        .find(|it| it.type_ == kind && it.status == status);
    let since = before.and_then(|before| before.last_transition_time.clone());
    let text = |text: String| (!text.is_empty()).then_some(text);
    let (reason, message) = why.unzip();
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.and_then(|reason| text(reason.to_owned())),
        message: message.and_then(text),
        last_transition_time: Some(since.unwrap_or_else(|| seconds(view.now))),
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
