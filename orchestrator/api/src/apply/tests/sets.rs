use super::*;

fn parsed(value: Value) -> Nodes {
    FieldSet::parse(&value).unwrap().nodes().clone()
}

#[test]
fn an_element_has_one_form_however_a_client_writes_it() {
    let set = parsed(json!({
        "f:ports": {
            r#"k:{"protocol": "TCP", "containerPort": 80}"#: {".": {}, "f:name": {}},
            r#"v: "a\u0062" "#: {},
            "i:007": {},
        },
    }));
    let expected = json!({
        "f:ports": {
            r#"k:{"containerPort":80,"protocol":"TCP"}"#: {".": {}, "f:name": {}},
            r#"v:"ab""#: {},
            "i:7": {},
        },
    });
    assert_eq!(Value::Object(set), expected);
}

#[test]
fn elements_of_unknown_sorts_are_dropped_and_malformed_sets_refused() {
    assert_eq!(
        parsed(json!({"f:a": {}, "z:what": {"f:b": {}}})),
        parsed(json!({"f:a": {}}))
    );
    assert_eq!(parsed(json!({"f:a": {"z:what": {}}})), Nodes::new());
    for wrong in [
        json!([]),
        json!({"f:a": []}),
        json!({"f:a": {"f:b": 1}}),
        json!({"a": {}}),
        json!({"": {}}),
        json!({"k:[]": {}}),
        json!({"k:{\"a\":[]}": {}}),
        json!({"v:{}": {}}),
        json!({"v:1 2": {}}),
        json!({"i:x": {}}),
    ] {
        assert!(FieldSet::parse(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_set_is_not_deeper_or_larger_than_an_object_can_be() {
    let mut deep = json!({});
    for _ in 0..10_000 {
        deep = Value::Object(Map::from_iter([("f:a".to_owned(), deep)]));
    }
    assert!(FieldSet::parse(&deep).is_err());
    // A value this deep is not dropped by recursion on a small stack.
    while let Some(inner) = deep.get_mut("f:a").map(Value::take) {
        deep = inner;
    }
    let wide = |count: usize| -> Value {
        (0..count)
            .map(|at| (format!("f:{at}"), json!({})))
            .collect()
    };
    assert!(FieldSet::parse(&wide(100_000)).is_ok());
    assert!(FieldSet::parse(&wide(100_001)).is_err());
}

#[test]
fn sets_are_united_subtracted_and_intersected_path_by_path() {
    let left = || parsed(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
    let right = || parsed(json!({"f:a": {"f:b": {}, "f:d": {}}, "f:e": {}}));
    let mut all = left();
    field_set::unite(&mut all, right());
    let expected = json!({"f:a": {".": {}, "f:b": {}, "f:d": {}}, "f:c": {}, "f:e": {}});
    assert_eq!(all, parsed(expected));
    let mut less = left();
    field_set::subtract(&mut less, &right());
    assert_eq!(less, parsed(json!({"f:a": {}, "f:c": {}})));
    field_set::subtract(&mut less, &left());
    assert_eq!(less, Nodes::new());
    // A path goes, what is below it stays.
    let mut below = left();
    field_set::subtract(&mut below, &parsed(json!({"f:a": {}})));
    assert_eq!(below, parsed(json!({"f:a": {"f:b": {}}, "f:c": {}})));
    let both = field_set::intersection(&left(), &right());
    assert_eq!(both, parsed(json!({"f:a": {"f:b": {}}})));
}

#[test]
fn a_set_contains_its_paths_and_not_the_way_to_them() {
    let set = FieldSet::parse(&json!({"f:a": {"f:b": {".": {}, "f:c": {}}}})).unwrap();
    assert!(!set.contains(["f:a"]));
    assert!(set.contains(["f:a", "f:b"]));
    assert!(set.contains(["f:a", "f:b", "f:c"]));
    assert!(!set.contains(["f:a", "f:b", "f:x"]));
    assert!(!set.contains([]));
    assert_eq!(set.paths(), [vec!["f:a", "f:b"], vec!["f:a", "f:b", "f:c"]]);
}
