//! Which protocol the client asks for, and the answer: pure functions of the request's head.
//!
//! Sources: Kubernetes' `pkg/util/httpstream` (SPDY: `X-Stream-Protocol-Version`), `wsstream` (WebSocket) and
//! KEP-4006 (SPDY tunnelled in WebSocket); RFC 6455, section 4.2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName =
    HeaderName::from_static("x-accepted-stream-protocol-versions");
const WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WEBSOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const WEBSOCKET_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const SPDY: &str = "SPDY/3.1";
/// Protocols that a client may name; longer lists are cut.
const MAX_PROTOCOLS: usize = 64;

/// An upgrade that is not possible, as the answer to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// 400 without the headers of an upgrade, 403 when no protocol is known to both.
    pub status: StatusCode,
    /// What the client is told, as plain text.
    pub message: String,
    /// The protocols that would be accepted, for `X-Accepted-Stream-Protocol-Versions`.
    pub accepted: Vec<&'static str>,
}

impl Refused {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
            accepted: Vec::new(),
        }
    }

    /// The answer, with the message as its body.
    pub fn into_response(self) -> Response<String> {
        let mut response = Response::new(format!("{}\n", self.message));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(http::header::CONTENT_TYPE, text);
        for protocol in self.accepted {
            headers.append(ACCEPTED_VERSIONS, HeaderValue::from_static(protocol));
        }
        response
    }
}

/// What a version of the remote command protocol can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The error stream carries a Status as JSON; else only the text of a failure.
    pub(crate) status: bool,
    /// Over SPDY the client makes a stream for the terminal's sizes.
    pub(crate) sizes: bool,
    /// Over WebSocket the client says which stream it has finished (channel 255).
    pub(crate) close_signal: bool,
}

const fn version(status: bool, sizes: bool, close_signal: bool) -> Version {
    Version {
        status,
        sizes,
        close_signal,
    }
}

const V1: Version = version(false, false, false);
const V3: Version = version(false, true, false);
const V4: Version = version(true, true, false);
const V5: Version = version(true, true, true);

/// How the bytes after the upgrade are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Spdy(Version),
    /// A channel number before each WebSocket message.
    Channels {
        base64: bool,
        version: Version,
    },
    /// WebSocket messages that carry SPDY (KEP-4006).
    Tunnel,
}

const fn channels(base64: bool, version: Version) -> Dialect {
    Dialect::Channels { base64, version }
}

type Protocols<T> = &'static [(&'static str, T)];

/// An operation: the protocols by which it can be reached.
pub(crate) struct Operation {
    spdy: Protocols<Dialect>,
    /// The empty name is what a client gets that names none.
    websocket: Protocols<Dialect>,
}

pub(crate) const COMMAND: Operation = Operation {
    spdy: &[
        ("v4.channel.k8s.io", Dialect::Spdy(V4)),
        ("v3.channel.k8s.io", Dialect::Spdy(V3)),
        ("v2.channel.k8s.io", Dialect::Spdy(V1)),
        ("channel.k8s.io", Dialect::Spdy(V1)),
    ],
    websocket: &[
        ("v5.channel.k8s.io", channels(false, V5)),
        ("v4.channel.k8s.io", channels(false, V4)),
        ("v4.base64.channel.k8s.io", channels(true, V4)),
        ("channel.k8s.io", channels(false, V1)),
        ("base64.channel.k8s.io", channels(true, V1)),
        ("", channels(false, V1)),
    ],
};

pub(crate) const FORWARD: Operation = Operation {
    spdy: &[("portforward.k8s.io", Dialect::Spdy(V4))],
    websocket: &[
        ("SPDY/3.1+portforward.k8s.io", Dialect::Tunnel),
        ("v4.channel.k8s.io", channels(false, V4)),
        ("v4.base64.channel.k8s.io", channels(true, V4)),
        ("", channels(false, V4)),
    ],
};

/// How one stream becomes messages: as it is, or as base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    Base64,
}

/// A log or a watch.
const MESSAGES: Protocols<Encoding> = &[
    ("binary.k8s.io", Encoding::Plain),
    ("base64.binary.k8s.io", Encoding::Base64),
    ("", Encoding::Plain),
];

