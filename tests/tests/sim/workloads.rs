//! StatefulSets and DaemonSets under chance.

use client::{Kind, PatchKind};
use controllers::object::Key;
use serde_json::{Value, json};
use tests::sim::Faults;
use tests::sim::check;
use tests::sim::cluster::{Cluster, NAMESPACE, must};
use tests::sim::rng::Rng;
use tests::sim::sets;

use super::{FAULTS, change, seeds, template};

/// Writes are refused now and then, and what the server did it said.
const HONEST: Faults = Faults {
    before: 100,
    after: 0,
};

fn stateful_set(replicas: usize, management: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "podManagementPolicy": management,
            "selector": {"matchLabels": {"app": "db"}},
            "template": template("db", "image:1"),
            "revisionHistoryLimit": 2,
        },
    })
}

fn daemon_set() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "log", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": "log"}},
            "template": template("log", "image:1"),
            "revisionHistoryLimit": 2,
        },
    })
}

fn with_image(image: &str) -> Value {
    let container = json!({"name": "main", "image": image});
    json!({"spec": {"template": {"spec": {"containers": [container]}}}})
}

/// What a user might do next.
fn interfere(cluster: &mut Cluster, rng: &mut Rng) {
    let image = format!("image:{}", rng.below(4));
    match rng.below(6) {
        0 => {
            let body = json!({"spec": {"replicas": rng.below(5)}});
            change(cluster, Kind::STATEFUL_SET, "db", body);
        }
        1 => change(cluster, Kind::STATEFUL_SET, "db", with_image(&image)),
        2 => {
            let kind = *rng.pick(&["OnDelete", "RollingUpdate"]).unwrap();
            let rolling = match kind {
                "OnDelete" => Value::Null,
                _ => json!({"partition": rng.below(3)}),
            };
            let strategy = json!({"type": kind, "rollingUpdate": rolling});
            let body = json!({"spec": {"updateStrategy": strategy}});
            change(cluster, Kind::STATEFUL_SET, "db", body);
        }
        3 => change(cluster, Kind::DAEMON_SET, "log", with_image(&image)),
        4 => {
            let surge = rng.below(2);
            let rolling = json!({"maxSurge": surge, "maxUnavailable": 1 - surge});
            let body = json!({"spec": {"updateStrategy": {"rollingUpdate": rolling}}});
            change(cluster, Kind::DAEMON_SET, "log", body);
        }
        _ => {
            let taint = json!({"key": "dedicated", "effect": "NoExecute"});
            let taints = match rng.below(2) {
                0 => json!([]),
                _ => json!([taint]),
            };
            taint_node(cluster, taints);
        }
    }
}

fn taint_node(cluster: &mut Cluster, taints: Value) {
    let body = json!({"spec": {"taints": taints}});
    let key = Key::new("", "node-2");
    must(
        cluster
            .api
            .patch(Kind::NODE, &key, "", PatchKind::Merge, &body),
    );
}

#[test]
fn stateful_and_daemon_sets_end_as_their_users_wanted() {
    for seed in seeds(20) {
        let mut cluster = Cluster::new(seed, 3);
        let mut user = Rng::new(seed ^ 0xd00d);
        let management = *user.pick(&["OrderedReady", "Parallel"]).unwrap();
        must(
            cluster
                .api
                .create(Kind::STATEFUL_SET, stateful_set(3, management)),
        );
        must(cluster.api.create(Kind::DAEMON_SET, daemon_set()));
        for _ in 0..6 {
            cluster.chaos(300, FAULTS);
            interfere(&mut cluster, &mut user);
        }
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
        let body = json!({"spec": {"updateStrategy": rolling}});
        change(&mut cluster, Kind::STATEFUL_SET, "db", body);
        taint_node(&mut cluster, json!([]));
        cluster.settle();
        let problems = check::problems(&cluster.api);
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
    }
}

/// The ordinals of the set's pods, and whether each serves.
fn members(cluster: &Cluster) -> Vec<(usize, bool)> {
    let set = cluster
        .api
        .get(Kind::STATEFUL_SET, NAMESPACE, "db")
        .unwrap();
    let mut members: Vec<(usize, bool)> = sets::pods(&cluster.api, set)
        .into_iter()
        .map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let ordinal = name.strip_prefix("db-").unwrap().parse().unwrap();
            (ordinal, sets::serves(pod))
        })
        .collect();
    members.sort_unstable();
    members
}

/// One step after the other in which anything goes wrong but pods, until as many pods serve.
fn until_serving(cluster: &mut Cluster, count: usize, mut each: impl FnMut(&Cluster)) {
    for _ in 0..200_000 {
        cluster.trouble(1, HONEST);
        each(cluster);
        let members = members(cluster);
        if members.len() == count && members.iter().all(|(_, serves)| *serves) {
            return;
        }
    }
    panic!("it does not get there: {:?}", members(cluster));
}

