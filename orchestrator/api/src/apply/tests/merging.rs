use super::*;

/// Finalizers, which are a set, of the live object and of the configuration.
fn merged(live: &str, applied: &str) -> String {
    let set = |words: &str| -> Value {
        let words: Vec<&str> = words.split_whitespace().collect();
        json!({"metadata": {"finalizers": words}})
    };
    let shape = shape::whole(find("", "v1", "pods").unwrap());
    let merged = merge::merge(shape, &set(live), &set(applied));
    let words = merged["metadata"]["finalizers"].as_array().unwrap();
    let words: Vec<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
    words.join(" ")
}

#[test]
fn a_merged_list_has_the_applied_order_and_keeps_the_others_where_they_are() {
    for (live, applied, expected) in [
        ("p q", "p q r", "p q r"),
        ("p q r", "p q", "p q r"),
        ("p q r", "", "p q r"),
        ("", "p q", "p q"),
        ("p q", "q p", "q p"),
        ("p q", "r s", "p q r s"),
        // The applied items come after the neighbour that they have in common.
        ("p q r", "r s", "p q r s"),
        ("p q r t", "r s", "p q r t s"),
        ("q r s", "p q s", "p q r s"),
        // An item that both have moves to where it is applied.
        ("p q r s", "s t p", "q r s t p"),
        ("p s q r", "p r s q", "p r s q"),
    ] {
        assert_eq!(merged(live, applied), expected, "{live} + {applied}");
    }
}

#[test]
fn items_that_the_live_list_has_twice_stay_unless_they_are_applied() {
    for (live, applied, expected) in [
        ("p q q", "r", "p q q r"),
        ("p q q", "p", "p q q"),
        ("p q q", "q", "p q"),
        ("p p q q", "q r", "p p q r"),
        ("p p q q", "", "p p q q"),
    ] {
        assert_eq!(merged(live, applied), expected, "{live} + {applied}");
    }
}

#[test]
fn a_struct_map_or_list_keeps_what_is_not_applied() {
    let shape = shape::whole(find("", "v1", "pods").unwrap());
    let live = json!({
        "metadata": {"labels": {"a": "1"}},
        "spec": {
            "containers": [{"name": "x", "image": "i", "args": ["1"]}],
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "k"}],
        },
    });
    let applied = json!({
        "metadata": {"labels": {"b": "2"}},
        "spec": {
            "containers": [{"name": "x", "args": []}, {"name": "y"}],
            "nodeSelector": {"cpu": "fast"},
            "tolerations": [],
        },
    });
    let expected = json!({
        "metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {
            "containers": [{"name": "x", "image": "i", "args": []}, {"name": "y"}],
            "nodeSelector": {"cpu": "fast"},
            "tolerations": [],
        },
    });
    assert_eq!(merge::merge(shape, &live, &applied), expected);
    assert_eq!(merge::merge(shape, &live, &json!({})), live);
    assert_eq!(merge::merge(shape, &json!({}), &applied), applied);
    let null = json!({"metadata": {"labels": null}, "spec": {"containers": null}});
    assert_eq!(merge::merge(shape, &live, &null), live);
}

#[test]
fn taking_fields_out_leaves_null_where_nothing_is_left() {
    let shape = shape::whole(find("", "v1", "pods").unwrap());
    let live = json!({
        "metadata": {"labels": {"a": "1"}, "finalizers": ["x/y", "x/z"]},
        "spec": {"containers": [{"name": "x", "image": "i"}, {"name": "y"}]},
    });
    let gone = json!({
        "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {r#"v:"x/y""#: {}}},
        "f:spec": {"f:containers": {
            r#"k:{"name":"x"}"#: {"f:image": {}},
            r#"k:{"name":"y"}"#: {},
        }},
    });
    let expected = json!({
        "metadata": {"labels": null, "finalizers": ["x/z"]},
        "spec": {"containers": [{"name": "x"}]},
    });
    let gone = gone.as_object().unwrap();
    assert_eq!(merge::without(shape, &live, gone), Some(expected));
}
