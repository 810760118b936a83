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
    let words = words(&later.actions);
    assert!(words[0].contains("DeletionByPodGC"), "{words:?}");
    assert_eq!(
        words[1],
        "patch pods/status a {\"status\":{\"phase\":\"Failed\"}}"
    );
    let [_, _, Action::Delete(delete)] = later.actions.as_slice() else {
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
        words(&plan_finished(&world, FINISHED_KEPT).actions),
        ["delete pods pod-0", "delete pods pod-1"]
    );
    assert_eq!(plan_finished(&world, 0), Plan::default(), "all are kept");
}

/// What is asked for about a node or pod.
fn planned(objects: Vec<(Kind, Value)>, about: (Kind, Key)) -> Vec<String> {
    let world = world(objects);
    let mut controller = PodGcController::keeping(FINISHED_KEPT);
    let mut due = Due::new();
    controller.due_at_start(&world, &mut due);
    assert!(due.contains(&about) || about.0 == Kind::POD, "{due:?}");
    let plan = controller.plan(&world, &about, now());
    words(&plan.unwrap_or_default().actions)
}

#[test]
fn what_was_to_end_on_a_node_that_is_out_of_service_ends() {
    let deleted = |name: &str| {
        let (kind, mut value) = pod(name, "Running", "2026-01-01T00:00:00Z");
        value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:05:00Z");
        (kind, value)
    };
    let off = |ready: &str| {
        let value = json!({"metadata": {"name": "gone"},
            "spec": {"taints": [{"key": OUT_OF_SERVICE, "value": "nodeshutdown",
                "effect": "NoExecute"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        (Kind::NODE, value)
    };
    let stays = pod("stays", "Running", "2026-01-01T00:00:00Z");
    let about = (Kind::NODE, Key::new("", "gone"));
    let words = planned(vec![off("Unknown"), deleted("a"), stays], about.clone());
    let failed = "patch pods/status a {\"status\":{\"phase\":\"Failed\"}}";
    assert_eq!(words, [failed, "delete pods a"]);
    let world = world([off("True"), deleted("a")]);
    let mut due = Due::new();
    PodGcController::keeping(1).due_at_start(&world, &mut due);
    assert!(
        !due.contains(&about),
        "a node that is ready ends its pods itself"
    );
}

#[test]
fn a_deleted_pod_that_no_node_has_goes() {
    let value = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:05:00Z"},
        "spec": {"containers": []}, "status": {"phase": "Pending"}});
    let about = (Kind::POD, Key::new("ns", "a"));
    let words = planned(vec![(Kind::POD, value.clone())], about.clone());
    assert_eq!(words.last().map(String::as_str), Some("delete pods a"));
    let mut bound = value;
    bound["spec"]["nodeName"] = json!("node-1");
    assert!(planned(vec![(Kind::POD, bound)], about).is_empty());
}
