//! What a pod is given by its ServiceAccount, and refused for it.

use super::*;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

fn pod_with(name: &str, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn mounts(container: &Value) -> Vec<&str> {
    let mounts = items(&container["volumeMounts"]);
    mounts
        .filter_map(|mount| mount["mountPath"].as_str())
        .collect()
}

#[tokio::test]
async fn a_pod_is_given_the_token_of_its_service_account() {
    let cluster = Cluster::start().await;
    let own = json!([{"name": "own", "mountPath": MOUNT_PATH}]);
    let spec = json!({
        "initContainers": [{"name": "i", "image": "i"}],
        "containers": [{"name": "c", "image": "i"},
            {"name": "d", "image": "i", "volumeMounts": own}],
        "volumes": [{"name": "own", "emptyDir": {}}],
    });
    let made = cluster.post(PODS, pod_with("p", spec)).await.expect(201);
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    let added = &spec["volumes"][1];
    let name = added["name"].as_str().expect("a name");
    assert!(
        name.starts_with(VOLUME) && name.len() == VOLUME.len() + 5,
        "{name}"
    );
    let namespace = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    assert_eq!(
        *added,
        json!({"name": name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
        ]}})
    );
    for container in [&spec["initContainers"][0], &spec["containers"][0]] {
        let mount = json!([{"name": name, "readOnly": true, "mountPath": MOUNT_PATH}]);
        assert_eq!(container["volumeMounts"], mount);
    }
    assert_eq!(mounts(&spec["containers"][1]), [MOUNT_PATH]);
    assert_eq!(spec["containers"][1]["volumeMounts"][0]["name"], "own");
}

#[tokio::test]
async fn a_pod_or_its_service_account_may_want_no_token() {
    let cluster = Cluster::start().await;
    let mut quiet = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "quiet"}, "automountServiceAccountToken": false,
        "imagePullSecrets": [{"name": "registry"}]});
    cluster.post(ACCOUNTS, quiet.take()).await.expect(201);
    for (name, spec, mounted) in [
        ("a", json!({"automountServiceAccountToken": false}), false),
        ("b", json!({"serviceAccountName": "quiet"}), false),
        (
            "c",
            json!({"serviceAccount": "quiet", "automountServiceAccountToken": true}),
            true,
        ),
    ] {
        let made = cluster.post(PODS, pod_with(name, spec)).await.expect(201);
        let is_mounted = !mounts(&made["spec"]["containers"][0]).is_empty();
        assert_eq!(is_mounted, mounted, "{name}");
        let pull = items(&made["spec"]["imagePullSecrets"]).count();
        assert_eq!(pull, usize::from(name != "a"), "{name}");
    }
    let spec = json!({"serviceAccountName": "nobody"});
    let refused = cluster.post(PODS, pod_with("d", spec)).await;
    assert_eq!(
        refused.body["message"],
        "pods \"d\" is forbidden: error looking up service account default/nobody: serviceaccount \
         \"nobody\" not found"
    );
    refused.expect(403);
}

#[tokio::test]
async fn a_mirror_pod_has_no_service_account_and_no_secrets() {
    let cluster = Cluster::start().await;
    let mirror = |name: &str, spec: Value| {
        let mut pod = pod_with(name, spec);
        pod["metadata"]["annotations"] = json!({MIRROR: "hash"});
        pod
    };
    let made = cluster.post(PODS, mirror("a", json!({}))).await.expect(201);
    assert!(mounts(&made["spec"]["containers"][0]).is_empty());
    for (spec, why) in [
        (json!({"serviceAccountName": "default"}), "service accounts"),
        (
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
            "secrets",
        ),
        (
            json!({"volumes": [{"name": "v", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t"}}]}}]}),
            "ServiceAccountToken volume projections",
        ),
    ] {
        let refused = cluster.post(PODS, mirror("b", spec)).await;
        let said = refused.body["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(said.contains(why), "{said}");
        refused.expect(403);
    }
}

#[tokio::test]
async fn a_service_account_may_name_all_secrets_that_its_pods_see() {
    let cluster = Cluster::start().await;
    let strict = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "strict", "annotations": {ENFORCE: "true"}},
        "secrets": [{"name": "known"}]});
    cluster.post(ACCOUNTS, strict).await.expect(201);
    let try_it = async |name: &str, mut spec: Value| {
        spec["serviceAccountName"] = "strict".into();
        cluster.post(PODS, pod_with(name, spec)).await
    };
    let volume =
        |secret: &str| json!({"volumes": [{"name": "v", "secret": {"secretName": secret}}]});
    try_it("a", volume("known")).await.expect(201);
    let refused = try_it("b", volume("other")).await;
    assert_eq!(
        refused.body["message"],
        "pods \"b\" is forbidden: volume with secret.secretName=\"other\" is not allowed because \
         service account strict does not reference that secret"
    );
    let env = json!({"containers": [{"name": "c", "image": "i", "env": [{"name": "E",
        "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}}]}]});
    let refused = try_it("c", env).await;
    let said = refused.body["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(said.contains("container c with envVar E referencing secret.secretName=\"other\""));
    refused.expect(403);
    let pull = json!({"imagePullSecrets": [{"name": "known"}]});
    try_it("d", pull).await.expect(403);
}
