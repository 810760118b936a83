//! Each rule of a schema, with Kubernetes' texts; what costs too much; properties.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A schema with one field `x`, and what is said of a value there.
fn said_of(x: Value, value: Value) -> Vec<String> {
    said(&with_x(x), &json!({"spec": {"x": value}}), None)
}

fn with_x(x: Value) -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"x": x}},
    }})
}

fn said(schema: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = Schema::compile(schema).expect("within the limits");
    let causes = schema.validate(new, old, Part::Whole);
    let texts = causes.iter().map(|c| format!("{}: {}", c.field, c.message));
    texts.collect()
}

#[track_caller]
fn assert_said(x: Value, value: Value, expected: &[&str]) {
    assert_eq!(said_of(x, value), expected);
}

#[test]
fn a_value_of_another_type_is_named_with_its_type() {
    let of_type = |wanted: &str, found: &str| {
        format!(
            "spec.x: Invalid value: {found:?}: spec.x in body must be of type {wanted}: {found:?}"
        )
    };
    let cases = [
        (json!({"type": "string"}), json!(5), "string", "integer"),
        (json!({"type": "integer"}), json!("a"), "integer", "string"),
        (json!({"type": "boolean"}), json!([]), "boolean", "array"),
        (json!({"type": "object"}), json!(true), "object", "boolean"),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!({}),
            "array",
            "object",
        ),
        (json!({"type": "string"}), Value::Null, "string", "null"),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "integer,string",
            "boolean",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(true),
            "int32",
            "",
        ),
        (
            json!({"type": "string", "format": "date"}),
            json!(1),
            "date",
            "int64",
        ),
        (
            json!({"type": "string", "format": "date"}),
            json!("a"),
            "date",
            "a",
        ),
        (
            json!({"type": "string", "format": "date"}),
            json!([]),
            "string",
            "array",
        ),
    ];
    for (schema, value, wanted, found) in cases {
        assert_eq!(said_of(schema, value), [of_type(wanted, found)]);
    }
    for (schema, value) in [
        (json!({"type": "integer"}), json!(2.0)),
        (json!({"type": "number"}), json!(2)),
        (json!({"type": "string", "nullable": true}), Value::Null),
        (json!({"x-kubernetes-int-or-string": true}), json!("50%")),
        (
            json!({"x-kubernetes-preserve-unknown-fields": true}),
            json!([1]),
        ),
        (json!({"type": "string", "format": "of-nobody"}), json!("a")),
    ] {
        assert_said(schema, value, &[]);
    }
}

#[test]
fn numbers_have_limits() {
    let cases = [
        (
            json!({"minimum": 1}),
            json!(0),
            "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
        ),
        (
            json!({"minimum": 1, "exclusiveMinimum": true}),
            json!(1),
            "spec.x: Invalid value: 1: spec.x in body should be greater than 1",
        ),
        (
            json!({"maximum": 9}),
            json!(10),
            "spec.x: Invalid value: 10: spec.x in body should be less than or equal to 9",
        ),
        (
            json!({"maximum": 9, "exclusiveMaximum": true}),
            json!(9),
            "spec.x: Invalid value: 9: spec.x in body should be less than 9",
        ),
        (
            json!({"multipleOf": 3}),
            json!(10),
            "spec.x: Invalid value: 10: spec.x in body should be a multiple of 3",
        ),
        (
            json!({"format": "int32"}),
            json!(1u64 << 40),
            "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.x",
        ),
    ];
    for (mut schema, value, expected) in cases {
        schema["type"] = "integer".into();
        assert_said(schema, value, &[expected]);
    }
    let half = json!({"type": "number", "maximum": 0.5, "multipleOf": 0.1});
    assert_said(half.clone(), json!(0.3), &[]);
    assert_said(
        half,
        json!(0.65),
        &[
            "spec.x: Invalid value: 0.65: spec.x in body should be a multiple of 0.1",
            "spec.x: Invalid value: 0.65: spec.x in body should be less than or equal to 0.5",
        ],
    );
    for (double, expected) in [
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1.5e-7, "1.5e-07"),
    ] {
        assert_eq!(numbers::go_double(double), expected);
    }
}

