//! From a container of a pod's spec to what the runtime makes of it. Pure: what has to be read
//! before comes in as [`Sources`], paths and facts.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, Container as Template, Pod, PodSecurityContext, SELinuxOptions,
    SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::api::sources::Sources;
use crate::network::pod_net::shaping::Bandwidth;
use crate::pod::downward::Facts;
use crate::pod::env;
use crate::pod::qos;
use crate::pod::quantity;
use crate::pod::shape;
use crate::pod::whole;
use crate::runtime::{
    ContainerSpec, Device, Identity, Mount, Network, PodRef, Propagation, Resources, Role, Seccomp,
    Security,
};
use crate::volumes::{Made, Origin, SubPath};

const CPU_PERIOD_US: i64 = 100_000;
const LEAST_QUOTA_US: i64 = 1000;
const LEAST_SHARES: i64 = 2;

/// One argument, or one variable with its name, and the NUL after it: `MAX_ARG_STRLEN` of the kernel, with
/// pages of 4 KiB (`include/uapi/linux/binfmts.h`).
const EXEC_STRING_LIMIT: usize = 128 * 1024;

/// The longest host name that the kernel takes (`__NEW_UTS_LEN`).
const HOSTNAME_LIMIT: usize = 64;

/// Sandboxes are the last that the kernel kills.
const SANDBOX_OOM_SCORE: i64 = -998;

/// The beginning of an AppArmor annotation that names a profile of the node.
const LOCALHOST: &str = "localhost/";

/// The user and the group of sandboxes, which own nothing.
const NOBODY: &str = "65534:65534";

/// Why a container cannot be made as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    pub reason: &'static str,
    pub message: String,
}

impl SpecError {
    /// Kubernetes' reason for everything that is wrong with references and security settings.
    pub fn config(message: impl Into<String>) -> SpecError {
        SpecError {
            reason: "CreateContainerConfigError",
            message: message.into(),
        }
    }
}

/// Everything but the pod that a container's spec follows from.
pub struct Surroundings<'a> {
    pub sources: &'a Sources,
    pub facts: &'a Facts,
    /// By volume name.
    pub volumes: &'a BTreeMap<String, Made>,
    /// Holds the places where parts of volumes are mounted.
    pub sub_paths: &'a Path,
    /// Holds the pod's own `/etc/hosts` and `/etc/resolv.conf`.
    pub etc: &'a Path,
    pub sandbox: &'a str,
    /// The container into which an ephemeral one looks, by its id.
    pub target: Option<&'a str>,
    /// The file to which the container may write its termination message.
    pub termination_message: &'a Path,
    /// The user that the image says.
    pub image_user: &'a str,
    /// The group of the user that the container runs as, by the image: read where it has no other, and no
    /// further groups of the image ([`group_asked`]).
    pub image_group: Option<u32>,
    /// The engine's runtime that the pod's class names.
    pub handler: Option<&'a str>,
}

/// The names of a pod.
pub fn pod_ref(pod: &Pod) -> PodRef {
    let owned = |text: &Option<String>| text.clone().unwrap_or_default();
    PodRef {
        namespace: owned(&pod.metadata.namespace),
        name: owned(&pod.metadata.name),
        uid: owned(&pod.metadata.uid),
    }
}

/// What a sandbox takes from its node.
#[derive(Debug, Clone, Default)]
pub struct Node {
    pub name: String,
    /// Where its network namespace lies.
    pub netns: PathBuf,
    /// The cluster's domain.
    pub domain: String,
    /// The engine's runtime that the pod's class names.
    pub handler: Option<String>,
}

