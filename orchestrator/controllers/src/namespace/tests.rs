use serde_json::{Value, json};

use super::*;
use crate::fixture::{words, world};

fn namespace(ending: bool) -> (Kind, Value) {
    let mut value = json!({"metadata": {"name": "ns"}, "spec": {"finalizers": ["kubernetes"]}});
    if ending {
        value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    (Kind::NAMESPACE, value)
}

fn planned(objects: Vec<(Kind, Value)>) -> Vec<String> {
    let world = world(objects);
    let now = "2026-01-01T00:00:01Z".parse().unwrap();
    words(&plan(&gather(&world, "ns", now).unwrap()).actions)
}

#[test]
fn a_living_namespace_has_a_default_account() {
    assert_eq!(
        planned(vec![namespace(false)]),
        ["create serviceaccounts default"]
    );
    let account = (
        Kind::SERVICE_ACCOUNT,
        json!({"metadata": {"name": "default"}}),
    );
    assert_eq!(
        planned(vec![namespace(false), account]),
        Vec::<String>::new()
    );
}

#[test]
fn an_ending_namespace_is_emptied_of_pods_and_then_of_all_else() {
    let pod = |ending: bool| {
        let mut value = json!({"metadata": {"name": "a"}, "spec": {"containers": []}});
        if ending {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        (Kind::POD, value)
    };
    let map = (Kind::CONFIG_MAP, json!({"metadata": {"name": "b"}}));
    let secret = (Kind::SECRET, json!({"metadata": {"name": "c"}}));
    let planned = |pods: Vec<(Kind, Value)>| {
        let others = [namespace(true), map.clone(), secret.clone()];
        planned(others.into_iter().chain(pods).collect())
    };
    assert_eq!(planned(vec![pod(false)]), ["empty pods of ns"]);
    assert_eq!(planned(vec![pod(true)]), Vec::<String>::new());
    assert_eq!(
        planned(Vec::new()),
        ["empty configmaps of ns", "empty secrets of ns"]
    );
}

#[test]
fn an_empty_ending_namespace_is_let_go() {
    assert_eq!(
        planned(vec![namespace(true)]),
        ["empty events of ns", "finalize ns"]
    );
}

#[test]
fn a_namespace_that_is_kept_says_by_what_once_and_not_at_once() {
    let map = (
        Kind::CONFIG_MAP,
        json!({"metadata": {"name": "b", "finalizers": ["example.com/hold"],
            "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    let planned_at = |namespace: (Kind, Value), now: &str| {
        let world = world(vec![namespace, map.clone()]);
        plan(&gather(&world, "ns", now.parse().unwrap()).unwrap())
    };
    let early = planned_at(namespace(true), "2026-01-01T00:00:01Z");
    assert_eq!(early.actions, []);
    assert_eq!(early.again, Some(SignedDuration::from_secs(1)));
    let late = planned_at(namespace(true), "2026-01-01T00:00:05Z");
    let [Action::Patch(patch)] = late.actions.as_slice() else {
        panic!("one patch: {late:?}")
    };
    let conditions = patch.body["status"]["conditions"].as_array().unwrap();
    let said: Vec<_> = conditions
        .iter()
        .map(|it| format!("{}={} {}", it["type"], it["status"], it["message"]))
        .collect();
    let expected = [
        "\"NamespaceContentRemaining\"=\"True\" \"Some resources are remaining: configmaps. has 1 \
         resource instances\"",
        "\"NamespaceFinalizersRemaining\"=\"True\" \"Some content in the namespace has finalizers \
         remaining: example.com/hold in 1 resource instances\"",
    ];
    assert_eq!(said, expected);
    let mut told = namespace(true);
    told.1["status"] = patch.body["status"].clone();
    assert_eq!(planned_at(told, "2026-01-01T00:00:09Z").actions, []);
}
