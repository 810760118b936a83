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
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tower::{Service, ServiceBuilder};

use super::servers::{AnyServer, Servers};
use super::silence;
use crate::node::join::Membership;
use sys::Shutdown;
use sys::certificates::{self, CertificateError};

/// How long a connection to the server may be silent before the server's machine is asked whether it is there, and how
/// long what was sent may be without its acknowledgement: the kernel's work.
const KEEPALIVE: Duration = Duration::from_secs(3);
const UNACKNOWLEDGED: Duration = Duration::from_secs(9);
/// The kernel tries again after 1 s, then waits ever longer; a server that starts has room by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two questions whether the server itself is there, which may stand still on a machine that is well, and how
/// long its answer may take. A question costs the server as much as a heartbeat.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the client of the API server could not be made: {0}")]
    Kube(#[from] kube::Error),
    #[error("the client of the API server could not be made: {0}")]
    Certificate(#[from] CertificateError),
}

/// A client of the servers, of which one is asked until it does not answer. Until shutdown it takes over the
/// certificates that `renewed` brings.
pub fn start(
    servers: &Servers,
    renewed: watch::Receiver<Membership>,
    shutdown: &Shutdown,
) -> Result<Client, ClientError> {
    begin(servers, renewed, shutdown, true)
}

/// One more client, with connections of its own. Whether the server is there the first one asks for all.
pub fn start_beside(
    servers: &Servers,
    renewed: watch::Receiver<Membership>,
    shutdown: &Shutdown,
) -> Result<Client, ClientError> {
    begin(servers, renewed, shutdown, false)
}

fn begin(
    servers: &Servers,
    mut renewed: watch::Receiver<Membership>,
    shutdown: &Shutdown,
    asks: bool,
) -> Result<Client, ClientError> {
    let first = connections(servers, &renewed.borrow_and_update(), asks)?;
    let (sender, current) = watch::channel(first);
    let (own, shutdown) = (servers.clone(), shutdown.clone());
    tokio::spawn(async move {
        let renewing = async {
            while renewed.changed().await.is_ok() {
                let made = connections(&own, &renewed.borrow_and_update(), asks);
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

/// At most one connection at a time to a server.
type Pool = legacy::Client<HttpsConnector<AnyServer>, Body>;

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

/// Two connections (HTTP/2), once they are needed: one for all watches, since events that are not read yet may fill a
/// connection's window, and one for everything else, so that the node's lease never waits for them.
fn connections(
    servers: &Servers,
    member: &Membership,
    asks: bool,
) -> Result<Connections, ClientError> {
    let (watches, others) = (pool(servers, member, asks)?, pool(servers, member, false)?);
    let servers = servers.clone();
    Ok(Arc::new(move |request| {
        if is_watch(request.uri()) {
            return watches.request(request).boxed();
        }
        let is_prompt = is_answered_promptly(request.uri());
        let (servers, answer) = (servers.clone(), others.request(request));
        match is_prompt {
            true => async move { servers.answer(answer).await }.boxed(),
            false => answer.boxed(),
        }
    }))
}

/// Whether a server that is well answers at once: not a watch, and nothing that is held until something happens.
fn is_answered_promptly(uri: &http::Uri) -> bool {
    let is_object = uri.path().starts_with("/api/") || uri.path().starts_with("/apis/");
    is_object && !is_watch(uri)
}

fn is_watch(uri: &http::Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query
        .split('&')
        .any(|pair| matches!(pair, "watch=1" | "watch=true"))
}

/// Connections that show the member's certificate.
fn pool(servers: &Servers, member: &Membership, asks: bool) -> Result<Pool, ClientError> {
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
    connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = AnyServer::new(connector, servers, asks);
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(settings.rustls_client_config()?)
        .https_or_http();
    let tls = match servers.are_several() {
        false => tls,
        // Every server's certificate has this name, and each its own address.
        true => tls.with_server_name_resolver(service_name),
    };
    let connector = tls.enable_http2().wrap_connector(connector);
    // Where there is another server, one that stands still is left at once.
    let is_asked_often = asks && servers.are_several();
    let interval = match is_asked_often {
        true => silence::PING_INTERVAL,
        false => PING_INTERVAL,
    };
    let mut connections = legacy::Client::builder(TokioExecutor::new());
    connections
        .timer(TokioTimer::new())
        .http2_only(true)
        .http2_keep_alive_interval(interval)
        .http2_keep_alive_while_idle(is_asked_often)
        .http2_keep_alive_timeout(PING_TIMEOUT);
    Ok(connections.build(connector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_not_judged_by_requests_that_it_holds() {
        let prompt = |uri: &'static str| is_answered_promptly(&http::Uri::from_static(uri));
        assert!(prompt("/api/v1/pods?fieldSelector=spec.nodeName%3Da"));
        assert!(!prompt("/api/v1/pods?limit=5&watch=true"));
        assert!(!prompt("/orchestrator/v1/applied/5"));
    }

    #[test]
    fn only_a_request_that_asks_for_events_is_a_watch() {
        let watch = |uri: &'static str| is_watch(&http::Uri::from_static(uri));
        assert!(watch("/api/v1/pods?&watch=true&timeoutSeconds=290"));
        assert!(watch("/api/v1/nodes?watch=1"));
        assert!(!watch("/api/v1/pods?limit=500"));
        assert!(!watch("/api/v1/pods?labelSelector=x%3Dwatch&unwatch=1"));
        assert!(!watch("/api/v1/namespaces/watch=1/pods"));
    }
}
