//! Preemption, as Kubernetes has it.

use super::affinity::labelled;
use super::*;
use crate::preempt::Budget;
use api::selector::LabelSelector;

fn with_priority(name: &str, priority: i32, cpu: &str) -> PodRow {
    let containers = json!([{"name": "a", "resources": {"requests": {"cpu": cpu}}}]);
    labelled(
        name,
        json!({"name": name}),
        json!({"priority": priority, "containers": containers}),
    )
}

fn decided(cycle: &mut Cycle, snapshot: &mut Snapshot, pod: &PodRow) -> Decision {
    snapshot.upsert_pod(pod.clone());
    let id = snapshot.pod_id(&pod.key).unwrap();
    cycle.decide(snapshot, id)
}

/// The node and the names of the victims.
fn stopped(cycle: &mut Cycle, snapshot: &mut Snapshot, pod: &PodRow) -> (String, Vec<String>) {
    let Decision::Unschedulable {
        preemption: Some(it),
        ..
    } = decided(cycle, snapshot, pod)
    else {
        panic!("no preemption")
    };
    let name = |id: &usize| snapshot.row(*id).unwrap().key.1.clone();
    let mut names: Vec<String> = it.victims.iter().map(name).collect();
    names.sort();
    (snapshot.node_name(it.node).to_owned(), names)
}

fn bind(node: usize) -> Decision {
    Decision::Bind {
        node,
        volumes: Default::default(),
    }
}

fn cases() -> Vec<(
    &'static str,
    Vec<PodRow>,
    PodRow,
    &'static str,
    Vec<&'static str>,
)> {
    vec![
        (
            "the least important victim",
            vec![
                on("a", with_priority("mid", 100, "2")),
                on("b", with_priority("low", 1, "2")),
            ],
            with_priority("p", 1000, "1"),
            "b",
            vec!["low"],
        ),
        (
            "no more victims than it takes, the less important ones",
            vec![
                on("a", with_priority("high", 2000, "500m")),
                on("a", with_priority("low", 1, "500m")),
                on("a", with_priority("mid", 2, "1")),
            ],
            with_priority("p", 1000, "500m"),
            "a",
            vec!["low"],
        ),
        (
            "fewer victims where the most important is the same",
            vec![
                on("a", with_priority("1", 1, "1")),
                on("a", with_priority("2", 1, "1")),
                on("b", with_priority("3", 1, "2")),
            ],
            with_priority("p", 1000, "2"),
            "b",
            vec!["3"],
        ),
        (
            "a port is made free like an amount",
            vec![on("a", {
                let ports = json!([{"containerPort": 1, "hostPort": 80}]);
                let containers = json!([{"name": "a", "ports": ports}]);
                labelled("web", json!({}), json!({"containers": containers}))
            })],
            {
                let ports = json!([{"containerPort": 1, "hostPort": 80}]);
                let containers = json!([{"name": "a", "ports": ports}]);
                labelled(
                    "p",
                    json!({}),
                    json!({"priority": 9, "containers": containers}),
                )
            },
            "a",
            vec!["web"],
        ),
    ]
}

