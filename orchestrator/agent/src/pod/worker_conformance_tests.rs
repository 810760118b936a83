//! What Kubernetes' conformance tests after 1.20 ask of a node (`sig-node` of `conformance-since-1.20.txt`): each
//! test has the name of one of theirs. Those that need no node are in `tests/tests/conformance_since/node.rs`.

use super::*;
use crate::pod::prober::grpc::double;

/// A pod whose container runs, and what it was made of.
async fn made(spec: Value, objects: FakeApi) -> crate::runtime::ContainerSpec {
    let stage = Stage::with_objects(runtime(), spec, objects);
    stage.list();
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
    stage.node.runtime.spec("main").expect("it was made")
}

/// The variables that a container has of an object with these keys, under prefixes of all kinds.
async fn prefixed(kind: &str, plural: &str) {
    let objects = FakeApi::default();
    let value = |text: &str| match plural {
        "secrets" => json!(base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            text
        )),
        _ => json!(text),
    };
    objects.put(
        plural,
        "some",
        json!({ "data": { "data_1": value("one") } }),
    );
    let prefixes = ["", "p-", "7_", "#!~.", "a b"];
    let from = prefixes.map(|prefix| json!({ "prefix": prefix, kind: { "name": "some" } }));
    let spec = json!({ "containers": [{ "name": "main", "image": "i:1", "envFrom": from }] });
    let env = made(spec, objects).await.env;
    for prefix in prefixes {
        let wanted = (format!("{prefix}data_1"), "one".to_owned());
        assert!(env.contains(&wanted), "{wanted:?} in {env:?}");
    }
}

#[tokio::test]
async fn config_map_should_be_consumable_as_environment_variable_names_with_various_prefixes() {
    prefixed("configMapRef", "configmaps").await;
}

#[tokio::test]
async fn secrets_should_be_consumable_as_environment_variable_names_with_various_prefixes() {
    prefixed("secretRef", "secrets").await;
}

#[tokio::test]
async fn downward_api_should_provide_host_ips_as_an_env_var() {
    let from = json!({ "fieldRef": { "fieldPath": "status.hostIPs" } });
    let spec = json!({ "containers": [{ "name": "main", "image": "i:1",
        "env": [{ "name": "HOST_IPS", "valueFrom": from }] }] });
    let env = made(spec, FakeApi::default()).await.env;
    let wanted = ("HOST_IPS".to_owned(), "172.31.0.11".to_owned());
    assert!(env.contains(&wanted), "{env:?}");
}

/// Both tests of that name: the user and the group of the pod, and of the container.
#[tokio::test]
async fn security_context_should_support_run_as_user_and_run_as_group() {
    let ids = json!({ "runAsUser": 1001, "runAsGroup": 2002 });
    for (of_pod, own) in [(ids.clone(), json!({})), (json!({}), ids.clone())] {
        let spec = json!({ "securityContext": of_pod, "containers": [
            { "name": "main", "image": "i:1", "securityContext": own }] });
        let user = made(spec, FakeApi::default()).await.security.user;
        assert_eq!(user.as_deref(), Some("1001:2002"));
    }
}

#[tokio::test]
async fn sysctls_should_support_sysctls() {
    let sysctls = json!([{ "name": "kernel.shm_rmid_forced", "value": "1" }]);
    let mut spec = one_container();
    spec["securityContext"] = json!({ "sysctls": sysctls });
    let stage = Stage::new(runtime(), spec);
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
    let sandbox = stage.node.runtime.spec("").expect("it was made");
    let wanted = BTreeMap::from([("kernel.shm_rmid_forced".to_owned(), "1".to_owned())]);
    assert_eq!(sandbox.sysctls, wanted);
}

#[tokio::test]
async fn ephemeral_containers_will_start_an_ephemeral_container_in_an_existing_pod() {
    let stage = Stage::new(runtime(), one_container());
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    let mut spec = one_container();
    spec["ephemeralContainers"] =
        json!([{ "name": "debugger", "image": "i:1", "targetContainerName": "main" }]);
    respecify(&stage, &spec);
    let runs = |it: &Stage| {
        let debugger = &it.status()["ephemeralContainerStatuses"][0];
        debugger["state"]["running"].is_object()
    };
    stage.until("running, too", runs).await;
    assert_eq!(stage.running(Role::Ephemeral), 1);
}

fn respecify(stage: &Stage, spec: &Value) {
    let spec = serde_json::from_value(spec.clone()).expect("a spec");
    stage.updates.send_modify(|update| {
        let mut pod = Pod::clone(&update.pod);
        pod.metadata.generation = pod.metadata.generation.map(|it| it + 1).or(Some(2));
        pod.spec = Some(spec);
        update.pod = Arc::new(pod);
    });
}

/// A pod with these containers, by their names `c0`, `c1` and on.
fn of_resources(all: &[Value]) -> Value {
    let containers = all.iter().enumerate().map(|(number, resources)| {
        json!({ "name": format!("c{number}"), "image": "i:1", "resources": resources })
    });
    json!({ "containers": containers.collect::<Vec<_>>() })
}

