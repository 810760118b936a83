use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{controlled_by, now, words, world};

const RC: Kind = Kind::REPLICATION_CONTROLLER;

fn controller(replicas: i32) -> (Kind, Value) {
    let value = json!({
        "metadata": {"name": "web", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"app": "web"},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "nginx"}]},
            },
        },
    });
    (RC, value)
}

fn pod(name: &str, status: Value) -> (Kind, Value) {
    let value = json!({
        "metadata": {
            "name": name,
            "labels": {"app": "web"},
            "ownerReferences": controlled_by(RC, "web"),
        },
        "spec": {"nodeName": "node-1", "containers": []},
        "status": status,
    });
    (Kind::POD, value)
}

fn ready(since: &str) -> Value {
    let condition = json!({"type": "Ready", "status": "True", "lastTransitionTime": since});
    json!({"phase": "Running", "conditions": [condition]})
}

fn with(mut pod: (Kind, Value), path: &str, value: Value) -> (Kind, Value) {
    let (parent, field) = path.rsplit_once('/').unwrap();
    pod.1.pointer_mut(parent).unwrap()[field] = value;
    pod
}

fn planned(objects: Vec<(Kind, Value)>) -> Plan {
    let world = world(objects);
    let view = gather(&world, RC, &Key::new("ns", "web"), None, now()).unwrap();
    plan(&view, &mut Names::new(now()), &|_| false)
}

fn pod_words(plan: &Plan) -> Vec<String> {
    let words = words(&plan.actions).into_iter();
    let words = words.filter(|word| !word.contains("/status"));
    // What is drawn of a name differs from run to run.
    let cut = |word: String| match word.strip_prefix("create pods web-") {
        Some(_) => "create pods web-".to_owned(),
        None => word,
    };
    words.map(cut).collect()
}

