//! Priority and fairness: what FlowSchemas and levels say counts at once.

use axum::http::{Method, Uri};

use super::*;

const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";

#[tokio::test]
async fn every_cluster_has_the_levels_and_schemas_of_kubernetes_and_answers_name_them() {
    let cluster = Cluster::start().await;
    let exempt = cluster.get(&format!("{SCHEMAS}/exempt")).await.expect(200);
    for name in ["catch-all", "system", "workload-high", "global-default"] {
        cluster.get(&format!("{LEVELS}/{name}")).await.expect(200);
    }
    let answer = cluster.get("/api/v1/pods").await;
    let named = &answer.headers["x-kubernetes-pf-flowschema-uid"];
    assert_eq!(named, exempt["metadata"]["uid"].as_str().expect("a uid"));
}

#[tokio::test]
async fn a_level_that_is_full_refuses_its_callers_and_no_other() {
    let cluster = Cluster::start().await;
    let level = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "PriorityLevelConfiguration", "metadata": {"name": "small"},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0,
            "limitResponse": {"type": "Reject"}}}});
    cluster.post(LEVELS, level).await.expect(201);
    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"name": "noisy"},
        "spec": {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "small"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "noisy"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                    "namespaces": ["*"], "clusterScope": true}]}]}});
    cluster.post(SCHEMAS, schema).await.expect(201);
    let state = &cluster.server.state;
    let user = |name: &str| User {
        name: name.into(),
        ..User::anonymous()
    };
    let uri = Uri::from_static("/api/v1/pods");
    let enter = async |user: &User, lasts: bool| {
        let asked = (&Method::GET, &uri);
        state
            .flows
            .enter(&state.objects.cache, user, asked, lasts)
            .await
            .map_err(|error| error.code())
    };
    let seat = enter(&user("noisy"), false).await.expect("a seat");
    assert_eq!(enter(&user("noisy"), false).await.err(), Some(429));
    assert!(
        enter(&user("noisy"), true).await.is_ok(),
        "a watch takes none"
    );
    assert!(enter(&user("other"), false).await.is_ok());
    drop(seat);
    assert!(enter(&user("noisy"), false).await.is_ok());
}