#[test]
fn texts_have_a_length_a_pattern_and_words() {
    assert_said(
        json!({"type": "string", "maxLength": 2}),
        json!("abc"),
        &["spec.x: Too long: may not be more than 2 bytes"],
    );
    assert_said(
        json!({"type": "string", "maxLength": 2}),
        json!("\u{e9}\u{e9}"),
        &[],
    );
    assert_said(
        json!({"type": "string", "minLength": 2}),
        json!("a"),
        &[r#"spec.x: Invalid value: "a": spec.x in body should be at least 2 chars long"#],
    );
    assert_said(
        json!({"type": "string", "pattern": r"^\d+$"}),
        json!("a"),
        &[r#"spec.x: Invalid value: "a": spec.x in body should match '^\d+$'"#],
    );
    assert_said(
        json!({"type": "string", "enum": ["a", "b"]}),
        json!("c"),
        &[r#"spec.x: Unsupported value: "c": supported values: "a", "b""#],
    );
    assert_said(
        json!({"type": "integer", "enum": [1, 2]}),
        json!(3),
        &[r#"spec.x: Unsupported value: 3: supported values: "1", "2""#],
    );
    assert_said(json!({"type": "number", "enum": [1]}), json!(1.0), &[]);
    assert_said(
        json!({"type": "string", "nullable": true, "enum": ["a"]}),
        Value::Null,
        &[r#"spec.x: Unsupported value: null: supported values: "a""#],
    );
}

#[test]
fn lists_and_objects_have_a_size() {
    let list = |more: Value| {
        let mut schema = json!({"type": "array", "items": {"type": "integer"}});
        schema
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        schema
    };
    assert_said(
        list(json!({"maxItems": 1})),
        json!([1, 2]),
        &["spec.x: Too many: 2: must have at most 1 items"],
    );
    assert_said(
        list(json!({"minItems": 1})),
        json!([]),
        &["spec.x: Invalid value: 0: spec.x in body should have at least 1 items"],
    );
    assert_said(
        list(json!({})),
        json!([1, "a"]),
        &[
            r#"spec.x[1]: Invalid value: "string": spec.x[1] in body must be of type integer: "string""#,
        ],
    );
    assert_said(
        json!({"type": "object", "minProperties": 1}),
        json!({}),
        &["spec.x: Invalid value: 0: spec.x in body should have at least 1 properties"],
    );
    assert_said(
        json!({"type": "object", "maxProperties": 0}),
        json!({"a": 1}),
        &["spec.x: Too many: 1: must have at most 0 items"],
    );
    assert_said(
        json!({"type": "object", "required": ["a"]}),
        json!({}),
        &["spec.x.a: Required value"],
    );
    let map = json!({"type": "object", "additionalProperties": {"type": "string"}});
    assert_said(
        map,
        json!({"a.b": 1}),
        &[
            r#"spec.x.a.b: Invalid value: "integer": spec.x.a.b in body must be of type string: "integer""#,
        ],
    );
}

#[test]
fn alternatives_say_which_of_them_fits_most() {
    let any = json!({"type": "integer", "anyOf": [{"minimum": 5}, {"maximum": 1}]});
    assert_said(any.clone(), json!(7), &[]);
    assert_said(
        any,
        json!(3),
        &[
            r#"<nil>: Invalid value: "": "spec.x" must validate at least one schema (anyOf)"#,
            "spec.x: Invalid value: 3: spec.x in body should be greater than or equal to 5",
        ],
    );
    let one = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    assert_said(one.clone(), json!({"a": 1}), &[]);
    assert_said(
        one.clone(),
        json!({"a": 1, "b": 1}),
        &[
            r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ],
    );
    assert_said(
        one,
        json!({}),
        &[
            r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found none valid"#,
            "spec.x.a: Required value",
        ],
    );
    let all = json!({"type": "integer", "allOf": [{"minimum": 5}, {"maximum": 9}]});
    assert_said(
        all,
        json!(3),
        &[
            "spec.x: Invalid value: 3: spec.x in body should be greater than or equal to 5",
            r#"<nil>: Invalid value: "": "spec.x" must validate all the schemas (allOf)"#,
        ],
    );
    let not = json!({"type": "integer", "not": {"minimum": 5}});
    assert_said(
        not,
        json!(6),
        &[r#"<nil>: Invalid value: "": "spec.x" must not validate the schema (not)"#],
    );
}

#[test]
fn items_of_sets_and_maps_are_there_once() {
    let set =
        json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    assert_said(
        set,
        json!(["a", "b", "a", "a"]),
        &[r#"spec.x[2]: Duplicate value: "a""#],
    );
    let map = json!({"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["n", "p"],
        "items": {"type": "object", "properties": {"n": {"type": "string"}, "p": {"type": "integer"}}}});
    assert_said(
        map.clone(),
        json!([{"n": "a", "p": 1}, {"n": "a", "p": 2}]),
        &[],
    );
    assert_said(
        map,
        json!([{"n": "a", "p": 1, "q": 1}, {"n": "a", "p": 1}]),
        &[r#"spec.x[1]: Duplicate value: {"n":"a","p":1}"#],
    );
    let of_sets = json!({"type": "object", "additionalProperties": {"type": "array",
        "x-kubernetes-list-type": "set", "items": {"type": "integer"}}});
    assert_said(
        of_sets,
        json!({"k": [1, 1]}),
        &["spec.x[k][1]: Duplicate value: 1"],
    );
}

#[test]
fn an_embedded_object_has_a_kind_and_metadata() {
    let schema = json!({"type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true});
    assert_said(
        schema.clone(),
        json!({"apiVersion": "v1", "kind": "Pod"}),
        &[],
    );
    assert_said(
        schema,
        json!({"apiVersion": "a/b/c", "metadata": {"labels": {"a": "b c"}}}),
        &[
            "spec.x.kind: Required value",
            r#"spec.x.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
            &format!(
                "spec.x.metadata.labels: Invalid value: \"b c\": {}",
                crate::validation::names::label_value("b c").unwrap_err()
            ),
        ],
    );
}

#[test]
fn what_is_not_changed_need_not_be_valid() {
    let schema = json!({"type": "object", "properties": {
        "kind": {"type": "string", "enum": ["A"]},
        "spec": {"type": "object", "properties": {
            "a": {"type": "integer", "minimum": 5},
            "b": {"type": "integer"},
            "atomic": {"type": "array", "items": {"type": "integer", "minimum": 5}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {
                    "n": {"type": "string"}, "v": {"type": "integer", "minimum": 5}, "w": {"type": "integer"}}}},
        }},
    }});
    let old = json!({"kind": "A", "spec": {"a": 1, "b": 1, "atomic": [1, 2], "set": [1, 1],
        "map": [{"n": "x", "v": 1}, {"n": "y", "v": 9}]}});
    let change = |pointer: &str, value: Value| {
        let mut new = old.clone();
        *new.pointer_mut(pointer).unwrap() = value;
        said(&schema, &new, Some(&old))
    };
    assert_eq!(change("/spec/b", json!(2)), Vec::<String>::new());
    assert_eq!(change("/spec/a", json!(2)).len(), 1);
    // A list without keys is old as a whole or not at all.
    assert_eq!(change("/spec/atomic", json!([1, 2, 6])).len(), 2);
    assert_eq!(change("/spec/set", json!([2, 2])), Vec::<String>::new());
    let moved = json!([{"n": "z", "v": 9}, {"n": "x", "v": 1, "w": 1}]);
    assert_eq!(change("/spec/map", moved), Vec::<String>::new());
    let wrong = json!([{"n": "y", "v": 1}]);
    assert_eq!(change("/spec/map", wrong).len(), 1);
    let kind = json!({"kind": "B"});
    let changed = json!({"kind": "B", "spec": {}});
    assert_eq!(said(&schema, &changed, Some(&kind)).len(), 1);
}

#[test]
fn a_status_is_judged_alone() {
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object"},
        "status": {"type": "object", "properties": {"n": {"type": "integer"}}},
    }});
    let schema = Schema::compile(&schema).unwrap();
    let causes = schema.validate(&json!({"status": {"n": "a"}}), None, Part::Status);
    let [cause] = &causes[..] else {
        panic!("{causes:?}")
    };
    assert_eq!(cause.field, "status.n");
    assert_eq!(
        cause.message,
        r#"Invalid value: "string": n in body must be of type integer: "string""#
    );
}

#[test]
fn an_object_that_is_wrong_everywhere_is_answered_in_few_words() {
    let list: Vec<Value> = (0..50_000).map(|n| json!(n.to_string())).collect();
    let schema = json!({"type": "array", "items": {"type": "integer"}});
    assert_eq!(said_of(schema, json!(list)).len(), check::MAX_CAUSES);
}

#[test]
fn alternatives_that_multiply_end_within_their_budget() {
    let mut schema = json!({"maxLength": 1});
    for _ in 0..12 {
        schema = json!({"anyOf": [schema, schema, schema, schema]});
        if schema.to_string().len() > 2_000_000 {
            break;
        }
    }
    let list: Vec<Value> = (0..2_000).map(|_| json!("ab")).collect();
    let began = Instant::now();
    let x = json!({"type": "array", "items": {"type": "string", "allOf": [schema]}});
    match Schema::compile(&with_x(x)) {
        Ok(schema) => {
            let causes = schema.validate(&json!({"spec": {"x": list}}), None, Part::Whole);
            assert!(causes.last().unwrap().message.contains("steps to validate"));
        }
        Err(why) => assert!(why.contains("parts"), "{why}"),
    }
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_schema_of_too_many_parts_or_patterns_is_refused() {
    let many = |schema: Value, count: usize| {
        let all: serde_json::Map<_, _> = (0..count)
            .map(|n| (n.to_string(), schema.clone()))
            .collect();
        Schema::compile(&json!({"type": "object", "properties": all}))
    };
    assert!(many(json!({"type": "string"}), 1_000).is_ok());
    assert!(many(json!({"type": "string"}), MAX_NODES).is_err());
    assert!(many(json!({"type": "string", "pattern": r"(\pL{50})"}), 500).is_err());
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9i64..9).prop_map(Value::from),
        (-9.0..9.0f64).prop_map(Value::from),
        "[a-c]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "integer", "minimum": 0})),
        Just(json!({"type": "string", "pattern": "^a", "maxLength": 2})),
        Just(json!({"type": "number", "multipleOf": 0.5, "nullable": true})),
        Just(json!({"enum": [1, "a", null]})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({})),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            inner.clone().prop_map(
                |s| json!({"type": "array", "items": s, "x-kubernetes-list-type": "set"})
            ),
            inner
                .clone()
                .prop_map(|s| json!({"type": "object", "additionalProperties": s})),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| {
                json!({"type": "object", "properties": {"a": a, "b": b}, "required": ["a"]})
            }),
            list.clone().prop_map(|all| json!({"anyOf": all})),
            list.clone().prop_map(|all| json!({"oneOf": all})),
            list.prop_map(|all| json!({"allOf": all})),
            inner.prop_map(|s| json!({"not": s})),
        ]
    })
}

proptest! {
    #[test]
    fn no_schema_and_no_value_is_a_panic(schema in any_schema(), value in any_value()) {
        said(&schema, &value, None);
    }

    #[test]
    fn an_update_without_a_change_is_always_taken(x in any_schema(), value in any_value()) {
        let object = json!({"spec": {"x": value}});
        prop_assert_eq!(said(&with_x(x), &object, Some(&object)), Vec::<String>::new());
    }

    #[test]
    fn a_value_is_valid_for_a_schema_or_for_its_opposite(schema in any_schema(), value in any_value()) {
        prop_assume!(!value.is_null());
        let valid = said(&schema, &value, None).is_empty();
        let lists = { let mut found = Vec::new(); lists::check(&Schema::compile(&schema).unwrap().root, &value, None, &mut found); found };
        prop_assume!(lists.is_empty());
        prop_assert_eq!(valid, !said(&json!({"not": schema}), &value, None).is_empty());
    }
}

/// A schema whose `spec` has fields and rules.
fn ruled(rules: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {
        "type": "object",
        "x-kubernetes-validations": rules,
        "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"},
            "name": {"type": "string", "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "name is immutable"}]},
            "list": {"type": "array", "items": {"type": "integer"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v"}],
                    "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string",
                "x-kubernetes-validations": [{"rule": "self.size() < 3", "reason": "FieldValueForbidden"}]}},
        },
    }}})
}

