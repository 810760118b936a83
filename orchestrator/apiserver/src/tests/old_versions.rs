//! Manifests of 2015 to 2018, as they are, and clients that know no newer version.

use super::*;

/// A Deployment as the documentation of Kubernetes 1.5 had it.
fn manifest(version: &str) -> Value {
    json!({"apiVersion": version, "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "nginx", "image": "nginx:1.7.9"}]}}}})
}

#[tokio::test]
async fn a_deployment_of_2016_runs_as_it_is_and_is_one_object_in_every_version() {
    let cluster = Cluster::start().await;
    let old = "/apis/extensions/v1beta1/namespaces/default/deployments";
    let answer = cluster.post(old, manifest("extensions/v1beta1")).await;
    let warning = answer.headers["warning"].to_str().expect("text").to_owned();
    assert_eq!(
        warning,
        "299 - \"extensions/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use \
         apps/v1 Deployment\""
    );
    let made = answer.expect(201);
    assert_eq!(made["apiVersion"], "extensions/v1beta1");
    assert_eq!(
        made["spec"]["selector"],
        json!({"matchLabels": {"app": "web"}})
    );
    assert_eq!(made["spec"]["strategy"]["rollingUpdate"]["maxSurge"], 1);
    for version in [
        "apps/v1",
        "apps/v1beta1",
        "apps/v1beta2",
        "extensions/v1beta1",
    ] {
        let path = format!("/apis/{version}/namespaces/default/deployments/web");
        let seen = cluster.get(&path).await.expect(200);
        assert_eq!(seen["apiVersion"], version);
        assert_eq!(seen["metadata"]["uid"], made["metadata"]["uid"]);
        assert_eq!(seen["spec"], made["spec"]);
    }
    let own = cluster.delete(&format!("{old}/web")).await.expect(200);
    assert_eq!(own["status"], "Success");
    let gone = "/apis/apps/v1/namespaces/default/deployments/web";
    cluster.get(gone).await.expect(404);
}

#[tokio::test]
async fn a_scale_and_a_strategic_patch_work_through_an_old_version() {
    let cluster = Cluster::start().await;
    let old = "/apis/apps/v1beta2/namespaces/default/deployments";
    cluster
        .post(old, manifest("apps/v1beta2"))
        .await
        .expect(201);
    let scale = cluster.get(&format!("{old}/web/scale")).await.expect(200);
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(2))
    );
    let patch = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "nginx", "env": [{"name": "A", "value": "b"}]},
    ]}}}});
    let kind = "application/strategic-merge-patch+json";
    let patched = cluster
        .call("PATCH", &format!("{old}/web"), kind, &patch)
        .await;
    let patched = patched.expect(200);
    assert_eq!(patched["apiVersion"], "apps/v1beta2");
    let container = &patched["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["image"], &container["env"][0]["value"]),
        (&json!("nginx:1.7.9"), &json!("b"))
    );
}

#[tokio::test]
async fn an_old_version_knows_its_own_fields_and_no_others() {
    let cluster = Cluster::start().await;
    let path = "/apis/extensions/v1beta1/namespaces/default/ingresses?fieldValidation=Strict";
    let ingress = |backend: Value| {
        json!({"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "web"},
            "spec": {"backend": backend}})
    };
    let new = ingress(json!({"service": {"name": "web", "port": {"number": 80}}}));
    let refused = cluster.post(path, new).await;
    assert_eq!(refused.code.as_u16(), 400, "{}", refused.body);
    let said = refused.message();
    assert!(
        said.ends_with("strict decoding error: unknown field \"spec.backend.service\""),
        "{said}"
    );
    let old = ingress(json!({"serviceName": "web", "servicePort": 80}));
    cluster.post(path, old).await.expect(201);
    let path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses/web";
    let stored = cluster.get(path).await.expect(200);
    assert_eq!(
        stored["spec"]["defaultBackend"],
        json!({"service": {"name": "web", "port": {"number": 80}}})
    );
}

#[tokio::test]
async fn events_are_listed_by_the_fields_of_their_group() {
    let cluster = Cluster::start().await;
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "web.1"}, "action": "Binding", "reason": "Scheduled",
        "type": "Normal", "eventTime": "2026-01-01T00:00:00.000000Z", "note": "assigned",
        "regarding": {"kind": "Pod", "name": "web", "namespace": "default"},
        "reportingController": "scheduler", "reportingInstance": "scheduler-1"});
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    cluster.post(path, event.clone()).await.expect(201);
    let count = |list: Value| list["items"].as_array().map(Vec::len);
    let mine = cluster
        .get(&format!("{path}?fieldSelector=regarding.name=web"))
        .await;
    assert_eq!(count(mine.expect(200)), Some(1));
    let none = cluster
        .get(&format!("{path}?fieldSelector=regarding.name=db"))
        .await;
    assert_eq!(count(none.expect(200)), Some(0));
    let other = format!("{path}?fieldSelector=involvedObject.name=web");
    cluster.get(&other).await.expect(400);
    let core = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=web";
    let list = cluster.get(core).await.expect(200);
    assert_eq!(list["items"][0]["message"], "assigned");
    let mut late = event;
    late["metadata"]["name"] = "web.2".into();
    late["deprecatedCount"] = 3.into();
    let refused = cluster.post(path, late).await;
    assert!(
        refused
            .message()
            .contains("count: Invalid value: \"\": needs to be unset"),
        "{}",
        refused.body
    );
    refused.expect(422);
}

#[tokio::test]
async fn old_versions_are_discovered_after_the_others_and_never_preferred() {
    let cluster = Cluster::start().await;
    let groups = cluster.get("/apis").await.expect(200);
    let groups: Vec<&Value> = groups["groups"].as_array().into_iter().flatten().collect();
    let group = |name: &str| *groups.iter().find(|g| g["name"] == name).expect("served");
    let versions = |name: &str| -> Vec<String> {
        let versions = group(name)["versions"].as_array().into_iter().flatten();
        versions
            .map(|v| v["version"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(versions("apps"), ["v1", "v1beta2", "v1beta1"]);
    assert_eq!(versions("autoscaling"), ["v2", "v1", "v2beta2"]);
    assert_eq!(group("apps")["preferredVersion"]["version"], "v1");
    let at = |name: &str| groups.iter().position(|g| g["name"] == name);
    assert!(at("extensions") > at("apps"));
    assert!(at("extensions") > at("networking.k8s.io"));
    let resources = cluster.get("/apis/extensions/v1beta1").await.expect(200);
    let names: Vec<&str> = resources["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r["name"].as_str())
        .collect();
    for name in [
        "deployments",
        "deployments/scale",
        "daemonsets",
        "replicasets",
        "ingresses",
    ] {
        assert!(names.contains(&name), "{name}");
    }
}

#[tokio::test]
async fn a_watch_in_an_old_version_shows_that_version() {
    let cluster = Cluster::start().await;
    let old = "/apis/policy/v1beta1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "db"}, "spec": {"minAvailable": 1, "selector": {}}});
    let new = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    cluster.post(new, budget).await.expect(201);
    let seen = cluster
        .get(&format!("{old}?watch=true&timeoutSeconds=1"))
        .await;
    let event: Value = match seen.body {
        Value::String(lines) => {
            let first = lines.lines().next().expect("an event");
            serde_json::from_str(first).expect("JSON")
        }
        one => one,
    };
    assert_eq!(event["object"]["apiVersion"], "policy/v1beta1");
    assert_eq!(
        event["object"]["spec"]["selector"]["matchExpressions"][0]["operator"],
        "DoesNotExist"
    );
}
