use serde_json::{Value, json};

use super::*;
use crate::fixture::{now, words, world};

fn pod(name: &str, phase: &str, created: &str) -> (Kind, Value) {
    let value = json!({
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"nodeName": "gone", "containers": []},
        "status": {"phase": phase},
    });
    (Kind::POD, value)
}

#[test]
fn pods_of_a_vanished_node_go_after_a_while_without_an_agents_word() {
    let world = world([pod("a", "Running", "2026-01-01T00:00:00Z")]);
    let mut since = BTreeMap::new();
    let mut at = |now| gather(&world, "gone", &mut since, now).map(|view| plan(&view));
    let first = Plan {
        actions: Vec::new(),
        again: Some(QUARANTINE),
    };
    assert_eq!(at(now()), Some(first));
    let later = at(now() + QUARANTINE).unwrap();
    let [Action::Delete(delete)] = later.actions.as_slice() else {
        panic!("one deletion")
    };
    assert_eq!(delete.grace_seconds, Some(0));
    assert_eq!(
        delete.unless_any,
        [(Kind::NODE, Key::new("", "gone"), String::new())]
    );
}

#[test]
fn a_node_that_came_back_is_missed_no_more() {
    let mut since = BTreeMap::from([("gone".to_owned(), now())]);
    let world = world([
        pod("a", "Running", "2026-01-01T00:00:00Z"),
        (Kind::NODE, json!({"metadata": {"name": "gone"}})),
    ]);
    assert!(gather(&world, "gone", &mut since, now() + QUARANTINE).is_none());
    assert!(since.is_empty());
}

#[test]
fn the_oldest_finished_pods_go_beyond_the_number_that_is_kept() {
    let many = (0..FINISHED_KEPT + 2).map(|n| {
        let created = format!(
            "2026-01-01T{:02}:{:02}:{:02}Z",
            n / 3600,
            n / 60 % 60,
            n % 60
        );
        pod(&format!("pod-{n}"), "Succeeded", &created)
    });
    let node = (Kind::NODE, json!({"metadata": {"name": "gone"}}));
    let world = world(many.chain([node]));
    assert_eq!(
        words(&plan_finished(&world).actions),
        ["delete pods pod-0", "delete pods pod-1"]
    );
}
