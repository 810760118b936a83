//! Facts about one pod that plan and status share: which attempt is the latest, what counts as
//! done, how the pod as a whole has ended. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container as Template, ContainerStatus, EphemeralContainer, Pod, PodStatus,
};
use sha2::{Digest, Sha256};

use super::plan::{PostStart, View};
use super::refuse::Refusal;
use crate::runtime::{Container, Exit, Role};

/// How long a failed pull is called `ErrImagePull` before it is called `ImagePullBackOff`.
pub const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(3);

const DEFAULT_GRACE_SECONDS: i64 = 30;

/// `spec.restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Always,
    OnFailure,
    Never,
}

/// How a pod stands as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Active,
    Succeeded,
    Failed {
        reason: Option<String>,
        message: Option<String>,
    },
}

/// Whether something of the pod still has to run. Final outcomes never change again.
pub fn outcome(view: &View) -> Outcome {
    let status = view.pod.status.as_ref();
    match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => return Outcome::Succeeded,
        Some("Failed") => {
            let reason = status.and_then(|status| status.reason.clone());
            let message = status.and_then(|status| status.message.clone());
            return Outcome::Failed { reason, message };
        }
        _ => {}
    }
    if let Some(refusal) = refusal(view) {
        return Outcome::Failed {
            reason: Some(refusal.reason.to_owned()),
            message: Some(format!("Pod was rejected: {}", refusal.message)),
        };
    }
    if let Some(eviction) = &view.memory.evicted {
        return Outcome::Failed {
            reason: Some(eviction.reason.to_owned()),
            message: Some(eviction.message.clone()),
        };
    }
    if active_deadline(view.pod).is_some_and(|deadline| deadline <= view.now) {
        let message = "Pod was active on the node longer than the specified deadline";
        return Outcome::Failed {
            reason: Some("DeadlineExceeded".to_owned()),
            message: Some(message.to_owned()),
        };
    }
    let policy = policy(view.pod);
    let inits = init_templates(view.pod).iter();
    let init_failed = { inits }.filter(|it| !is_sidecar(it)).any(|template| {
        let exit = latest(view.containers, &template.name).and_then(Container::exit);
        policy == Policy::Never && exit.is_some_and(|exit| exit.code != 0)
    });
    if init_failed {
        return Outcome::Failed {
            reason: None,
            message: None,
        };
    }
    let mut failed = false;
    for template in main_templates(view.pod) {
        let exit = latest(view.containers, &template.name).and_then(Container::exit);
        match (exit, policy) {
            (None, _) | (_, Policy::Always) => return Outcome::Active,
            (Some(exit), Policy::OnFailure) if exit.code != 0 => return Outcome::Active,
            (Some(exit), _) => failed |= exit.code != 0,
        }
    }
    if failed {
        Outcome::Failed {
            reason: None,
            message: None,
        }
    } else {
        Outcome::Succeeded
    }
}

/// Why the pod may not begin. One that has begun, under an agent that refused less, goes on.
pub fn refusal<'a>(view: &View<'a>) -> Option<&'a Refusal> {
    let ran = |status: &PodStatus| {
        let init = status.init_container_statuses.iter().flatten();
        let mut all = init.chain(status.container_statuses.iter().flatten());
        all.any(|container| container.container_id.is_some())
    };
    let has_begun = !view.containers.is_empty() || view.pod.status.as_ref().is_some_and(ran);
    view.memory.refused.as_ref().filter(|_| !has_begun)
}

/// The pod's restart policy.
pub fn policy(pod: &Pod) -> Policy {
    match pod
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
    {
        Some("OnFailure") => Policy::OnFailure,
        Some("Never") => Policy::Never,
        _ => Policy::Always,
    }
}

/// Whether an init container stays beside the containers (KEP-753).
pub fn is_sidecar(template: &Template) -> bool {
    template.restart_policy.as_deref() == Some("Always")
}

