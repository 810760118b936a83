//! Users besides the holders of certificates, and callers that act as others.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::remote::Setting;
use super::*;
use crate::authn::{MASTERS, Sources};
use crate::shares::Peer;
use crate::tokens;

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// What the server takes the sender of these headers for.
async fn who(cluster: &Cluster, headers: &[(&str, &str)]) -> Answer {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let mut request = Request::post(WHO).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_string()));
    Answer::of(cluster.send(request.expect("a request")).await).await
}

/// The same of the bearer of a token.
async fn bearer(cluster: &Cluster, token: &str) -> Answer {
    let nobody = cluster.as_user(User::anonymous());
    who(&nobody, &[("authorization", &format!("Bearer {token}"))]).await
}

#[tokio::test]
async fn a_join_token_is_a_bootstrapper_until_it_ends_or_is_deleted() {
    let setting = Setting::start().await;
    let cluster = &setting.cluster;
    let state = &cluster.server.state;
    let now = Timestamp::now();
    let token = tokens::testing::make(state, Some(now + SignedDuration::from_hours(1))).await;
    let text = format!("{}.{}", token.id, token.secret);
    let answer = bearer(cluster, &text).await.expect(201);
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": format!("system:bootstrap:{}", token.id), "groups": [
            "system:bootstrappers:kubeadm:default-node-token", "system:bootstrappers",
            "system:authenticated"]})
    );
    let wrong = format!("{}.{}", token.id, "0".repeat(16));
    bearer(cluster, &wrong).await.expect(401);
    // The form for machines that join names the authority too, and is no bearer token here.
    bearer(cluster, &token.text()).await.expect(401);
    let ended = tokens::testing::make(state, Some(now)).await;
    let ended = format!("{}.{}", ended.id, ended.secret);
    bearer(cluster, &ended).await.expect(401);
    let secret = format!(
        "/api/v1/namespaces/kube-system/secrets/bootstrap-token-{}",
        token.id
    );
    cluster.delete(&secret).await.expect(200);
    bearer(cluster, &text).await.expect(401);
}

#[tokio::test]
async fn a_token_of_the_file_is_its_user() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.csv");
    std::fs::write(&file, "s3cret,ann,u-1,\"dev,ops\"\n").expect("written");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&file, private).expect("a mode");
    let users = Sources {
        token_file: Some(file),
        ..Sources::default()
    };
    let cluster = Cluster::with(ServerConfig {
        users,
        ..ServerConfig::default()
    });
    let cluster = cluster.await;
    let answer = bearer(&cluster, "s3cret").await.expect(201);
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "ann", "uid": "u-1",
            "groups": ["dev", "ops", "system:authenticated"]})
    );
    let refused = bearer(&cluster, "s3cre").await;
    assert_eq!(refused.message(), "Unauthorized");
    refused.expect(401);
}

#[tokio::test]
async fn an_administrator_acts_as_others_and_nobody_else_does() {
    let cluster = Cluster::start().await;
    let info = |answer: Answer| answer.expect(201)["status"]["userInfo"].clone();
    let bob = [
        ("impersonate-user", "bob"),
        ("impersonate-group", "dev"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-scopes", "view"),
    ];
    assert_eq!(
        info(who(&cluster, &bob).await),
        json!({"username": "bob", "uid": "7", "groups": ["dev", "system:authenticated"],
            "extra": {"scopes": ["view"]}})
    );
    let account = [("impersonate-user", "system:serviceaccount:shop:web")];
    assert_eq!(
        info(who(&cluster, &account).await)["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:shop",
            "system:authenticated"
        ])
    );
    let nobody = [("impersonate-user", "system:anonymous")];
    who(&cluster, &nobody).await.expect(403);
    // What bob may not, an administrator may not as bob.
    let as_bob = |path: &str| {
        let request = Request::get(path).header("impersonate-user", "bob");
        request.body(Body::empty()).expect("a request")
    };
    let refused = Answer::of(cluster.send(as_bob(CONFIG_MAPS)).await).await;
    assert!(
        refused.message().contains("User \"bob\" cannot list"),
        "{}",
        refused.body
    );
    refused.expect(403);
}

