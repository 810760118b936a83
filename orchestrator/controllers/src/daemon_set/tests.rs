use serde_json::{Value, json};

use super::*;
use crate::fixture::{controlled_by, now, words, world};

const SET: Kind = Kind::DAEMON_SET;

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "log"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    })
}

fn set(image: &str) -> (Kind, Value) {
    let value = json!({
        "metadata": {
            "name": "log",
            "generation": 2,
            "annotations": {"deprecated.daemonset.template.generation": "2"},
        },
        "spec": {
            "selector": {"matchLabels": {"app": "log"}},
            "template": template(image),
            "updateStrategy": rolling(json!(1), json!(0)),
        },
    });
    (SET, value)
}

fn rolling(max_unavailable: Value, max_surge: Value) -> Value {
    json!({"type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": max_unavailable, "maxSurge": max_surge}})
}

fn with(mut object: (Kind, Value), path: &str, value: Value) -> (Kind, Value) {
    let (parent, field) = path.rsplit_once('/').unwrap();
    object.1.pointer_mut(parent).unwrap()[field] = value;
    object
}

fn node(number: usize, labels: Value, taints: Value) -> (Kind, Value) {
    let value = json!({
        "metadata": {"name": format!("n{number}"), "labels": labels},
        "spec": {"taints": taints},
    });
    (Kind::NODE, value)
}

fn nodes(count: usize) -> Vec<(Kind, Value)> {
    (1..=count)
        .map(|number| node(number, json!({}), json!([])))
        .collect()
}

fn taint(key: &str, effect: &str) -> Value {
    json!([{"key": key, "effect": effect}])
}

/// The revision of an image, whose hash is the image.
fn revision(image: &str, number: i64) -> (Kind, Value) {
    let value = json!({
        "metadata": {
            "name": format!("log-{image}"),
            "labels": {"app": "log", "controller-revision-hash": image},
            "ownerReferences": controlled_by(SET, "log"),
        },
        "data": revisions::data(&template(image)),
        "revision": number,
    });
    (Kind::CONTROLLER_REVISION, value)
}

fn pod(name: &str, number: usize, image: &str) -> (Kind, Value) {
    let ready = json!({"type": "Ready", "status": "True",
        "lastTransitionTime": "2026-01-01T00:09:00Z"});
    let value = json!({
        "metadata": {
            "name": name,
            "labels": {"app": "log", "controller-revision-hash": image},
            "ownerReferences": controlled_by(SET, "log"),
        },
        "spec": {"nodeName": format!("n{number}"), "containers": []},
        "status": {"phase": "Running", "conditions": [ready]},
    });
    (Kind::POD, value)
}

fn unready(pod: (Kind, Value)) -> (Kind, Value) {
    with(pod, "/status/conditions", json!([]))
}

fn ending(pod: (Kind, Value)) -> (Kind, Value) {
    with(
        pod,
        "/metadata/deletionTimestamp",
        json!("2026-01-01T00:09:00Z"),
    )
}

fn planned(objects: Vec<(Kind, Value)>) -> Plan {
    plan(&world(objects), &Key::new("ns", "log"), None, now()).unwrap()
}

/// What is done to pods and revisions: deletions by name, creations by node.
fn done(objects: Vec<(Kind, Value)>) -> Vec<String> {
    let plan = planned(objects);
    let word = |action: &Action| match action {
        Action::Create(create) if create.kind == Kind::POD => {
            let terms = create.object.pointer(
                "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                 /nodeSelectorTerms/0/matchFields/0/values/0",
            );
            Some(format!("create on {}", terms?.as_str()?))
        }
        Action::Tell(_) => None,
        Action::Patch(patch) if patch.subresource == "status" => None,
        other => Some(words(std::slice::from_ref(other)).remove(0)),
    };
    plan.actions.iter().filter_map(word).collect()
}

fn status(plan: &Plan) -> Value {
    let status = plan.actions.iter().find_map(|action| match action {
        Action::Patch(patch) => patch.body.get("status").cloned(),
        _ => None,
    });
    status.expect("a status is written")
}

/// The set of image 2 with both revisions, nodes and pods.
fn update(set: (Kind, Value), count: usize, pods: Vec<(Kind, Value)>) -> Vec<String> {
    let mut objects = vec![set, revision("1", 1), revision("2", 2)];
    objects.extend(nodes(count));
    objects.extend(pods);
    done(objects)
}

#[test]
fn the_revision_is_recorded_before_any_pod_is_made() {
    let mut objects = vec![set("1")];
    objects.extend(nodes(1));
    let words = done(objects);
    assert!(
        words.len() == 1 && words[0].starts_with("create controllerrevisions log-"),
        "{words:?}"
    );
}

