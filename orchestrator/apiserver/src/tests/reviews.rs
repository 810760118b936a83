//! Questions that are answered and not kept, and what is made when it is asked for.

use super::*;

const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

fn review(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec})
}

#[tokio::test]
async fn a_caller_is_told_who_it_is() {
    let cluster = Cluster::start().await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let someone = cluster.as_user(User::named("ann", vec!["dev".into()]));
    let answer = someone.post(path, body.clone()).await.expect(201);
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "ann", "groups": ["dev", "system:authenticated"]})
    );
    let nobody = cluster.as_user(User::anonymous());
    nobody.post(path, body).await.expect(403);
}

#[tokio::test]
async fn whether_somebody_may_do_something_is_asked_by_who_may_ask() {
    let cluster = Cluster::start().await;
    let path = format!("{AUTHORIZATION}/subjectaccessreviews");
    let wish = json!({"verb": "get", "resource": "secrets", "namespace": "default"});
    let ask = |spec: Value| review("SubjectAccessReview", spec);
    let of = |user: &str, groups: &[&str]| {
        ask(json!({"user": user, "groups": groups, "resourceAttributes": wish}))
    };
    let allowed = |answer: Value| answer["status"]["allowed"].as_bool();
    let answer = cluster.post(&path, of("root", &["system:masters"])).await;
    assert_eq!(allowed(answer.expect(201)), Some(true));
    let answer = cluster.post(&path, of("ann", &[])).await.expect(201);
    assert_eq!(allowed(answer), Some(false));
    let nobody = ask(json!({"resourceAttributes": wish}));
    let refused = cluster.post(&path, nobody).await;
    assert!(
        refused.message().contains(
            "spec.user: Invalid value: \"\": at least one of user or group must be specified"
        ),
        "{}",
        refused.body
    );
    refused.expect(422);
    let both = ask(json!({"user": "ann", "resourceAttributes": wish,
        "nonResourceAttributes": {"path": "/", "verb": "get"}}));
    cluster.post(&path, both).await.expect(422);
    let ann = cluster.as_user(User::named("ann", vec![]));
    ann.post(&path, of("root", &[])).await.expect(403);
}

#[tokio::test]
async fn a_local_question_is_about_its_own_namespace() {
    let cluster = Cluster::start().await;
    let path = format!("{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews");
    let ask = |namespace: &str| {
        review(
            "LocalSubjectAccessReview",
            json!({"user": "ann",
            "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": namespace}}),
        )
    };
    let answer = cluster.post(&path, ask("default")).await.expect(201);
    assert_eq!(answer["status"]["allowed"], false);
    cluster.post(&path, ask("other")).await.expect(422);
}

#[tokio::test]
async fn a_caller_is_told_what_it_may_do() {
    let cluster = Cluster::start().await;
    let path = format!("{AUTHORIZATION}/selfsubjectrulesreviews");
    let ask = || review("SelfSubjectRulesReview", json!({"namespace": "default"}));
    let all = cluster.post(&path, ask()).await.expect(201);
    assert_eq!(
        all["status"]["resourceRules"][0],
        json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
    );
    let ann = cluster.as_user(User::named("ann", vec![]));
    let few = ann.post(&path, ask()).await.expect(201);
    let rules = few["status"]["resourceRules"]
        .as_array()
        .into_iter()
        .flatten();
    let names: Vec<&Value> = rules.map(|rule| &rule["resources"]).collect();
    assert_eq!(
        names,
        [
            &json!(["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
            &json!(["selfsubjectreviews"]),
        ]
    );
    assert_eq!(few["status"]["incomplete"], false);
    let paths = few["status"]["nonResourceRules"].to_string();
    assert!(paths.contains("/openapi/*"), "{paths}");
    let nothing = review("SelfSubjectRulesReview", json!({}));
    ann.post(&path, nothing).await.expect(422);
}

#[tokio::test]
async fn the_parts_of_the_control_plane_are_well() {
    let cluster = Cluster::start().await;
    let list = cluster.get("/api/v1/componentstatuses").await.expect(200);
    assert_eq!(list["kind"], "ComponentStatusList");
    let items = list["items"].as_array().expect("items");
    assert_eq!(items.len(), 3);
    assert_eq!(items[0]["conditions"][0]["status"], "True");
    let one = cluster
        .get("/api/v1/componentstatuses/scheduler")
        .await
        .expect(200);
    assert_eq!(one["metadata"]["name"], "scheduler");
    cluster
        .get("/api/v1/componentstatuses/other")
        .await
        .expect(404);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = cluster
        .get_as("/api/v1/componentstatuses", accept)
        .await
        .expect(200);
    assert_eq!(table["rows"][2]["cells"][1], "Healthy");
}

/// Servers with support for Table transformation should return a 406 for a backend which does not
/// implement metadata
#[tokio::test]
async fn an_answer_to_a_question_has_no_table() {
    let cluster = Cluster::start().await;
    let question = json!({"apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let ask = async |accept: &str| {
        let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept)
            .body(Body::from(question.to_string()));
        Answer::of(cluster.send(request.expect("a request")).await).await
    };
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let refused = ask(table).await;
    assert_eq!(refused.body["reason"], "NotAcceptable");
    refused.expect(406);
    let answered = ask(&format!("{table}, application/json")).await.expect(201);
    assert_eq!(answered["kind"], "SelfSubjectAccessReview");
}
