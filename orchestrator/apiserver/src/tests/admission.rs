//! What other objects demand of a write: addresses, ports, rights.

use super::*;
use sys::certificates::Identity;

#[tokio::test]
async fn a_service_gets_an_address_and_gives_it_back() {
    let cluster = Cluster::start().await;
    let spec = json!({"ports": [{"port": 80}]});
    let made = cluster
        .post(SERVICES, service("web", spec.clone()))
        .await
        .expect(201);
    let address = made["spec"]["clusterIP"]
        .as_str()
        .expect("an address")
        .to_owned();
    assert_eq!(made["spec"]["clusterIPs"], json!([address]));
    let mut same = spec.clone();
    same["clusterIP"] = address.clone().into();
    let refused = cluster.post(SERVICES, service("other", same.clone())).await;
    assert!(
        refused
            .message()
            .contains("provided IP is already allocated")
    );
    refused.expect(422);
    cluster.delete(&format!("{SERVICES}/web")).await.expect(200);
    cluster
        .post(SERVICES, service("other", same))
        .await
        .expect(201);
}

#[tokio::test]
async fn an_address_outside_the_range_is_refused() {
    let cluster = Cluster::start().await;
    let spec = json!({"clusterIP": "10.1.2.3", "ports": [{"port": 80}]});
    let refused = cluster.post(SERVICES, service("web", spec)).await;
    assert!(
        refused.message().contains("10.96.0.0/16"),
        "{}",
        refused.message()
    );
    refused.expect(422);
}

#[tokio::test]
async fn a_node_port_is_chosen_checked_and_kept() {
    let cluster = Cluster::start().await;
    let spec = json!({"type": "NodePort", "ports": [{"name": "a", "port": 80}]});
    let made = cluster
        .post(SERVICES, service("web", spec))
        .await
        .expect(201);
    let port = made["spec"]["ports"][0]["nodePort"]
        .as_u64()
        .expect("a port");
    assert!((30000..=32767).contains(&port));
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let refused = cluster.post(SERVICES, service("other", taken)).await;
    assert!(
        refused
            .message()
            .contains("provided port is already allocated")
    );
    refused.expect(422);
    let outside = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]});
    cluster
        .post(SERVICES, service("other", outside))
        .await
        .expect(422);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let path = format!("{SERVICES}/web");
    let patched = cluster.merge(&path, label).await.expect(200);
    assert_eq!(patched["spec"]["ports"][0]["nodePort"], port);
    let both = json!({"type": "NodePort", "ports": [
        {"name": "t", "port": 53, "protocol": "TCP", "nodePort": 30053},
        {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053}]});
    cluster
        .post(SERVICES, service("dns", both))
        .await
        .expect(201);
}

#[tokio::test]
async fn a_refused_service_leaves_nothing_taken() {
    let cluster = Cluster::start().await;
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.50",
        "ports": [{"name": "a", "port": 1, "nodePort": 30001},
            {"name": "b", "port": 2, "nodePort": 1}]});
    cluster
        .post(SERVICES, service("web", spec.clone()))
        .await
        .expect(422);
    let mut right = spec;
    right["ports"][1]["nodePort"] = 30002.into();
    cluster
        .post(SERVICES, service("web", right))
        .await
        .expect(201);
}

#[tokio::test]
async fn the_servers_own_service_is_there() {
    let cluster = Cluster::start().await;
    let own = cluster
        .get(&format!("{SERVICES}/kubernetes"))
        .await
        .expect(200);
    assert_eq!(own["spec"]["clusterIP"], "10.96.0.1");
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slices = cluster.get(path).await.expect(200);
    assert_eq!(
        slices["items"][0]["endpoints"][0]["addresses"],
        json!(["172.31.0.1"])
    );
    cluster
        .get("/api/v1/namespaces/default/endpoints/kubernetes")
        .await
        .expect(200);
}