/// Whether a container that ended runs again, while its pod shall run.
pub fn restarts(pod: &Pod, template: &Template, role: Role, exit: &Exit) -> bool {
    let failed = exit.code != 0 || exit.start_error.is_some();
    match (role, policy(pod)) {
        (Role::Ephemeral | Role::Sandbox, _) => false,
        (Role::Init, _) if is_sidecar(template) => true,
        (_, Policy::Never) => false,
        (Role::Main, Policy::Always) => true,
        (Role::Init | Role::Main, _) => failed,
    }
}

/// Whether a container has started: its `postStart` has ended, and its startup probe has succeeded once.
pub fn has_started(view: &View, container: &Container) -> bool {
    let hook = view.memory.post_starts.get(&container.id);
    let probed = view.memory.probes.get(&container.id);
    container.is_running()
        && hook.is_none_or(|hook| *hook == PostStart::Done)
        && probed.is_none_or(|probed| probed.started)
}

/// When a pod with `activeDeadlineSeconds` is over.
pub fn active_deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    Some(start + SignedDuration::from_secs(seconds))
}

/// `spec.terminationGracePeriodSeconds`.
pub fn grace_period(pod: &Pod) -> SignedDuration {
    let seconds = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    SignedDuration::from_secs(seconds.unwrap_or(DEFAULT_GRACE_SECONDS))
}

/// The user that every container of the pod is told to run as, if it is one.
pub fn common_user(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref();
    let of_pod = context.and_then(|context| context.run_as_user);
    let templates = main_templates(pod).iter().chain(init_templates(pod));
    let mut users = templates.map(|template| {
        let own = template.security_context.as_ref();
        own.and_then(|own| own.run_as_user).or(of_pod)
    });
    let first = users.next()??;
    let user = u32::try_from(first).ok()?;
    users.all(|user| user == Some(first)).then_some(user)
}

/// Whether the pod lives in the node's own network.
pub fn host_network(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.host_network)
        .unwrap_or(false)
}

/// Whether a container has something to do before it is asked to stop.
pub fn has_pre_stop(pod: &Pod, container: &str) -> bool {
    let lifecycle = template(pod, container).and_then(|it| it.lifecycle.as_ref());
    lifecycle.is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
}

/// The TCP ports that the pod says it listens on.
pub fn tcp_ports(pod: &Pod) -> BTreeSet<u16> {
    let sidecars = init_templates(pod).iter().filter(|it| is_sidecar(it));
    let templates = main_templates(pod).iter().chain(sidecars);
    let ports = templates.flat_map(|it| &it.ports).flatten();
    ports
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .filter_map(|port| u16::try_from(port.container_port).ok())
        .collect()
}

pub fn init_templates(pod: &Pod) -> &[Template] {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default()
}

pub fn main_templates(pod: &Pod) -> &[Template] {
    pod.spec
        .as_ref()
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default()
}

/// The container of that name which lives as long as the pod: a main one or a sidecar.
pub fn template<'a>(pod: &'a Pod, name: &str) -> Option<&'a Template> {
    let sidecars = init_templates(pod).iter().filter(|it| is_sidecar(it));
    let mut templates = main_templates(pod).iter().chain(sidecars);
    templates.find(|it| it.name == name)
}

/// The image of the container of that name, ephemeral ones included; empty if there is none.
pub fn image_of(pod: &Pod, name: &str) -> String {
    let ephemeral = ephemeral_templates(pod).into_iter().map(|(it, _)| it);
    let mains = main_templates(pod).iter().chain(init_templates(pod));
    let mut all = mains.cloned().chain(ephemeral);
    let found = all.find(|template| template.name == name);
    found
        .and_then(|template| template.image)
        .unwrap_or_default()
}

/// The ephemeral containers as containers, each with the name of the one into which it looks.
pub fn ephemeral_templates(pod: &Pod) -> Vec<(Template, Option<String>)> {
    let spec = pod.spec.as_ref();
    let all = spec.and_then(|spec| spec.ephemeral_containers.as_ref());
    let as_container = |it: &EphemeralContainer| {
        // The same fields, and the target besides.
        let template = serde_json::to_value(it).ok()?;
        let template = serde_json::from_value(template).ok()?;
        let target = it.target_container_name.clone();
        Some((template, target.filter(|name| !name.is_empty())))
    };
    all.into_iter().flatten().filter_map(as_container).collect()
}

