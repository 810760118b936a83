//! The engine's own cost, without API server: pods a second and microseconds a pod, in the workloads by
//! which Kubernetes measures its scheduler (test/integration/scheduler_perf).
//!
//! `cargo run --release -p scheduler --example engine [NODES]`

use std::io::{Write as _, stdout};
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler::engine::{Bound, Change, Engine, Order};
use scheduler::node::NodeRow;
use scheduler::pod::PodRow;
use serde_json::{Value, json};

/// One workload.
struct Case {
    name: &'static str,
    /// Pods that are there before.
    before: fn(usize) -> Vec<Value>,
    measured: fn(usize) -> Vec<Value>,
    zones: usize,
}

const CASES: [Case; 7] = [
    Case {
        name: "basic",
        before: |_| Vec::new(),
        measured: |nodes| pods("basic", 2 * nodes, |_| json!({})),
        zones: 3,
    },
    Case {
        name: "each pod of its own template",
        before: |_| Vec::new(),
        measured: |nodes| {
            pods(
                "own",
                nodes,
                |n| json!({"labels": {"app": format!("a{n}")}}),
            )
        },
        zones: 3,
    },
    Case {
        name: "pod affinity",
        before: |nodes| pods("near", nodes, |_| near()),
        measured: |nodes| pods("more", nodes, |_| near()),
        zones: 1,
    },
    Case {
        name: "anti-affinity, namespace selector",
        before: |nodes| pods("far", nodes * 4 / 10, |_| far()),
        measured: |nodes| pods("more", nodes * 4 / 10, |_| far()),
        zones: 3,
    },
    Case {
        name: "topology spread",
        before: |nodes| pods("plain", nodes, |_| json!({})),
        measured: |nodes| pods("spread", nodes, |_| spread()),
        zones: 3,
    },
    Case {
        name: "preemption",
        before: |nodes| pods("low", 4 * nodes, |_| json!({"cpu": "900m"})),
        measured: |nodes| {
            let high = json!({"cpu": "3", "spec": {"priority": 10}});
            pods("high", nodes, |_| high.clone())
        },
        zones: 3,
    },
    Case {
        name: "preemption with topology spread",
        before: |nodes| pods("low", 4 * nodes, |_| json!({"cpu": "900m"})),
        measured: |nodes| {
            let mut high = spread();
            high["cpu"] = json!("3");
            high["spec"]["priority"] = json!(10);
            pods("high", nodes / 10, |_| high.clone())
        },
        zones: 3,
    },
];

fn main() -> std::io::Result<()> {
    let nodes = std::env::args()
        .nth(1)
        .and_then(|it| it.parse().ok())
        .unwrap_or(5000);
    writeln!(
        stdout(),
        "{nodes} nodes\n{:36} {:>9} {:>9} {:>9} {:>9}",
        "",
        "pods/s",
        "p50 µs",
        "p99 µs",
        "max µs"
    )?;
    for case in &CASES {
        let mut costs = run(case, nodes);
        let total: f64 = costs.iter().sum();
        costs.sort_by(f64::total_cmp);
        let at = |share: f64| costs[((costs.len() - 1) as f64 * share) as usize] * 1e6;
        let rate = costs.len() as f64 / total;
        writeln!(
            stdout(),
            "{:36} {rate:>9.0} {:>9.1} {:>9.1} {:>9.1}",
            case.name,
            at(0.5),
            at(0.99),
            at(1.0)
        )?;
    }
    Ok(())
}

