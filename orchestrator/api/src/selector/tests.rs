use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter(|t| !t.is_empty());
    pairs
        .map(|t| t.split_once('=').unwrap())
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

#[test]
fn label_selectors_select_as_kubernetes_says() {
    let cases = [
        ("", "a=b", true),
        ("", "", true),
        ("a=b", "a=b", true),
        ("a==b", "a=b,c=d", true),
        ("a=b", "a=c", false),
        ("a=b", "", false),
        ("a!=b", "", true),
        ("a!=b", "a=c", true),
        ("a!=b", "a=b", false),
        ("a", "a=", true),
        ("a", "", false),
        ("!a", "", true),
        ("!a", "a=b", false),
        ("a in (b, c)", "a=c", true),
        ("a in (b,c)", "a=d", false),
        ("a in (b)", "", false),
        ("a notin (b,c)", "a=d", true),
        ("a notin (b,c)", "", true),
        ("a notin (b,c)", "a=b", false),
        ("a=", "a=", true),
        ("a=", "a=b", false),
        ("a in (,b)", "a=", true),
        ("a>3", "a=4", true),
        ("a>3", "a=3", false),
        ("a<3", "a=x", false),
        ("a<3", "a=2", true),
        (
            "environment in (production, qa),tier!=frontend,!partition",
            "environment=qa",
            true,
        ),
        (
            "environment in (production, qa),tier!=frontend,!partition",
            "environment=qa,tier=frontend",
            false,
        ),
        (
            "environment in (production, qa),tier!=frontend,!partition",
            "environment=production,tier=backend,partition=x",
            false,
        ),
        ("in=notin", "in=notin", true),
        ("example.com/a=b", "example.com/a=b", true),
    ];
    for (selector, object, selected) in cases {
        let parsed = LabelSelector::parse(selector).unwrap();
        assert_eq!(
            parsed.matches(&labels(object)),
            selected,
            "{selector} on {object}"
        );
        let again = LabelSelector::parse(&parsed.to_string()).unwrap();
        assert_eq!(again, parsed, "{selector} is written as it is read");
    }
}

#[test]
fn what_is_no_selector_is_a_bad_request() {
    let cases = [
        "a=b=c", "a b", "a in b", "a in (b", "a,", ",a", "=b", "!", "a>x", "-a=b", "a=b c",
    ];
    for text in cases {
        let error = LabelSelector::parse(text).unwrap_err();
        assert_eq!(error.code(), 400, "{text}");
    }
}

#[test]
fn a_null_selector_selects_nothing_and_an_empty_one_everything() {
    assert!(
        !LabelSelector::from_object(None)
            .unwrap()
            .matches(&labels("a=b"))
    );
    let empty = meta::LabelSelector::default();
    assert!(
        LabelSelector::from_object(Some(&empty))
            .unwrap()
            .matches(&labels("a=b"))
    );
}

#[test]
fn an_object_selector_joins_labels_and_expressions() {
    let selector: meta::LabelSelector = serde_json::from_value(serde_json::json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "NotIn", "values": ["cache"]},
            {"key": "track", "operator": "Exists"},
        ],
    }))
    .unwrap();
    let selector = LabelSelector::from_object(Some(&selector)).unwrap();
    assert!(selector.matches(&labels("app=web,track=stable")));
    assert!(!selector.matches(&labels("app=web,track=stable,tier=cache")));
    assert_eq!(selector.to_string(), "app=web,tier!=cache,track");
}

#[test]
fn field_selectors_compare_whole_values() {
    let fields = BTreeMap::from([
        ("metadata.name".into(), "a".to_owned()),
        ("spec.nodeName".into(), String::new()),
    ]);
    let cases = [
        ("", true),
        ("metadata.name=a", true),
        ("metadata.name==a", true),
        ("metadata.name!=a", false),
        ("metadata.name=b", false),
        ("spec.nodeName=", true),
        ("spec.nodeName!=", false),
        ("metadata.name=a,spec.nodeName=n", false),
    ];
    for (text, selected) in cases {
        assert_eq!(
            FieldSelector::parse(text).unwrap().matches(&fields),
            selected,
            "{text}"
        );
    }
    assert!(FieldSelector::parse("metadata.name").is_err());
    let selector = FieldSelector::parse("spec.foo=a").unwrap();
    assert_eq!(
        selector
            .check("Pod", &["metadata.name".into()])
            .unwrap_err()
            .to_string(),
        "field label not supported: spec.foo (of kind Pod)"
    );
    let by_name = FieldSelector::parse(r"metadata.name=a\,b").unwrap();
    assert_eq!(by_name.required("metadata.name"), Some("a,b"));
}

#[test]
fn a_selector_has_so_many_requirements_and_no_more() {
    let labels = |count: usize| {
        let all: Vec<String> = (0..count).map(|n| format!("!l{n}")).collect();
        LabelSelector::parse(&all.join(","))
    };
    assert!(labels(1000).is_ok());
    let error = labels(1001).unwrap_err();
    assert_eq!(error.code(), 400);
    assert!(error.to_string().contains("more than 1000 requirements"));
    let fields = "metadata.name!=x,".repeat(1001);
    assert_eq!(FieldSelector::parse(&fields).unwrap_err().code(), 400);
}

#[test]
fn a_selector_of_a_million_bytes_is_read_in_the_time_that_reading_it_takes() {
    let values: Vec<String> = (0..100_000).map(|n| format!("v{n:08}")).collect();
    let text = format!("a in ({})", values.join(","));
    let began = std::time::Instant::now();
    let selector = LabelSelector::parse(&text).unwrap();
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    let labels = BTreeMap::from([("a".to_owned(), "v00099999".to_owned())]);
    assert!(selector.matches(&labels));
}