/// Whether the client asks for WebSocket.
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    names(headers, &CONNECTION, "upgrade") && names(headers, &UPGRADE, "websocket")
}

/// The encoding of the messages of one stream and the answer that switches to it.
pub(crate) fn messages(
    method: &Method,
    headers: &HeaderMap,
) -> Result<(Encoding, Response<()>), Refused> {
    websocket(method, headers, MESSAGES)
}

/// The protocol to speak and the answer that switches to it.
pub(crate) fn negotiate(
    method: &Method,
    headers: &HeaderMap,
    operation: &Operation,
) -> Result<(Dialect, Response<()>), Refused> {
    if asks_for_websocket(headers) {
        return websocket(method, headers, operation.websocket);
    }
    if names(headers, &CONNECTION, "upgrade") && names(headers, &UPGRADE, SPDY) {
        return spdy(headers, operation.spdy);
    }
    Err(Refused::bad_request(
        "unable to upgrade: missing upgrade headers in request",
    ))
}

fn spdy(
    headers: &HeaderMap,
    known: Protocols<Dialect>,
) -> Result<(Dialect, Response<()>), Refused> {
    let wanted = list(headers, &PROTOCOL_VERSION);
    if wanted.is_empty() {
        return Err(Refused::bad_request(
            "unable to upgrade: X-Stream-Protocol-Version is required",
        ));
    }
    let Some((name, dialect)) = choose(&wanted, known) else {
        return Err(unknown(&wanted, known));
    };
    let mut response = switching(SPDY);
    let chosen = HeaderValue::from_static(name);
    response.headers_mut().insert(PROTOCOL_VERSION, chosen);
    Ok((dialect, response))
}

fn websocket<T: Copy>(
    method: &Method,
    headers: &HeaderMap,
    known: Protocols<T>,
) -> Result<(T, Response<()>), Refused> {
    let key = headers.get(&WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let decoded = key.and_then(|key| STANDARD.decode(key).ok());
    let (Some(key), Some(16)) = (key, decoded.map(|nonce| nonce.len())) else {
        return Err(Refused::bad_request(
            "unable to upgrade: Sec-WebSocket-Key is no key of 16 bytes",
        ));
    };
    let version = headers.get(&WEBSOCKET_VERSION);
    if method != Method::GET || version.is_none_or(|version| version != "13") {
        return Err(Refused::bad_request(
            "unable to upgrade: WebSocket is GET with Sec-WebSocket-Version 13",
        ));
    }
    let mut wanted = list(headers, &WEBSOCKET_PROTOCOL);
    if wanted.is_empty() {
        wanted.push("");
    }
    let Some((name, dialect)) = choose(&wanted, known) else {
        return Err(unknown(&wanted, known));
    };
    let mut response = switching("websocket");
    let answer = response.headers_mut();
    if let Ok(accept) = HeaderValue::try_from(derive_accept_key(key)) {
        answer.insert("sec-websocket-accept", accept);
    }
    if !name.is_empty() {
        answer.insert(WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok((dialect, response))
}

fn switching(to: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(to));
    response
}

/// The client's first that is known.
fn choose<T: Copy>(wanted: &[&str], known: Protocols<T>) -> Option<(&'static str, T)> {
    let find = |name: &&str| known.iter().find(|(known, _)| known == name).copied();
    wanted.iter().find_map(find)
}

fn unknown<T>(wanted: &[&str], known: Protocols<T>) -> Refused {
    let accepted: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let accepted: Vec<&'static str> = accepted.into_iter().filter(|it| !it.is_empty()).collect();
    Refused {
        status: StatusCode::FORBIDDEN,
        message: format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            wanted.join(" "),
            accepted.join(" ")
        ),
        accepted,
    }
}

/// The values of a header that is a list, over all its lines.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).into_iter();
    let values = lines.filter_map(|line| line.to_str().ok());
    let values = values.flat_map(|line| line.split(',')).map(str::trim);
    let values = values.filter(|value| !value.is_empty());
    values.take(MAX_PROTOCOLS).collect()
}

fn names(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    let values = list(headers, name);
    values.iter().any(|it| it.eq_ignore_ascii_case(value))
}
