//! The harness: packet builder, program runner, namespaces, oracle, simulation, dev cluster.

pub mod api_load;
pub mod bench;
pub mod capture;
pub mod checker;
pub mod clients;
pub mod cluster;
pub mod control_plane;
pub mod csi;
pub mod fuzz;
pub mod hollow;
pub mod hollow_nodes;
pub mod http_load;
pub mod kernel_log;
pub mod nemesis;
pub mod netns;
pub mod oracle;
pub mod packet;
pub mod peer;
pub mod prog;
pub mod scale;
pub mod scenarios;
pub mod scheduler_load;
pub mod sim;
pub mod strangers;
pub mod transcript;
