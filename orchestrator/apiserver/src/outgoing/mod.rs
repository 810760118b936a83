//! Requests that the server itself makes: to webhooks, to servers that serve other groups of the API.
//!
//! ```text
//! client ─▶ pool ─▶ dialer ─▶ url: from this machine
//!                         └─▶ Service: endpoints ─▶ in the pod network: agents (CONNECT)
//!                                              └──▶ elsewhere: from this machine
//! ```
//!
//! The server has no place in the pod network, so it goes through agents. Whoever answers may be slow,
//! endless, hostile or another server than the one that is meant: each request has a time and each
//! answer a size, certificates are checked for the name, redirects are not followed.

pub mod agents;
mod dialer;
mod endpoints;
pub mod kubeconfig;
mod once;

use std::error::Error;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::ServerName;
use serde_json::Value;

use super::State;
use dialer::{Dialer, Server};
use endpoints::ServicePort;
pub use endpoints::{Endpoint, PortRef, Unready, is_local, is_of_pod, ready_at, way};
pub use once::{Destination, send_once};
use sys::certificates::Credentials;
use sys::tls::{Trust, trusting_config};

/// The body of an answer that is read whole. A patch of the largest object, in base64, has some more
/// than 4 MiB.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// The head of an answer.
const HEAD_BYTES: usize = 64 * 1024;
/// Connections that wait for the next request: so long and so many.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const IDLE_CONNECTIONS: usize = 16;
/// How much of the text of a failed answer is told.
const QUOTED_BYTES: usize = 200;
/// What the server calls itself.
const USER_AGENT: &str = "kube-apiserver-admission";

/// How to reach somebody else's server, as webhook configurations say it (`clientConfig`), with the
/// connections that are open to it.
pub struct ClientConfig {
    server: Arc<Server>,
    /// `https://hook.shop.svc:443/path`
    url: String,
    trusted: Trusted,
    /// What is shown to the server.
    credentials: Option<Credentials>,
    /// `Bearer …`, if the server is to know this one by a token.
    authorization: Option<HeaderValue>,
    /// Whom the server's certificate must name, if not the host of the URL.
    tls_name: Option<String>,
    client: OnceLock<Result<Client, String>>,
}

/// Whose certificates are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// Those of this bundle (PEM).
    Bundle(String),
    System,
    Anybody,
}

type Client = legacy::Client<Dialer, Body>;

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl ClientConfig {
    /// From a `clientConfig`: `url`, or `service` with `namespace`, `name`, `path` and `port`; `caBundle`.
    pub fn of(config: &Value) -> Result<Self, String> {
        let trusted = Trusted::of(&config["caBundle"])?;
        if let Some(url) = config["url"].as_str() {
            return Self::at(url, trusted);
        }
        let service = &config["service"];
        let path = service["path"].as_str().unwrap_or_default();
        Self::service(service, path, trusted)
    }

    /// The server at a URL.
    pub fn at(url: &str, trusted: Trusted) -> Result<Self, String> {
        let parsed: Uri = url
            .parse()
            .map_err(|error| format!("url {url:?}: {error}"))?;
        let (Some("https"), Some(host)) = (parsed.scheme_str(), parsed.host()) else {
            return Err(format!("url {url:?}: not an https URL"));
        };
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = parsed.port_u16().unwrap_or(443);
        let server = Server::At { host, port };
        Ok(Self::new(server, url.to_owned(), trusted))
    }

    /// The server behind a reference to a Service (`namespace`, `name`, `port`).
    pub fn service(service: &Value, path: &str, trusted: Trusted) -> Result<Self, String> {
        let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
        let port = service["port"].as_u64().unwrap_or(443);
        let port = u16::try_from(port).map_err(|_| format!("{port} is not a port"))?;
        let service = ServicePort {
            namespace: text("namespace"),
            name: text("name"),
            port,
        };
        let slash = if path.is_empty() || path.starts_with('/') {
            ""
        } else {
            "/"
        };
        let url = format!(
            "https://{}.{}.svc:{port}{slash}{path}",
            service.name, service.namespace
        );
        Ok(Self::new(Server::Of(service), url, trusted))
    }

    fn new(server: Server, url: String, trusted: Trusted) -> Self {
        Self {
            server: Arc::new(server),
            url,
            trusted,
            credentials: None,
            authorization: None,
            tls_name: None,
            client: OnceLock::new(),
        }
    }

    /// The same, which shows a certificate.
    pub fn showing(self, credentials: Credentials) -> Self {
        Self {
            credentials: Some(credentials),
            ..self
        }
    }

    fn client(&self, state: &State) -> Result<&Client, String> {
        let client = self.client.get_or_init(|| self.connect(state));
        client.as_ref().map_err(Clone::clone)
    }

    /// A client without a connection yet.
    fn connect(&self, state: &State) -> Result<Client, String> {
        let trust = match &self.trusted {
            Trusted::Bundle(pem) => Trust::Bundle(pem),
            Trusted::System => Trust::System,
            Trusted::Anybody => Trust::Anybody,
        };
        let tls = trusting_config(trust, self.credentials.as_ref());
        let name = match (&self.tls_name, &*self.server) {
            (Some(name), _) => name.clone(),
            (None, Server::At { host, .. }) => host.clone(),
            (None, Server::Of(service)) => format!("{}.{}.svc", service.name, service.namespace),
        };
        let dialer = Dialer {
            state: state.me.clone(),
            server: self.server.clone(),
            tls: Some(Arc::new(tls.map_err(|error| error.to_string())?)),
            name: ServerName::try_from(name).map_err(|error| error.to_string())?,
        };
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(HEAD_BYTES);
        Ok(builder.build(dialer))
    }
}

