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

/// The Deployment in the middle of a rollout from revision 1 to 2 that has missed its deadline.
fn overdue(annotations: Value) -> Vec<(Kind, Value)> {
    let condition = json!({"type": "Progressing", "status": "False",
        "reason": "ProgressDeadlineExceeded",
        "message": "ReplicaSet \"web-2\" has timed out progressing."});
    let status = json!({"observedGeneration": 1, "replicas": 4, "updatedReplicas": 1,
        "conditions": [condition]});
    let web = with(deployment("nginx:2", 3), "/status", status);
    let web = with(web, "/metadata/annotations", annotations);
    let broken = set("web-2", "nginx:2", 1, 2);
    let broken = with(broken, "/status/availableReplicas", json!(0));
    vec![web, set("web-1", "nginx:1", 3, 1), broken]
}

fn rolled_back(plan: &Plan) -> Option<Value> {
    plan.actions.iter().find_map(|action| match action {
        Action::Patch(patch) if patch.kind == Kind::DEPLOYMENT && patch.subresource.is_empty() => {
            Some(patch.body["spec"]["template"].clone())
        }
        _ => None,
    })
}

#[test]
fn a_rollout_that_misses_its_deadline_is_rolled_back_where_that_is_asked_for() {
    assert_eq!(rolled_back(&planned(overdue(json!({})))), None);
    let asks = || json!({rollback::ON_DEADLINE: "true"});
    let plan = planned(overdue(asks()));
    let back = rolled_back(&plan).expect("it goes back");
    assert_eq!(back["spec"]["containers"][0]["image"], "nginx:1");
    assert_eq!(back["$patch"], "replace");
    assert_eq!(back["metadata"]["labels"], json!({"app": "web"}));
    let words = words(&plan.actions);
    assert!(
        words[0].starts_with("patch replicasets web-2") && words[0].contains("rollout-failed"),
        "it is marked first: {words:?}"
    );
    let text = "tell DeploymentRollback Rolled back deployment \"web\" to revision 1: revision 2 \
                has missed its deadline";
    assert_eq!(words[2], text);
}

#[test]
fn it_is_not_rolled_back_to_what_failed_or_does_not_serve_nor_for_another_sets_deadline() {
    let asks = || json!({rollback::ON_DEADLINE: "true"});
    let with_first = |path: &str, value: Value| {
        let mut objects = overdue(asks());
        objects[1] = with(objects[1].clone(), path, value);
        rolled_back(&planned(objects))
    };
    let failed = json!({"deployment.kubernetes.io/revision": "1",
        "orchestrator.io/rollout-failed": "true"});
    assert_eq!(with_first("/metadata/annotations", failed), None);
    assert_eq!(with_first("/status/availableReplicas", json!(0)), None);
    let mut stale = overdue(asks());
    stale[0] = with(stale[0].clone(), "/metadata/generation", json!(2));
    assert_eq!(
        rolled_back(&planned(stale)),
        None,
        "the condition is of the template before"
    );
    let mut other = overdue(asks());
    let text = json!("ReplicaSet \"web-0\" has timed out progressing.");
    other[0] = with(other[0].clone(), "/status/conditions/0/message", text);
    assert_eq!(rolled_back(&planned(other)), None);
}

#[test]
fn the_old_annotation_asks_for_a_rollback_and_is_taken_off() {
    let asked = |revision: &str| {
        let annotations = json!({"deprecated.deployment.rollback.to": revision});
        let web = with(
            deployment("nginx:2", 3),
            "/metadata/annotations",
            annotations,
        );
        planned(vec![
            web,
            set("web-1", "nginx:1", 0, 1),
            set("web-2", "nginx:2", 3, 2),
        ])
    };
    for revision in ["0", "1"] {
        let plan = asked(revision);
        let back = rolled_back(&plan).unwrap();
        assert_eq!(back["spec"]["containers"][0]["image"], "nginx:1");
        let words = words(&plan.actions);
        assert!(
            words[0].contains("\"deprecated.deployment.rollback.to\":null"),
            "{words:?}"
        );
        let text = "tell DeploymentRollback Rolled back deployment \"web\" to revision 1";
        assert_eq!(words[1], text);
    }
    let why = |revision: &str| words(&asked(revision).actions)[0].clone();
    assert!(why("7").starts_with("tell DeploymentRollbackRevisionNotFound"));
    assert!(why("2").starts_with("tell DeploymentRollbackTemplateUnchanged"));
}

#[test]
fn a_set_that_cannot_be_made_is_told_of_and_tried_again() {
    let world = world(vec![deployment("nginx:1", 3)]);
    let mut controller = DeploymentController::default();
    let about = (Kind::DEPLOYMENT, Key::new("ns", "web"));
    let failed = Ending::Failed {
        creating: true,
        conflict: false,
        message: "over quota".to_owned(),
    };
    controller.ended(&about, &failed);
    let plan = controller.plan(&world, &about, now()).unwrap();
    let words = words(&plan.actions);
    assert!(words[0].starts_with("tell ReplicaSetCreateError Failed to create new replica set"));
    assert!(
        words
            .iter()
            .any(|word| word.starts_with("create replicasets web-"))
    );
    let told = condition(&status(&plan), "Progressing");
    assert_eq!(
        told,
        ("False".to_owned(), "ReplicaSetCreateError".to_owned())
    );
}

#[test]
fn a_new_set_of_no_pods_is_not_told_of() {
    assert_eq!(
        scaled(&planned(vec![deployment("nginx:1", 0)])),
        Vec::<String>::new()
    );
}

#[test]
fn a_paused_deployment_forgets_revisions_too() {
    let paused = with(deployment("nginx:9", 3), "/spec/paused", json!(true));
    let paused = with(paused, "/spec/revisionHistoryLimit", json!(1));
    let progressing = json!({"conditions": [{"type": "Progressing", "status": "Unknown",
        "reason": "DeploymentPaused"}]});
    let paused = with(paused, "/status", progressing);
    let plan = planned(vec![
        paused,
        set("web-1", "nginx:1", 0, 1),
        set("web-2", "nginx:2", 0, 2),
        set("web-3", "nginx:3", 3, 3),
    ]);
    let words = words(&plan.actions);
    assert!(
        words.contains(&"delete replicasets web-1".to_owned()),
        "{words:?}"
    );
    assert!(
        words.contains(&"delete replicasets web-2".to_owned()),
        "{words:?}"
    );
}
