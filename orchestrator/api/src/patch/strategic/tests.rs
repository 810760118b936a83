use serde_json::json;

use super::*;
use crate::find;

fn patched(original: Value, patch: Value) -> Value {
    apply(
        find("apps", "v1", "deployments").unwrap(),
        &original,
        &patch,
    )
    .unwrap()
}

fn refused(original: Value, patch: Value) -> ApiError {
    apply(
        find("apps", "v1", "deployments").unwrap(),
        &original,
        &patch,
    )
    .unwrap_err()
}

/// A deployment whose pods have these containers.
fn containers(containers: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

fn pod(spec: Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

#[test]
fn containers_merge_by_name() {
    let original = containers(json!([
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]},
        {"name": "b", "image": "b:1"},
    ]));
    let patch = containers(json!([{"name": "b", "image": "b:2"}]));
    let expected = containers(json!([
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]},
        {"name": "b", "image": "b:2"},
    ]));
    assert_eq!(patched(original, patch), expected);
}

#[test]
fn a_new_item_comes_before_those_that_only_the_server_has() {
    let original = containers(json!([{"name": "a", "image": "a"}]));
    let patch = containers(json!([{"name": "b", "image": "b"}]));
    let expected = containers(json!([{"name": "b", "image": "b"}, {"name": "a", "image": "a"}]));
    assert_eq!(patched(original, patch), expected);
}

#[test]
fn the_order_directive_orders_the_items_it_names() {
    let original = containers(json!([
        {"name": "sidecar"}, {"name": "a", "image": "1"}, {"name": "b"},
    ]));
    let patch = pod(json!({
        "$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}],
        "containers": [{"name": "c"}, {"name": "a", "image": "2"}],
    }));
    let expected = containers(json!([
        {"name": "sidecar"}, {"name": "b"}, {"name": "c"}, {"name": "a", "image": "2"},
    ]));
    assert_eq!(patched(original.clone(), patch), expected);
    let only_order = pod(json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}));
    let expected =
        containers(json!([{"name": "sidecar"}, {"name": "b"}, {"name": "a", "image": "1"}]));
    assert_eq!(patched(original.clone(), only_order), expected);
    let contradicting = pod(json!({
        "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
        "containers": [{"name": "a"}, {"name": "b"}],
    }));
    assert_eq!(refused(original, contradicting).code(), 400);
}

#[test]
fn an_item_is_deleted_by_directive() {
    let original = containers(json!([{"name": "a"}, {"name": "b"}]));
    let patch = containers(json!([{"name": "a", "$patch": "delete"}]));
    assert_eq!(patched(original, patch), containers(json!([{"name": "b"}])));
}

#[test]
fn a_list_or_object_is_replaced_by_directive() {
    let original = containers(json!([{"name": "a"}, {"name": "b"}]));
    let patch = containers(json!([{"name": "c"}, {"$patch": "replace"}]));
    assert_eq!(patched(original, patch), containers(json!([{"name": "c"}])));
    let original = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    let patch = json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}});
    assert_eq!(
        patched(original.clone(), patch),
        json!({"metadata": {"labels": {"c": "3"}}})
    );
    let patch = json!({"metadata": {"labels": {"$patch": "explode"}}});
    assert_eq!(refused(original, patch).code(), 400);
}

#[test]
fn a_map_merges_and_null_deletes_its_key() {
    let original = json!({"metadata": {"annotations": {"a": "1", "b": "2"}}});
    let patch = json!({"metadata": {"annotations": {"a": null, "c": "3", "d": null}}});
    assert_eq!(
        patched(original, patch),
        json!({"metadata": {"annotations": {"b": "2", "c": "3"}}})
    );
}

#[test]
fn a_list_without_a_merge_strategy_is_replaced() {
    let original = pod(json!({"tolerations": [{"key": "a"}, {"key": "b"}]}));
    let patch = pod(json!({"tolerations": [{"key": "c"}]}));
    assert_eq!(
        patched(original, patch),
        pod(json!({"tolerations": [{"key": "c"}]}))
    );
}

#[test]
fn retained_keys_drop_the_other_members_of_a_union() {
    let original = json!({"spec": {"strategy": {
        "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1},
    }}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        patched(original.clone(), patch),
        json!({"spec": {"strategy": {"type": "Recreate"}}})
    );
    let wrong = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    assert_eq!(
        refused(original, wrong).to_string(),
        "invalid patch format of retainKeys"
    );
}

#[test]
fn a_list_of_scalars_merges_as_a_set() {
    let original = json!({"metadata": {"finalizers": ["a", "b"]}});
    let add = json!({"metadata": {
        "$setElementOrder/finalizers": ["a", "b", "c"], "finalizers": ["c"],
    }});
    assert_eq!(
        patched(original.clone(), add),
        json!({"metadata": {"finalizers": ["a", "b", "c"]}})
    );
    let delete = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}});
    assert_eq!(
        patched(original, delete),
        json!({"metadata": {"finalizers": ["b"]}})
    );
}

#[test]
fn ports_merge_by_the_number_of_the_port() {
    let original = containers(json!([
        {"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "web"}]},
    ]));
    let patch = containers(json!([
        {"name": "a", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 443}]},
    ]));
    let expected = containers(json!([{"name": "a", "ports": [
        {"containerPort": 80, "protocol": "TCP", "name": "http"}, {"containerPort": 443},
    ]}]));
    assert_eq!(patched(original, patch), expected);
}

#[test]
fn an_item_without_its_merge_key_is_refused() {
    let original = containers(json!([{"name": "a"}]));
    let error = refused(original, containers(json!([{"image": "x"}])));
    assert_eq!(error.code(), 422);
    assert!(
        error
            .to_string()
            .contains("does not contain declared merge key: name"),
        "{error}"
    );
}

#[test]
fn nothing_of_a_directive_remains_in_what_was_not_there() {
    let patch = pod(json!({
        "$setElementOrder/containers": [{"name": "a"}],
        "containers": [{"name": "a", "image": null, "$setElementOrder/ports": [],
                        "env": [{"name": "X", "$patch": "delete"}]}],
    }));
    assert_eq!(
        patched(json!({}), patch),
        containers(json!([{"name": "a", "env": []}]))
    );
}
