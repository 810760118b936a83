//! Create, read, update, patch, delete; preconditions and parts of objects.

use axum::http::header;

use super::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "a", "image": "a:1"}]}}}})
}

#[tokio::test]
async fn a_created_object_has_an_identity_and_is_read_at_once() {
    let cluster = Cluster::start().await;
    let made = cluster.post(PODS, pod("web")).await.expect(201);
    let metadata = &made["metadata"];
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(metadata[field].is_string(), "{field}: {metadata}");
    }
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(cluster.get(&format!("{PODS}/web")).await.expect(200), made);
}

#[tokio::test]
async fn a_second_object_of_a_name_is_refused() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let refused = cluster.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(refused.message(), "configmaps \"a\" already exists");
    assert_eq!(refused.expect(409)["reason"], "AlreadyExists");
}

#[tokio::test]
async fn a_name_is_generated_from_its_prefix() {
    let cluster = Cluster::start().await;
    let body = json!({"metadata": {"generateName": "web-"}});
    let made = cluster.post(CONFIG_MAPS, body).await.expect(201);
    let name = made["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
}

#[tokio::test]
async fn an_update_from_an_old_revision_is_refused_in_kubernetes_words() {
    let cluster = Cluster::start().await;
    let mut first = cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    cluster
        .merge(&path, json!({"data": {"x": "y"}}))
        .await
        .expect(200);
    first["data"]["a"] = "c".into();
    let refused = cluster.put(&path, first.clone()).await;
    assert_eq!(
        refused.message(),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please \
         apply your changes to the latest version and try again"
    );
    refused.expect(409);
    first["metadata"]
        .as_object_mut()
        .expect("metadata")
        .remove("resourceVersion");
    let replaced = cluster.put(&path, first).await.expect(200);
    assert_eq!(replaced["data"], json!({"a": "c"}));
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_the_revision() {
    let cluster = Cluster::start().await;
    let first = cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let same = cluster
        .put(&format!("{CONFIG_MAPS}/a"), first.clone())
        .await
        .expect(200);
    assert_eq!(first, same);
}

#[tokio::test]
async fn every_kind_of_patch_changes_the_object() {
    let cluster = Cluster::start().await;
    cluster
        .post(DEPLOYMENTS, deployment("web"))
        .await
        .expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    let strategic = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "b", "image": "b:1"}]}}}});
    let kind = "application/strategic-merge-patch+json";
    let patched = cluster
        .call("PATCH", &path, kind, &strategic)
        .await
        .expect(200);
    let containers = &patched["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().map(Vec::len), Some(2));
    assert_eq!(patched["metadata"]["generation"], 2);
    let json_patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]);
    let kind = "application/json-patch+json";
    let patched = cluster
        .call("PATCH", &path, kind, &json_patch)
        .await
        .expect(200);
    assert_eq!(patched["spec"]["replicas"], 3);
    let refused = cluster.call("PATCH", &path, APPLY, &json!({})).await;
    assert!(
        refused.message().contains("fieldManager: Required value"),
        "{}",
        refused.message()
    );
    refused.expect(422);
}

