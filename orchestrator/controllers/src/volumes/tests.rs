//! What the binder makes of claims, volumes and classes.

use serde_json::{Value, json};

use super::*;
use crate::controller::{Controller, Due};
use crate::fixture::{now, object, words, world};
use crate::object::Key;
use crate::world::Diff;
use client::Kind;

const CLAIM: Kind = Kind::PERSISTENT_VOLUME_CLAIM;
const VOLUME: Kind = Kind::PERSISTENT_VOLUME;

type Row = (Kind, Value);

fn with(mut row: Row, changes: &[(&str, Value)]) -> Row {
    for (pointer, value) in changes {
        let mut at = &mut row.1;
        for step in pointer.trim_start_matches('/').split('/') {
            at = &mut at[step.replace("~1", "/")];
        }
        *at = value.clone();
    }
    row
}

fn claim(name: &str, size: &str) -> Row {
    let claim = json!({
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
            "storageClassName": "", "resources": {"requests": {"storage": size}}},
        "status": {"phase": "Pending"},
    });
    (CLAIM, claim)
}

fn volume(name: &str, size: &str) -> Row {
    let volume = json!({
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Retain",
            "capacity": {"storage": size}, "hostPath": {"path": "/d"}},
        "status": {"phase": "Available"},
    });
    (VOLUME, volume)
}

fn taken(row: Row, claim: &str) -> Row {
    let reference = json!({"namespace": "ns", "name": claim, "uid": format!("uid-{claim}")});
    with(row, &[("/spec/claimRef", reference)])
}

fn bound(row: Row, volume: &str) -> Row {
    let done = [
        ("/spec/volumeName", json!(volume)),
        ("/status/phase", json!("Bound")),
        ("/status/capacity", json!({"storage": "1Gi"})),
        (
            "/metadata/annotations",
            json!({"pv.kubernetes.io/bind-completed": "yes"}),
        ),
    ];
    with(row, &done)
}

fn class(provisioner: &str, mode: &str) -> Row {
    let class = json!({"metadata": {"name": "fast"}, "provisioner": provisioner,
        "reclaimPolicy": "Delete", "volumeBindingMode": mode});
    (Kind::STORAGE_CLASS, class)
}

fn node(name: &str) -> Row {
    let labels = json!({"kubernetes.io/hostname": name});
    (
        Kind::NODE,
        json!({"metadata": {"name": name, "labels": labels}}),
    )
}

fn of_class(row: Row) -> Row {
    with(row, &[("/spec/storageClassName", json!("fast"))])
}

fn selected(row: Row, node: &str) -> Row {
    let chosen = json!({"volume.kubernetes.io/selected-node": node});
    with(row, &[("/metadata/annotations", chosen)])
}

fn planned(kind: Kind, name: &str, objects: Vec<Row>) -> Vec<String> {
    let world = world(objects);
    let namespace = if kind.namespaced { "ns" } else { "" };
    let plan = BinderController.plan(&world, &(kind, Key::new(namespace, name)), now());
    words(&plan.unwrap_or_default().actions)
}

fn chosen(objects: Vec<Row>) -> Option<String> {
    let done = planned(CLAIM, "c", objects);
    let first = done
        .iter()
        .find(|word| word.starts_with("patch persistentvolumes "))?;
    Some(first.split(' ').nth(2)?.to_owned())
}

#[test]
fn a_claim_gets_the_smallest_volume_that_fits() {
    let other_class = of_class(volume("a", "1Gi"));
    let other_mode = with(volume("b", "1Gi"), &[("/spec/volumeMode", json!("Block"))]);
    let other_access = with(
        volume("c", "1Gi"),
        &[("/spec/accessModes", json!(["ReadOnlyMany"]))],
    );
    let others = [
        other_class,
        other_mode,
        other_access,
        taken(volume("d", "1Gi"), "x"),
    ];
    let fitting = [volume("e", "9Gi"), volume("f", "2Gi"), volume("g", "512Mi")];
    let all: Vec<Row> = others
        .into_iter()
        .chain(fitting)
        .chain([claim("c", "1Gi")])
        .collect();
    assert_eq!(chosen(all.clone()), Some("f".to_owned()));
    let done = planned(CLAIM, "c", all);
    assert_eq!(done.len(), 3, "{done:?}");
    assert!(done[0].contains("\"uid\":\"uid-c\""), "{done:?}");
    assert!(done[0].contains("\"resourceVersion\":\"1\""), "{done:?}");
    assert!(done[1].contains("\"volumeName\":\"f\""), "{done:?}");
    assert!(done[2].contains("\"phase\":\"Bound\""), "{done:?}");
}