#[test]
fn victims_are_as_few_and_as_unimportant_as_will_do() {
    for (what, held, pod, node, victims) in cases() {
        let mut names: Vec<&str> = held.iter().map(|pod| pod.node.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let nodes = names.into_iter().map(plain).collect();
        let mut snapshot = cluster(nodes, held);
        let found = stopped(&mut Cycle::default(), &mut snapshot, &pod);
        let victims = victims.into_iter().map(str::to_owned).collect();
        assert_eq!(found, (node.to_owned(), victims), "{what}");
    }
}

#[test]
fn why_nothing_is_stopped_is_said_in_kubernetes_words() {
    let equal = || vec![on("a", with_priority("1", 5, "2"))];
    let none = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
                1 No preemption victims found for incoming pod.";
    let mut snapshot = cluster(vec![plain("a")], equal());
    assert_eq!(said(&mut snapshot, &with_priority("p", 5, "1")), none);
    let lasting = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
                   1 Preemption is not helpful for scheduling.";
    assert_eq!(said(&mut snapshot, &with_priority("p", 9, "3")), lasting);
    let mut never = with_priority("p", 9, "1");
    let mut demand = (*never.demand).clone();
    demand.never_preempts = true;
    never.demand = Arc::new(demand);
    let expected = "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to \
         preemptionPolicy=Never.";
    assert_eq!(said(&mut snapshot, &never), expected);
}

#[test]
fn a_budget_spares_its_pods_where_others_will_do() {
    let held = vec![
        on("a", with_priority("1", 1, "2")),
        on("b", with_priority("2", 2, "2")),
    ];
    let mut snapshot = cluster(vec![plain("a"), plain("b")], held);
    let mut cycle = Cycle::default();
    let budget = |allowed| Budget {
        namespace: "ns".to_owned(),
        name: "keep".to_owned(),
        selector: LabelSelector::parse("name=1").unwrap(),
        allowed,
        disrupted: BTreeSet::new(),
    };
    let pod = with_priority("p", 9, "1");
    assert_eq!(stopped(&mut cycle, &mut snapshot, &pod).1, ["1"]);
    cycle.budgets.set(budget(0));
    assert_eq!(stopped(&mut cycle, &mut snapshot, &pod).1, ["2"]);
    cycle.budgets.set(budget(1));
    assert_eq!(stopped(&mut cycle, &mut snapshot, &pod).1, ["1"]);
}

#[test]
fn room_that_is_being_made_is_for_the_pod_that_it_is_made_for() {
    let mut snapshot = cluster(
        vec![plain("a")],
        vec![on("a", with_priority("low", 1, "2"))],
    );
    let mut cycle = Cycle::default();
    let first = with_priority("first", 9, "2");
    assert_eq!(stopped(&mut cycle, &mut snapshot, &first).1, ["low"]);
    let (id, node) = (
        snapshot.pod_id(&first.key).unwrap(),
        snapshot.node_id("a").unwrap(),
    );
    snapshot.nominate(id, Some(node));
    // Another of the same importance neither stops anything for room that is promised nor takes it.
    let second = with_priority("second", 9, "2");
    let Decision::Unschedulable {
        preemption: None, ..
    } = decided(&mut cycle, &mut snapshot, &second)
    else {
        panic!("the room of the first")
    };
    snapshot.remove_pod(&("ns".to_owned(), "low".to_owned()));
    assert!(matches!(
        decided(&mut cycle, &mut snapshot, &second),
        Decision::Unschedulable { .. }
    ));
    assert_eq!(decided(&mut cycle, &mut snapshot, &first), bind(node));
    // A more important one takes it.
    let third = with_priority("third", 10, "2");
    assert_eq!(decided(&mut cycle, &mut snapshot, &third), bind(node));
}

#[test]
fn while_victims_are_on_their_way_out_no_more_are_stopped() {
    let mut leaving = on("a", with_priority("low", 1, "2"));
    leaving.terminating = true;
    let mut snapshot = cluster(vec![plain("a")], vec![leaving]);
    let pod = with_priority("p", 9, "1");
    snapshot.upsert_pod(pod.clone());
    let (id, node) = (
        snapshot.pod_id(&pod.key).unwrap(),
        snapshot.node_id("a").unwrap(),
    );
    snapshot.nominate(id, Some(node));
    let Decision::Unschedulable {
        message,
        keeps_nomination,
        ..
    } = Cycle::default().decide(&mut snapshot, id)
    else {
        panic!("no room")
    };
    assert!(message.ends_with("not eligible due to a terminating pod on the nominated node."));
    assert!(keeps_nomination);
}

/// The upstream test of topology spread with preemption: one victim would make room, two keep the spread.
#[test]
fn victims_are_counted_in_topology_spread() {
    let nodes = ["a", "b"].map(|name| {
        node(name, |node| {
            node["status"]["allocatable"]["example.com/fake"] = json!("10");
            node["status"]["allocatable"]["pods"] = json!("10");
        })
    });
    let asking = |name: &str, priority: i32, amount: &str, more: Value| {
        let mut spec = json!({"priority": priority, "containers": [{"name": "a",
            "resources": {"requests": {"example.com/fake": amount}}}]});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        labelled(name, json!({"e2e": ""}), spec)
    };
    let mut held = vec![on("a", asking("high", 1000, "9", json!({})))];
    for name in ["low-1", "low-2", "low-3"] {
        held.push(on("b", asking(name, 1, "3", json!({}))));
    }
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchExpressions": [{"key": "e2e", "operator": "Exists"}]}}]});
    let medium = asking("medium", 100, "3", spread);
    let mut snapshot = cluster(nodes.to_vec(), held);
    let (node, victims) = stopped(&mut Cycle::default(), &mut snapshot, &medium);
    assert_eq!((node.as_str(), victims.len()), ("b", 2));
    // All are back where they were.
    let view = snapshot.view(snapshot.node_id("b").unwrap()).unwrap();
    assert_eq!(view.usage.pods.len(), 3);
}
