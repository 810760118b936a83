//! The scheduler's throughput over HTTP with an fsync before each answer: nodes without agents, pods that wait,
//! and a scheduler that is started on them. The workloads are those by which Kubernetes measures its scheduler
//! (test/integration/scheduler_perf).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::api_load::connection::{Ask, Target};
use crate::api_load::load;

/// One workload.
#[derive(Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    /// Pods a second that are wanted at 5,000 nodes.
    pub mark: f64,
    zones: usize,
    /// Pods on the nodes before, for each node, and what they are.
    before: (f64, fn(usize) -> Value),
    /// Pods that wait, for each node.
    measured: (f64, fn(usize) -> Value),
    /// The peer's version knows all that the pods ask for.
    pub of_peer: bool,
}

pub const WORKLOADS: [Workload; 5] = [
    Workload {
        name: "basic",
        mark: 3000.0,
        zones: 3,
        before: (0.0, plain),
        measured: (2.0, plain),
        of_peer: true,
    },
    Workload {
        name: "pod affinity",
        mark: 1000.0,
        zones: 1,
        before: (1.0, near),
        measured: (1.0, near),
        of_peer: true,
    },
    Workload {
        name: "anti-affinity, namespace selector",
        mark: 500.0,
        zones: 3,
        before: (0.4, far),
        measured: (0.4, far),
        of_peer: false,
    },
    Workload {
        name: "topology spread",
        mark: 2000.0,
        zones: 3,
        before: (1.0, plain),
        measured: (1.0, spread),
        of_peer: true,
    },
    Workload {
        name: "preemption",
        mark: 1000.0,
        zones: 3,
        before: (4.0, low),
        measured: (1.0, high),
        of_peer: true,
    },
];

/// What came of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub pods: usize,
    pub per_second: f64,
}

pub const NAMESPACE: &str = "bench";
/// Requests that are on their way at once while the cluster is made.
const IN_FLIGHT: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(400);
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A profile that no pod asks for: the server that has it places none.
pub fn write_idle_profile(directory: &Path) -> Result<String> {
    let file = directory.join("idle.json");
    let config = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "profiles": [{"schedulerName": "nobody"}],
    });
    std::fs::write(&file, config.to_string())?;
    Ok(file.display().to_string())
}

/// Makes the nodes, the pods that are on them, and those that wait.
pub async fn prepare(target: &Target, workload: Workload, nodes: usize) -> Result<usize> {
    let mut connection = target.connect().await?;
    let labels = json!({"name": NAMESPACE, "labels": {"team": "devops"}});
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": labels});
    connection
        .good(Ask::post("/api/v1/namespaces", body))
        .await?;
    let zones = workload.zones;
    load::drive_with(target, IN_FLIGHT, nodes, move |n| {
        Ask::post("/api/v1/nodes", node(n, zones))
    })
    .await
    .context("nodes")?;
    load::drive_with(target, IN_FLIGHT, nodes, |n| {
        Ask::patch(
            format!("/api/v1/nodes/{}/status", node_name(n)),
            STRATEGIC,
            status(),
        )
    })
    .await
    .context("what the nodes have")?;
    let (before, make) = workload.before;
    let count = (nodes as f64 * before) as usize;
    load::drive_with(target, IN_FLIGHT, count, move |n| {
        let mut pod = pod(&format!("before-{n}"), make(n));
        pod["spec"]["nodeName"] = json!(node_name(n % nodes));
        Ask::post(pods_path(), pod)
    })
    .await
    .context("pods that are there before")?;
    let (measured, make) = workload.measured;
    let count = (nodes as f64 * measured) as usize;
    load::drive_with(target, IN_FLIGHT, count, move |n| {
        Ask::post(pods_path(), pod(&format!("measured-{n}"), make(n)))
    })
    .await
    .context("pods that wait")?;
    Ok(count)
}