#[tokio::test]
async fn a_patch_that_makes_no_object_of_the_kind_is_invalid() {
    let cluster = Cluster::start().await;
    cluster
        .post(DEPLOYMENTS, deployment("web"))
        .await
        .expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    let kind = "application/strategic-merge-patch+json";
    let patch = json!({"spec": {"replicas": "many"}});
    let refused = cluster.call("PATCH", &path, kind, &patch).await;
    assert_eq!(
        refused.message(),
        r#" "" is invalid: patch: Invalid value: "{\"spec\":{\"replicas\":\"many\"}}": json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"#
    );
    refused.expect(422);
    let patch = json!({"spec": {"replicsa": 1}});
    let strict = format!("{path}?fieldValidation=Strict");
    let refused = cluster.call("PATCH", &strict, kind, &patch).await;
    assert!(
        refused
            .message()
            .ends_with(r#"strict decoding error: unknown field "spec.replicsa""#),
        "{}",
        refused.message()
    );
    refused.expect(422);
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let patches = (0..64).map(|number| {
        let (cluster, path) = (&cluster, &path);
        async move {
            let body = json!({"data": {format!("k{number}"): "v"}});
            cluster.merge(path, body).await.expect(200);
        }
    });
    futures::future::join_all(patches).await;
    let data = cluster.get(&path).await.expect(200)["data"].clone();
    assert_eq!(
        data.as_object().map(serde_json::Map::len),
        Some(65),
        "{data}"
    );
}

#[tokio::test]
async fn the_scale_of_a_workload_is_read_and_written() {
    let cluster = Cluster::start().await;
    let rc = json!({"metadata": {"name": "rc"}, "spec": {"replicas": 1,
        "selector": {"app": "x"}, "template": {"metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    cluster.post(path, rc).await.expect(201);
    let path = format!("{path}/rc/scale");
    let mut scale = cluster.get(&path).await.expect(200);
    assert_eq!(
        (scale["kind"].as_str(), &scale["spec"]["replicas"]),
        (Some("Scale"), &json!(1))
    );
    scale["spec"]["replicas"] = 5.into();
    let written = cluster.put(&path, scale.clone()).await.expect(200);
    assert_eq!(written["spec"]["replicas"], 5);
    scale["spec"]["replicas"] = 6.into();
    cluster.put(&path, scale).await.expect(409);
    let patched = cluster
        .merge(&path, json!({"spec": {"replicas": 2}}))
        .await
        .expect(200);
    assert_eq!(patched["spec"]["replicas"], 2);
    cluster
        .merge(&path, json!({"spec": {"replicas": -2}}))
        .await
        .expect(422);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("web")).await.expect(201);
    let binding = |node: &str| {
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"},
            "target": {"kind": "Node", "name": node}})
    };
    let path = format!("{PODS}/web/binding");
    // The old collection means the pod of the binding's name.
    let old = "/api/v1/namespaces/default/bindings";
    let mut unnamed = binding("one");
    unnamed["metadata"] = json!({});
    cluster.post(old, unnamed).await.expect(400);
    let dry = format!("{old}?dryRun=All");
    cluster.post(&dry, binding("one")).await.expect(201);
    cluster.get(old).await.expect(405);
    cluster.post(old, binding("one")).await.expect(201);
    let bound = cluster.get(&format!("{PODS}/web")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "one");
    let conditions = bound["status"]["conditions"]
        .as_array()
        .expect("conditions");
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "PodScheduled" && c["status"] == "True")
    );
    for path in [&path, old] {
        let refused = cluster.post(path, binding("two")).await;
        let why = "already assigned to node \"one\"";
        assert!(refused.message().contains(why), "{path}");
        refused.expect(409);
    }
}

#[tokio::test]
async fn a_bound_pod_ends_in_two_steps() {
    let cluster = Cluster::start().await;
    let mut bound = pod("web");
    bound["spec"]["nodeName"] = "one".into();
    let made = cluster.post(PODS, bound).await.expect(201);
    let path = format!("{PODS}/web");
    let going = cluster.delete(&path).await.expect(200);
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let wrong = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}});
    cluster
        .call("DELETE", &path, "application/json", &wrong)
        .await
        .expect(409);
    let right = json!({"gracePeriodSeconds": 0,
        "preconditions": {"uid": made["metadata"]["uid"]}});
    cluster
        .call("DELETE", &path, "application/json", &right)
        .await
        .expect(200);
    cluster.get(&path).await.expect(404);
}

#[tokio::test]
async fn an_object_goes_with_its_last_finalizer() {
    let cluster = Cluster::start().await;
    let mut map = config_map("a");
    map["metadata"]["finalizers"] = json!(["example.com/x"]);
    cluster.post(CONFIG_MAPS, map).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let going = cluster.delete(&path).await.expect(200);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    cluster
        .merge(&path, json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    cluster.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_namespace_comes_with_an_account_and_goes_when_it_is_finalized() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces";
    cluster
        .post(path, json!({"metadata": {"name": "x"}}))
        .await
        .expect(201);
    cluster
        .get(&format!("{path}/x/serviceaccounts/default"))
        .await
        .expect(200);
    let mut going = cluster.delete(&format!("{path}/x")).await.expect(200);
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = cluster
        .post("/api/v1/namespaces/x/configmaps", config_map("a"))
        .await;
    assert!(refused.message().contains("because it is being terminated"));
    refused.expect(403);
    going["spec"]["finalizers"] = json!([]);
    cluster
        .put(&format!("{path}/x/finalize"), going)
        .await
        .expect(200);
    cluster.get(&format!("{path}/x")).await.expect(404);
    cluster.delete(&format!("{path}/default")).await.expect(403);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.post(PODS, pod(name)).await.expect(201);
    }
    let selected = format!("{PODS}?labelSelector=app%20in%20(a,b)");
    let gone = cluster.delete(&selected).await.expect(200);
    assert_eq!(gone["items"].as_array().map(Vec::len), Some(2));
    let left = cluster.get(PODS).await.expect(200);
    assert_eq!(left["items"][0]["metadata"]["name"], "c");
}

