//! Claims, volumes and attachments under chance: no volume has two writers, none is lost.

use super::*;
use tests::sim::storage::DRIVER;

const CLAIMS: usize = 4;
const NODES: usize = 3;

fn named(kind: &str, number: usize) -> String {
    format!("{kind}-{number}")
}

fn volume(number: usize, mode: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": named("volume", number)},
        "spec": {
            "accessModes": [mode], "capacity": {"storage": "1Gi"}, "storageClassName": "",
            "persistentVolumeReclaimPolicy": policy,
            "csi": {"driver": DRIVER, "volumeHandle": named("volume", number)},
        },
    })
}

fn claim(number: usize, mode: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": named("claim", number), "namespace": NAMESPACE},
        "spec": {
            "accessModes": [mode], "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

/// A pod that is put on a node without being asked whether it fits: nothing but agents and controllers keeps
/// writers apart.
fn pod(name: &str, node: usize, claim: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": named("node", node),
            "containers": [{"name": "main", "image": "image:1"}],
            "volumes": [{"name": "data",
                "persistentVolumeClaim": {"claimName": named("claim", claim)}}],
        },
    })
}

fn mode(number: usize) -> &'static str {
    ["ReadWriteOnce", "ReadWriteOncePod"][number % 2]
}

/// As many volumes as claims and one more, all to be kept.
fn start(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, NODES);
    for number in 0..=CLAIMS {
        let volume = volume(number, mode(number), "Retain");
        must(cluster.api.create(Kind::PERSISTENT_VOLUME, volume));
    }
    for number in 0..CLAIMS {
        let claim = claim(number, mode(number));
        must(cluster.api.create(Kind::PERSISTENT_VOLUME_CLAIM, claim));
    }
    cluster
}

/// Somebody makes a pod, or deletes one, or a claim.
fn interfere(cluster: &mut Cluster, user: &mut Rng, pods: &mut usize) {
    let delete = |cluster: &mut Cluster, kind: Kind, key: &Key| {
        let deleted = cluster.api.delete(kind, key, &json!({}));
        deleted.expect("it is there");
    };
    match user.below(5) {
        0 | 1 => {
            *pods += 1;
            let (node, claim) = (1 + user.below(NODES), user.below(CLAIMS));
            let pod = pod(&format!("p{pods}"), node, claim);
            must(cluster.api.create(Kind::POD, pod));
        }
        2 | 3 => {
            let keys = cluster.api.keys(Kind::POD, NAMESPACE);
            if let Some(key) = user.pick(&keys).cloned() {
                delete(cluster, Kind::POD, &key);
            }
        }
        _ => {
            let number = user.below(CLAIMS);
            let key = Key::new(NAMESPACE, &named("claim", number));
            let kind = Kind::PERSISTENT_VOLUME_CLAIM;
            match cluster.api.get(kind, NAMESPACE, &key.name) {
                None => drop(must(cluster.api.create(kind, claim(number, mode(number))))),
                Some(found) if api::meta::is_terminating(found) => {}
                Some(_) if user.chance(300) => delete(cluster, kind, &key),
                Some(_) => {}
            }
        }
    }
}

fn end_pods(cluster: &mut Cluster) {
    for key in cluster.api.keys(Kind::POD, NAMESPACE) {
        // One that has ended goes at once, and with it perhaps another.
        let _ = cluster.api.delete(Kind::POD, &key, &json!({}));
    }
}

#[test]
fn no_volume_has_two_writers_and_none_that_is_to_be_kept_is_lost() {
    for seed in seeds(20) {
        let mut cluster = start(seed);
        let mut user = Rng::new(seed ^ 0xd15c);
        let mut pods = 0;
        for _ in 0..40 {
            cluster.chaos(60, FAULTS);
            interfere(&mut cluster, &mut user, &mut pods);
        }
        end_pods(&mut cluster);
        cluster.settle();
        let kept = cluster.api.list(Kind::PERSISTENT_VOLUME).len();
        assert_eq!(kept, CLAIMS + 1, "seed {seed}");
        let left = cluster.api.list(Kind::VOLUME_ATTACHMENT);
        assert!(left.is_empty(), "seed {seed}: {left:#?}");
        for node in cluster.api.list(Kind::NODE) {
            let attached = node["status"]["volumesAttached"].as_array();
            let is_none = attached.is_none_or(Vec::is_empty);
            assert!(is_none, "seed {seed}: {attached:?}");
        }
    }
}

#[test]
fn a_volume_follows_its_pod_from_a_machine_that_is_off_after_six_minutes() {
    for seed in seeds(5) {
        let mut cluster = start(seed);
        must(cluster.api.create(Kind::POD, pod("first", 1, 0)));
        cluster.settle();
        assert!(runs(&cluster, "first"), "seed {seed}");
        cluster.set_alive("node-1", false);
        cluster.storage.power_off("node-1");
        let at_once = json!({"gracePeriodSeconds": 0});
        let first = Key::new(NAMESPACE, "first");
        let deleted = cluster.api.delete(Kind::POD, &first, &at_once);
        deleted.expect("the pod is there");
        must(cluster.api.create(Kind::POD, pod("second", 2, 0)));
        cluster.elapse(120);
        assert!(!runs(&cluster, "second"), "seed {seed}");
        cluster.settle();
        assert!(runs(&cluster, "second"), "seed {seed}");
    }
}

fn runs(cluster: &Cluster, name: &str) -> bool {
    let found = cluster.api.get(Kind::POD, NAMESPACE, name);
    found.is_some_and(check::ready)
}
