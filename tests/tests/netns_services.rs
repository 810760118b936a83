//! What users do with Services, as Kubernetes' end-to-end tests do it: real sockets in namespaces.
//!
//! One test a line of `tests/scenarios.txt`; what needs the API server is in `e2e_services`.

#[path = "netns_services/affinity.rs"]
mod affinity;
#[path = "netns_services/cluster_ip.rs"]
mod cluster_ip;
#[path = "netns_services/dns.rs"]
mod dns;
#[path = "netns_services/external.rs"]
mod external;
#[path = "netns_services/node_port.rs"]
mod node_port;
#[path = "netns_services/pair.rs"]
mod pair;
#[path = "netns_services/pods.rs"]
mod pods;
#[path = "netns_services/policy.rs"]
mod policy;
#[path = "netns_services/refusal.rs"]
mod refusal;
#[path = "netns_services/restart.rs"]
mod restart;
#[path = "netns_services/udp.rs"]
mod udp;
