use serde_json::{Value, json};

use super::*;
use crate::fixture::{controlled_by, words, world};

const RS: Kind = Kind::REPLICA_SET;

fn set(finalizer: Option<&str>) -> (Kind, Value) {
    let mut value = json!({
        "metadata": {"name": "set"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}},
    });
    if let Some(finalizer) = finalizer {
        value["metadata"]["finalizers"] = json!([finalizer, "other"]);
        value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    (RS, value)
}

fn pod(owners: Value) -> (Kind, Value) {
    let metadata = json!({"name": "pod", "ownerReferences": owners});
    (
        Kind::POD,
        json!({"metadata": metadata, "spec": {"containers": []}}),
    )
}

fn owned() -> (Kind, Value) {
    pod(controlled_by(RS, "set"))
}

fn collected(objects: Vec<(Kind, Value)>, kind: Kind, name: &str) -> Vec<Action> {
    let world = world(objects);
    plan(&gather(&world, kind, &Key::new("ns", name)).unwrap()).actions
}

#[test]
fn what_has_a_living_owner_or_none_stays() {
    assert_eq!(
        collected(vec![set(None), owned()], Kind::POD, "pod"),
        Vec::new()
    );
    assert_eq!(
        collected(vec![pod(json!([]))], Kind::POD, "pod"),
        Vec::new()
    );
}

#[test]
fn what_has_lost_its_owner_goes_if_the_server_does_not_know_it_either() {
    let actions = collected(vec![owned()], Kind::POD, "pod");
    let [Action::Delete(delete)] = actions.as_slice() else {
        panic!("one deletion: {actions:?}")
    };
    assert_eq!(
        delete.unless_any,
        [(RS, Key::new("ns", "set"), "uid-set".to_owned())]
    );
    assert_eq!(delete.propagation, Some("Background"));
}

#[test]
fn an_owner_of_the_same_name_but_another_uid_is_another_owner() {
    let mut other = set(None);
    other.1["metadata"]["uid"] = json!("uid-new");
    assert_eq!(
        words(&collected(vec![other, owned()], Kind::POD, "pod")),
        ["delete pods pod"]
    );
}

#[test]
fn one_living_owner_of_two_is_enough() {
    let mut owners = controlled_by(RS, "set");
    owners
        .as_array_mut()
        .unwrap()
        .push(controlled_by(RS, "gone")[0].clone());
    assert_eq!(
        collected(vec![set(None), pod(owners)], Kind::POD, "pod"),
        Vec::new()
    );
}

#[test]
fn owners_of_unknown_kinds_are_believed() {
    let owner = json!([{"apiVersion": "example.com/v1", "kind": "Thing", "name": "x", "uid": "y"}]);
    assert_eq!(collected(vec![pod(owner)], Kind::POD, "pod"), Vec::new());
}

#[test]
fn an_owner_that_goes_in_the_foreground_waits_for_what_blocks_it() {
    let ending = || set(Some("foregroundDeletion"));
    assert_eq!(
        words(&collected(vec![ending(), owned()], Kind::POD, "pod")),
        ["delete pods pod"]
    );
    assert_eq!(collected(vec![ending(), owned()], RS, "set"), Vec::new());
    let mut loose = controlled_by(RS, "set");
    loose[0]["blockOwnerDeletion"] = json!(false);
    for objects in [vec![ending()], vec![ending(), pod(loose)]] {
        let words = words(&collected(objects, RS, "set"));
        assert_eq!(words.len(), 1);
        assert!(words[0].contains(r#""finalizers":["other"]"#), "{words:?}");
    }
}

#[test]
fn an_orphaning_owner_lets_its_dependents_go_first() {
    let words = words(&collected(vec![set(Some("orphan")), owned()], RS, "set"));
    assert_eq!(
        words[0],
        r#"patch pods pod {"metadata":{"ownerReferences":null}}"#
    );
    assert!(words[1].contains(r#""finalizers":["other"]"#), "{words:?}");
}

#[test]
fn a_circle_of_owners_that_wait_for_each_other_is_opened() {
    let map = |name: &str, owner: &str, going: bool| {
        let mut value = json!({"metadata": {"name": name,
            "ownerReferences": controlled_by(Kind::CONFIG_MAP, owner)}});
        if going {
            value["metadata"]["finalizers"] = json!([FOREGROUND]);
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        (Kind::CONFIG_MAP, value)
    };
    let objects = vec![
        map("a", "c", true),
        map("b", "a", true),
        map("c", "b", false),
    ];
    let actions = collected(objects, Kind::CONFIG_MAP, "c");
    let [Action::Patch(patch), Action::Delete(delete)] = actions.as_slice() else {
        panic!("a patch, then a deletion: {actions:?}")
    };
    assert!(patch.body["metadata"]["ownerReferences"][0]["blockOwnerDeletion"].is_null());
    assert_eq!(delete.propagation, Some("Foreground"));
}

#[test]
fn an_owner_in_another_namespace_counts_as_absent_and_that_is_said() {
    let mut far = set(None);
    far.1["metadata"]["namespace"] = json!("elsewhere");
    let actions = collected(vec![far, owned()], Kind::POD, "pod");
    let [Action::Tell(tell), Action::Delete(_)] = actions.as_slice() else {
        panic!("an event, then a deletion: {actions:?}")
    };
    assert_eq!(tell.reason, "OwnerRefInvalidNamespace");
    assert!(tell.warning);
}