/// The container that holds a pod's namespaces.
pub fn sandbox(
    pod: &Pod,
    identity: Identity,
    image: String,
    node: Node,
) -> Result<ContainerSpec, SpecError> {
    let spec = pod.spec.as_ref();
    let context = spec.and_then(|spec| spec.security_context.as_ref());
    let sysctls = context.and_then(|context| context.sysctls.as_ref());
    let sysctls = sysctls
        .into_iter()
        .flatten()
        .map(|it| (it.name.clone(), it.value.clone()));
    let host = shape::host_network(pod);
    let hostname = match host {
        true => node.name,
        false => own_name(pod, &node.domain)?,
    };
    Ok(ContainerSpec {
        pod: pod_ref(pod),
        identity,
        image,
        image_id: String::new(),
        command: None,
        args: None,
        env: Vec::new(),
        working_dir: None,
        hostname: Some(hostname),
        network: if host {
            Network::Node(node.netns)
        } else {
            Network::Fresh
        },
        sandbox: None,
        share_pids: false,
        processes_of: None,
        host_pids: spec.and_then(|spec| spec.host_pid).unwrap_or(false),
        host_ipc: spec.and_then(|spec| spec.host_ipc).unwrap_or(false),
        mounts: Vec::new(),
        devices: Vec::new(),
        resources: Resources {
            oom_score_adj: SANDBOX_OOM_SCORE,
            ..Default::default()
        },
        cgroup_parent: whole::cgroup(pod),
        own_users: own_users(pod),
        security: sandbox_security(host),
        sysctls: sysctls.collect(),
        handler: node.handler,
        stop_signal: None,
        stdin: false,
        stdin_once: false,
        tty: false,
    })
}

/// A sandbox has no rights. One of the node's network needs some to enter it, and gives them up then.
fn sandbox_security(host_network: bool) -> Security {
    let entering = ["SYS_ADMIN", "SETGID", "SETUID"].map(str::to_owned);
    Security {
        user: (!host_network).then(|| NOBODY.to_owned()),
        no_new_privileges: true,
        add_capabilities: entering.into_iter().filter(|_| host_network).collect(),
        drop_capabilities: vec!["ALL".to_owned()],
        ..Default::default()
    }
}

/// One container of a pod, and the parts of volumes that have to be mounted before it is made.
pub fn container(
    pod: &Pod,
    template: &Template,
    identity: Identity,
    around: &Surroundings,
) -> Result<(ContainerSpec, Vec<SubPath>), SpecError> {
    let env = env::environment(pod, template, around.sources, around.facts)?;
    let values: BTreeMap<String, String> = env.iter().cloned().collect();
    for (name, value) in &env {
        let what = format!("the environment variable {name:?}");
        executable(&what, &[name, value])?;
    }
    let expand = |words: &Option<Vec<String>>| {
        let words = words.as_ref().filter(|words| !words.is_empty())?;
        Some(
            words
                .iter()
                .map(|word| env::expand(word, &values))
                .collect::<Vec<_>>(),
        )
    };
    let (command, args) = (expand(&template.command), expand(&template.args));
    for (what, words) in [("command", &command), ("args", &args)] {
        for (index, word) in words.iter().flatten().enumerate() {
            executable(&format!("{what}[{index}]"), &[word])?;
        }
    }
    let spec = pod.spec.as_ref();
    let (mounts, sub_paths) = mounts(template, around, &values)?;
    let lifecycle = template.lifecycle.as_ref();
    let made = ContainerSpec {
        pod: pod_ref(pod),
        identity,
        image: template.image.clone().unwrap_or_default(),
        image_id: String::new(),
        command,
        args,
        env,
        working_dir: template.working_dir.clone().filter(|dir| !dir.is_empty()),
        hostname: None,
        network: Network::Sandbox(around.sandbox.to_owned()),
        sandbox: Some(around.sandbox.to_owned()),
        share_pids: spec
            .and_then(|spec| spec.share_process_namespace)
            .unwrap_or(false),
        processes_of: around.target.map(str::to_owned),
        host_pids: spec.and_then(|spec| spec.host_pid).unwrap_or(false),
        host_ipc: spec.and_then(|spec| spec.host_ipc).unwrap_or(false),
        mounts,
        devices: devices(template, around)?,
        resources: resources(pod, template, around.facts.node_memory_bytes),
        cgroup_parent: whole::cgroup(pod),
        own_users: own_users(pod),
        security: security(pod, template, around)?,
        sysctls: BTreeMap::new(),
        handler: around.handler.map(str::to_owned),
        stop_signal: lifecycle.and_then(|lifecycle| lifecycle.stop_signal.clone()),
        stdin: template.stdin.unwrap_or(false),
        stdin_once: template.stdin_once.unwrap_or(false),
        tty: template.tty.unwrap_or(false),
    };
    Ok((made, sub_paths))
}

