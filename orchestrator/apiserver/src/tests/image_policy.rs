//! The example of an image policy (`manifests/image-policy.yaml`), as users apply it.

use super::*;

const EXAMPLE: &str = include_str!("../../../../manifests/image-policy.yaml");
const SHOP_PODS: &str = "/api/v1/namespaces/shop/pods";
const SHOP_MAPS: &str = "/api/v1/namespaces/shop/configmaps";
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn running(name: &str, image: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["image"] = image.into();
    pod
}

impl Cluster {
    /// With the example, and a namespace `shop` under it.
    async fn with_image_policy() -> Self {
        let cluster = Self::start().await;
        let documents = api::decode::documents(EXAMPLE.as_bytes()).expect("YAML");
        assert_eq!(documents.len(), 2);
        let group = "/apis/admissionregistration.k8s.io/v1";
        for (document, plural) in documents.into_iter().zip([
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
        ]) {
            let made = cluster.post(&format!("{group}/{plural}"), document).await;
            made.expect(201);
        }
        let shop = json!({"metadata": {"name": "shop", "labels": {"image-policy": "enforced"}}});
        cluster.post("/api/v1/namespaces", shop).await.expect(201);
        cluster
    }

    async fn allow(&self, data: Value) {
        let map = json!({"metadata": {"name": "image-policy"}, "data": data});
        self.delete(&format!("{SHOP_MAPS}/image-policy")).await;
        self.post(SHOP_MAPS, map).await.expect(201);
    }

    /// Why a pod with this image is refused; empty if it is not. Nothing is stored.
    async fn refuses(&self, pod: Value) -> String {
        let answer = self.post(&format!("{SHOP_PODS}?dryRun=All"), pod).await;
        match answer.code.as_u16() {
            201 => String::new(),
            403 => answer.message().to_owned(),
            _ => panic!("{}", answer.body),
        }
    }
}

#[tokio::test]
async fn a_namespace_runs_images_of_its_registries_only() {
    let cluster = Cluster::with_image_policy().await;
    let refused = cluster.post(SHOP_PODS, pod("p")).await;
    assert!(
        refused
            .message()
            .contains("no params found for policy binding")
    );
    cluster.post(PODS, pod("p")).await.expect(201);
    let registries = "registry.example.com/shop, mirror.example.com:5000,docker.io/library/nginx";
    cluster.allow(json!({"registries": registries})).await;
    for image in [
        "registry.example.com/shop/web:1.0",
        "registry.example.com/shop/team/web",
        "registry.example.com/shop:1.0",
        "mirror.example.com:5000/any",
        "nginx",
        "nginx:1.27",
        "docker.io/library/nginx",
    ] {
        assert_eq!(cluster.refuses(running("p", image)).await, "", "{image}");
    }
    for image in [
        "redis",
        "evil/nginx",
        "nginx2",
        "registry.example.com/shopping/web",
        "registry.example.com/other",
        "registry.example.com:5000/shop/web",
        "registry.example.com.evil.org/shop/web",
        "registry.example.com/shop/../other/web",
        "mirror.example.com/any",
        "mirror.example.com:50001/any",
        "localhost/nginx",
        "ghcr.io/library/nginx",
    ] {
        let why = cluster.refuses(running("p", image)).await;
        assert!(
            why.contains("images of this namespace come from"),
            "{image}: {why:?}"
        );
    }
    let why = cluster.refuses(running("p", "redis")).await;
    assert_eq!(
        why,
        "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'image-policy' with binding \
         'image-policy' denied request: images of this namespace come from \
         registry.example.com/shop, mirror.example.com:5000, docker.io/library/nginx, not \
         docker.io/library/redis"
    );
}

#[tokio::test]
async fn init_containers_and_image_volumes_are_judged_too() {
    let cluster = Cluster::with_image_policy().await;
    cluster
        .allow(json!({"registries": "docker.io/library/"}))
        .await;
    let mut sidecar = pod("p");
    sidecar["spec"]["initContainers"] = json!([{"name": "i", "image": "evil.org/x"}]);
    let why = cluster.refuses(sidecar).await;
    assert!(why.ends_with("not evil.org/x"), "{why}");
    let mut volume = pod("p");
    volume["spec"]["volumes"] = json!([{"name": "v", "image": {"reference": "evil.org/data"}}]);
    let why = cluster.refuses(volume).await;
    assert!(why.ends_with("not evil.org/data"), "{why}");
}

#[tokio::test]
async fn ephemeral_containers_are_judged_too() {
    let cluster = Cluster::with_image_policy().await;
    cluster
        .allow(json!({"registries": "docker.io/library/"}))
        .await;
    cluster.post(SHOP_PODS, pod("p")).await.expect(201);
    let path = format!("{SHOP_PODS}/p/ephemeralcontainers");
    let debug =
        |image: &str| json!({"spec": {"ephemeralContainers": [{"name": "d", "image": image}]}});
    let refused = cluster.merge(&path, debug("evil.org/shell")).await;
    assert!(refused.message().ends_with("not evil.org/shell"));
    refused.expect(403);
    cluster.merge(&path, debug("busybox")).await.expect(200);
}

#[tokio::test]
async fn digests_can_be_required() {
    let cluster = Cluster::with_image_policy().await;
    let data = json!({"registries": "docker.io/library/", "digests": "required"});
    cluster.allow(data).await;
    for image in ["nginx", "nginx:1.27", "nginx@sha256:0123", "nginx@sha256:"] {
        let why = cluster.refuses(running("p", image)).await;
        assert!(
            why.contains("are named by digest, unlike docker.io/library/nginx"),
            "{why}"
        );
    }
    for image in [format!("nginx@{DIGEST}"), format!("nginx:1.27@{DIGEST}")] {
        assert_eq!(cluster.refuses(running("p", &image)).await, "", "{image}");
    }
}

#[tokio::test]
async fn a_pod_that_was_there_before_changes_its_labels_and_not_its_image() {
    let cluster = Cluster::with_image_policy().await;
    cluster
        .allow(json!({"registries": "docker.io/library/nginx"}))
        .await;
    cluster.post(SHOP_PODS, pod("p")).await.expect(201);
    cluster
        .allow(json!({"registries": "registry.example.com"}))
        .await;
    let path = format!("{SHOP_PODS}/p");
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    cluster.merge(&path, label).await.expect(200);
    let image = |image: &str| json!([{"op": "replace", "path": "/spec/containers/0/image", "value": image}]);
    let patch = "application/json-patch+json";
    let change = image("nginx:2");
    cluster
        .call("PATCH", &path, patch, &change)
        .await
        .expect(403);
    let change = image("registry.example.com/nginx:2");
    cluster
        .call("PATCH", &path, patch, &change)
        .await
        .expect(200);
    cluster.delete(&path).await.expect(200);
}