/// The newest sandbox.
pub fn sandbox(containers: &[Container]) -> Option<&Container> {
    let sandboxes = containers
        .iter()
        .filter(|it| it.identity.role == Role::Sandbox);
    sandboxes.max_by_key(|sandbox| sandbox.identity.attempt)
}

/// Every container but sandboxes.
pub fn members(containers: &[Container]) -> impl Iterator<Item = &Container> {
    containers
        .iter()
        .filter(|container| container.identity.role != Role::Sandbox)
}

/// All attempts of one container, oldest first.
pub fn attempts<'a>(containers: &'a [Container], name: &str) -> Vec<&'a Container> {
    let mut attempts: Vec<_> = members(containers)
        .filter(|it| it.identity.name == name)
        .collect();
    attempts.sort_by_key(|container| container.identity.attempt);
    attempts
}

/// The newest attempt of one container.
pub fn latest<'a>(containers: &'a [Container], name: &str) -> Option<&'a Container> {
    attempts(containers, name).pop()
}

/// The init container whose turn it is in that sandbox; none when all have done their work, or have started
/// where they stay. Where a later container has started, the earlier ones are done: their remains may have
/// been tidied away.
pub fn unfinished_init<'a>(view: &View<'a>, generation: u32) -> Option<&'a Template> {
    let here: Vec<&Container> = members(view.containers)
        .filter(|it| it.identity.generation == generation)
        .collect();
    if here.iter().any(|it| it.identity.role == Role::Main) {
        return None;
    }
    let templates = init_templates(view.pod);
    let known = |template: &Template| here.iter().any(|it| it.identity.name == template.name);
    let reached = templates.iter().rposition(known).unwrap_or(0);
    let is_done = |template: &Template| {
        let latest = latest(view.containers, &template.name);
        let latest = latest.filter(|it| it.identity.generation == generation);
        if is_sidecar(template) {
            return latest.is_some_and(|latest| has_started(view, latest));
        }
        let exit = latest.and_then(Container::exit);
        exit.is_some_and(|exit| exit.code == 0 && exit.start_error.is_none())
    };
    templates[reached.min(templates.len())..]
        .iter()
        .find(|template| !is_done(template))
}

/// Whether every init container has done its work.
pub fn initialized(view: &View) -> bool {
    let generation = match sandbox(view.containers) {
        Some(sandbox) => sandbox.identity.attempt,
        // A pod that has ended keeps no sandbox: then its containers tell.
        None => members(view.containers)
            .map(|it| it.identity.generation)
            .max()
            .unwrap_or(0),
    };
    unfinished_init(view, generation).is_none()
}

/// What the last written status says of a container.
pub fn known_status<'a>(pod: &'a Pod, role: Role, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let list = match role {
        Role::Init => status.init_container_statuses.as_deref(),
        Role::Ephemeral => status.ephemeral_container_statuses.as_deref(),
        _ => status.container_statuses.as_deref(),
    };
    list?.iter().find(|status| status.name == name)
}

/// The attempt of a container that the engine does not know: the first, or, when somebody removed
/// it behind our back, the one after the last that was reported.
pub fn first_attempt(pod: &Pod, role: Role, name: &str) -> u32 {
    let known = known_status(pod, role, name);
    let ran = known.filter(|status| {
        status
            .container_id
            .as_ref()
            .is_some_and(|id| !id.is_empty())
    });
    ran.map_or(0, |status| {
        u32::try_from(status.restart_count).unwrap_or(0) + 1
    })
}

/// The pull policy, with Kubernetes' default.
pub fn pull_policy(template: &Template) -> String {
    if let Some(policy) = &template.image_pull_policy {
        return policy.clone();
    }
    default_pull_policy(template.image.as_deref().unwrap_or_default()).to_owned()
}

/// The pull policy of an image for which none is said.
pub fn default_pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or(image);
    let latest = !last.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
    if latest { "Always" } else { "IfNotPresent" }
}

/// Of the parts of a container that may change while its pod lives.
pub fn spec_hash(template: &Template) -> String {
    let image = template.image.as_deref().unwrap_or_default();
    hex::encode(Sha256::digest(image))[..16].to_owned()
}
