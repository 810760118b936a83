use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

pub fn node(name: &str, cpu: &str) -> NodeRow {
    let value = json!({
        "metadata": {"name": name},
        "status": {
            "allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "5"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    NodeRow::from(serde_json::from_value::<Node>(value).unwrap())
}

pub fn pod(name: &str, cpu: i64, revision: u64, change: impl FnOnce(&mut Value)) -> PodRow {
    let mut value = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": format!("uid-{name}"),
            "resourceVersion": revision.to_string(),
        },
        "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": format!("{cpu}m")}}}]},
    });
    change(&mut value);
    PodRow::from(serde_json::from_value::<Pod>(value).unwrap())
}

pub fn key(name: &str) -> PodKey {
    ("ns".to_owned(), name.to_owned())
}

pub fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

fn started(nodes: Vec<NodeRow>, pods: Vec<PodRow>) -> Engine {
    let mut engine = Engine::default();
    engine.apply(Change::Nodes(nodes), at(0));
    engine.apply(
        Change::Pods {
            items: pods,
            revision: 1,
        },
        at(0),
    );
    engine
}

fn bound_to(order: Option<Order>) -> Option<(String, String)> {
    match order {
        Some(Order::Bind { key, node, .. }) => Some((key.1, node)),
        _ => None,
    }
}

#[test]
fn nothing_is_decided_before_all_pods_and_nodes_are_known() {
    let mut engine = Engine::default();
    engine.apply(
        Change::Pods {
            items: vec![pod("a", 100, 1, |_| {})],
            revision: 1,
        },
        at(0),
    );
    assert_eq!(engine.next(at(0)), None);
    engine.apply(Change::Nodes(vec![node("n", "1")]), at(0));
    assert_eq!(bound_to(engine.next(at(0))), Some(("a".into(), "n".into())));
}

#[test]
fn a_decided_pod_holds_its_place_before_it_is_bound() {
    let pods = vec![pod("a", 600, 1, |_| {}), pod("b", 600, 1, |_| {})];
    let mut engine = started(vec![node("n", "1")], pods);
    assert_eq!(bound_to(engine.next(at(0))), Some(("a".into(), "n".into())));
    let Some(Order::Explain(explanation)) = engine.next(at(0)) else {
        panic!()
    };
    let expected = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
                    1 No preemption victims found for incoming pod.";
    assert_eq!(explanation.message, expected);
    assert!(explanation.changed);
}

#[test]
fn a_failed_bind_gives_the_place_back_and_is_tried_again_later() {
    let pods = vec![pod("a", 600, 1, |_| {})];
    let mut engine = started(vec![node("n", "1")], pods);
    engine.next(at(0));
    let same = Some(Box::new(pod("a", 600, 1, |_| {})));
    engine.bound(&key("a"), "uid-a", Bound::Failed(same), at(0));
    assert_eq!(engine.next(at(0)), None);
    assert_eq!(engine.next_deadline(), Some(at(10)));
    assert_eq!(
        bound_to(engine.next(at(10))),
        Some(("a".into(), "n".into()))
    );
}

#[test]
fn a_bind_that_only_seemed_to_fail_keeps_its_place() {
    let pods = vec![pod("a", 600, 1, |_| {}), pod("b", 600, 1, |_| {})];
    let mut engine = started(vec![node("n", "1")], pods);
    engine.next(at(0));
    let found = pod("a", 600, 5, |pod| pod["spec"]["nodeName"] = json!("n"));
    engine.bound(
        &key("a"),
        "uid-a",
        Bound::Failed(Some(Box::new(found))),
        at(0),
    );
    assert!(bound_to(engine.next(at(100))).is_none());
}

#[test]
fn a_pod_that_goes_makes_room_for_one_that_waits() {
    let running = pod("a", 600, 1, |pod| pod["spec"]["nodeName"] = json!("n"));
    let mut engine = started(
        vec![node("n", "1")],
        vec![running, pod("b", 600, 1, |_| {})],
    );
    assert!(matches!(engine.next(at(0)), Some(Order::Explain(_))));
    engine.apply(Change::PodGone(key("a")), at(50));
    assert_eq!(
        bound_to(engine.next(at(50))),
        Some(("b".into(), "n".into()))
    );
}

