//! Who is given a node's certificate.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::http::Request;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Answer, Cluster, ServerConfig};
use crate::tokens::testing;
use crate::{Pki, User, server_names};
use api::join_token::JoinToken;
use sys::certificates::{Identity, LEAF_VALIDITY, Shown, der_of, make_key, make_request, names_of};

const NODE: &str = "/api/v1/nodes/node-1";

/// A server with certificates. They live in a directory that goes with the value.
struct Setting {
    cluster: Cluster,
    directory: tempfile::TempDir,
}

impl Setting {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = ServerConfig::default();
        let names = server_names(&[config.advertise.ip()], config.own_service_address());
        let pki = Pki::load_or_create(directory.path(), &names, LEAF_VALIDITY, Timestamp::now());
        Self {
            cluster: Cluster::build(config, pki.ok()).await,
            directory,
        }
    }

    async fn token(&self, ends: Option<Timestamp>) -> String {
        testing::make(&self.cluster.server.state, ends).await.text()
    }

    /// Asks for a certificate for this name and these addresses.
    async fn join(&self, by: &By, node: &str, key: &str, addresses: &[&str]) -> Answer {
        let names = std::iter::once(&node).chain(addresses);
        let names: Vec<String> = names.map(|name| (*name).to_owned()).collect();
        let request = make_request(key, &identity(node), &names).expect("a request");
        let body = json!({"nodeName": node, "csr": request});
        self.ask(by, &body.to_string()).await
    }

    async fn ask(&self, by: &By, body: &str) -> Answer {
        let mut request = Request::post("/orchestrator/v1/join");
        let user = match by {
            By::Token(token) => {
                request = request.header("authorization", format!("Bearer {token}"));
                User::anonymous()
            }
            By::User(user) => user.clone(),
        };
        let request = request
            .body(Body::from(body.to_owned()))
            .expect("a request");
        let router = self.cluster.server.router().layer(Extension(user));
        Answer::of(router.oneshot(request).await.expect("infallible")).await
    }
}

#[tokio::test]
async fn a_node_brings_its_labels_and_taints_when_it_joins_first() {
    let setting = Setting::start().await;
    let by = By::Token(setting.token(None).await);
    let key = make_key().expect("a key");
    let ask = async |labels: Value, taints: Value| {
        let names = ["node-1".to_owned()];
        let csr = make_request(&key, &identity("node-1"), &names).expect("a request");
        let body = json!({"nodeName": "node-1", "csr": csr, "labels": labels, "taints": taints});
        setting.ask(&by, &body.to_string()).await
    };
    for (labels, taints) in [
        (
            json!({"node-role.kubernetes.io/control-plane": ""}),
            json!([]),
        ),
        (json!({"a b": "c"}), json!([])),
        (json!({}), json!([{"key": "a", "effect": "Sometimes"}])),
        (
            json!({}),
            json!([{"key": "a", "effect": "NoSchedule", "other": 1}]),
        ),
    ] {
        let refused = ask(labels.clone(), taints.clone()).await;
        assert!(
            [400, 422].contains(&refused.code.as_u16()),
            "{labels} {taints}: {}",
            refused.body
        );
    }
    setting.cluster.get(NODE).await.expect(404);
    let taints = json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]);
    ask(json!({"disk": "ssd"}), taints.clone())
        .await
        .expect(200);
    let node = setting.cluster.get(NODE).await.expect(200);
    assert_eq!(node["metadata"]["labels"]["disk"], "ssd");
    let has = |key: &str| {
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        taints.filter(|taint| taint["key"] == key).count()
    };
    assert_eq!(has("gpu"), 1, "{}", node["spec"]);
    // A restarted agent that says something else changes nothing.
    ask(json!({"disk": "slow"}), json!([])).await.expect(200);
    let node = setting.cluster.get(NODE).await.expect(200);
    assert_eq!(node["metadata"]["labels"]["disk"], "ssd");
}

enum By {
    Token(String),
    User(User),
}

fn identity(node: &str) -> Identity {
    Identity::new(&format!("system:node:{node}"), &["system:nodes"])
}

/// The holder of the certificate in an answer.
fn member(answer: &Answer) -> User {
    let certificate = answer.body["certificate"].as_str().expect("a certificate");
    User::of_peer(&der_of(certificate).expect("it reads")).expect("it reads")
}

fn key() -> String {
    make_key().expect("a key")
}