#[tokio::test]
async fn the_servers_own_service_comes_back_with_its_address() {
    let cluster = Cluster::start().await;
    for name in ["a", "b"] {
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
        cluster
            .delete(&format!("{SERVICES}/kubernetes"))
            .await
            .expect(200);
        cluster
            .post(SERVICES, service(name, spec))
            .await
            .expect(422);
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
        cluster.delete(slices).await.expect(200);
        super::super::bootstrap::first_objects(&cluster.server.state)
            .await
            .expect("written");
        let own = cluster
            .get(&format!("{SERVICES}/kubernetes"))
            .await
            .expect(200);
        assert_eq!(own["spec"]["clusterIP"], "10.96.0.1");
        cluster.get(slices).await.expect(200);
    }
}

#[tokio::test]
async fn what_others_label_the_servers_own_service_stays() {
    let cluster = Cluster::start().await;
    let path = format!("{SERVICES}/kubernetes");
    let labels = json!({"metadata": {"labels": {"team": "a", "provider": "b"}}});
    cluster.merge(&path, labels).await.expect(200);
    super::super::bootstrap::first_objects(&cluster.server.state)
        .await
        .expect("written");
    let own = cluster.get(&path).await.expect(200);
    let labels = json!({"component": "apiserver", "provider": "kubernetes", "team": "a"});
    assert_eq!(own["metadata"]["labels"], labels);
}

#[tokio::test]
async fn nobody_in_particular_learns_only_that_the_server_is_well() {
    let cluster = Cluster::start().await.as_user(User::anonymous());
    for path in ["/livez", "/readyz", "/healthz", "/version"] {
        cluster.get(path).await.expect(200);
    }
    for path in ["/api", "/apis", "/openapi/v2", "/", PODS] {
        cluster.get(path).await.expect(403);
    }
    let refused = cluster.get(PODS).await;
    assert_eq!(
        refused.message(),
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \
         \"\" in the namespace \"default\""
    );
}

#[tokio::test]
async fn a_node_writes_about_itself_and_its_pods_only() {
    let admin = Cluster::start().await;
    let identity = Identity::new("system:node:one", &["system:nodes"]);
    let node = admin.as_user(User::from_certificate(identity));
    let object = |name: &str| json!({"metadata": {"name": name}});
    node.post("/api/v1/nodes", object("two")).await.expect(403);
    node.post("/api/v1/nodes", object("one")).await.expect(403);
    admin.post("/api/v1/nodes", object("one")).await.expect(201);
    for (name, host) in [("mine", "one"), ("other", "two")] {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = host.into();
        admin.post(PODS, pod).await.expect(201);
    }
    let status = json!({"status": {"phase": "Running"}});
    node.merge(&format!("{PODS}/mine/status"), status.clone())
        .await
        .expect(200);
    node.merge(&format!("{PODS}/other/status"), status.clone())
        .await
        .expect(403);
    node.merge(&format!("{PODS}/mine"), json!({"metadata": {"labels": {}}}))
        .await
        .expect(403);
    node.get(PODS).await.expect(403);
    node.post(CONFIG_MAPS, config_map("a")).await.expect(403);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    node.post(leases, object("one")).await.expect(201);
    node.post(leases, object("two")).await.expect(403);
    let lease = json!({"spec": {"holderIdentity": "one"}});
    node.merge(&format!("{leases}/one"), lease)
        .await
        .expect(200);
}

#[tokio::test]
async fn everybody_with_a_name_learns_what_it_may_do() {
    let admin = Cluster::start().await;
    let identity = Identity::new("system:node:one", &["system:nodes"]);
    let node = admin.as_user(User::from_certificate(identity));
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let ask = |verb: &str, resource: &str| {
        let attributes = json!({"verb": verb, "resource": resource, "namespace": "default"});
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes}})
    };
    let cases = [
        (&node, "list", "services", true),
        (&node, "list", "pods", false),
        // Mirrors of its static pods.
        (&node, "create", "pods", true),
        (&node, "get", "nothing", false),
        (&admin, "create", "pods", true),
        (&admin, "*", "*", true),
    ];
    for (user, verb, resource, allowed) in cases {
        let answer = user.post(path, ask(verb, resource)).await.expect(201);
        assert_eq!(answer["status"]["allowed"], allowed, "{verb} {resource}");
    }
    let version = json!({"spec": {"nonResourceAttributes": {"path": "/version", "verb": "get"}}});
    let answer = node.post(path, version).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    node.post(path, json!({"spec": {}})).await.expect(422);
    let nobody = admin.as_user(User::anonymous());
    nobody.post(path, ask("list", "pods")).await.expect(403);
    admin.get(path).await.expect(405);
}

