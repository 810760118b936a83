//! Pod affinity and anti-affinity, as Kubernetes has them.

use super::*;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Nodes a1, a2, b1: two zones.
fn nodes() -> Vec<NodeRow> {
    ["a1", "a2", "b1"]
        .map(|name| {
            node(name, |node| {
                node["metadata"]["labels"] =
                    json!({"zone": &name[..1], "kubernetes.io/hostname": name});
            })
        })
        .into()
}

pub fn labelled(name: &str, labels: Value, spec: Value) -> PodRow {
    in_namespace("ns", name, labels, spec)
}

fn in_namespace(namespace: &str, name: &str, labels: Value, spec: Value) -> PodRow {
    let mut value = json!({
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "labels": labels,
        },
        "spec": {"containers": [{"name": "a"}]},
    });
    for (field, given) in spec.as_object().unwrap() {
        value["spec"][field] = given.clone();
    }
    PodRow::from(serde_json::from_value::<Pod>(value).unwrap())
}

fn term(app: &str, key: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

fn affinity(kind: &str, terms: Value) -> Value {
    json!({"affinity": {kind: {REQUIRED: terms}}})
}

#[test]
fn a_pod_goes_only_where_those_are_that_it_needs() {
    let web = || on("b1", labelled("web", json!({"app": "web"}), json!({})));
    let near = |key: &str| affinity("podAffinity", json!([term("web", key)]));
    let mut snapshot = cluster(nodes(), vec![web()]);
    assert_eq!(chosen(&mut snapshot, &pod("p", near("zone"))), "b1");
    let nowhere = "0/3 nodes are available: 3 node(s) didn't match pod affinity rules.";
    let mut snapshot = cluster(nodes(), vec![]);
    assert_eq!(refusal(&mut snapshot, &pod("p", near("zone"))), nowhere);
    let mut snapshot = cluster(nodes(), vec![web()]);
    assert_eq!(refusal(&mut snapshot, &pod("p", near("rack"))), nowhere);
    let elsewhere = in_namespace("other", "p", json!({}), near("zone"));
    assert_eq!(refusal(&mut snapshot, &elsewhere), nowhere);
}

#[test]
fn the_first_of_pods_that_need_each_other_may_start_anywhere() {
    let near = affinity("podAffinity", json!([term("web", "zone")]));
    let first = labelled("p", json!({"app": "web"}), near.clone());
    let mut snapshot = cluster(nodes(), vec![]);
    chosen(&mut snapshot, &first);
    let second = labelled("q", json!({"app": "web"}), near.clone());
    let mut snapshot = cluster(nodes(), vec![on("b1", first)]);
    assert_eq!(chosen(&mut snapshot, &second), "b1");
    // A node without the label is none to start on.
    let mut bare = cluster(
        vec![node("x", |node| node["metadata"]["labels"] = json!({}))],
        vec![],
    );
    assert!(
        refusal(&mut bare, &labelled("p", json!({"app": "web"}), near)).contains("affinity rules")
    );
}

#[test]
fn all_terms_of_affinity_count_pods_for_which_all_of_them_hold() {
    let both = affinity(
        "podAffinity",
        json!([
            term("web", "zone"),
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"tier": "front"}}},
        ]),
    );
    let one = on("a1", labelled("1", json!({"app": "web"}), json!({})));
    let other = on("a1", labelled("2", json!({"tier": "front"}), json!({})));
    let mut snapshot = cluster(nodes(), vec![one, other]);
    assert!(refusal(&mut snapshot, &pod("p", both.clone())).contains("affinity rules"));
    let whole = on(
        "a2",
        labelled("3", json!({"app": "web", "tier": "front"}), json!({})),
    );
    let mut snapshot = cluster(nodes(), vec![whole]);
    assert_eq!(chosen(&mut snapshot, &pod("p", both)), "a2");
}

#[test]
fn anti_affinity_holds_for_the_pod_and_for_those_that_are_there() {
    let away = affinity("podAntiAffinity", json!([term("web", "zone")]));
    let web = || labelled("web", json!({"app": "web"}), json!({}));
    let mut snapshot = cluster(nodes(), vec![on("a1", web())]);
    assert_eq!(chosen(&mut snapshot, &pod("p", away.clone())), "b1");
    let mut snapshot = cluster(nodes(), vec![on("a1", pod("shy", away.clone()))]);
    assert_eq!(chosen(&mut snapshot, &web()), "b1");
    let mut snapshot = cluster(
        nodes(),
        vec![on("a1", web()), on("b1", pod("shy", away.clone()))],
    );
    let both = labelled("p", json!({"app": "web"}), away);
    let expected = "0/3 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules, \
                    2 node(s) didn't match pod anti-affinity rules.";
    assert_eq!(refusal(&mut snapshot, &both), expected);
}

