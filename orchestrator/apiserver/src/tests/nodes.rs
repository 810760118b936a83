//! What conformance of later versions says of nodes, by the names of its tests.

use super::*;

const NODES: &str = "/api/v1/nodes";

/// [sig-node] Node Lifecycle should run through the lifecycle of a node
#[tokio::test]
async fn a_node_runs_through_its_lifecycle() {
    let cluster = Cluster::start().await;
    let node = json!({"metadata": {"name": "e2e-fake-node", "labels": {"e2e": "fake"}},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.post(NODES, node).await.expect(201);
    let path = format!("{NODES}/e2e-fake-node");
    let found = cluster.get(&path).await.expect(200);
    assert_eq!(found["metadata"]["name"], "e2e-fake-node");
    let patch = json!({"metadata": {"labels": {"e2e": "patched"}}});
    let patched = cluster.merge(&path, patch).await.expect(200);
    assert_eq!(patched["metadata"]["labels"]["e2e"], "patched");
    let list = cluster
        .get(&format!("{NODES}?labelSelector=e2e%3Dpatched"))
        .await
        .expect(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let mut updated = patched;
    updated["metadata"]["labels"]["e2e"] = "updated".into();
    let updated = cluster.put(&path, updated).await.expect(200);
    assert_eq!(updated["metadata"]["labels"]["e2e"], "updated");
    let deleted = cluster
        .delete(&format!("{NODES}?labelSelector=e2e%3Dupdated"))
        .await;
    deleted.expect(200);
    cluster.get(&path).await.expect(404);
}