/// Whether the kernel takes a text whole when it starts a process; `parts` are joined by one character.
/// Its texts end at a NUL: what follows would be lost in silence.
fn executable(what: &str, parts: &[&String]) -> Result<(), SpecError> {
    if parts.iter().any(|text| text.contains('\0')) {
        return Err(SpecError::config(format!("{what} contains a NUL")));
    }
    let length = parts.iter().map(|text| text.len() + 1).sum::<usize>();
    if length > EXEC_STRING_LIMIT {
        return Err(SpecError::config(format!(
            "{what} is {} bytes long: no process can be started with more than {}",
            length - 1,
            EXEC_STRING_LIMIT - 1
        )));
    }
    Ok(())
}

/// What `hostname` says in a pod with a network of its own: the whole name, where the pod asks for that and has
/// a subdomain.
fn own_name(pod: &Pod, domain: &str) -> Result<String, SpecError> {
    let short = hostname(pod);
    let spec = pod.spec.as_ref();
    let whole = spec.and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    let subdomain = spec.and_then(|spec| spec.subdomain.as_deref());
    let Some(subdomain) = subdomain.filter(|subdomain| whole && !subdomain.is_empty()) else {
        return Ok(short);
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let name = format!("{short}.{subdomain}.{namespace}.svc.{domain}");
    if name.len() <= HOSTNAME_LIMIT {
        return Ok(name);
    }
    Err(SpecError::config(format!(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long \
         ({HOSTNAME_LIMIT} characters is the max, {} characters requested)",
        name.len()
    )))
}

/// What `hostname` says in the pod; the kernel takes 63 characters.
pub fn hostname(pod: &Pod) -> String {
    let given = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let name = given
        .filter(|name| !name.is_empty())
        .or_else(|| pod.metadata.name.clone());
    let name = name.unwrap_or_default();
    name.chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

/// The identity of the next attempt of a container.
pub fn identity(
    template: &Template,
    role: Role,
    attempt: u32,
    generation: u32,
    level: u32,
) -> Identity {
    Identity {
        role,
        name: template.name.clone(),
        attempt,
        generation,
        level,
        spec_hash: shape::spec_hash(template),
        addrs: None,
    }
}

/// The volumes that are devices of the container. What they are was looked at when they were made.
fn devices(template: &Template, around: &Surroundings) -> Result<Vec<Device>, SpecError> {
    let wanted = template.volume_devices.iter().flatten();
    let devices = wanted.map(|wanted| {
        let volume = around.volumes.get(&wanted.name);
        let volume = volume.filter(|volume| volume.origin == Origin::Device);
        let volume = volume.ok_or_else(|| {
            let name = &wanted.name;
            SpecError::config(format!(
                "volume {name:?} of a device is no device of the pod"
            ))
        })?;
        Ok(Device {
            source: volume.path.clone(),
            target: in_container(&wanted.device_path),
            read_only: volume.read_only,
        })
    });
    devices.collect()
}

fn mounts(
    template: &Template,
    around: &Surroundings,
    values: &BTreeMap<String, String>,
) -> Result<(Vec<Mount>, Vec<SubPath>), SpecError> {
    let (mut mounts, mut sub_paths) = (Vec::new(), Vec::new());
    for wanted in template.volume_mounts.iter().flatten() {
        let volume = around.volumes.get(&wanted.name).ok_or_else(|| {
            SpecError::config(format!(
                "volume {:?} of a mount is not in the pod",
                wanted.name
            ))
        })?;
        let sub_path = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(path)) if !path.is_empty() => Some(env::expand(path, values)),
            _ => None,
        };
        // What the agent writes is for the agent alone to change, and nothing is mounted there.
        let written = volume.origin == Origin::Written;
        let propagation = match wanted.mount_propagation.as_deref().filter(|_| !written) {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::Private,
        };
        let source = match sub_path {
            None => volume.path.clone(),
            Some(path) => {
                let place = around.sub_paths.join(sub_paths.len().to_string());
                sub_paths.push(SubPath {
                    volume: volume.clone(),
                    path: inside(&path)?.to_owned(),
                    place: place.clone(),
                    propagation,
                });
                place
            }
        };
        let read_only = written || volume.read_only || wanted.read_only.unwrap_or(false);
        let target = in_container(&wanted.mount_path);
        mounts.push(Mount {
            source,
            target,
            read_only,
            propagation,
            joined: false,
        });
    }
    let etc = ["hosts", "resolv.conf"];
    let etc = etc.map(|file| (around.etc.join(file), format!("/etc/{file}")));
    let message = (
        around.termination_message.to_owned(),
        message_path(template),
    );
    for (source, target) in etc.into_iter().chain([message]) {
        if mounts.iter().all(|mount| mount.target != target) {
            let propagation = Propagation::Private;
            mounts.push(Mount {
                source,
                target,
                read_only: false,
                propagation,
                joined: false,
            });
        }
    }
    Ok((mounts, sub_paths))
}

