//! What is attached and detached, and what is told of it.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{now, words, world};
use api::kinds::storage::attach::{attachment_name, volume_key};

const DRIVER: &str = "d.example.com";

type Row = (Kind, Value);

fn pod(name: &str, node: &str, claim: &str) -> Row {
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
    let pod = json!({"metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c"}], "volumes": volumes}});
    (Kind::POD, pod)
}

/// A claim and its volume of the same name.
fn bound(name: &str, modes: Value) -> [Row; 2] {
    let claim = json!({"metadata": {"name": name},
        "spec": {"accessModes": modes, "volumeName": name}});
    let reference = json!({"namespace": "ns", "name": name, "uid": format!("uid-{name}")});
    let volume = json!({"metadata": {"name": name}, "spec": {"accessModes": modes,
        "capacity": {"storage": "1Gi"}, "claimRef": reference,
        "csi": {"driver": DRIVER, "volumeHandle": format!("h-{name}")}}});
    [
        (Kind::PERSISTENT_VOLUME_CLAIM, claim),
        (Kind::PERSISTENT_VOLUME, volume),
    ]
}

fn name(volume: &str, node: &str) -> String {
    attachment_name(DRIVER, &format!("h-{volume}"), node)
}

fn key(volume: &str) -> String {
    volume_key(DRIVER, &format!("h-{volume}"))
}

fn attachment(volume: &str, node: &str, status: Value) -> Row {
    let attachment = json!({"metadata": {"name": name(volume, node)},
        "spec": {"attacher": DRIVER, "nodeName": node,
            "source": {"persistentVolumeName": volume}},
        "status": status});
    (Kind::VOLUME_ATTACHMENT, attachment)
}

fn there(volume: &str, node: &str) -> Row {
    attachment(volume, node, json!({"attached": true}))
}

fn machine(name: &str, ready: &str, used: &[&str], attached: &[&str]) -> Row {
    let attached = attached.iter();
    let attached: Vec<Value> = attached
        .map(|volume| json!({"name": key(volume), "devicePath": ""}))
        .collect();
    let used: Vec<String> = used.iter().map(|volume| key(volume)).collect();
    let node = json!({"metadata": {"name": name}, "status": {
        "conditions": [{"type": "Ready", "status": ready}],
        "volumesInUse": used, "volumesAttached": attached}});
    (Kind::NODE, node)
}

fn planned(controller: &mut AttachController, at: Timestamp, objects: Vec<Row>) -> Vec<String> {
    let world = world(objects);
    let plan = controller.plan(&world, &node("n1"), at).unwrap();
    words(&plan.actions)
}

fn once(objects: Vec<Row>) -> Vec<String> {
    planned(&mut AttachController::default(), now(), objects)
}

fn with(rows: [Row; 2], others: Vec<Row>) -> Vec<Row> {
    rows.into_iter().chain(others).collect()
}

fn one() -> [Row; 2] {
    bound("v", json!(["ReadWriteOnce"]))
}

#[test]
fn a_volume_that_a_pod_needs_is_attached_to_its_node_and_the_node_and_the_pod_are_told() {
    let pod = || pod("p", "n1", "v");
    let idle = machine("n1", "True", &[], &[]);
    let made = format!("create volumeattachments {}", name("v", "n1"));
    assert_eq!(once(with(one(), vec![pod(), idle.clone()])), [made]);
    let waits = attachment("v", "n1", json!({"attached": false}));
    let done = once(with(one(), vec![pod(), idle.clone(), waits]));
    assert_eq!(done, [""; 0]);
    let done = once(with(one(), vec![pod(), idle, there("v", "n1")]));
    assert_eq!(done.len(), 2, "{done:?}");
    assert!(done[0].contains(&key("v")), "{done:?}");
    assert!(done[0].contains("\"resourceVersion\":\"1\""), "{done:?}");
    let said = "tell SuccessfulAttachVolume AttachVolume.Attach succeeded for volume \"v\" ";
    assert_eq!(done[1], said);
    let told = machine("n1", "True", &["v"], &["v"]);
    let done = once(with(one(), vec![pod(), told, there("v", "n1")]));
    assert_eq!(done, [""; 0]);
}

#[test]
fn of_two_nodes_that_need_a_volume_at_once_one_asks_for_it_until_that_is_heard_of_or_given_up() {
    let mut controller = AttachController::default();
    let machines = ["n1", "n2"].map(|it| machine(it, "True", &[], &[]));
    let pods = [pod("p", "n1", "v"), pod("q", "n2", "v")];
    let rows: Vec<Row> = pods.into_iter().chain(machines).collect();
    let world = world(with(one(), rows));
    let mut planned = |name, at| {
        let plan = controller.plan(&world, &node(name), at).unwrap();
        words(&plan.actions)
    };
    let make = |node| [format!("create volumeattachments {}", name("v", node))];
    assert_eq!(planned("n1", now()), make("n1"));
    let other = planned("n2", now());
    assert!(
        other.len() == 1 && other[0].contains("Multi-Attach"),
        "{other:?}"
    );
    // It asks again after a failure.
    assert_eq!(planned("n1", now()), make("n1"));
    assert_eq!(planned("n2", now() + ASKED_TIMEOUT), make("n2"));
}

