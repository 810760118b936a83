use serde_json::{Value, json};

use super::*;
use crate::fixture::{controlled_by, now, words, world};

const RS: Kind = Kind::REPLICA_SET;

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    })
}

fn deployment(image: &str, replicas: i32) -> (Kind, Value) {
    let value = json!({
        "metadata": {"name": "web", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(image),
            "progressDeadlineSeconds": 600,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
        },
    });
    (Kind::DEPLOYMENT, value)
}

/// A set of the Deployment with `replicas` pods, all available.
fn set(name: &str, image: &str, replicas: i32, revision: i32) -> (Kind, Value) {
    let mut template = template(image);
    template["metadata"]["labels"]["pod-template-hash"] = json!(name);
    let value = json!({
        "metadata": {
            "name": name,
            "generation": 1,
            "labels": {"app": "web"},
            "annotations": {
                "deployment.kubernetes.io/revision": revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": "3",
                "deployment.kubernetes.io/max-replicas": "4",
            },
            "ownerReferences": controlled_by(Kind::DEPLOYMENT, "web"),
            "creationTimestamp": format!("2026-01-01T00:00:0{revision}Z"),
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web", "pod-template-hash": name}},
            "template": template,
        },
        "status": {
            "replicas": replicas,
            "readyReplicas": replicas,
            "availableReplicas": replicas,
            "observedGeneration": 1,
        },
    });
    (RS, value)
}

fn with(mut object: (Kind, Value), path: &str, value: Value) -> (Kind, Value) {
    let (parent, field) = path.rsplit_once('/').unwrap();
    object.1.pointer_mut(parent).unwrap()[field] = value;
    object
}

fn planned(objects: Vec<(Kind, Value)>) -> Plan {
    let world = world(objects);
    plan(&gather(&world, &Key::new("ns", "web"), now()).unwrap())
}

/// What is told of sizes.
fn scaled(plan: &Plan) -> Vec<String> {
    let all = words(&plan.actions).into_iter();
    let told = all.filter_map(|word| {
        word.strip_prefix("tell ScalingReplicaSet ")
            .map(str::to_owned)
    });
    told.collect()
}

fn status(plan: &Plan) -> Value {
    let status = plan.actions.iter().find_map(|action| match action {
        Action::Patch(patch) => patch.body.get("status").cloned(),
        _ => None,
    });
    status.expect("a status is written")
}

fn condition(status: &Value, type_: &str) -> (String, String) {
    let all = status["conditions"].as_array().unwrap();
    let found = all
        .iter()
        .find(|c| c["type"] == type_)
        .expect("the condition is there");
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (text("status"), text("reason"))
}

#[test]
fn a_new_deployment_gets_a_set_of_its_template() {
    let plan = planned(vec![deployment("nginx:1", 3)]);
    let Some(Action::Create(create)) = plan.actions.first() else {
        panic!("no create")
    };
    let name = create.object["metadata"]["name"].as_str().unwrap();
    let hash = name.strip_prefix("web-").unwrap();
    assert_eq!(
        create.object["metadata"]["labels"]["pod-template-hash"],
        hash
    );
    assert_eq!(
        create.object["spec"]["selector"]["matchLabels"]["pod-template-hash"],
        hash
    );
    assert_eq!(create.object["spec"]["replicas"], 3);
    assert_eq!(
        create.object["metadata"]["annotations"][revision::REVISION],
        "1"
    );
    assert_eq!(create.object["metadata"]["annotations"][MAX], "4");
    let status = status(&plan);
    assert_eq!(condition(&status, "Progressing").1, "NewReplicaSetCreated");
    assert_eq!(condition(&status, "Available").0, "False");
}

#[test]
fn a_new_template_gets_a_set_of_the_surge_and_the_next_revision() {
    let plan = planned(vec![
        deployment("nginx:2", 3),
        set("web-a", "nginx:1", 3, 1),
    ]);
    let Some(Action::Create(create)) = plan.actions.first() else {
        panic!("no create")
    };
    assert_eq!(create.object["spec"]["replicas"], 1);
    assert_eq!(
        create.object["metadata"]["annotations"][revision::REVISION],
        "2"
    );
}