#[test]
fn each_node_gets_one_pod_that_is_led_to_it() {
    let mut objects = vec![set("1"), revision("1", 1), pod("a", 2, "1")];
    objects.extend(nodes(3));
    assert_eq!(done(objects.clone()), ["create on n1", "create on n3"]);
    let plan = planned(objects);
    let made = plan.actions.iter().find_map(|action| match action {
        Action::Create(create) => Some(&create.object),
        _ => None,
    });
    let made = made.unwrap();
    assert_eq!(
        made["metadata"]["labels"],
        json!({"app": "log", "controller-revision-hash": "1", "pod-template-generation": "2"})
    );
    assert_eq!(made["metadata"]["generateName"], "log-");
    let tolerated: Vec<&str> = made["spec"]["tolerations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["key"].as_str().unwrap())
        .collect();
    let known = [
        "not-ready",
        "unreachable",
        "disk-pressure",
        "memory-pressure",
        "pid-pressure",
        "unschedulable",
    ];
    assert_eq!(
        tolerated,
        known.map(|key| format!("node.kubernetes.io/{key}"))
    );
}

#[test]
fn a_pod_that_waits_for_the_scheduler_counts_for_its_node() {
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}}});
    let waiting = with(unready(pod("a", 1, "1")), "/spec/nodeName", Value::Null);
    let waiting = with(waiting, "/spec/affinity", affinity);
    let waiting = with(waiting, "/status/phase", json!("Pending"));
    let mut objects = vec![set("1"), revision("1", 1), waiting];
    assert_eq!(done(objects.clone()), ["delete pods a"], "its node is gone");
    objects.extend(nodes(2));
    assert_eq!(done(objects), ["create on n2"]);
}

#[test]
fn selectors_affinity_and_taints_choose_the_nodes() {
    let blue = json!({"color": "blue"});
    let of = |set: (Kind, Value), node: (Kind, Value)| {
        let words = done(vec![set, revision("1", 1), node]);
        words.iter().any(|word| word.starts_with("create on"))
    };
    let plain = || node(1, json!({}), json!([]));
    let place = |path: &str, value: Value| {
        let mut set = with(set("1"), &format!("/spec/template/spec/{path}"), value);
        // Its own revision is known.
        set.1["spec"]["template"]["spec"]["containers"] = json!([]);
        set
    };
    let runs = |set: (Kind, Value), node: (Kind, Value)| {
        let mut known = revision("1", 1);
        known.1["data"] = revisions::data(&set.1["spec"]["template"]);
        done(vec![set, known, node])
            .iter()
            .any(|word| word.starts_with("create on"))
    };
    assert!(of(set("1"), plain()));
    let selected = || place("nodeSelector", blue.clone());
    assert!(!runs(selected(), plain()));
    assert!(runs(selected(), node(1, blue.clone(), json!([]))));
    let affinity = |terms: Value| {
        place(
            "affinity",
            json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}),
        )
    };
    let in_blue = json!([{"matchExpressions": [
        {"key": "color", "operator": "In", "values": ["blue"]}]}]);
    assert!(!runs(affinity(in_blue.clone()), plain()));
    assert!(runs(affinity(in_blue), node(1, blue, json!([]))));
    let other = json!([{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]);
    assert!(!runs(affinity(other), plain()));
    for effect in ["NoSchedule", "NoExecute"] {
        assert!(!of(
            set("1"),
            node(1, json!({}), taint("dedicated", effect))
        ));
        let tolerant = place(
            "tolerations",
            json!([{"key": "dedicated", "operator": "Exists"}]),
        );
        assert!(runs(
            tolerant,
            node(1, json!({}), taint("dedicated", effect))
        ));
    }
    for (key, effect) in [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("unschedulable", "NoSchedule"),
        ("disk-pressure", "NoSchedule"),
    ] {
        let taint = taint(&format!("node.kubernetes.io/{key}"), effect);
        assert!(of(set("1"), node(1, json!({}), taint)), "{key}");
    }
    let no_network = || taint("node.kubernetes.io/network-unavailable", "NoSchedule");
    assert!(!of(set("1"), node(1, json!({}), no_network())));
    assert!(runs(
        place("hostNetwork", json!(true)),
        node(1, json!({}), no_network())
    ));
}

