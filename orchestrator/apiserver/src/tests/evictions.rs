//! Evictions and the budgets that stand in their way.

use futures::future::join_all;

use super::*;

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// So many pods that serve, which one budget selects.
async fn make_pods(cluster: &Cluster, count: usize) {
    for number in 0..count {
        let name = format!("db-{number}");
        let mut pod = pod(&name);
        pod["metadata"]["labels"] = json!({"app": "db"});
        pod["spec"]["nodeName"] = "one".into();
        cluster.post(PODS, pod).await.expect(201);
        set_ready(cluster, &name, "True").await;
    }
}

async fn set_ready(cluster: &Cluster, name: &str, ready: &str) {
    let conditions = json!([{"type": "Ready", "status": ready}]);
    let status = json!({"status": {"phase": "Running", "conditions": conditions}});
    let path = format!("{PODS}/{name}/status");
    cluster.merge(&path, status).await.expect(200);
}

async fn make_budget(cluster: &Cluster, name: &str) {
    let selector = json!({"matchLabels": {"app": "db"}});
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": name}, "spec": {"minAvailable": 2, "selector": selector}});
    cluster.post(BUDGETS, budget).await.expect(201);
}

/// What the budget's controller would say.
async fn allow(cluster: &Cluster, disruptions: usize) {
    let status = json!({"observedGeneration": 1, "disruptionsAllowed": disruptions,
        "currentHealthy": 2 + disruptions, "desiredHealthy": 2, "expectedPods": 6});
    let path = format!("{BUDGETS}/db/status");
    let body = json!({"status": status});
    cluster.merge(&path, body).await.expect(200);
}

async fn evict(cluster: &Cluster, name: &str, options: Value) -> Answer {
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": name}, "deleteOptions": options});
    cluster.post(&format!("{PODS}/{name}/eviction"), body).await
}

#[tokio::test]
async fn an_eviction_is_refused_until_the_budget_allows_it() {
    let cluster = Cluster::start().await;
    make_pods(&cluster, 3).await;
    make_budget(&cluster, "db").await;
    let early = evict(&cluster, "db-0", json!({})).await;
    assert_eq!(
        early.headers["retry-after"], "10",
        "its status is not of it yet"
    );
    early.expect(429);
    allow(&cluster, 0).await;
    let refused = evict(&cluster, "db-0", json!({})).await;
    assert!(!refused.headers.contains_key("retry-after"));
    let refused = refused.expect(429);
    assert_eq!(refused["reason"], "TooManyRequests");
    assert_eq!(
        refused["message"],
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(
        refused["details"]["causes"][0],
        json!({"reason": "DisruptionBudget",
            "message": "The disruption budget db needs 2 healthy pods and has 2 currently"})
    );
    allow(&cluster, 1).await;
    evict(&cluster, "db-0", json!({"dryRun": ["All"]}))
        .await
        .expect(201);
    evict(&cluster, "db-0", json!({})).await.expect(201);
    evict(&cluster, "db-1", json!({})).await.expect(429);
    let budget = cluster.get(&format!("{BUDGETS}/db")).await.expect(200);
    assert!(budget["status"]["disruptedPods"]["db-0"].is_string());
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
}

#[tokio::test]
async fn evictions_that_meet_take_no_more_than_is_allowed() {
    let cluster = Cluster::start().await;
    make_pods(&cluster, 6).await;
    make_budget(&cluster, "db").await;
    allow(&cluster, 2).await;
    let names: Vec<String> = (0..6).map(|number| format!("db-{number}")).collect();
    let evictions = names.iter().map(|name| evict(&cluster, name, json!({})));
    let answers = join_all(evictions).await;
    let count = |code: u16| answers.iter().filter(|it| it.code == code).count();
    assert_eq!((count(201), count(429)), (2, 4), "{answers:?}");
}

#[tokio::test]
async fn a_pod_of_two_budgets_is_not_evicted() {
    let cluster = Cluster::start().await;
    make_pods(&cluster, 1).await;
    make_budget(&cluster, "db").await;
    make_budget(&cluster, "other").await;
    let refused = evict(&cluster, "db-0", json!({})).await;
    assert_eq!(
        refused.message(),
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    );
    refused.expect(500);
}

#[tokio::test]
async fn pods_that_do_not_serve_go_without_the_budget_s_leave() {
    let cluster = Cluster::start().await;
    make_pods(&cluster, 3).await;
    make_budget(&cluster, "db").await;
    allow(&cluster, 0).await;
    set_ready(&cluster, "db-0", "False").await;
    evict(&cluster, "db-0", json!({})).await.expect(201);
    let failed = json!({"status": {"phase": "Failed"}});
    let path = format!("{PODS}/db-1/status");
    cluster.merge(&path, failed).await.expect(200);
    evict(&cluster, "db-1", json!({})).await.expect(201);
    let budget = cluster.get(&format!("{BUDGETS}/db")).await.expect(200);
    assert!(
        budget["status"]["disruptedPods"].is_null(),
        "nothing was taken"
    );
    evict(&cluster, "db-2", json!({})).await.expect(429);
}