/// Where in a container its termination message is written.
pub fn message_path(template: &Template) -> String {
    let path = template
        .termination_message_path
        .as_deref()
        .filter(|path| !path.is_empty());
    in_container(path.unwrap_or("/dev/termination-log"))
}

/// A path that stays inside its volume as it is written; where links in it lead is looked at when the part
/// is opened (`volumes::sub_path`).
fn inside(path: &str) -> Result<&Path, SpecError> {
    let relative = Path::new(path);
    let stays = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if stays {
        Ok(relative)
    } else {
        Err(SpecError::config(format!(
            "subPath {path:?} leaves its volume"
        )))
    }
}

/// A path in a container as the Engine reads it: absolute, without empty steps, and with each `..` taken
/// together with the step before it, whatever that step is.
pub fn in_container(path: &str) -> String {
    let mut steps = Vec::new();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    format!("/{}", steps.join("/"))
}

fn resources(pod: &Pod, template: &Template, node_memory_bytes: i64) -> Resources {
    Resources {
        oom_score_adj: qos::oom_score_adj(pod, template, node_memory_bytes),
        ..limits(pod, template)
    }
}

/// What a container may use and what it weighs, but for its OOM score. Without a limit of its own it has that of
/// its pod (KEP-2837).
pub fn limits(pod: &Pod, template: &Template) -> Resources {
    let own = template.resources.clone().unwrap_or_default();
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let whole = whole.and_then(|whole| whole.limits.clone());
    let mut limits = whole.unwrap_or_default();
    limits.extend(own.limits.unwrap_or_default());
    amounts(&own.requests.unwrap_or_default(), &limits)
}

