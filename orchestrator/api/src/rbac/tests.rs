use super::*;

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Rule {
        verbs: owned(verbs),
        api_groups: owned(groups),
        resources: owned(resources),
        resource_names: owned(names),
        paths: Vec::new(),
    }
}

fn path_rule(verbs: &[&str], paths: &[&str]) -> Rule {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Rule {
        verbs: owned(verbs),
        paths: owned(paths),
        ..Rule::default()
    }
}

fn wanted<'a>(verb: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        verb,
        group,
        resource,
        subresource,
        name,
        ..Attributes::default()
    }
}

/// By the rule alone, and by the set that is arranged; both must say the same.
fn allows(rule: &Rule, wanted: &Attributes<'_>) -> bool {
    let set = RuleSet::new(vec![path_rule(&["x"], &["/x"]), rule.clone()]);
    let by_set = set.mask() & mask_of(wanted) != 0 && set.allows(wanted);
    assert_eq!(rule.allows(wanted), by_set, "{rule:?} {wanted:?}");
    by_set
}

#[test]
fn a_rule_is_for_verbs_groups_resources_and_names() {
    let pods = rule(&["get", "list"], &[""], &["pods", "pods/log"], &[]);
    let one = rule(&["update"], &["apps"], &["deployments"], &["web"]);
    let scales = rule(&["*"], &["*"], &["*/scale"], &[]);
    let all = rule(&["*"], &["*"], &["*"], &[]);
    let cases = [
        (&pods, wanted("get", "", "pods", "a"), true),
        (&pods, wanted("list", "", "pods", ""), true),
        (&pods, wanted("get", "", "pods/log", "a"), true),
        (&pods, wanted("get", "", "pods/status", "a"), false),
        (&pods, wanted("watch", "", "pods", ""), false),
        (&pods, wanted("get", "apps", "pods", "a"), false),
        (&one, wanted("update", "apps", "deployments", "web"), true),
        (&one, wanted("update", "apps", "deployments", "db"), false),
        (&one, wanted("update", "apps", "deployments", ""), false),
        (
            &scales,
            wanted("get", "apps", "deployments/scale", "w"),
            true,
        ),
        (&scales, wanted("get", "apps", "deployments", "w"), false),
        (&scales, wanted("get", "x", "y/status", "w"), false),
        (&all, wanted("escalate", "x.org", "y/z", "w"), true),
        (&all, wanted("*", "*", "*", ""), true),
        (&pods, wanted("*", "", "pods", ""), false),
    ];
    for (rule, wanted, expected) in cases {
        assert_eq!(allows(rule, &wanted), expected, "{wanted:?}");
    }
}

#[test]
fn a_rule_for_resources_is_none_for_paths_and_the_other_way_round() {
    let path = |verb, path| Attributes {
        verb,
        path: Some(path),
        ..Attributes::default()
    };
    let all = rule(&["*"], &["*"], &["*"], &[]);
    let health = path_rule(&["get"], &["/healthz", "/healthz/*"]);
    let every_path = path_rule(&["*"], &["*"]);
    let cases = [
        (&all, path("get", "/healthz"), false),
        (&health, path("get", "/healthz"), true),
        (&health, path("get", "/healthz/etcd"), true),
        (&health, path("get", "/healthzx"), false),
        (&health, path("post", "/healthz"), false),
        (&every_path, path("post", "/anything"), true),
        (&every_path, wanted("get", "", "pods", "a"), false),
    ];
    for (rule, wanted, expected) in cases {
        assert_eq!(allows(rule, &wanted), expected, "{wanted:?}");
    }
}

#[test]
fn a_name_that_is_no_resources_is_never_covered() {
    let odd = rule(&["get"], &[""], &["pods/", "pods/*", "/x"], &[]);
    for (resource, subresource) in [("pods", ""), ("pods", "log"), ("", ""), ("pods/", "")] {
        let wanted = Attributes {
            verb: "get",
            resource,
            subresource,
            ..Attributes::default()
        };
        assert!(!allows(&odd, &wanted), "{wanted:?}");
    }
}

#[test]
fn lists_of_a_rule_may_be_null_or_absent() {
    let text = r#"{"verbs": ["get"], "apiGroups": null, "nonResourceURLs": ["/x"]}"#;
    let read: Rule = serde_json::from_str(text).expect("a rule");
    assert_eq!(read, path_rule(&["get"], &["/x"]));
    let shown = serde_json::to_value(&read).expect("JSON");
    assert_eq!(
        shown,
        serde_json::json!({"verbs": ["get"], "nonResourceURLs": ["/x"]})
    );
}

#[test]
fn nobody_hands_on_what_they_do_not_have() {
    let held = [
        rule(&["get", "list"], &[""], &["pods", "*/scale"], &[]),
        rule(&["*"], &["apps"], &["deployments"], &["web"]),
        path_rule(&["get"], &["/healthz*"]),
    ];
    let covered = [
        rule(&["get"], &[""], &["pods"], &[]),
        rule(&["list", "get"], &[""], &["pods", "things/scale"], &["a"]),
        rule(&["delete", "x"], &["apps"], &["deployments"], &["web"]),
        path_rule(&["get"], &["/healthz/etcd", "/healthz*"]),
    ];
    assert_eq!(missing(&held, &covered), []);
    let wanted = [
        rule(&["get", "watch", "delete"], &[""], &["pods"], &[]),
        rule(&["get"], &["apps"], &["deployments"], &[]),
        rule(&["get"], &["apps"], &["deployments"], &["web", "db"]),
        rule(&["*"], &[""], &["pods"], &[]),
        path_rule(&["get"], &["*"]),
    ];
    let shown: Vec<String> = compact(missing(&held, &wanted))
        .iter()
        .map(Rule::describe)
        .collect();
    assert_eq!(
        shown,
        [
            r#"{NonResourceURLs:["*"], Verbs:["get"]}"#,
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch" "delete" "*"]}"#,
            r#"{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}"#,
            r#"{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["db"], Verbs:["get"]}"#,
        ]
    );
    let everything = [rule(&["*"], &["*"], &["*"], &[]), path_rule(&["*"], &["*"])];
    assert_eq!(missing(&everything, &wanted), []);
    assert_eq!(missing(&[], &[]), []);
}