#[test]
fn a_volume_that_is_not_available_or_is_going_is_not_taken() {
    for (pointer, value) in [
        ("/status/phase", json!("Failed")),
        ("/status/phase", json!("Pending")),
        ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
    ] {
        let volume = with(volume("v", "1Gi"), &[(pointer, value)]);
        assert_eq!(chosen(vec![volume, claim("c", "1Gi")]), None);
    }
}

#[test]
fn a_volume_that_is_meant_for_a_claim_is_taken_first_unless_it_is_too_small() {
    let meant = |size: &str| {
        let reference = json!({"namespace": "ns", "name": "c"});
        with(volume("m", size), &[("/spec/claimRef", reference)])
    };
    let small = volume("a", "1Gi");
    let both = |size: &str| vec![small.clone(), meant(size), claim("c", "1Gi")];
    assert_eq!(chosen(both("10Gi")), Some("m".to_owned()));
    assert_eq!(chosen(both("1Mi")), Some("a".to_owned()));
}

#[test]
fn a_selector_chooses_by_the_labels_of_volumes() {
    let labelled = with(
        volume("v", "2Gi"),
        &[("/metadata/labels", json!({"a": "b"}))],
    );
    let selector = json!({"matchLabels": {"a": "b"}});
    let wanting = with(claim("c", "1Gi"), &[("/spec/selector", selector)]);
    let all = vec![volume("a", "1Gi"), labelled, wanting];
    assert_eq!(chosen(all), Some("v".to_owned()));
}

#[test]
fn a_claim_that_names_its_volume_gets_it_or_hears_why_not() {
    let naming = |name: &str| with(claim("c", "1Gi"), &[("/spec/volumeName", json!(name))]);
    assert_eq!(
        chosen(vec![volume("v", "1Gi"), naming("v")]),
        Some("v".to_owned())
    );
    assert!(planned(CLAIM, "c", vec![naming("absent")]).is_empty());
    let done = planned(CLAIM, "c", vec![volume("v", "1Mi"), naming("v")]);
    let small =
        "tell VolumeMismatch Cannot bind to requested volume \"v\": requested PV is too small";
    assert_eq!(done, [small]);
    let done = planned(
        CLAIM,
        "c",
        vec![taken(volume("v", "1Gi"), "x"), naming("v")],
    );
    assert_eq!(
        done,
        ["tell FailedBinding volume \"v\" already bound to a different claim."]
    );
}

#[test]
fn a_claim_without_a_volume_or_a_class_hears_so() {
    let done = planned(CLAIM, "c", vec![claim("c", "1Gi")]);
    let text = "no persistent volumes available for this claim and no storage class is set";
    assert_eq!(done, [format!("tell FailedBinding {text}")]);
    let done = planned(CLAIM, "c", vec![of_class(claim("c", "1Gi"))]);
    let text = "storageclass.storage.k8s.io \"fast\" not found";
    assert_eq!(done, [format!("tell ProvisioningFailed {text}")]);
}

#[test]
fn a_claim_that_names_no_class_gets_the_default_one_that_came_later() {
    let bare = with(
        claim("c", "1Gi"),
        &[("/spec/storageClassName", Value::Null)],
    );
    let mark = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let default = with(
        class("x.example", "Immediate"),
        &[("/metadata/annotations", mark)],
    );
    let done = planned(CLAIM, "c", vec![bare, default]);
    assert!(
        done[0].contains("\"storageClassName\":\"fast\""),
        "{done:?}"
    );
}

