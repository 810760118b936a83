//! Lists: selectors, pages, freshness, tables.

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
