use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{now, object, words};
use crate::pod_cidr;

fn node(ready: &str, revision: u64) -> Object {
    let metadata = json!({"name": "node-1", "resourceVersion": revision.to_string()});
    let conditions = json!([{"type": "Ready", "status": ready}]);
    let spec = json!({"podCIDR": "10.100.0.0/24"});
    object(
        Kind::NODE,
        json!({"metadata": metadata, "spec": spec, "status": {"conditions": conditions}}),
    )
}

fn lease(renewed: &str, revision: u64) -> Object {
    let metadata = json!({
        "name": "node-1", "namespace": "kube-node-lease", "resourceVersion": revision.to_string(),
    });
    object(
        Kind::LEASE,
        json!({"metadata": metadata, "spec": {"renewTime": renewed}}),
    )
}

pub fn engine() -> Engine {
    let config = ControllersConfig {
        pod_ranges: vec![pod_cidr::Range {
            network: "10.100.0.0/16".parse().unwrap(),
            mask_bits: 24,
        }],
        load_balancer_pool: Vec::new(),
        root_ca: String::new(),
        finished_pods_kept: 12_500,
    };
    Engine::new(config, now())
}

/// The first lists of all kinds; those of nodes and leases hold what is given.
pub fn list(engine: &mut Engine, mut objects: Vec<Object>) {
    for &kind in Kind::watched() {
        let of_kind = objects
            .extract_if(.., |object| object.kind == kind)
            .collect();
        engine.apply(
            Change::Snapshot {
                kind,
                objects: of_kind,
                revision: 1,
            },
            now(),
        );
    }
}

/// What is asked for after `seconds`, each plan taken as carried out.
pub fn asked(engine: &mut Engine, seconds: i64) -> Vec<String> {
    let at = now() + SignedDuration::from_secs(seconds);
    let mut asked = Vec::new();
    while let Some((task, plan)) = engine.next(at) {
        asked.extend(words(&plan.actions));
        engine.finished(&task, Ending::Done, at);
    }
    asked
}

fn marks_lost(asked: &[String]) -> bool {
    asked
        .iter()
        .any(|word| word.starts_with("patch nodes/status"))
}

#[test]
fn nothing_is_planned_before_every_watch_has_delivered() {
    let mut engine = engine();
    let namespace = object(Kind::NAMESPACE, json!({"metadata": {"name": "ns"}}));
    for &kind in Kind::watched() {
        assert!(engine.next(now()).is_none(), "before {kind:?}");
        let objects = if kind == Kind::NAMESPACE {
            vec![namespace.clone()]
        } else {
            Vec::new()
        };
        engine.apply(
            Change::Snapshot {
                kind,
                objects,
                revision: 1,
            },
            now(),
        );
    }
    assert_eq!(asked(&mut engine, 0), ["create serviceaccounts default"]);
}

#[test]
fn after_its_own_start_a_silent_node_gets_the_whole_grace() {
    let mut engine = engine();
    list(
        &mut engine,
        vec![node("True", 1), lease("2025-12-31T00:00:00.000000Z", 1)],
    );
    assert!(!marks_lost(&asked(&mut engine, 39)));
    assert!(marks_lost(&asked(&mut engine, 40)));
}

#[test]
fn a_renewed_lease_keeps_a_node_whatever_its_clock_says() {
    let mut engine = engine();
    list(
        &mut engine,
        vec![node("True", 1), lease("2025-12-31T00:00:00.000000Z", 1)],
    );
    let at = now() + SignedDuration::from_secs(30);
    engine.apply(Change::Upsert(lease("2025-12-31T00:00:10.000000Z", 2)), at);
    assert!(!marks_lost(&asked(&mut engine, 69)));
    assert!(marks_lost(&asked(&mut engine, 70)));
}

#[test]
fn a_node_that_says_it_is_ready_again_is_believed_before_its_lease_is_renewed() {
    let mut engine = engine();
    list(&mut engine, vec![node("Unknown", 1)]);
    asked(&mut engine, 60);
    let at = now() + SignedDuration::from_secs(61);
    engine.apply(Change::Upsert(node("True", 2)), at);
    assert!(!marks_lost(&asked(&mut engine, 62)));
    assert!(marks_lost(&asked(&mut engine, 101)));
}

#[test]
fn a_failed_plan_is_made_anew_after_its_pause_and_its_reason_is_known() {
    let mut engine = engine();
    let set: Value = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"app": "web"}, "template": {}},
    });
    list(&mut engine, vec![object(Kind::REPLICATION_CONTROLLER, set)]);
    let (task, _) = engine.next(now()).unwrap();
    let ending = Ending::Failed {
        creating: true,
        conflict: false,
        message: "over quota".to_owned(),
    };
    engine.finished(&task, ending, now());
    assert!(engine.next(now()).is_none());
    let at = engine.next_deadline().unwrap();
    let (_, plan) = engine.next(at).unwrap();
    assert!(
        words(&plan.actions)[0].contains("over quota"),
        "{:?}",
        words(&plan.actions)
    );
}
