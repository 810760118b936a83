//! Rolling updates under load: a server that exits the moment it is asked to, and clients that make
//! a new connection for every request. Not one of them may notice.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{
    cluster::{Cluster, Kubectl, wait},
    http_load::Load,
};

/// So many rolling updates, unless ORCHESTRATOR_E2E_ROLLOUTS says another number.
const ROLLOUTS: usize = 5;

/// nginx ends at once on SIGTERM, with whatever connections it has.
const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
  strategy:
    rollingUpdate: { maxSurge: 1, maxUnavailable: 0 }
  selector:
    matchLabels: { app: nginx }
  template:
    metadata:
      labels: { app: nginx }
    spec:
      containers:
      - name: nginx
        image: nginx:1.7.9
        ports:
        - containerPort: 80
        readinessProbe:
          httpGet: { path: /, port: 80 }
          periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: { app: nginx }
  ports: [{ port: 80 }]
---
apiVersion: v1
kind: Pod
metadata:
  name: client
  labels: { app: client }
spec:
  containers: [{ name: client, image: tools }]
"#;

#[test]
fn rolling_updates_under_a_load_of_new_connections_fail_no_request() {
    let rollouts = std::env::var("ORCHESTRATOR_E2E_ROLLOUTS");
    let rollouts = rollouts.map_or(ROLLOUTS, |text| text.parse().expect("a number"));
    let cluster = Cluster::up("roll", 3).unwrap();
    let kubectl = cluster.client().unwrap();
    let file = cluster.dir().join("rollouts.yaml");
    std::fs::write(&file, DEPLOYMENT).unwrap();
    kubectl
        .args(&["apply", "-f", &file.to_string_lossy()])
        .unwrap();
    kubectl
        .run("rollout status deployment/web --timeout=80s")
        .unwrap();
    wait("the Service has three endpoints in each family", || {
        let slices = kubectl.json("get endpointslices -l kubernetes.io/service-name=web")?;
        let slices = slices["items"].as_array().cloned().unwrap_or_default();
        let counts = slices
            .iter()
            .map(|slice| slice["endpoints"].as_array().map(Vec::len));
        Ok(counts.eq([Some(3), Some(3)]).then_some(()))
    });
    wait("the client is Ready", || {
        Ok((kubectl.ready_pods("app=client")?.len() == 1).then_some(()))
    });

    let loads = loads(&cluster, &kubectl).unwrap();
    let mut took = Vec::new();
    for number in 1..=rollouts {
        took.push(roll(&kubectl, number));
    }
    let mut answered = 0;
    let mut failures = Vec::new();
    for (name, load) in loads {
        let outcome = load.stop();
        let came = outcome.answered();
        println!("{name}: {came} requests answered");
        if came <= rollouts * 20 {
            failures.push(format!("{name}: that was no load: {came}"));
        }
        answered += came;
        let failed = outcome.failures.into_iter();
        failures.extend(failed.map(|failure| format!("{name}: {failure}")));
    }
    let total: Duration = took.iter().sum();
    let worst = took.iter().max().unwrap();
    println!(
        "{rollouts} rolling updates of 3 pods in {total:.1?} (the longest {worst:.1?}): {answered} \
         requests answered, {} failed",
        failures.len()
    );
    assert_eq!(failures, Vec::<String>::new());
    measured(&cluster, &kubectl, rollouts);
    cluster.down().unwrap();
}

