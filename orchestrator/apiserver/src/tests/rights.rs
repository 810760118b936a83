//! Roles and bindings, as callers meet them.

use super::*;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn object(kind: &str, name: &str, more: Value) -> Value {
    let mut object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}});
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key.as_str()] = value.clone();
    }
    object
}

fn rules(verbs: &[&str], resources: &[&str]) -> Value {
    json!({"rules": [{"verbs": verbs, "apiGroups": [""], "resources": resources}]})
}

fn binding(role: (&str, &str), subject: (&str, &str)) -> Value {
    json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1},
        "subjects": [{"kind": subject.0, "name": subject.1}]})
}

impl Cluster {
    fn of(&self, name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        self.as_user(User::named(name, groups))
    }

    /// A role of the cluster and its binding to a user.
    async fn grant(&self, to: &str, verbs: &[&str], resources: &[&str]) {
        let role = object("ClusterRole", to, rules(verbs, resources));
        self.post(&format!("{RBAC}/clusterroles"), role)
            .await
            .expect(201);
        let bound = object(
            "ClusterRoleBinding",
            to,
            binding(("ClusterRole", to), ("User", to)),
        );
        let path = format!("{RBAC}/clusterrolebindings");
        self.post(&path, bound).await.expect(201);
    }
}

#[tokio::test]
async fn a_right_holds_from_the_answer_to_its_binding_to_the_answer_to_its_deletion() {
    let cluster = Cluster::start().await;
    let ann = cluster.of("ann", &[]);
    ann.get(PODS).await.expect(403);
    cluster.grant("ann", &["list"], &["pods"]).await;
    ann.get(PODS).await.expect(200);
    ann.get("/api/v1/pods").await.expect(200);
    ann.get(&format!("{PODS}/x")).await.expect(403);
    cluster
        .delete(&format!("{RBAC}/clusterrolebindings/ann"))
        .await
        .expect(200);
    ann.get(PODS).await.expect(403);
}

#[tokio::test]
async fn a_refusal_says_who_may_not_do_what_where() {
    let cluster = Cluster::start().await;
    let ann = cluster.of("ann", &["dev"]);
    let cases = [
        (
            PODS,
            "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the \
             namespace \"default\"",
        ),
        (
            "/apis/apps/v1/namespaces/x/deployments/web/scale",
            "deployments.apps \"web\" is forbidden: User \"ann\" cannot get resource \
             \"deployments/scale\" in API group \"apps\" in the namespace \"x\"",
        ),
        (
            "/api/v1/nodes",
            "nodes is forbidden: User \"ann\" cannot list resource \"nodes\" in API group \"\" at the \
             cluster scope",
        ),
        (
            "/api/v1/namespaces/x",
            "namespaces \"x\" is forbidden: User \"ann\" cannot get resource \"namespaces\" in API \
             group \"\" in the namespace \"x\"",
        ),
        (
            "/api/v1/nowhere",
            "nowhere is forbidden: User \"ann\" cannot list resource \"nowhere\" in API group \"\" at \
             the cluster scope",
        ),
        (
            "/metrics",
            "forbidden: User \"ann\" cannot get path \"/metrics\"",
        ),
        ("/", "forbidden: User \"ann\" cannot get path \"/\""),
    ];
    for (path, expected) in cases {
        let refused = ann.get(path).await;
        assert_eq!(refused.message(), expected);
        refused.expect(403);
    }
    let dangling = object(
        "RoleBinding",
        "b",
        binding(("Role", "lost"), ("User", "ann")),
    );
    let path = format!("{RBAC}/namespaces/default/rolebindings");
    cluster.post(&path, dangling).await.expect(201);
    let refused = ann.get(PODS).await;
    assert_eq!(
        refused.message(),
        "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the \
         namespace \"default\": RBAC: role.rbac.authorization.k8s.io \"lost\" not found"
    );
}

