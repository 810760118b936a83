//! What an event of a pod costs: the objects that it touches, however many others there are.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::tests::{asked, engine, list};
use super::*;
use crate::fixture::{controlled_by, now, object};

/// As many Services, each with its own pod of its own set, all of one namespace and of one app.
fn objects(count: usize) -> Vec<Object> {
    let labels = |number: usize| json!({"app": "web", "shard": number.to_string()});
    let mut all = vec![object(
        Kind::NODE,
        json!({"metadata": {"name": "node-1"}, "spec": {"podCIDR": "10.100.0.0/24",
            "podCIDRs": ["10.100.0.0/24"]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    )];
    for number in 0..count {
        let name = format!("web-{number}");
        let set = json!({"metadata": {"name": name}, "spec": {"replicas": 1,
            "selector": {"matchLabels": labels(number)}, "template": {}}});
        let service = json!({"metadata": {"name": name}, "spec": {"selector": labels(number),
            "ipFamilies": ["IPv4"], "clusterIP": "10.96.0.9", "ports": [{"port": 80}]}});
        let stateful = json!({"metadata": {"name": format!("db-{number}")}, "spec": {"replicas": 1,
            "selector": {"matchLabels": {"db": number.to_string()}},
            "template": {"metadata": {"labels": {"db": number.to_string()}}}}});
        all.push(object(Kind::STATEFUL_SET, stateful));
        all.push(revision(number));
        all.push(stateful_pod(number, 1));
        all.push(object(Kind::REPLICA_SET, set));
        all.push(object(Kind::SERVICE, service));
        all.push(pod(number, 1, labels(number)));
    }
    all
}

fn pod(number: usize, revision: u64, labels: Value) -> Object {
    let metadata = json!({"name": format!("web-{number}-x"), "labels": labels,
        "resourceVersion": revision.to_string(),
        "ownerReferences": controlled_by(Kind::REPLICA_SET, &format!("web-{number}"))});
    let status = json!({"phase": "Running", "podIP": "10.100.0.7",
        "podIPs": [{"ip": "10.100.0.7"}],
        "conditions": [{"type": "Ready", "status": "True"}]});
    object(
        Kind::POD,
        json!({"metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status}),
    )
}

fn revision(number: usize) -> Object {
    let labels = json!({"db": number.to_string()});
    let data = crate::revisions::data(&json!({"metadata": {"labels": labels}}));
    let owner = controlled_by(Kind::STATEFUL_SET, &format!("db-{number}"));
    let metadata = json!({"name": format!("db-{number}-r"), "labels": labels,
        "ownerReferences": owner});
    let value = json!({"metadata": metadata, "data": data, "revision": 1});
    object(Kind::CONTROLLER_REVISION, value)
}

fn stateful_pod(number: usize, revision: u64) -> Object {
    let owner = controlled_by(Kind::STATEFUL_SET, &format!("db-{number}"));
    let metadata = json!({"name": format!("db-{number}-0"), "ownerReferences": owner,
        "labels": {"db": number.to_string()}, "resourceVersion": revision.to_string()});
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"phase": "Running", "conditions": ready});
    let spec = json!({"nodeName": "node-1"});
    object(
        Kind::POD,
        json!({"metadata": metadata, "spec": spec, "status": status}),
    )
}

/// The objects that are looked at because of one event of a pod, until nothing is due any more.
fn visits(count: usize) -> [usize; 3] {
    let mut engine = engine();
    list(&mut engine, objects(count));
    asked(&mut engine, 0);
    let later = now() + SignedDuration::from_secs(1);
    let same = json!({"app": "web", "shard": "0"});
    let other = json!({"app": "other", "shard": "0"});
    let events = [pod(0, 2, same), pod(0, 3, other), stateful_pod(0, 4)];
    events.map(|event| {
        engine.world.visits.set(0);
        engine.apply(Change::Upsert(event), later);
        asked(&mut engine, 1);
        engine.world.visits.get()
    })
}

#[test]
fn a_pods_event_costs_the_same_among_one_and_ten_thousand_services_and_pods() {
    let alone = visits(1);
    assert!(
        alone.iter().all(|visits| (1..100).contains(visits)),
        "{alone:?}"
    );
    assert_eq!(visits(1_000), alone);
    assert_eq!(visits(10_000), alone);
}
