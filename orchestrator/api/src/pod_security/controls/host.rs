//! What a pod would take of its node: namespaces, ports, kernel parameters, addresses in reach of the
//! node's probes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::containers::{self, Setters, Values, named, plural, quoted};
use super::{Pod, Violation};

pub fn namespaces(pod: Pod<'_>) -> Option<Violation> {
    let fields = ["hostNetwork", "hostPID", "hostIPC"];
    let shared = fields.iter().filter(|field| pod.spec[**field] == true);
    let shared: Vec<String> = shared.map(|field| format!("{field}=true")).collect();
    (!shared.is_empty()).then(|| Violation {
        reason: "host namespaces",
        detail: shared.join(", "),
    })
}

pub fn ports(pod: Pod<'_>) -> Option<Violation> {
    let names = containers::where_(pod.spec, |container| host_ports(container).next().is_some());
    if names.is_empty() {
        return None;
    }
    // They are told in the order of their texts.
    let all = containers::all(pod.spec).flat_map(host_ports);
    let all: BTreeSet<String> = all.map(|port| port.to_string()).collect();
    let word = plural("hostPort", all.len());
    let all: Vec<String> = all.into_iter().collect();
    Some(Violation {
        reason: "hostPort",
        detail: format!(
            "{} {} {word} {}",
            named(&names),
            uses(&names),
            all.join(", ")
        ),
    })
}

fn host_ports(container: &Value) -> impl Iterator<Item = i64> {
    let ports = container["ports"].as_array().into_iter().flatten();
    let ports = ports.filter_map(|port| port["hostPort"].as_i64());
    ports.filter(|port| *port != 0)
}

fn uses(names: &[&str]) -> &'static str {
    if names.len() == 1 { "uses" } else { "use" }
}

/// A node would send requests there for the pod.
pub fn probes_and_hooks(pod: Pod<'_>) -> Option<Violation> {
    let names = containers::where_(pod.spec, |container| hosts(container).next().is_some());
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = Values::from_iter(names).into_iter().collect();
    let hosts: Values<'_> = containers::all(pod.spec).flat_map(hosts).collect();
    Some(Violation {
        reason: "probe or lifecycle host",
        detail: format!(
            "{} {} {} {}",
            named(&names),
            uses(&names),
            plural("probe or lifecycle host", hosts.len()),
            quoted(hosts),
        ),
    })
}

/// The hosts that probes and hooks of a container name.
fn hosts(container: &Value) -> impl Iterator<Item = &str> {
    let hook = &container["lifecycle"];
    let handlers = [
        &container["livenessProbe"],
        &container["readinessProbe"],
        &container["startupProbe"],
        &hook["postStart"],
        &hook["preStop"],
    ];
    let actions = handlers
        .into_iter()
        .flat_map(|handler| [&handler["httpGet"], &handler["tcpSocket"]]);
    let hosts = actions.filter_map(|action| action["host"].as_str());
    hosts.filter(|host| !host.is_empty())
}

/// The parameters that a pod has to itself, and the minor version since which each is known to be so.
const SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
    ("net.ipv4.tcp_slow_start_after_idle", 37),
    ("net.ipv4.tcp_notsent_lowat", 37),
];

pub fn sysctls(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    let is_safe = |name: &str| {
        let mut known = SYSCTLS.iter();
        known.any(|(safe, since)| *safe == name && *since <= minor)
    };
    let set = pod.spec["securityContext"]["sysctls"].as_array();
    let names = set.into_iter().flatten().map(containers::name);
    let forbidden: Vec<&str> = names.filter(|name| !is_safe(name)).collect();
    (!forbidden.is_empty()).then(|| Violation {
        reason: "forbidden sysctls",
        detail: forbidden.join(", "),
    })
}

pub fn windows_process(pod: Pod<'_>) -> Option<Violation> {
    let setters = Setters::of(pod.spec, "/windowsOptions/hostProcess", |value| {
        value == true
    });
    setters.violation(
        "hostProcess",
        "must not set securityContext.windowsOptions.hostProcess=true",
    )
}
