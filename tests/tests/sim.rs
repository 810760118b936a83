//! The control plane under chance: whatever goes wrong, it ends where its users wanted it.

#[path = "sim/workloads.rs"]
mod workloads;

use agent::network::drain::LIMIT;
use client::{Kind, PatchKind};
use controllers::object::Key;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tests::sim::Faults;
use tests::sim::check;
use tests::sim::cluster::{Cluster, NAMESPACE, must};
use tests::sim::rng::Rng;

#[path = "sim/autoscaling.rs"]
mod autoscaling;
#[path = "sim/batch.rs"]
mod batch;
#[path = "sim/lives.rs"]
mod lives;
#[path = "sim/scheduling.rs"]
mod scheduling;
#[path = "sim/volumes.rs"]
mod volumes;

const FAULTS: Faults = Faults {
    before: 100,
    after: 60,
};

fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{
            "name": "main",
            "image": image,
            "resources": {"requests": {"cpu": "100m"}},
        }]},
    })
}

fn deployment(name: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, "image:1"),
        },
    })
}

fn replication_controller(name: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"app": name},
            "template": template(name, "image:1"),
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

fn change(cluster: &mut Cluster, kind: Kind, name: &str, body: Value) {
    let key = Key::new(NAMESPACE, name);
    must(
        cluster
            .api
            .patch(kind, &key, "", PatchKind::Strategic, &body),
    );
}

/// What a user might do next.
fn interfere(cluster: &mut Cluster, rng: &mut Rng) {
    let replicas = rng.below(7);
    match rng.below(6) {
        0 => change(
            cluster,
            Kind::DEPLOYMENT,
            "web",
            json!({"spec": {"replicas": replicas}}),
        ),
        1 | 2 => {
            let image = format!("image:{}", rng.below(4));
            let container = json!({"name": "main", "image": image});
            let spec = json!({"template": {"spec": {"containers": [container]}}});
            change(cluster, Kind::DEPLOYMENT, "web", json!({"spec": spec}));
        }
        3 => {
            let body = json!({"spec": {"replicas": replicas}});
            change(cluster, Kind::REPLICATION_CONTROLLER, "old", body);
        }
        4 => {
            let paused = json!({"spec": {"paused": rng.chance(500)}});
            change(cluster, Kind::DEPLOYMENT, "web", paused);
        }
        _ => {
            let kind = *rng.pick(&["Recreate", "RollingUpdate"]).unwrap();
            let rolling = match kind {
                "Recreate" => Value::Null,
                _ => json!({"maxSurge": rng.below(3), "maxUnavailable": 1 + rng.below(2)}),
            };
            let strategy = json!({"type": kind, "rollingUpdate": rolling});
            change(
                cluster,
                Kind::DEPLOYMENT,
                "web",
                json!({"spec": {"strategy": strategy}}),
            );
        }
    }
}

#[test]
fn whatever_goes_wrong_the_cluster_ends_as_its_users_wanted() {
    for seed in seeds(20) {
        let mut cluster = Cluster::new(seed, 3);
        let mut user = Rng::new(seed ^ 0xfeed);
        must(cluster.api.create(Kind::DEPLOYMENT, deployment("web", 3)));
        must(cluster.api.create(
            Kind::REPLICATION_CONTROLLER,
            replication_controller("old", 2),
        ));
        must(cluster.api.create(Kind::SERVICE, service("web")));
        for _ in 0..6 {
            cluster.chaos(300, FAULTS);
            interfere(&mut cluster, &mut user);
        }
        change(
            &mut cluster,
            Kind::DEPLOYMENT,
            "web",
            json!({"spec": {"paused": false}}),
        );
        cluster.settle();
        let problems = check::problems(&cluster.api);
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
    }
}

