//! A cluster of thousands of hollow nodes on one server with the embedded store: what it costs and how it answers.
//!
//! ```text
//!  bench ──┬─ server (a process of its own: its CPU and memory are what is judged)
//!          ├─ hollow nodes (a process of its own)
//!          └─ clients: fill, 1,000 mixed requests/s, what a node's watches bring
//! ```

pub mod fill;
pub mod load;
pub mod network;
pub mod nodes;
pub mod table;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::api_load::connection::{Ask, Target};
use crate::api_load::side::{Kind, Side};
use network::Network;
use nodes::NodesProcess;
use table::Figure;

/// How large the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub nodes: usize,
    pub pods: usize,
    pub services: usize,
    /// Of each Service.
    pub endpoints: usize,
}

/// What is measured with.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    pub idle: Duration,
    pub load: Duration,
}

pub const NAMESPACE: &str = "scale";
const MIB: f64 = 1024.0 * 1024.0;
/// Of the server, in MiB.
const MOST_MEMORY: f64 = 3.0 * 1024.0;
/// For each step that is waited for.
const STEP_TIMEOUT: Duration = Duration::from_secs(1800);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// In which the server's CPU is counted while it comes to rest.
const WINDOW: Duration = Duration::from_secs(5);
/// Pods that are made while the clock runs, at full size; a cluster of fewer pods gets as small a part of them.
const BURST: usize = 10_000;
/// Pods of the Deployment that is updated, likewise.
const ROLLED: usize = 5_000;
const FULL_PODS: usize = 150_000;
/// Nodes whose share of an update is read.
const SAMPLED_NODES: usize = 5;

/// Endpoints for which a node's range has addresses, and nodes for which the cluster's has ranges.
const NODE_ENDPOINTS: usize = 250;
const MOST_NODES: usize = 1 << 15;

impl Sizes {
    /// # Errors
    /// There are more nodes or endpoints than addresses.
    pub fn check(&self) -> Result<()> {
        let (endpoints, room) = (self.services * self.endpoints, self.nodes * NODE_ENDPOINTS);
        ensure!(
            endpoints <= room,
            "{endpoints} endpoints, and addresses for {room}"
        );
        ensure!(
            self.nodes <= MOST_NODES,
            "there are ranges for {MOST_NODES} nodes"
        );
        Ok(())
    }

    /// So many of what a cluster of the full size has.
    fn part(&self, of_full: usize) -> usize {
        (of_full * self.pods / FULL_PODS).max(10)
    }
}

/// Measures one size; the figures come in the order of the table.
pub async fn measure(sizes: Sizes, lengths: Lengths, directory: &Path) -> Result<Vec<Figure>> {
    sizes.check()?;
    let mut server = Side::new(Kind::Ours, &directory.join("server"), None)?;
    server.flags = [
        "--pod-cidr=10.0.0.0/9",
        "--service-cidr=10.128.0.0/12",
        // Pods that have ended are not of interest.
        "--log-level=error",
    ]
    .map(str::to_owned)
    .into();
    server.start().await?;
    let target = server.target()?;
    let mut found = Vec::new();
    say("the server is there");
    fill::namespace(&target).await?;
    fill::services(&target, sizes).await?;
    say("Services and their slices are made");
    let (mut nodes, joined) = join(sizes, &server, &target, &directory.join("nodes")).await?;
    found.extend(joined);
    found.extend(with_pods(sizes, &server, &target).await?);
    found.extend(idle(sizes, &server, lengths.idle).await?);
    found.extend(load::mixed(&target, lengths.load).await?);
    say("1,000 requests/s are done");
    found.push(burst(sizes, &target).await?);
    let before = server.cpu_seconds()?;
    let roll = roll(sizes, &target).await?;
    let cpu_ms = (server.cpu_seconds()? - before) * 1e3 / sizes.part(ROLLED) as f64;
    found.extend(roll);
    found.push(Figure::of(
        "server's CPU for a pod of the update",
        "ms",
        cpu_ms,
    ));
    let memory = server.memory_bytes()? as f64 / MIB;
    found.push(Figure::of("server's memory after all of it", "MiB", memory));
    found.push(restart(&mut server, &target, sizes.nodes).await?);
    let memory = server.memory_bytes()? as f64 / MIB;
    found.push(Figure::of("server's memory then", "MiB", memory).at_most(MOST_MEMORY));
    let of_nodes = nodes.memory_bytes()? as f64 / MIB / sizes.nodes as f64;
    found.push(Figure::of("a hollow node's memory", "MiB", of_nodes));
    nodes.check()?;
    Ok(found)
}