impl Trusted {
    /// From the base64 of a bundle; without one it is whom the machine trusts.
    pub fn of(bundle: &Value) -> Result<Self, String> {
        let Some(bundle) = bundle.as_str().filter(|bundle| !bundle.is_empty()) else {
            return Ok(Self::System);
        };
        let pem = STANDARD.decode(bundle).map_err(|error| error.to_string());
        let pem = pem.and_then(|pem| String::from_utf8(pem).map_err(|error| error.to_string()));
        Ok(Self::Bundle(pem.map_err(|why| format!("caBundle: {why}"))?))
    }
}

/// Posts JSON and reads the JSON of the answer, all within `timeout`. The error says what was asked and
/// why there is no answer, in the words of Go's HTTP client, which users search for.
pub async fn post_json(
    state: &State,
    to: &ClientConfig,
    body: &Value,
    timeout: Duration,
) -> Result<Value, String> {
    // Whole seconds, as the server that is asked reads them.
    let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
    let url = format!("{}?timeout={seconds}s", to.url);
    call(state, to, &url, Some(body), (ANSWER_BYTES, timeout)).await
}

/// The same at the URL as it is, which without a body is got; of the answer so many bytes are read.
pub async fn call_json(
    state: &State,
    to: &ClientConfig,
    body: Option<&Value>,
    limits: (usize, Duration),
) -> Result<Value, String> {
    call(state, to, &to.url, body, limits).await
}

async fn call(
    state: &State,
    to: &ClientConfig,
    url: &str,
    body: Option<&Value>,
    (limit, timeout): (usize, Duration),
) -> Result<Value, String> {
    let verb = if body.is_some() { "Post" } else { "Get" };
    let body = body.map(serde_json::to_vec).transpose();
    let body = body.map_err(|error| error.to_string())?;
    let asking = ask(state, to, url, (body.map(Bytes::from), limit));
    match tokio::time::timeout(timeout, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Failure::Unreached(why))) => Err(format!("{verb} {url:?}: {why}")),
        Ok(Err(Failure::Answered(why))) => Err(why),
        Err(_) => Err(format!("{verb} {url:?}: context deadline exceeded")),
    }
}

enum Failure {
    Unreached(String),
    Answered(String),
}

/// Why nobody has taken what was posted.
pub struct NotTaken {
    pub why: String,
    /// The next attempt may end otherwise.
    pub may_pass: bool,
}

/// Posts JSON whose answer says no more than whether it was taken.
pub async fn post(
    state: &State,
    to: &ClientConfig,
    body: Bytes,
    timeout: Duration,
) -> Result<(), NotTaken> {
    let asking = exchange(state, to, &to.url, (Some(body), ANSWER_BYTES));
    let (why, may_pass) = match tokio::time::timeout(timeout, asking).await {
        Ok(Ok((code, _))) if code.is_success() => return Ok(()),
        Ok(Ok((code, _))) => {
            let busy = code.is_server_error() || code == StatusCode::TOO_MANY_REQUESTS;
            (format!("the server answered {code}"), busy)
        }
        Ok(Err(Failure::Unreached(why) | Failure::Answered(why))) => (why, true),
        Err(_) => ("context deadline exceeded".to_owned(), true),
    };
    let why = format!("Post {:?}: {why}", to.url);
    Err(NotTaken { why, may_pass })
}

