//! Takes a node apart: its containers, links, and its pods' files with what is mounted among them. The
//! last act of a node, not part of its life: an agent that merely stops leaves all of it at work.

use std::io;
use std::path::PathBuf;

use crate::dns;
use crate::network::pod_net::PodLinks;
use crate::runtime::docker::{DockerRuntime, Owner};
use crate::start::AgentError;
use crate::volumes::PodDir;

/// Which node.
#[derive(Debug, Clone)]
pub struct ResetConfig {
    pub node_name: String,
    pub docker_host: String,
    pub data_dir: PathBuf,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    pub containers: usize,
    pub links: usize,
    /// Pods that had files on the node.
    pub pods: usize,
}

/// Removes what agents of this name have made, of whatever cluster; the node's key and certificate stay.
/// Run it in the node's network namespace; what is gone already is a success.
pub async fn run(config: &ResetConfig) -> Result<Removed, AgentError> {
    let owner = Owner {
        cluster: String::new(),
        node: config.node_name.clone(),
    };
    let runtime = DockerRuntime::connect(&config.docker_host, owner, PathBuf::new(), 0).await?;
    dns::hold::forget(&config.node_name);
    let containers = runtime.remove_all().await?;
    let links = PodLinks::new()?.remove_others(&[]).await?.len();
    // Containers hold mounts of their pods' files: these go last.
    let data_dir = config.data_dir.clone();
    let files = tokio::task::spawn_blocking(move || PodDir::remove_all(&data_dir)).await;
    let pods = files.map_err(io::Error::other).flatten();
    let pods = pods.map_err(|source| AgentError::Io {
        what: "remove the pods' files".to_owned(),
        source,
    })?;
    Ok(Removed {
        containers,
        links,
        pods,
    })
}
