//! Names since 1.20 of sig-auth that need controllers; the others are in `apiserver/tests/conformance_auth.rs`.

use serde_json::json;
use tests::hollow::Hollow;

const ROOT_CA: &str = "/api/v1/namespaces/new/configmaps/kube-root-ca.crt";

#[tokio::test(flavor = "multi_thread")]
async fn service_accounts_should_guarantee_kube_root_ca_crt_exist_in_any_namespace() {
    let cluster = Hollow::start().await;
    let namespace = json!({"metadata": {"name": "new"}});
    cluster.make("/api/v1/namespaces", namespace).await;
    let first = cluster
        .wait(ROOT_CA, |it| it["data"]["ca.crt"].is_string())
        .await;
    cluster.must("DELETE", ROOT_CA, json!({})).await;
    let again = |it: &serde_json::Value| {
        it["data"] == first["data"] && it["metadata"]["uid"] != first["metadata"]["uid"]
    };
    let second = cluster.wait(ROOT_CA, again).await;
    let changed = json!({"data": {"ca.crt": ""}});
    cluster.must("PATCH", ROOT_CA, changed).await;
    let right = |it: &serde_json::Value| {
        it["data"] == first["data"] && it["metadata"]["uid"] == second["metadata"]["uid"]
    };
    cluster.wait(ROOT_CA, right).await;
}
