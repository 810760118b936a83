//! The server without a network: requests go through the router as they would from a client.

mod admission;
mod aggregation;
mod applied;
mod audit;
mod certificates;
mod claims;
mod conformance;
mod conformance_auth;
mod conformance_custom;
mod conformance_node;
mod connections;
mod custom;
mod discovery;
mod encryption;
mod evictions;
mod flows;
// The tests of `sys` speak HTTP/2 by the same hand.
#[path = "../../../sys/src/front/frames.rs"]
#[expect(dead_code, reason = "each crate uses a part of it")]
mod frames;
mod image_policy;
mod joining;
mod lists;
mod machinery;
mod metrics;
mod node_rights;
mod nodes;
mod objects;
mod oidc;
mod old_versions;
mod outgoing;
mod plugins;
mod pod_security;
mod policies;
mod proxying;
mod quotas;
mod races;
mod remote;
mod reviews;
mod rights;
mod samples;
mod scale;
mod servers;
mod service_account_pods;
mod service_account_tokens;
mod services;
mod silence;
mod strangers;
mod token_webhook;
mod users;
mod versions;
mod watches;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{ApiServer, Pki, ServerConfig, User};
use store::MemoryStore;
use sys::{Shutdown, Tasks};

/// Long enough for a loaded machine, short enough to notice.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server over a store in memory.
pub struct Cluster {
    pub server: ApiServer,
    user: User,
}

/// What a request got.
#[derive(Debug)]
struct Answer {
    code: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::with(ServerConfig::default()).await
    }

    async fn with(config: ServerConfig) -> Self {
        Self::build(config, None).await
    }

    async fn build(config: ServerConfig, pki: Option<Pki>) -> Self {
        Self::over(MemoryStore::default(), config, pki).await
    }

    async fn over(store: MemoryStore, config: ServerConfig, pki: Option<Pki>) -> Self {
        let tasks = Tasks::new(Shutdown::new());
        let server = ApiServer::build(config, Arc::new(store), pki, tasks);
        let server = server.await.expect("a server");
        Self {
            server,
            user: User::internal("test"),
        }
    }

    fn as_user(&self, user: User) -> Self {
        Self {
            server: self.server.clone(),
            user,
        }
    }

    async fn send(&self, request: Request<Body>) -> axum::http::Response<Body> {
        let router = self.server.router().layer(Extension(self.user.clone()));
        let answer = tokio::time::timeout(PATIENCE, router.oneshot(request)).await;
        answer.expect("an answer in time").expect("infallible")
    }

    async fn call(&self, method: &str, path: &str, kind: &str, body: &Value) -> Answer {
        let body = match body {
            Value::Null => Body::empty(),
            Value::String(text) => Body::from(text.clone()),
            body => Body::from(body.to_string()),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind);
        Answer::of(self.send(request.body(body).expect("a request")).await).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", &Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, "application/json", &body).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, "application/json", &body).await
    }

    async fn merge(&self, path: &str, body: Value) -> Answer {
        self.call("PATCH", path, "application/merge-patch+json", &body)
            .await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, "", &Value::Null).await
    }

    /// What the holder of a token is told about itself.
    async fn whoami(&self, token: &str) -> Answer {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(body.to_string().into());
        let nobody = self.as_user(User::anonymous());
        Answer::of(nobody.send(request.expect("a request")).await).await
    }

    async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let request = Request::get(path)
            .header(header::ACCEPT, accept)
            .body(Body::empty());
        Answer::of(self.send(request.expect("a request")).await).await
    }
}

impl Answer {
    async fn of(response: axum::http::Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self {
            code: parts.status,
            headers: parts.headers,
            body,
        }
    }

    #[track_caller]
    fn expect(self, code: u16) -> Value {
        assert_eq!(self.code.as_u16(), code, "{}", self.body);
        self.body
    }

    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"a": "b"}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}
