//! Topology spread constraints, as Kubernetes has them.

use super::affinity::labelled;
use super::*;

/// Zone a with two nodes, zone b with one, and one node without a zone.
fn nodes() -> Vec<NodeRow> {
    [("a1", "a"), ("a2", "a"), ("b1", "b"), ("x", "")]
        .map(|(name, zone)| {
            node(name, |node| {
                let mut labels = json!({"kubernetes.io/hostname": name});
                if !zone.is_empty() {
                    labels["zone"] = json!(zone);
                }
                node["metadata"]["labels"] = labels;
                node["status"]["allocatable"]["pods"] = json!("30");
            })
        })
        .into()
}

fn constraint(more: Value) -> Value {
    let mut it = json!({
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    });
    for (field, value) in more.as_object().unwrap() {
        it[field] = value.clone();
    }
    it
}

fn spread(name: &str, more: Value, spec: Value) -> PodRow {
    let mut spec = spec;
    spec["topologySpreadConstraints"] = json!([constraint(more)]);
    labelled(name, json!({"app": "web"}), spec)
}

fn web(name: &str, node: &str) -> PodRow {
    on(node, labelled(name, json!({"app": "web"}), json!({})))
}

/// The nodes that would do.
fn open(snapshot: &mut Snapshot, pod: &PodRow) -> Vec<String> {
    snapshot.upsert_pod(pod.clone());
    let id = snapshot.pod_id(&pod.key).unwrap();
    let verdicts = Cycle::default().verdicts(snapshot, id).into_iter();
    verdicts
        .filter(|(_, refusal)| refusal.is_none())
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn a_domain_may_not_be_further_ahead_than_the_skew() {
    let mut snapshot = cluster(nodes(), vec![web("1", "a1")]);
    assert_eq!(
        open(&mut snapshot, &spread("p", json!({}), json!({}))),
        ["b1"]
    );
    let wide = spread("p", json!({"maxSkew": 2}), json!({}));
    assert_eq!(
        open(&mut cluster(nodes(), vec![web("1", "a1")]), &wide),
        ["a1", "a2", "b1"]
    );
    let expected = "0/4 nodes are available: 1 node(s) didn't match pod topology spread constraints \
                    (missing required label), 1 node(s) were unschedulable, 2 node(s) didn't match pod \
                    topology spread constraints.";
    let mut cordoned = nodes();
    cordoned[2].unschedulable = true;
    let mut snapshot = cluster(cordoned, vec![web("1", "a1")]);
    assert_eq!(
        refusal(&mut snapshot, &spread("p", json!({}), json!({}))),
        expected
    );
}

#[test]
fn pods_that_are_not_selected_or_on_their_way_out_do_not_count() {
    let other = on("a1", labelled("1", json!({"app": "db"}), json!({})));
    let mut leaving = web("2", "a1");
    leaving.terminating = true;
    let mut snapshot = cluster(nodes(), vec![other, leaving]);
    assert_eq!(
        open(&mut snapshot, &spread("p", json!({}), json!({}))),
        ["a1", "a2", "b1"]
    );
}

#[test]
fn a_pod_that_is_not_selected_itself_does_not_raise_the_count() {
    let mut snapshot = cluster(nodes(), vec![web("1", "a1")]);
    let constraints = json!({"topologySpreadConstraints": [constraint(json!({}))]});
    let foreign = labelled("p", json!({"app": "db"}), constraints);
    assert_eq!(open(&mut snapshot, &foreign), ["a1", "a2", "b1"]);
}

#[test]
fn fewer_domains_than_wanted_count_as_an_empty_one() {
    let one_each = || vec![web("1", "a1"), web("2", "b1")];
    let plain = spread("p", json!({}), json!({}));
    assert_eq!(
        open(&mut cluster(nodes(), one_each()), &plain),
        ["a1", "a2", "b1"]
    );
    let three = spread("p", json!({"minDomains": 3}), json!({}));
    assert!(open(&mut cluster(nodes(), one_each()), &three).is_empty());
}

#[test]
fn only_nodes_that_the_pod_may_use_are_counted_unless_it_says_otherwise() {
    let only_a = json!({"nodeSelector": {"zone": "a"}});
    let held = || vec![web("1", "a1")];
    let honors = spread("p", json!({}), only_a.clone());
    assert_eq!(open(&mut cluster(nodes(), held()), &honors), ["a1", "a2"]);
    let ignores = spread("p", json!({"nodeAffinityPolicy": "Ignore"}), only_a);
    assert!(open(&mut cluster(nodes(), held()), &ignores).is_empty());
}

#[test]
fn tainted_nodes_are_counted_unless_taints_are_honored() {
    let mut tainted = nodes();
    tainted[2].taints.push(crate::node::Taint {
        key: "gpu".to_owned(),
        value: String::new(),
        effect: "NoSchedule".to_owned(),
    });
    let held = || vec![web("1", "a1")];
    let ignores = spread("p", json!({}), json!({}));
    assert!(open(&mut cluster(tainted.clone(), held()), &ignores).is_empty());
    let honors = spread("p", json!({"nodeTaintsPolicy": "Honor"}), json!({}));
    assert_eq!(open(&mut cluster(tainted, held()), &honors), ["a1", "a2"]);
}

#[test]
fn keys_of_labels_count_only_pods_of_the_same_values() {
    let old = on(
        "a1",
        labelled("1", json!({"app": "web", "hash": "old"}), json!({})),
    );
    let spec =
        json!({"topologySpreadConstraints": [constraint(json!({"matchLabelKeys": ["hash"]}))]});
    let new = labelled("p", json!({"app": "web", "hash": "new"}), spec);
    assert_eq!(
        open(&mut cluster(nodes(), vec![old]), &new),
        ["a1", "a2", "b1"]
    );
}

#[test]
fn a_constraint_that_may_be_broken_only_rates() {
    let soft = json!({"whenUnsatisfiable": "ScheduleAnyway"});
    let held = vec![web("1", "a1"), web("2", "a2")];
    let mut snapshot = cluster(nodes()[..3].to_vec(), held);
    assert_eq!(chosen(&mut snapshot, &spread("p", soft, json!({}))), "b1");
}