#[test]
fn what_has_ended_or_needs_no_attaching_is_not_attached() {
    let idle = || machine("n1", "True", &[], &[]);
    let mut ended = pod("p", "n1", "v");
    ended.1["status"] = json!({"phase": "Succeeded"});
    assert_eq!(once(with(one(), vec![ended, idle()])), [""; 0]);
    let plain = (
        Kind::CSI_DRIVER,
        json!({"metadata": {"name": DRIVER}, "spec": {"attachRequired": false}}),
    );
    let pod = || pod("p", "n1", "v");
    assert_eq!(once(with(one(), vec![pod(), idle(), plain])), [""; 0]);
    let mut local = one();
    local[1].1["spec"]["csi"]["driver"] = json!(api::kinds::storage::local::DRIVER);
    assert_eq!(once(with(local, vec![pod(), idle()])), [""; 0]);
    // Its node is gone.
    assert_eq!(once(with(one(), vec![pod()])), [""; 0]);
}

#[test]
fn a_volume_leaves_the_nodes_status_before_it_is_detached_and_not_while_it_is_used() {
    let used = machine("n1", "True", &["v"], &["v"]);
    assert_eq!(once(with(one(), vec![used, there("v", "n1")])), [""; 0]);
    let free = machine("n1", "True", &[], &["v"]);
    let done = once(with(one(), vec![free, there("v", "n1")]));
    assert_eq!(done.len(), 2, "{done:?}");
    assert!(done[0].contains("\"volumesAttached\":[]"), "{done:?}");
    let deleted = format!("delete volumeattachments {}", name("v", "n1"));
    assert_eq!(done[1], deleted);
    // Its volume is gone meanwhile.
    let free = machine("n1", "True", &[], &["v"]);
    assert_eq!(once(vec![free, there("v", "n1")])[1], deleted);
    // Its node is gone.
    assert_eq!(once(vec![there("v", "n1")]), [deleted]);
}

#[test]
fn a_volume_in_use_is_detached_by_force_after_six_minutes_from_a_silent_node_only() {
    let rows = |ready: &str| {
        let node = machine("n1", ready, &["v"], &["v"]);
        with(one(), vec![node, there("v", "n1")])
    };
    let later = now() + SignedDuration::from_mins(6);
    for (ready, count) in [("True", 0), ("Unknown", 2), ("False", 2)] {
        let mut controller = AttachController::default();
        assert_eq!(planned(&mut controller, now(), rows(ready)), [""; 0]);
        let done = planned(&mut controller, later, rows(ready));
        assert_eq!(done.len(), count, "{ready}: {done:?}");
    }
    let mut off = machine("n1", "Unknown", &["v"], &["v"]);
    off.1["spec"]["taints"] = json!([{"key": "node.kubernetes.io/out-of-service",
        "effect": "NoExecute"}]);
    assert_eq!(once(with(one(), vec![off, there("v", "n1")])).len(), 2);
}

#[test]
fn a_volume_for_one_node_is_not_attached_to_a_second_one_until_it_has_left_the_first() {
    let rows = |modes: Value, status: Value| {
        let mut other = attachment("v", "n2", status);
        // The attacher is still at it.
        other.1["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let idle = machine("n1", "True", &[], &[]);
        with(bound("v", modes), vec![pod("p", "n1", "v"), idle, other])
    };
    let attached = || json!({"attached": true});
    let refused = "tell FailedAttachVolume Multi-Attach error for volume \"v\" Volume is already \
                   exclusively attached to one node and can't be attached to another";
    assert_eq!(once(rows(json!(["ReadWriteOnce"]), attached())), [refused]);
    let not_yet = json!({"attached": false});
    assert_eq!(once(rows(json!(["ReadWriteOncePod"]), not_yet)), [refused]);
    let shared = once(rows(json!(["ReadWriteMany"]), attached()));
    assert!(shared[0].starts_with("create"), "{shared:?}");
}

#[test]
fn why_an_attachment_fails_is_told_to_the_pod() {
    let failed = json!({"attached": false, "attachError": {"message": "rpc error: disk gone"}});
    let idle = machine("n1", "True", &[], &[]);
    let rows = vec![pod("p", "n1", "v"), idle, attachment("v", "n1", failed)];
    let said = "tell FailedAttachVolume AttachVolume.Attach failed for volume \"v\" : rpc error: \
                disk gone";
    assert_eq!(once(with(one(), rows)), [said]);
}

#[test]
fn attachments_that_people_make_are_left_to_them() {
    let mut made = attachment("v", "n1", json!({"attached": true}));
    made.1["metadata"]["name"] = json!("by-hand");
    let idle = machine("n1", "True", &[], &[]);
    assert_eq!(once(vec![idle, made]), [""; 0]);
}
