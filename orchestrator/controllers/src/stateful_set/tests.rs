use serde_json::{Value, json};

use super::*;
use crate::fixture::{controlled_by, now, object, words, world};

const SET: Kind = Kind::STATEFUL_SET;

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "db"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    })
}

fn set(image: &str, replicas: i64) -> (Kind, Value) {
    let value = json!({
        "metadata": {"name": "db", "generation": 2},
        "spec": {
            "replicas": replicas,
            "serviceName": "dbs",
            "selector": {"matchLabels": {"app": "db"}},
            "template": template(image),
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        },
    });
    (SET, value)
}

fn with(mut object: (Kind, Value), path: &str, value: Value) -> (Kind, Value) {
    let (parent, field) = path.rsplit_once('/').unwrap();
    object.1.pointer_mut(parent).unwrap()[field] = value;
    object
}

/// With a claim template `data`.
fn with_claims(set: (Kind, Value), when_deleted: &str, when_scaled: &str) -> (Kind, Value) {
    let policy = json!({"whenDeleted": when_deleted, "whenScaled": when_scaled});
    let set = with(set, "/spec/persistentVolumeClaimRetentionPolicy", policy);
    let claim = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    with(set, "/spec/volumeClaimTemplates", claim)
}

fn claim(name: &str, owners: Value) -> (Kind, Value) {
    let metadata = json!({"name": name, "labels": {"app": "db"}, "ownerReferences": owners});
    (
        Kind::PERSISTENT_VOLUME_CLAIM,
        json!({"metadata": metadata, "spec": {}}),
    )
}

/// The revision of an image, `db-<image>`.
fn revision(image: &str, number: i64) -> (Kind, Value) {
    let value = json!({
        "metadata": {
            "name": format!("db-{image}"),
            "labels": {"app": "db"},
            "ownerReferences": controlled_by(SET, "db"),
        },
        "data": revisions::data(&template(image)),
        "revision": number,
    });
    (Kind::CONTROLLER_REVISION, value)
}

