use serde_json::{Value, json};

use super::*;
use crate::fixture::{controlled_by, object, words, world};

const REVISION: Kind = Kind::CONTROLLER_REVISION;

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    })
}

fn set() -> (Kind, Value) {
    let value = json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}}, "template": template("image:1")}});
    (Kind::STATEFUL_SET, value)
}

fn revision(name: &str, image: &str, number: i64) -> (Kind, Value) {
    let value = json!({
        "metadata": {
            "name": name,
            "labels": {"app": "web"},
            "ownerReferences": controlled_by(Kind::STATEFUL_SET, "web"),
        },
        "data": data(&template(image)),
        "revision": number,
    });
    (REVISION, value)
}

/// What stands of a template among these objects: a name, or what is done.
fn stands(objects: Vec<(Kind, Value)>, image: &str, collisions: i32) -> String {
    let world = world([set()].into_iter().chain(objects));
    let (kind, value) = set();
    let owner = object(kind, value);
    let row = owner.as_stateful_set().unwrap();
    let (revisions, _) = claim(&world, &owner, &row.selector);
    let snapshot = Snapshot {
        owner: &owner,
        annotations: &row.annotations,
        template: &template(image),
        collisions,
        hash_label: "hash",
    };
    match standing(&world, &snapshot, &revisions) {
        Standing::Recorded((revision, _)) => revision.key.name.clone(),
        Standing::Missing(action) => words(&[*action]).remove(0),
        Standing::Taken => "taken".to_owned(),
    }
}

/// The data as kube-controller-manager 1.20 writes it for the same template, byte by byte: its clients compare
/// it with what their own types write.
#[test]
fn data_is_what_go_writes() {
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "httpd"}], "restartPolicy": "Always"},
    });
    let expected = concat!(
        r#"{"spec":{"template":{"$patch":"replace","metadata":{"creationTimestamp":null,"#,
        r#""labels":{"app":"web"}},"spec":{"containers":[{"image":"httpd","name":"app","#,
        r#""resources":{}}],"restartPolicy":"Always"}}}}"#
    );
    assert_eq!(data(&template).to_string(), expected);
}

#[test]
fn a_revision_brings_its_template_back() {
    let row = RevisionRow {
        number: 1,
        data: data(&template("image:1")),
    };
    assert_eq!(super::template(&row), template("image:1"));
}

#[test]
fn a_new_template_is_recorded_with_the_next_number() {
    let first = stands(Vec::new(), "image:1", 0);
    assert!(
        first.starts_with("create controllerrevisions web-"),
        "{first}"
    );
    let known = vec![
        revision("web-a", "image:1", 1),
        revision("web-b", "image:2", 2),
    ];
    assert_eq!(stands(known.clone(), "image:2", 0), "web-b");
    let third = stands(known, "image:3", 0);
    assert!(
        third.starts_with("create controllerrevisions web-"),
        "{third}"
    );
}

#[test]
fn a_template_that_was_there_before_gets_the_next_number_and_no_second_revision() {
    let known = vec![
        revision("web-a", "image:1", 1),
        revision("web-b", "image:2", 2),
    ];
    assert_eq!(
        stands(known, "image:1", 0),
        "patch controllerrevisions web-a {\"revision\":3}"
    );
}

#[test]
fn what_says_nothing_makes_no_other_template() {
    let (kind, mut value) = revision("web-a", "image:1", 1);
    value["data"] = json!({"spec": {"template": template("image:1")}});
    assert_eq!(stands(vec![(kind, value)], "image:1", 0), "web-a");
}

#[test]
fn a_name_that_is_taken_is_a_collision_and_the_count_makes_another_name() {
    let name = stands(Vec::new(), "image:1", 0);
    let name = name.rsplit(' ').next().unwrap();
    let (kind, mut foreign) = revision(name, "image:9", 1);
    foreign["metadata"]["ownerReferences"] = controlled_by(Kind::STATEFUL_SET, "other");
    let foreign = (kind, foreign);
    assert_eq!(stands(vec![foreign.clone()], "image:1", 0), "taken");
    let other = stands(vec![foreign], "image:1", 1);
    assert!(
        other.starts_with("create") && !other.ends_with(name),
        "{other}"
    );
}

#[test]
fn orphans_that_match_are_adopted_and_own_ones_that_do_not_are_released() {
    let (kind, mut orphan) = revision("web-a", "image:1", 1);
    orphan["metadata"]["ownerReferences"] = json!([]);
    let (_, mut stray) = revision("web-b", "image:2", 2);
    stray["metadata"]["labels"] = json!({"app": "other"});
    let (_, mut foreign) = revision("web-c", "image:3", 3);
    foreign["metadata"]["ownerReferences"] = controlled_by(Kind::STATEFUL_SET, "other");
    let world = world([set(), (kind, orphan), (kind, stray), (kind, foreign)]);
    let owner = object(set().0, set().1);
    let selector = &owner.as_stateful_set().unwrap().selector;
    let (revisions, actions) = claim(&world, &owner, selector);
    let names: Vec<&str> = revisions
        .iter()
        .map(|(it, _)| it.key.name.as_str())
        .collect();
    assert_eq!(names, ["web-a"]);
    let words = words(&actions);
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(
        words[0].starts_with("patch controllerrevisions web-b"),
        "{words:?}"
    );
    assert!(
        words[1].starts_with("patch controllerrevisions web-a"),
        "{words:?}"
    );
}

#[test]
fn the_oldest_that_no_pod_has_are_deleted() {
    let all = [("web-a", 1), ("web-b", 2), ("web-c", 3), ("web-d", 4)];
    let objects = all.map(|(name, number)| {
        let (kind, value) = revision(name, name, number);
        object(kind, value)
    });
    let revisions: Vec<RevisionRef> = objects
        .iter()
        .map(|it| (it, it.as_revision().unwrap().as_ref()))
        .collect();
    let live = BTreeSet::from(["web-a", "web-d"]);
    assert_eq!(
        words(&truncate(&revisions, &live, 1)),
        ["delete controllerrevisions web-b"]
    );
}

#[test]
fn a_long_name_leaves_room_for_the_hash() {
    let long = "a".repeat(253);
    assert_eq!(prefix(&long).len(), LONGEST_PREFIX);
    assert_eq!(prefix("web"), "web");
}

#[test]
fn an_orphaned_revision_concerns_only_the_sets_that_may_adopt_it() {
    let other = json!({"metadata": {"name": "other"}, "spec": {
        "selector": {"matchLabels": {"app": "other"}}, "template": template("image:1")}});
    let world = world([set(), (Kind::STATEFUL_SET, other)]);
    let (kind, mut value) = revision("web-1", "image:1", 1);
    value["metadata"]["ownerReferences"] = json!([]);
    let diff = Diff {
        old: None,
        new: Some(Arc::new(object(kind, value))),
    };
    let concerned = |kind: Kind| {
        let mut all = Due::new();
        due(kind, &world, &diff, &mut all);
        let names = all.into_iter().map(|(_, key)| key.name);
        names.collect::<Vec<_>>()
    };
    assert_eq!(concerned(Kind::STATEFUL_SET), ["web"]);
    assert!(concerned(Kind::DAEMON_SET).is_empty());
}
