//! What every container of a pod sees as `/etc/hosts` and `/etc/resolv.conf`. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::pod::downward::Facts;
use crate::pod::shape;
use crate::runtime::container_spec;

/// What a pod's resolver is told besides the pod's own wishes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    pub server: Option<IpAddr>,
    pub domain: String,
}

/// How `/etc/hosts` begins: people, and Kubernetes' own tests, know by these lines who has written it.
const HOSTS: &str = "# Kubernetes-managed hosts file.\n";
const HOSTS_OF_NODE: &str = "# Kubernetes-managed hosts file (host network).\n";

/// A `/etc/hosts` with the pod itself and its aliases.
pub fn hosts(pod: &Pod, facts: &Facts) -> String {
    let head = match shape::host_network(pod) {
        true => HOSTS_OF_NODE,
        false => HOSTS,
    };
    let mut text = format!(
        "{head}127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let spec = pod.spec.as_ref();
    let addrs = if shape::host_network(pod) {
        Some(facts.node_ips)
    } else {
        facts.pod_ips
    };
    let name = container_spec::hostname(pod);
    for address in addrs.iter().flat_map(|addrs| addrs.iter()) {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    for alias in spec
        .and_then(|spec| spec.host_aliases.as_ref())
        .into_iter()
        .flatten()
    {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

/// A `/etc/resolv.conf` after the pod's DNS policy. Without a cluster DNS it is the node's.
pub fn resolv_conf(pod: &Pod, host: &str, dns: &Dns) -> String {
    let spec = pod.spec.as_ref();
    let policy = spec
        .and_then(|spec| spec.dns_policy.as_deref())
        .unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" if !shape::host_network(pod) => dns.server,
        "ClusterFirstWithHostNet" => dns.server,
        _ => None,
    };
    let mut text = match (policy, cluster) {
        ("None", _) => String::new(),
        (_, Some(server)) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            let domain = if dns.domain.is_empty() {
                "cluster.local"
            } else {
                &dns.domain
            };
            format!(
                "search {namespace}.svc.{domain} svc.{domain} {domain}\n\
                 nameserver {server}\noptions ndots:5\n"
            )
        }
        (_, None) => host.to_owned(),
    };
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        for server in config.nameservers.iter().flatten() {
            text.push_str(&format!("nameserver {server}\n"));
        }
        let searches = config.searches.as_deref().unwrap_or_default().join(" ");
        if !searches.is_empty() {
            text.push_str(&format!("search {searches}\n"));
        }
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            let value = option
                .value
                .as_ref()
                .map(|value| format!(":{value}"))
                .unwrap_or_default();
            text.push_str(&format!("options {name}{value}\n"));
        }
    }
    text
}
