use serde_json::{Value, json};

use super::*;
use crate::fixture::{controlled_by, now, object, words, world};
use crate::object::Key;

fn budget(spec: Value, status: Value) -> (Kind, Value) {
    let mut value = json!({
        "metadata": {"name": "db", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "db"}}},
        "status": status,
    });
    for (field, part) in spec.as_object().unwrap() {
        value["spec"][field] = part.clone();
    }
    (Kind::DISRUPTION_BUDGET, value)
}

fn pod(name: &str, is_ready: bool, owner: Value) -> (Kind, Value) {
    let status = if is_ready { "True" } else { "False" };
    let value = json!({
        "metadata": {"name": name, "labels": {"app": "db"}, "ownerReferences": owner},
        "spec": {"containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]},
    });
    (Kind::POD, value)
}

fn set(name: &str, replicas: i32) -> (Kind, Value) {
    let value = json!({
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "db"}}, "template": {}},
    });
    (Kind::REPLICA_SET, value)
}

fn of_set() -> Value {
    controlled_by(Kind::REPLICA_SET, "set")
}

fn planned(objects: Vec<(Kind, Value)>) -> Plan {
    let world = world(objects);
    let about = (Kind::DISRUPTION_BUDGET, Key::new("ns", "db"));
    let mut controller = DisruptionController::default();
    controller.plan(&world, &about, now()).unwrap()
}

/// Allowed, healthy, desired, expected; and why.
fn told(plan: &Plan) -> ([Value; 4], String) {
    let Some(Action::Patch(patch)) = plan.actions.first() else {
        panic!("nothing is written: {:?}", words(&plan.actions))
    };
    let status = &patch.body["status"];
    let fields = [
        "disruptionsAllowed",
        "currentHealthy",
        "desiredHealthy",
        "expectedPods",
    ];
    let reason = status["conditions"][0]["reason"].as_str().unwrap();
    (fields.map(|field| status[field].clone()), reason.to_owned())
}

fn counts(spec: Value) -> [Value; 4] {
    let pods = [("a", true), ("b", true), ("c", false)];
    let pods = pods.map(|(name, is_ready)| pod(name, is_ready, of_set()));
    let all = [budget(spec, json!({})), set("set", 4)];
    told(&planned(all.into_iter().chain(pods).collect())).0
}

#[test]
fn counts_and_percentages_are_of_what_the_owner_wants() {
    assert_eq!(counts(json!({"minAvailable": 1})), [1, 2, 1, 3]);
    assert_eq!(counts(json!({"minAvailable": 2})), [0, 2, 2, 3]);
    assert_eq!(counts(json!({"minAvailable": "26%"})), [0, 2, 2, 4]);
    assert_eq!(counts(json!({"minAvailable": "25%"})), [1, 2, 1, 4]);
    assert_eq!(counts(json!({"maxUnavailable": 3})), [1, 2, 1, 4]);
    assert_eq!(counts(json!({"maxUnavailable": "51%"})), [1, 2, 1, 4]);
    assert_eq!(counts(json!({"maxUnavailable": 9})), [2, 2, 0, 4]);
}

#[test]
fn the_scale_of_a_deployment_counts_and_not_that_of_its_sets() {
    let mut owned = set("set", 9);
    owned.1["metadata"]["ownerReferences"] = controlled_by(Kind::DEPLOYMENT, "web");
    let mut deployment = set("web", 4);
    deployment.0 = Kind::DEPLOYMENT;
    let all = vec![
        budget(json!({"maxUnavailable": 3}), json!({})),
        owned,
        deployment,
        pod("a", true, of_set()),
        pod("b", true, of_set()),
    ];
    assert_eq!(told(&planned(all)).0, [1, 2, 1, 4]);
}

#[test]
fn a_budget_without_pods_allows_nothing_and_says_so() {
    let plan = planned(vec![budget(json!({"minAvailable": 0}), json!({}))]);
    assert_eq!(
        told(&plan),
        ([0, 0, 0, 0].map(Value::from), "InsufficientPods".into())
    );
    assert_eq!(
        words(&plan.actions)[1],
        "tell NoPods No matching pods found"
    );
}

#[test]
fn an_evicted_pod_does_not_count_until_it_is_gone_or_two_minutes_are_over() {
    let since = |at: &str| json!({"disruptedPods": {"a": at, "gone": at}});
    let all = |at: &str| {
        let budget = budget(json!({"minAvailable": 1}), since(at));
        planned(vec![
            budget,
            pod("a", true, json!([])),
            pod("b", true, json!([])),
        ])
    };
    let recent = all("2026-01-01T00:09:00Z");
    assert_eq!(told(&recent).0, [0, 1, 1, 2]);
    assert_eq!(recent.again.unwrap().as_secs(), 60);
    let Action::Patch(patch) = &recent.actions[0] else {
        panic!()
    };
    let noted = &patch.body["status"]["disruptedPods"];
    assert_eq!(*noted, json!({"a": "2026-01-01T00:09:00Z", "gone": null}));
    assert_eq!(
        patch.body["metadata"]["resourceVersion"], "1",
        "evictions write it too"
    );
    let old = all("2026-01-01T00:08:00Z");
    assert_eq!(told(&old).0, [1, 2, 1, 2]);
    assert!(words(&old.actions)[1].starts_with("tell NotDeleted"));
}