#[test]
fn ordered_pods_come_from_the_first_and_go_from_the_last() {
    for seed in seeds(5) {
        let mut cluster = Cluster::new(seed, 3);
        let set = stateful_set(4, "OrderedReady");
        must(cluster.api.create(Kind::STATEFUL_SET, set));
        let in_order = |cluster: &Cluster| {
            let members = members(cluster);
            let ordinals: Vec<usize> = members.iter().map(|(ordinal, _)| *ordinal).collect();
            assert_eq!(
                ordinals,
                (0..members.len()).collect::<Vec<_>>(),
                "seed {seed}"
            );
            let waiting = members.iter().filter(|(_, serves)| !serves).count();
            assert!(waiting <= 1, "seed {seed}: {members:?}");
        };
        until_serving(&mut cluster, 4, in_order);
        for replicas in [1, 3, 0] {
            let body = json!({"spec": {"replicas": replicas}});
            change(&mut cluster, Kind::STATEFUL_SET, "db", body);
            until_serving(&mut cluster, replicas, in_order);
        }
    }
}

#[test]
fn an_update_never_takes_more_stateful_pods_away_than_it_may() {
    for seed in seeds(5) {
        for (management, max) in [("OrderedReady", 1), ("Parallel", 1), ("Parallel", 2)] {
            let mut cluster = Cluster::new(seed, 3);
            let mut set = stateful_set(4, management);
            if max > 1 {
                set["spec"]["updateStrategy"] =
                    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": max}});
            }
            must(cluster.api.create(Kind::STATEFUL_SET, set));
            cluster.settle();
            change(
                &mut cluster,
                Kind::STATEFUL_SET,
                "db",
                with_image("image:2"),
            );
            let mut updated = 0;
            // 20,000 steps are half a minute: a pause after failures may be longer.
            for _ in 0..200_000 {
                cluster.trouble(1, HONEST);
                let members = members(&cluster);
                let serving = members.iter().filter(|(_, serves)| *serves).count();
                assert!(serving + max >= 4, "seed {seed}, {management}: {members:?}");
                updated = count_of_image(&cluster, "image:2");
                if updated == 4 && serving == 4 {
                    break;
                }
            }
            assert_eq!(updated, 4, "seed {seed}, {management}");
            cluster.settle();
            let problems = check::problems(&cluster.api);
            assert!(
                problems.is_empty(),
                "seed {seed}, {management}: {problems:#?}"
            );
        }
    }
}

fn count_of_image(cluster: &Cluster, image: &str) -> usize {
    let pods = cluster.api.list(Kind::POD).into_iter();
    pods.filter(|pod| pod["spec"]["containers"][0]["image"] == image)
        .count()
}

#[test]
fn an_update_of_daemons_keeps_within_its_bounds() {
    for seed in seeds(5) {
        for (max_unavailable, max_surge) in [(1, 0), (2, 0), (0, 1)] {
            let mut cluster = Cluster::new(seed, 3);
            let mut set = daemon_set();
            set["spec"]["updateStrategy"] = json!({"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": max_unavailable, "maxSurge": max_surge}});
            must(cluster.api.create(Kind::DAEMON_SET, set));
            cluster.settle();
            change(&mut cluster, Kind::DAEMON_SET, "log", with_image("image:2"));
            for _ in 0..3_000 {
                cluster.trouble(1, HONEST);
                let set = cluster.api.get(Kind::DAEMON_SET, NAMESPACE, "log").unwrap();
                let pods = sets::pods(&cluster.api, set);
                let serving = pods.iter().filter(|pod| sets::serves(pod));
                let on: std::collections::BTreeSet<String> = serving
                    .map(|pod| pod["spec"]["nodeName"].to_string())
                    .collect();
                assert!(on.len() + max_unavailable >= 3, "seed {seed}: {on:?}");
                let most = sets::by_node(&cluster.api, set).into_values().max();
                assert!(most.unwrap_or(0) <= 1 + max_surge, "seed {seed}");
            }
            cluster.settle();
            let problems = check::problems(&cluster.api);
            assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
        }
    }
}

#[test]
fn claims_go_with_the_pods_that_are_scaled_down_and_with_the_set() {
    for seed in seeds(5) {
        let mut cluster = Cluster::new(seed, 2);
        let mut set = stateful_set(3, "Parallel");
        set["spec"]["persistentVolumeClaimRetentionPolicy"] =
            json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
        set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
        must(cluster.api.create(Kind::STATEFUL_SET, set));
        cluster.trouble(500, FAULTS);
        cluster.settle();
        let claims = |cluster: &Cluster| -> Vec<String> {
            let keys = cluster.api.keys(Kind::PERSISTENT_VOLUME_CLAIM, NAMESPACE);
            keys.into_iter().map(|key| key.name).collect()
        };
        let names = |ordinals: std::ops::Range<usize>| -> Vec<String> {
            ordinals
                .map(|ordinal| format!("data-db-{ordinal}"))
                .collect()
        };
        assert_eq!(claims(&cluster), names(0..3), "seed {seed}");
        let body = json!({"spec": {"replicas": 1}});
        change(&mut cluster, Kind::STATEFUL_SET, "db", body);
        cluster.trouble(500, FAULTS);
        cluster.settle();
        assert_eq!(claims(&cluster), names(0..1), "seed {seed}");
        let key = Key::new(NAMESPACE, "db");
        let options = json!({"propagationPolicy": "Background"});
        must(cluster.api.delete(Kind::STATEFUL_SET, &key, &options));
        cluster.trouble(500, FAULTS);
        cluster.settle();
        assert_eq!(claims(&cluster), names(0..0), "seed {seed}");
        let left = cluster.api.list(Kind::CONTROLLER_REVISION).len();
        assert_eq!(left, 0, "seed {seed}");
    }
}