#[test]
fn an_external_provisioner_is_named_once() {
    let objects = |claim: Row| vec![class("x.example", "Immediate"), claim];
    let done = planned(CLAIM, "c", objects(of_class(claim("c", "1Gi"))));
    assert!(done[0].contains("\"volume.kubernetes.io/storage-provisioner\":\"x.example\""));
    assert!(done[1].starts_with("tell ExternalProvisioning Waiting for a volume"));
    let named = json!({"volume.kubernetes.io/storage-provisioner": "x.example",
        "volume.beta.kubernetes.io/storage-provisioner": "x.example"});
    let named = with(
        of_class(claim("c", "1Gi")),
        &[("/metadata/annotations", named)],
    );
    assert_eq!(planned(CLAIM, "c", objects(named)).len(), 1);
}

#[test]
fn a_claim_waits_for_the_node_of_its_first_pod() {
    let waiting = class("local.orchestrator.io", "WaitForFirstConsumer");
    let objects = vec![
        waiting,
        of_class(volume("v", "1Gi")),
        of_class(claim("c", "1Gi")),
    ];
    let done = planned(CLAIM, "c", objects);
    let text = "waiting for first consumer to be created before binding";
    assert_eq!(done, [format!("tell WaitForFirstConsumer {text}")]);
}