#[tokio::test]
async fn acting_as_others_needs_the_right_to_each_part_of_them() {
    let cluster = Cluster::start().await;
    let ann = cluster.as_user(User::named("ann", vec!["dev".into()]));
    for (headers, expected) in [
        (
            &[("impersonate-user", "root"), ("impersonate-group", MASTERS)][..],
            "users \"root\" is forbidden: User \"ann\" cannot impersonate resource \"users\" in \
             API group \"\" at the cluster scope",
        ),
        (
            &[("impersonate-user", "system:serviceaccount:shop:web")],
            "serviceaccounts \"web\" is forbidden: User \"ann\" cannot impersonate resource \
             \"serviceaccounts\" in API group \"\" in the namespace \"shop\"",
        ),
        // Her own name as well.
        (
            &[("impersonate-user", "ann")],
            "users \"ann\" is forbidden: User \"ann\" cannot impersonate resource \"users\" in API \
             group \"\" at the cluster scope",
        ),
    ] {
        let refused = who(&ann, headers).await;
        assert_eq!(refused.message(), expected);
        refused.expect(403);
    }
    // Where nothing is asked of the caller but to be there.
    let request = Request::get("/version").header("impersonate-user", "root");
    let request = request.body(Body::empty()).expect("a request");
    Answer::of(ann.send(request).await).await.expect(403);
}

#[tokio::test]
async fn bad_tokens_of_one_address_come_in_the_pace_of_strangers() {
    let cluster = Cluster::start().await.as_user(User::anonymous());
    let send = async |last: u8| {
        let request = Request::get(CONFIG_MAPS).header("authorization", "Bearer made-up");
        let mut request = request.body(Body::empty()).expect("a request");
        request
            .extensions_mut()
            .insert(Peer([192, 0, 2, last].into()));
        Answer::of(cluster.send(request).await).await.expect(401);
    };
    let began = Instant::now();
    // 50 of them are free, and as many may come at once; each further one waits ten milliseconds.
    for _ in 0..150 {
        send(1).await;
    }
    assert!(
        began.elapsed() >= Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    send(2).await;
    assert!(
        began.elapsed() < Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_right_to_impersonate_is_for_what_it_names() {
    let cluster = Cluster::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = json!([
        {"apiGroups": [""], "verbs": ["impersonate"], "resources": ["users"],
            "resourceNames": ["bob"]},
        {"apiGroups": ["authentication.k8s.io"], "verbs": ["impersonate"],
            "resources": ["userextras/scopes"], "resourceNames": ["view"]},
    ]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "as-bob"}, "rules": rules});
    let path = format!("{rbac}/clusterroles");
    cluster.post(&path, role).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "as-bob"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "as-bob"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    let path = format!("{rbac}/clusterrolebindings");
    cluster.post(&path, binding).await.expect(201);
    let ann = cluster.as_user(User::named("ann", Vec::new()));
    let bob = ("impersonate-user", "bob");
    let answer = who(&ann, &[bob, ("impersonate-extra-scopes", "view")]).await;
    let info = answer.expect(201)["status"]["userInfo"].clone();
    assert_eq!(info["username"], "bob");
    assert_eq!(info["extra"], json!({"scopes": ["view"]}));
    for (header, refused) in [
        (
            ("impersonate-group", MASTERS),
            "groups \"system:masters\" is forbidden",
        ),
        (
            ("impersonate-extra-scopes", "edit"),
            "\"edit\" is forbidden",
        ),
        (
            ("impersonate-extra-other", "view"),
            "resource \"userextras/other\"",
        ),
        (
            ("impersonate-uid", "7"),
            "uids.authentication.k8s.io \"7\" is forbidden",
        ),
    ] {
        let answer = who(&ann, &[bob, header]).await;
        assert!(answer.message().contains(refused), "{}", answer.body);
        answer.expect(403);
    }
}
