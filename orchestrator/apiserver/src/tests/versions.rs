//! A kind in a version that is not the stored one: autoscaling/v1 in front of autoscaling/v2.

use super::watches::Watcher;
use super::*;

const OLD: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const NEW: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";

fn old(name: &str) -> Value {
    json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}})
}

fn cpu_target(object: &Value) -> &Value {
    &object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"]
}

#[tokio::test]
async fn an_object_is_written_in_one_version_and_read_in_the_other() {
    let cluster = Cluster::start().await;
    let made = cluster.post(OLD, old("web")).await.expect(201);
    assert_eq!(made["apiVersion"], "autoscaling/v1");
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!(made["spec"]["minReplicas"], 1);
    let new = cluster.get(&format!("{NEW}/web")).await.expect(200);
    assert_eq!(new["apiVersion"], "autoscaling/v2");
    assert_eq!(cpu_target(&new), 50);
    let again = cluster.get(&format!("{OLD}/web")).await.expect(200);
    assert_eq!(again, made);
    let mut changed = again.clone();
    changed["spec"]["targetCPUUtilizationPercentage"] = 60.into();
    let put = cluster
        .put(&format!("{OLD}/web"), changed)
        .await
        .expect(200);
    assert_eq!(put["spec"]["targetCPUUtilizationPercentage"], 60);
    let new = cluster.get(&format!("{NEW}/web")).await.expect(200);
    assert_eq!(cpu_target(&new), 60);
    cluster.put(&format!("{OLD}/web"), again).await.expect(409);
    cluster.put(&format!("{OLD}/web"), new).await.expect(400);
}

#[tokio::test]
async fn an_object_is_patched_and_applied_as_the_client_sees_it() {
    let cluster = Cluster::start().await;
    let new = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    cluster.post(NEW, new).await.expect(201);
    let path = format!("{OLD}/web");
    let patch = json!({"spec": {"targetCPUUtilizationPercentage": 70}});
    let patched = cluster.merge(&path, patch).await.expect(200);
    assert_eq!(patched["apiVersion"], "autoscaling/v1");
    assert_eq!(patched["spec"]["targetCPUUtilizationPercentage"], 70);
    let strategic = "application/strategic-merge-patch+json";
    let patch = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"maxReplicas": 4}});
    let patched = cluster
        .call("PATCH", &path, strategic, &patch)
        .await
        .expect(200);
    assert_eq!(patched["spec"]["maxReplicas"], 4);
    let list = json!([{"op": "test", "path": "/spec/targetCPUUtilizationPercentage", "value": 70}]);
    cluster
        .call("PATCH", &path, "application/json-patch+json", &list)
        .await
        .expect(200);
    let apply = format!("{path}?fieldManager=me&force=true");
    let applied = cluster
        .call("PATCH", &apply, "application/apply-patch+yaml", &old("web"))
        .await
        .expect(200);
    assert_eq!(applied["spec"]["targetCPUUtilizationPercentage"], 50);
    let entries = applied["metadata"]["managedFields"]
        .as_array()
        .expect("managers");
    let own = entries
        .iter()
        .find(|entry| entry["manager"] == "me")
        .expect("an entry");
    assert_eq!(own["apiVersion"], "autoscaling/v1");
    let new = cluster.get(&format!("{NEW}/web")).await.expect(200);
    assert_eq!(
        (cpu_target(&new), &new["spec"]["maxReplicas"]),
        (&json!(50), &json!(3))
    );
    // A configuration makes an object, too.
    let apply = format!("{OLD}/other?fieldManager=me");
    let made = cluster
        .call(
            "PATCH",
            &apply,
            "application/apply-patch+yaml",
            &old("other"),
        )
        .await
        .expect(201);
    assert_eq!(made["apiVersion"], "autoscaling/v1");
}

