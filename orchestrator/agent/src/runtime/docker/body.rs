//! What the requests to the Engine say: a [`ContainerSpec`] in the Engine's words, and the labels
//! by which a restarted agent recognises its containers.

use std::collections::HashMap;

use bollard::auth::DockerCredentials;
use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, DeviceMapping, HostConfig, HostConfigLogConfig,
    Mount as DockerMount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
};

use super::Owner;
use crate::runtime::credentials::Credentials;
use crate::runtime::{
    ContainerSpec, Device, Identity, Mount, Network, PodRef, Propagation, Resources, Role, Seccomp,
};

pub const CLUSTER: &str = "orchestrator.cluster";
pub const NODE: &str = "orchestrator.node";
pub const POD_NAMESPACE: &str = "orchestrator.pod.namespace";
pub const POD_NAME: &str = "orchestrator.pod.name";
pub const POD_UID: &str = "orchestrator.pod.uid";
pub const ROLE: &str = "orchestrator.role";
pub const CONTAINER: &str = "orchestrator.container";
pub const ATTEMPT: &str = "orchestrator.attempt";
pub const GENERATION: &str = "orchestrator.generation";
pub const LEVEL: &str = "orchestrator.level";
pub const SPEC: &str = "orchestrator.spec";
pub const ADDRESS: &str = "orchestrator.address";
/// The image's name in the pod: the Engine is given the id.
pub const IMAGE: &str = "orchestrator.image";
/// The role of containers that are never started: their root is looked at.
pub const ROOT: &str = "root";

/// What the node gives to one container, whatever its pod asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Where the Engine may not lower its own score, the start of a container with a lower one fails.
    pub lowest_oom_score: i64,
    /// Processes and threads; zero means no limit.
    pub pids: i64,
    /// The Engine gives containers users of their own, unless it is told not to.
    pub user_namespaces: bool,
}

/// Where a sandbox of the node's own network finds that namespace.
const NODE_NETNS: &str = "/run/node-netns";

/// The label filter that selects an owner's containers, or those of one pod.
pub fn owner_filter(owner: &Owner, uid: Option<&str>) -> Vec<String> {
    let mut labels = vec![format!("{NODE}={}", owner.node)];
    if !owner.cluster.is_empty() {
        labels.push(format!("{CLUSTER}={}", owner.cluster));
    }
    labels.extend(uid.map(|uid| format!("{POD_UID}={uid}")));
    labels
}

/// The container's name: one attempt of one container can exist once only.
pub fn container_name(pod: &PodRef, identity: &Identity) -> String {
    let name = if identity.role == Role::Sandbox {
        "POD"
    } else {
        &identity.name
    };
    format!(
        "orch_{name}_{}_{}_{}_{}",
        pod.name, pod.namespace, pod.uid, identity.attempt
    )
}

/// A reference that names one image: without a tag the Engine would fetch every tag there is.
pub fn pullable(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains(':') || last.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

/// What the Engine shows to a registry.
pub fn credentials(shown: &Credentials) -> DockerCredentials {
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    DockerCredentials {
        username: text(&shown.username),
        password: text(&shown.password),
        identitytoken: text(&shown.identity_token),
        serveraddress: text(&shown.registry),
        ..Default::default()
    }
}

/// The Engine's create request.
pub fn container(spec: &ContainerSpec, owner: &Owner, limits: Limits) -> ContainerCreateBody {
    let mut cmd = spec.args.clone();
    if let Network::Node(_) = spec.network {
        cmd.get_or_insert_default()
            .extend(["--netns".to_owned(), NODE_NETNS.to_owned()]);
    }
    ContainerCreateBody {
        // A name may lead to another image by now.
        image: Some(match spec.image_id.as_str() {
            "" => spec.image.clone(),
            id => id.to_owned(),
        }),
        hostname: spec.hostname.clone(),
        user: spec.security.user.clone(),
        env: Some(
            spec.env
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        ),
        entrypoint: spec.command.clone(),
        cmd,
        working_dir: spec.working_dir.clone(),
        labels: Some(labels(spec, owner)),
        stop_signal: spec.stop_signal.clone(),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin_once),
        tty: Some(spec.tty),
        host_config: Some(host_config(spec, limits)),
        ..Default::default()
    }
}