#[test]
fn its_own_condition_does_not_wake_a_pod_but_a_change_of_what_it_asks_does() {
    let picky = |revision, selector: Value| {
        pod("a", 100, revision, |pod| {
            pod["spec"]["nodeSelector"] = selector
        })
    };
    let mut engine = started(vec![node("n", "1")], vec![picky(1, json!({"x": "y"}))]);
    assert!(matches!(engine.next(at(0)), Some(Order::Explain(_))));
    let mut told = picky(2, json!({"x": "y"}));
    told.told = Some("because".to_owned());
    engine.apply(Change::Pod(told), at(1000));
    assert_eq!(engine.next(at(1000)), None);
    engine.apply(Change::Pod(picky(3, json!({}))), at(1000));
    assert_eq!(
        bound_to(engine.next(at(1000))),
        Some(("a".into(), "n".into()))
    );
}

#[test]
fn a_pod_goes_to_a_node_that_gets_its_label_and_stays_when_the_label_goes() {
    let labelled = |is_labelled: bool| {
        let labels = if is_labelled {
            json!({"disk": "fast"})
        } else {
            json!({})
        };
        let mut row = node("n", "1");
        row.labels = serde_json::from_value(labels).unwrap();
        row
    };
    let picky = pod("a", 100, 1, |pod| {
        pod["spec"]["nodeSelector"] = json!({"disk": "fast"})
    });
    let mut engine = started(vec![labelled(false)], vec![picky]);
    let Some(Order::Explain(explanation)) = engine.next(at(0)) else {
        panic!("it fits nowhere");
    };
    let why = "1 node(s) didn't match Pod's node affinity/selector";
    assert!(explanation.message.contains(why), "{explanation:?}");
    engine.apply(Change::Node(labelled(true)), at(10_000));
    let n = Some(("a".into(), "n".into()));
    assert_eq!(bound_to(engine.next(at(10_000))), n);
    engine.bound(&key("a"), "uid-a", Bound::Done, at(10_000));
    engine.apply(Change::Node(labelled(false)), at(20_000));
    assert_eq!(engine.next(at(20_000)), None);
}

#[test]
fn a_pod_is_scheduled_once_its_last_gate_is_open() {
    let gated = |revision, gates: Value| {
        pod("a", 100, revision, |pod| {
            pod["spec"]["schedulingGates"] = gates
        })
    };
    let (one, two) = (json!({"name": "one"}), json!({"name": "two"}));
    let pods = vec![gated(1, json!([one, two]))];
    let mut engine = started(vec![node("n", "1")], pods);
    engine.apply(Change::Pod(gated(2, json!([two]))), at(10));
    assert_eq!(engine.next(at(10)), None);
    engine.apply(Change::Pod(gated(3, json!([]))), at(20));
    let n = Some(("a".into(), "n".into()));
    assert_eq!(bound_to(engine.next(at(20))), n);
}

