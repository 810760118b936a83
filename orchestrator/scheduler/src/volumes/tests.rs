use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::*;
use crate::cycle::{Cycle, Decision};

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn claim(name: &str, class: &str, more: Value) -> ClaimRow {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    merge(&mut value, &more);
    read::<PersistentVolumeClaim>(value).into()
}

fn bound(name: &str, volume: &str, more: Value) -> ClaimRow {
    let mut whole = json!({
        "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": volume},
    });
    merge(&mut whole, &more);
    claim(name, "now", whole)
}

fn volume(name: &str, class: &str, size: &str, node: &str) -> VolumeRow {
    let term = json!({"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]});
    let value = json!({
        "metadata": {"name": name, "resourceVersion": "7"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "capacity": {"storage": size},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
        "status": {"phase": "Available"},
    });
    read::<PersistentVolume>(value).into()
}

fn class(name: &str, mode: &str, provisioner: &str) -> ClassRow {
    let value = json!({
        "metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode,
    });
    read::<StorageClass>(value).into()
}

fn merge(into: &mut Value, more: &Value) {
    match more.as_object() {
        Some(fields) => {
            for (field, value) in fields {
                merge(&mut into[field], value);
            }
        }
        None => *into = more.clone(),
    }
}

fn node(name: &str) -> NodeRow {
    read::<Node>(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": format!("zone-{name}")}},
        "status": {
            "allocatable": {"cpu": "2", "pods": "9"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }))
    .into()
}

fn pod(name: &str, claims: &[&str]) -> PodRow {
    let volumes = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}));
    read::<Pod>(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "a"}], "volumes": volumes.collect::<Vec<_>>()},
    }))
    .into()
}

struct Cluster {
    cycle: Cycle,
    snapshot: Snapshot,
}

impl Cluster {
    fn new(claims: Vec<ClaimRow>, volumes: Vec<VolumeRow>) -> Self {
        let mut cluster = Self {
            cycle: Cycle::default(),
            snapshot: Snapshot::default(),
        };
        for name in ["a", "b"] {
            cluster.snapshot.upsert_node(node(name));
        }
        let classes = vec![
            class("now", "Immediate", "example.com/csi"),
            class("later", "WaitForFirstConsumer", "example.com/csi"),
            class(
                "local",
                "WaitForFirstConsumer",
                "kubernetes.io/no-provisioner",
            ),
        ];
        let storage = &mut cluster.cycle.volumes;
        storage.apply(StorageChange::Claims(claims));
        storage.apply(StorageChange::Volumes(volumes));
        storage.apply(StorageChange::Classes(classes));
        cluster
    }

    fn decide(&mut self, pod: &PodRow) -> Decision {
        self.snapshot.upsert_pod(pod.clone());
        let id = self.snapshot.pod_id(&pod.key).unwrap();
        self.cycle.decide(&mut self.snapshot, id)
    }

