//! One shell (gather, plan, execute) and one pure file a controller.
//!
//! All controllers share one world, fed by one watch a kind, and one queue. The engine holds them
//! and does no I/O; the shell does nothing else. One process runs controllers: the embedded store
//! has one server, and the lock on its data directory is the election.

pub mod action;
pub mod aggregation;
pub mod autoscaling;
pub mod config_rollout;
pub mod controller;
pub mod cron_job;
pub mod daemon_set;
mod definition;
pub mod deployment;
pub mod disruption;
pub mod engine;
mod execute;
mod failures;
#[cfg(test)]
mod fixture;
pub mod garbage;
pub mod job;
mod names;
pub mod namespace;
pub mod node_lifecycle;
pub mod numbers;
pub mod object;
pub mod pod_cidr;
pub mod pod_gc;
pub mod protection;
pub mod queue;
pub mod replication;
pub mod revisions;
pub mod root_ca;
mod selections;
pub mod service;
mod shelf;
mod shell;
pub mod stateful_set;
pub mod taint_eviction;
pub mod task;
pub mod ttl;
pub mod volumes;
pub mod world;

use tokio_util::sync::CancellationToken;

use numbers::Numbers;

/// What the controllers are told at start.
#[derive(Clone, Debug)]
pub struct ControllersConfig {
    /// What every node's shares are cut from, the primary family first.
    pub pod_ranges: Vec<pod_cidr::Range>,
    /// The addresses of Services of type LoadBalancer. None: somebody else gives them.
    pub load_balancer_pool: Vec<service::pool::Block>,
    /// The certificates (PEM) by which pods know the API server. Empty: they are told of none.
    pub root_ca: String,
    /// Finished pods beyond this number are removed, the oldest first; zero: none are.
    pub finished_pods_kept: usize,
}

/// Runs every controller until `shutdown`. `client_of` makes a client that asks under that name: of what
/// watches for all, and of each controller's own account.
pub async fn run(
    client_of: impl Fn(&str) -> kube::Client,
    config: ControllersConfig,
    numbers: Numbers,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    shell::run(client_of, config, numbers, shutdown).await;
    Ok(())
}
