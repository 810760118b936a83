//! What the API server asks of a node: logs, health, numbers, ways to pods. HTTPS for cluster administrators'
//! certificates only, of which the API server has one.

pub mod health_checks;
mod tunnel;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future};
use hyper::service::service_fn;
use jiff::Timestamp;
use rustls::ServerConfig;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt as _;

use tunnel::Tunnels;

use crate::metrics::{self, Metrics};
use crate::node::join::Membership;
use crate::runtime::{Container, LogOptions, Role, Runtime, RuntimeError};
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
    all: 640,
    strangers: 128,
    strangers_per_source: 64,
    per_holder: 512,
};

/// What the handlers need.
pub struct Served<R> {
    pub runtime: Arc<R>,
    pub metrics: Arc<Metrics>,
}

impl<R> Clone for Served<R> {
    fn clone(&self) -> Self {
        Served {
            runtime: self.runtime.clone(),
            metrics: self.metrics.clone(),
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
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(logs::<R>),
        )
        .layer(middleware::from_fn(administrators_only))
        .with_state(served)
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

/// The query of a log request, in Kubernetes' words.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LogQuery {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<u64>,
    limit_bytes: Option<u64>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
}

async fn logs<R: Runtime>(
    State(served): State<Served<R>>,
    Path((namespace, pod, name)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Response {
    let attempts = match attempts(&*served.runtime, &namespace, &pod, &name).await {
        Ok(attempts) => attempts,
        Err(error) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
        }
    };
    let wanted = usize::from(query.previous);
    let Some(container) = attempts.iter().rev().nth(wanted) else {
        let what = if query.previous {
            format!("previous terminated container \"{name}\" in pod \"{pod}\" not found")
        } else {
            format!("container \"{name}\" in pod \"{pod}\" is waiting to start: ContainerCreating")
        };
        return (StatusCode::BAD_REQUEST, what).into_response();
    };
    let since = query.since_time.map(Timestamp::as_second);
    let since = since.or(query
        .since_seconds
        .map(|ago| Timestamp::now().as_second() - ago));
    let options = LogOptions {
        follow: query.follow && !query.previous,
        timestamps: query.timestamps,
        tail: query.tail_lines,
        since,
    };
    let frames = served.runtime.logs(&container.id, &options);
    let frames = limited(frames, query.limit_bytes);
    let body = Body::from_stream(frames.map_err(std::io::Error::other));
    ([("content-type", "text/plain")], body).into_response()
}

/// All attempts of one container of the newest pod of that name, oldest first.
async fn attempts<R: Runtime>(
    runtime: &R,
    namespace: &str,
    pod: &str,
    name: &str,
) -> Result<Vec<Container>, RuntimeError> {
    let sightings = runtime.pods().await?;
    let named = sightings
        .into_iter()
        .filter(|it| it.pod.namespace == namespace && it.pod.name == pod);
    let mut newest: Vec<Container> = Vec::new();
    for sighting in named {
        let mut found = runtime.containers(&sighting.pod.uid).await?;
        found.retain(|it| it.identity.role != Role::Sandbox && it.identity.name == name);
        found.sort_by_key(|container| container.identity.attempt);
        let age = |list: &[Container]| list.last().map(|container| container.created_at);
        if age(&found) > age(&newest) {
            newest = found;
        }
    }
    Ok(newest)
}

/// Cuts a stream off after that many bytes.
fn limited<S>(frames: S, limit: Option<u64>) -> impl futures::Stream<Item = S::Item>
where
    S: futures::Stream<Item = Result<Bytes, RuntimeError>>,
{
    let mut left = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    frames
        .map_ok(move |mut frame| {
            if let Some(left) = &mut left {
                frame.truncate(*left);
                *left -= frame.len();
            }
            frame
        })
        .take_while(move |frame| {
            let cut = limit.is_some() && frame.as_ref().is_ok_and(Bytes::is_empty);
            future::ready(!cut)
        })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::runtime::fake::FakeRuntime;
    use sys::certificates::{Authority, Usage};

    #[tokio::test]
    async fn a_limit_cuts_in_the_middle_of_a_line() {
        let frames = ["hello\n", "world\n", "again\n"].map(|text| Ok(Bytes::from(text)));
        let cut: Vec<_> = limited(futures::stream::iter(frames), Some(8))
            .collect()
            .await;
        let text: Vec<u8> = cut
            .into_iter()
            .flat_map(|frame| frame.expect("no error"))
            .collect();
        assert_eq!(text, b"hello\nwo");
    }

    /// A membership whose certificate names these; and the authority's administrator.
    fn member(authority: &Authority, names: &[&str]) -> Membership {
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
        let served = Served {
            runtime: Arc::new(FakeRuntime::default()),
            metrics: Arc::default(),
        };
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
