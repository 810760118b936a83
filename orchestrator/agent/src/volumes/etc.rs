//! What every container of a pod sees as `/etc/hosts` and `/etc/resolv.conf`, as a kubelet writes them. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::pod::downward::Facts;
use crate::pod::shape;
use crate::runtime::container_spec;

/// What a pod's resolver is told besides the pod's own wishes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    /// The cluster's DNS, one address a family; none, if there is no such thing.
    pub servers: Vec<IpAddr>,
    /// Usually `cluster.local`.
    pub domain: String,
}

/// The node's own files.
#[derive(Debug, Clone, Default)]
pub struct NodeFiles {
    pub resolv_conf: String,
    pub hosts: String,
}

/// What a resolver takes of each (resolv.conf(5); Kubernetes 1.28 for the searches).
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// How `/etc/hosts` begins: people, and Kubernetes' own tests, know by these lines who has written it.
const HOSTS: &str = "# Kubernetes-managed hosts file.\n";
const HOSTS_OF_NODE: &str = "# Kubernetes-managed hosts file (host network).\n";
const ALIASES: &str = "\n# Entries added by HostAliases.\n";

/// A `/etc/hosts` with the pod itself, or what the node has, and the pod's aliases.
pub fn hosts(pod: &Pod, facts: &Facts, dns: &Dns, node: &NodeFiles) -> String {
    let mut text = if shape::host_network(pod) {
        format!("{HOSTS_OF_NODE}{}", node.hosts)
    } else {
        own_hosts(pod, facts, dns)
    };
    let spec = pod.spec.as_ref();
    let aliases = spec.and_then(|spec| spec.host_aliases.as_deref());
    let aliases = aliases.unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str(ALIASES);
    }
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

fn own_hosts(pod: &Pod, facts: &Facts, dns: &Dns) -> String {
    let mut text = format!(
        "{HOSTS}127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let name = container_spec::hostname(pod);
    let names = match full_name(pod, dns) {
        Some(full) => format!("{full}\t{name}"),
        None => name,
    };
    for address in facts.pod_ips.iter().flat_map(|addrs| addrs.iter()) {
        text.push_str(&format!("{address}\t{names}\n"));
    }
    text
}

/// The name of a pod with a subdomain, whether or not there is a Service for it.
fn full_name(pod: &Pod, dns: &Dns) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref();
    let subdomain = subdomain.filter(|subdomain| !subdomain.is_empty())?;
    let name = container_spec::hostname(pod);
    let (namespace, domain) = (namespace(pod), domain(dns));
    Some(format!("{name}.{subdomain}.{namespace}.svc.{domain}"))
}

/// A `/etc/resolv.conf` after the pod's DNS policy and configuration. Without a cluster DNS it begins with
/// the node's.
pub fn resolv_conf(pod: &Pod, facts: &Facts, dns: &Dns, node: &NodeFiles) -> String {
    let spec = pod.spec.as_ref();
    let policy = spec
        .and_then(|spec| spec.dns_policy.as_deref())
        .unwrap_or("ClusterFirst");
    let on_host = shape::host_network(pod);
    let servers = reachable(dns, facts, on_host);
    let of_cluster = match policy {
        "ClusterFirst" => !on_host,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut conf = match policy {
        "None" => Conf::default(),
        _ => Conf::parse(&node.resolv_conf),
    };
    if of_cluster && !servers.is_empty() {
        let (namespace, domain) = (namespace(pod), domain(dns));
        let own = [
            format!("{namespace}.svc.{domain}"),
            format!("svc.{domain}"),
            domain.to_owned(),
        ];
        conf = Conf {
            servers,
            searches: own.into_iter().chain(conf.searches).collect(),
            options: vec![("ndots".to_owned(), Some("5".to_owned()))],
        };
    }
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        conf.add(config);
    }
    conf.write()
}

/// The servers of the families that the pod has.
fn reachable(dns: &Dns, facts: &Facts, on_host: bool) -> Vec<String> {
    let fits = |server: &&IpAddr| match facts.pod_ips {
        Some(addrs) if !on_host => addrs.like(**server).is_some(),
        _ => true,
    };
    let servers = dns.servers.iter().filter(fits);
    servers.map(ToString::to_string).collect()
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

fn domain(dns: &Dns) -> &str {
    if dns.domain.is_empty() {
        "cluster.local"
    } else {
        &dns.domain
    }
}

/// The lines of a `resolv.conf`.
#[derive(Debug, Default)]
struct Conf {
    servers: Vec<String>,
    searches: Vec<String>,
    /// Names, and values if they have one.
    options: Vec<(String, Option<String>)>,
}

impl Conf {
    fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().map(str::to_owned)),
                // The last line of these counts.
                Some("search" | "domain") => {
                    conf.searches = words
                        .map(|word| match word.trim_end_matches('.') {
                            "" => ".".to_owned(),
                            word => word.to_owned(),
                        })
                        .collect();
                }
                Some("options") => conf.options.extend(words.map(option)),
                _ => {}
            }
        }
        conf
    }

    /// A pod's own servers and searches come after, its options instead.
    fn add(&mut self, config: &PodDNSConfig) {
        self.servers
            .extend(config.nameservers.iter().flatten().cloned());
        self.searches
            .extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            self.options.retain(|(held, _)| *held != name);
            self.options.push((name, option.value.clone()));
        }
    }

    fn write(&self) -> String {
        let mut text = String::new();
        let mut left = MAX_SEARCH_CHARS;
        let fits = |search: &&&str| {
            let rest = left.checked_sub(search.len() + 1);
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        let searches = once(&self.searches);
        let searches = searches.iter().take(MAX_SEARCHES);
        let searches: Vec<&str> = searches.take_while(fits).copied().collect();
        if !searches.is_empty() {
            text.push_str(&format!("search {}\n", searches.join(" ")));
        }
        for server in once(&self.servers).iter().take(MAX_SERVERS) {
            text.push_str(&format!("nameserver {server}\n"));
        }
        let options = self.options.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        });
        let options: Vec<String> = options.collect();
        if !options.is_empty() {
            text.push_str(&format!("options {}\n", options.join(" ")));
        }
        text
    }
}

