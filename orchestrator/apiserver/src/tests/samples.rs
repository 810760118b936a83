//! metrics.k8s.io, from what agents say.

use super::*;
use sys::certificates::Identity;

const SAMPLES: &str = "/orchestrator/v1/samples";
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

fn node(name: &str) -> User {
    let identity = Identity::new(&format!("system:node:{name}"), &["system:nodes"]);
    User::from_certificate(identity)
}

fn sample(pods: &[(&Value, u64)]) -> Value {
    let pod = |(pod, cpu): &(&Value, u64)| {
        json!({"uid": pod["metadata"]["uid"], "windowMs": 5000, "containers": [
            {"name": "c", "usage": {"cpuNanocores": cpu, "memoryBytes": 1_048_576}}]})
    };
    json!({"windowMs": 10000, "usage": {"cpuNanocores": 250_000_000, "memoryBytes": 2048},
        "pods": pods.iter().map(pod).collect::<Vec<_>>()})
}

/// Two nodes, the pod `a` on the first and `b` on the second; both have spoken.
async fn measured() -> (Cluster, Value, Value) {
    let cluster = Cluster::start().await;
    for name in ["one", "two"] {
        let node = json!({"metadata": {"name": name, "labels": {"disk": name}}});
        cluster.post("/api/v1/nodes", node).await.expect(201);
    }
    let mut pods = Vec::new();
    for (name, node) in [("a", "one"), ("b", "two")] {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = node.into();
        pods.push(cluster.post(PODS, pod).await.expect(201));
    }
    let (b, a) = (pods.pop().expect("two"), pods.pop().expect("two"));
    let one = cluster.as_user(node("one"));
    let taken = one
        .post(SAMPLES, sample(&[(&a, 1_500_000)]))
        .await
        .expect(200);
    assert_eq!(taken, json!({"nextMs": 1000}));
    let two = cluster.as_user(node("two"));
    two.post(SAMPLES, sample(&[(&b, 7)])).await.expect(200);
    (cluster, a, b)
}