#[test]
fn pods_that_are_not_ours_are_left_alone() {
    let other = |change: fn(&mut Value)| pod("a", 100, 1, change);
    let pods = [
        other(|pod| pod["spec"]["schedulerName"] = json!("mine")),
        other(|pod| pod["spec"]["schedulingGates"] = json!([{"name": "wait"}])),
        other(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
        other(|pod| pod["status"] = json!({"phase": "Failed"})),
    ];
    for pod in pods {
        assert_eq!(started(vec![node("n", "1")], vec![pod]).next(at(0)), None);
    }
}

proptest! {
    /// Whatever binds succeed, fail or stay open, and whatever comes late: no node is
    /// over-committed.
    #[test]
    fn no_history_over_commits_a_node(
        steps in proptest::collection::vec((0..7_u8, 0..12_usize, 1..9_i64), 1..150),
    ) {
        let mut engine = started(vec![node("a", "1"), node("b", "1500m")], vec![]);
        // The server's truth: CPU, node and uid of every pod that exists.
        let mut truth: BTreeMap<String, (i64, String, String)> = BTreeMap::new();
        let mut open: Vec<(PodKey, String, String)> = Vec::new();
        let mut revision = 1;
        let row = |name: &str, (cpu, on, uid): &(i64, String, String), revision: u64| {
            pod(name, *cpu, revision, |pod| {
                pod["metadata"]["uid"] = json!(uid);
                if !on.is_empty() {
                    pod["spec"]["nodeName"] = json!(on);
                }
            })
        };
        for (now, (what, which, size)) in steps.into_iter().enumerate() {
            let now = at(i64::try_from(now).unwrap() * 50);
            let name = format!("p{which}");
            revision += 1;
            match what {
                0 | 1 if !truth.contains_key(&name) => {
                    let created = (size * 100, String::new(), revision.to_string());
                    engine.apply(Change::Pod(row(&name, &created, revision)), now);
                    truth.insert(name, created);
                }
                2 if truth.remove(&name).is_some() => {
                    engine.apply(Change::PodGone(key(&name)), now);
                }
                3 | 4 => {
                    if let Some(Order::Bind { key, uid, node }) = engine.next(now) {
                        open.push((key, uid, node));
                    }
                }
                5 | 6 if !open.is_empty() => {
                    let (key, uid, node) = open.swap_remove(which % open.len());
                    let found = truth.get_mut(&key.1).filter(|pod| pod.1.is_empty() && pod.2 == uid);
                    let binds = found.is_some() && size > 2;
                    if let Some(pod) = found.filter(|_| size > 2) {
                        pod.1 = node;
                    }
                    let outcome = if binds && what == 5 {
                        Bound::Done
                    } else {
                        let known = truth.get(&key.1);
                        Bound::Failed(known.map(|pod| Box::new(row(&key.1, pod, revision))))
                    };
                    engine.bound(&key, &uid, outcome, now);
                }
                _ => {}
            }
            for (node, most) in [("a", 1000), ("b", 1500)] {
                let held: i64 = truth.values().filter(|pod| pod.1 == node).map(|pod| pod.0).sum();
                prop_assert!(held <= most, "{node} holds {held}: {truth:?}");
            }
        }
    }
}

fn important(name: &str, priority: i32, revision: u64, on: &str) -> PodRow {
    pod(name, 900, revision, |pod| {
        pod["spec"]["priority"] = json!(priority);
        if !on.is_empty() {
            pod["spec"]["nodeName"] = json!(on);
        }
    })
}

fn explained(order: Option<Order>) -> Explanation {
    match order {
        Some(Order::Explain(explanation)) => explanation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn while_its_victims_go_a_pod_stops_no_more_and_then_takes_their_place() {
    let low = ["a", "b"].map(|node| important(&format!("low-{node}"), 1, 1, node));
    let mut engine = started(vec![node("a", "1"), node("b", "1")], low.to_vec());
    engine.apply(Change::Pod(important("high", 9, 2, "")), at(0));
    let told = explained(engine.next(at(0)));
    assert_eq!(told.victims.len(), 1);
    let place = told.nominated.unwrap();
    // Something else happens before the deletion is seen: the victim is not stopped again, nor another.
    engine.apply(Change::Node(node("c", "500m")), at(100));
    let told = explained(engine.next(at(100)));
    assert!(
        told.victims.is_empty() && told.nominated.is_none(),
        "{told:?}"
    );
    assert!(
        told.message
            .ends_with("terminating pod on the nominated node.")
    );
    // Another of the same importance stops the other one, not for the room that is promised.
    engine.apply(Change::Pod(important("other", 9, 3, "")), at(100));
    let told = explained(engine.next(at(100)));
    assert_eq!(told.victims.len(), 1);
    assert_ne!(told.nominated.as_deref(), Some(place.as_str()));
    engine.apply(Change::PodGone(key(&format!("low-{place}"))), at(200));
    assert_eq!(
        bound_to(engine.next(at(200))),
        Some(("high".to_owned(), place))
    );
    assert_eq!(engine.next(at(200)), None);
}

#[test]
fn a_deletion_that_does_not_show_is_tried_again() {
    let low = important("low", 1, 1, "a");
    let mut engine = started(vec![node("a", "1")], vec![low]);
    engine.apply(Change::Pod(important("high", 9, 2, "")), at(0));
    assert_eq!(explained(engine.next(at(0))).victims.len(), 1);
    assert_eq!(engine.next_deadline(), Some(at(5000)));
    assert_eq!(explained(engine.next(at(5000))).victims.len(), 1);
}
