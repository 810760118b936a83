//! The same of volumes: what clients see of their kinds.

use serde_json::{Value, json};
use tests::hollow::{Hollow, items, path};

const STORAGE: &str = "/apis/storage.k8s.io/v1";

/// The path of a collection or an object of a kind that is in no namespace.
fn storage(rest: &str) -> String {
    format!("{STORAGE}/{rest}")
}

fn named(name: &str, mut object: Value) -> Value {
    object["metadata"]["name"] = json!(name);
    object["metadata"]["labels"]["app"] = json!(name);
    object
}

fn by_label(all: &str, label: &str) -> String {
    format!("{all}?labelSelector={label}")
}

/// One object is made, read, labelled by patch, listed by that label and deleted; a second one is labelled by
/// update and deleted as a collection.
async fn lives(cluster: &Hollow, all: &str, object: &Value) {
    let none = |found: &Value| found.is_null();
    let first = format!("{all}/first");
    cluster.make(all, named("first", object.clone())).await;
    assert_eq!(cluster.get(&first).await["metadata"]["name"], "first");
    let listed = cluster.get(&by_label(all, "app%3Dfirst")).await;
    assert_eq!(items(&listed).len(), 1);
    let label = json!({"metadata": {"labels": {"first": "patched"}}});
    let patched = cluster.must("PATCH", &first, label).await;
    assert_eq!(patched["metadata"]["labels"]["first"], "patched");
    let listed = cluster.get(&by_label(all, "first%3Dpatched")).await;
    assert_eq!(items(&listed).len(), 1);
    cluster.must("DELETE", &first, json!({})).await;
    cluster.wait(&first, none).await;

    let second = format!("{all}/second");
    cluster.make(all, named("second", object.clone())).await;
    loop {
        let mut read = cluster.get(&second).await;
        read["metadata"]["labels"]["second"] = json!("updated");
        // A controller may have written meanwhile.
        if cluster.call("PUT", &second, &read).await.is_ok() {
            break;
        }
    }
    let updated = by_label(all, "second%3Dupdated");
    assert_eq!(items(&cluster.get(&updated).await).len(), 1);
    cluster.must("DELETE", &updated, json!({})).await;
    let empty = |list: &Value| list.is_object() && items(list).is_empty();
    cluster.wait(&updated, empty).await;
}

fn volume() -> Value {
    json!({
        "metadata": {},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "none",
            "csi": {"driver": "e2e.example.com", "volumeHandle": "one"}},
    })
}

fn claim() -> Value {
    json!({
        "metadata": {},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
            "resources": {"requests": {"storage": "1Gi"}}, "selector": {"matchLabels": {"a": "b"}}},
    })
}