/// Resizes a pod, and waits until its status shows the amounts and its containers have the limits.
async fn resized(before: &[Value], after: &[Value]) {
    let stage = Stage::new(runtime(), of_resources(before));
    stage
        .until("running", |it| it.running(Role::Main) == before.len())
        .await;
    let made = stage.node.runtime.all().len();
    let spec = of_resources(after);
    respecify(&stage, &spec);
    let shown = |it: &Stage| {
        let status = it.status();
        let mut wanted = after.iter().enumerate();
        wanted.all(|(number, resources)| {
            let shown = &status["containerStatuses"][number];
            let requests = &resources["requests"];
            let allocated = requests.is_null() || shown["allocatedResources"] == *requests;
            allocated && shown["resources"] == *resources
        })
    };
    stage.until("shown", shown).await;
    let pod: Pod = serde_json::from_value(json!({ "spec": spec })).expect("a pod");
    for container in stage.node.runtime.all() {
        if let Some(template) = shape::template(&pod, &container.identity.name) {
            let change = resize::change(&pod, template, container.resources);
            assert_eq!(change, None, "{}", template.name);
        }
    }
    assert_eq!(
        stage.node.runtime.all().len(),
        made,
        "none was started anew"
    );
    let conditions = stage.status()["conditions"].to_string();
    assert!(!conditions.contains("PodResize"), "{conditions}");
}

fn amounts(cpu: &str, memory: &str) -> Value {
    json!({ "cpu": cpu, "memory": memory })
}

#[tokio::test]
async fn pod_in_place_resize_container_burstable_pods_extended_6_containers_various_operations() {
    let of = |requests: Value, limits: Value| json!({ "requests": requests, "limits": limits });
    let (small, large) = (amounts("10m", "20Mi"), amounts("20m", "40Mi"));
    let before = [
        of(small.clone(), large.clone()),
        of(small.clone(), large.clone()),
        json!({ "requests": small }),
        json!({}),
        json!({ "requests": { "cpu": "10m" } }),
        of(json!({ "memory": "40Mi" }), json!({ "memory": "40Mi" })),
    ];
    let after = [
        of(amounts("15m", "30Mi"), large.clone()),
        of(amounts("5m", "10Mi"), amounts("10m", "20Mi")),
        of(small.clone(), large.clone()),
        of(small, large),
        json!({ "requests": amounts("20m", "20Mi") }),
        of(amounts("10m", "40Mi"), amounts("10m", "50Mi")),
    ];
    resized(&before, &after).await;
}

#[tokio::test]
async fn pod_in_place_resize_container_burstable_pods_extended_resize_with_equivalents() {
    let of = |request: &str, limit: &str| json!({ "requests": { "cpu": request }, "limits": { "cpu": limit } });
    // The kernel has no fewer shares than 2, and no shorter quota than 1 ms.
    resized(&[of("2m", "10m")], &[of("1m", "5m")]).await;
}

#[tokio::test]
async fn pod_in_place_resize_container_guaranteed_pods_with_multiple_containers_3_containers() {
    let of = |cpu: &str, memory: &str| {
        let both = amounts(cpu, memory);
        json!({ "requests": both, "limits": both })
    };
    let before = [
        of("100m", "100Mi"),
        of("100m", "100Mi"),
        of("100m", "100Mi"),
    ];
    for after in [
        [of("140m", "150Mi"), of("150m", "150Mi"), of("40m", "50Mi")],
        [of("140m", "150Mi"), of("40m", "50Mi"), of("50m", "50Mi")],
        [of("140m", "100Mi"), of("50m", "150Mi"), of("150m", "140Mi")],
    ] {
        resized(&before, &after).await;
    }
}

#[tokio::test]
async fn pod_generation_issue_500_podspec_updates_and_verify_that_observed_generation_converges() {
    let stage = Stage::new(runtime(), one_container());
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    for _ in 0..499 {
        respecify(&stage, &one_container());
    }
    let observed = |it: &Stage| it.status()["observedGeneration"] == 500;
    stage.until("observed", observed).await;
}

/// A pod with a gRPC liveness probe at this port.
fn probed(port: u16) -> Stage {
    let probe = json!({ "grpc": { "port": port }, "periodSeconds": 1, "failureThreshold": 1 });
    let spec =
        json!({ "containers": [{ "name": "main", "image": "i:1", "livenessProbe": probe }] });
    let network = FakeNetwork::of([127, 0, 0, 1]);
    let stage = Stage::on(network, runtime(), spec, FakeApi::default());
    stage.list();
    stage
}

#[tokio::test]
async fn probing_container_should_not_be_restarted_with_a_grpc_liveness_probe() {
    let served = double::server(b"\0\0\0\0\0", double::SERVING, "0").await;
    let stage = probed(served.port());
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    // Three periods, in which nothing may change.
    let end = Instant::now() + Duration::from_secs(3);
    stage.until("over", |_| Instant::now() > end).await;
    assert_eq!(stage.status()["containerStatuses"][0]["restartCount"], 0);
}

#[tokio::test]
async fn probing_container_should_be_restarted_with_a_grpc_liveness_probe() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let closed = closed.expect("a port").local_addr().expect("an address");
    let stage = probed(closed.port());
    let restarted = |it: &Stage| it.status()["containerStatuses"][0]["restartCount"] == 1;
    stage.until("restarted", restarted).await;
}