/// The seconds that each pod took: its arrival, all decisions for it, what its victims cost, and its return.
fn run(case: &Case, nodes: usize) -> Vec<f64> {
    let mut engine = Engine::default();
    let now = Timestamp::UNIX_EPOCH;
    engine.apply(
        Change::Nodes((0..nodes).map(|n| node(n, case.zones)).collect()),
        now,
    );
    let labels = [("team".to_owned(), "devops".to_owned())];
    engine.apply(
        Change::Namespaces(vec![("ns".to_owned(), labels.into())]),
        now,
    );
    engine.apply(
        Change::Pods {
            items: Vec::new(),
            revision: 1,
        },
        now,
    );
    let mut revision = 2;
    for value in (case.before)(nodes) {
        place(&mut engine, row(&value), &mut revision, now);
    }
    let measured = (case.measured)(nodes);
    let rows: Vec<PodRow> = measured.iter().map(row).collect();
    let costs = rows.into_iter().map(|row| {
        let start = Instant::now();
        place(&mut engine, row, &mut revision, now);
        start.elapsed().as_secs_f64()
    });
    costs.collect()
}

/// Lets the pod come, carries out all orders, and says what came of it as the watches would.
fn place(engine: &mut Engine, mut pod: PodRow, revision: &mut u64, mut now: Timestamp) {
    *revision += 1;
    pod.revision = *revision;
    engine.apply(Change::Pod(pod.clone()), now);
    loop {
        match engine.next(now) {
            None => match engine.next_deadline() {
                Some(at) => now = at,
                None => panic!("{:?} has no place", pod.key),
            },
            Some(Order::Bind { key, uid, node }) => {
                engine.bound(&key, &uid, Bound::Done, now);
                *revision += 1;
                let bound = PodRow {
                    revision: *revision,
                    node,
                    ..pod
                };
                return engine.apply(Change::Pod(bound), now);
            }
            Some(Order::Explain(told)) => {
                assert!(!told.victims.is_empty(), "{}", told.message);
                *revision += 1;
                pod.revision = *revision;
                pod.nominated = told.nominated.unwrap_or_default();
                engine.apply(Change::Pod(pod.clone()), now);
                for victim in told.victims {
                    engine.apply(Change::PodGone(victim.key), now);
                }
            }
            Some(other) => unreachable!("no claims and no extenders: {other:?}"),
        }
    }
}

fn node(number: usize, zones: usize) -> NodeRow {
    let name = format!("node-{number}");
    let value = json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": format!("zone-{}", number % zones),
        }},
        "status": {
            "allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    NodeRow::from(serde_json::from_value::<Node>(value).expect("a node"))
}

fn pods(prefix: &str, count: usize, more: impl Fn(usize) -> Value) -> Vec<Value> {
    let pod = |n: usize| {
        let more = more(n);
        let cpu = more["cpu"].as_str().unwrap_or("100m");
        let mut value = json!({
            "metadata": {
                "name": format!("{prefix}-{n}"), "namespace": "ns", "uid": format!("{prefix}-{n}"),
                "labels": more.get("labels").cloned().unwrap_or(json!({"app": prefix})),
            },
            "spec": {"containers": [{"name": "a", "image": "pause",
                "resources": {"requests": {"cpu": cpu, "memory": "500Mi"}}}]},
        });
        for (field, given) in more["spec"].as_object().into_iter().flatten() {
            value["spec"][field] = given.clone();
        }
        value
    };
    (0..count).map(pod).collect()
}

fn row(value: &Value) -> PodRow {
    PodRow::from(serde_json::from_value::<Pod>(value.clone()).expect("a pod"))
}

fn near() -> Value {
    let term = json!({"topologyKey": "topology.kubernetes.io/zone",
        "labelSelector": {"matchLabels": {"color": "blue"}}});
    json!({"labels": {"color": "blue"}, "spec": {"affinity": {"podAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}})
}

fn far() -> Value {
    let term = json!({"topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"color": "green"}},
        "namespaceSelector": {"matchLabels": {"team": "devops"}}});
    json!({"labels": {"color": "green"}, "spec": {"affinity": {"podAntiAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}})
}

fn spread() -> Value {
    let constraint = json!({"maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"color": "blue"}}});
    json!({"labels": {"color": "blue"}, "spec": {"topologySpreadConstraints": [constraint]}})
}
