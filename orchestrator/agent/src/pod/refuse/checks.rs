//! Values of fields that this node honours only in part. Pure.

use std::net::IpAddr;

use api::pod_resources::HUGE_PAGES;
use serde_json::Value;

use super::UNSUPPORTED;
use super::Walk;

/// What a check found at a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Fine,
    /// The pod runs without it.
    Unmet(String),
    Refused {
        reason: &'static str,
        why: String,
    },
}

/// Decides about the value of one field of the pod that is walked through.
pub type Check = fn(&Value, &Walk) -> Finding;

const NO_POD_CGROUPS: &str = "a pod's own cgroup is not supported: the cgroup driver of this node's Docker Engine is \
                              not cgroupfs";

/// The older way to ask for an AppArmor profile; a container's name follows.
pub const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// A kernel namespace that a sysctl belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

/// The sysctls that a kubelet of Kubernetes 1.33 sets without being told to allow them: they reach no
/// further than the pod's own namespaces.
const SAFE_SYSCTLS: [(&str, Namespace); 12] = [
    ("kernel.shm_rmid_forced", Namespace::Ipc),
    ("net.ipv4.ip_local_port_range", Namespace::Net),
    ("net.ipv4.ip_local_reserved_ports", Namespace::Net),
    ("net.ipv4.ip_unprivileged_port_start", Namespace::Net),
    ("net.ipv4.ping_group_range", Namespace::Net),
    ("net.ipv4.tcp_fin_timeout", Namespace::Net),
    ("net.ipv4.tcp_keepalive_intvl", Namespace::Net),
    ("net.ipv4.tcp_keepalive_probes", Namespace::Net),
    ("net.ipv4.tcp_keepalive_time", Namespace::Net),
    ("net.ipv4.tcp_rmem", Namespace::Net),
    ("net.ipv4.tcp_syncookies", Namespace::Net),
    ("net.ipv4.tcp_wmem", Namespace::Net),
];

pub fn sysctl(name: &Value, walk: &Walk) -> Finding {
    let name = text(name);
    // Both separators are in use; the kernel's own is the slash.
    let dotted = name.replace('/', ".");
    let safe = SAFE_SYSCTLS.iter().find(|(safe, _)| *safe == dotted);
    let allowed = walk.node.unsafe_sysctls.iter().any(|allowed| {
        let allowed = allowed.replace('/', ".");
        match allowed.strip_suffix('*') {
            Some(beginning) => dotted.starts_with(beginning),
            None => dotted == allowed,
        }
    });
    let namespace = safe.map(|(_, namespace)| *namespace);
    let namespace = namespace.or_else(|| namespace_of(&dotted).filter(|_| allowed));
    let why = match namespace {
        None => format!("forbidden sysctl: {name:?} not allowlisted"),
        Some(Namespace::Net) if walk.host_network => {
            format!("forbidden sysctl: {name:?} not allowed with host net enabled")
        }
        Some(Namespace::Ipc) if walk.host_ipc => {
            format!("forbidden sysctl: {name:?} not allowed with host ipc enabled")
        }
        Some(_) => return Finding::Fine,
    };
    Finding::Refused {
        reason: "SysctlForbidden",
        why,
    }
}

/// The namespace of a sysctl that has one: others are the whole node's, and no pod's to set.
fn namespace_of(dotted: &str) -> Option<Namespace> {
    let rows = [
        ("kernel.sem", Namespace::Ipc),
        ("kernel.shm", Namespace::Ipc),
        ("kernel.msg", Namespace::Ipc),
        ("fs.mqueue.", Namespace::Ipc),
        ("net.", Namespace::Net),
    ];
    let found = rows.iter().find(|(prefix, _)| dotted.starts_with(prefix));
    found.map(|(_, namespace)| *namespace)
}

/// `type` of an AppArmor profile.
pub fn app_armor(kind: &Value, walk: &Walk) -> Finding {
    match text(kind) {
        "Unconfined" => Finding::Fine,
        "RuntimeDefault" | "Localhost" if walk.node.app_armor => Finding::Fine,
        kind if walk.node.app_armor => no_app_armor(format!("type {kind:?} is not supported")),
        _ => no_app_armor("AppArmor is not enabled on the host".to_owned()),
    }
}

pub fn app_armor_annotation(profile: &str, walk: &Walk) -> Finding {
    let kind = match profile {
        "unconfined" => "Unconfined",
        "" | "runtime/default" => "RuntimeDefault",
        _ => "Localhost",
    };
    app_armor(&kind.into(), walk)
}

fn no_app_armor(why: String) -> Finding {
    Finding::Refused {
        reason: "AppArmor",
        why: format!("Cannot enforce AppArmor: {why}"),
    }
}

/// `type` of a seccomp profile: the Engine's own one, one of the node's, or none.
pub fn seccomp(kind: &Value, _: &Walk) -> Finding {
    one_of(kind, &["RuntimeDefault", "Localhost", "Unconfined"])
}

/// Where the kernel enforces no labels, a pod that names some runs without, as under a kubelet: Kubernetes'
/// conformance tests name them on every node.
pub fn selinux(options: &Value, walk: &Walk) -> Finding {
    let says_none = options.as_object().is_none_or(|options| options.is_empty());
    match says_none || walk.node.selinux {
        true => Finding::Fine,
        false => Finding::Unmet("SELinux is not enabled on the host".to_owned()),
    }
}

pub fn proc_mount(kind: &Value, _: &Walk) -> Finding {
    one_of(kind, &["", "Default", "Unmasked"])
}

pub fn supplemental_groups_policy(policy: &Value, _: &Walk) -> Finding {
    one_of(policy, &["", "Merge", "Strict"])
}