/// Starts the nodes and waits until all are Ready.
async fn join(
    sizes: Sizes,
    server: &Side,
    target: &Target,
    directory: &Path,
) -> Result<(NodesProcess, Vec<Figure>)> {
    let (memory, cpu, began) = (
        server.memory_bytes()?,
        server.cpu_seconds()?,
        Instant::now(),
    );
    let nodes = NodesProcess::start(sizes.nodes, server, directory)?;
    until("all nodes are Ready", || ready_nodes(target, sizes.nodes)).await?;
    let seconds = Figure::new("nodes joined and Ready", "s", began);
    say("all nodes are Ready");
    let of_node = |of_all: f64| of_all / sizes.nodes as f64;
    let cpu_ms = of_node(server.cpu_seconds()? - cpu) * 1e3;
    let more = server.memory_bytes()?.saturating_sub(memory);
    let kib = of_node(more as f64) / 1024.0;
    let found = vec![
        seconds,
        Figure::of("server's CPU for a node that joins", "ms", cpu_ms),
        Figure::of("server's memory for a node without pods", "KiB", kib),
    ];
    Ok((nodes, found))
}

/// Fills the nodes with pods that are bound already, and waits until all run.
async fn with_pods(sizes: Sizes, server: &Side, target: &Target) -> Result<Vec<Figure>> {
    let (began, cpu) = (Instant::now(), server.cpu_seconds()?);
    fill::pods(target, sizes).await?;
    until("all pods run", || running(target, "app=filled", sizes.pods)).await?;
    let cpu_ms = (server.cpu_seconds()? - cpu) * 1e3 / sizes.pods as f64;
    let memory = server.memory_bytes()? as f64 / MIB;
    say("the nodes are full");
    Ok(vec![
        Figure::new("all pods run", "s", began),
        Figure::of(
            "server's CPU from a pod's creation to Running",
            "ms",
            cpu_ms,
        ),
        Figure::of("server's memory with all of them", "MiB", memory).at_most(MOST_MEMORY),
    ])
}

/// Until what followed from all that was made is done: the server needs no less in one window than in the one before.
async fn settle(server: &Side) -> Result<()> {
    let mut last = f64::INFINITY;
    let deadline = Instant::now() + STEP_TIMEOUT;
    while Instant::now() < deadline {
        let before = server.cpu_seconds()?;
        tokio::time::sleep(WINDOW).await;
        let used = server.cpu_seconds()? - before;
        if used >= last * 0.9 {
            return Ok(());
        }
        last = used;
    }
    bail!("the server does not come to rest")
}

/// Nothing but heartbeats.
async fn idle(sizes: Sizes, server: &Side, length: Duration) -> Result<Vec<Figure>> {
    settle(server).await?;
    let before = server.cpu_seconds()?;
    tokio::time::sleep(length).await;
    let used = server.cpu_seconds()? - before;
    let percent = used / length.as_secs_f64() * 100.0;
    let beats = sizes.nodes as f64 * length.as_secs_f64() / 10.0;
    Ok(vec![
        Figure::of("idle: server's CPU, of one core", "%", percent).at_most(25.0),
        Figure::of("server's CPU for a heartbeat", "µs", used * 1e6 / beats),
    ])
}

/// Pods that the scheduler places: from the first creation until the last one runs.
async fn burst(sizes: Sizes, target: &Target) -> Result<Figure> {
    let (count, began) = (sizes.part(BURST), Instant::now());
    fill::burst(target, count).await?;
    until("the burst runs", || running(target, "app=burst", count)).await?;
    say("the burst runs");
    Ok(Figure::new("10,000 pods from created to Running", "s", began).at_most(15.0))
}

