//! Requests of probes and hooks over HTTP and HTTPS. Over HTTPS whoever answers is believed, as in Kubernetes:
//! nothing secret is sent but what the pod itself put in the headers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container as Template, HTTPGetAction, HTTPHeader};
use rustls::pki_types::ServerName;
use sys::tls::{Trust, trusting_config};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Failure, address_of, failure};

/// How many redirects of one probe are followed, as a kubelet's client does.
const MOST_REDIRECTS: usize = 10;

/// What a client names itself; servers tell probes by it.
const USER_AGENT: &str = "kube-probe/1.33";

/// One request.
#[derive(Debug, Clone)]
struct Request<'a> {
    address: SocketAddr,
    /// The host as the pod wrote it; the pod's address if it wrote none.
    host: String,
    secure: bool,
    /// With the query.
    path: String,
    headers: &'a [HTTPHeader],
}

/// What came back.
struct Answer {
    status: StatusCode,
    location: Option<String>,
}

/// Why nothing came back.
struct Unanswered {
    why: Failure,
    /// The other end does not speak TLS.
    is_plain: bool,
}

/// Sends the request of a hook: any answer is a success. One over HTTPS to a server without TLS is repeated
/// without it, as a kubelet does.
pub async fn ask(
    template: &Template,
    get: &HTTPGetAction,
    pod: Option<IpAddr>,
) -> Result<(), Failure> {
    let mut request = Request::of(template, get, pod).await?;
    match request.send().await {
        Err(unanswered) if unanswered.is_plain => {}
        answered => return answered.map(drop).map_err(|unanswered| unanswered.why),
    }
    request.secure = false;
    let answered = request.send().await;
    answered.map(drop).map_err(|unanswered| unanswered.why)
}

/// Sends the request of a probe. Redirects to the same host are followed; one to another host is an answer.
pub async fn probe(template: &Template, get: &HTTPGetAction, pod: IpAddr) -> Result<(), Failure> {
    let mut request = Request::of(template, get, Some(pod)).await?;
    for _ in 0..=MOST_REDIRECTS {
        let answer = request.send().await.map_err(|unanswered| unanswered.why)?;
        let location = answer.location.filter(|_| answer.status.is_redirection());
        match location.and_then(|location| request.redirected(&location)) {
            Some(next) => request = next,
            None => return judged(answer.status),
        }
    }
    let why = format!(
        "{}: stopped after {MOST_REDIRECTS} redirects",
        request.what()
    );
    Err(Failure::Container(why))
}

fn judged(status: StatusCode) -> Result<(), Failure> {
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    let status = status.as_u16();
    let why = format!("HTTP probe failed with statuscode: {status}");
    Err(Failure::Container(why))
}

impl<'a> Request<'a> {
    async fn of(
        template: &Template,
        get: &'a HTTPGetAction,
        pod: Option<IpAddr>,
    ) -> Result<Self, Failure> {
        let host = get.host.as_deref().filter(|host| !host.is_empty());
        let address = address_of(template, host, &get.port, pod).await?;
        let path = get.path.as_deref().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Request {
            address,
            host: host.map_or_else(|| address.ip().to_string(), str::to_owned),
            secure: get.scheme.as_deref() == Some("HTTPS"),
            path: format!("{slash}{path}"),
            headers: get.http_headers.as_deref().unwrap_or_default(),
        })
    }

    /// The request to which a redirect leads; none where that is another host or no address at all.
    fn redirected(&self, location: &str) -> Option<Self> {
        let mut next = self.clone();
        if location.starts_with('/') && !location.starts_with("//") {
            next.path = location.to_owned();
            return Some(next);
        }
        let target: Uri = location.parse().ok()?;
        let Some(scheme) = target.scheme_str() else {
            // Relative to the path that was asked for.
            let path = self.path.split('?').next().unwrap_or_default();
            let (folder, _) = path.rsplit_once('/')?;
            next.path = format!("{folder}/{location}");
            return Some(next);
        };
        next.secure = scheme == "https";
        let host = target.host()?.trim_matches(['[', ']']);
        let known = next.secure || scheme == "http";
        if !known || !host.eq_ignore_ascii_case(&self.host) {
            return None;
        }
        let default = if next.secure { 443 } else { 80 };
        next.address.set_port(target.port_u16().unwrap_or(default));
        let path = target.path_and_query().map(|path| path.as_str());
        next.path = path.unwrap_or("/").to_owned();
        Some(next)
    }

    /// The host as the request names it: a name stays one.
    fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(_) => self.address.to_string(),
            Err(_) => format!("{}:{}", self.host, self.address.port()),
        }
    }

    fn what(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("Get \"{scheme}://{}{}\"", self.authority(), self.path)
    }

    fn head(&self) -> Result<http::Request<Empty<Bytes>>, http::Error> {
        let mut request = http::Request::get(&self.path);
        let defaults = [
            (header::USER_AGENT, USER_AGENT),
            (header::ACCEPT, "*/*"),
            (header::HOST, &self.authority()),
        ];
        for (name, value) in defaults {
            let is_given = |it: &HTTPHeader| it.name.eq_ignore_ascii_case(name.as_str());
            if !self.headers.iter().any(is_given) {
                request = request.header(name, value);
            }
        }
        for HTTPHeader { name, value } in self.headers {
            request = request.header(name, value);
        }
        request.body(Empty::new())
    }

    async fn send(&self) -> Result<Answer, Unanswered> {
        let what = self.what();
        let failed = |error: &dyn std::fmt::Display| Unanswered {
            why: Failure::Container(format!("{what}: {error}")),
            is_plain: false,
        };
        let request = self.head().map_err(|error| failed(&error))?;
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(|error| Unanswered {
            why: failure(&what, &error),
            is_plain: false,
        })?;
        if !self.secure {
            return answer(stream, request).await.map_err(|e| failed(&e));
        }
        let name = ServerName::try_from(self.host.clone());
        let name = name.unwrap_or_else(|_| ServerName::from(self.address.ip()));
        let config = trusting_config(Trust::Anybody, None);
        let config = config.map_err(|error| Unanswered {
            why: Failure::Node(error.to_string()),
            is_plain: false,
        })?;
        let connector = TlsConnector::from(Arc::new(config));
        match connector.connect(name, stream).await {
            Ok(stream) => answer(stream, request).await.map_err(|e| failed(&e)),
            Err(error) => Err(Unanswered {
                is_plain: is_plain(&error),
                ..failed(&error)
            }),
        }
    }
}

/// Whether a handshake failed because the other end answered with something else than TLS.
fn is_plain(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|it| it.downcast_ref());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}

/// What the other end of a connection answers.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::Request<Empty<Bytes>>,
) -> Result<Answer, hyper::Error> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    connection.abort();
    let answer = answer?;
    let location = answer.headers().get(header::LOCATION);
    let location = location.and_then(|it| it.to_str().ok()).map(str::to_owned);
    Ok(Answer {
        status: answer.status(),
        location,
    })
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