#[test]
fn namespaces_are_named_or_chosen_by_their_labels() {
    let with = |more: Value| {
        let mut term = term("web", "zone");
        for (field, value) in more.as_object().unwrap() {
            term[field] = value.clone();
        }
        affinity("podAntiAffinity", json!([term]))
    };
    let web = || {
        on(
            "a1",
            in_namespace("shop", "web", json!({"app": "web"}), json!({})),
        )
    };
    let cases = [
        (json!({}), 3),
        (json!({"namespaces": ["shop"]}), 1),
        (json!({"namespaceSelector": {}}), 1),
        (
            json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}),
            1,
        ),
        (
            json!({"namespaceSelector": {"matchLabels": {"team": "b"}}}),
            3,
        ),
    ];
    for (more, free) in cases {
        let mut snapshot = cluster(nodes(), vec![web()]);
        let labels = [("team".to_owned(), "a".to_owned())];
        snapshot
            .index_mut()
            .set_namespace("shop", Some(labels.into()));
        let shy = pod("p", with(more.clone()));
        snapshot.upsert_pod(shy.clone());
        let id = snapshot.pod_id(&shy.key).unwrap();
        let verdicts = Cycle::default().verdicts(&mut snapshot, id);
        let count = verdicts
            .iter()
            .filter(|(_, refusal)| refusal.is_none())
            .count();
        assert_eq!(count, free, "{more}");
    }
}

#[test]
fn keys_of_labels_narrow_a_term_to_the_pods_own_values() {
    let web =
        |name: &str, hash: &str| labelled(name, json!({"app": "web", "hash": hash}), json!({}));
    let away = |field: &str| {
        let mut term = term("web", "zone");
        term[field] = json!(["hash"]);
        affinity("podAntiAffinity", json!([term]))
    };
    for (field, hash, refused) in [
        ("matchLabelKeys", "new", 0),
        ("matchLabelKeys", "old", 2),
        ("mismatchLabelKeys", "new", 2),
        ("mismatchLabelKeys", "old", 0),
    ] {
        let mut snapshot = cluster(nodes(), vec![on("a1", web("web", "old"))]);
        let shy = labelled("p", json!({"app": "web", "hash": hash}), away(field));
        snapshot.upsert_pod(shy.clone());
        let id = snapshot.pod_id(&shy.key).unwrap();
        let verdicts = Cycle::default().verdicts(&mut snapshot, id);
        let count = verdicts
            .iter()
            .filter(|(_, refusal)| refusal.is_some())
            .count();
        assert_eq!(count, refused, "{field} {hash}");
    }
}

#[test]
fn wishes_decide_both_ways_where_the_rest_is_equal() {
    let wish = |kind: &str| {
        json!({"affinity": {kind: {PREFERRED: [
            {"weight": 100, "podAffinityTerm": term("web", "kubernetes.io/hostname")}]}}})
    };
    let web = |name: &str| labelled(name, json!({"app": "web"}), json!({}));
    let idle = |name: &str| on(name, pod(&format!("idle-{name}"), json!({})));
    let others = || vec![idle("a2"), idle("b1")];
    let with = |more: PodRow| others().into_iter().chain([more]).collect::<Vec<_>>();
    let mut snapshot = cluster(nodes(), with(on("a1", web("web"))));
    assert_eq!(chosen(&mut snapshot, &pod("p", wish("podAffinity"))), "a1");
    assert_ne!(
        chosen(&mut snapshot, &pod("p", wish("podAntiAffinity"))),
        "a1"
    );
    let fan = || on("a1", pod("fan", wish("podAffinity")));
    assert_eq!(chosen(&mut cluster(nodes(), with(fan())), &web("p")), "a1");
    let needs = affinity(
        "podAffinity",
        json!([term("web", "kubernetes.io/hostname")]),
    );
    let needy = on("b1", pod("needy", needs));
    let mut snapshot = cluster(nodes(), vec![idle("a1"), idle("a2"), needy]);
    assert_eq!(chosen(&mut snapshot, &web("p")), "b1");
}