    fn refusal(&mut self, pod: &PodRow) -> String {
        match self.decide(pod) {
            Decision::Unschedulable { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    fn chosen(&mut self, pod: &PodRow) -> (String, Plan) {
        match self.decide(pod) {
            Decision::Bind { node, volumes } => (self.snapshot.node_name(node).to_owned(), volumes),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn claims_that_cannot_be_bound_by_then_keep_the_pod_in_kubernetes_words() {
    let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let cases = [
        (vec![], "persistentvolumeclaim \"c\" not found"),
        (
            vec![claim("c", "now", leaving)],
            "persistentvolumeclaim \"c\" is being deleted",
        ),
        (
            vec![claim("c", "now", json!({}))],
            "pod has unbound immediate PersistentVolumeClaims",
        ),
        (
            vec![bound("c", "lost", json!({}))],
            "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
        ),
        (
            vec![claim("c", "local", json!({}))],
            "2 node(s) didn't find available persistent volumes to bind",
        ),
    ];
    for (claims, why) in cases {
        let expected = format!(
            "0/2 nodes are available: {why}. preemption: 0/2 nodes are available: 2 Preemption is not \
             helpful for scheduling."
        );
        assert_eq!(
            Cluster::new(claims, vec![]).refusal(&pod("p", &["c"])),
            expected
        );
    }
}

#[test]
fn a_bound_volume_takes_its_pod_to_where_it_is() {
    let mut cluster = Cluster::new(
        vec![bound("c", "v", json!({}))],
        vec![volume("v", "now", "1Gi", "b")],
    );
    assert_eq!(
        cluster.chosen(&pod("p", &["c"])),
        ("b".to_owned(), Plan::default())
    );
    let mut zoned = volume("v", "now", "1Gi", "b");
    zoned.nodes = None;
    zoned.labels.insert(
        "topology.kubernetes.io/zone".to_owned(),
        "zone-x__zone-a".to_owned(),
    );
    let mut cluster = Cluster::new(vec![bound("c", "v", json!({}))], vec![zoned]);
    assert_eq!(cluster.chosen(&pod("q", &["c"])).0, "a");
}

#[test]
fn of_local_volumes_the_smallest_that_fits_is_given_and_only_once() {
    let volumes = vec![
        volume("big", "local", "9Gi", "a"),
        volume("small", "local", "2Gi", "a"),
        volume("tiny", "local", "1Mi", "b"),
    ];
    let claims = ["c", "d", "e"].map(|name| claim(name, "local", json!({})));
    let mut cluster = Cluster::new(claims.to_vec(), volumes);
    for (name, expected) in [("c", "small"), ("d", "big")] {
        let (node, plan) = cluster.chosen(&pod(&format!("p-{name}"), &[name]));
        assert_eq!(node, "a");
        let gift = Gift {
            volume: expected.to_owned(),
            revision: "7".to_owned(),
            claim: ("ns".to_owned(), name.to_owned()),
            claim_uid: format!("uid-{name}"),
        };
        assert_eq!(plan.bind, [gift]);
        cluster.cycle.volumes.assume(&plan);
    }
    assert!(
        cluster
            .refusal(&pod("p-e", &["e"]))
            .contains("didn't find available")
    );
    // What was decided for a pod that goes is free again.
    cluster.cycle.volumes.forget(&pod("p-c", &["c"]));
    assert_eq!(
        cluster.chosen(&pod("p-e", &["e"])).1.bind[0].volume,
        "small"
    );
}

#[test]
fn one_pod_never_gets_one_volume_for_two_claims() {
    let claims = ["c", "d"].map(|name| claim(name, "local", json!({})));
    let one = vec![volume("v", "local", "2Gi", "a")];
    let mut cluster = Cluster::new(claims.to_vec(), one);
    assert!(
        cluster
            .refusal(&pod("p", &["c", "d"]))
            .contains("didn't find available")
    );
}

#[test]
fn a_volume_that_can_be_made_is_asked_for_on_the_chosen_node() {
    let mut cluster = Cluster::new(vec![claim("c", "later", json!({}))], vec![]);
    let (_, plan) = cluster.chosen(&pod("p", &["c"]));
    assert_eq!(plan.provision, [("ns".to_owned(), "c".to_owned())]);
    let selected = json!({"metadata": {"annotations": {objects::SELECTED_NODE: "b"}}});
    let mut cluster = Cluster::new(vec![claim("c", "later", selected)], vec![]);
    assert_eq!(cluster.chosen(&pod("p", &["c"])).0, "b");
}

#[test]
fn a_claim_for_one_pod_is_not_given_to_a_second() {
    let once = json!({"spec": {"accessModes": ["ReadWriteOncePod"]}});
    let mut cluster = Cluster::new(
        vec![bound("c", "v", once)],
        vec![volume("v", "now", "1Gi", "b")],
    );
    let mut first = pod("first", &["c"]);
    first.node = "b".to_owned();
    cluster.snapshot.upsert_pod(first);
    let why = cluster.refusal(&pod("p", &["c"]));
    assert!(why.contains("ReadWriteOncePod access mode"), "{why}");
    cluster
        .snapshot
        .remove_pod(&("ns".to_owned(), "first".to_owned()));
    assert_eq!(cluster.chosen(&pod("p", &["c"])).0, "b");
}

#[test]
fn a_node_has_no_more_volumes_of_a_driver_than_it_can() {
    let claims = ["c", "d"].map(|name| bound(name, name, json!({})));
    let volumes = ["c", "d"].map(|name| {
        let mut row = volume(name, "now", "1Gi", "a");
        row.csi = Some(("example.com/csi".to_owned(), name.to_owned()));
        row
    });
    let mut cluster = Cluster::new(claims.to_vec(), volumes.to_vec());
    let limits = BTreeMap::from([("example.com/csi".to_owned(), 1)]);
    cluster
        .cycle
        .volumes
        .apply(StorageChange::Limits("a".to_owned(), limits));
    let mut first = pod("first", &["c"]);
    first.node = "a".to_owned();
    cluster.snapshot.upsert_pod(first);
    assert!(
        cluster
            .refusal(&pod("p", &["d"]))
            .contains("1 node(s) exceed max volume count")
    );
    // The same volume for a second pod is no second volume.
    assert_eq!(cluster.chosen(&pod("q", &["c"])).0, "a");
}
