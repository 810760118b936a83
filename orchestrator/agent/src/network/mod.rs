//! What the node's network is told: the feed of Services and endpoints, addresses and links of pods, draining,
//! health checks, drops, the log.

pub mod drain;
pub mod drops;
pub mod feed;
pub mod health_checks;
pub mod ipam;
pub mod local_socket;
pub mod log;
pub mod loopback;
pub mod pod_net;
pub mod wiring;