#[tokio::test]
async fn a_dry_run_answers_and_writes_nothing() {
    let cluster = Cluster::start().await;
    cluster
        .post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("a"))
        .await
        .expect(201);
    cluster.get(&format!("{CONFIG_MAPS}/a")).await.expect(404);
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a?dryRun=All");
    let patched = cluster
        .merge(&path, json!({"data": {"z": "1"}}))
        .await
        .expect(200);
    assert_eq!(patched["data"]["z"], "1");
    cluster.delete(&path).await.expect(200);
    let kept = cluster.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(kept["data"], json!({"a": "b"}));
    cluster
        .post(&format!("{CONFIG_MAPS}?dryRun=Some"), config_map("b"))
        .await
        .expect(422);
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_dropped() {
    let cluster = Cluster::start().await;
    let mut odd = pod("web");
    odd["spec"]["x"] = 1.into();
    let strict = cluster
        .post(&format!("{PODS}?fieldValidation=Strict"), odd.clone())
        .await;
    assert!(
        strict
            .message()
            .contains("strict decoding error: unknown field \"spec.x\"")
    );
    strict.expect(400);
    let warned = cluster.post(PODS, odd.clone()).await;
    let warning = warned.headers.get(header::WARNING).expect("a warning");
    assert_eq!(warning, r#"299 - "unknown field \"spec.x\"""#);
    assert_eq!(warned.expect(201)["spec"].get("x"), None);
    odd["metadata"]["name"] = "other".into();
    let ignored = cluster
        .post(&format!("{PODS}?fieldValidation=Ignore"), odd)
        .await;
    assert!(ignored.headers.get(header::WARNING).is_none());
    ignored.expect(201);
}

#[tokio::test]
async fn bad_input_gets_kubernetes_codes() {
    let cluster = Cluster::start().await;
    let text = Value::String("{".to_owned());
    cluster
        .call("POST", PODS, "application/json", &text)
        .await
        .expect(400);
    cluster
        .call("POST", PODS, "application/cbor", &text)
        .await
        .expect(415);
    cluster
        .get("/api/v1/namespaces/default/nothing")
        .await
        .expect(404);
    cluster
        .call("PUT", PODS, "application/json", &json!({}))
        .await
        .expect(405);
    cluster
        .post("/api/v1/namespaces/absent/pods", pod("a"))
        .await
        .expect(404);
    let mut elsewhere = pod("a");
    elsewhere["metadata"]["namespace"] = "kube-system".into();
    cluster.post(PODS, elsewhere).await.expect(400);
    let large = Value::String("x".repeat(4 * 1024 * 1024));
    cluster
        .call("POST", PODS, "application/json", &large)
        .await
        .expect(413);
    let refused = cluster.get_as(PODS, "application/cbor").await;
    refused.expect(406);
    let bad_name = cluster.post(CONFIG_MAPS, config_map("Not_A_Name")).await;
    assert_eq!(bad_name.expect(422)["reason"], "Invalid");
}

#[tokio::test]
async fn yaml_is_read_and_written() {
    let cluster = Cluster::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: 'y'\ndata:\n  a: 'no'\n";
    let body = Value::String(yaml.to_owned());
    cluster
        .call("POST", CONFIG_MAPS, "application/yaml", &body)
        .await
        .expect(201);
    let request = Request::get(format!("{CONFIG_MAPS}/y")).header("accept", "application/yaml");
    let response = cluster
        .send(request.body(Body::empty()).expect("a request"))
        .await;
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    let value: Value = serde_yaml::from_slice(&bytes).expect("YAML");
    assert_eq!(value["data"]["a"], "no");
    // What the server writes, it and every parser of YAML 1.1 read as the same.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(
        text.contains("a: \"no\"") && text.contains("name: \"y\""),
        "{text}"
    );
    let path = format!("{CONFIG_MAPS}/y");
    let text = Value::String(text);
    let replaced = cluster.call("PUT", &path, "application/yaml", &text);
    assert_eq!(replaced.await.expect(200)["data"]["a"], "no");
}