#[test]
fn with_a_node_a_static_volume_of_that_node_is_taken() {
    let on = |name: &str, node: &str| {
        let terms = json!([{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]);
        let required = json!({"required": {"nodeSelectorTerms": terms}});
        with(
            of_class(volume(name, "1Gi")),
            &[("/spec/nodeAffinity", required)],
        )
    };
    let objects = |node_of_claim: &str| {
        vec![
            class("kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
            node("one"),
            node("two"),
            node("three"),
            on("v1", "one"),
            on("v2", "two"),
            selected(of_class(claim("c", "1Gi")), node_of_claim),
        ]
    };
    assert_eq!(chosen(objects("two")), Some("v2".to_owned()));
    // None is there, and none is made: the scheduler is asked for another node.
    let done = planned(CLAIM, "c", objects("three"));
    let again = "{\"volume.kubernetes.io/selected-node\":null}";
    assert!(done[0].contains(again), "{done:?}");
}

#[test]
fn a_local_volume_is_made_for_the_selected_node() {
    let objects = vec![
        class("local.orchestrator.io", "WaitForFirstConsumer"),
        node("one"),
        selected(of_class(claim("c", "1500000000")), "one"),
    ];
    let world = world(objects);
    let plan = BinderController.plan(&world, &(CLAIM, Key::new("ns", "c")), now());
    let actions = plan.unwrap().actions;
    let done = words(&actions);
    assert_eq!(done[1], "create persistentvolumes pvc-uid-c");
    assert_eq!(
        done[2],
        "tell ProvisioningSucceeded Successfully provisioned volume pvc-uid-c"
    );
    let crate::action::Action::Create(create) = &actions[1] else {
        panic!("{done:?}");
    };
    let made = &create.object;
    assert_eq!(made["spec"]["capacity"]["storage"], "1431Mi");
    assert_eq!(made["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    assert_eq!(api::kinds::storage::local::node_of(made), Some("one"));
    let volumes = api::find("", "v1", "persistentvolumes").unwrap();
    let checked = volumes.canonical(made.clone(), api::FieldValidation::Strict);
    assert!(checked.is_ok(), "{:?}", checked.err());
    // Once it is there, it is the claim's.
    let mut there = (VOLUME, made.clone());
    there.1["status"] = json!({"phase": "Available"});
    let claim = selected(of_class(claim("c", "1500000000")), "one");
    let done = planned(CLAIM, "c", vec![there, claim]);
    assert!(done[0].contains("\"volumeName\":\"pvc-uid-c\""), "{done:?}");
}

#[test]
fn what_a_local_volume_cannot_be_is_said() {
    let objects = |class: Row, claim: Row| vec![class, node("one"), claim];
    let waiting = || class("local.orchestrator.io", "WaitForFirstConsumer");
    let wanted = || selected(of_class(claim("c", "1Gi")), "one");
    let many = with(wanted(), &[("/spec/accessModes", json!(["ReadWriteMany"]))]);
    let copied = with(
        wanted(),
        &[(
            "/spec/dataSource",
            json!({"kind": "PersistentVolumeClaim", "name": "o"}),
        )],
    );
    for (class, claim, why) in [
        (waiting(), many, "ReadWriteMany is not supported"),
        (waiting(), copied, "begins empty"),
        (
            class("local.orchestrator.io", "Immediate"),
            wanted(),
            "must be WaitForFirstConsumer",
        ),
    ] {
        let done = planned(CLAIM, "c", objects(class, claim));
        assert!(done[0].starts_with("tell ProvisioningFailed"), "{done:?}");
        assert!(done[0].contains(why), "{done:?}");
    }
    let lost = selected(of_class(claim("c", "1Gi")), "gone");
    let done = planned(CLAIM, "c", objects(waiting(), lost));
    assert!(done[0].contains("selected-node\":null"), "{done:?}");
}

#[test]
fn a_volume_is_available_bound_and_released_with_its_claim() {
    let phase = |objects: Vec<Row>| planned(VOLUME, "v", objects).join(";");
    let fresh = with(volume("v", "1Gi"), &[("/status/phase", json!("Pending"))]);
    assert!(phase(vec![fresh]).contains("\"phase\":\"Available\""));
    assert!(phase(vec![volume("v", "1Gi")]).is_empty());
    let held = taken(volume("v", "1Gi"), "c");
    let both = vec![held.clone(), bound(claim("c", "1Gi"), "v")];
    assert!(phase(both).contains("\"phase\":\"Bound\""));
    assert!(phase(vec![held.clone()]).contains("\"phase\":\"Released\""));
    // Another claim of the name is not the one.
    let other = with(
        bound(claim("c", "1Gi"), "v"),
        &[("/metadata/uid", json!("other"))],
    );
    assert!(phase(vec![held, other]).contains("\"phase\":\"Released\""));
}

#[test]
fn a_released_volume_is_kept_deleted_or_failed_by_its_policy() {
    let released = |policy: &str| {
        let changes = [
            ("/spec/persistentVolumeReclaimPolicy", json!(policy)),
            ("/status/phase", json!("Released")),
        ];
        with(taken(volume("v", "1Gi"), "c"), &changes)
    };
    assert!(planned(VOLUME, "v", vec![released("Retain")]).is_empty());
    for (policy, reason) in [
        ("Delete", "VolumeFailedDelete"),
        ("Recycle", "VolumeFailedRecycle"),
    ] {
        let done = planned(VOLUME, "v", vec![released(policy)]);
        assert!(done[0].contains("\"phase\":\"Failed\""), "{done:?}");
        assert!(done[1].contains(reason), "{done:?}");
        let failed = with(released(policy), &[("/status/phase", json!("Failed"))]);
        assert!(planned(VOLUME, "v", vec![failed]).is_empty());
    }
    let local = json!({"driver": "local.orchestrator.io", "volumeHandle": "v",
        "volumeAttributes": {"node": "one"}});
    let local = with(
        released("Delete"),
        &[("/spec/hostPath", Value::Null), ("/spec/csi", local)],
    );
    assert_eq!(
        planned(VOLUME, "v", vec![local.clone()]),
        ["delete persistentvolumes v"]
    );
    let changes = [(
        "/metadata/annotations",
        json!({"pv.kubernetes.io/provisioned-by": "x"}),
    )];
    let external = with(released("Delete"), &changes);
    assert!(planned(VOLUME, "v", vec![external]).is_empty());
    // Nobody removes the image of a node that is gone.
    let going = [
        ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
        (
            "/metadata/finalizers",
            json!(["local.orchestrator.io/image"]),
        ),
    ];
    let going = with(local, &going);
    assert!(planned(VOLUME, "v", vec![going.clone(), node("one")]).is_empty());
    assert!(planned(VOLUME, "v", vec![going])[0].contains("\"finalizers\":null"));
}

#[test]
fn a_volume_whose_claim_took_another_is_free_again() {
    let claim = bound(claim("c", "1Gi"), "other");
    let ours = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
    let ours = with(
        taken(volume("v", "1Gi"), "c"),
        &[("/metadata/annotations", ours)],
    );
    let done = planned(VOLUME, "v", vec![ours, claim.clone()]);
    assert!(done[0].contains("\"claimRef\":null"), "{done:?}");
    let theirs = taken(volume("v", "1Gi"), "c");
    let done = planned(VOLUME, "v", vec![theirs, claim]);
    assert!(done[0].contains("\"uid\":null"), "{done:?}");
}

#[test]
fn a_bound_claim_that_loses_its_volume_is_lost() {
    let lost = bound(claim("c", "1Gi"), "v");
    let done = planned(CLAIM, "c", vec![lost.clone()]);
    assert!(done[0].contains("\"phase\":\"Lost\""), "{done:?}");
    assert!(done[1].starts_with("tell ClaimLost"), "{done:?}");
    let done = planned(CLAIM, "c", vec![lost, taken(volume("v", "1Gi"), "x")]);
    assert!(done[1].starts_with("tell ClaimMisbound"), "{done:?}");
}

#[test]
fn a_local_volume_grows_in_three_steps() {
    let wanting = bound(claim("c", "2Gi"), "v");
    let volume = |size: &str, given: &str| {
        let source = json!({"driver": "local.orchestrator.io", "volumeHandle": "v"});
        let annotations = json!({"local.orchestrator.io/size": given});
        let changes = [
            ("/spec/hostPath", Value::Null),
            ("/spec/csi", source),
            ("/metadata/annotations", annotations),
        ];
        with(taken(volume("v", size), "c"), &changes)
    };
    let done = planned(CLAIM, "c", vec![wanting.clone(), volume("1Gi", "1Gi")]);
    assert!(done[0].contains("\"storage\":\"2Gi\""), "{done:?}");
    let done = planned(CLAIM, "c", vec![wanting.clone(), volume("2Gi", "1Gi")]);
    assert!(done[0].contains("FileSystemResizePending"), "{done:?}");
    let done = planned(
        CLAIM,
        "c",
        vec![wanting.clone(), volume("2Gi", "2147483648")],
    );
    assert!(done[0].contains("\"storage\":\"2Gi\""), "{done:?}");
    assert!(
        done[1].starts_with("tell FileSystemResizeSuccessful"),
        "{done:?}"
    );
    let other = taken(self::volume("v", "1Gi"), "c");
    let done = planned(CLAIM, "c", vec![wanting, other]);
    assert!(done[0].starts_with("tell ExternalExpanding"), "{done:?}");
}

#[test]
fn a_free_volume_is_work_about_the_claims_of_its_class() {
    let bound = bound(claim("bound", "1Gi"), "x");
    let world = world([claim("c", "1Gi"), of_class(claim("d", "1Gi")), bound]);
    let (kind, value) = volume("v", "1Gi");
    let diff = Diff {
        old: None,
        new: Some(std::sync::Arc::new(object(kind, value))),
    };
    let mut due = Due::new();
    BinderController.due(&world, &diff, &mut due);
    let volume = (VOLUME, Key::new("", "v"));
    assert_eq!(due, Due::from([(CLAIM, Key::new("ns", "c")), volume]));
}

#[test]
fn a_pods_own_claim_is_made_once_and_never_taken_from_another() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [],
        "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}]}});
    let planned = |objects: Vec<Row>| {
        let address = (Kind::POD, Key::new("ns", "p"));
        let plan = EphemeralController.plan(&world(objects), &address, now());
        words(&plan.unwrap_or_default().actions)
    };
    let pod = (Kind::POD, pod);
    assert_eq!(
        planned(vec![pod.clone()]),
        ["create persistentvolumeclaims p-v"]
    );
    let foreign = claim("p-v", "1Gi");
    let done = planned(vec![pod.clone(), foreign.clone()]);
    assert!(done[0].contains("was not created for pod ns/p"), "{done:?}");
    let owner = crate::fixture::controlled_by(Kind::POD, "p");
    let own = with(foreign, &[("/metadata/ownerReferences", owner)]);
    assert!(planned(vec![pod.clone(), own]).is_empty());
    let going = [("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"))];
    assert!(planned(vec![with(pod, &going)]).is_empty());
}