#[tokio::test]
async fn a_pod_of_a_service_account_that_is_not_there_is_refused() {
    let cluster = Cluster::start().await;
    let mut stranger = pod("web");
    stranger["spec"]["serviceAccountName"] = "nobody".into();
    let refused = cluster.post(PODS, stranger.clone()).await;
    assert_eq!(
        refused.message(),
        "pods \"web\" is forbidden: error looking up service account default/nobody: \
         serviceaccount \"nobody\" not found"
    );
    refused.expect(403);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "nobody"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.post(accounts, account).await.expect(201);
    cluster.post(PODS, stranger).await.expect(201);
    // A namespace and the account of its pods are there in the same moment.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}});
    cluster
        .post("/api/v1/namespaces", namespace)
        .await
        .expect(201);
    let made = cluster
        .post("/api/v1/namespaces/new/pods", pod("web"))
        .await
        .expect(201);
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["serviceAccount"], "default");
}

#[tokio::test]
async fn a_pod_has_the_priority_of_a_class_that_there_is() {
    let cluster = Cluster::start().await;
    let mut critical = pod("dns");
    critical["spec"]["priorityClassName"] = "system-cluster-critical".into();
    let made = cluster.post(PODS, critical).await.expect(201);
    assert_eq!(made["spec"]["priority"], 2_000_000_000);
    let mut unknown = pod("web");
    unknown["spec"]["priorityClassName"] = "high".into();
    let refused = cluster.post(PODS, unknown).await;
    assert!(
        refused
            .message()
            .ends_with("no PriorityClass with name high was found")
    );
    refused.expect(403);
}

#[tokio::test]
async fn nobody_chooses_the_uid_of_an_object() {
    let cluster = Cluster::start().await;
    let mut named = pod("web");
    named["metadata"]["uid"] = "../../etc".into();
    let made = cluster.post(PODS, named).await.expect(201);
    let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
    assert_eq!(uid.len(), 36, "{uid}");
    let path = format!("{PODS}/web");
    let changed = json!({"metadata": {"uid": "0dbb31e4-11b1-4e4c-a01c-8a0ff5f5d3b7"}});
    for path in [path.clone(), format!("{path}/status")] {
        assert_eq!(cluster.merge(&path, changed.clone()).await.code, 409);
    }
}

#[tokio::test]
async fn a_pod_without_pull_secrets_has_those_of_its_service_account_and_its_node_may_read_them() {
    let cluster = Cluster::start().await;
    let base = "/api/v1/namespaces/default";
    let account = json!({"metadata": {"name": "puller"}, "imagePullSecrets": [{"name": "pull"}]});
    let accounts = format!("{base}/serviceaccounts");
    cluster.post(&accounts, account).await.expect(201);
    for name in ["pull", "own"] {
        let secret = json!({"metadata": {"name": name}});
        let made = cluster.post(&format!("{base}/secrets"), secret).await;
        made.expect(201);
    }
    let identity = Identity::new("system:node:one", &["system:nodes"]);
    let node = cluster.as_user(User::from_certificate(identity));
    let secret = |name: &str| format!("{base}/secrets/{name}");
    node.get(&secret("pull")).await.expect(403);
    let mut given = pod("given");
    given["spec"]["serviceAccountName"] = "puller".into();
    given["spec"]["nodeName"] = "one".into();
    let mut own = given.clone();
    own["metadata"]["name"] = "own".into();
    own["spec"]["imagePullSecrets"] = json!([{"name": "own"}]);
    let made = cluster.post(PODS, own).await.expect(201);
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "own"}]));
    node.get(&secret("pull")).await.expect(403);
    let made = cluster.post(PODS, given.clone()).await.expect(201);
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    node.get(&secret("pull")).await.expect(200);
    // Its manifest, sent again.
    let path = format!("{PODS}/given");
    let again = cluster.put(&path, given).await.expect(200);
    assert_eq!(again["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
}
