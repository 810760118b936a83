//! The client of the API server, which shows the node's certificate: the newest one from each request
//! on.
//!
//! A new certificate makes new connections: the old ones end with what was asked on them. The server
//! ends watches with the certificate that they were asked for with; they are resumed on a new one.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tower::{Service, ServiceBuilder};

use super::servers::{AnyServer, Servers};
use crate::node::join::Membership;
use sys::Shutdown;
use sys::certificates::{self, CertificateError};

/// How long a connection to the server may be silent before it is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// What a connection reads at once, at most, and holds on to while it is idle.
const BUFFER_BYTES: usize = 64 * 1024;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the client of the API server could not be made: {0}")]
    Kube(#[from] kube::Error),
    #[error("the client of the API server could not be made: {0}")]
    Certificate(#[from] CertificateError),
}

/// Whether requests share one connection (HTTP/2), or each has its own while it lasts.
#[derive(Debug, Clone, Copy)]
pub struct Multiplexed(pub bool);

/// A client of the servers, of which one is asked until it does not answer. Until shutdown it takes over the
/// certificates that `renewed` brings.
pub fn start(
    servers: &Servers,
    mut renewed: watch::Receiver<Membership>,
    multiplexed: Multiplexed,
    shutdown: &Shutdown,
) -> Result<Client, ClientError> {
    let first = connections(servers, &renewed.borrow_and_update(), multiplexed)?;
    let (sender, current) = watch::channel(first);
    let (own, shutdown) = (servers.clone(), shutdown.clone());
    tokio::spawn(async move {
        let renewing = async {
            while renewed.changed().await.is_ok() {
                let made = connections(&own, &renewed.borrow_and_update(), multiplexed);
                match made {
                    Ok(made) => drop(sender.send_replace(made)),
                    Err(error) => tracing::error!(%error, "the node's new certificate is not used"),
                }
            }
        };
        tokio::select! {
            () = renewing => {}
            // Every clone of the client is gone.
            () = sender.closed() => {}
            () = shutdown.requested() => {}
        }
    });
    let settings = Config::new(servers.first());
    let service = ServiceBuilder::new()
        .layer(settings.base_uri_layer())
        .map_request(|mut request: Request<Body>| {
            request.headers_mut().insert(USER_AGENT, AGENT);
            request
        })
        .service(Newest { current });
    Ok(ClientBuilder::new(service, settings.default_namespace).build())
}

/// The name of the servers' own Service, whichever of them it is.
fn service_name(_: &http::Uri) -> Result<ServerName<'static>, tower::BoxError> {
    Ok(ServerName::try_from("kubernetes.default.svc")?)
}

/// What an agent calls itself: the manager of the fields that it writes, by the name that Kubernetes' has.
const AGENT: HeaderValue = HeaderValue::from_static("kubelet");

/// Sends a request by a pool of connections, which closes with the last of these.
type Connections = Arc<dyn Fn(Request<Body>) -> Answer + Send + Sync>;
type Answer = BoxFuture<'static, Result<Response<Incoming>, legacy::Error>>;

/// Sends each request by the newest connections.
#[derive(Clone)]
struct Newest {
    current: watch::Receiver<Connections>,
}

impl Service<Request<Body>> for Newest {
    type Response = Response<Incoming>;
    type Error = legacy::Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        (self.current.borrow())(request)
    }
}

/// Connections that show the member's certificate.
fn connections(
    servers: &Servers,
    member: &Membership,
    Multiplexed(multiplexed): Multiplexed,
) -> Result<Connections, ClientError> {
    let mut settings = Config::new(servers.first());
    settings.root_cert = Some(vec![certificates::der_of(&member.authority)?]);
    let credentials = &member.credentials;
    settings.auth_info.client_certificate_data = Some(STANDARD.encode(&credentials.certificate));
    settings.auth_info.client_key_data = Some(STANDARD.encode(&credentials.key).into());
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    // What is small must not wait for the answer to what went before.
    connector.set_nodelay(true);
    // A connection from an address that the node has lost is silent: a watch would wait for ever.
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE));
    connector.set_keepalive_retries(Some(2));
    let connector = AnyServer::new(connector, servers);
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(settings.rustls_client_config()?)
        .https_or_http();
    let tls = match servers.are_several() {
        false => tls,
        // Every server's certificate has this name, and each its own address.
        true => tls.with_server_name_resolver(service_name),
    };
    let connector = match multiplexed {
        true => tls.enable_http2().wrap_connector(connector),
        false => tls.enable_http1().wrap_connector(connector),
    };
    let mut connections = legacy::Client::builder(TokioExecutor::new());
    connections
        .timer(TokioTimer::new())
        .http1_max_buf_size(BUFFER_BYTES)
        .http2_only(multiplexed)
        .http2_keep_alive_interval(KEEPALIVE);
    let (pool, servers) = (connections.build(connector), servers.clone());
    Ok(Arc::new(move |request| {
        let is_prompt = is_answered_promptly(request.uri());
        let answer = pool.request(request);
        let servers = servers.clone();
        match is_prompt {
            true => async move { servers.answer(answer).await }.boxed(),
            false => answer.boxed(),
        }
    }))
}

/// Whether a server that is well answers at once: not a watch, and nothing that is held until something happens.
fn is_answered_promptly(uri: &http::Uri) -> bool {
    let is_object = uri.path().starts_with("/api/") || uri.path().starts_with("/apis/");
    let mut words = uri.query().unwrap_or_default().split('&');
    is_object && !words.any(|word| word == "watch=true" || word == "watch=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_not_judged_by_requests_that_it_holds() {
        let prompt = |text: &str| is_answered_promptly(&text.parse().expect("a URL"));
        assert!(prompt(
            "https://a/apis/coordination.k8s.io/v1/namespaces/n/leases/a"
        ));
        assert!(prompt(
            "https://a/api/v1/pods?fieldSelector=spec.nodeName%3Da"
        ));
        assert!(!prompt("https://a/api/v1/pods?limit=5&watch=true"));
        assert!(!prompt("https://a/orchestrator/v1/applied/5"));
    }
}
