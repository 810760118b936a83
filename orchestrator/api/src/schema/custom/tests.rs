use serde_json::json;

use super::*;
use crate::decode::structural::canonicalize;

/// What the engine makes of a value, and which fields it dropped.
fn decoded(schema: &Value, mut value: Value) -> (Value, Vec<String>) {
    let definition = Definition::from_openapi(schema);
    let unknown = canonicalize(&definition, &mut value).unwrap();
    (value, unknown)
}

/// The same of `spec` only, for a schema of it.
fn spec(schema: Value, value: Value) -> (Value, Vec<String>) {
    let schema = json!({"type": "object", "properties": {"spec": schema}});
    let (mut object, unknown) = decoded(&schema, json!({"spec": value}));
    (object["spec"].take(), unknown)
}

#[test]
fn unknown_fields_are_dropped_at_any_depth_and_named() {
    let schema = json!({"type": "object", "properties": {
        "list": {"type": "array", "items": {"type": "object", "properties": {
            "name": {"type": "string"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object"}},
    }});
    let value = json!({"list": [{"name": "a"}, {"name": "b", "x": 1}],
        "map": {"k": {"y": {}}}, "z": [1]});
    assert_eq!(
        spec(schema, value),
        (
            json!({"list": [{"name": "a"}, {"name": "b"}], "map": {"k": {}}}),
            vec![
                "spec.list[1].x".to_owned(),
                "spec.map.k.y".into(),
                "spec.z".into()
            ]
        )
    );
}

#[test]
fn what_preserves_unknown_fields_still_drops_those_below_its_properties() {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"strict": {"type": "object"}}});
    let value = json!({"free": {"a": [null, 1]}, "strict": {"x": 1}});
    assert_eq!(
        spec(schema, value),
        (
            json!({"free": {"a": [null, 1]}, "strict": {}}),
            vec!["spec.strict.x".to_owned()]
        )
    );
    let anything = json!({"x-kubernetes-preserve-unknown-fields": true});
    for value in [json!(3), json!([{"a": 1}]), json!({"b": {"c": null}})] {
        assert_eq!(spec(anything.clone(), value.clone()), (value, vec![]));
    }
}

#[test]
fn defaults_fill_in_what_is_absent_and_go_into_each_other() {
    let schema = json!({"type": "object", "properties": {
        "replicas": {"type": "integer", "default": 1},
        "template": {"type": "object", "default": {}, "properties": {
            "image": {"type": "string", "default": "nginx"}}},
        "ports": {"type": "array", "items": {"type": "object", "properties": {
            "protocol": {"type": "string", "default": "TCP"}}}},
        "absent": {"type": "object", "properties": {"x": {"type": "integer", "default": 1}}},
    }});
    assert_eq!(
        spec(schema.clone(), json!({"ports": [{}, {"protocol": "UDP"}]})).0,
        json!({"replicas": 1, "template": {"image": "nginx"},
            "ports": [{"protocol": "TCP"}, {"protocol": "UDP"}]})
    );
    let given = json!({"replicas": 0, "template": {"image": ""}});
    assert_eq!(spec(schema, given.clone()).0, given);
}

#[test]
fn defaults_make_no_object_larger_than_a_document_may_be() {
    let schema = json!({"type": "array", "items": {"type": "object", "properties": {
        "text": {"type": "string", "default": "x".repeat(1000)}}}});
    let schema = json!({"type": "object", "properties": {"list": schema}});
    let definition = Definition::from_openapi(&schema);
    let mut few = json!({"list": vec![json!({}); 1000]});
    assert_eq!(canonicalize(&definition, &mut few), Ok(vec![]));
    let mut many = json!({"list": vec![json!({}); 10_000]});
    let error = canonicalize(&definition, &mut many).unwrap_err();
    assert!(
        error.starts_with("the defaults of the schema add more than"),
        "{error}"
    );
}

#[test]
fn a_null_stays_where_it_is_allowed_and_is_absent_elsewhere() {
    let schema = json!({"type": "object", "properties": {
        "allowed": {"type": "string", "nullable": true, "default": "x"},
        "defaulted": {"type": "string", "default": "x"},
        "plain": {"type": "object"},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "nulls": {"type": "object", "additionalProperties": {"type": "string", "nullable": true}},
    }});
    let value = json!({"allowed": null, "defaulted": null, "plain": null,
        "map": {"a": null, "b": "c"}, "nulls": {"a": null}});
    assert_eq!(
        spec(schema, value).0,
        json!({"allowed": null, "defaulted": "x", "map": {"b": "c"}, "nulls": {"a": null}})
    );
}

#[test]
fn zeros_and_values_of_another_type_stay_as_they_are() {
    let schema = json!({"type": "object", "properties": {
        "count": {"type": "integer"}, "text": {"type": "string"}, "on": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "string"}}, "inner": {"type": "object"},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "port": {"x-kubernetes-int-or-string": true},
    }});
    let empty = json!({"count": 0, "text": "", "on": false, "list": [], "inner": {}, "map": {},
        "port": 0});
    assert_eq!(spec(schema.clone(), empty.clone()), (empty, vec![]));
    let mistyped = json!({"count": "1", "text": 1, "on": [], "list": {"a": 1}, "inner": "x",
        "map": {"a": "b"}, "port": true});
    assert_eq!(spec(schema, mistyped.clone()), (mistyped, vec![]));
}

#[test]
fn metadata_of_the_object_and_of_embedded_ones_is_decoded_as_that_of_built_in_kinds() {
    let schema = json!({"type": "object", "properties": {
        "metadata": {"type": "object"},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
    }});
    let metadata = json!({"name": "a", "labels": {}, "creationTimestamp": null, "x": 1});
    let value = json!({"apiVersion": "example.com/v1", "kind": "Web", "metadata": metadata,
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"a": 1}, "y": 1}});
    assert_eq!(
        decoded(&schema, value),
        (
            json!({"apiVersion": "example.com/v1", "kind": "Web", "metadata": {"name": "a"},
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
                    "spec": {"a": 1}}}),
            vec![
                "metadata.x".to_owned(),
                "pod.metadata.x".into(),
                "pod.y".into()
            ]
        )
    );
    let mut wrong = json!({"metadata": {"labels": {"a": 1}}});
    assert_eq!(
        canonicalize(&Definition::from_openapi(&schema), &mut wrong),
        Err(
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type \
             string"
                .to_owned()
        )
    );
}

#[test]
fn the_words_about_lists_are_read_as_facts() {
    let read = facts(&json!({"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name", "port"], "x-kubernetes-map-type": "atomic"}));
    assert_eq!(read.list_type.as_deref(), Some("map"));
    assert_eq!(read.list_map_keys, ["name", "port"]);
    assert_eq!(read.map_type.as_deref(), Some("atomic"));
}
