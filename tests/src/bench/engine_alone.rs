//! What a burst of pods costs the Engine alone: as many sandboxes, each with a container in it, and nothing else.

use std::path::PathBuf;
use std::time::Instant;

use agent::runtime::container_spec::{self, Node};
use agent::runtime::docker::{DockerRuntime, Owner};
use agent::runtime::{ContainerSpec, Identity, Network, Role, Runtime as _, Security};
use anyhow::{Context, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::cluster::Cluster;

/// Milliseconds that `count` of them take, `at_once` at a time. They are gone afterwards.
///
/// # Errors
///
/// Those of the Engine; that no agent has run here yet, which makes the image of sandboxes.
pub async fn run(cluster: &Cluster, count: usize, at_once: usize) -> Result<f64> {
    let owner = Owner {
        cluster: "engine-alone".into(),
        node: "engine-alone".into(),
    };
    let runtime = DockerRuntime::connect(cluster.docker_host(), owner, PathBuf::new(), 0).await?;
    let images = cluster.docker(&["images", "--quiet", "--no-trunc", "orchestrator/pause"])?;
    let image = images.lines().next().context("no image of sandboxes")?;
    let started = Instant::now();
    let pods = (0..count).map(|number| start(&runtime, number, image));
    let pods = futures::stream::iter(pods).buffer_unordered(at_once);
    let outcome = pods.try_collect::<()>().await;
    let took = started.elapsed().as_secs_f64() * 1e3;
    runtime.remove_all().await?;
    outcome.map(|()| took)
}

async fn start(runtime: &DockerRuntime, number: usize, image: &str) -> Result<()> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": format!("p{number}"), "namespace": "n", "uid": format!("u{number}")},
        "spec": {"containers": [{"name": "nginx", "image": "nginx"}]},
    }))?;
    let identity = |role| Identity {
        role,
        name: "nginx".into(),
        attempt: 0,
        generation: 0,
        level: 0,
        spec_hash: String::new(),
        addrs: None,
    };
    let node = Node {
        name: "n".into(),
        netns: PathBuf::new(),
        domain: "cluster.local".into(),
        handler: None,
    };
    let sandbox = container_spec::sandbox(&pod, identity(Role::Sandbox), image.into(), node);
    let sandbox = sandbox.map_err(|error| anyhow::anyhow!("{error}"))?;
    let id = runtime.create(&sandbox).await?;
    runtime.start(&id).await?;
    let inside = ContainerSpec {
        identity: identity(Role::Main),
        image: "nginx".into(),
        hostname: None,
        network: Network::Sandbox(id.clone()),
        sandbox: Some(id),
        security: Security::default(),
        ..sandbox
    };
    let id = runtime.create(&inside).await?;
    Ok(runtime.start(&id).await?)
}
