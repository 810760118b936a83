//! What Kubernetes' conformance tests after 1.20 ask of workloads: each test has the name of one of theirs
//! (`conformance-since-1.20.txt`), and does what it does against a hollow cluster.

#[path = "conformance_since/auth.rs"]
mod auth;
#[path = "conformance_since/batch.rs"]
mod batch;
#[path = "conformance_since/node.rs"]
mod node;
#[path = "conformance_since/storage.rs"]
mod storage;

use serde_json::{Value, json};
use tests::hollow::{Hollow, items, path};

const APPS: &str = "apps";

/// A workload of some pods with the label `app`.
fn workload(name: &str, extra: Value) -> Value {
    let labels = json!({"app": name});
    let mut object = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "image:1"}]},
            },
        },
    });
    for (field, value) in extra.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

async fn start(plural: &str, extra: Value) -> (Hollow, String) {
    let cluster = Hollow::start().await;
    cluster
        .make(&path(APPS, plural), workload("test", extra))
        .await;
    (cluster, path(APPS, &format!("{plural}/test")))
}

/// A workload of one pod is given other sizes through its scale, by update and by patch.
async fn scales(cluster: &Hollow, at: &str) {
    cluster
        .wait(at, |it| it["status"]["readyReplicas"] == 1)
        .await;
    let scale = format!("{at}/scale");
    let mut read = cluster.get(&scale).await;
    assert_eq!(
        (&read["spec"]["replicas"], &read["status"]["replicas"]),
        (&json!(1), &json!(1))
    );
    read["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    read["spec"]["replicas"] = 2.into();
    let written = cluster.must("PUT", &scale, read).await;
    assert_eq!(written["spec"]["replicas"], 2);
    assert_eq!(cluster.get(at).await["spec"]["replicas"], 2);
    cluster
        .wait(at, |it| it["status"]["readyReplicas"] == 2)
        .await;
    let body = json!({"spec": {"replicas": 4}});
    cluster.must("PATCH", &scale, body).await;
    let after = cluster
        .wait(at, |it| it["status"]["readyReplicas"] == 4)
        .await;
    assert_eq!(after["spec"]["replicas"], 4);
}

/// What is written to the status by update and by patch is read again, and the controller leaves it.
async fn keeps_status(cluster: &Hollow, at: &str, settled: impl Fn(&Value) -> bool) {
    cluster.wait(at, &settled).await;
    let status = format!("{at}/status");
    assert!(cluster.get(&status).await["status"].is_object());
    let has = |it: &Value, reason: &str| {
        let mut conditions = it["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|it| it["type"] == "StatusUpdate" && it["reason"] == reason)
    };
    let condition = |reason: &str| {
        json!({"type": "StatusUpdate", "status": "True", "reason": reason,
            "message": "Set from e2e test"})
    };
    loop {
        let mut object = cluster.get(&status).await;
        object["status"]["conditions"] = json!([condition("E2E")]);
        // Somebody else may have written meanwhile.
        if cluster.call("PUT", &status, &object).await.is_ok() {
            break;
        }
    }
    cluster.wait(at, |it| has(it, "E2E")).await;
    let body = json!({"status": {"conditions": [condition("Patched")]}});
    cluster.must("PATCH", &status, body).await;
    cluster.wait(at, |it| has(it, "Patched")).await;
    let touched = json!({"metadata": {"labels": {"touched": "yes"}}});
    cluster.must("PATCH", at, touched).await;
    cluster
        .wait(at, |it| has(it, "Patched") && settled(it))
        .await;
}

/// A collection is found and deleted by its label, and its pods go too.
async fn goes_by_label(cluster: &Hollow, plural: &str) {
    let by_label = format!("{}?labelSelector=app%3Dtest", path(APPS, plural));
    assert_eq!(items(&cluster.get(&by_label).await).len(), 1);
    cluster.must("DELETE", &by_label, json!({})).await;
    let none = |list: &Value| list.is_object() && items(list).is_empty();
    cluster.wait(&by_label, none).await;
    cluster.wait(&path("", "pods"), none).await;
}

fn one() -> Value {
    json!({"replicas": 1})
}

fn is_ready(it: &Value) -> bool {
    it["status"]["readyReplicas"] == it["spec"]["replicas"]
}

fn runs_on_the_node(it: &Value) -> bool {
    it["status"]["numberReady"] == 1 && it["status"]["desiredNumberScheduled"] == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_deployment_should_have_a_working_scale_subresource() {
    let (cluster, at) = start("deployments", one()).await;
    scales(&cluster, &at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_set_replicaset_should_have_a_working_scale_subresource() {
    let (cluster, at) = start("replicasets", one()).await;
    scales(&cluster, &at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_set_should_have_a_working_scale_subresource() {
    let (cluster, at) = start("statefulsets", one()).await;
    scales(&cluster, &at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_controller_should_get_and_update_a_replication_controller_scale() {
    let cluster = Hollow::start().await;
    let mut object = workload("test", one());
    object["spec"]["selector"] = json!({"app": "test"});
    cluster
        .make(&path("", "replicationcontrollers"), object)
        .await;
    scales(&cluster, &path("", "replicationcontrollers/test")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_should_validate_deployment_status_endpoints() {
    let (cluster, at) = start("deployments", one()).await;
    keeps_status(&cluster, &at, is_ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_set_should_validate_replicaset_status_endpoints() {
    let (cluster, at) = start("replicasets", one()).await;
    keeps_status(&cluster, &at, is_ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_set_should_validate_statefulset_status_endpoints() {
    let (cluster, at) = start("statefulsets", one()).await;
    keeps_status(&cluster, &at, is_ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_set_should_verify_changes_to_a_daemon_set_status() {
    let (cluster, at) = start("daemonsets", json!({})).await;
    keeps_status(&cluster, &at, runs_on_the_node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_set_should_list_and_delete_a_collection_of_replica_sets() {
    let (cluster, at) = start("replicasets", json!({"replicas": 3})).await;
    cluster.wait(&at, is_ready).await;
    goes_by_label(&cluster, "replicasets").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_set_should_list_and_delete_a_collection_of_daemon_sets() {
    let (cluster, at) = start("daemonsets", json!({})).await;
    cluster.wait(&at, runs_on_the_node).await;
    goes_by_label(&cluster, "daemonsets").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_set_should_list_patch_and_delete_a_collection_of_stateful_sets() {
    let (cluster, at) = start("statefulsets", one()).await;
    cluster.wait(&at, is_ready).await;
    let spec = json!({"replicas": 2, "template": {"spec": {"containers": [
        {"name": "main", "image": "image:2"}]}}});
    let body = json!({"metadata": {"labels": {"test-ss": "patched"}}, "spec": spec});
    cluster.must("PATCH", &at, body).await;
    let patched = cluster
        .wait(&at, |it| {
            let status = &it["status"];
            status["readyReplicas"] == 2 && status["currentRevision"] == status["updateRevision"]
        })
        .await;
    assert_eq!(patched["metadata"]["labels"]["test-ss"], "patched");
    let image = &patched["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "image:2");
    goes_by_label(&cluster, "statefulsets").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_set_replace_and_patch_tests() {
    let (cluster, at) = start("replicasets", one()).await;
    let mut read = cluster.wait(&at, is_ready).await;
    read["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    read["spec"]["replicas"] = 2.into();
    cluster.must("PUT", &at, read).await;
    cluster
        .wait(&at, |it| it["status"]["readyReplicas"] == 2)
        .await;
    let body = json!({"metadata": {"labels": {"test-rs": "patched"}}, "spec": {"replicas": 3}});
    cluster.must("PATCH", &at, body).await;
    let patched = cluster
        .wait(&at, |it| it["status"]["readyReplicas"] == 3)
        .await;
    assert_eq!(patched["metadata"]["labels"]["test-rs"], "patched");
}

#[tokio::test(flavor = "multi_thread")]
async fn controller_revision_should_manage_the_lifecycle_of_a_controller_revision() {
    let (cluster, at) = start("daemonsets", json!({})).await;
    cluster.wait(&at, runs_on_the_node).await;
    let all = path(APPS, "controllerrevisions");
    let by_label = format!("{all}?labelSelector=app%3Dtest");
    let first = cluster.wait(&by_label, |list| items(list).len() == 1).await;
    let first = items(&first)[0].clone();
    let name = first["metadata"]["name"].as_str().unwrap();
    let body = json!({"metadata": {"labels": {name: "patched"}}});
    let patched = cluster.must("PATCH", &format!("{all}/{name}"), body).await;
    assert_eq!(patched["metadata"]["labels"][name], "patched");
    // A second one by hand, of the same owner and labels.
    let second = json!({
        "metadata": {
            "name": "test-by-hand",
            "labels": first["metadata"]["labels"],
            "ownerReferences": first["metadata"]["ownerReferences"],
        },
        "data": first["data"],
        "revision": first["revision"].as_i64().unwrap() + 1,
    });
    cluster.make(&all, second).await;
    cluster.wait(&by_label, |list| items(list).len() == 2).await;
    cluster
        .must("DELETE", &format!("{all}/{name}"), json!({}))
        .await;
    cluster.wait(&by_label, |list| items(list).len() == 1).await;
    let body = json!({"metadata": {"labels": {"updated": "yes"}}});
    cluster
        .must("PATCH", &format!("{all}/test-by-hand"), body)
        .await;
    let template = json!({"spec": {"containers": [{"name": "main", "image": "image:2"}]}});
    cluster
        .must("PATCH", &at, json!({"spec": {"template": template}}))
        .await;
    cluster.wait(&by_label, |list| items(list).len() == 2).await;
    let updated = format!("{all}?labelSelector=updated%3Dyes");
    cluster.must("DELETE", &updated, json!({})).await;
    let left = cluster.wait(&by_label, |list| items(list).len() == 1).await;
    assert_eq!(items(&left)[0]["revision"], 3);
}
