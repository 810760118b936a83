use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;

mod affinity;
mod preemption;
mod reference;
mod spread;
use crate::node::NodeRow;

fn node(name: &str, change: impl FnOnce(&mut Value)) -> NodeRow {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"zone": name, "kubernetes.io/hostname": name}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "3", "example.com/gpu": "1"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    change(&mut value);
    NodeRow::from(serde_json::from_value::<Node>(value).unwrap())
}

fn plain(name: &str) -> NodeRow {
    node(name, |_| {})
}

fn pod(name: &str, spec: Value) -> PodRow {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "a"}]},
    });
    for (field, given) in spec.as_object().unwrap() {
        value["spec"][field] = given.clone();
    }
    PodRow::from(serde_json::from_value::<Pod>(value).unwrap())
}

fn asking(name: &str, requests: Value) -> PodRow {
    pod(
        name,
        json!({"containers": [{"name": "a", "resources": {"requests": requests}}]}),
    )
}

fn cluster(nodes: Vec<NodeRow>, pods: Vec<PodRow>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.upsert_node(node);
    }
    for pod in pods {
        snapshot.upsert_pod(pod);
    }
    snapshot
}

fn on(node: &str, mut pod: PodRow) -> PodRow {
    pod.node = node.to_owned();
    pod
}

fn decide(snapshot: &mut Snapshot, pod: &PodRow) -> Decision {
    snapshot.upsert_pod(pod.clone());
    let id = snapshot.pod_id(&pod.key).unwrap();
    let decision = Cycle::default().decide(snapshot, id);
    snapshot.remove_pod(&pod.key);
    decision
}

/// The whole message, with what preemption says.
fn said(snapshot: &mut Snapshot, pod: &PodRow) -> String {
    match decide(snapshot, pod) {
        Decision::Unschedulable { message, .. } => message,
        Decision::Bind { node, .. } => panic!("bound to {}", snapshot.node_name(node)),
        Decision::Consult { .. } => panic!("there are no extenders"),
    }
}

fn refusal(snapshot: &mut Snapshot, pod: &PodRow) -> String {
    let said = said(snapshot, pod);
    said.split(" preemption:")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn chosen(snapshot: &mut Snapshot, pod: &PodRow) -> String {
    match decide(snapshot, pod) {
        Decision::Bind { node, .. } => snapshot.node_name(node).to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_nodes_it_says_so() {
    let message = refusal(&mut Snapshot::default(), &pod("a", json!({})));
    assert_eq!(message, "no nodes available to schedule pods");
}

#[test]
fn every_reason_is_counted_in_kubernetes_words() {
    let nodes = vec![
        node("a", |n| n["spec"]["unschedulable"] = json!(true)),
        node("b", |n| {
            n["spec"]["taints"] = json!([{"key": "gpu", "value": "x", "effect": "NoSchedule"}])
        }),
        node("c", |n| n["status"]["allocatable"]["cpu"] = json!("500m")),
        node("d", |n| n["status"]["allocatable"]["cpu"] = json!("900m")),
    ];
    let message = refusal(
        &mut cluster(nodes, vec![]),
        &asking("p", json!({"cpu": "1"})),
    );
    let expected = "0/4 nodes are available: 1 node(s) had untolerated taint {gpu: x}, \
                    1 node(s) were unschedulable, 2 Insufficient cpu.";
    assert_eq!(message, expected);
}

#[test]
fn a_node_that_is_not_ready_takes_nothing_even_before_its_taint() {
    let late = node("a", |n| n["status"]["conditions"] = json!([]));
    let message = refusal(&mut cluster(vec![late], vec![]), &pod("p", json!({})));
    assert!(
        message.contains("untolerated taint {node.kubernetes.io/not-ready: }"),
        "{message}"
    );
}

#[test]
fn resources_pods_and_ports_are_never_given_twice() {
    let port =
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    let local = json!({"containers": [{"name": "a", "ports": [
        {"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"}]}]});
    let udp = json!({"containers": [{"name": "a", "ports": [
        {"containerPort": 80, "hostPort": 80, "protocol": "UDP"}]}]});
    let full = || {
        vec![
            pod("1", json!({})),
            pod("2", json!({})),
            pod("3", json!({})),
        ]
    };
    let cases: [(Vec<PodRow>, PodRow, Option<&str>); 8] = [
        (
            vec![asking("1", json!({"cpu": "1500m"}))],
            asking("p", json!({"cpu": "500m"})),
            None,
        ),
        (
            vec![asking("1", json!({"cpu": "1500m"}))],
            asking("p", json!({"cpu": "501m", "memory": "5Gi"})),
            Some("0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."),
        ),
        (
            vec![asking("1", json!({"example.com/gpu": "1"}))],
            asking("p", json!({"example.com/gpu": "1"})),
            Some("0/1 nodes are available: 1 Insufficient example.com/gpu."),
        ),
        (
            full(),
            pod("p", json!({})),
            Some("0/1 nodes are available: 1 Too many pods."),
        ),
        (
            vec![pod("1", port.clone())],
            pod("p", local.clone()),
            Some(
                "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
            ),
        ),
        (vec![pod("1", local)], pod("p", udp), None),
        (vec![asking("1", json!({"cpu": "2"}))], pod("p", port), None),
        (
            vec![],
            asking("p", json!({"cpu": "2001m"})),
            Some("0/1 nodes are available: 1 Insufficient cpu."),
        ),
    ];
    for (held, pod, expected) in cases {
        let held = held.into_iter().map(|pod| on("a", pod)).collect();
        let mut snapshot = cluster(vec![plain("a")], held);
        match expected {
            None => assert_eq!(chosen(&mut snapshot, &pod), "a"),
            Some(expected) => assert_eq!(refusal(&mut snapshot, &pod), expected),
        }
    }
}

#[test]
fn an_init_container_counts_at_its_height_and_a_sidecar_for_good() {
    let container =
        |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
    let mut sidecar = container("side", "300m");
    sidecar["restartPolicy"] = json!("Always");
    let spec = |init: Vec<Value>| json!({"initContainers": init, "containers": [container("a", "200m"), container("b", "200m")]});
    let cases = [
        (vec![container("i", "100m")], 400),
        (vec![container("i", "900m"), container("j", "500m")], 900),
        (vec![sidecar.clone()], 700),
        (vec![sidecar.clone(), container("i", "500m")], 800),
        (vec![container("i", "500m"), sidecar], 700),
    ];
    for (init, cpu) in cases {
        let mut spec = spec(init);
        assert_eq!(pod("p", spec.clone()).demand.local.requests.cpu, cpu);
        spec["overhead"] = json!({"cpu": "50m"});
        assert_eq!(pod("p", spec).demand.local.requests.cpu, cpu + 50);
    }
}

/// Kubernetes' own tests of preemption give nodes a resource by their capacity alone.
#[test]
fn an_extended_resource_of_the_capacity_is_allocatable_and_nothing_else_is() {
    let row = node("a", |node| {
        node["status"]["capacity"] =
            json!({"cpu": "64", "hugepages-2Mi": "1Gi", "example.com/x": "3"});
    });
    let amounts = [("example.com/x", 3), ("hugepages-2Mi", 0), ("cpu", 2000)];
    for (name, amount) in amounts {
        assert_eq!(row.allocatable.amount(name), amount, "{name}");
    }
}

#[test]
fn a_container_counts_as_what_it_was_given_until_it_has_less() {
    let value = json!({
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "100m"}}}]},
        "status": {"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "allocatedResources": {"cpu": "700m"}}]},
    });
    let row = PodRow::from(serde_json::from_value::<Pod>(value).unwrap());
    assert_eq!(row.demand.local.requests.cpu, 700);
}

