//! What nodes, pods and scheduling were asked of since 1.20, as far as a hollow node shows it.

use super::*;

fn pod(name: &str, more: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "image:1"}]},
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_templates_should_replace_a_pod_template() {
    let cluster = Hollow::start().await;
    let template = |image: &str| {
        json!({"metadata": {"name": "t"}, "template": {
        "metadata": {"labels": {"app": "t"}},
        "spec": {"containers": [{"name": "main", "image": image}]}}})
    };
    cluster
        .make(&path("", "podtemplates"), template("image:1"))
        .await;
    let at = path("", "podtemplates/t");
    let replaced = cluster.must("PUT", &at, template("image:2")).await;
    assert_eq!(
        replaced["template"]["spec"]["containers"][0]["image"],
        "image:2"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn config_map_should_update_config_map_successfully() {
    let cluster = Hollow::start().await;
    let map = |data: Value| json!({"metadata": {"name": "m"}, "data": data});
    cluster
        .make(&path("", "configmaps"), map(json!({"key": "value"})))
        .await;
    let at = path("", "configmaps/m");
    cluster.must("PUT", &at, map(json!({"key": "other"}))).await;
    assert_eq!(cluster.get(&at).await["data"], json!({"key": "other"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_should_patch_a_pod_status() {
    let cluster = Hollow::start().await;
    cluster.make(&path("", "pods"), pod("p", json!({}))).await;
    let at = path("", "pods/p");
    let body = json!({"metadata": {"annotations": {"patched": "yes"}},
        "status": {"message": "Patched by a test", "reason": "E2E"}});
    let patched = cluster.must("PATCH", &format!("{at}/status"), body).await;
    assert_eq!(patched["metadata"]["annotations"]["patched"], "yes");
    assert_eq!(patched["status"]["message"], "Patched by a test");
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_generation_should_start_at_1_and_increment_per_update() {
    let cluster = Hollow::start().await;
    let mut custom = pod("p", json!({"terminationGracePeriodSeconds": 30}));
    custom["metadata"]["generation"] = json!(100);
    let made = cluster.make(&path("", "pods"), custom).await;
    assert_eq!(
        made["metadata"]["generation"], 1,
        "whatever the client says"
    );
    let at = path("", "pods/p");
    let label = json!({"metadata": {"labels": {"more": "yes"}}});
    let labelled = cluster.must("PATCH", &at, label).await;
    assert_eq!(
        labelled["metadata"]["generation"], 1,
        "labels are not the spec"
    );
    let tolerations = json!({"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}});
    let changed = cluster.must("PATCH", &at, tolerations).await;
    assert_eq!(changed["metadata"]["generation"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_class_should_reject_a_pod_requesting_a_non_existent_or_a_deleted_runtime_class() {
    let cluster = Hollow::start().await;
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    let class = json!({"metadata": {"name": "short"}, "handler": "h"});
    cluster.make(classes, class).await;
    cluster
        .must("DELETE", &format!("{classes}/short"), json!({}))
        .await;
    for name in ["absent", "short"] {
        let asking = pod("p", json!({"runtimeClassName": name}));
        let answer = cluster.call("POST", &path("", "pods"), &asking).await;
        let error = answer.expect_err("there is no such class").to_string();
        assert!(error.contains("RuntimeClass"), "{error}");
    }
}

/// A pod of a class with this overhead has it in its spec, and is given a node.
async fn is_scheduled_with(overhead: Value) {
    let cluster = Hollow::start().await;
    let class = json!({"metadata": {"name": "some"}, "handler": "h", "overhead": overhead});
    cluster
        .make("/apis/node.k8s.io/v1/runtimeclasses", class)
        .await;
    let asking = pod("p", json!({"runtimeClassName": "some"}));
    let made = cluster.make(&path("", "pods"), asking).await;
    assert_eq!(made["spec"]["overhead"], overhead["podFixed"]);
    let has_node = |it: &Value| it["spec"]["nodeName"].is_string();
    cluster.wait(&path("", "pods/p"), has_node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_class_should_schedule_a_pod_requesting_a_runtime_class_and_initialize_its_overhead()
 {
    is_scheduled_with(json!({"podFixed": {"cpu": "10m", "memory": "1Mi"}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_class_should_schedule_a_pod_requesting_a_runtime_class_without_pod_overhead() {
    is_scheduled_with(Value::Null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sysctls_should_reject_invalid_sysctls() {
    let cluster = Hollow::start().await;
    let names = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."];
    let sysctls = names.map(|name| json!({"name": name, "value": "1"}));
    let asking = pod("p", json!({"securityContext": {"sysctls": sysctls}}));
    let answer = cluster.call("POST", &path("", "pods"), &asking).await;
    let error = answer.expect_err("two names are ill-formed").to_string();
    for (name, is_good) in names.iter().zip([false, true, true, false]) {
        let said = error.contains(&format!("Invalid value: \"{name}\""))
            || error.contains(&format!("Invalid value: \\\"{name}\\\""));
        assert_eq!(said, !is_good, "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_generation_custom_set_generation_on_new_pods_and_graceful_delete() {
    let cluster = Hollow::start().await;
    let mut custom = pod("p", json!({"terminationGracePeriodSeconds": 30}));
    custom["metadata"]["generation"] = json!(100);
    custom["metadata"]["finalizers"] = json!(["example.com/test"]);
    let made = cluster.make(&path("", "pods"), custom).await;
    assert_eq!(made["metadata"]["generation"], 1);
    let at = path("", "pods/p");
    cluster.must("DELETE", &at, json!({})).await;
    let deleted = cluster.get(&at).await;
    assert_eq!(deleted["metadata"]["generation"], 2);
    let body = json!({"metadata": {"finalizers": null}});
    cluster.must("PATCH", &at, body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_lifecycle_should_run_through_the_lifecycle_of_a_node() {
    let cluster = Hollow::start().await;
    let nodes = "/api/v1/nodes";
    cluster
        .make(nodes, json!({"metadata": {"name": "fake"}}))
        .await;
    let at = format!("{nodes}/fake");
    let patch = json!({"metadata": {"labels": {"patched": "yes"}}});
    let patched = cluster.must("PATCH", &at, patch).await;
    assert_eq!(patched["metadata"]["labels"]["patched"], "yes");
    loop {
        let mut whole = cluster.get(&at).await;
        whole["metadata"]["labels"]["updated"] = "yes".into();
        // The node lifecycle controller writes it, too.
        if cluster.call("PUT", &at, &whole).await.is_ok() {
            break;
        }
    }
    let by_label = format!("{nodes}?labelSelector=patched%3Dyes,updated%3Dyes");
    let found = cluster.get(&by_label).await;
    assert_eq!(items(&found).len(), 1);
    assert_eq!(items(&found)[0]["metadata"]["name"], "fake");
    cluster.must("DELETE", &at, json!({})).await;
    let none = |list: &Value| list.is_object() && items(list).is_empty();
    cluster.wait(&by_label, none).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_in_place_resize_container_resize_pod_via_the_replace_endpoint() {
    let cluster = Hollow::start().await;
    let resources = json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "20m"}});
    let containers = json!([{"name": "main", "image": "image:1", "resources": resources}]);
    let made = cluster
        .make(
            &path("", "pods"),
            pod("p", json!({"containers": containers})),
        )
        .await;
    assert_eq!(made["metadata"]["generation"], 1);
    let at = path("", "pods/p");
    let resize = format!("{at}/resize");
    let wanted = json!({"requests": {"cpu": "15m"}, "limits": {"cpu": "30m"}});
    loop {
        let mut whole = cluster.get(&resize).await;
        whole["spec"]["containers"][0]["resources"] = wanted.clone();
        if cluster.call("PUT", &resize, &whole).await.is_ok() {
            break;
        }
    }
    let resized = |it: &Value| it["spec"]["containers"][0]["resources"] == wanted;
    cluster.wait(&at, resized).await;
    cluster.wait(&resize, resized).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_range_should_list_patch_and_delete_a_limit_range_by_collection() {
    let cluster = Hollow::start().await;
    let at = path("", "limitranges");
    let limits = json!([{"type": "Container", "default": {"cpu": "500m"}}]);
    let range =
        json!({"metadata": {"name": "r", "labels": {"app": "r"}}, "spec": {"limits": limits}});
    cluster.make(&at, range).await;
    let limits = json!([{"type": "Container", "default": {"cpu": "400m"}}]);
    let body = json!({"metadata": {"labels": {"patched": "yes"}}, "spec": {"limits": limits}});
    cluster.must("PATCH", &format!("{at}/r"), body).await;
    let by_label = format!("{at}?labelSelector=patched%3Dyes");
    assert_eq!(items(&cluster.get(&by_label).await).len(), 1);
    cluster.must("DELETE", &by_label, json!({})).await;
    assert!(items(&cluster.get(&at).await).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduler_preemption_validates_pod_disruption_condition_is_added_to_the_preempted_pod() {
    let cluster = Hollow::start().await;
    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    cluster
        .make("/apis/scheduling.k8s.io/v1/priorityclasses", class)
        .await;
    let requests = json!({"requests": {"cpu": "6"}});
    let containers = json!([{"name": "main", "image": "image:1", "resources": requests}]);
    let mut victim = pod("victim", json!({"containers": containers}));
    // It stays to be looked at.
    victim["metadata"]["finalizers"] = json!(["example.com/test"]);
    cluster.make(&path("", "pods"), victim).await;
    let at = path("", "pods/victim");
    cluster
        .wait(&at, |it| it["status"]["phase"] == "Running")
        .await;
    let high = pod(
        "high",
        json!({"containers": containers, "priorityClassName": "high"}),
    );
    cluster.make(&path("", "pods"), high).await;
    let gone = |it: &Value| it["metadata"]["deletionTimestamp"].is_string();
    let victim = cluster.wait(&at, gone).await;
    let conditions = victim["status"]["conditions"]
        .as_array()
        .expect("conditions");
    let said = conditions
        .iter()
        .find(|it| it["type"] == "DisruptionTarget");
    assert_eq!(said.expect("it is said")["reason"], "PreemptionByScheduler");
    let body = json!({"metadata": {"finalizers": null}});
    cluster.must("PATCH", &at, body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_containers_should_update_the_ephemeral_containers_in_an_existing_pod() {
    let cluster = Hollow::start().await;
    cluster.make(&path("", "pods"), pod("p", json!({}))).await;
    let runs = |it: &Value| it["status"]["phase"] == "Running";
    cluster.wait(&path("", "pods/p"), runs).await;
    let at = path("", "pods/p/ephemeralcontainers");
    let debugger = |name: &str| {
        json!({"name": name, "image": "image:1",
        "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"})
    };
    let patch = json!({"spec": {"ephemeralContainers": [debugger("one")]}});
    let patched = cluster.must("PATCH", &at, patch).await;
    assert_eq!(patched["spec"]["ephemeralContainers"][0]["name"], "one");
    let mut whole = cluster.get(&path("", "pods/p")).await;
    let list = whole["spec"]["ephemeralContainers"]
        .as_array_mut()
        .expect("one");
    list.push(debugger("two"));
    let replaced = cluster.must("PUT", &at, whole).await;
    assert_eq!(replaced["spec"]["ephemeralContainers"][1]["name"], "two");
}
