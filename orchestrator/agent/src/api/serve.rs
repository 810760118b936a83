//! What the API server asks of a node: logs, health, numbers, streams to containers, ways to pods. HTTPS for
//! cluster administrators' certificates only, of which the API server has one; streams and ways are for that one.

mod forwarding;
pub mod health_checks;
mod logs;
mod processes;
pub mod stats;
#[cfg(test)]
mod streaming_tests;
mod tunnel;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper::service::service_fn;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

use tunnel::Tunnels;

use crate::metrics::{self, Metrics};
use crate::node::join::Membership;
use crate::runtime::{PodRef, Runtime};
use api::meta::POD_UID_HEADER;
use logs::attempts;
use stats::Seen;
use sys::Shutdown;
use sys::certificates::Identity;
use sys::connections::Limits;
use sys::front::{Front, RequestBody, Visit};
use sys::tls::{self, ClientCertificate, ShownCertificate, TlsError};

/// Who may ask.
const ADMINISTRATORS: &str = "system:masters";

/// Connections at once. The API server has one for each log that is read; pods can reach the port,
/// and get no further than the handshake.
const LIMITS: Limits = Limits {
    all: 1280,
    strangers: 128,
    strangers_per_source: 64,
    per_holder: 1024,
};

/// The pod that a request is about.
struct Meant<'a> {
    namespace: &'a str,
    name: &'a str,
    /// None: the newest of that name.
    uid: Option<&'a str>,
}

impl<'a> Meant<'a> {
    fn of(namespace: &'a str, name: &'a str, headers: &'a HeaderMap) -> Self {
        let uid = headers.get(POD_UID_HEADER);
        Self {
            namespace,
            name,
            uid: uid.and_then(|uid| uid.to_str().ok()),
        }
    }

    fn is(&self, pod: &PodRef) -> bool {
        let is_it = pod.namespace == self.namespace && pod.name == self.name;
        is_it && self.uid.is_none_or(|uid| uid == pod.uid)
    }
}

/// What the handlers need.
pub struct Served<R> {
    pub runtime: Arc<R>,
    pub metrics: Arc<Metrics>,
    pub seen: Seen,
    /// For commands, attached containers and forwarded ports.
    streams: Arc<Semaphore>,
}

impl<R> Served<R> {
    pub fn new(runtime: Arc<R>, metrics: Arc<Metrics>, seen: Seen) -> Self {
        Self {
            runtime,
            metrics,
            seen,
            streams: processes::room(),
        }
    }
}

impl<R> Clone for Served<R> {
    fn clone(&self) -> Self {
        Served {
            runtime: self.runtime.clone(),
            metrics: self.metrics.clone(),
            seen: self.seen.clone(),
            streams: self.streams.clone(),
        }
    }
}

/// Why the node's server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {source} (does another agent run here?)")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// On every address, since the node's may change; a machine without IPv6 has those of IPv4.
async fn listen(port: u16) -> Result<TcpListener, ServeError> {
    let (any, v4) = (
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    );
    let listener = match TcpListener::bind(any).await {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            TcpListener::bind(v4).await
        }
        bound => bound,
    };
    let address = any;
    listener.map_err(|source| ServeError::Listen { address, source })
}

/// Serves until shutdown. Connections are shown the certificate of the membership as it is when they
/// come.
pub async fn run<R: Runtime>(
    port: u16,
    membership: watch::Receiver<Membership>,
    served: Served<R>,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    serve(listen(port).await?, membership, served, shutdown).await
}

async fn serve<R: Runtime>(
    listener: TcpListener,
    mut membership: watch::Receiver<Membership>,
    served: Served<R>,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    let (config, shown) = config(&membership.borrow_and_update())?;
    let tunnels = Tunnels::new(membership.borrow().settings.all_ranges());
    let answers = Answers {
        router: router(served),
        tunnels,
    };
    let front = Front::new(LIMITS, shutdown);
    let serve = |visit: Visit| {
        if membership.has_changed().unwrap_or(false) {
            let renewed = shown.replace(&membership.borrow_and_update().credentials);
            if let Err(error) = renewed {
                tracing::error!(%error, "the node's former certificate is shown");
            }
        }
        connection(visit, config.clone(), answers.clone())
    };
    front.accept(&listener, serve).await;
    drop(listener);
    front.closed().await;
    Ok(())
}

fn config(membership: &Membership) -> Result<(Arc<ServerConfig>, Arc<ShownCertificate>), TlsError> {
    let shown = ShownCertificate::new(&membership.credentials)?;
    let required = ClientCertificate::Required;
    let config = tls::server_config(shown.clone(), &membership.authority, required)?;
    Ok((Arc::new(config), shown))
}