#[test]
fn old_pods_go_only_as_new_ones_become_available() {
    let old = || set("web-a", "nginx:1", 3, 1);
    let unavailable = with(
        set("web-b", "nginx:2", 1, 2),
        "/status/availableReplicas",
        json!(0),
    );
    let plan = planned(vec![deployment("nginx:2", 3), old(), unavailable]);
    assert_eq!(scaled(&plan), Vec::<String>::new());
    let plan = planned(vec![
        deployment("nginx:2", 3),
        old(),
        set("web-b", "nginx:2", 1, 2),
    ]);
    assert_eq!(scaled(&plan), ["Scaled down replica set web-a from 3 to 2"]);
}

#[test]
fn recreate_ends_every_old_pod_before_it_starts_a_new_one() {
    let recreate = || {
        with(
            deployment("nginx:2", 3),
            "/spec/strategy",
            json!({"type": "Recreate"}),
        )
    };
    let plan = planned(vec![recreate(), set("web-a", "nginx:1", 3, 1)]);
    assert_eq!(scaled(&plan), ["Scaled down replica set web-a from 3 to 0"]);
    let ending = json!({
        "metadata": {
            "name": "pod",
            "ownerReferences": controlled_by(RS, "web-a"),
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"containers": []},
        "status": {"phase": "Running"},
    });
    let pod = (Kind::POD, ending);
    let plan = planned(vec![recreate(), set("web-a", "nginx:1", 0, 1), pod]);
    assert_eq!(scaled(&plan), Vec::<String>::new());
    let plan = planned(vec![recreate(), set("web-a", "nginx:1", 0, 1)]);
    assert!(
        scaled(&plan)[0].ends_with("from 0 to 3"),
        "{:?}",
        scaled(&plan)
    );
}

#[test]
fn a_rollout_that_became_a_recreate_ends_its_old_pods_whatever_number_is_wanted_now() {
    let recreate = || {
        with(
            deployment("nginx:2", 2),
            "/spec/strategy",
            json!({"type": "Recreate"}),
        )
    };
    let new = || set("web-b", "nginx:2", 3, 2);
    let plan = planned(vec![recreate(), set("web-a", "nginx:1", 4, 1), new()]);
    assert_eq!(scaled(&plan), ["Scaled down replica set web-a from 4 to 0"]);
    let plan = planned(vec![recreate(), set("web-a", "nginx:1", 0, 1), new()]);
    assert_eq!(scaled(&plan), ["Scaled down replica set web-b from 3 to 2"]);
}