pub fn os(name: &Value, _: &Walk) -> Finding {
    match text(name) {
        "linux" => Finding::Fine,
        _ => Finding::Refused {
            reason: "PodOSNotSupported",
            why: "Failed to admit pod as the OS field doesn't match node OS".to_owned(),
        },
    }
}

/// User namespaces are the Engine's as a whole: one that has none gives none to a pod.
pub fn host_users(host: &Value, walk: &Walk) -> Finding {
    match host {
        Value::Bool(false) if !walk.node.user_namespaces => unsupported(
            "false is not supported: the Docker Engine of this node does not remap users \
             (userns-remap)",
        ),
        _ => Finding::Fine,
    }
}

/// What a pod asks for as a whole is a cgroup around its containers.
pub fn whole(resources: &Value, walk: &Walk) -> Finding {
    let says = |list: &str| resources[list].as_object().is_some_and(|it| !it.is_empty());
    match (says("limits") || says("requests")) && !walk.node.pod_cgroups {
        true => unsupported(NO_POD_CGROUPS),
        false => Finding::Fine,
    }
}

pub fn dns_policy(policy: &Value, walk: &Walk) -> Finding {
    match text(policy) {
        "ClusterFirstWithHostNet" if !walk.node.cluster_dns => Finding::Unmet(
            "the cluster has no DNS server: the pod has the node's resolv.conf".to_owned(),
        ),
        _ => Finding::Fine,
    }
}

pub fn scheme(scheme: &Value, _: &Walk) -> Finding {
    one_of(scheme, &["", "HTTP", "HTTPS"])
}

/// The agent asks from the node, so what only the node itself may ask is not a pod's to name: its loopback,
/// unless the pod is in the same network, and its own links. To where other names lead is not looked at.
pub fn probe_host(host: &Value, walk: &Walk) -> Finding {
    let host = text(host);
    let is_own = match host.parse::<IpAddr>() {
        Ok(address) => match address.to_canonical() {
            address if address.is_loopback() => !walk.host_network,
            address if address.is_unspecified() || address.is_multicast() => true,
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        },
        Err(_) => !walk.host_network && (host == "localhost" || host.ends_with(".localhost")),
    };
    if is_own {
        unsupported(&format!(
            "{host} is not an address that a pod may have probed"
        ))
    } else {
        Finding::Fine
    }
}

pub fn recursive_read_only(mode: &Value, _: &Walk) -> Finding {
    one_of(mode, &["", "Disabled", "IfPossible"])
}

/// The API server says the same; a mount that others see is the node's business, too.
pub fn container(container: &Value, _: &Walk) -> Finding {
    let mut mounts = container["volumeMounts"].as_array().into_iter().flatten();
    let privileged = container["securityContext"]["privileged"] == true;
    if !privileged && mounts.any(|mount| mount["mountPropagation"] == "Bidirectional") {
        unsupported("Bidirectional mount propagation is available only to privileged containers")
    } else {
        Finding::Fine
    }
}

pub fn empty_dir_medium(medium: &Value, _: &Walk) -> Finding {
    one_of(medium, &["", "Memory"])
}

/// CPU and memory are the kernel's to enforce, `ephemeral-storage` the agent's (`node::pressure`), extended
/// resources the scheduler's to count. Huge pages need a controller of the kernel, and the pod's own cgroup.
pub fn resources(amounts: &Value, walk: &Walk) -> Finding {
    let mut names = amounts.as_object().into_iter().flatten();
    match names.find(|(name, _)| name.starts_with(HUGE_PAGES)) {
        Some((name, _)) if !walk.node.huge_pages => unsupported(&format!(
            "{name} is not supported: this node has no cgroup controller for huge pages"
        )),
        Some(_) if !walk.node.pod_cgroups => unsupported(NO_POD_CGROUPS),
        _ => Finding::Fine,
    }
}

/// Types of volumes that this agent does not make.
pub fn volume(_: &Value, _: &Walk) -> Finding {
    unsupported("volumes of this type are not supported")
}

/// Names that become paths and names of containers.
pub fn label(name: &Value, _: &Walk) -> Finding {
    if is_label(text(name)) {
        Finding::Fine
    } else {
        unsupported(&format!("{:?} is not a DNS label", text(name)))
    }
}

/// The name that the pod gives itself; without one it has the pod's.
pub fn hostname(name: &Value, walk: &Walk) -> Finding {
    if text(name).is_empty() {
        Finding::Fine
    } else {
        label(name, walk)
    }
}

/// A path below a volume.
pub fn inner_path(path: &Value, _: &Walk) -> Finding {
    let path = text(path);
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        unsupported(&format!("{path:?} leaves its volume"))
    } else {
        Finding::Fine
    }
}

/// A path of the node or of a container.
pub fn outer_path(path: &Value, _: &Walk) -> Finding {
    if text(path).split('/').any(|part| part == "..") {
        unsupported(&format!("{:?} must not contain '..'", text(path)))
    } else {
        Finding::Fine
    }
}

pub fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// A name of an object: Kubernetes limits it as a whole, and not its parts to 63 characters.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(fits) && text.ends_with(fits) && text.chars().all(|c| fits(c) || c == '-')
}

fn one_of(value: &Value, supported: &[&str]) -> Finding {
    if value.is_null() || supported.contains(&text(value)) {
        Finding::Fine
    } else {
        unsupported(&format!("{value} is not supported"))
    }
}

pub fn unsupported(why: &str) -> Finding {
    Finding::Refused {
        reason: UNSUPPORTED,
        why: why.to_owned(),
    }
}

/// The empty text where there is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