async fn connection(
    visit: Visit,
    config: Arc<ServerConfig>,
    answers: Answers,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let secured = visit.shake_hands(config).await?;
    let identity = secured.identity().cloned().map(Arc::new);
    let service = service_fn(move |request: hyper::Request<RequestBody>| {
        let mut request = request.map(Body::new);
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        let answers = answers.clone();
        // Its target is no path.
        let wish = (request.method() == Method::CONNECT)
            .then(|| tunnel::Wish::of(&request, identity.clone()));
        async move {
            match wish {
                Some(wish) => Ok(answers.tunnels.answer(wish).await),
                None => answers.router.oneshot(request).await,
            }
        }
    });
    secured.serve(service).await
}

/// Who answers requests.
#[derive(Clone)]
struct Answers {
    router: Router,
    tunnels: Tunnels,
}

fn router<R: Runtime>(served: Served<R>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/metrics", get(metrics::<R>))
        .route("/metrics/resource", get(stats::resource::<R>))
        .route("/metrics/cadvisor", get(stats::cadvisor::<R>))
        .route("/stats/summary", get(stats::summary::<R>))
        .route("/pods", get(stats::pods::<R>))
        .route("/configz", get(stats::config::<R>))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(logs::logs::<R>),
        )
        .layer(middleware::from_fn(administrators_only))
        .merge(streams::<R>().layer(middleware::from_fn(api_server_only)))
        .with_state(served)
}

/// What makes a stream of the connection. Administrators open those through the API server, which says who may.
fn streams<R: Runtime>() -> Router<Served<R>> {
    Router::new()
        .route(
            "/exec/{namespace}/{pod}/{container}",
            any(processes::exec::<R>),
        )
        .route(
            "/attach/{namespace}/{pod}/{container}",
            any(processes::attach::<R>),
        )
        .route(
            "/portForward/{namespace}/{pod}",
            any(forwarding::port_forward::<R>),
        )
}

async fn api_server_only(request: Request, next: Next) -> Response {
    let identity = request.extensions().get::<Arc<Identity>>();
    match identity {
        Some(identity) if is_api_server(identity) => next.run(request).await,
        _ => (StatusCode::FORBIDDEN, "this is for the API server").into_response(),
    }
}

/// What the API server calls itself to agents.
const API_SERVER: &str = "kube-apiserver-kubelet-client";

fn is_api_server(it: &Identity) -> bool {
    it.common_name == API_SERVER && it.organizations.iter().any(|it| it == ADMINISTRATORS)
}

fn not_an_upgrade() -> Response {
    (StatusCode::BAD_REQUEST, "Upgrade request required").into_response()
}

fn full() -> Response {
    let why = "this node has as many streams as it may";
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

async fn administrators_only(request: Request, next: Next) -> Response {
    let identity = request.extensions().get::<Arc<Identity>>();
    match identity {
        Some(identity) if identity.organizations.iter().any(|it| it == ADMINISTRATORS) => {
            next.run(request).await
        }
        _ => (StatusCode::FORBIDDEN, "this is for the API server").into_response(),
    }
}

async fn metrics<R: Runtime>(State(served): State<Served<R>>) -> Response {
    // The maps are read on a thread that may wait.
    match tokio::task::spawn_blocking(move || served.metrics.text()).await {
        Ok(text) => ([("content-type", metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tokio::net::TcpStream;

    use super::*;
    use crate::runtime::fake::FakeRuntime;
    use sys::certificates::{Authority, Usage};

    /// A membership whose certificate names these; and the authority's administrator.
    pub fn member(authority: &Authority, names: &[&str]) -> Membership {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let who = Identity::new("system:node:node-1", &["system:nodes"]);
        let made = authority.issue(&who, &names, Usage::Both, Timestamp::now());
        let settings = r#"{"podCidr":"10.100.0.0/16","serviceCidr":"10.96.0.0/16"}"#;
        Membership {
            credentials: made.expect("a certificate"),
            authority: authority.certificate().to_owned(),
            settings: serde_json::from_str(settings).expect("settings"),
        }
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_shown_without_a_restart() {
        let authority = Authority::create("test", Timestamp::now()).expect("an authority");
        let admin = Identity::new("admin", &[ADMINISTRATORS]);
        let admin = authority.issue(&admin, &[], Usage::Client, Timestamp::now());
        let admin = admin.expect("a certificate");
        let config = tls::client_config(authority.certificate(), Some(&admin)).expect("TLS");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let old = member(&authority, &["node-1", "172.31.0.11"]);
        let (renewed, membership) = watch::channel(old);
        let served = Served::new(
            Arc::new(FakeRuntime::default()),
            Arc::default(),
            Seen::default(),
        );
        let shutdown = Shutdown::new();
        tokio::spawn(serve(listener, membership, served, shutdown.clone()));
        let dial = async |name: &'static str| {
            let stream = TcpStream::connect(address).await.expect("it listens");
            let name = rustls::pki_types::ServerName::try_from(name).expect("a name");
            connector.connect(name, stream).await.is_ok()
        };
        assert!(dial("172.31.0.11").await && !dial("172.31.0.99").await);
        renewed.send_replace(member(&authority, &["node-1", "172.31.0.99"]));
        assert!(dial("172.31.0.99").await && !dial("172.31.0.11").await);
        shutdown.trigger();
    }
}