#[test]
fn missing_pods_are_created_from_the_template() {
    let plan = planned(vec![controller(2)]);
    assert_eq!(pod_words(&plan), ["create pods web-", "create pods web-"]);
    let Some(Action::Create(create)) = plan.actions.last() else {
        panic!("no create")
    };
    assert_eq!(create.object["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(
        create.object["metadata"]["ownerReferences"],
        controlled_by(RC, "web")
    );
    assert_eq!(create.object["spec"]["containers"][0]["image"], "nginx");
}

/// The names of the pods that a plan creates.
fn created(plan: &Plan) -> Vec<&str> {
    let mut names = Vec::new();
    for action in &plan.actions {
        if let Action::Create(create) = action {
            assert!(create.if_absent, "a pod that is there is as good");
            names.extend(create.object["metadata"]["name"].as_str());
        }
    }
    names
}

#[test]
fn a_create_whose_answer_is_lost_is_asked_for_by_the_same_name() {
    let mut controller_of_sets = SetController::of(RC);
    let about = (RC, Key::new("ns", "web"));
    let before = world([controller(2)]);
    let first = controller_of_sets.plan(&before, &about, now()).unwrap();
    let again = controller_of_sets.plan(&before, &about, now()).unwrap();
    assert_eq!(created(&first), created(&again));
    // One of them is seen, and then wanted no more: the other name is kept, a new one is drawn for a third.
    let seen = created(&first)[0].to_owned();
    let after = world([controller(3), pod(&seen, ready("2026-01-01T00:00:00Z"))]);
    let last = controller_of_sets.plan(&after, &about, now()).unwrap();
    let names = created(&last);
    assert_eq!((names.len(), names[0]), (2, created(&first)[1]));
    assert!(!created(&first).contains(&names[1]));
}

#[test]
fn finished_and_ending_pods_do_not_count() {
    let ending = with(
        pod("b", ready("2026-01-01T00:00:00Z")),
        "/metadata/deletionTimestamp",
        json!("2026-01-01T00:00:00Z"),
    );
    let plan = planned(vec![
        controller(2),
        pod("a", json!({"phase": "Failed"})),
        ending,
    ]);
    assert_eq!(pod_words(&plan), ["create pods web-", "create pods web-"]);
}

#[test]
fn pods_that_fail_at_once_are_replaced_with_growing_pauses() {
    // It is ten minutes past the hour.
    let failed = |name: &str, second: u8| {
        let made = json!(format!("2026-01-01T00:09:{second:02}Z"));
        let pod = pod(name, json!({"phase": "Failed"}));
        with(pod, "/metadata/creationTimestamp", made)
    };
    let pause = |replicas: i32, count: u8, second: u8| {
        let pods = (0..count).map(|n| failed(&format!("p{n}"), second));
        let plan = planned([controller(replicas)].into_iter().chain(pods).collect());
        let created = pod_words(&plan).len();
        assert_eq!(created == 0, plan.again.is_some(), "it waits or it creates");
        plan.again.map_or(0, |wait| wait.as_secs())
    };
    assert_eq!(pause(1, 1, 59), 0, "one second after one failure");
    assert_eq!(pause(1, 2, 59), 1);
    assert_eq!(pause(1, 3, 59), 3);
    assert_eq!(pause(3, 3, 59), 0, "one round of three");
    assert_eq!(pause(3, 4, 59), 1, "the next one");
    assert_eq!(pause(1, 50, 0), 240, "at most five minutes");
}

#[test]
fn a_matching_orphan_is_adopted_and_counts() {
    let orphan = with(pod("a", json!({})), "/metadata/ownerReferences", json!([]));
    let plan = planned(vec![controller(1), orphan]);
    let words = pod_words(&plan);
    assert_eq!(words.len(), 1);
    assert!(
        words[0].starts_with("patch pods a") && words[0].contains("uid-web"),
        "{words:?}"
    );
}

#[test]
fn an_own_pod_that_matches_no_more_is_released_and_replaced() {
    let stray = with(
        pod("a", json!({})),
        "/metadata/labels",
        json!({"app": "other"}),
    );
    let plan = planned(vec![controller(1), stray]);
    let expected = [
        "patch pods a {\"metadata\":{\"ownerReferences\":null}}",
        "create pods web-",
    ];
    assert_eq!(pod_words(&plan), expected);
}

#[test]
fn pods_of_another_controller_are_left_alone() {
    let foreign = with(
        pod("a", json!({})),
        "/metadata/ownerReferences",
        controlled_by(RC, "other"),
    );
    let plan = planned(vec![controller(0), foreign]);
    assert_eq!(pod_words(&plan), Vec::<String>::new());
}

#[test]
fn pods_go_in_the_order_in_which_they_are_missed_least() {
    let since = "2026-01-01T00:00:00Z";
    let pods = [
        with(
            pod("unassigned", json!({"phase": "Pending"})),
            "/spec/nodeName",
            Value::Null,
        ),
        pod("pending", json!({"phase": "Pending"})),
        pod("unready", json!({"phase": "Running"})),
        with(
            pod("cheap", ready(since)),
            "/metadata/annotations",
            json!({"controller.kubernetes.io/pod-deletion-cost": "-5"}),
        ),
        pod("new", ready("2026-01-01T00:05:00Z")),
        with(
            pod("restarted", ready(since)),
            "/status/containerStatuses",
            json!([{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 3}]),
        ),
        with(
            pod("young", ready(since)),
            "/metadata/creationTimestamp",
            json!("2026-01-01T00:01:00Z"),
        ),
        pod("old", ready(since)),
    ];
    for count in 1..=pods.len() {
        let mut objects = vec![controller(i32::try_from(pods.len() - count).unwrap())];
        objects.extend(pods.iter().cloned());
        let expected: Vec<String> = pods[..count]
            .iter()
            .map(|(_, p)| format!("delete pods {}", p["metadata"]["name"].as_str().unwrap()))
            .collect();
        assert_eq!(pod_words(&planned(objects)), expected);
    }
}

#[test]
fn among_equals_the_one_on_the_fullest_node_goes() {
    let since = "2026-01-01T00:00:00Z";
    let alone = with(pod("a", ready(since)), "/spec/nodeName", json!("node-2"));
    let plan = planned(vec![
        controller(2),
        alone,
        pod("b", ready(since)),
        pod("c", ready(since)),
    ]);
    assert_eq!(pod_words(&plan), ["delete pods b"]);
}

#[test]
fn nothing_is_created_where_it_would_be_refused_or_for_what_is_ending() {
    let ending = "2026-01-01T00:00:00Z";
    let namespace = json!({"metadata": {"name": "ns", "deletionTimestamp": ending}, "spec": {}});
    let plan = planned(vec![controller(2), (Kind::NAMESPACE, namespace)]);
    assert_eq!(pod_words(&plan), Vec::<String>::new());
    let set = with(controller(2), "/metadata/deletionTimestamp", json!(ending));
    assert_eq!(pod_words(&planned(vec![set])), Vec::<String>::new());
}

#[test]
fn availability_waits_for_min_ready_seconds_and_asks_to_be_looked_at_then() {
    let set = with(controller(2), "/spec/minReadySeconds", json!(60));
    let old = pod("a", ready("2026-01-01T00:00:00Z"));
    let plan = planned(vec![set, old, pod("b", ready("2026-01-01T00:09:30Z"))]);
    assert_eq!(plan.again, Some(SignedDuration::from_secs(30)));
    let Some(Action::Patch(patch)) = plan.actions.first() else {
        panic!("no status")
    };
    assert_eq!(patch.body["status"]["readyReplicas"], 2);
    assert_eq!(patch.body["status"]["availableReplicas"], 1);
}

#[test]
fn a_status_that_is_right_is_not_written() {
    let set = with(
        controller(1),
        "/status",
        json!({"replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1,
               "availableReplicas": 1, "observedGeneration": 1}),
    );
    let plan = planned(vec![set, pod("a", ready("2026-01-01T00:00:00Z"))]);
    assert_eq!(plan, Plan::default());
}

#[test]
fn a_refused_create_is_told_in_the_status() {
    let world = world([controller(1)]);
    let key = Key::new("ns", "web");
    let view = gather(&world, RC, &key, Some("over quota"), now()).unwrap();
    let plan = plan(&view, &mut Names::new(now()), &|_| false);
    let Some(Action::Patch(patch)) = plan.actions.first() else {
        panic!("no status")
    };
    assert_eq!(
        patch.body["status"]["conditions"][0]["type"],
        "ReplicaFailure"
    );
    assert_eq!(
        patch.body["status"]["conditions"][0]["message"],
        "over quota"
    );
}

proptest! {
    /// One plan, carried out, makes the number right, and never takes a pod beyond what is too
    /// many.
    #[test]
    fn one_plan_makes_the_number_right(
        replicas in 0..40_i32,
        pods in proptest::collection::vec((0..4_u8, any::<bool>(), any::<bool>()), 0..40),
    ) {
        let mut objects = vec![controller(replicas)];
        let mut active = 0_usize;
        for (index, (phase, assigned, owned)) in pods.iter().enumerate() {
            let status = match phase {
                0 => json!({"phase": "Pending"}),
                1 => json!({"phase": "Running"}),
                2 => ready("2026-01-01T00:00:00Z"),
                _ => json!({"phase": "Failed"}),
            };
            active += usize::from(*phase < 3);
            let mut one = pod(&format!("pod-{index}"), status);
            if !assigned {
                one = with(one, "/spec/nodeName", Value::Null);
            }
            if !owned {
                one = with(one, "/metadata/ownerReferences", json!([]));
            }
            objects.push(one);
        }
        let plan = planned(objects);
        let created = plan.actions.iter().filter(|a| matches!(a, Action::Create(_))).count();
        let deleted: BTreeSet<&str> = plan.actions.iter().filter_map(|action| match action {
            Action::Delete(delete) => Some(delete.key.name.as_str()),
            _ => None,
        }).collect();
        prop_assert!(created == 0 || deleted.is_empty());
        let wanted = usize::try_from(replicas).unwrap();
        prop_assert_eq!(active + created - deleted.len(), wanted);
    }
}

#[test]
fn no_plan_makes_more_than_a_burst() {
    let plan = planned(vec![controller(2000)]);
    assert_eq!(pod_words(&plan).len(), BURST);
}
