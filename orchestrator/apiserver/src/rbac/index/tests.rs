use std::time::Instant;

use serde_json::{Value, json};

use super::*;

fn note(index: &mut Index, name: &str, object: Value) {
    let stored = object.to_string();
    index.note(name, Some(stored.as_bytes())).expect("it reads");
}

fn role(index: &mut Index, name: &str, verb: &str, resource: &str) {
    let rules = json!([{"verbs": [verb], "apiGroups": [""], "resources": [resource]}]);
    let short = name.rsplit('/').next();
    note(
        index,
        name,
        json!({"metadata": {"name": short}, "rules": rules}),
    );
}

/// `of` is `Role/x` or `ClusterRole/x`; each of the subjects `Kind/name` or `Kind/name/namespace`.
fn bind(index: &mut Index, name: &str, of: &str, subjects: &[&str]) {
    let words: Vec<&str> = name.split('/').collect();
    let namespace = if words.len() == 3 { words[1] } else { "" };
    let (kind, role) = of.split_once('/').expect("a role");
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|subject| {
            let words: Vec<&str> = subject.split('/').collect();
            json!({"kind": words[0], "name": words[1], "namespace": words.get(2)})
        })
        .collect();
    let object = json!({
        "metadata": {"name": words.last(), "namespace": namespace},
        "roleRef": {"kind": kind, "name": role},
        "subjects": subjects,
    });
    note(index, name, object);
}

fn user<'a>(name: &'a str, groups: &'a [String]) -> Subject<'a> {
    Subject {
        name,
        groups,
        everybody: Some("system:authenticated"),
    }
}

fn get<'a>(resource: &'a str, namespace: &'a str) -> Attributes<'a> {
    Attributes {
        verb: "get",
        resource,
        namespace,
        ..Attributes::default()
    }
}

fn may(index: &Index, name: &str, groups: &[&str], wanted: Attributes<'_>) -> bool {
    let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    index.allows(user(name, &groups), &wanted).is_some()
}

#[test]
fn a_binding_gives_its_role_to_users_groups_and_service_accounts() {
    let mut index = Index::default();
    role(&mut index, "clusterroles/reader", "get", "pods");
    bind(
        &mut index,
        "clusterrolebindings/b",
        "ClusterRole/reader",
        &["User/ann", "Group/dev", "ServiceAccount/ci/build"],
    );
    let pods = || get("pods", "x");
    assert!(may(&index, "ann", &[], pods()));
    assert!(may(&index, "bob", &["dev"], pods()));
    assert!(may(&index, "system:serviceaccount:build:ci", &[], pods()));
    assert!(!may(&index, "dev", &["ann"], pods()));
    assert!(!may(&index, "system:serviceaccount:other:ci", &[], pods()));
    assert!(!may(&index, "ann", &[], get("secrets", "x")));
}

#[test]
fn a_role_binding_holds_in_its_namespace_only() {
    let mut index = Index::default();
    role(&mut index, "clusterroles/reader", "get", "pods");
    role(&mut index, "roles/x/reader", "get", "secrets");
    bind(
        &mut index,
        "rolebindings/x/a",
        "ClusterRole/reader",
        &["User/ann"],
    );
    bind(
        &mut index,
        "rolebindings/x/b",
        "Role/reader",
        &["User/ann", "ServiceAccount/own"],
    );
    assert!(may(&index, "ann", &[], get("pods", "x")));
    assert!(may(&index, "ann", &[], get("secrets", "x")));
    assert!(may(
        &index,
        "system:serviceaccount:x:own",
        &[],
        get("secrets", "x")
    ));
    for elsewhere in ["", "y"] {
        assert!(!may(&index, "ann", &[], get("pods", elsewhere)));
        assert!(!may(&index, "ann", &[], get("secrets", elsewhere)));
    }
}

#[test]
fn a_role_that_is_not_there_is_named_and_gives_its_rules_as_soon_as_it_is() {
    let mut index = Index::default();
    bind(
        &mut index,
        "clusterrolebindings/b",
        "ClusterRole/late",
        &["User/ann"],
    );
    bind(&mut index, "rolebindings/x/b", "Role/local", &["User/ann"]);
    let pods = || get("pods", "x");
    assert!(!may(&index, "ann", &[], pods()));
    assert_eq!(
        index.missing(user("ann", &[]), "x"),
        [
            "clusterrole.rbac.authorization.k8s.io \"late\" not found",
            "role.rbac.authorization.k8s.io \"local\" not found",
        ]
    );
    role(&mut index, "clusterroles/late", "get", "pods");
    assert!(may(&index, "ann", &[], pods()));
    role(&mut index, "clusterroles/late", "list", "pods");
    assert!(!may(&index, "ann", &[], pods()));
    index.note("clusterroles/late", None).expect("it is gone");
    assert_eq!(index.missing(user("ann", &[]), "").len(), 1);
}

#[test]
fn what_is_unbound_is_forgotten() {
    let mut index = Index::default();
    for round in 0..3 {
        let (role_name, binding) = (format!("clusterroles/r{round}"), "clusterrolebindings/b");
        role(&mut index, &role_name, "get", "pods");
        let of = format!("ClusterRole/r{round}");
        bind(&mut index, binding, &of, &["User/ann", "Group/dev"]);
        assert!(may(&index, "ann", &[], get("pods", "")));
        // The same binding once more, with fewer subjects.
        bind(&mut index, binding, &of, &["Group/dev"]);
        assert!(!may(&index, "ann", &[], get("pods", "")));
        assert!(may(&index, "ann", &["dev"], get("pods", "")));
        index.note(binding, None).expect("it is gone");
        index.note(&role_name, None).expect("it is gone");
        assert!(!may(&index, "ann", &["dev"], get("pods", "")));
    }
    assert!(index.users.is_empty() && index.groups.is_empty() && index.bindings.is_empty());
    assert!(index.places.is_empty() && index.roles.len() == 1);
}

