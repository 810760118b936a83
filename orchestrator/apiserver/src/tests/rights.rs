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

/// A user who reads pods and writes roles, and whoever else it is given the right to.
async fn writer_of_roles(cluster: &Cluster) -> Cluster {
    cluster.grant("ann", &["get", "list"], &["pods"]).await;
    let write = json!({"rules": [{"verbs": ["create", "update", "patch"],
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["roles", "clusterroles", "rolebindings", "clusterrolebindings"]}]});
    cluster.give("ann", "writer", write).await;
    cluster.of("ann", &["dev"])
}

impl Cluster {
    /// Makes a ClusterRole with these rules and gives it to a user.
    async fn give(&self, user: &str, role: &str, rules: Value) {
        let made = object("ClusterRole", role, rules);
        let bound = binding(("ClusterRole", role), ("User", user));
        let bound = object("ClusterRoleBinding", role, bound);
        for (plural, object) in [("clusterroles", made), ("clusterrolebindings", bound)] {
            let path = format!("{RBAC}/{plural}");
            self.post(&path, object).await.expect(201);
        }
    }
}

#[tokio::test]
async fn whoever_may_only_read_opens_no_stream_to_a_container() {
    let cluster = Cluster::start().await;
    let parts = ["exec", "attach", "portforward"];
    let resources = parts.map(|part| format!("pods/{part}"));
    let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
    cluster.grant("ann", &["get"], &resources).await;
    cluster.grant("bob", &["create", "get"], &resources).await;
    let (ann, bob) = (cluster.of("ann", &[]), cluster.of("bob", &[]));
    for part in parts {
        let path = format!("{PODS}/web/{part}?command=a");
        let refused = ann.get(&path).await;
        let why = format!("cannot create resource \"pods/{part}\"");
        assert!(refused.message().contains(&why), "{refused:?}");
        refused.expect(403);
        // There is no such pod, and no upgrade was asked for.
        assert_ne!(bob.get(&path).await.code, 403);
    }
}