#[tokio::test]
async fn a_name_is_the_key_s_that_joined_first_until_its_node_is_deleted() {
    let setting = Setting::start().await;
    let token = By::Token(setting.token(None).await);
    let (first, second) = (key(), key());
    let joined = setting
        .join(&token, "node-1", &first, &["172.31.0.11"])
        .await;
    assert_eq!(joined.code, 200, "{:?}", joined.body);
    let admin = &setting.cluster;
    let node = admin.get(NODE).await.expect(200);
    assert_eq!(node["status"]["addresses"][0]["address"], "172.31.0.11");

    let refused = setting
        .join(&token, "node-1", &second, &["172.31.0.12"])
        .await;
    assert_eq!(refused.code, 409);
    assert!(
        refused.message().contains("kubectl delete node node-1"),
        "{}",
        refused.message()
    );
    // A node that lost its certificate and has its key.
    let again = setting
        .join(&token, "node-1", &first, &["172.31.0.11"])
        .await;
    again.expect(200);

    admin.delete(NODE).await.expect(200);
    let other = setting
        .join(&token, "node-1", &second, &["172.31.0.12"])
        .await;
    assert_eq!(other.code, 200, "{:?}", other.body);
    // The first one's certificate is worth nothing now.
    let first = member(&joined);
    let old = admin.as_user(first.clone());
    old.get(NODE).await.expect(401);
    let renewal = setting
        .join(&By::User(first), "node-1", &second, &["172.31.0.12"])
        .await;
    renewal.expect(401);
    admin.as_user(member(&other)).get(NODE).await.expect(200);
}

#[tokio::test]
async fn the_certificate_of_a_deleted_node_is_worth_nothing_until_a_token_makes_it_a_member_again()
{
    let setting = Setting::start().await;
    let token = By::Token(setting.token(None).await);
    let own = key();
    let joined = setting.join(&token, "node-1", &own, &["172.31.0.11"]).await;
    let admin = &setting.cluster;
    let agent = admin.as_user(member(&joined));
    agent.get(NODE).await.expect(200);
    admin.delete(NODE).await.expect(200);
    agent.get(NODE).await.expect(401);
    let body = json!({"metadata": {"name": "node-1"}});
    agent.post("/api/v1/nodes", body).await.expect(401);
    let by = By::User(member(&joined));
    let renewal = setting.join(&by, "node-1", &own, &["172.31.0.11"]).await;
    assert!(renewal.message().contains("orchestrator token create"));
    renewal.expect(401);
    admin.get(NODE).await.expect(404);
    setting
        .join(&token, "node-1", &own, &["172.31.0.11"])
        .await
        .expect(200);
    agent.get(NODE).await.expect(200);
}

