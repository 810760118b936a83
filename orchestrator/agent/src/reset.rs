//! Takes a node apart: its containers, links and datapath. The last word of a node, not part of its
//! life: an agent that merely stops leaves all of it at work.

use std::path::PathBuf;

use super::pod_net::PodLinks;
use super::runtime::docker::{DockerRuntime, Owner};
use super::start::AgentError;

/// Which node.
#[derive(Debug, Clone)]
pub struct ResetConfig {
    pub node_name: String,
    pub docker_host: String,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    pub containers: usize,
    pub links: usize,
}

/// Removes everything that agents of this name have made, of whatever cluster. Run it in the
/// node's network namespace; what is gone already is a success.
pub async fn run(config: &ResetConfig) -> Result<Removed, AgentError> {
    let owner = Owner {
        cluster: String::new(),
        node: config.node_name.clone(),
    };
    let runtime = DockerRuntime::connect(&config.docker_host, owner, PathBuf::new(), 0).await?;
    let containers = runtime.remove_all().await?;
    let links = PodLinks::new()?.remove_others(&[]).await?.len();
    Ok(Removed { containers, links })
}