/// What the kernel is told of these requests and limits.
pub fn amounts(
    requests: &BTreeMap<String, Quantity>,
    limits: &BTreeMap<String, Quantity>,
) -> Resources {
    let limit = |name| limits.get(name).and_then(quantity::milli);
    let request = |name| {
        { requests.get(name) }
            .and_then(quantity::milli)
            .or(limit(name))
    };
    let small = |value: i128| i64::try_from(value).unwrap_or(i64::MAX);
    let quota = limit("cpu").map(|milli| small(milli * i128::from(CPU_PERIOD_US) / 1000));
    Resources {
        memory_bytes: limit("memory").map_or(0, |milli| small(milli / 1000)),
        cpu_shares: request("cpu").map_or(LEAST_SHARES, |milli| {
            small(milli * 1024 / 1000).max(LEAST_SHARES)
        }),
        cpu_quota_us: quota.map_or(0, |quota| quota.max(LEAST_QUOTA_US)),
        cpu_period_us: quota.map_or(0, |_| CPU_PERIOD_US),
        oom_score_adj: 0,
    }
}

fn own_users(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_users) == Some(false)
}

fn security(pod: &Pod, template: &Template, around: &Surroundings) -> Result<Security, SpecError> {
    let image_user = around.image_user;
    let none = (PodSecurityContext::default(), SecurityContext::default());
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref());
    let of_pod = of_pod.unwrap_or(&none.0);
    let own = template.security_context.as_ref().unwrap_or(&none.1);
    let user = own.run_as_user.or(of_pod.run_as_user);
    let group = own.run_as_group.or(of_pod.run_as_group);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        must_not_be_root(user, image_user)?;
    }
    let user = match (user, group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => Some(format!("{}:{group}", user_of(image_user))),
        (None, None) => None,
    };
    let user = match (group_asked(pod, template, image_user), around.image_group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        _ => user,
    };
    let mut dropped = capabilities_of(own, |all| all.drop);
    if Bandwidth::of(pod).is_ok_and(|it| it.egress.is_some()) {
        // A packet socket passes the pod's queue (PACKET_QDISC_BYPASS).
        dropped.push("NET_RAW".to_owned());
    }
    let groups = of_pod
        .supplemental_groups
        .iter()
        .flatten()
        .chain(of_pod.fs_group.as_ref());
    let seccomp = own
        .seccomp_profile
        .as_ref()
        .or(of_pod.seccomp_profile.as_ref());
    Ok(Security {
        user,
        groups: groups.map(i64::to_string).collect(),
        privileged: own.privileged.unwrap_or(false),
        add_capabilities: capabilities_of(own, |all| all.add),
        drop_capabilities: dropped,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        seccomp: match seccomp.map(|profile| (profile.type_.as_str(), profile)) {
            Some(("Unconfined", _)) => Seccomp::Unconfined,
            Some(("Localhost", profile)) => {
                let path = profile.localhost_profile.as_deref().unwrap_or_default();
                Seccomp::File(path.into())
            }
            _ => Seccomp::RuntimeDefault,
        },
        app_armor: app_armor(pod, template),
        selinux: selinux(
            own.se_linux_options
                .as_ref()
                .or(of_pod.se_linux_options.as_ref()),
        ),
        unmasked: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

/// The names of added or dropped capabilities, without the prefix that Kubernetes lets them have.
fn capabilities_of(
    context: &SecurityContext,
    list: fn(Capabilities) -> Option<Vec<String>>,
) -> Vec<String> {
    let bare = |name: String| name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name);
    let all = context.capabilities.clone().and_then(list);
    all.unwrap_or_default().into_iter().map(bare).collect()
}

/// Whose group has to be read in the image, since the Engine is to be told it: with a group it gives a process no
/// further groups of the image (`supplementalGroupsPolicy: Strict`).
pub fn group_asked(pod: &Pod, template: &Template, image_user: &str) -> Option<String> {
    let of_pod = pod.spec.as_ref()?.security_context.as_ref()?;
    let own = template.security_context.as_ref();
    let group = own.and_then(|own| own.run_as_group).or(of_pod.run_as_group);
    if of_pod.supplemental_groups_policy.as_deref() != Some("Strict") || group.is_some() {
        return None;
    }
    match own.and_then(|own| own.run_as_user).or(of_pod.run_as_user) {
        Some(user) => Some(user.to_string()),
        None if image_user.contains(':') => None,
        None => Some(user_of(image_user).to_owned()),
    }
}

/// The group of a user, by an image's `/etc/passwd` (passwd(5)); of one that is not there it is root's, as for
/// the Engine.
pub fn group_of(user: &str, passwd: &str) -> u32 {
    let groups = passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_meant = fields.first() == Some(&user) || fields.get(2) == Some(&user);
        fields.get(3).filter(|_| is_meant)?.parse().ok()
    });
    { groups }.next().unwrap_or(0)
}

