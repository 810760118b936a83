//! Who waits until all nodes have applied a revision of EndpointSlices.

use super::*;
use sys::certificates::Identity;

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const APPLIED: &str = "/orchestrator/v1/applied";

fn node(name: &str) -> User {
    let identity = Identity::new(&format!("system:node:{name}"), &["system:nodes"]);
    User::from_certificate(identity)
}

/// A cluster with two Ready nodes and one that is away, and the revision of its newest slice.
async fn three_nodes() -> (Cluster, u64) {
    let admin = Cluster::start().await;
    for (name, ready) in [("one", "True"), ("two", "True"), ("away", "Unknown")] {
        let node = json!({"metadata": {"name": name}});
        admin.post("/api/v1/nodes", node).await.expect(201);
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let path = format!("/api/v1/nodes/{name}/status");
        admin.merge(&path, status).await.expect(200);
    }
    let slice = json!({"metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": []});
    let slice = admin.post(SLICES, slice).await.expect(201);
    let revision = slice["metadata"]["resourceVersion"].as_str();
    let revision = revision.and_then(|text| text.parse().ok());
    (admin, revision.expect("a revision"))
}

#[tokio::test]
async fn a_node_waits_until_all_ready_nodes_have_applied_a_revision_and_each_is_asked_only_then() {
    let (admin, revision) = three_nodes().await;
    let (one, two) = (admin.as_user(node("one")), admin.as_user(node("two")));
    let path = format!("{APPLIED}/{revision}?timeoutMs=5000");
    let now = format!("{APPLIED}/{revision}?timeoutMs=0");
    let behind = one.get(&now).await.expect(200);
    assert_eq!(behind["behind"], json!(["one", "two"]));

    let before = format!("{APPLIED}/{}", revision - 1);
    let told = two.post(&before, Value::Null).await.expect(200);
    assert_eq!(told["awaited"], revision, "somebody waits for more");

    let here = format!("{APPLIED}/{revision}");
    let says = |cluster: Cluster| {
        let here = here.clone();
        tokio::spawn(async move { cluster.post(&here, Value::Null).await })
    };
    let (first, second) = (
        says(one.as_user(node("one"))),
        says(two.as_user(node("two"))),
    );
    let behind = one.get(&path).await.expect(200);
    assert_eq!(behind["behind"], json!([]), "the third is not Ready");
    assert!(
        !first.is_finished() && !second.is_finished(),
        "nobody waits for more"
    );
    first.abort();
    second.abort();
}

#[tokio::test]
async fn nobody_waits_for_a_revision_that_no_slice_has_or_says_what_another_node_applied() {
    let (admin, revision) = three_nodes().await;
    let one = admin.as_user(node("one"));
    for wrong in [
        format!("{APPLIED}/{}?timeoutMs=0", revision + 1),
        format!("{APPLIED}/{}?timeoutMs=0", u64::MAX),
        format!("{APPLIED}/{revision}"),
        format!("{APPLIED}/web?timeoutMs=0"),
    ] {
        assert_eq!(one.get(&wrong).await.code, 400, "{wrong}");
    }
    let here = format!("{APPLIED}/{revision}?timeoutMs=0");
    let stranger = User::named("eve", Vec::new());
    for user in [User::anonymous(), stranger] {
        let user = admin.as_user(user);
        user.get(&here).await.expect(403);
        user.post(&here, Value::Null).await.expect(403);
    }
    admin.post(&here, Value::Null).await.expect(403);
    admin.get(&here).await.expect(200);
    let gone = admin.as_user(node("gone").showing(sys::certificates::Shown {
        key: "k".into(),
        ends: jiff::Timestamp::MAX,
        addresses: [].into(),
    }));
    gone.post(&here, Value::Null).await.expect(401);
}