/// Whoever asks: the nodes and a pod at connect, a client outside packet by packet, in both families.
fn loads(cluster: &Cluster, kubectl: &Kubectl) -> Result<Vec<(String, Load)>> {
    let spec = kubectl.json("get service web")?["spec"].clone();
    let addresses: Vec<IpAddr> = serde_json::from_value(spec["clusterIPs"].clone())?;
    let [v4, v6] = addresses[..] else {
        anyhow::bail!("two families have two addresses: {spec}");
    };
    let port = spec["ports"][0]["nodePort"].as_u64().context("no port")?;
    let port = u16::try_from(port)?;
    let mut loads = Vec::new();
    for (node, to) in [("node-1", v4), ("node-2", v6), ("node-3", v4)] {
        let to = SocketAddr::new(to, 80);
        let load = Load::connections(to, cluster.enter(node));
        loads.push((format!("{node} to {to}"), load));
    }
    for to in [v4, v6] {
        let to = SocketAddr::new(to, 80);
        let load = Load::connections(to, cluster.enter_pod("client", "client")?);
        loads.push((format!("pod to {to}"), load));
    }
    for (number, v4) in [(1, true), (2, false)] {
        let to = SocketAddr::new(node_address(cluster, kubectl, number, v4)?, port);
        let load = Load::connections(to, cluster.enter("outside"));
        loads.push((format!("outside to {to}"), load));
    }
    Ok(loads)
}

fn node_address(cluster: &Cluster, kubectl: &Kubectl, number: u8, v4: bool) -> Result<IpAddr> {
    let node = kubectl.json(&format!("get node {}", cluster.node(number)))?;
    let addresses = node["status"]["addresses"].as_array();
    let named = |field: &Value| field["address"].as_str()?.parse::<IpAddr>().ok();
    let mut addresses = addresses.into_iter().flatten().filter_map(named);
    let found = addresses.find(|address| address.is_ipv4() == v4);
    found.context("no address of that family")
}

/// The nodes' own numbers tell the same.
fn measured(cluster: &Cluster, kubectl: &Kubectl, rollouts: usize) {
    let texts: Vec<String> = (1..=3)
        .map(|node| cluster.metrics(kubectl, node).unwrap())
        .collect();
    let sum = |name: &str| -> f64 {
        let lines = texts.iter().flat_map(|text| text.lines());
        let values = lines.filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        values.sum()
    };
    let stopped = sum("orchestrator_datapath_leave_seconds_count");
    let seconds = sum("orchestrator_datapath_leave_seconds_sum");
    let unconfirmed = sum("orchestrator_datapath_leave_unconfirmed_total");
    println!(
        "{stopped} pods left their Service in {:.3} s on average",
        seconds / stopped
    );
    assert_eq!(stopped, (3 * rollouts) as f64, "pods that left");
    assert_eq!(unconfirmed, 0.0, "pods that a node did not confirm");
    for text in &texts {
        assert!(text.contains("\norchestrator_datapath_flows "), "{text}");
        for line in [
            "orchestrator_datapath_packets_total{verdict=\"tunnel\"} ",
            "orchestrator_datapath_map_entries{map=\"services_v1\"} ",
            "orchestrator_datapath_program_verified_instructions{program=\"connect4\"} ",
            "orchestrator_datapath_sync_seconds_count ",
        ] {
            let found = text.lines().find_map(|it| it.strip_prefix(line));
            let value: f64 = found.and_then(|it| it.parse().ok()).unwrap_or_default();
            assert!(value > 0.0, "{line}is {value} in\n{text}");
        }
    }
}

/// Replaces every pod; returns when the last old one is gone.
fn roll(kubectl: &Kubectl, number: usize) -> Duration {
    let started = Instant::now();
    let annotations = format!(r#"{{"annotations":{{"round":"{number}"}}}}"#);
    let patch = format!(r#"{{"spec":{{"template":{{"metadata":{annotations}}}}}}}"#);
    kubectl
        .args(&["patch", "deployment", "web", "-p", &patch])
        .unwrap();
    kubectl
        .run("rollout status deployment/web --timeout=80s")
        .unwrap();
    wait("only the new pods are left", || {
        let pods = kubectl.json("get pods -l app=nginx")?;
        Ok((pods["items"].as_array().map(Vec::len) == Some(3)).then_some(()))
    });
    started.elapsed()
}