/// The create request for a root that is only looked at.
pub fn root(image: &str, owner: &Owner) -> ContainerCreateBody {
    let said = [(CLUSTER, &owner.cluster), (NODE, &owner.node)];
    let said = said.map(|(key, value)| (key, value.as_str()));
    let labels = said.into_iter().chain([(ROLE, ROOT), (POD_UID, "")]);
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    ContainerCreateBody {
        image: Some(image.to_owned()),
        // The Engine wants a command, of an image without one too.
        cmd: Some(vec!["/".to_owned()]),
        labels: Some(labels.map(owned).collect()),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Every label of ours is said, or the container would have what its image says.
fn labels(spec: &ContainerSpec, owner: &Owner) -> HashMap<String, String> {
    let identity = &spec.identity;
    let labels = HashMap::from([
        (CLUSTER, owner.cluster.clone()),
        (NODE, owner.node.clone()),
        (POD_NAMESPACE, spec.pod.namespace.clone()),
        (POD_NAME, spec.pod.name.clone()),
        (POD_UID, spec.pod.uid.clone()),
        (ROLE, role_text(identity.role).to_owned()),
        (CONTAINER, identity.name.clone()),
        (ATTEMPT, identity.attempt.to_string()),
        (GENERATION, identity.generation.to_string()),
        (LEVEL, identity.level.to_string()),
        (SPEC, identity.spec_hash.clone()),
        (IMAGE, spec.image.clone()),
        (
            ADDRESS,
            identity.addrs.map(|it| it.to_string()).unwrap_or_default(),
        ),
    ]);
    labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// The word of a role in its label.
pub fn role_text(role: Role) -> &'static str {
    match role {
        Role::Sandbox => "sandbox",
        Role::Init => "init",
        Role::Main => "main",
        Role::Ephemeral => "ephemeral",
    }
}

fn host_config(spec: &ContainerSpec, limits: Limits) -> HostConfig {
    let security = &spec.security;
    let mut mounts: Vec<DockerMount> = spec.mounts.iter().map(mount).collect();
    let network_mode = match &spec.network {
        Network::Fresh => "none".to_owned(),
        Network::Sandbox(id) => format!("container:{id}"),
        Network::Node(path) => {
            mounts.push(mount(&Mount {
                source: path.clone(),
                target: NODE_NETNS.to_owned(),
                read_only: true,
                propagation: Propagation::Private,
                joined: false,
            }));
            "none".to_owned()
        }
    };
    let joined = |wanted: bool| {
        spec.sandbox
            .as_ref()
            .filter(|_| wanted)
            .map(|id| format!("container:{id}"))
    };
    let ipc_mode = match (&spec.sandbox, spec.host_ipc) {
        (_, true) => Some("host".to_owned()),
        (Some(_), false) => joined(true),
        (None, false) => Some("shareable".to_owned()),
    };
    HostConfig {
        network_mode: Some(network_mode),
        ipc_mode,
        pid_mode: match &spec.processes_of {
            _ if spec.host_pids => Some("host".to_owned()),
            Some(target) if !spec.share_pids => Some(format!("container:{target}")),
            _ => joined(spec.share_pids),
        },
        mounts: Some(mounts),
        devices: (!spec.devices.is_empty()).then(|| spec.devices.iter().map(device).collect()),
        memory: positive(spec.resources.memory_bytes),
        // Swap would make a memory limit mean something else.
        memory_swap: positive(spec.resources.memory_bytes),
        cpu_shares: positive(spec.resources.cpu_shares),
        cpu_quota: positive(spec.resources.cpu_quota_us),
        cpu_period: positive(spec.resources.cpu_period_us),
        oom_score_adj: Some(spec.resources.oom_score_adj.max(limits.lowest_oom_score)),
        pids_limit: positive(limits.pids),
        cgroup_parent: spec.cgroup_parent.clone(),
        userns_mode: (limits.user_namespaces && !spec.own_users).then(|| "host".to_owned()),
        privileged: Some(security.privileged),
        cap_add: Some(security.add_capabilities.clone()),
        cap_drop: Some(security.drop_capabilities.clone()),
        readonly_rootfs: Some(security.read_only_root),
        group_add: Some(security.groups.clone()),
        security_opt: Some(security_options(spec)),
        sysctls: Some(spec.sysctls.clone().into_iter().collect()),
        runtime: spec.handler.clone(),
        // None: the Engine's own lists.
        masked_paths: security.unmasked.then(Vec::new),
        readonly_paths: security.unmasked.then(Vec::new),
        log_config: Some(log_config()),
        ..Default::default()
    }
}

/// A kubelet's permissions: the device can be made anew, and no other one.
fn device(device: &Device) -> DeviceMapping {
    let permissions = if device.read_only { "r" } else { "mrw" };
    DeviceMapping {
        path_on_host: Some(device.source.display().to_string()),
        path_in_container: Some(device.target.clone()),
        cgroup_permissions: Some(permissions.to_owned()),
    }
}

/// The Engine's request for other limits of a container that runs.
pub fn limits(resources: &Resources) -> ContainerUpdateBody {
    ContainerUpdateBody {
        memory: positive(resources.memory_bytes),
        memory_swap: positive(resources.memory_bytes),
        cpu_shares: positive(resources.cpu_shares),
        cpu_quota: positive(resources.cpu_quota_us),
        cpu_period: positive(resources.cpu_period_us),
        ..Default::default()
    }
}

fn positive(value: i64) -> Option<i64> {
    (value > 0).then_some(value)
}

fn security_options(spec: &ContainerSpec) -> Vec<String> {
    let mut options = Vec::new();
    if spec.security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &spec.security.seccomp {
        Seccomp::RuntimeDefault => {}
        // The Engine takes a profile, and no path: what was not read is refused there.
        Seccomp::File(path) => options.push(format!("seccomp={}", path.display())),
        Seccomp::Unconfined => options.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(text) => options.push(format!("seccomp={text}")),
    }
    if let Some(profile) = &spec.security.app_armor {
        options.push(format!("apparmor={profile}"));
    }
    for (name, value) in &spec.security.selinux {
        options.push(format!("label={name}:{value}"));
    }
    options
}

/// The one driver that the Engine can always read back; bounded, so that logs cannot fill a disk.
fn log_config() -> HostConfigLogConfig {
    let bounds = [("max-size", "10m"), ("max-file", "5")];
    let bounds = bounds.map(|(key, value)| (key.to_owned(), value.to_owned()));
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(bounds.into()),
    }
}

fn mount(mount: &Mount) -> DockerMount {
    let propagation = match mount.propagation {
        // The Engine's default, but for paths that hold its own root, such as `/`: those it mounts as slaves,
        // and refuses where private is asked for.
        Propagation::Private => None,
        Propagation::HostToContainer => Some(MountBindOptionsPropagationEnum::RSLAVE),
        Propagation::Bidirectional => Some(MountBindOptionsPropagationEnum::RSHARED),
    };
    DockerMount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.display().to_string()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions {
            propagation,
            // Engines since API 1.44 would make what is mounted inside read-only too.
            read_only_non_recursive: mount.joined.then_some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