/// A Deployment behind a Service is updated; what that brings to a node is read by clients of its watches.
async fn roll(sizes: Sizes, target: &Target) -> Result<Vec<Figure>> {
    let count = sizes.part(ROLLED);
    fill::deployment(target, count).await?;
    until("the Deployment runs", || rolled_out(target, count, 1)).await?;
    let network = Network::follow(target, SAMPLED_NODES.min(sizes.nodes)).await?;
    let began = Instant::now();
    fill::update(target).await?;
    until("the update is done", || rolled_out(target, count, 2)).await?;
    let seconds = Figure::new("rolling update of 5,000 pods", "s", began);
    let bytes = network.end().await?;
    say("the update is done");
    let kib = |name, bytes: u64| Figure::of(name, "KiB", bytes as f64 / 1024.0);
    Ok(vec![
        seconds,
        kib(
            "what it sends a node of its own pods",
            bytes.pods / bytes.nodes,
        ),
        kib("what it sends a node of endpoints", bytes.slices),
    ])
}

/// The server ends and starts again: until every node's lease has been renewed.
async fn restart(server: &mut Side, target: &Target, count: usize) -> Result<Figure> {
    server.stop();
    let began = Instant::now();
    let since = jiff::Timestamp::now();
    server.start().await?;
    until("every node is back", || renewed(target, count, since)).await?;
    say("every node is back after the restart");
    Ok(Figure::new("all nodes back after a restart", "s", began).at_most(30.0))
}

fn say(what: &str) {
    eprintln!("{} {what}", jiff::Zoned::now().strftime("%H:%M:%S"));
}

/// Looks again until it is so.
async fn until<F: Future<Output = Result<bool>>>(what: &str, is: impl Fn() -> F) -> Result<()> {
    let looking = async {
        while !is().await? {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    let looked = tokio::time::timeout(STEP_TIMEOUT, looking).await;
    looked
        .with_context(|| format!("not in time: {what}"))?
        .with_context(|| what.to_owned())
}

async fn list(target: &Target, path: &str) -> Result<Vec<u8>> {
    let mut connection = target.connect().await?;
    Ok(connection.good(Ask::get(path)).await?.to_vec())
}

/// How often a text is in another one; lists of this size are not parsed.
fn count(body: &[u8], text: &str) -> usize {
    let text = text.as_bytes();
    body.windows(text.len())
        .filter(|window| *window == text)
        .count()
}

async fn ready_nodes(target: &Target, wanted: usize) -> Result<bool> {
    let body = list(target, "/api/v1/nodes?resourceVersion=0").await?;
    Ok(count(&body, "\"reason\":\"KubeletReady\"") >= wanted)
}

async fn running(target: &Target, label: &str, wanted: usize) -> Result<bool> {
    let label = label.replace('=', "%3D");
    let query = format!("fieldSelector=status.phase!%3DRunning&labelSelector={label}&limit=1");
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let others: serde_json::Value =
        serde_json::from_slice(&list(target, &format!("{path}?{query}")).await?)?;
    if others["items"]
        .as_array()
        .is_none_or(|items| !items.is_empty())
    {
        return Ok(false);
    }
    // The whole list once, at the end: none is missing.
    let body = list(
        target,
        &format!("{path}?resourceVersion=0&labelSelector={label}"),
    )
    .await?;
    Ok(count(&body, "\"phase\":\"Running\"") >= wanted)
}

async fn rolled_out(target: &Target, wanted: usize, generation: i64) -> Result<bool> {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/rolled");
    let object: serde_json::Value = serde_json::from_slice(&list(target, &path).await?)?;
    let status = &object["status"];
    let all = json!(wanted);
    let observed = status["observedGeneration"].as_i64().unwrap_or_default();
    Ok(observed >= generation
        && status["updatedReplicas"] == all
        && status["availableReplicas"] == all
        && status["replicas"] == all)
}

async fn renewed(target: &Target, wanted: usize, since: jiff::Timestamp) -> Result<bool> {
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases?resourceVersion=0";
    let Ok(body) = list(target, path).await else {
        return Ok(false);
    };
    let list: serde_json::Value = serde_json::from_slice(&body)?;
    let leases = list["items"].as_array().into_iter().flatten();
    let times = leases.filter_map(|lease| lease["spec"]["renewTime"].as_str());
    let new = times.filter(|time| time.parse().is_ok_and(|time: jiff::Timestamp| time > since));
    Ok(new.count() >= wanted)
}