/// Waits until all pods that waited have a node; the rate is of those that had none in a first list, from the
/// moment when it was asked for to the last that is seen bound.
pub async fn watch(target: &Target, pods: usize) -> Result<Outcome> {
    let mut connection = target.connect().await?;
    let query = format!("{}?labelSelector=measured%3Dyes", pods_path());
    let began = Instant::now();
    let list: Value = serde_json::from_slice(&connection.good(Ask::get(&query)).await?)?;
    let listed = list["items"].as_array().into_iter().flatten();
    let already = listed.filter(|pod| is_bound(pod)).count();
    ensure!(
        already < pods,
        "all {pods} pods have a node before the watch"
    );
    let mut bound = already;
    let revision = list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    let ask = Ask::get(format!("{query}&watch=true&resourceVersion={revision}"));
    let answer = connection.open(ask).await?;
    ensure!(answer.status().is_success(), "watch: {}", answer.status());
    let mut body = answer.into_body();
    let mut rest = Vec::new();
    let deadline = Instant::now() + TIMEOUT;
    while bound < pods {
        let left = deadline.saturating_duration_since(Instant::now());
        let frame = tokio::time::timeout(left, body.frame()).await;
        let frame = frame.with_context(|| format!("{bound} of {pods} have a node"))?;
        let frame = frame.context("the watch has ended")??;
        rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            bound += usize::from(becomes_bound(&line));
        }
    }
    let seconds = began.elapsed().as_secs_f64().max(1e-6);
    Ok(Outcome {
        pods,
        per_second: (pods - already) as f64 / seconds,
    })
}

fn is_bound(pod: &Value) -> bool {
    pod["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty())
}

/// A pod's only change with a node is its binding: nothing runs it. The event is not parsed: that would cost more
/// than what is measured.
fn becomes_bound(line: &[u8]) -> bool {
    let has = |text: &[u8]| line.windows(text.len()).any(|window| window == text);
    has(b"\"nodeName\":\"")
}

fn pods_path() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods")
}

fn node_name(number: usize) -> String {
    format!("hollow-{number}")
}

fn node(number: usize, zones: usize) -> Value {
    let name = node_name(number);
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/zone": format!("zone-{}", number % zones),
    }}})
}

fn status() -> Value {
    let amounts = json!({"cpu": "4", "memory": "32Gi", "pods": "110"});
    json!({"status": {
        "capacity": amounts, "allocatable": amounts,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Hollow", "message": "",
            "lastHeartbeatTime": jiff::Timestamp::now(), "lastTransitionTime": jiff::Timestamp::now()}],
    }})
}

/// A pod that stays where its node is not heard of, and goes at once when it is deleted.
fn pod(name: &str, more: Value) -> Value {
    let cpu = more["cpu"].as_str().unwrap_or("100m");
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "a", "image": "pause",
                "resources": {"requests": {"cpu": cpu, "memory": "500Mi"}}}],
        },
    });
    if name.starts_with("measured") {
        pod["metadata"]["labels"]["measured"] = json!("yes");
    }
    for part in ["metadata", "spec"] {
        for (field, given) in more[part].as_object().into_iter().flatten() {
            match given.as_object() {
                Some(fields) if pod[part][field].is_object() => {
                    for (name, value) in fields {
                        pod[part][field][name] = value.clone();
                    }
                }
                _ => pod[part][field] = given.clone(),
            }
        }
    }
    pod
}

fn plain(_: usize) -> Value {
    json!({})
}

fn near(_: usize) -> Value {
    let term = json!({"topologyKey": "topology.kubernetes.io/zone",
        "labelSelector": {"matchLabels": {"color": "blue"}}});
    json!({"metadata": {"labels": {"color": "blue"}}, "spec": {"affinity": {"podAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}})
}

fn far(_: usize) -> Value {
    let term = json!({"topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"color": "green"}},
        "namespaceSelector": {"matchLabels": {"team": "devops"}}});
    json!({"metadata": {"labels": {"color": "green"}}, "spec": {"affinity": {"podAntiAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}})
}

fn spread(_: usize) -> Value {
    let constraint = json!({"maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"color": "blue"}}});
    json!({"metadata": {"labels": {"color": "blue"}},
        "spec": {"topologySpreadConstraints": [constraint]}})
}

fn low(_: usize) -> Value {
    json!({"cpu": "900m"})
}

fn high(_: usize) -> Value {
    json!({"cpu": "3", "spec": {"priorityClassName": "system-node-critical"}})
}
