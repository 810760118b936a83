//! An autoscaler under chance: it keeps its bounds whatever its metrics say, and ends where the load wants it.

use super::*;

const LEAST: i64 = 2;
const MOST: i64 = 8;

fn autoscaler() -> Value {
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": LEAST, "maxReplicas": MOST,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 30}},
        },
    })
}

fn replicas(cluster: &Cluster) -> i64 {
    let found = cluster.api.get(Kind::DEPLOYMENT, NAMESPACE, "web").unwrap();
    found["spec"]["replicas"].as_i64().unwrap()
}

fn set_load(cluster: &mut Cluster, millis: u64) {
    cluster.api.metrics.load.insert("web".to_owned(), millis);
}

/// Metrics come and go, and so does the load.
fn interfere(cluster: &mut Cluster, user: &mut Rng) {
    match user.below(4) {
        0 => set_load(cluster, user.below(600) as u64),
        1 => cluster.api.metrics.is_away = user.chance(500),
        2 => cluster.api.metrics.is_empty = user.chance(500),
        _ => {}
    }
}

#[test]
fn an_autoscaler_keeps_its_bounds_and_ends_where_the_load_wants_it() {
    for seed in seeds(10) {
        let mut cluster = Cluster::with_lives(seed, 3);
        let mut user = Rng::new(seed ^ 0xa5ca);
        must(cluster.api.create(Kind::DEPLOYMENT, deployment("web", 3)));
        must(cluster.api.create(Kind::AUTOSCALER, autoscaler()));
        set_load(&mut cluster, 150);
        for _ in 0..20 {
            cluster.elapse(20);
            cluster.chaos(100, FAULTS);
            interfere(&mut cluster, &mut user);
            let replicas = replicas(&cluster);
            assert!(
                (LEAST..=MOST).contains(&replicas),
                "seed {seed}: {replicas} replicas"
            );
        }
        (cluster.api.metrics.is_away, cluster.api.metrics.is_empty) = (false, false);
        // 100 thousandths are requested by each pod, half of which is aimed at.
        let wanted = 2 + user.below(6) as i64;
        set_load(&mut cluster, 50 * wanted as u64);
        cluster.settle();
        assert_eq!(replicas(&cluster), wanted, "seed {seed}");
        let problems = check::problems(&cluster.api);
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
    }
}

#[test]
fn what_metrics_do_not_say_scales_nothing_down() {
    for seed in seeds(10) {
        let mut cluster = Cluster::with_lives(seed, 3);
        must(cluster.api.create(Kind::DEPLOYMENT, deployment("web", 5)));
        must(cluster.api.create(Kind::AUTOSCALER, autoscaler()));
        cluster.api.metrics.is_away = seed % 2 == 0;
        cluster.api.metrics.is_empty = seed % 2 == 1;
        cluster.chaos(600, FAULTS);
        cluster.settle();
        assert_eq!(replicas(&cluster), 5, "seed {seed}");
    }
}