#[tokio::test]
async fn of_two_machines_that_ask_for_one_name_at_once_one_gets_it() {
    let setting = Setting::start().await;
    let token = By::Token(setting.token(None).await);
    let keys: Vec<String> = (0..8).map(|_| key()).collect();
    let joins = keys
        .iter()
        .map(|key| setting.join(&token, "node-1", key, &[]));
    let answers = futures::future::join_all(joins).await;
    let mut codes: Vec<u16> = answers.iter().map(|answer| answer.code.as_u16()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [200, 409, 409, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn a_machine_gets_no_certificate_for_what_is_not_its_own() {
    let setting = Setting::start().await;
    let token = By::Token(setting.token(None).await);
    setting
        .join(&token, "node-1", &key(), &["172.31.0.11", "fd00:31::b"])
        .await
        .expect(200);
    for (node, address, code) in [
        ("node-2", "172.31.0.11", 422),
        ("node-2", "fd00:31::b", 422),
        ("node-2", "172.31.0.1", 400),
        ("node-2", "10.96.0.1", 400),
        ("node-2", "10.100.3.4", 422),
        ("node-2", "127.0.0.1", 400),
        ("node-2", "169.254.169.254", 400),
        // Some clients take these two for addresses of IPv4.
        ("node-2", "::ffff:172.31.0.11", 400),
        ("node-2", "::ffff:10.96.0.1", 400),
        ("node-2", "node-1", 400),
        ("node-2", "kubernetes", 400),
        ("kubernetes", "172.31.0.12", 400),
        ("172.31.0.12", "172.31.0.12", 400),
        ("node-2", "172.31.0.12", 200),
    ] {
        let answer = setting.join(&token, node, &key(), &[address]).await;
        assert_eq!(answer.code, code, "{node} {address}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn a_token_that_has_ended_was_deleted_or_never_was_is_refused_before_anything_is_read() {
    let setting = Setting::start().await;
    let now = Timestamp::now();
    let good = setting.token(Some(now + Duration::from_secs(3600))).await;
    let ended = setting.token(Some(now - Duration::from_secs(1))).await;
    let parsed = JoinToken::parse(&good).expect("a token");
    let with = |id: &str, secret: &str| format!("{}.{id}.{secret}", parsed.authority);
    let deleted = setting.token(None).await;
    let id = JoinToken::parse(&deleted).expect("a token").id;
    let secret = format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}");
    setting.cluster.delete(&secret).await.expect(200);
    for (what, token) in [
        ("ended", ended),
        ("deleted", deleted),
        ("none", String::new()),
        ("another secret", with(&parsed.id, "0123456789abcdef")),
        ("another id", with("zzzzzz", &parsed.secret)),
        (
            "another cluster",
            format!("{}.{}.{}", "0".repeat(64), parsed.id, parsed.secret),
        ),
        ("a part", with(&parsed.id, "")),
    ] {
        let answer = setting.ask(&By::Token(token), "not even JSON").await;
        assert_eq!(answer.code, 401, "{what}: {:?}", answer.body);
        assert!(!answer.message().contains(&parsed.secret), "{what}");
    }
    setting
        .ask(&By::Token(good), "not even JSON")
        .await
        .expect(400);
}

#[tokio::test]
async fn a_node_renews_its_own_certificate_by_the_one_that_it_has() {
    let setting = Setting::start().await;
    let token = By::Token(setting.token(None).await);
    let own = key();
    let joined = setting.join(&token, "node-1", &own, &["172.31.0.11"]).await;
    let node = By::User(member(&joined));
    let ended = member(&joined).showing(Shown {
        key: Shown::of_peer(
            &der_of(joined.body["certificate"].as_str().expect("PEM")).expect("DER"),
        )
        .expect("it reads")
        .key,
        ends: Timestamp::now() - SignedDuration::from_secs(1),
        addresses: [].into(),
    });
    let moved = By::User(member(&joined).at("172.31.0.99".parse().expect("an address")));
    let nobody = || By::User(User::anonymous());
    let groupless = Identity::new("system:node:node-1", &[]);
    for (what, by, name, key, address, code) in [
        ("where it is", &moved, "node-1", &own, "172.31.0.99", 200),
        ("where it is not", &node, "node-1", &own, "172.31.0.99", 403),
        ("as before", &moved, "node-1", &own, "172.31.0.11", 200),
        ("another name", &moved, "node-2", &own, "172.31.0.99", 400),
        ("a Service's", &node, "node-1", &own, "10.96.0.7", 403),
        (
            "another key",
            &moved,
            "node-1",
            &self::key(),
            "172.31.0.99",
            403,
        ),
        (
            "ended",
            &By::User(ended),
            "node-1",
            &own,
            "172.31.0.99",
            401,
        ),
        ("nobody", &nobody(), "node-1", &own, "172.31.0.99", 401),
        (
            "no node",
            &By::User(User::from_certificate(groupless)),
            "node-1",
            &own,
            "172.31.0.99",
            401,
        ),
    ] {
        let answer = setting.join(by, name, key, &[address]).await;
        assert_eq!(answer.code, code, "{what}: {:?}", answer.body);
        if code == 200 {
            let certificate = answer.body["certificate"].as_str().expect("a certificate");
            let mut named = names_of(certificate).expect("it reads");
            named.sort();
            assert_eq!(named, [address, "node-1"], "{what}");
        }
    }
}

#[tokio::test]
async fn the_servers_own_token_is_renewed_and_those_that_ended_are_removed() {
    let setting = Setting::start().await;
    let state = &setting.cluster.server.state;
    let file = setting.directory.path().join("node-token");
    let read = || std::fs::read_to_string(&file).expect("a token");
    let start = Timestamp::now();
    let later = |hours: i64| start + SignedDuration::from_hours(hours);
    testing::upkeep(state, &file, start).await;
    let first = read();
    testing::upkeep(state, &file, later(11)).await;
    assert_eq!(read(), first);
    testing::upkeep(state, &file, later(13)).await;
    assert_ne!(read(), first);
    let secrets = async || -> usize {
        let path = "/api/v1/namespaces/kube-system/secrets?fieldSelector=type=\
                    bootstrap.kubernetes.io/token";
        let list = setting.cluster.get(path).await.expect(200);
        list["items"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(secrets().await, 2, "both are good still");
    testing::upkeep(state, &file, later(24)).await;
    assert_eq!(secrets().await, 1, "the first one has ended");
    let joined = setting
        .join(&By::Token(read().trim().to_owned()), "node-1", &key(), &[])
        .await;
    joined.expect(200);
}

#[tokio::test]
async fn a_node_from_before_keys_were_noted_gets_its_own_by_its_certificate() {
    let setting = Setting::start().await;
    let admin = &setting.cluster;
    admin
        .post("/api/v1/nodes", json!({"metadata": {"name": "node-1"}}))
        .await
        .expect(201);
    let own = key();
    let token = By::Token(setting.token(None).await);
    setting.join(&token, "node-1", &own, &[]).await.expect(409);
    let member = By::User(User::from_certificate(identity("node-1")));
    setting.join(&member, "node-1", &own, &[]).await.expect(200);
    let node: Value = admin.get(NODE).await.expect(200);
    let noted = node["metadata"]["annotations"]["orchestrator/key-sha256"].as_str();
    assert_eq!(noted.map(str::len), Some(64));
    setting.join(&token, "node-1", &own, &[]).await.expect(200);
}

#[tokio::test]
async fn the_body_of_a_join_is_small_and_not_looked_at_before_the_token_is_good() {
    let setting = Setting::start().await;
    let large = "x".repeat(64 * 1024 + 1);
    let wrong = By::Token("a.b.c".to_owned());
    assert_eq!(setting.ask(&wrong, &large).await.code, 401);
    let good = By::Token(setting.token(None).await);
    let refused = setting.ask(&good, &large).await;
    assert_eq!(refused.code, 413);
    assert!(
        refused.message().contains("limit is 65536"),
        "{:?}",
        refused.body
    );
}

#[tokio::test]
async fn a_token_takes_one_address_of_each_family_and_no_more() {
    let setting = Setting::start().await;
    let token = By::Token(setting.token(None).await);
    let many = ["172.31.0.11", "172.31.0.12"];
    let refused = setting.join(&token, "node-1", &key(), &many).await;
    assert_eq!(refused.code, 400);
    assert!(
        refused
            .message()
            .contains("more than one address of an IP family"),
        "{:?}",
        refused.body
    );
}

/// What another server asks for when it joins.
async fn join_as_server(setting: &Setting, by: &By) -> Answer {
    let mut request = Request::post(crate::SERVER_JOIN_PATH);
    let user = match by {
        By::Token(token) => {
            request = request.header("authorization", format!("Bearer {token}"));
            User::anonymous()
        }
        By::User(user) => user.clone(),
    };
    let body = json!({"peer": "https://10.0.0.2:2380"}).to_string();
    let request = request.body(Body::from(body)).expect("a request");
    let router = setting.cluster.server.router().layer(Extension(user));
    Answer::of(router.oneshot(request).await.expect("infallible")).await
}

#[tokio::test]
async fn a_server_joins_by_what_the_authority_has_signed_until_it_is_revoked_and_by_nothing_else() {
    let setting = Setting::start().await;
    let ask = async |by: &By| join_as_server(&setting, by).await;
    let hour = SignedDuration::from_hours(1);
    let pki = setting.directory.path();
    let make = |id, ends| crate::server_token::make(pki, id, ends).expect("a token");
    let (id, hour_on) = ("abcdefghij01", Timestamp::now() + hour);
    let tokens = crate::server_token::PATH;
    let known = json!({"id": id, "ends": hour_on.as_second()});
    setting
        .cluster
        .post(tokens, known.clone())
        .await
        .expect(201);
    let signed = |token: &str| {
        crate::server_token::parse(token)
            .expect("a token")
            .1
            .to_owned()
    };
    let (good, ended) = (make(id, hour_on), make(id, Timestamp::now() - hour));
    let unknown = make("abcdefghij02", hour_on);
    let nobody = [
        By::Token(setting.token(None).await),
        By::Token(signed(&ended)),
        By::Token(signed(&unknown)),
        By::Token("a.b.c".to_owned()),
        // Not even an administrator, who cannot read the key either.
        By::User(User::internal("admin")),
        By::User(User::from_certificate(identity("node-1"))),
    ];
    for by in &nobody {
        let refused = ask(by).await;
        assert!(!refused.body.to_string().contains("PRIVATE KEY"));
        refused.expect(401);
    }
    // The servers of this cluster run no etcd: nothing is handed over.
    let refused = ask(&By::Token(signed(&good))).await;
    assert!(
        refused.message().contains("--etcd managed"),
        "{}",
        refused.body
    );
    assert!(!refused.body.to_string().contains("PRIVATE KEY"));
    refused.expect(400);
    let one = format!("{tokens}/{id}");
    let somebody = setting.cluster.as_user(User::component("alice"));
    somebody.get(tokens).await.expect(403);
    somebody.delete(&one).await.expect(403);
    let all = setting.cluster.get(tokens).await.expect(200);
    assert_eq!(all["items"][0]["id"], id);
    assert!(!all.to_string().contains(&signed(&good)), "{all}");
    setting.cluster.delete(&one).await.expect(200);
    ask(&By::Token(signed(&good))).await.expect(401);
    setting.cluster.delete(&one).await.expect(404);
    for wrong in [
        json!({"id": "A/b", "ends": 1}),
        json!({"id": id, "ends": i64::MAX}),
    ] {
        setting.cluster.post(tokens, wrong).await.expect(400);
    }
}