/// What a user might do to Services next.
fn interfere_with_services(cluster: &mut Cluster, rng: &mut Rng) {
    let name = format!("lb-{}", rng.below(9));
    let balanced = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
    let known = cluster.api.get(Kind::SERVICE, NAMESPACE, &name).is_some();
    match rng.below(6) {
        _ if !known => {
            let metadata = json!({"name": name, "namespace": NAMESPACE});
            let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
                "spec": balanced});
            must(cluster.api.create(Kind::SERVICE, object));
        }
        0 => {
            let key = Key::new(NAMESPACE, &name);
            must(cluster.api.delete(Kind::SERVICE, &key, &json!({})));
        }
        1 | 2 => {
            let kind = *rng.pick(&["ClusterIP", "LoadBalancer"]).unwrap();
            let body = json!({"spec": {"type": kind}});
            change(cluster, Kind::SERVICE, &name, body);
        }
        3 => {
            let app = rng.pick(&[Value::Null, json!("web")]).unwrap().clone();
            let body = json!({"spec": {"selector": {"app": app}}});
            change(cluster, Kind::SERVICE, &name, body);
        }
        _ => {
            let addresses =
                (0..rng.below(4)).map(|number| json!({"ip": format!("10.1.0.{}", number + 1)}));
            let addresses: Vec<Value> = addresses.collect();
            let subsets = match addresses.len() {
                0 => Value::Null,
                _ => json!([{"addresses": addresses, "ports": [{"port": 80}]}]),
            };
            // Of a Service with a selector they are put right again.
            if cluster.api.get(Kind::ENDPOINTS, NAMESPACE, &name).is_some() {
                change(cluster, Kind::ENDPOINTS, &name, json!({"subsets": subsets}));
            } else {
                let metadata = json!({"name": name, "namespace": NAMESPACE});
                let object = json!({"apiVersion": "v1", "kind": "Endpoints",
                    "metadata": metadata, "subsets": subsets});
                must(cluster.api.create(Kind::ENDPOINTS, object));
            }
        }
    }
}

#[test]
fn services_end_with_the_addresses_and_endpoints_that_are_theirs() {
    for seed in seeds(20) {
        let mut cluster = Cluster::new(seed, 2);
        let mut user = Rng::new(seed ^ 0xbeef);
        must(cluster.api.create(Kind::DEPLOYMENT, deployment("web", 3)));
        for _ in 0..40 {
            interfere_with_services(&mut cluster, &mut user);
            cluster.chaos(40, FAULTS);
        }
        cluster.settle();
        let problems = check::problems(&cluster.api);
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
    }
}

#[test]
fn three_replicas_land_on_three_nodes() {
    for seed in seeds(20) {
        let mut cluster = Cluster::new(seed, 3);
        must(cluster.api.create(Kind::DEPLOYMENT, deployment("web", 3)));
        cluster.settle();
        let mut nodes: Vec<String> = cluster
            .api
            .list(Kind::POD)
            .into_iter()
            .map(|pod| pod["spec"]["nodeName"].to_string())
            .collect();
        nodes.sort();
        assert_eq!(
            nodes,
            ["\"node-1\"", "\"node-2\"", "\"node-3\""],
            "seed {seed}"
        );
    }
}

#[test]
fn stale_watches_never_make_too_many_pods() {
    // Seed 46 is one in which a lost answer made a pod too many before sets drew names.
    for seed in seeds(60) {
        let mut cluster = Cluster::new(seed, 3);
        must(cluster.api.create(
            Kind::REPLICATION_CONTROLLER,
            replication_controller("old", 5),
        ));
        for _ in 0..600 {
            // Writes may be refused, and answers to writes that were done may be lost.
            cluster.chaos(1, FAULTS);
            for set in check::sets(&cluster.api) {
                let pods = check::active_pods(&cluster.api, set);
                assert!(pods.len() <= 5, "seed {seed}: {} pods", pods.len());
            }
        }
        cluster.settle();
        assert_eq!(
            check::problems(&cluster.api),
            Vec::<String>::new(),
            "seed {seed}"
        );
    }
}