fn option(word: &str) -> (String, Option<String>) {
    match word.split_once(':') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    }
}

/// Each once, at its first place.
fn once(words: &[String]) -> Vec<&str> {
    let mut kept: Vec<&str> = Vec::new();
    for word in words {
        if !kept.contains(&word.as_str()) {
            kept.push(word);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let pod = json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec});
        serde_json::from_value(pod).unwrap()
    }

    fn facts() -> Facts {
        Facts {
            node_name: "node-1".to_owned(),
            node_ips: "172.31.0.11".parse().unwrap(),
            pod_ips: Some("10.100.1.5".parse().unwrap()),
            node_cpus: 1,
            node_memory_bytes: 1,
        }
    }

    fn dns() -> Dns {
        Dns {
            servers: ["10.96.0.10", "fd00:96::a"]
                .map(|it| it.parse().unwrap())
                .into(),
            domain: "cluster.local".to_owned(),
        }
    }

    fn node() -> NodeFiles {
        NodeFiles {
            resolv_conf:
                "# the node's\nsearch example.org.\nnameserver 192.0.2.53\noptions edns0\n"
                    .to_owned(),
            hosts: "192.0.2.1\tprinter\n".to_owned(),
        }
    }

    fn conf(spec: Value) -> String {
        let mut spec = spec;
        spec["containers"] = json!([]);
        resolv_conf(&pod(spec), &facts(), &dns(), &node())
    }

    const CLUSTER: &str =
        "search shop.svc.cluster.local svc.cluster.local cluster.local example.org\n";

    #[test]
    fn each_policy_has_its_servers() {
        let of_cluster = format!("{CLUSTER}nameserver 10.96.0.10\noptions ndots:5\n");
        let of_node = "search example.org\nnameserver 192.0.2.53\noptions edns0\n";
        assert_eq!(conf(json!({})), of_cluster);
        assert_eq!(conf(json!({"dnsPolicy": "ClusterFirst"})), of_cluster);
        assert_eq!(conf(json!({"dnsPolicy": "Default"})), of_node);
        assert_eq!(
            conf(json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true})),
            of_node
        );
        let with_host = conf(json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}));
        let both = "nameserver 10.96.0.10\nnameserver fd00:96::a\noptions ndots:5\n";
        assert_eq!(with_host, format!("{CLUSTER}{both}"));
        let none = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"],
            "searches": ["resolv.conf.local"]}});
        assert_eq!(conf(none), "search resolv.conf.local\nnameserver 1.1.1.1\n");
    }

    #[test]
    fn a_pods_own_configuration_is_added_and_its_options_come_instead() {
        let config = json!({"nameservers": ["1.1.1.1", "10.96.0.10"], "searches": ["cluster.local",
            "more.example"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        let text = conf(json!({"dnsConfig": config}));
        let search = CLUSTER.trim_end();
        assert_eq!(
            text,
            format!(
                "{search} more.example\nnameserver 10.96.0.10\nnameserver 1.1.1.1\n\
                 options ndots:2 edns0\n"
            )
        );
    }

    #[test]
    fn what_no_resolver_reads_is_left_out() {
        let servers: Vec<String> = (1..6).map(|it| format!("192.0.2.{it}")).collect();
        let searches: Vec<String> = (0..40).map(|it| format!("s{it}.example")).collect();
        let config = json!({"nameservers": servers, "searches": searches});
        let text = conf(json!({"dnsPolicy": "None", "dnsConfig": config}));
        assert_eq!(text.matches("nameserver").count(), MAX_SERVERS);
        assert_eq!(text.matches(".example").count(), MAX_SEARCHES);
    }

    #[test]
    fn a_pod_with_a_subdomain_knows_its_whole_name_by_its_hosts() {
        let spec = json!({"containers": [], "hostname": "querier", "subdomain": "names",
            "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["a", "b"]}]});
        let text = hosts(&pod(spec), &facts(), &dns(), &node());
        assert!(text.starts_with(HOSTS), "{text}");
        let own = "10.100.1.5\tquerier.names.shop.svc.cluster.local\tquerier\n";
        assert!(text.contains(own), "{text}");
        assert!(text.ends_with(&format!("{own}{ALIASES}192.0.2.9\ta\tb\n")));
    }

    #[test]
    fn a_pod_in_the_nodes_network_has_the_nodes_hosts() {
        let spec = json!({"containers": [], "hostNetwork": true});
        let text = hosts(&pod(spec), &facts(), &dns(), &node());
        assert_eq!(text, format!("{HOSTS_OF_NODE}192.0.2.1\tprinter\n"));
    }
}