#[test]
fn what_does_not_read_allows_nothing() {
    let mut index = Index::default();
    role(&mut index, "clusterroles/r", "get", "pods");
    bind(
        &mut index,
        "clusterrolebindings/b",
        "ClusterRole/r",
        &["User/ann"],
    );
    assert!(
        index
            .note("clusterroles/r", Some(b"{\"rules\": 7}"))
            .is_err()
    );
    assert!(!may(&index, "ann", &[], get("pods", "")));
    role(&mut index, "clusterroles/r", "get", "pods");
    assert!(index.note("clusterrolebindings/b", Some(b"[")).is_err());
    assert!(!may(&index, "ann", &[], get("pods", "")));
}

#[test]
fn what_a_decision_has_looked_at_may_change_before_the_next_one() {
    let mut index = Index::default();
    let view = "clusterroles/view";
    bind(
        &mut index,
        "rolebindings/x/b",
        "ClusterRole/view",
        &["User/ann", "Group/dev"],
    );
    let may_get = |index: &Index, what: &str| {
        let of_user = may(index, "ann", &[], get(what, "x"));
        let of_group = may(index, "bob", &["dev"], get(what, "x"));
        assert_eq!(of_user, of_group);
        of_user
    };
    assert!(!may_get(&index, "pods"));
    assert_eq!(index.missing(user("ann", &[]), "x").len(), 1);
    role(&mut index, view, "get", "pods");
    assert!(may_get(&index, "pods") && !may_get(&index, "secrets"));
    assert!(index.missing(user("ann", &[]), "x").is_empty());
    role(&mut index, view, "get", "secrets");
    assert!(!may_get(&index, "pods") && may_get(&index, "secrets"));
    role(&mut index, "roles/x/own", "get", "pods");
    bind(
        &mut index,
        "rolebindings/x/c",
        "Role/own",
        &["User/ann", "Group/dev"],
    );
    assert!(may_get(&index, "pods") && may_get(&index, "secrets"));
    index.note(view, None).expect("it is gone");
    assert!(may_get(&index, "pods") && !may_get(&index, "secrets"));
    index.note("rolebindings/x/c", None).expect("it is gone");
    assert!(!may_get(&index, "pods"));
}

#[test]
fn the_reason_names_binding_role_and_subject() {
    let mut index = Index::default();
    role(&mut index, "clusterroles/view", "get", "pods");
    bind(
        &mut index,
        "clusterrolebindings/all",
        "ClusterRole/view",
        &["Group/g", "User/ann"],
    );
    bind(
        &mut index,
        "rolebindings/x/some",
        "ClusterRole/view",
        &["ServiceAccount/ci"],
    );
    let reason = |name: &str| {
        let granted = index.allows(user(name, &[]), &get("pods", "x"));
        granted.expect("allowed").reason()
    };
    assert_eq!(
        reason("ann"),
        "RBAC: allowed by ClusterRoleBinding \"all\" of ClusterRole \"view\" to User \"ann\""
    );
    assert_eq!(
        reason("system:serviceaccount:x:ci"),
        "RBAC: allowed by RoleBinding \"some/x\" of ClusterRole \"view\" to ServiceAccount \"ci/x\""
    );
}

#[test]
fn a_caller_has_the_rules_of_a_binding_once() {
    let mut index = Index::default();
    role(&mut index, "clusterroles/view", "get", "pods");
    bind(
        &mut index,
        "clusterrolebindings/a",
        "ClusterRole/view",
        &["Group/g", "User/ann"],
    );
    bind(
        &mut index,
        "rolebindings/x/b",
        "ClusterRole/view",
        &["User/ann"],
    );
    let groups = ["g".to_owned()];
    assert_eq!(index.rules(user("ann", &groups), "").len(), 1);
    assert_eq!(index.rules(user("ann", &groups), "x").len(), 2);
}

/// It judges no time (machines differ) but prints it: `cargo test -p apiserver --release -- --nocapture
/// one_decision_among`.
#[test]
fn one_decision_among_thousands_of_bindings_is_the_right_one() {
    for bindings in [1_000, 10_000] {
        for (name, of_one) in [("of as many users", false), ("all of one user", true)] {
            let mut index = Index::default();
            for number in 0..bindings {
                let of = format!("r{number}");
                role(
                    &mut index,
                    &format!("clusterroles/{of}"),
                    "get",
                    &format!("things{number}"),
                );
                let to = if of_one { 0 } else { number };
                let subject = format!("User/user-{to}");
                let name = format!("clusterrolebindings/b{number}");
                bind(&mut index, &name, &format!("ClusterRole/{of}"), &[&subject]);
            }
            let last = bindings - 1;
            let resource = format!("things{last}");
            let of = if of_one {
                "user-0".to_owned()
            } else {
                format!("user-{last}")
            };
            let groups = ["a".to_owned(), "b".to_owned()];
            let rounds = if cfg!(debug_assertions) { 20 } else { 20_000 };
            for (what, wanted, expected) in [
                ("allowed", get(&resource, "x"), true),
                ("refused", get("secrets", "x"), false),
            ] {
                let start = Instant::now();
                for _ in 0..rounds {
                    let found = index.allows(user(&of, &groups), std::hint::black_box(&wanted));
                    assert_eq!(found.is_some(), expected);
                }
                let each = start.elapsed().as_nanos() / rounds;
                println!("{bindings} bindings {name}: {what} in {each} ns");
            }
        }
    }
}