#[test]
fn a_deleted_deployment_leaves_nothing_or_what_was_to_stay() {
    for seed in seeds(8) {
        for policy in ["Background", "Foreground", "Orphan"] {
            let mut cluster = Cluster::new(seed, 2);
            must(cluster.api.create(Kind::DEPLOYMENT, deployment("web", 3)));
            cluster.chaos(400, FAULTS);
            let key = Key::new(NAMESPACE, "web");
            let options = json!({"propagationPolicy": policy});
            must(cluster.api.delete(Kind::DEPLOYMENT, &key, &options));
            cluster.chaos(200, FAULTS);
            cluster.settle();
            let problems = check::problems(&cluster.api);
            assert!(problems.is_empty(), "seed {seed}, {policy}: {problems:#?}");
            let left = cluster.api.list(Kind::POD).len();
            let gone = cluster
                .api
                .get(Kind::DEPLOYMENT, NAMESPACE, "web")
                .is_none();
            assert!(gone, "seed {seed}, {policy}");
            match policy {
                "Orphan" => {}
                _ => assert_eq!(left, 0, "seed {seed}, {policy}"),
            }
        }
    }
}

#[test]
fn a_namespace_goes_with_all_that_it_holds() {
    for seed in seeds(20) {
        let mut cluster = Cluster::new(seed, 2);
        must(cluster.api.create(Kind::DEPLOYMENT, deployment("web", 3)));
        must(cluster.api.create(Kind::SERVICE, service("web")));
        cluster.chaos(500, FAULTS);
        must(
            cluster
                .api
                .delete(Kind::NAMESPACE, &Key::new("", NAMESPACE), &json!({})),
        );
        cluster.chaos(200, FAULTS);
        cluster.settle();
        let left: Vec<_> = Kind::watched()
            .iter()
            .copied()
            .flat_map(|kind| cluster.api.keys(kind, NAMESPACE))
            .collect();
        assert!(left.is_empty(), "seed {seed}: {left:?}");
        assert!(
            cluster.api.get(Kind::NAMESPACE, "", NAMESPACE).is_none(),
            "seed {seed}"
        );
    }
}

#[test]
fn pods_of_a_silent_node_leave_service_at_once_and_the_node_in_time() {
    for seed in seeds(10) {
        let mut cluster = Cluster::new(seed, 3);
        must(cluster.api.create(Kind::DEPLOYMENT, deployment("web", 3)));
        must(cluster.api.create(Kind::SERVICE, service("web")));
        cluster.settle();
        cluster.set_alive("node-2", false);
        cluster.elapse(60);
        let node = cluster.api.get(Kind::NODE, "", "node-2").unwrap();
        assert_eq!(node["status"]["conditions"][0]["status"], "Unknown");
        let pods = cluster.api.list(Kind::POD);
        let lost: Vec<_> = pods
            .iter()
            .filter(|p| p["spec"]["nodeName"] == "node-2")
            .collect();
        assert!(
            !lost.is_empty() && lost.iter().all(|pod| !check::ready(pod)),
            "seed {seed}"
        );
        cluster.elapse(330);
        let pods = cluster.api.list(Kind::POD);
        let elsewhere = pods.iter().filter(|p| p["spec"]["nodeName"] != "node-2");
        assert_eq!(
            elsewhere.filter(|pod| check::ready(pod)).count(),
            3,
            "seed {seed}"
        );
        cluster.set_alive("node-2", true);
        cluster.elapse(60);
        cluster.settle();
        let node = cluster.api.get(Kind::NODE, "", "node-2").unwrap();
        assert!(
            node["spec"]["taints"].as_array().is_none_or(Vec::is_empty),
            "seed {seed}"
        );
        assert_eq!(
            check::problems(&cluster.api),
            Vec::<String>::new(),
            "seed {seed}"
        );
    }
}

/// A Service of three pods that are replaced one by one, none missing at any time.
fn rolling(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, 3);
    let mut web = deployment("web", 3);
    web["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    must(cluster.api.create(Kind::DEPLOYMENT, web));
    must(cluster.api.create(Kind::SERVICE, service("web")));
    cluster.settle();
    cluster
}

