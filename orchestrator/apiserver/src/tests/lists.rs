//! Lists: selectors, pages, freshness, tables.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

async fn with_pods(names: &[&str]) -> Cluster {
    let cluster = Cluster::start().await;
    for name in names {
        cluster.post(PODS, pod(name)).await.expect(201);
    }
    cluster
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect()
}

#[tokio::test]
async fn selectors_choose_what_is_listed() {
    let cluster = with_pods(&["a", "b", "c"]).await;
    for (query, expected) in [
        ("labelSelector=app%3Da", vec!["a"]),
        ("labelSelector=app%20notin%20(a,b)", vec!["c"]),
        ("labelSelector=!app", vec![]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=spec.nodeName%3D", vec!["a", "b", "c"]),
        ("fieldSelector=status.phase!%3DPending", vec![]),
        ("", vec!["a", "b", "c"]),
    ] {
        let list = cluster.get(&format!("{PODS}?{query}")).await.expect(200);
        assert_eq!(names(&list), expected, "{query}");
    }
    cluster
        .get(&format!("{PODS}?fieldSelector=spec.odd%3Db"))
        .await
        .expect(400);
    cluster
        .get(&format!("{PODS}?labelSelector=a%20in"))
        .await
        .expect(400);
}

#[tokio::test]
async fn pages_show_one_revision() {
    let cluster = with_pods(&["a", "b", "c", "d", "e"]).await;
    let first = cluster.get(&format!("{PODS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    cluster.delete(&format!("{PODS}/d")).await.expect(200);
    cluster.post(PODS, pod("f")).await.expect(201);
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = cluster
        .get(&format!("{PODS}?limit=2&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let token = second["metadata"]["continue"].as_str().expect("a token");
    let last = cluster
        .get(&format!("{PODS}?limit=2&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&last), ["e"]);
    assert!(last["metadata"].get("continue").is_none());
    cluster
        .get(&format!("{PODS}?continue=nonsense"))
        .await
        .expect(400);
}

#[tokio::test]
async fn pages_of_a_namespace_count_that_namespace_alone() {
    let cluster = with_pods(&["a", "b", "c"]).await;
    let other = "/api/v1/namespaces/kube-system/pods";
    for name in ["a", "b"] {
        cluster.post(other, pod(name)).await.expect(201);
    }
    let first = cluster.get(&format!("{PODS}?limit=1")).await.expect(200);
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    let all = cluster.get("/api/v1/pods?limit=4").await.expect(200);
    assert_eq!(all["metadata"]["remainingItemCount"], 1);
    // A token of one list says no more than a place to another.
    let token = all["metadata"]["continue"].as_str().expect("a token");
    let foreign = cluster
        .get(&format!("{PODS}?limit=4&continue={token}"))
        .await;
    assert_eq!(names(&foreign.expect(200)), [""; 0]);
}

#[tokio::test]
async fn an_expired_token_is_exchanged_for_one_that_goes_on_with_what_is_there_now() {
    let cluster = with_pods(&["a", "b", "c"]).await;
    // As if the first page had been read before the server was started, and the store compacted since.
    let key = "/registry/core/pods/default/a";
    let token = format!(r#"{{"v":"meta.k8s.io/v1","rv":1,"start":"{key}"}}"#);
    let token = URL_SAFE_NO_PAD.encode(token);
    let store = &cluster.server.state.objects.store;
    store.compact(store.revision()).await.expect("compacted");
    cluster.post(PODS, pod("bb")).await.expect(201);
    let late = cluster
        .get(&format!("{PODS}?limit=1&continue={token}"))
        .await;
    assert!(late.message().starts_with(
        "The provided continue parameter is too old to display a consistent list result. You can \
         start a new list without the continue parameter, or use the continue token in this response"
    ));
    let status = late.expect(410);
    assert_eq!(status["reason"], "Expired");
    let token = status["metadata"]["continue"].as_str().expect("a token");
    let rest = cluster
        .get(&format!("{PODS}?continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&rest), ["b", "bb", "c"]);
}

#[tokio::test]
async fn pods_of_a_node_are_listed_by_index_as_by_looking_at_all() {
    let cluster = with_pods(&["a", "b", "c"]).await;
    let bind = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": node}});
    for (pod, node) in [("a", "one"), ("b", "two"), ("c", "one")] {
        let path = format!("{PODS}/{pod}/binding");
        cluster.post(&path, bind(node)).await.expect(201);
    }
    for (query, expected) in [
        ("fieldSelector=spec.nodeName%3Done", vec!["a", "c"]),
        (
            "fieldSelector=spec.nodeName%3Done&labelSelector=app%3Dc",
            vec!["c"],
        ),
        ("fieldSelector=spec.nodeName%3Done&limit=1", vec!["a"]),
        ("fieldSelector=spec.nodeName%3D", vec![]),
        (
            "fieldSelector=metadata.name%3Db,spec.nodeName%3Done",
            vec![],
        ),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
    ] {
        let list = cluster.get(&format!("{PODS}?{query}")).await.expect(200);
        assert_eq!(names(&list), expected, "{query}");
    }
    cluster
        .delete(&format!("{PODS}/a?gracePeriodSeconds=0"))
        .await
        .expect(200);
    let query = "fieldSelector=spec.nodeName%3Done";
    let list = cluster
        .get(&format!("/api/v1/pods?{query}"))
        .await
        .expect(200);
    assert_eq!(names(&list), ["c"]);
}

#[tokio::test]
async fn pages_with_a_selector_are_full() {
    let cluster = with_pods(&["a", "b", "c", "d"]).await;
    let query = "labelSelector=app%20in%20(b,d)&limit=1";
    let first = cluster.get(&format!("{PODS}?{query}")).await.expect(200);
    assert_eq!(names(&first), ["b"]);
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = cluster
        .get(&format!("{PODS}?{query}&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&second), ["d"]);
}

#[tokio::test]
async fn an_exact_list_shows_the_past() {
    let cluster = with_pods(&["a"]).await;
    let then = cluster.get(PODS).await.expect(200)["metadata"]["resourceVersion"].clone();
    let then = then.as_str().expect("a revision");
    cluster.post(PODS, pod("b")).await.expect(201);
    let past = format!("{PODS}?resourceVersion={then}&resourceVersionMatch=Exact");
    assert_eq!(names(&cluster.get(&past).await.expect(200)), ["a"]);
    let fresh = format!("{PODS}?resourceVersion={then}");
    assert_eq!(names(&cluster.get(&fresh).await.expect(200)), ["a", "b"]);
}

#[tokio::test]
async fn a_table_has_kubernetes_columns_and_metadata_rows() {
    let cluster = with_pods(&["a"]).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = cluster.get_as(PODS, accept).await.expect(200);
    let columns = table["columnDefinitions"].as_array().into_iter().flatten();
    let columns: Vec<_> = columns
        .filter_map(|column| column["name"].as_str())
        .collect();
    assert_eq!(columns[..5], ["Name", "Ready", "Status", "Restarts", "Age"]);
    let row = &table["rows"][0];
    assert_eq!(
        row["cells"].as_array().map(|cells| &cells[..4]),
        Some(&[json!("a"), json!("0/1"), json!("Pending"), json!("0"),][..])
    );
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    let one = cluster
        .get_as(&format!("{PODS}/a?includeObject=None"), accept)
        .await
        .expect(200);
    assert_eq!(one["rows"][0]["object"], Value::Null);
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let partial = cluster.get_as(PODS, accept).await.expect(200);
    assert_eq!(partial["items"][0]["metadata"]["name"], "a");
    assert!(partial["items"][0].get("spec").is_none());
}