#[tokio::test]
async fn a_second_deletion_keeps_the_time_of_the_first() {
    let cluster = Cluster::start().await;
    let mut map = config_map("a");
    map["metadata"]["finalizers"] = json!(["example.com/x"]);
    map["metadata"]["name"] = "a".into();
    cluster.post(CONFIG_MAPS, map).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let first = cluster.delete(&path).await.expect(200);
    let orphan = format!("{path}?propagationPolicy=Orphan");
    let second = cluster.delete(&orphan).await.expect(200);
    let time = |object: &Value| object["metadata"]["deletionTimestamp"].clone();
    assert_eq!(time(&first), time(&second));
    assert!(
        second["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|finalizers| finalizers.contains(&json!("orphan")))
    );
}

#[tokio::test]
async fn a_pods_deletion_is_answered_with_the_pod_and_a_config_maps_with_a_status() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("web")).await.expect(201);
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let gone = cluster.delete(&format!("{PODS}/web")).await.expect(200);
    assert_eq!(gone["kind"], "Pod");
    let gone = cluster
        .delete(&format!("{CONFIG_MAPS}/a"))
        .await
        .expect(200);
    assert_eq!(
        (&gone["kind"], &gone["status"]),
        (&json!("Status"), &json!("Success"))
    );
}

#[tokio::test]
async fn a_pod_can_be_replaced_by_its_manifest() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("web")).await.expect(201);
    let mut manifest = pod("web");
    manifest["metadata"]["labels"] = json!({"app": "other"});
    let replaced = cluster
        .put(&format!("{PODS}/web"), manifest)
        .await
        .expect(200);
    assert_eq!(replaced["metadata"]["labels"]["app"], "other");
}

#[tokio::test]
async fn an_evicted_pod_is_told_why_and_goes() {
    let cluster = Cluster::start().await;
    let mut bound = pod("web");
    bound["spec"]["nodeName"] = "one".into();
    let made = cluster.post(PODS, bound).await.expect(201);
    let path = format!("{PODS}/web/eviction");
    let eviction = |name: &str, options: Value| {
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name},
            "deleteOptions": options})
    };
    cluster
        .post(&path, eviction("other", json!({})))
        .await
        .expect(400);
    let wrong = json!({"preconditions": {"uid": "another"}});
    cluster
        .post(&path, eviction("web", wrong))
        .await
        .expect(409);
    let dry = json!({"dryRun": ["All"]});
    cluster.post(&path, eviction("web", dry)).await.expect(201);
    let before = cluster.get(&format!("{PODS}/web")).await.expect(200);
    assert_eq!(before, made);
    let options = json!({"gracePeriodSeconds": 7, "preconditions": {
        "uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}});
    let answer = cluster
        .post(&path, eviction("web", options))
        .await
        .expect(201);
    assert_eq!(answer["status"], "Success");
    let going = cluster.get(&format!("{PODS}/web")).await.expect(200);
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 7);
    let conditions = going["status"]["conditions"]
        .as_array()
        .expect("conditions");
    assert!(conditions.iter().any(|condition| {
        condition["type"] == "DisruptionTarget" && condition["reason"] == "EvictionByEvictionAPI"
    }));
    cluster.post(PODS, pod("unbound")).await.expect(201);
    let path = format!("{PODS}/unbound/eviction");
    cluster
        .post(&path, eviction("unbound", Value::Null))
        .await
        .expect(201);
    cluster.get(&format!("{PODS}/unbound")).await.expect(404);
    cluster
        .post(&path, eviction("unbound", Value::Null))
        .await
        .expect(404);
}

#[tokio::test]
async fn an_applied_object_is_made_and_its_fields_are_its_appliers_until_they_are_forced() {
    let cluster = Cluster::start().await;
    let map = |value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},
            "data": {"x": value}})
    };
    let path = |manager: &str| format!("{CONFIG_MAPS}/a?fieldManager={manager}");
    let made = cluster
        .call("PATCH", &path("one"), APPLY, &map("1"))
        .await
        .expect(201);
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"], &entry["fieldsV1"]),
        (
            &json!("one"),
            &json!("Apply"),
            &json!({"f:data": {"f:x": {}}})
        )
    );
    let again = cluster
        .call("PATCH", &path("one"), APPLY, &map("1"))
        .await
        .expect(200);
    assert_eq!(again, made, "nothing is written");
    let refused = cluster.call("PATCH", &path("two"), APPLY, &map("2")).await;
    assert!(
        refused.message().contains("conflict with \"one\""),
        "{}",
        refused.message()
    );
    let refused = refused.expect(409);
    assert_eq!(
        refused["details"]["causes"][0]["reason"],
        "FieldManagerConflict"
    );
    let forced = format!("{}&force=true", path("two"));
    let forced = cluster
        .call("PATCH", &forced, APPLY, &map("2"))
        .await
        .expect(200);
    assert_eq!(forced["data"]["x"], "2");
    let changed = cluster
        .call(
            "PATCH",
            &path("three"),
            "application/merge-patch+json",
            &json!({"data": {"y": "3"}}),
        )
        .await
        .expect(200);
    let managers = changed["metadata"]["managedFields"]
        .as_array()
        .expect("a list")
        .iter();
    let managers: Vec<_> = managers.map(|entry| &entry["manager"]).collect();
    assert_eq!(managers, ["two", "three"]);
    let mut without = map("2");
    without["data"] = json!({});
    let pruned = cluster
        .call("PATCH", &path("two"), APPLY, &without)
        .await
        .expect(200);
    assert_eq!(pruned["data"], json!({"y": "3"}));
}