#[tokio::test]
async fn a_watch_of_one_name_needs_the_right_to_that_name_only() {
    let cluster = Cluster::start().await;
    let mut of_one = rules(&["list", "watch", "get"], &["configmaps"]);
    of_one["rules"][0]["resourceNames"] = json!(["mine"]);
    let role = object("Role", "one", of_one);
    let path = format!("{RBAC}/namespaces/default");
    cluster
        .post(&format!("{path}/roles"), role)
        .await
        .expect(201);
    let bound = object(
        "RoleBinding",
        "one",
        binding(("Role", "one"), ("User", "ann")),
    );
    cluster
        .post(&format!("{path}/rolebindings"), bound)
        .await
        .expect(201);
    let ann = cluster.of("ann", &[]);
    let narrowed = |to: &str| format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3D{to}");
    ann.get(&narrowed("mine")).await.expect(200);
    ann.get(&narrowed("other")).await.expect(403);
    ann.get(CONFIG_MAPS).await.expect(403);
    ann.get(&format!("{CONFIG_MAPS}/mine")).await.expect(404);
}

#[tokio::test]
async fn strangers_and_users_without_roles_may_ask_what_kubernetes_lets_them() {
    let cluster = Cluster::start().await;
    let (nobody, ann) = (cluster.as_user(User::anonymous()), cluster.of("ann", &[]));
    for path in ["/livez", "/readyz", "/healthz", "/version"] {
        nobody.get(path).await.expect(200);
    }
    for path in [
        "/api",
        "/apis",
        "/apis/apps/v1",
        "/openapi/v2",
        "/",
        "/metrics",
        PODS,
    ] {
        nobody.get(path).await.expect(403);
    }
    for path in [
        "/api",
        "/api/v1",
        "/apis",
        "/apis/apps",
        "/apis/apps/v1",
        "/openapi/v3",
    ] {
        ann.get(path).await.expect(200);
    }
    let service_account = cluster.of(
        "system:serviceaccount:default:ci",
        &["system:serviceaccounts", "system:serviceaccounts:default"],
    );
    service_account.get("/api").await.expect(200);
    service_account.get(PODS).await.expect(403);
}

#[tokio::test]
async fn the_default_roles_are_there_and_mended_when_the_server_starts() {
    let store = Arc::new(MemoryStore::default());
    let start = async || {
        let tasks = Tasks::new(Shutdown::new());
        let server = ApiServer::build(ServerConfig::default(), store.clone(), None, tasks).await;
        Cluster {
            server: server.expect("a server"),
            user: User::internal("test"),
        }
    };
    let cluster = start().await;
    let role = format!("{RBAC}/clusterroles/system:discovery");
    let made = cluster.get(&role).await.expect(200);
    assert_eq!(
        made["metadata"]["labels"],
        json!({"kubernetes.io/bootstrapping": "rbac-defaults"})
    );
    let other = format!("{RBAC}/clusterroles/system:basic-user");
    let others = cluster.get(&other).await.expect(200);
    // One lacks its rules and has another one, one is not to be touched, a binding lost its subjects.
    let own = json!([{"verbs": ["get"], "nonResourceURLs": ["/mine"]}]);
    cluster
        .merge(&role, json!({"rules": own}))
        .await
        .expect(200);
    let keep = json!({"metadata": {"annotations": {
        "rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []});
    cluster.merge(&other, keep).await.expect(200);
    let binding = format!("{RBAC}/clusterrolebindings/system:discovery");
    cluster
        .merge(&binding, json!({"subjects": null}))
        .await
        .expect(200);
    let gone = format!("{RBAC}/namespaces/kube-system/roles/system:controller:token-cleaner");
    cluster.delete(&gone).await.expect(200);
    let cluster = start().await;
    let mended = cluster.get(&role).await.expect(200);
    assert_eq!(mended["rules"][0], own[0]);
    let held: Vec<api::rbac::Rule> =
        serde_json::from_value(mended["rules"].clone()).expect("rules");
    let wanted: Vec<_> = serde_json::from_value(made["rules"].clone()).expect("rules");
    assert_eq!(api::rbac::missing(&held, &wanted), []);
    let kept = cluster.get(&other).await.expect(200);
    assert_eq!(kept["metadata"]["uid"], others["metadata"]["uid"]);
    assert!(kept["rules"].as_array().is_none_or(Vec::is_empty));
    let bound = cluster.get(&binding).await.expect(200);
    assert_eq!(bound["subjects"][0]["name"], "system:authenticated");
    cluster.get(&gone).await.expect(200);
    // Nothing is written where nothing is wrong.
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let again = start().await;
    assert_eq!(
        version(&again.get(&role).await.expect(200)),
        version(&mended)
    );
}