/// The user of an image without its group: root, where it says none.
fn user_of(image_user: &str) -> &str {
    let name = image_user.split(':').next();
    name.filter(|name| !name.is_empty()).unwrap_or("0")
}

fn selinux(options: Option<&SELinuxOptions>) -> Vec<(&'static str, String)> {
    let Some(options) = options else {
        return Vec::new();
    };
    let labels = [
        ("user", &options.user),
        ("role", &options.role),
        ("type", &options.type_),
        ("level", &options.level),
    ];
    let labels = labels.into_iter();
    let said = labels.filter_map(|(name, value)| Some((name, value.clone()?)));
    said.filter(|(_, value)| !value.is_empty()).collect()
}

/// The AppArmor profile in the Engine's words; the annotation is the older way to ask for one.
fn app_armor(pod: &Pod, template: &Template) -> Option<String> {
    let own = template.security_context.as_ref();
    let own = own.and_then(|context| context.app_armor_profile.as_ref());
    let spec = pod.spec.as_ref();
    let of_pod = spec.and_then(|spec| spec.security_context.as_ref());
    let of_pod = of_pod.and_then(|context| context.app_armor_profile.as_ref());
    let name = |profile: &AppArmorProfile| match profile.type_.as_str() {
        "Unconfined" => Some("unconfined".to_owned()),
        "Localhost" => profile.localhost_profile.clone(),
        _ => None,
    };
    if let Some(own) = own {
        return name(own);
    }
    let annotations = pod.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|all| all.get(&app_armor_annotation(&template.name)));
    match annotated.map(String::as_str) {
        Some("unconfined") => Some("unconfined".to_owned()),
        Some(profile) if profile.starts_with(LOCALHOST) => {
            Some(profile[LOCALHOST.len()..].to_owned())
        }
        _ => of_pod.and_then(name),
    }
}

fn app_armor_annotation(container: &str) -> String {
    format!("container.apparmor.security.beta.kubernetes.io/{container}")
}

fn must_not_be_root(user: Option<i64>, image_user: &str) -> Result<(), SpecError> {
    let image_user = image_user.split(':').next().unwrap_or_default();
    let problem = match (user, image_user.parse::<i64>()) {
        (Some(0), _) => "container's runAsUser breaks non-root policy",
        (Some(_), _) => return Ok(()),
        (None, Ok(0)) => "container has runAsNonRoot and image will run as root",
        (None, Ok(_)) => return Ok(()),
        (None, Err(_)) if image_user.is_empty() => {
            "container has runAsNonRoot and image will run as root"
        }
        (None, Err(_)) => {
            "container has runAsNonRoot and image has non-numeric user, cannot verify user is \
             non-root"
        }
    };
    Err(SpecError::config(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_user_is_the_images_and_else_roots() {
        let passwd = "root:x:0:0::/:/sh\n\nbroken\napp:x:1000:50:An app:/:/sh\n1000:x:7:8::/:\n";
        for (user, group) in [
            ("app", 50),
            ("1000", 50),
            ("0", 0),
            ("7", 8),
            ("12", 0),
            ("", 0),
        ] {
            assert_eq!(group_of(user, passwd), group, "{user}");
        }
        assert_eq!(
            group_of("app", "app:x:1:-1::"),
            0,
            "a group that does not read"
        );
    }
}
