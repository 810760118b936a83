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
    words(&plan(&gather(&world, "ns").unwrap()).actions)
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
fn an_ending_namespace_is_emptied_of_what_is_not_going_yet() {
    let pod = |ending: bool| {
        let mut value = json!({"metadata": {"name": "a"}, "spec": {"containers": []}});
        if ending {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        (Kind::POD, value)
    };
    let map = (Kind::CONFIG_MAP, json!({"metadata": {"name": "b"}}));
    let words = planned(vec![namespace(true), pod(false), map]);
    assert_eq!(words, ["empty pods of ns", "empty configmaps of ns"]);
    assert_eq!(
        planned(vec![namespace(true), pod(true)]),
        Vec::<String>::new()
    );
}

#[test]
fn an_empty_ending_namespace_is_let_go() {
    assert_eq!(
        planned(vec![namespace(true)]),
        ["empty events of ns", "finalize ns"]
    );
}
