//! Tokens that a webhook knows, and webhooks that are slow, endless or wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream;

use super::remote::{Remote, reply};
use super::*;
use crate::authn::{Sources, TokenWebhook};

struct Setting {
    cluster: Cluster,
    asked: Arc<AtomicUsize>,
    _remote: Remote,
    _directory: tempfile::TempDir,
}

/// A server beside a webhook that answers so.
async fn start(
    ttl: Duration,
    answer: impl Fn(&Value) -> axum::http::Response<Body> + Send + Sync + 'static,
) -> Setting {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let remote = Remote::start(&["localhost"], move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        assert_eq!(request.uri().to_string(), "/authenticate");
        assert_eq!(request.headers()["authorization"], "Bearer of-the-server");
        let review: Value = serde_json::from_slice(request.body()).expect("JSON");
        assert_eq!(review["apiVersion"], "authentication.k8s.io/v1");
        assert_eq!(review["kind"], "TokenReview");
        let answer = answer(&review["spec"]);
        async move { answer }
    });
    let remote = remote.await;
    let directory = tempfile::tempdir().expect("a directory");
    let config_file = directory.path().join("webhook.yaml");
    let pem = STANDARD.decode(remote.bundle()).expect("base64");
    std::fs::write(directory.path().join("ca.pem"), pem).expect("written");
    let port = remote.address.port();
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: webhook\n\
         clusters:\n- name: webhook\n  cluster:\n    certificate-authority: ca.pem\n    server: \
         https://localhost:{port}/authenticate\n\
         users:\n- name: server\n  user: {{token: of-the-server}}\n\
         contexts:\n- name: webhook\n  context: {{cluster: webhook, user: server}}\n"
    );
    std::fs::write(&config_file, config).expect("written");
    let users = Sources {
        webhook: Some(TokenWebhook {
            config_file,
            cache_ttl: ttl,
        }),
        ..Sources::default()
    };
    let config = ServerConfig {
        users,
        ..ServerConfig::default()
    };
    Setting {
        cluster: Cluster::with(config).await,
        asked,
        _remote: remote,
        _directory: directory,
    }
}

impl Setting {
    async fn who(&self, token: &str) -> Answer {
        self.cluster.whoami(token).await
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn status(status: Value) -> axum::http::Response<Body> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "status": status});
    reply(200, review.to_string())
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn the_webhook_is_asked_once_about_a_token_it_knows_and_one_it_does_not() {
    let setting = start(LONG, |spec| match spec["token"] == "good" {
        true => status(
            json!({"authenticated": true, "user": {"username": "ann", "uid": "7",
            "groups": ["dev"], "extra": {"a": ["b"]}}}),
        ),
        false => status(json!({"authenticated": false})),
    });
    let setting = setting.await;
    for _ in 0..3 {
        let answer = setting.who("good").await.expect(201);
        assert_eq!(
            answer["status"]["userInfo"],
            json!({"username": "ann", "uid": "7", "groups": ["dev", "system:authenticated"],
                "extra": {"a": ["b"]}})
        );
        setting.who("bad").await.expect(401);
    }
    assert_eq!(setting.asked(), 2);
    setting.cluster.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(setting.asked(), 2);
}

#[tokio::test]
async fn an_answer_is_kept_no_longer_than_the_server_is_told() {
    let setting = start(Duration::ZERO, |_| {
        status(json!({"authenticated": true, "user": {"username": "ann"}}))
    });
    let setting = setting.await;
    for times in 1..4 {
        setting.who("good").await.expect(201);
        assert_eq!(setting.asked(), times);
    }
}

#[tokio::test]
async fn a_webhook_that_is_broken_lets_nobody_in_and_its_failure_is_not_kept() {
    let piece = Bytes::from(vec![b' '; 1 << 16]);
    let setting = start(LONG, move |spec| {
        let piece = piece.clone();
        match spec["token"].as_str().unwrap_or_default() {
            "endless" => {
                let pieces = stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
                reply(200, Body::from_stream(pieces))
            }
            "bomb" => reply(200, "[".repeat(60_000)),
            "nameless" => status(json!({"authenticated": true, "user": {}})),
            "error" => status(json!({"authenticated": false, "error": "broken"})),
            "redirect" => reply(302, ""),
            _ => reply(500, "{}"),
        }
    });
    let setting = setting.await;
    for token in ["endless", "bomb", "nameless", "error", "redirect", "500"] {
        let before = setting.asked();
        for _ in 0..2 {
            let refused = setting.who(token).await;
            assert_eq!(refused.message(), "Unauthorized", "{token}");
            refused.expect(401);
        }
        assert_eq!(setting.asked(), before + 2, "{token}");
    }
}