fn broken(rule: Value, spec: Value, old: Option<Value>) -> Vec<String> {
    let object = |spec: Value| json!({"spec": spec});
    let old = old.map(object);
    said(&ruled(json!([rule])), &object(spec), old.as_ref())
}

#[test]
fn a_rule_that_does_not_hold_is_an_error_at_its_value() {
    let spec = json!({"min": 2, "max": 1});
    let rule = |more: Value| {
        let mut rule = json!({"rule": "self.min <= self.max"});
        rule.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        broken(rule, spec.clone(), None)
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(
        broken(json!({"rule": "self.min > 1"}), spec.clone(), None),
        none
    );
    for (more, expected) in [
        (
            json!({}),
            r#"spec: Invalid value: "object": failed rule: self.min <= self.max"#,
        ),
        (
            json!({"message": "too large"}),
            r#"spec: Invalid value: "object": too large"#,
        ),
        (
            json!({"messageExpression": "'%d is more than %d'.format([self.min, self.max])"}),
            r#"spec: Invalid value: "object": 2 is more than 1"#,
        ),
        (
            json!({"messageExpression": "['a'][1]", "message": "m"}),
            r#"spec: Invalid value: "object": m"#,
        ),
        (
            json!({"fieldPath": ".min", "reason": "FieldValueForbidden"}),
            "spec.min: Forbidden: failed rule: self.min <= self.max",
        ),
        (
            json!({"reason": "FieldValueRequired"}),
            "spec: Required value: failed rule: self.min <= self.max",
        ),
    ] {
        assert_eq!(rule(more), [expected]);
    }
    assert_eq!(
        broken(
            json!({"rule": "self.list[9] == 1"}),
            json!({"list": []}),
            None
        ),
        [
            r#"spec: Invalid value: "object": index out of bounds: 9 evaluating rule: self.list[9] == 1"#,
        ]
    );
    assert_eq!(
        broken(
            json!({"rule": "true"}),
            json!({"labels": {"a.b": "long"}}),
            None
        ),
        ["spec.labels[a.b]: Forbidden: failed rule: self.size() < 3",]
    );
}

#[test]
fn a_rule_about_the_old_value_needs_one() {
    let none: Vec<String> = Vec::new();
    let rule = json!({"rule": "self.min >= oldSelf.min"});
    assert_eq!(broken(rule.clone(), json!({"min": 1}), None), none);
    assert_eq!(
        broken(rule.clone(), json!({"min": 3}), Some(json!({"min": 2}))),
        none
    );
    assert_eq!(
        broken(rule, json!({"min": 1}), Some(json!({"min": 2}))).len(),
        1
    );
    let (old, new) = (json!({"name": "a"}), json!({"name": "b"}));
    assert_eq!(
        broken(json!({"rule": "true"}), new, Some(old)),
        [r#"spec.name: Invalid value: "string": name is immutable"#,]
    );
    let optional = json!({"rule": "oldSelf.hasValue() || self.min == 0", "optionalOldSelf": true});
    assert_eq!(broken(optional.clone(), json!({"min": 1}), None).len(), 1);
    assert_eq!(
        broken(optional, json!({"min": 1}), Some(json!({"min": 5}))),
        none
    );
    let items = |v: i64| json!({"map": [{"k": "b", "v": 9}, {"k": "a", "v": v}]});
    let old = json!({"map": [{"k": "a", "v": 5}]});
    assert_eq!(
        broken(json!({"rule": "true"}), items(5), Some(old.clone())),
        none
    );
    assert_eq!(
        broken(json!({"rule": "true"}), items(4), Some(old)),
        [r#"spec.map[1]: Invalid value: "object": failed rule: self.v >= oldSelf.v"#,]
    );
}

#[test]
fn what_is_not_changed_need_not_fulfil_a_rule() {
    let rule = json!({"rule": "self.min > 1"});
    let none: Vec<String> = Vec::new();
    assert_eq!(
        broken(rule.clone(), json!({"min": 0}), Some(json!({"min": 0}))),
        none
    );
    assert_eq!(
        broken(rule, json!({"min": 0, "max": 1}), Some(json!({"min": 0}))).len(),
        1
    );
}

#[test]
fn rules_wait_until_the_rest_is_right() {
    let said = broken(json!({"rule": "false"}), json!({"min": "a"}), None);
    assert_eq!(said.len(), 2);
    assert!(
        said[1].starts_with("<nil>: Invalid value: null: some validation rules were not checked")
    );
}

#[test]
fn rules_that_cost_too_much_end_early() {
    let spec = json!({"list": (0..1_000).collect::<Vec<i64>>()});
    let slow = "self.list.all(a, self.list.all(b, self.list.all(c, true)))";
    let once = broken(json!({"rule": slow}), spec.clone(), None);
    assert_eq!(
        once,
        [format!(
            "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no \
         further validation rules will be run due to call cost exceeds limit for rule: {slow}"
        )]
    );
    let dear = json!({"rule": "self.list.all(a, self.list.all(b, a <= 100 || b < 0 || true))"});
    let began = Instant::now();
    let all = said(&ruled(json!(vec![dear; 50])), &json!({"spec": spec}), None);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}