#[tokio::test]
async fn a_scale_and_a_status_are_applied_through_their_paths() {
    let cluster = Cluster::start().await;
    cluster
        .post(DEPLOYMENTS, deployment("web"))
        .await
        .expect(201);
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": "web"}, "spec": {"replicas": 7}});
    let path = format!("{DEPLOYMENTS}/web/scale?fieldManager=scaler&force=true");
    let scaled = cluster
        .call("PATCH", &path, APPLY, &scale)
        .await
        .expect(200);
    assert_eq!(scaled["spec"]["replicas"], 7);
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web"}, "status": {"observedGeneration": 2}});
    let path = format!("{DEPLOYMENTS}/web/status?fieldManager=controller");
    let told = cluster
        .call("PATCH", &path, APPLY, &status)
        .await
        .expect(200);
    assert_eq!(told["status"]["observedGeneration"], 2);
    assert_eq!(told["spec"]["replicas"], 7);
    let absent = format!("{DEPLOYMENTS}/other/status?fieldManager=controller");
    let mut other = status;
    other["metadata"]["name"] = "other".into();
    cluster
        .call("PATCH", &absent, APPLY, &other)
        .await
        .expect(404);
}

/// Found by schemathesis: an apply of `true` panicked.
#[tokio::test]
async fn a_body_that_is_no_object_is_the_clients_mistake_whatever_the_verb() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let odd = [
        "true",
        "1",
        "\"x\"",
        "[]",
        "null",
        "[{}]",
        "{\"metadata\":5}",
        "{\"metadata\":[]}",
        "{\"metadata\":null}",
        "{\"metadata\":{\"name\":[]}}",
        "{\"data\":7}",
        "{\"metadata\":{\"namespace\":{}}}",
        "{\"metadata\":{\"labels\":[]}}",
        "{\"metadata\":{\"managedFields\":{}}}",
        "{\"metadata\":{\"ownerReferences\":1}}",
    ];
    let types = [
        ("POST", "", "application/json"),
        ("POST", "", "application/yaml"),
        ("PUT", "/a", "application/json"),
        ("PATCH", "/a", "application/merge-patch+json"),
        ("PATCH", "/a", "application/strategic-merge-patch+json"),
        ("PATCH", "/a", "application/json-patch+json"),
        ("PATCH", "/a", "application/apply-patch+yaml"),
        ("PATCH", "/new", "application/apply-patch+yaml"),
        ("DELETE", "/a", "application/json"),
    ];
    for (method, name, kind) in types {
        for body in odd {
            let path = format!("{CONFIG_MAPS}{name}?fieldManager=test&dryRun=All");
            let answer = cluster.call(method, &path, kind, &json!(body)).await;
            let code = answer.code.as_u16();
            assert!(code < 500, "{method} {kind} {body}: {}", answer.body);
        }
    }
}