#[test]
fn an_undone_template_finds_its_set_and_raises_its_revision() {
    let objects = vec![
        deployment("nginx:1", 3),
        set("web-a", "nginx:1", 0, 1),
        set("web-b", "nginx:2", 3, 2),
    ];
    let plan = planned(objects);
    let words = words(&plan.actions);
    assert!(
        words[0].contains("\"deployment.kubernetes.io/revision\":\"3\""),
        "{words:?}"
    );
    assert!(
        words[0].contains("\"deployment.kubernetes.io/revision-history\":\"1\""),
        "{words:?}"
    );
    assert!(
        words[1].starts_with("patch deployments/status web"),
        "{words:?}"
    );
    assert_eq!(scaled(&plan), ["Scaled up replica set web-a from 0 to 1"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let paused = with(deployment("nginx:2", 5), "/spec/paused", json!(true));
    let told = json!({"conditions": [{"type": "Progressing", "status": "Unknown", "reason": "DeploymentPaused"}]});
    let plan = planned(vec![
        with(paused, "/status", told),
        set("web-a", "nginx:1", 3, 1),
    ]);
    assert_eq!(scaled(&plan), ["Scaled up replica set web-a from 3 to 5"]);
    assert!(
        !plan
            .actions
            .iter()
            .any(|action| matches!(action, Action::Create(_)))
    );
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_the_proportions() {
    let sized = |mut set: (Kind, Value)| {
        set.1["metadata"]["annotations"][DESIRED] = json!("10");
        set.1["metadata"]["annotations"][MAX] = json!("13");
        set
    };
    let rolling = json!({"maxSurge": 3, "maxUnavailable": 2});
    let deployment = with(
        deployment("nginx:2", 15),
        "/spec/strategy/rollingUpdate",
        rolling,
    );
    let old = sized(set("web-a", "nginx:1", 8, 1));
    let new = sized(set("web-b", "nginx:2", 5, 2));
    let plan = planned(vec![deployment, old, new]);
    let expected = [
        "Scaled up replica set web-a from 8 to 11",
        "Scaled up replica set web-b from 5 to 7",
    ];
    assert_eq!(scaled(&plan), expected);
}

#[test]
fn a_finished_rollout_forgets_the_oldest_revisions() {
    let limited = with(
        deployment("nginx:3", 3),
        "/spec/revisionHistoryLimit",
        json!(1),
    );
    let objects = vec![
        limited,
        set("web-a", "nginx:1", 0, 1),
        set("web-b", "nginx:2", 0, 2),
        set("web-c", "nginx:3", 3, 3),
    ];
    let plan = planned(objects);
    let deleted: Vec<String> = words(&plan.actions)
        .into_iter()
        .filter(|word| word.starts_with("delete"))
        .collect();
    assert_eq!(deleted, ["delete replicasets web-a"]);
    assert_eq!(condition(&status(&plan), "Available").0, "True");
    assert_eq!(
        condition(&status(&plan), "Progressing").1,
        "NewReplicaSetAvailable"
    );
}

#[test]
fn a_rollout_that_does_not_move_fails_at_its_deadline() {
    let stuck = |since: &str| {
        let progressing = json!({
            "type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
            "lastUpdateTime": since, "lastTransitionTime": since,
        });
        let status = json!({
            "replicas": 4, "updatedReplicas": 1, "readyReplicas": 3, "availableReplicas": 3,
            "conditions": [progressing],
        });
        let mut new = set("web-b", "nginx:2", 1, 2);
        new.1["status"]["availableReplicas"] = json!(0);
        new.1["status"]["readyReplicas"] = json!(0);
        let deployment = with(deployment("nginx:2", 3), "/status", status);
        planned(vec![deployment, set("web-a", "nginx:1", 3, 1), new])
    };
    let early = stuck("2026-01-01T00:00:10Z");
    assert_eq!(early.again, Some(jiff::SignedDuration::from_secs(10)));
    let late = status(&stuck("2026-01-01T00:00:00Z"));
    assert_eq!(
        condition(&late, "Progressing"),
        ("False".into(), "ProgressDeadlineExceeded".into())
    );
}

#[test]
fn a_name_that_is_taken_counts_as_a_collision() {
    let probe = world([deployment("nginx:1", 3)]);
    let name = gather(&probe, &Key::new("ns", "web"), now())
        .unwrap()
        .new_name();
    let mut foreign = set(&name, "nginx:9", 0, 1);
    foreign.1["metadata"]["ownerReferences"] = controlled_by(Kind::DEPLOYMENT, "other");
    let plan = planned(vec![deployment("nginx:1", 3), foreign]);
    assert!(
        !plan
            .actions
            .iter()
            .any(|action| matches!(action, Action::Create(_)))
    );
    assert_eq!(status(&plan)["collisionCount"], 1);
}

#[test]
fn what_is_as_it_should_be_is_not_written() {
    let settled = |status: Value| {
        let annotated = with(
            deployment("nginx:1", 3),
            "/metadata/annotations",
            json!({"deployment.kubernetes.io/revision": "1"}),
        );
        planned(vec![
            with(annotated, "/status", status),
            set("web-a", "nginx:1", 3, 1),
        ])
    };
    let written = status(&settled(json!({})));
    assert_eq!(settled(written).actions, Vec::new());
}