/// Posts a body, or without one gets what is there; so many bytes of the answer are read.
async fn exchange(
    state: &State,
    to: &ClientConfig,
    url: &str,
    (body, limit): (Option<Bytes>, usize),
) -> Result<(StatusCode, Bytes), Failure> {
    let method = if body.is_some() {
        Method::POST
    } else {
        Method::GET
    };
    let request = || {
        let mut request = Request::builder()
            .method(&method)
            .uri(url)
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, USER_AGENT);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &to.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request
            .body(body.clone().map_or_else(Body::empty, Body::from))
            .map_err(|error| Failure::Unreached(error.to_string()))
    };
    let client = to.client(state).map_err(Failure::Unreached)?;
    let mut answer = client.request(request()?).await;
    if answer.as_ref().is_err_and(was_closed) {
        // The server closed an idle connection in the moment in which it was used again.
        answer = client.request(request()?).await;
    }
    let answer = answer.map_err(|error| Failure::Unreached(reason(&error)))?;
    let code = answer.status();
    let body = Limited::new(answer.into_body(), limit).collect().await;
    let body = body.map_err(|error| Failure::Answered(format!("the answer: {error}")))?;
    Ok((code, body.to_bytes()))
}

async fn ask(
    state: &State,
    to: &ClientConfig,
    url: &str,
    sent: (Option<Bytes>, usize),
) -> Result<Value, Failure> {
    let (code, body) = exchange(state, to, url, sent).await?;
    match code.as_u16() {
        200..300 => serde_json::from_slice(&body)
            .map_err(|error| Failure::Answered(format!("the answer is not JSON: {error}"))),
        300..400 => Err(Failure::Answered(format!(
            "the server answered {code}, and redirects are not followed"
        ))),
        404 => Err(Failure::Answered(
            "the server could not find the requested resource".to_owned(),
        )),
        _ => {
            let said = String::from_utf8_lossy(&body[..body.len().min(QUOTED_BYTES)]);
            let said = match said.trim() {
                "" => "unknown".to_owned(),
                said => format!("{said:?}"),
            };
            Err(Failure::Answered(format!(
                "an error on the server ({said}) has prevented the request from succeeding"
            )))
        }
    }
}

/// Sends a request on, whose path and query are what the server is asked for. The body of the answer
/// comes as it is sent; after 101 the connection can be had by `hyper::upgrade::on`.
pub async fn send(
    state: &State,
    to: &ClientConfig,
    mut request: Request<Body>,
) -> Result<Response<Incoming>, String> {
    let url: Uri = to
        .url
        .parse()
        .map_err(|_| format!("{:?}: not a URL", to.url))?;
    let mut parts = uri::Parts::from(url);
    parts.path_and_query = request.uri().path_and_query().cloned();
    let uri = Uri::from_parts(parts).map_err(|error| error.to_string())?;
    if let Some(authority) = uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = uri;
    // The next one may speak another version of HTTP than the client does.
    *request.version_mut() = axum::http::Version::HTTP_11;
    let answer = to.client(state)?.request(request).await;
    answer.map_err(|error| reason(&error))
}

/// Whether there is anybody to be asked, as far as the cluster's objects say.
pub fn is_ready(state: &State, to: &ClientConfig) -> Result<(), Unready> {
    match &*to.server {
        Server::At { .. } => Ok(()),
        Server::Of(service) => endpoints::ready(state, service).map(drop),
    }
}

/// Whether a connection ended before a byte of an answer came.
fn was_closed(error: &legacy::Error) -> bool {
    let inner = error.source();
    let inner = inner.and_then(|inner| inner.downcast_ref::<hyper::Error>());
    inner.is_some_and(hyper::Error::is_incomplete_message)
}

/// The last reason of a chain says what happened; those before it say who noticed.
fn reason(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Any index of a list that is not empty, each as likely as any other.
fn random_index(length: usize) -> usize {
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    usize::try_from(random % (length.max(1) as u64)).unwrap_or(0)
}