#[tokio::test]
async fn lists_watches_tables_and_deletions_are_in_the_version_that_was_asked_for() {
    let cluster = Cluster::start().await;
    cluster.post(OLD, old("web")).await.expect(201);
    let list = cluster.get(OLD).await.expect(200);
    assert_eq!(list["apiVersion"], "autoscaling/v1");
    assert_eq!(list["items"][0]["apiVersion"], "autoscaling/v1");
    let page = cluster.get(&format!("{OLD}?limit=1")).await.expect(200);
    assert_eq!(page["items"], list["items"]);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let rows = |table: &Value| table["rows"][0]["cells"].clone();
    let mut of_old = rows(&cluster.get_as(OLD, table).await.expect(200));
    let mut of_new = rows(&cluster.get_as(NEW, table).await.expect(200));
    // The age may have moved on.
    of_old[6].take();
    of_new[6].take();
    assert_eq!(of_old, of_new);
    let mut watch = Watcher::open(&cluster, &format!("{OLD}?watch=1"), "*/*").await;
    let added = watch.next().await.expect("an event");
    assert_eq!(added["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(
        added["object"]["spec"]["targetCPUUtilizationPercentage"],
        50
    );
    let unknown = cluster
        .get(&format!("{OLD}?fieldSelector=spec.x%3D1"))
        .await;
    assert_eq!(unknown.code, 400);
    let one = cluster
        .get(&format!("{OLD}?fieldSelector=metadata.name%3Dweb"))
        .await;
    assert_eq!(one.expect(200)["items"].as_array().map(Vec::len), Some(1));
    let deleted = cluster.delete(OLD).await.expect(200);
    assert_eq!(deleted["items"][0]["apiVersion"], "autoscaling/v1");
    let gone = watch.next().await.expect("an event");
    assert_eq!(
        (&gone["type"], &gone["object"]["apiVersion"]),
        (&json!("DELETED"), &json!("autoscaling/v1"))
    );
}

#[tokio::test]
async fn unknown_fields_are_those_of_the_version_of_the_request() {
    let cluster = Cluster::start().await;
    let mut object = old("web");
    object["spec"]["metrics"] = json!([]);
    let strict = format!("{OLD}?fieldValidation=Strict");
    let refused = cluster.post(&strict, object).await;
    assert!(
        refused.message().contains("unknown field \"spec.metrics\""),
        "{refused:?}"
    );
    refused.expect(400);
}

#[tokio::test]
async fn both_versions_are_discovered_and_the_stored_one_is_preferred() {
    let cluster = Cluster::start().await;
    let group = cluster.get("/apis/autoscaling").await.expect(200);
    let versions: Vec<_> = group["versions"].as_array().into_iter().flatten().collect();
    assert_eq!(versions[0]["version"], "v2");
    assert_eq!(versions[1]["version"], "v1");
    assert_eq!(group["preferredVersion"]["version"], "v2");
    let resources = cluster.get("/apis/autoscaling/v1").await.expect(200);
    assert_eq!(
        resources["resources"][0]["name"],
        "horizontalpodautoscalers"
    );
    let schemas = cluster
        .get("/openapi/v3/apis/autoscaling/v1")
        .await
        .expect(200);
    let schemas = &schemas["components"]["schemas"];
    let of_old = &schemas["io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler"];
    assert_eq!(
        of_old["x-kubernetes-group-version-kind"][0]["version"],
        "v1"
    );
}

#[tokio::test]
async fn a_watch_of_a_built_in_kind_goes_on_when_custom_kinds_come_and_go() {
    let cluster = Cluster::start().await;
    let mut watch = Watcher::open(&cluster, &format!("{CONFIG_MAPS}?watch=1"), "*/*").await;
    let custom = api::Served {
        conversion: api::Conversion::Renamed,
        ..api::Served::stored(api::find("", "v1", "secrets").expect("served"))
    };
    let registry = &cluster.server.state.registry;
    registry.serve_custom(&[std::sync::Arc::new(custom)]);
    registry.serve_custom(&[]);
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    assert_eq!(watch.next().await.expect("an event")["type"], "ADDED");
}