#[tokio::test]
async fn nodes_and_pods_have_metrics_with_their_labels() {
    let (cluster, _, _) = measured().await;
    let pod = cluster
        .get(&format!("{METRICS}/namespaces/default/pods/a"))
        .await
        .expect(200);
    assert_eq!(pod["kind"], "PodMetrics");
    assert_eq!(pod["metadata"]["labels"], json!({"app": "a"}));
    assert_eq!(pod["window"], "5s");
    let usage = json!([{"name": "c", "usage": {"cpu": "1500000n", "memory": "1024Ki"}}]);
    assert_eq!(pod["containers"], usage);
    let nodes = cluster
        .get(&format!("{METRICS}/nodes?labelSelector=disk=two"))
        .await
        .expect(200);
    assert_eq!(nodes["kind"], "NodeMetricsList");
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        nodes["items"][0]["usage"],
        json!({"cpu": "250000000n", "memory": "2Ki"})
    );
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("a list").iter();
        items
            .map(|item| {
                item["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    };
    let pods = cluster.get(&format!("{METRICS}/pods")).await.expect(200);
    assert_eq!(names(&pods), ["a", "b"]);
    for (query, found) in [
        ("labelSelector=app%3Db", "b"),
        ("fieldSelector=metadata.name%3Da", "a"),
    ] {
        let path = format!("{METRICS}/namespaces/default/pods?{query}");
        assert_eq!(
            names(&cluster.get(&path).await.expect(200)),
            [found],
            "{query}"
        );
    }
    let elsewhere = cluster
        .get(&format!("{METRICS}/namespaces/kube-system/pods"))
        .await;
    assert_eq!(names(&elsewhere.expect(200)), Vec::<String>::new());
    let wrong = cluster
        .get(&format!("{METRICS}/pods?fieldSelector=spec.nodeName%3Done"))
        .await;
    wrong.expect(400);
}

#[tokio::test]
async fn metrics_are_shown_as_a_table() {
    let (cluster, _, _) = measured().await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = cluster
        .get_as(&format!("{METRICS}/pods"), accept)
        .await
        .expect(200);
    assert_eq!(table["kind"], "Table");
    assert_eq!(
        table["rows"][0]["cells"],
        json!(["a", "1500u", "1Mi", "5s"])
    );
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn a_node_speaks_only_of_its_own_pods() {
    let (cluster, a, b) = measured().await;
    let two = cluster.as_user(node("two"));
    two.post(SAMPLES, sample(&[(&a, 9_000_000_000), (&b, 8)]))
        .await
        .expect(200);
    let path = format!("{METRICS}/namespaces/default/pods/a");
    let usage = cluster.get(&path).await.expect(200)["containers"][0]["usage"]["cpu"].clone();
    assert_eq!(usage, "1500000n", "as its own node said");
    for user in [
        User::anonymous(),
        User::named("eve", Vec::new()),
        User::internal("test"),
    ] {
        cluster
            .as_user(user)
            .post(SAMPLES, sample(&[]))
            .await
            .expect(403);
    }
    two.post(SAMPLES, json!({"pods": 7})).await.expect(400);
    let large = Value::String(" ".repeat(api::samples::BODY_BYTES + 1));
    two.post(SAMPLES, large).await.expect(413);
}

#[tokio::test]
async fn what_is_not_measured_is_not_found_and_who_may_not_see_it_is_told() {
    let (cluster, _, _) = measured().await;
    cluster.post(PODS, pod("new")).await.expect(201);
    let missing = cluster
        .get(&format!("{METRICS}/namespaces/default/pods/new"))
        .await;
    assert_eq!(
        missing.message(),
        "podmetrics.metrics.k8s.io \"default/new\" not found"
    );
    missing.expect(404);
    cluster
        .get(&format!("{METRICS}/nodes/absent"))
        .await
        .expect(404);
    cluster.get(&format!("{METRICS}/widgets")).await.expect(404);
    cluster
        .delete(&format!("{METRICS}/nodes/one"))
        .await
        .expect(405);
    cluster
        .get(&format!("{METRICS}/pods?watch=true"))
        .await
        .expect(405);
    let jane = cluster.as_user(User::named("jane", vec![]));
    let refused = jane.get(&format!("{METRICS}/nodes")).await;
    let why = "User \"jane\" cannot list resource \"nodes\" in API group \"metrics.k8s.io\"";
    assert!(refused.message().contains(why), "{}", refused.message());
    refused.expect(403);
}

#[tokio::test]
async fn the_group_is_discovered_and_has_its_api_service() {
    let cluster = Cluster::start().await;
    let groups = cluster.get("/apis").await.expect(200);
    let mut groups = groups["groups"].as_array().expect("a list").iter();
    let found = groups
        .find(|group| group["name"] == "metrics.k8s.io")
        .expect("listed");
    assert_eq!(found["preferredVersion"]["version"], "v1beta1");
    let resources = cluster.get(METRICS).await.expect(200);
    assert_eq!(resources["resources"][1]["kind"], "PodMetrics");
    let path = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io";
    let mut service = cluster.get(path).await;
    for _ in 0..400 {
        if service.code == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
        service = cluster.get(path).await;
    }
    assert_eq!(
        service.expect(200)["status"]["conditions"][0]["reason"],
        "Local"
    );
    // metrics-server brings an APIService that leads to it: from then on it is asked.
    let theirs = json!({"spec": {"insecureSkipTLSVerify": true,
        "service": {"namespace": "kube-system", "name": "metrics-server", "port": 443}}});
    cluster.merge(path, theirs).await.expect(200);
    assert_eq!(
        cluster.get(&format!("{METRICS}/nodes")).await.code.as_u16(),
        503
    );
    cluster.delete(path).await.expect(200);
    cluster.get(&format!("{METRICS}/nodes")).await.expect(200);
}
