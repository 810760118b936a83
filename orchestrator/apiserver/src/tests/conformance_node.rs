//! The `sig-node` conformance tests that Kubernetes has got since 1.20, as far as a server without nodes shows
//! them; the comment of each is the name of the one that it stands for. These stand elsewhere:
//!
//! | conformance test | here |
//! |---|---|
//! | ConfigMap, Secrets: environment variables with prefixes; Downward API: hostIPs; Ephemeral Containers: start; Pod InPlace Resize: 6 containers, equivalents, 3 containers; Pod Generation: 500 updates; Probing container: gRPC; Security Context; Sysctls: support | agent `worker_conformance_tests` |
//! | ConfigMap: update; Ephemeral Containers: update; Node Lifecycle; Pod Generation: the rest; Pod InPlace Resize: replace; PodTemplates; Pods: patch a status; RuntimeClass; Sysctls: reject | `tests/tests/conformance_since/node.rs` |
//! | ImageVolume | agent `volumes` |
//! | \[DRA\] CRUD Tests of resource.k8s.io/v1 (five) | none: no node of ours has a driver for devices, so that a claim that the API took would never be allocated; a pod with `resourceClaims` is refused with the field's name |

use super::*;

/// A pod with these containers, each a name with its requests and limits.
fn pod(name: &str, containers: &[(&str, Value)]) -> Value {
    let container = |(name, resources): &(&str, Value)| json!({"name": name, "image": "i", "resources": resources});
    let containers: Vec<Value> = containers.iter().map(container).collect();
    json!({"metadata": {"name": name, "generation": 100}, "spec": {"containers": containers}})
}

fn amounts(cpu: &str, memory: &str) -> Value {
    json!({"cpu": cpu, "memory": memory})
}

/// Pod InPlace Resize Container resize pod via the replace endpoint
#[tokio::test]
async fn a_pod_is_resized_by_a_put_and_reads_the_same_by_both_paths() {
    let cluster = Cluster::start().await;
    let requests = json!({"requests": amounts("10m", "20Mi")});
    let made = pod("r", &[("c", requests)]);
    let mut resized = cluster.post(PODS, made).await.expect(201);
    resized["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "20m".into();
    // What the path is not for is left as it was.
    resized["spec"]["containers"][0]["image"] = "other".into();
    resized["metadata"]["labels"] = json!({"a": "b"});
    let path = format!("{PODS}/r/resize");
    cluster.put(&path, resized).await.expect(200);
    let (here, there) = (
        cluster.get(&path).await.expect(200),
        cluster.get(&format!("{PODS}/r")).await.expect(200),
    );
    assert_eq!(here, there);
    let container = &here["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"]["cpu"], "20m");
    assert_eq!(container["image"], "i");
    assert_eq!(here["metadata"]["labels"], Value::Null);
    assert_eq!(here["metadata"]["generation"], 2);
}

/// Pod InPlace Resize Container burstable pods - extended 6 containers - various operations performed
/// (including adding limits and requests)
#[tokio::test]
async fn one_patch_changes_and_adds_amounts_of_six_containers() {
    let cluster = Cluster::start().await;
    let of = |requests: Value, limits: Value| json!({"requests": requests, "limits": limits});
    let (small, large) = (amounts("10m", "20Mi"), amounts("20m", "40Mi"));
    let before = [
        ("a", of(small.clone(), large.clone())),
        ("b", of(small.clone(), large.clone())),
        ("c", json!({"requests": small})),
        ("d", json!({})),
        ("e", json!({"requests": {"cpu": "10m"}})),
        ("f", json!({"limits": {"memory": "40Mi"}})),
    ];
    cluster.post(PODS, pod("six", &before)).await.expect(201);
    let after = [
        ("a", of(amounts("15m", "30Mi"), large.clone())),
        ("b", of(amounts("5m", "10Mi"), amounts("10m", "20Mi"))),
        ("c", of(small.clone(), large.clone())),
        ("d", of(small, large)),
        ("e", json!({"requests": amounts("20m", "20Mi")})),
        ("f", json!({"limits": amounts("10m", "50Mi")})),
    ];
    let containers = after
        .iter()
        .map(|(name, resources)| json!({"name": name, "resources": resources}));
    let patch = json!({"spec": {"containers": containers.collect::<Vec<_>>()}});
    let kind = "application/strategic-merge-patch+json";
    let path = format!("{PODS}/six/resize");
    let pod = cluster.call("PATCH", &path, kind, &patch).await.expect(200);
    for (container, (name, resources)) in pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .zip(&after)
    {
        for list in ["requests", "limits"] {
            for (resource, amount) in resources[list].as_object().into_iter().flatten() {
                assert_eq!(
                    &container["resources"][list][resource], amount,
                    "{name} {list}"
                );
            }
        }
    }
    assert_eq!(pod["spec"]["containers"][0]["image"], "i");
}

#[tokio::test]
async fn a_resize_changes_neither_the_class_nor_anything_by_the_pods_own_path() {
    let cluster = Cluster::start().await;
    let all = json!({"requests": amounts("1", "1Gi"), "limits": amounts("1", "1Gi")});
    cluster
        .post(PODS, pod("g", &[("c", all)]))
        .await
        .expect(201);
    let cpu = |list: Value| json!({"spec": {"containers": [{"name": "c", "resources": list}]}});
    let kind = "application/strategic-merge-patch+json";
    let resize = async |patch: &Value| {
        let path = format!("{PODS}/g/resize");
        cluster.call("PATCH", &path, kind, patch).await
    };
    let burstable = resize(&cpu(json!({"requests": {"cpu": "500m"}}))).await;
    let text = "Pod QOS Class may not change as a result of resizing";
    assert!(
        burstable.message().contains(text),
        "{}",
        burstable.message()
    );
    burstable.expect(422);
    let twice = cpu(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}));
    resize(&twice).await.expect(200);
    let (path, patch) = (format!("{PODS}/g"), cpu(json!({"limits": {"cpu": "3"}})));
    cluster.call("PATCH", &path, kind, &patch).await.expect(422);
}

/// Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment per update;
/// custom-set generation on new pods and graceful delete
#[tokio::test]
async fn a_pods_generation_starts_at_one_and_counts_changes_of_its_spec() {
    let cluster = Cluster::start().await;
    let made = cluster
        .post(PODS, pod("n", &[("c", json!({}))]))
        .await
        .expect(201);
    assert_eq!(
        made["metadata"]["generation"], 1,
        "a client's own is not kept"
    );
    let path = format!("{PODS}/n");
    let mut expected = 1;
    for (patch, counts) in [
        (json!({"spec": {"activeDeadlineSeconds": 5000}}), 1),
        (json!({"spec": {"activeDeadlineSeconds": 4000}}), 1),
        (json!({"spec": {"activeDeadlineSeconds": 4000}}), 0),
        (json!({"metadata": {"labels": {"a": "b"}}}), 0),
    ] {
        expected += counts;
        let pod = cluster.merge(&path, patch.clone()).await.expect(200);
        assert_eq!(pod["metadata"]["generation"], expected, "{patch}");
    }
}
