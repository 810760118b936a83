//! What pods demand of each other holds at every moment, and the more important ones get their places.

use super::*;

fn demanding(name: &str, replicas: usize, priority: i32, cpu: &str, more: Value) -> Value {
    let mut set = replication_controller(name, replicas);
    let spec = &mut set["spec"]["template"]["spec"];
    spec["priority"] = json!(priority);
    spec["containers"][0]["resources"]["requests"]["cpu"] = json!(cpu);
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    set
}

fn apart(app: &str) -> Value {
    let term = json!({"topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": app}}});
    json!({"affinity": {"podAntiAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

fn create(cluster: &mut Cluster, set: Value) {
    must(cluster.api.create(Kind::REPLICATION_CONTROLLER, set));
}

fn placed(cluster: &Cluster, app: &str) -> usize {
    let pods = cluster.api.list(Kind::POD).into_iter();
    let of_app = pods.filter(|pod| pod["metadata"]["labels"]["app"] == app);
    of_app
        .filter(|pod| pod["spec"]["nodeName"].is_string() && !check::finished(pod))
        .count()
}

#[test]
fn pods_stay_apart_and_the_more_important_get_their_places_whatever_goes_wrong() {
    for seed in seeds(15) {
        let mut cluster = Cluster::new(seed, 3);
        create(&mut cluster, demanding("lone", 3, 0, "100m", apart("lone")));
        create(&mut cluster, demanding("low", 6, 1, "800m", json!({})));
        cluster.chaos(700, FAULTS);
        create(
            &mut cluster,
            demanding("high", 3, 100, "1500m", apart("high")),
        );
        cluster.chaos(900, FAULTS);
        cluster.settle();
        assert_eq!(placed(&cluster, "high"), 3, "seed {seed}");
        let low = placed(&cluster, "low");
        assert!(low <= 3, "seed {seed}: {low} beside what is more important");
        // There is room for one on each node, and for one of the least important beside it.
        assert_eq!(placed(&cluster, "lone"), 3, "seed {seed}");
    }
}

#[test]
fn a_pod_is_stopped_for_no_more_than_one_that_is_more_important() {
    for seed in seeds(10) {
        let mut cluster = Cluster::new(seed, 2);
        create(&mut cluster, demanding("low", 4, 1, "900m", json!({})));
        cluster.settle();
        assert_eq!(placed(&cluster, "low"), 4, "seed {seed}");
        create(&mut cluster, demanding("high", 1, 100, "900m", json!({})));
        cluster.settle();
        let (high, low) = (placed(&cluster, "high"), placed(&cluster, "low"));
        assert_eq!((high, low), (1, 3), "seed {seed}");
    }
}