#[test]
fn selectors_and_affinity_narrow_the_choice() {
    let required = |terms: Value| {
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    };
    let expression = |operator: &str, values: Value| json!([{"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]}]);
    let cases = [
        (json!({"nodeSelector": {"zone": "b"}}), "b"),
        (required(expression("In", json!(["b", "x"]))), "b"),
        (required(expression("NotIn", json!(["a", "c"]))), "b"),
        (
            required(json!([{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": ["c"]}]}])),
            "c",
        ),
        (
            required(
                json!([{}, {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]),
            ),
            "a",
        ),
    ];
    let mut snapshot = cluster(vec![plain("a"), plain("b"), plain("c")], vec![]);
    for (spec, expected) in cases {
        assert_eq!(
            chosen(&mut snapshot, &pod("p", spec.clone())),
            expected,
            "{spec}"
        );
    }
    let impossible = pod("p", required(expression("DoesNotExist", Value::Null)));
    let expected = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.";
    assert_eq!(refusal(&mut snapshot, &impossible), expected);
}

#[test]
fn preferences_decide_where_the_rest_is_equal() {
    let preferred = json!({"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference": {
            "matchExpressions": [{"key": "zone", "operator": "In", "values": ["c"]}]}}]}}});
    let nodes = || vec![plain("a"), plain("b"), plain("c")];
    assert_eq!(
        chosen(&mut cluster(nodes(), vec![]), &pod("p", preferred)),
        "c"
    );
    let discouraged = ["a", "c"].map(|name| {
        node(name, |n| {
            n["spec"]["taints"] = json!([{"key": "x", "effect": "PreferNoSchedule"}]);
        })
    });
    let mut mixed = discouraged.to_vec();
    mixed.push(plain("b"));
    assert_eq!(
        chosen(&mut cluster(mixed, vec![]), &pod("p", json!({}))),
        "b"
    );
}

#[test]
fn the_emptier_node_is_preferred() {
    let busy = on("a", asking("1", json!({"cpu": "1", "memory": "2Gi"})));
    let mut snapshot = cluster(vec![plain("a"), plain("b")], vec![busy]);
    assert_eq!(
        chosen(&mut snapshot, &asking("p", json!({"cpu": "100m"}))),
        "b"
    );
}

#[test]
fn a_family_is_spread_even_where_another_node_is_emptier() {
    let family = |name: &str| {
        let value = json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a"}]},
        });
        PodRow::from(serde_json::from_value::<Pod>(value).unwrap())
    };
    let busy = on("b", asking("1", json!({"cpu": "1", "memory": "2Gi"})));
    let mut snapshot = cluster(
        vec![plain("a"), plain("b")],
        vec![busy, on("a", family("x"))],
    );
    assert_eq!(chosen(&mut snapshot, &family("y")), "b");
}

#[test]
fn ties_are_broken_by_the_pod_so_that_no_node_is_favoured() {
    let mut snapshot = cluster(vec![plain("a"), plain("b"), plain("c")], vec![]);
    let chosen: BTreeSet<String> = (0..40)
        .map(|n| chosen(&mut snapshot, &pod(&format!("p{n}"), json!({}))))
        .collect();
    assert_eq!(chosen.len(), 3);
}