#[test]
fn a_taint_against_new_pods_leaves_old_ones_and_one_against_all_ends_them() {
    let of = |effect: &str| {
        let node = node(1, json!({}), taint("dedicated", effect));
        done(vec![set("1"), revision("1", 1), node, pod("a", 1, "1")])
    };
    assert_eq!(of("NoSchedule"), Vec::<String>::new());
    assert_eq!(of("NoExecute"), ["delete pods a"]);
    let unselected = with(
        set("1"),
        "/spec/template/spec/nodeSelector",
        json!({"a": "b"}),
    );
    let mut known = revision("1", 1);
    known.1["data"] = revisions::data(&unselected.1["spec"]["template"]);
    let objects = vec![
        unselected,
        known,
        node(1, json!({}), json!([])),
        pod("a", 1, "1"),
    ];
    assert_eq!(done(objects.clone()), ["delete pods a"]);
    assert_eq!(status(&planned(objects))["numberMisscheduled"], 1);
}

#[test]
fn of_two_pods_on_a_node_the_older_stays() {
    let younger = with(
        pod("a", 1, "1"),
        "/metadata/creationTimestamp",
        json!("2026-01-01T00:01:00Z"),
    );
    let mut objects = vec![set("1"), revision("1", 1), younger, pod("b", 1, "1")];
    objects.extend(nodes(1));
    assert_eq!(done(objects), ["delete pods a"]);
}

#[test]
fn a_failed_pod_is_deleted_told_of_and_replaced_when_it_is_gone() {
    let failed = with(pod("a", 1, "1"), "/status/phase", json!("Failed"));
    let mut objects = vec![set("1"), revision("1", 1), failed.clone()];
    objects.extend(nodes(1));
    assert_eq!(done(objects.clone()), ["delete pods a"]);
    let text = "tell FailedDaemonPod Found failed daemon pod ns/a on node n1, will try to kill it";
    let told = words(&planned(objects.clone()).actions);
    assert!(told.contains(&text.to_owned()), "{told:?}");
    objects[2] = ending(failed.clone());
    assert_eq!(done(objects.clone()), Vec::<String>::new());
    objects.remove(2);
    assert_eq!(done(objects.clone()), ["create on n1"]);
    // The second failure in a row is deleted two seconds after it was made.
    let fresh = with(
        failed,
        "/metadata/creationTimestamp",
        json!("2026-01-01T00:09:59Z"),
    );
    objects.push(fresh.clone());
    let mut failures = Failures::default();
    for _ in 0..2 {
        let new = Some(std::sync::Arc::new(crate::fixture::object(
            fresh.0,
            fresh.1.clone(),
        )));
        failures.hear(&Diff { old: None, new }, "n1", now());
    }
    let plan = plan(
        &world(objects),
        &Key::new("ns", "log"),
        Some(&failures),
        now(),
    )
    .unwrap();
    assert_eq!(plan.again, Some(SignedDuration::from_secs(1)));
    assert!(!words(&plan.actions).contains(&"delete pods a".to_owned()));
}

#[test]
fn an_update_replaces_as_many_as_may_be_unavailable() {
    let old = |number: usize| pod(&format!("old-{number}"), number, "1");
    let new = |number: usize| pod(&format!("new-{number}"), number, "2");
    let of = |max: Value, pods| {
        update(
            with(set("2"), "/spec/updateStrategy", rolling(max, json!(0))),
            3,
            pods,
        )
    };
    let all = || vec![old(1), old(2), old(3)];
    assert_eq!(of(json!(1), all()), ["delete pods old-1"]);
    assert_eq!(
        of(json!("50%"), all()),
        ["delete pods old-1", "delete pods old-2"]
    );
    let starting = vec![unready(new(1)), old(2), old(3)];
    assert_eq!(of(json!(1), starting), Vec::<String>::new());
    let next = vec![new(1), old(2), old(3)];
    assert_eq!(of(json!(1), next), ["delete pods old-2"]);
    let waits = vec![ending(old(1)), old(2), old(3)];
    assert_eq!(of(json!(1), waits), Vec::<String>::new());
    let broken = vec![old(1), unready(old(2)), old(3)];
    assert_eq!(
        of(json!(1), broken),
        ["delete pods old-2"],
        "it is unavailable anyway"
    );
    let on_delete = with(
        set("2"),
        "/spec/updateStrategy",
        json!({"type": "OnDelete"}),
    );
    assert_eq!(update(on_delete, 3, all()), Vec::<String>::new());
}

#[test]
fn a_rollback_leaves_pods_that_were_never_updated() {
    let back = vec![
        pod("old-1", 1, "1"),
        unready(pod("new-2", 2, "2")),
        pod("old-3", 3, "1"),
    ];
    let mut objects = vec![set("1"), revision("1", 3), revision("2", 2)];
    objects.extend(nodes(3));
    objects.extend(back);
    assert_eq!(done(objects), ["delete pods new-2"]);
}