fn pod(ordinal: i64, image: &str) -> (Kind, Value) {
    let name = format!("db-{ordinal}");
    let ready = json!({"type": "Ready", "status": "True",
        "lastTransitionTime": "2026-01-01T00:09:00Z"});
    let value = json!({
        "metadata": {
            "name": name,
            "labels": {
                "app": "db",
                "controller-revision-hash": format!("db-{image}"),
                "statefulset.kubernetes.io/pod-name": name,
                "apps.kubernetes.io/pod-index": ordinal.to_string(),
            },
            "ownerReferences": controlled_by(SET, "db"),
        },
        "spec": {"nodeName": "node-1", "containers": []},
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
    let world = world(objects);
    let view = gather(&world, &Key::new("ns", "db"), now()).unwrap();
    plan(&world, &view)
}

/// What is done to pods, claims and revisions, without events.
fn done(objects: Vec<(Kind, Value)>) -> Vec<String> {
    let all = words(&planned(objects).actions).into_iter();
    all.filter(|word| !word.starts_with("tell") && !word.contains("/status"))
        .collect()
}

fn status(plan: &Plan) -> Value {
    let status = plan.actions.iter().find_map(|action| match action {
        Action::Patch(patch) => patch.body.get("status").cloned(),
        _ => None,
    });
    status.expect("a status is written")
}

fn created(plan: &Plan, kind: Kind) -> Value {
    let object = plan.actions.iter().find_map(|action| match action {
        Action::Create(create) if create.kind == kind => Some(create.object.clone()),
        _ => None,
    });
    object.expect("it is made")
}

#[test]
fn the_revision_is_recorded_before_any_pod_is_made() {
    let words = done(vec![set("1", 3)]);
    assert!(
        words.len() == 1 && words[0].starts_with("create controllerrevisions db-"),
        "{words:?}"
    );
}

#[test]
fn pods_are_made_one_by_one_in_order() {
    let of = |pods: Vec<(Kind, Value)>| {
        let mut objects = vec![set("1", 3), revision("1", 1)];
        objects.extend(pods);
        done(objects)
    };
    assert_eq!(of(vec![]), ["create pods db-0"]);
    assert_eq!(of(vec![unready(pod(0, "1"))]), Vec::<String>::new());
    assert_eq!(of(vec![pod(0, "1")]), ["create pods db-1"]);
    assert_eq!(of(vec![pod(0, "1"), pod(2, "1")]), ["create pods db-1"]);
    assert_eq!(of(vec![pod(1, "1"), pod(2, "1")]), ["create pods db-0"]);
    let all = vec![pod(0, "1"), pod(1, "1"), pod(2, "1")];
    assert_eq!(of(all), Vec::<String>::new());
}

#[test]
fn parallel_pods_do_not_wait_for_each_other() {
    let set = with(set("1", 3), "/spec/podManagementPolicy", json!("Parallel"));
    let objects = vec![set.clone(), revision("1", 1), unready(pod(1, "1"))];
    assert_eq!(done(objects), ["create pods db-0", "create pods db-2"]);
    let less = with(set, "/spec/replicas", json!(0));
    let objects = vec![less, revision("1", 1), unready(pod(0, "1")), pod(1, "1")];
    assert_eq!(done(objects), ["delete pods db-1", "delete pods db-0"]);
}

#[test]
fn a_pod_has_its_identity_and_its_claim() {
    let objects = vec![
        with_claims(set("1", 1), "Retain", "Retain"),
        revision("1", 1),
    ];
    let plan = planned(objects);
    let order: Vec<String> = words(&plan.actions);
    assert_eq!(order[0], "create persistentvolumeclaims data-db-0");
    assert_eq!(order[1], "create pods db-0");
    let pod = created(&plan, Kind::POD);
    assert_eq!(
        pod["metadata"]["labels"],
        json!({
            "app": "db",
            "controller-revision-hash": "db-1",
            "statefulset.kubernetes.io/pod-name": "db-0",
            "apps.kubernetes.io/pod-index": "0",
        })
    );
    assert_eq!(pod["metadata"]["generateName"], "db-");
    assert_eq!(pod["metadata"]["ownerReferences"], controlled_by(SET, "db"));
    let spec = &pod["spec"];
    assert_eq!(
        (&spec["hostname"], &spec["subdomain"]),
        (&json!("db-0"), &json!("dbs"))
    );
    let volume = json!({"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}});
    assert_eq!(spec["volumes"], json!([volume]));
    let claim = created(&plan, Kind::PERSISTENT_VOLUME_CLAIM);
    assert_eq!(claim["metadata"]["labels"], json!({"app": "db"}));
    assert_eq!(claim["metadata"]["ownerReferences"], Value::Null);
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    let told: Vec<&String> = order
        .iter()
        .filter(|word| word.starts_with("tell"))
        .collect();
    assert_eq!(
        told,
        [
            "tell SuccessfulCreate create Claim data-db-0 Pod db-0 in StatefulSet db success",
            "tell SuccessfulCreate create Pod db-0 in StatefulSet db successful",
        ]
    );
}

#[test]
fn scaling_down_ends_the_highest_first_and_halts_at_an_unhealthy_pod() {
    let of = |pods: Vec<(Kind, Value)>| {
        let mut objects = vec![set("1", 1), revision("1", 1)];
        objects.extend(pods);
        done(objects)
    };
    let all = || vec![pod(0, "1"), pod(1, "1"), pod(2, "1")];
    assert_eq!(of(all()), ["delete pods db-2"]);
    let waits = vec![pod(0, "1"), pod(1, "1"), ending(pod(2, "1"))];
    assert_eq!(of(waits), Vec::<String>::new());
    let first_is_ill = vec![unready(pod(0, "1")), pod(1, "1")];
    assert_eq!(of(first_is_ill), Vec::<String>::new());
    let one_is_ill = vec![pod(0, "1"), pod(1, "1"), unready(pod(2, "1"))];
    assert_eq!(
        of(one_is_ill),
        ["delete pods db-2"],
        "it is the first that is"
    );
    let two_are_ill = vec![pod(0, "1"), unready(pod(1, "1")), unready(pod(2, "1"))];
    assert_eq!(of(two_are_ill), Vec::<String>::new());
}

#[test]
fn ordinals_begin_where_the_set_says() {
    let set = with(set("1", 2), "/spec/ordinals", json!({"start": 5}));
    let of = |pods: Vec<(Kind, Value)>| {
        let mut objects = vec![set.clone(), revision("1", 1)];
        objects.extend(pods);
        done(objects)
    };
    assert_eq!(of(vec![]), ["create pods db-5"]);
    let moved = vec![pod(0, "1"), pod(5, "1"), pod(6, "1")];
    assert_eq!(of(moved), ["delete pods db-0"]);
}

#[test]
fn an_update_goes_down_from_the_highest_and_each_is_waited_for() {
    let of = |pods: Vec<(Kind, Value)>| {
        let mut objects = vec![
            with(
                set("2", 3),
                "/status",
                json!({"replicas": 3, "currentRevision": "db-1"}),
            ),
            revision("1", 1),
            revision("2", 2),
        ];
        objects.extend(pods);
        done(objects)
    };
    let old = |ordinal| pod(ordinal, "1");
    let new = |ordinal| pod(ordinal, "2");
    assert_eq!(of(vec![old(0), old(1), old(2)]), ["delete pods db-2"]);
    assert_eq!(
        of(vec![old(0), old(1), ending(old(2))]),
        Vec::<String>::new()
    );
    assert_eq!(of(vec![old(0), old(1)]), ["create pods db-2"]);
    assert_eq!(
        of(vec![old(0), old(1), unready(new(2))]),
        Vec::<String>::new()
    );
    assert_eq!(of(vec![old(0), old(1), new(2)]), ["delete pods db-1"]);
    assert_eq!(of(vec![old(0), new(1), new(2)]), ["delete pods db-0"]);
}

#[test]
fn below_the_partition_pods_keep_and_regain_the_current_revision() {
    let partition = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    let set = with(set("2", 3), "/spec/updateStrategy", partition);
    let set = with(
        set,
        "/status",
        json!({"replicas": 3, "currentRevision": "db-1"}),
    );
    let objects = |pods: Vec<(Kind, Value)>| {
        let mut all = vec![set.clone(), revision("1", 1), revision("2", 2)];
        all.extend(pods);
        all
    };
    let rolled = vec![pod(0, "1"), pod(1, "1"), pod(2, "2")];
    assert_eq!(done(objects(rolled.clone())), Vec::<String>::new());
    let told = status(&planned(objects(rolled)));
    assert_eq!(
        (&told["currentRevision"], &told["updateRevision"]),
        (&json!("db-1"), &json!("db-2"))
    );
    assert_eq!(
        (&told["currentReplicas"], &told["updatedReplicas"]),
        (&json!(2), &json!(1))
    );
    let lost = created(&planned(objects(vec![pod(1, "1"), pod(2, "2")])), Kind::POD);
    assert_eq!(lost["spec"]["containers"][0]["image"], "1");
    assert_eq!(
        lost["metadata"]["labels"]["controller-revision-hash"],
        "db-1"
    );
    let lost = created(&planned(objects(vec![pod(0, "1"), pod(1, "1")])), Kind::POD);
    assert_eq!(lost["spec"]["containers"][0]["image"], "2");
}

#[test]
fn on_delete_a_pod_is_updated_when_somebody_deletes_it() {
    let set = with(
        set("2", 2),
        "/spec/updateStrategy",
        json!({"type": "OnDelete"}),
    );
    let set = with(
        set,
        "/status",
        json!({"replicas": 2, "currentRevision": "db-1"}),
    );
    let known = vec![set, revision("1", 1), revision("2", 2), pod(0, "1")];
    let mut both = known.clone();
    both.push(pod(1, "1"));
    assert_eq!(done(both), Vec::<String>::new());
    let made = created(&planned(known), Kind::POD);
    assert_eq!(
        made["metadata"]["labels"]["controller-revision-hash"],
        "db-2"
    );
}

#[test]
fn several_are_updated_at_once_where_that_many_may_be_unavailable() {
    let rolling = json!({"type": "RollingUpdate",
        "rollingUpdate": {"partition": 0, "maxUnavailable": "50%"}});
    let set = with(set("2", 4), "/spec/updateStrategy", rolling);
    let set = with(set, "/spec/podManagementPolicy", json!("Parallel"));
    let of = |pods: Vec<(Kind, Value)>| {
        let mut objects = vec![set.clone(), revision("1", 1), revision("2", 2)];
        objects.extend(pods);
        done(objects)
    };
    let old = |ordinal| pod(ordinal, "1");
    let all = vec![old(0), old(1), old(2), old(3)];
    assert_eq!(of(all), ["delete pods db-3", "delete pods db-2"]);
    let one_ends = vec![old(0), old(1), old(2), ending(old(3))];
    assert_eq!(of(one_ends), ["delete pods db-2"]);
    let starting = vec![old(0), old(1), unready(pod(2, "2")), unready(pod(3, "2"))];
    assert_eq!(of(starting), Vec::<String>::new());
    let broken = vec![unready(old(0)), old(1), unready(pod(2, "2")), pod(3, "2")];
    assert_eq!(of(broken), ["delete pods db-0"], "it is unavailable anyway");
}

#[test]
fn a_pod_that_a_wrong_template_keeps_from_starting_makes_way_for_the_right_one() {
    let known = |current: &str| {
        let status = json!({"replicas": 2, "currentRevision": current});
        vec![
            with(set("3", 2), "/status", status),
            revision("1", 1),
            revision("2", 2),
            revision("3", 3),
            pod(0, "1"),
        ]
    };
    let of = |current: &str, pod: (Kind, Value)| {
        let mut objects = known(current);
        objects.push(pod);
        done(objects)
    };
    let crashing = unready(pod(1, "2"));
    assert_eq!(
        of("db-1", crashing),
        ["delete pods db-1"],
        "of a revision between"
    );
    let pending = with(unready(pod(1, "1")), "/status/phase", json!("Pending"));
    assert_eq!(
        of("db-1", pending),
        ["delete pods db-1"],
        "it never started"
    );
    let ill = unready(pod(1, "1"));
    assert_eq!(
        of("db-1", ill),
        Vec::<String>::new(),
        "it ran, and may again"
    );
    let starting = unready(pod(1, "3"));
    assert_eq!(of("db-1", starting), Vec::<String>::new());
}

#[test]
fn a_pod_is_available_when_it_has_been_ready_long_enough() {
    let set = with(set("1", 2), "/spec/minReadySeconds", json!(90));
    let plan = planned(vec![set, revision("1", 1), pod(0, "1")]);
    // Ready for a minute now.
    assert_eq!(plan.again, Some(jiff::SignedDuration::from_secs(30)));
    let told = status(&plan);
    assert_eq!(
        (&told["readyReplicas"], &told["availableReplicas"]),
        (&json!(1), &json!(0))
    );
    assert!(
        !words(&plan.actions)
            .iter()
            .any(|word| word.starts_with("create"))
    );
}

#[test]
fn a_finished_update_makes_the_new_revision_the_current_one() {
    let set = with(
        set("2", 1),
        "/status",
        json!({"replicas": 1, "currentRevision": "db-1"}),
    );
    let plan = planned(vec![set, revision("1", 1), revision("2", 2), pod(0, "2")]);
    assert_eq!(
        status(&plan),
        json!({
            "observedGeneration": 2,
            "replicas": 1,
            "readyReplicas": 1,
            "availableReplicas": 1,
            "currentReplicas": 1,
            "updatedReplicas": 1,
            "currentRevision": "db-2",
            "updateRevision": "db-2",
            "collisionCount": 0,
        })
    );
}

#[test]
fn a_pod_that_has_ended_is_deleted_and_made_again_with_growing_pauses() {
    let failed = |made: &str| {
        let pod = with(pod(0, "1"), "/status/phase", json!("Failed"));
        with(pod, "/metadata/creationTimestamp", json!(made))
    };
    let world = |made: &str| world(vec![set("1", 1), revision("1", 1), failed(made)]);
    let mut failures = Failures::default();
    let fails = |failures: &mut Failures| {
        let (kind, value) = failed("2026-01-01T00:09:59Z");
        let new = Some(std::sync::Arc::new(object(kind, value)));
        failures.hear(&Diff { old: None, new }, "db-0", now());
    };
    let done = |failures: &Failures, made: &str| {
        let world = world(made);
        let mut view = gather(&world, &Key::new("ns", "db"), now()).unwrap();
        view.failures = Some(failures);
        let plan = plan(&world, &view);
        let deletes = words(&plan.actions)
            .iter()
            .any(|word| word == "delete pods db-0");
        (deletes, plan.again.map(|wait| wait.as_secs()))
    };
    fails(&mut failures);
    assert_eq!(done(&failures, "2026-01-01T00:09:59Z"), (true, None));
    fails(&mut failures);
    assert_eq!(done(&failures, "2026-01-01T00:09:59Z"), (false, Some(1)));
    fails(&mut failures);
    assert_eq!(done(&failures, "2026-01-01T00:09:59Z"), (false, Some(3)));
    assert_eq!(
        done(&failures, "2026-01-01T00:00:00Z"),
        (true, None),
        "it failed late"
    );
    let told = words(
        &planned(vec![
            set("1", 1),
            revision("1", 1),
            failed("2026-01-01T00:00:00Z"),
        ])
        .actions,
    );
    let text = "tell RecreatingFailedPod StatefulSet ns/db is recreating failed Pod db-0";
    assert!(told.contains(&text.to_owned()), "{told:?}");
}

#[test]
fn claims_follow_the_retention_policy() {
    let set_owns = controlled_by(SET, "db");
    let pod_owns = |name: &str| controlled_by(Kind::POD, name);
    let patched = |when: (&str, &str), before: &Value| {
        let objects = vec![
            with_claims(set("1", 1), when.0, when.1),
            revision("1", 1),
            pod(0, "1"),
            pod(1, "1"),
            claim("data-db-0", before.clone()),
            claim("data-db-1", before.clone()),
        ];
        let plan = planned(objects);
        let owners = |name: &str| {
            let patch = plan.actions.iter().find_map(|action| match action {
                Action::Patch(patch) if patch.key.name == name => Some(&patch.body),
                _ => None,
            });
            patch.map(|body| body["metadata"]["ownerReferences"].clone())
        };
        (owners("data-db-0"), owners("data-db-1"))
    };
    let none = json!([]);
    assert_eq!(patched(("Retain", "Retain"), &none), (None, None));
    let off = Some(Value::Null);
    assert_eq!(
        patched(("Retain", "Retain"), &set_owns),
        (off.clone(), off.clone())
    );
    let set_too = Some(set_owns.clone());
    assert_eq!(
        patched(("Delete", "Retain"), &none),
        (set_too.clone(), set_too.clone())
    );
    assert_eq!(patched(("Delete", "Retain"), &set_owns), (None, None));
    let condemned = Some(pod_owns("db-1"));
    assert_eq!(
        patched(("Retain", "Delete"), &none),
        (None, condemned.clone())
    );
    assert_eq!(
        patched(("Delete", "Delete"), &none),
        (set_too, condemned.clone())
    );
    assert_eq!(patched(("Delete", "Delete"), &set_owns), (None, condemned));
    let foreign = controlled_by(Kind::DEPLOYMENT, "operator");
    assert_eq!(patched(("Delete", "Delete"), &foreign), (None, None));
}

#[test]
fn a_claim_of_the_pods_predecessor_goes_before_the_pod_comes() {
    let set = with_claims(set("1", 1), "Retain", "Delete");
    let old = controlled_by(Kind::POD, "db-0");
    let objects = vec![set.clone(), revision("1", 1), claim("data-db-0", old)];
    assert_eq!(done(objects), Vec::<String>::new());
    let ends = claim("data-db-0", json!([]));
    let ends = with(
        ends,
        "/metadata/deletionTimestamp",
        json!("2026-01-01T00:09:00Z"),
    );
    assert_eq!(
        done(vec![set.clone(), revision("1", 1), ends]),
        Vec::<String>::new()
    );
    let kept = vec![set, revision("1", 1), claim("data-db-0", json!([]))];
    assert_eq!(done(kept), ["create pods db-0"]);
}

#[test]
fn a_pending_pod_whose_claim_is_gone_gets_it_again() {
    let pending = with(unready(pod(0, "1")), "/status/phase", json!("Pending"));
    let set = with_claims(set("1", 1), "Retain", "Retain");
    let objects = vec![set, revision("1", 1), pending];
    assert_eq!(done(objects), ["create persistentvolumeclaims data-db-0"]);
}

#[test]
fn only_pods_with_a_name_of_the_set_are_its_own() {
    let orphan = |name: &str| {
        let pod = with(pod(0, "1"), "/metadata/ownerReferences", json!([]));
        with(pod, "/metadata/name", json!(name))
    };
    let known = || vec![set("1", 1), revision("1", 1)];
    let adopted = |name: &str| {
        let mut objects = known();
        objects.push(orphan(name));
        done(objects)[0].starts_with(&format!("patch pods {name} "))
    };
    assert!(adopted("db-0"));
    for name in ["db-x", "db-01", "db", "other-0", "db-0-0", "db--1"] {
        assert!(!adopted(name), "{name}");
    }
    let mut objects = known();
    objects.push(with(pod(0, "1"), "/metadata/labels/app", json!("other")));
    let words = done(objects);
    assert_eq!(
        words[0],
        "patch pods db-0 {\"metadata\":{\"ownerReferences\":null}}"
    );
}

#[test]
fn a_pod_that_lost_its_identity_gets_it_back() {
    let index = "/metadata/labels/apps.kubernetes.io~1pod-index";
    let mut bare = pod(0, "1");
    bare.1
        .pointer_mut("/metadata/labels")
        .unwrap()
        .as_object_mut()
        .unwrap()
        .remove("apps.kubernetes.io/pod-index");
    assert!(bare.1.pointer(index).is_none());
    let words = done(vec![set("1", 1), revision("1", 1), bare]);
    assert!(
        words[0].starts_with("patch pods db-0") && words[0].contains("pod-index"),
        "{words:?}"
    );
}

#[test]
fn a_set_that_is_deleted_does_nothing_more() {
    let gone = with(
        set("1", 3),
        "/metadata/deletionTimestamp",
        json!("2026-01-01T00:09:00Z"),
    );
    assert_eq!(done(vec![gone.clone()]), Vec::<String>::new());
    assert_eq!(
        done(vec![gone, revision("1", 1), pod(0, "1")]),
        Vec::<String>::new()
    );
}

#[test]
fn revisions_beyond_the_limit_go_oldest_first_but_not_those_in_use() {
    let set = with(set("5", 1), "/spec/revisionHistoryLimit", json!(1));
    let mut objects = vec![set, pod(0, "1")];
    objects.extend(["1", "2", "3", "4", "5"].map(|image| revision(image, image.parse().unwrap())));
    let deleted: Vec<String> = done(objects)
        .into_iter()
        .filter(|word| word.contains("controllerrevisions"))
        .collect();
    assert_eq!(
        deleted,
        [
            "delete controllerrevisions db-2",
            "delete controllerrevisions db-3"
        ]
    );
}

#[test]
fn a_refused_pod_is_told_of_once_with_the_reason() {
    let mut controller = StatefulSetController::default();
    let world = world(vec![set("1", 1), revision("1", 1)]);
    let about = (SET, Key::new("ns", "db"));
    let failed = |message: &str| Ending::Failed {
        creating: true,
        conflict: false,
        message: message.to_owned(),
    };
    let told = |controller: &mut StatefulSetController| {
        let plan = controller.plan(&world, &about, now()).unwrap();
        words(&plan.actions)
            .into_iter()
            .find(|word| word.contains("FailedCreate"))
    };
    controller.ended(&about, &failed("over quota"));
    let text = "tell FailedCreate create Pod db-0 in StatefulSet db failed error: over quota";
    assert_eq!(told(&mut controller).as_deref(), Some(text));
    assert_eq!(told(&mut controller), None);
    controller.ended(&about, &failed("pods \"db-0\" already exists"));
    assert_eq!(told(&mut controller), None);
}

#[test]
fn two_billion_replicas_cost_one_burst() {
    let set = with(
        set("1", i64::from(i32::MAX)),
        "/spec/podManagementPolicy",
        json!("Parallel"),
    );
    let plan = planned(vec![with_claims(set, "Retain", "Retain"), revision("1", 1)]);
    let made = words(&plan.actions).into_iter();
    assert_eq!(
        made.filter(|word| word.starts_with("create pods")).count(),
        round::BURST
    );
}