/// Replaces every pod; at every step every live node has somewhere to send connections to.
fn roll(cluster: &mut Cluster, round: usize) {
    let container = json!({"name": "main", "image": format!("image:{round}")});
    let spec = json!({"template": {"spec": {"containers": [container]}}});
    change(cluster, Kind::DEPLOYMENT, "web", json!({"spec": spec}));
    let before = cluster.stops.len();
    for _ in 0..100_000 {
        cluster.step();
        for agent in cluster.agents().filter(|agent| agent.alive) {
            assert!(!agent.open().is_empty(), "{} has no endpoint", agent.name);
        }
        if cluster.stops.len() == before + 3 {
            return;
        }
    }
    panic!("the update does not end");
}

#[test]
fn a_rolling_update_stops_no_pod_that_a_node_sends_connections_to_and_leaves_no_node_without() {
    for seed in seeds(10) {
        let mut cluster = rolling(seed);
        for round in 0..5 {
            roll(&mut cluster, round);
        }
        let waits = cluster.stops.iter().map(|stopped| stopped.waited);
        let worst = waits.max().unwrap();
        assert!(worst < LIMIT, "seed {seed}: {worst:?}");
    }
}

#[test]
fn a_node_that_says_nothing_of_slices_delays_every_stop_by_two_seconds_and_no_more() {
    for seed in seeds(5) {
        let mut cluster = rolling(seed);
        cluster.mute("node-2");
        roll(&mut cluster, 0);
        for stopped in &cluster.stops {
            let late = stopped.waited - LIMIT;
            // The simulated agent looks when it is its turn.
            let in_time = !late.is_negative() && late < SignedDuration::from_millis(500);
            assert!(in_time, "seed {seed}: {stopped:?}");
        }
    }
}

#[test]
fn a_dead_node_is_not_waited_for() {
    for seed in seeds(5) {
        let mut cluster = rolling(seed);
        cluster.set_alive("node-2", false);
        cluster.elapse(60);
        let pods = cluster.api.list(Kind::POD).into_iter();
        let mut alive = pods.filter(|pod| pod["spec"]["nodeName"] == "node-1");
        let name = alive.next().unwrap()["metadata"]["name"].clone();
        let key = Key::new(NAMESPACE, name.as_str().unwrap());
        must(cluster.api.delete(Kind::POD, &key, &json!({})));
        cluster.elapse(30);
        let [stopped] = cluster.stops.as_slice() else {
            panic!(
                "seed {seed}: one pod was to be stopped, not {:?}",
                cluster.stops
            );
        };
        assert!(stopped.waited < LIMIT, "seed {seed}: {stopped:?}");
    }
}

#[test]
fn a_pod_that_one_service_drops_and_another_takes_is_stopped_when_the_other_knows_that_it_ends() {
    for seed in seeds(60) {
        let mut cluster = Cluster::new(seed, 2);
        must(cluster.api.create(Kind::DEPLOYMENT, deployment("web", 2)));
        must(cluster.api.create(Kind::SERVICE, service("web")));
        must(cluster.api.create(Kind::SERVICE, service("other")));
        cluster.settle();
        let pods: Vec<Key> = cluster.api.keys(Kind::POD, NAMESPACE);
        for pod in &pods {
            must(cluster.api.delete(Kind::POD, pod, &json!({})));
        }
        let old = Key::new(NAMESPACE, "web");
        must(cluster.api.delete(Kind::SERVICE, &old, &json!({})));
        let body = json!({"spec": {"selector": {"app": "web"}}});
        change(&mut cluster, Kind::SERVICE, "other", body);
        // At every stop it is looked at where nodes send connections.
        while cluster.stops.len() < pods.len() {
            cluster.step();
        }
    }
}

/// So many seeds, or the one of `SIM_SEED`, or those of `SIM_SEEDS=FROM..TO` for a long run in parts.
fn seeds(count: u64) -> Vec<u64> {
    let asked = |name: &str| std::env::var(name).ok();
    let one = asked("SIM_SEED").and_then(|text| text.parse().ok());
    let many = asked("SIM_SEEDS").and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some((from.parse().ok()?, to.parse().ok()?))
    });
    match (one, many) {
        (Some(seed), _) => vec![seed],
        (None, Some((from, to))) => (from..to).collect(),
        (None, None) => (0..count).collect(),
    }
}