#[test]
fn with_a_surge_the_new_pod_is_available_before_the_old_one_goes() {
    let surging = |max: Value| with(set("2"), "/spec/updateStrategy", rolling(json!(0), max));
    let old = |number: usize| pod(&format!("old-{number}"), number, "1");
    let new = |number: usize| pod(&format!("new-{number}"), number, "2");
    let of = |pods| update(surging(json!(1)), 2, pods);
    assert_eq!(of(vec![old(1), old(2)]), ["create on n1"]);
    assert_eq!(
        of(vec![old(1), unready(new(1)), old(2)]),
        Vec::<String>::new()
    );
    assert_eq!(of(vec![old(1), new(1), old(2)]), ["delete pods old-1"]);
    assert_eq!(of(vec![new(1), old(2)]), ["create on n2"]);
    let ill = vec![unready(old(1)), old(2)];
    assert_eq!(
        of(ill),
        ["create on n1", "create on n2"],
        "it is unavailable anyway"
    );
    let both_ill = vec![unready(old(1)), unready(new(1)), old(2)];
    assert_eq!(of(both_ill), ["delete pods old-1"]);
    assert_eq!(
        update(surging(json!("100%")), 2, vec![old(1), old(2)]),
        ["create on n1", "create on n2"]
    );
}

#[test]
fn the_status_counts_nodes() {
    let mut objects = vec![set("2"), revision("1", 1), revision("2", 2)];
    objects.extend(nodes(3));
    objects.extend([pod("a", 1, "2"), unready(pod("b", 2, "1"))]);
    assert_eq!(
        status(&planned(objects)),
        json!({
            "observedGeneration": 2,
            "desiredNumberScheduled": 3,
            "currentNumberScheduled": 2,
            "numberMisscheduled": 0,
            "numberReady": 1,
            "updatedNumberScheduled": 1,
            "numberAvailable": 1,
            "numberUnavailable": 2,
            "collisionCount": null,
        })
    );
}

#[test]
fn a_pod_is_available_when_it_has_been_ready_long_enough() {
    let set = with(set("1"), "/spec/minReadySeconds", json!(90));
    let mut objects = vec![set, revision("1", 1), pod("a", 1, "1")];
    objects.extend(nodes(1));
    let plan = planned(objects);
    assert_eq!(plan.again, Some(SignedDuration::from_secs(30)));
    assert_eq!(status(&plan)["numberAvailable"], Value::Null);
}

#[test]
fn a_heartbeat_of_a_node_concerns_no_set_and_a_new_label_those_that_select_it() {
    let selecting = with(
        set("1"),
        "/spec/template/spec/nodeSelector",
        json!({"color": "blue"}),
    );
    let world = world(vec![selecting]);
    let object =
        |node: (Kind, Value)| Some(std::sync::Arc::new(crate::fixture::object(node.0, node.1)));
    let due = |old, new| {
        let mut due = Due::new();
        let diff = Diff { old, new };
        DaemonSetController::default().due(&world, &diff, &mut due);
        due.len()
    };
    let plain = || object(node(1, json!({}), json!([])));
    let green = || object(node(1, json!({"color": "green"}), json!([])));
    let blue = || object(node(1, json!({"color": "blue"}), json!([])));
    assert_eq!(due(plain(), plain()), 0);
    assert_eq!(due(plain(), green()), 0);
    assert_eq!(due(plain(), blue()), 1);
    assert_eq!(due(blue(), None), 1);
    assert_eq!(due(None, blue()), 1);
}

#[test]
fn revisions_beyond_the_limit_go_oldest_first_but_not_those_in_use() {
    let set = with(set("5"), "/spec/revisionHistoryLimit", json!(1));
    let mut objects = vec![set, pod("a", 1, "1")];
    objects.extend(nodes(1));
    objects.extend(["1", "2", "3", "4", "5"].map(|image| revision(image, image.parse().unwrap())));
    let mut deleted = done(objects);
    deleted.retain(|word| word.contains("controllerrevisions"));
    assert_eq!(
        deleted,
        [2, 3, 4].map(|number| format!("delete controllerrevisions log-{number}"))
    );
}

#[test]
fn a_set_that_is_deleted_does_nothing_more() {
    let gone = with(
        set("1"),
        "/metadata/deletionTimestamp",
        json!("2026-01-01T00:09:00Z"),
    );
    let mut objects = vec![gone, revision("1", 1)];
    objects.extend(nodes(2));
    assert_eq!(done(objects), Vec::<String>::new());
}