#[tokio::test]
async fn who_writes_a_role_holds_its_rules() {
    let cluster = Cluster::start().await;
    let ann = writer_of_roles(&cluster).await;
    let path = |plural: &str| format!("{RBAC}/{plural}");
    let role = |name: &str, verbs: &[&str]| object("ClusterRole", name, rules(verbs, &["pods"]));
    ann.post(&path("clusterroles"), role("mine", &["get"]))
        .await
        .expect(201);
    let refused = ann
        .post(
            &path("clusterroles"),
            role("more", &["get", "delete", "watch"]),
        )
        .await;
    assert_eq!(
        refused.message(),
        "clusterroles.rbac.authorization.k8s.io \"more\" is forbidden: user \"ann\" (groups=[\"dev\" \
         \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}"
    );
    refused.expect(403);
    let mine = format!("{}/mine", path("clusterroles"));
    ann.merge(&mine, rules(&["delete"], &["pods"]))
        .await
        .expect(403);
    // What it had before, its owners and its name may be written all the same.
    ann.merge(&mine, json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .expect(200);
    cluster
        .merge(&mine, rules(&["delete"], &["pods"]))
        .await
        .expect(200);
    ann.merge(&mine, json!({"metadata": {"finalizers": ["a.b/c"]}}))
        .await
        .expect(200);
    ann.merge(&mine, json!({"metadata": {"labels": {"a": "c"}}}))
        .await
        .expect(403);
}

#[tokio::test]
async fn who_writes_an_aggregated_role_or_more_than_it_holds_may_escalate() {
    let cluster = Cluster::start().await;
    let ann = writer_of_roles(&cluster).await;
    let path = |plural: &str| format!("{RBAC}/{plural}");
    let mut gathers = object("ClusterRole", "gathers", rules(&["get"], &["pods"]));
    gathers["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    let refused = ann.post(&path("clusterroles"), gathers).await;
    assert!(
        refused
            .message()
            .ends_with("must have cluster-admin privileges to use the aggregationRule")
    );
    // In a namespace with the rights of that namespace.
    let roles = format!("{RBAC}/namespaces/default/roles");
    let local = |name: &str, verbs: &[&str]| object("Role", name, rules(verbs, &["pods"]));
    ann.post(&roles, local("mine", &["list"])).await.expect(201);
    ann.post(&roles, local("more", &["*"])).await.expect(403);
    let escalate = json!({"rules": [{"verbs": ["escalate"], "resources": ["roles"],
        "apiGroups": ["rbac.authorization.k8s.io"]}]});
    cluster.give("ann", "esc", escalate).await;
    ann.post(&roles, local("more", &["*"])).await.expect(201);
}

#[tokio::test]
async fn who_writes_a_binding_holds_the_rules_of_its_role_or_may_bind_it() {
    let cluster = Cluster::start().await;
    let path = |plural: &str| format!("{RBAC}/{plural}");
    let write = json!({"rules": [
        {"verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"],
            "resources": ["rolebindings", "clusterrolebindings"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    cluster
        .post(
            &path("clusterroles"),
            object("ClusterRole", "writer", write),
        )
        .await
        .expect(201);
    let bound = object(
        "ClusterRoleBinding",
        "w",
        binding(("ClusterRole", "writer"), ("User", "ann")),
    );
    cluster
        .post(&path("clusterrolebindings"), bound)
        .await
        .expect(201);
    let pods = object("ClusterRole", "pods", rules(&["get"], &["pods"]));
    cluster.post(&path("clusterroles"), pods).await.expect(201);
    let ann = cluster.of("ann", &[]);
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let bind = |name: &str, role: &str| {
        object(
            "RoleBinding",
            name,
            binding(("ClusterRole", role), ("User", "bob")),
        )
    };
    ann.post(&bindings, bind("a", "pods")).await.expect(201);
    let refused = ann.post(&bindings, bind("b", "cluster-admin")).await;
    assert!(
        refused
            .message()
            .contains("is attempting to grant RBAC permissions not currently held:"),
        "{}",
        refused.message()
    );
    refused.expect(403);
    ann.post(&bindings, bind("c", "nowhere")).await.expect(404);
    let may_bind = json!({"rules": [{"verbs": ["bind"], "resources": ["clusterroles"],
        "resourceNames": ["cluster-admin"], "apiGroups": ["rbac.authorization.k8s.io"]}]});
    let role = object("Role", "bind", may_bind);
    cluster
        .post(&format!("{RBAC}/namespaces/default/roles"), role)
        .await
        .expect(201);
    let bound = object(
        "RoleBinding",
        "bind",
        binding(("Role", "bind"), ("User", "ann")),
    );
    cluster.post(&bindings, bound).await.expect(201);
    ann.post(&bindings, bind("b", "cluster-admin"))
        .await
        .expect(201);
    let everywhere = object(
        "ClusterRoleBinding",
        "b",
        binding(("ClusterRole", "cluster-admin"), ("User", "bob")),
    );
    ann.post(&path("clusterrolebindings"), everywhere)
        .await
        .expect(403);
}

/// SubjectReview should support SubjectReview API operations
#[tokio::test]
async fn reviews_of_access_say_whether_and_why() {
    let cluster = Cluster::start().await;
    let path = "/apis/authorization.k8s.io/v1";
    let review = |kind: &str, spec: Value| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind,
            "metadata": {"namespace": "default"}, "spec": spec})
    };
    let account = "system:serviceaccount:default:e2e";
    let bound = object(
        "RoleBinding",
        "e2e",
        json!({"roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "e2e", "namespace": "default"}]}),
    );
    let ask = async |kind: &str, plural: &str, of: &Cluster| {
        let wish = json!({"verb": "list", "resource": "configmaps", "namespace": "default",
            "version": "v1", "fieldSelector": {"rawSelector": "metadata.name=a"},
            "labelSelector": {"requirements": [{"key": "a", "operator": "Exists"}]}});
        let mut spec = json!({"resourceAttributes": wish});
        if kind != "SelfSubjectAccessReview" {
            spec["user"] = account.into();
        }
        of.post(&format!("{path}/{plural}"), review(kind, spec))
            .await
            .expect(201)["status"]
            .clone()
    };
    let local = "namespaces/default/localsubjectaccessreviews";
    let e2e = cluster.of(account, &[]);
    let all = [
        ("SubjectAccessReview", "subjectaccessreviews", &cluster),
        ("LocalSubjectAccessReview", local, &cluster),
        ("SelfSubjectAccessReview", "selfsubjectaccessreviews", &e2e),
    ];
    for (kind, plural, by) in all {
        assert_eq!(
            ask(kind, plural, by).await,
            json!({"allowed": false}),
            "{kind}"
        );
    }
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    cluster.post(&bindings, bound).await.expect(201);
    let because = "RBAC: allowed by RoleBinding \"e2e/default\" of ClusterRole \"cluster-admin\" to \
                   ServiceAccount \"e2e/default\"";
    for (kind, plural, by) in all {
        let expected = json!({"allowed": true, "reason": because});
        assert_eq!(ask(kind, plural, by).await, expected, "{kind}");
    }
    // A question about somebody else gives them no groups that it does not name.
    let own = json!({"user": "bob", "resourceAttributes": {"verb": "create",
        "group": "authorization.k8s.io", "resource": "selfsubjectaccessreviews"}});
    let asked = review("SubjectAccessReview", own.clone());
    let answer = cluster
        .post(&format!("{path}/subjectaccessreviews"), asked)
        .await
        .expect(201);
    assert_eq!(answer["status"]["allowed"], false);
    let mut grouped = own;
    grouped["groups"] = json!(["system:authenticated"]);
    let asked = review("SubjectAccessReview", grouped);
    let answer = cluster
        .post(&format!("{path}/subjectaccessreviews"), asked)
        .await
        .expect(201);
    assert_eq!(answer["status"]["allowed"], true);
}

/// A part of the control plane, what it may not read, and what it may.
type Identity = (String, &'static [&'static str], &'static [&'static str]);

const SECRETS_OF_SYSTEM: &str = "/api/v1/namespaces/kube-system/secrets";
const NODES: &str = "/api/v1/nodes";

fn identities() -> Vec<Identity> {
    let account = |name: &str| format!("system:serviceaccount:kube-system:{name}");
    vec![
        (
            "system:kube-scheduler".to_owned(),
            &[SECRETS_OF_SYSTEM, "/api/v1/configmaps"][..],
            &[NODES, PODS][..],
        ),
        (
            "system:kube-controller-manager".to_owned(),
            &[][..],
            &[SECRETS_OF_SYSTEM][..],
        ),
        (
            account("endpointslice-controller"),
            &[SECRETS_OF_SYSTEM][..],
            &[NODES][..],
        ),
        (
            account("replicaset-controller"),
            &[SECRETS_OF_SYSTEM, NODES][..],
            &[][..],
        ),
        (
            account("deployment-controller"),
            &[SECRETS_OF_SYSTEM, NODES][..],
            &[][..],
        ),
        (
            account("node-controller"),
            &[SECRETS_OF_SYSTEM][..],
            &[][..],
        ),
        (
            account("service-controller"),
            &[SECRETS_OF_SYSTEM, PODS][..],
            &[][..],
        ),
        (
            account("pod-garbage-collector"),
            &[SECRETS_OF_SYSTEM][..],
            &[][..],
        ),
        (
            account("pvc-protection-controller"),
            &[SECRETS_OF_SYSTEM, NODES][..],
            &[][..],
        ),
        (
            account("clusterrole-aggregation-controller"),
            &[SECRETS_OF_SYSTEM, PODS][..],
            &[][..],
        ),
    ]
}

/// What each identity of the cluster's own parts is refused: the table in SECURITY.md.
#[tokio::test]
async fn every_identity_of_the_cluster_is_refused_what_is_not_its_own() {
    let cluster = Cluster::start().await;
    let [binding, role] = ["clusterrolebindings", "clusterroles"].map(|it| format!("{RBAC}/{it}"));
    for (name, refused, allowed) in identities() {
        let component = cluster.of(&name, &[]);
        for path in refused {
            assert_eq!(
                component.get(&format!("{path}/x")).await.code,
                403,
                "{name} {path}"
            );
            assert_eq!(component.get(path).await.code, 403, "{name} {path}");
        }
        for path in allowed {
            assert_eq!(component.get(path).await.code, 200, "{name} {path}");
        }
        // None of them makes roles or bindings, deletes a namespace, or impersonates.
        let all = object("ClusterRole", "all", rules(&["*"], &["*"]));
        assert_eq!(component.post(&role, all).await.code, 403, "{name}");
        let own = self::binding(("ClusterRole", "cluster-admin"), ("User", &name));
        let own = object("ClusterRoleBinding", "own", own);
        assert_eq!(component.post(&binding, own).await.code, 403, "{name}");
        assert_eq!(
            component.delete("/api/v1/namespaces/default").await.code,
            403,
            "{name}"
        );
        let users = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": name, "resourceAttributes": {"verb": "impersonate", "resource": "users"}}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = cluster.post(path, users).await.expect(201);
        assert_eq!(answer["status"]["allowed"], false, "{name}");
    }
}

#[tokio::test]
async fn the_fields_that_a_part_of_the_control_plane_writes_are_managed_by_its_program() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("a")).await.expect(201);
    for (user, program) in [
        ("system:kube-scheduler", "kube-scheduler"),
        (
            "system:serviceaccount:kube-system:pod-garbage-collector",
            "kube-controller-manager",
        ),
    ] {
        let client = cluster.server.component(user);
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
            kube::Api::default_namespaced(client);
        let status = json!({"status": {"message": program}});
        let patch = kube::api::Patch::Merge(status);
        let written = pods.patch_status("a", &Default::default(), &patch).await;
        let fields = written
            .expect("a pod")
            .metadata
            .managed_fields
            .unwrap_or_default();
        let mut managers = fields.iter().filter_map(|entry| entry.manager.as_deref());
        assert!(managers.any(|manager| manager == program), "{fields:?}");
    }
}
