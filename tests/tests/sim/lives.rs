//! Nodes that run their pods by the product's own plan: containers die, agents restart, manifests come and go.

use std::collections::BTreeMap;

use super::*;

fn with_inits(name: &str, replicas: usize) -> Value {
    let mut set = replication_controller(name, replicas);
    let container = |name: &str| json!({"name": name, "image": "image:1"});
    let mut sidecar = container("sidecar");
    sidecar["restartPolicy"] = "Always".into();
    set["spec"]["template"]["spec"]["initContainers"] = json!([container("first"), sidecar]);
    set
}

fn job() -> Value {
    let container = json!({
        "name": "main", "image": "image:1", "resources": {"requests": {"cpu": "100m"}},
    });
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "work", "namespace": NAMESPACE},
        "spec": {
            "backoffLimit": 1000, "parallelism": 2, "completions": 4,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    })
}

fn manifest(image: usize) -> String {
    let main = json!({"name": "main", "image": format!("image:{image}")});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "static"},
        "spec": {"containers": [main]}});
    pod.to_string()
}

/// How often a container of a pod was started again, as the API said it: never less than before.
fn check_counts(cluster: &Cluster, seed: u64, from: usize, counts: &mut BTreeMap<String, u64>) {
    for entry in cluster.api.log[from..]
        .iter()
        .filter(|entry| entry.kind == Kind::POD)
    {
        let uid = api::meta::uid(&entry.object);
        let statuses = entry.object["status"]["containerStatuses"].as_array();
        for status in statuses.into_iter().flatten() {
            let count = status["restartCount"].as_u64().unwrap_or(0);
            let name = format!("{uid}/{}", status["name"]);
            let before = counts.insert(name, count).unwrap_or(0);
            assert!(
                before <= count,
                "seed {seed}: {before} starts, then {count}: {status}"
            );
        }
    }
}

fn problems(cluster: &Cluster) -> Vec<String> {
    let mut problems = check::problems(&cluster.api);
    let nodes = cluster.lives.iter();
    problems.extend(nodes.flat_map(|lives| lives.problems(&cluster.api)));
    problems
}

#[test]
fn pods_live_by_their_plan_whatever_dies_and_the_api_says_what_runs() {
    for seed in seeds(10) {
        let mut cluster = Cluster::with_lives(seed, 2);
        let mut user = Rng::new(seed ^ 0x11fe);
        let kind = Kind::REPLICATION_CONTROLLER;
        must(cluster.api.create(kind, with_inits("web", 3)));
        must(cluster.api.create(Kind::JOB, job()));
        let mut counts = BTreeMap::new();
        for _ in 0..8 {
            let from = cluster.api.log.len();
            cluster.chaos(300, FAULTS);
            check_counts(&cluster, seed, from, &mut counts);
            let replicas = json!({"spec": {"replicas": user.below(5)}});
            change(&mut cluster, kind, "web", replicas);
        }
        cluster.settle();
        assert_eq!(problems(&cluster), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn static_pods_follow_their_manifests_and_their_mirrors_come_again() {
    for seed in seeds(10) {
        let mut cluster = Cluster::with_lives(seed, 2);
        let mut user = Rng::new(seed ^ 0x57a7);
        let kind = Kind::REPLICATION_CONTROLLER;
        must(cluster.api.create(kind, replication_controller("web", 2)));
        for _ in 0..10 {
            let node = user.below(2);
            // No manifest, or one of two contents.
            let image = user.below(3);
            let file = ("static.yaml".to_owned(), manifest(image));
            let files = BTreeMap::from_iter((image > 0).then_some(file));
            cluster.lives[node].set_manifests(&files);
            cluster.chaos(200, FAULTS);
        }
        cluster.settle();
        assert_eq!(problems(&cluster), Vec::<String>::new(), "seed {seed}");
    }
}