fn attachment() -> Value {
    json!({
        "metadata": {},
        "spec": {"attacher": "e2e.example.com", "nodeName": "somewhere",
            "source": {"persistentVolumeName": "one"}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn csi_inline_volumes_should_run_through_the_lifecycle_of_a_csidriver() {
    let cluster = Hollow::start().await;
    let driver = json!({"metadata": {}, "spec": {"attachRequired": false, "podInfoOnMount": true,
        "volumeLifecycleModes": ["Ephemeral"]}});
    lives(&cluster, &storage("csidrivers"), &driver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csi_inline_volumes_should_support_csivolumesource_in_pod_api() {
    let cluster = Hollow::start().await;
    let source = json!({"driver": "e2e.example.com", "fsType": "ext4", "readOnly": true,
        "volumeAttributes": {"size": "small"}});
    // No node has it: the pod is only an object here.
    let pod = json!({"metadata": {}, "spec": {
        "nodeName": "elsewhere",
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "image:1",
            "volumeMounts": [{"name": "inline", "mountPath": "/data"}]}],
        "volumes": [{"name": "inline", "csi": source}],
    }});
    let all = path("", "pods");
    cluster.make(&all, named("first", pod.clone())).await;
    let read = cluster.get(&format!("{all}/first")).await;
    let volumes = read["spec"]["volumes"].as_array().expect("volumes");
    let inline = volumes.iter().find(|volume| volume["name"] == "inline");
    assert_eq!(inline.expect("the volume")["csi"], source);
    let at_once = json!({"gracePeriodSeconds": 0});
    cluster
        .must("DELETE", &format!("{all}/first"), at_once)
        .await;
    lives(&cluster, &all, &pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csi_nodes_csi_conformance_should_run_through_the_lifecycle_of_a_csinode() {
    let cluster = Hollow::start().await;
    let node = json!({"metadata": {}, "spec": {"drivers": []}});
    lives(&cluster, &storage("csinodes"), &node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csi_storage_capacity_should_support_csistoragecapacities_api_operations() {
    let cluster = Hollow::start().await;
    let discovered = cluster.get(STORAGE).await;
    let resources = discovered["resources"].as_array().expect("resources");
    let found = resources
        .iter()
        .find(|it| it["name"] == "csistoragecapacities");
    let verbs = found.expect("the resource")["verbs"].as_array().cloned();
    let verbs = verbs.expect("verbs");
    for verb in [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ] {
        assert!(verbs.contains(&json!(verb)), "{verb}");
    }
    let all = path("storage.k8s.io", "csistoragecapacities");
    let capacity = json!({"metadata": {}, "storageClassName": "fast", "capacity": "1Gi"});
    lives(&cluster, &all, &capacity).await;
    let everywhere = storage("csistoragecapacities");
    cluster.make(&all, named("third", capacity)).await;
    assert_eq!(items(&cluster.get(&everywhere).await).len(), 1);
}

/// Neither its data nor the mark can be changed; its labels can.
async fn stays_immutable(plural: &str, data: fn(&str) -> Value) {
    let cluster = Hollow::start().await;
    let all = path("", plural);
    let at = format!("{all}/first");
    let object = json!({"metadata": {}, "data": {"key": data("one")}});
    cluster.make(&all, named("first", object)).await;
    let body = json!({"data": {"key": data("two")}});
    cluster.must("PATCH", &at, body).await;
    cluster.must("PATCH", &at, json!({"immutable": true})).await;
    for refused in [
        json!({"data": {"key": data("three")}}),
        json!({"data": {"other": data("three")}}),
        json!({"immutable": false}),
        json!({"immutable": null}),
    ] {
        let answer = cluster.call("PATCH", &at, &refused).await;
        let error = answer.expect_err("immutable").to_string();
        assert!(error.contains("immutable"), "{refused}: {error}");
    }
    let mut read = cluster.get(&at).await;
    assert_eq!(read["data"]["key"], data("two"));
    read["metadata"]["labels"]["more"] = json!("yes");
    cluster.must("PUT", &at, read).await;
    cluster.must("DELETE", &at, json!({})).await;
    cluster.wait(&at, Value::is_null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn config_map_should_be_immutable_if_immutable_field_is_set() {
    stays_immutable("configmaps", |text| json!(text)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_should_be_immutable_if_immutable_field_is_set() {
    // Base64 of itself in four letters.
    stays_immutable("secrets", |text| json!(format!("{text:A<8}"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn persistent_volumes_csi_conformance_should_apply_changes_to_a_pv_pvc_status() {
    let cluster = Hollow::start().await;
    let (volumes, claims) = (
        "/api/v1/persistentvolumes",
        path("", "persistentvolumeclaims"),
    );
    cluster.make(volumes, named("first", volume())).await;
    cluster.make(&claims, named("first", claim())).await;
    let (volume, claim) = (format!("{volumes}/first"), format!("{claims}/first"));
    cluster
        .wait(&volume, |it| it["status"]["phase"] == "Available")
        .await;
    cluster
        .wait(&claim, |it| it["status"]["phase"] == "Pending")
        .await;

    let said = json!({"status": {"message": "patched", "reason": "E2ePatched"}});
    cluster
        .must("PATCH", &format!("{volume}/status"), said)
        .await;
    let condition = |text: &str| {
        json!([{"type": "StatusPatched", "status": "True", "reason": text,
            "message": text}])
    };
    let said = json!({"status": {"conditions": condition("E2ePatched")}});
    cluster
        .must("PATCH", &format!("{claim}/status"), said)
        .await;
    cluster
        .wait(&volume, |it| it["status"]["reason"] == "E2ePatched")
        .await;
    let reason = |it: &Value| it["status"]["conditions"][0]["reason"].clone();
    cluster.wait(&claim, |it| reason(it) == "E2ePatched").await;

    let mut read = cluster.get(&format!("{volume}/status")).await;
    read["status"]["reason"] = json!("E2eUpdated");
    cluster.must("PUT", &format!("{volume}/status"), read).await;
    let mut read = cluster.get(&format!("{claim}/status")).await;
    read["status"]["conditions"] = condition("E2eUpdated");
    cluster.must("PUT", &format!("{claim}/status"), read).await;
    let read = cluster.get(&volume).await;
    assert_eq!(read["status"]["reason"], "E2eUpdated");
    assert_eq!(read["status"]["phase"], "Available");
    assert_eq!(reason(&cluster.get(&claim).await), "E2eUpdated");
}

#[tokio::test(flavor = "multi_thread")]
async fn persistent_volumes_csi_conformance_should_run_through_the_lifecycle_of_a_pv_and_a_pvc() {
    let cluster = Hollow::start().await;
    lives(&cluster, "/api/v1/persistentvolumes", &volume()).await;
    lives(&cluster, &path("", "persistentvolumeclaims"), &claim()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_classes_csi_conformance_should_run_through_the_lifecycle_of_a_storageclass() {
    let cluster = Hollow::start().await;
    let class = json!({"metadata": {}, "provisioner": "e2e.example.com"});
    lives(&cluster, &storage("storageclasses"), &class).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volume_attachment_conformance_should_apply_changes_to_a_volumeattachment_status() {
    let cluster = Hollow::start().await;
    let all = storage("volumeattachments");
    cluster.make(&all, named("first", attachment())).await;
    let status = format!("{all}/first/status");
    assert_eq!(cluster.get(&status).await["status"]["attached"], false);
    let body = json!({"status": {"attached": true}});
    cluster.must("PATCH", &status, body).await;
    let mut read = cluster.get(&status).await;
    assert_eq!(read["status"]["attached"], true);
    read["status"]["attached"] = json!(false);
    cluster.must("PUT", &status, read).await;
    assert_eq!(cluster.get(&status).await["status"]["attached"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn volume_attachment_conformance_should_run_through_the_lifecycle_of_a_volumeattachment() {
    let cluster = Hollow::start().await;
    lives(&cluster, &storage("volumeattachments"), &attachment()).await;
}

/// The API is that of Kubernetes 1.33, which has this kind as v1beta1 only; the test asks for v1, of 1.34.
#[tokio::test(flavor = "multi_thread")]
async fn volume_attributes_class_should_run_through_the_lifecycle_of_a_volumeattributesclass() {
    let cluster = Hollow::start().await;
    let class = json!({"metadata": {}, "driverName": "e2e.example.com",
        "parameters": {"iops": "100"}});
    let all = "/apis/storage.k8s.io/v1beta1/volumeattributesclasses";
    lives(&cluster, all, &class).await;
}