#[test]
fn a_status_that_says_it_all_is_not_written_again() {
    let pods = || vec![pod("a", true, json!([]))];
    let first = planned([pods(), vec![budget(json!({"minAvailable": 1}), json!({}))]].concat());
    let Action::Patch(patch) = &first.actions[0] else {
        panic!()
    };
    let told = budget(json!({"minAvailable": 1}), patch.body["status"].clone());
    assert!(planned([pods(), vec![told]].concat()).actions.is_empty());
}

#[test]
fn pods_that_nobody_controls_are_told_of_where_a_scale_is_needed() {
    let all = vec![
        budget(json!({"maxUnavailable": 1}), json!({})),
        pod("a", true, json!([])),
    ];
    let plan = planned(all);
    assert_eq!(told(&plan).0, [0, 1, 0, 0]);
    assert!(words(&plan.actions)[1].starts_with("tell UnmanagedPods"));
}

#[test]
fn the_scale_of_another_kind_is_asked_for_and_failure_allows_nothing() {
    let web = Kind::custom("example.com", "v1", "Web", "webs", true);
    let custom = (web, json!({"metadata": {"name": "web"}}));
    let owner = controlled_by(web, "web");
    let all = vec![
        budget(json!({"maxUnavailable": 1}), json!({})),
        custom,
        pod("a", true, owner),
    ];
    let world = world(all);
    let about = (Kind::DISRUPTION_BUDGET, Key::new("ns", "db"));
    let mut controller = DisruptionController::default();
    let plan = controller.plan(&world, &about, now()).unwrap();
    let [Action::Ask(ask)] = plan.actions.as_slice() else {
        panic!("it does not ask: {:?}", plan.actions)
    };
    assert_eq!(
        ask.path,
        "/apis/example.com/v1/namespaces/ns/webs/web/scale#uid-web"
    );
    controller.told(&about, ask, &Ok(json!({"spec": {"replicas": 1}})), now());
    let plan = controller.plan(&world, &about, now()).unwrap();
    assert_eq!(told(&plan).0, [1, 1, 0, 1]);
    let why = Err("webs.example.com does not implement the scale subresource".to_owned());
    controller.told(&about, ask, &why, now());
    let plan = controller.plan(&world, &about, now()).unwrap();
    assert_eq!(told(&plan).1, "SyncFailed");
    assert!(plan.again.is_some());
}

#[test]
fn another_scale_makes_the_budgets_of_the_pods_due() {
    let world = world([
        budget(json!({"maxUnavailable": 1}), json!({})),
        set("set", 3),
        pod("a", true, of_set()),
    ]);
    let due = |replicas: i32| {
        let old = Arc::new(object(set("set", 3).0, set("set", 3).1));
        let new = Arc::new(object(set("set", 3).0, set("set", replicas).1));
        let mut due = Due::new();
        let diff = Diff {
            old: Some(old),
            new: Some(new),
        };
        DisruptionController::default().due(&world, &diff, &mut due);
        due.len()
    };
    assert_eq!([due(3), due(4)], [0, 1]);
}

/// What comes of a pod of which this was said at the given time.
fn disrupted(status: &str, reason: &str, since: &str, more: Value) -> Plan {
    let condition = json!({"type": "DisruptionTarget", "status": status, "reason": reason,
        "lastTransitionTime": since});
    let mut pod = pod("a", true, json!([])).1;
    pod["status"]["conditions"] = json!([condition]);
    for (path, part) in more.as_object().unwrap() {
        pod[path.split('.').next().unwrap()][path.split('.').nth(1).unwrap()] = part.clone();
    }
    let world = world([(Kind::POD, pod)]);
    let about = (Kind::POD, Key::new("ns", "a"));
    let plan = DisruptionController::default().plan(&world, &about, now());
    plan.unwrap_or_default()
}

#[test]
fn what_was_said_of_a_pod_that_is_not_ended_is_taken_back_after_two_minutes() {
    let reason = "EvictionByEvictionAPI";
    let late = disrupted("True", reason, "2026-01-01T00:08:00Z", json!({}));
    let expected = "patch pods/status a {\"metadata\":{\"resourceVersion\":\"1\"},\"status\":\
        {\"conditions\":[{\"lastTransitionTime\":\"2026-01-01T00:10:00Z\",\"message\":null,\
        \"reason\":null,\"status\":\"False\",\"type\":\"DisruptionTarget\"}]}}";
    assert_eq!(words(&late.actions), [expected]);
    let soon = disrupted("True", reason, "2026-01-01T00:09:00Z", json!({}));
    assert_eq!(soon.again, Some(SignedDuration::from_secs(60)));
    assert!(soon.actions.is_empty());
    let early = "2026-01-01T00:00:00Z";
    let stays = [
        disrupted("True", "TerminationByKubelet", early, json!({})),
        disrupted("False", reason, early, json!({})),
        disrupted(
            "True",
            reason,
            early,
            json!({"metadata.deletionTimestamp": early}),
        ),
        disrupted("True", reason, early, json!({"status.phase": "Failed"})),
    ];
    for plan in stays {
        assert_eq!(plan, Plan::default());
    }
}

#[test]
fn a_pod_of_which_nothing_was_said_makes_no_work_for_it() {
    let world = World::default();
    let said = |value: Value| {
        let diff = Diff {
            old: None,
            new: Some(object(Kind::POD, value).into()),
        };
        let mut due = Due::new();
        DisruptionController::default().due(&world, &diff, &mut due);
        due.len()
    };
    assert_eq!(said(pod("a", true, json!([])).1), 0);
    let mut told = pod("a", true, json!([])).1;
    told["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    assert_eq!(said(told), 1);
}
