//! Probes by the gRPC health checking protocol (`grpc.health.v1.Health/Check`), without TLS, as in Kubernetes.
//! The two messages have one field each, so they are written and read here.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{Failure, failure};

const METHOD: &str = "/grpc.health.v1.Health/Check";

/// The answer is a few bytes; more than this is not read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// `google.rpc.Code.UNIMPLEMENTED`.
const UNIMPLEMENTED: &str = "12";

/// `HealthCheckResponse.ServingStatus`, by its numbers.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;

/// Whether the server says that the service serves; the empty name means the server as a whole.
pub async fn check(address: SocketAddr, service: &str) -> Result<(), Failure> {
    let what = format!("error: failed to connect service at \"{address}\"");
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| failure(&what, &error))?;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Container(format!("error: health rpc probe failed: {error}"))
    };
    let (executor, io) = (TokioExecutor::new(), TokioIo::new(stream));
    let handshake = hyper::client::conn::http2::handshake(executor, io).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    // It ends with the sender.
    let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let request = http::Request::post(format!("http://{address}{METHOD}"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .header(http::header::USER_AGENT, "kube-probe/1.33")
        .body(Full::new(framed(service)))
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request).await;
    let (head, body) = answer.map_err(|error| failed(&error))?.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(failed(&format!("HTTP status {}", head.status)));
    }
    let body = Limited::new(body, ANSWER_LIMIT).collect().await;
    let body = body.map_err(|error| failed(&error))?;
    // An answer without a message has its trailers in its head.
    let trailers = body.trailers().cloned().unwrap_or(head.headers);
    drop(connection);
    judged(&trailers, &body.to_bytes())
}

fn judged(trailers: &HeaderMap, body: &[u8]) -> Result<(), Failure> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let message = text("grpc-message").unwrap_or_default();
    let why = match text("grpc-status") {
        Some("0") => match status(body) {
            Some(SERVING) => return Ok(()),
            Some(other) => {
                let known = usize::try_from(other).ok().and_then(|it| STATUSES.get(it));
                let name = known.map_or_else(|| other.to_string(), |it| (*it).to_owned());
                format!("service unhealthy (responded with \"{name}\")")
            }
            None => "error: health rpc probe failed: the answer does not read".to_owned(),
        },
        Some(UNIMPLEMENTED) => format!(
            "error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health): {message}"
        ),
        Some(code) => format!("error: health rpc probe failed: code {code}: {message}"),
        None => "error: health rpc probe failed: the answer has no status".to_owned(),
    };
    Err(Failure::Container(why))
}

/// A `HealthCheckRequest` in gRPC's frame: not compressed, its length, itself.
fn framed(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, length-delimited.
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

/// The status of a `HealthCheckResponse` in gRPC's frame; an empty message has the first.
fn status(frame: &[u8]) -> Option<u64> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let (mut status, mut rest) = (0, message);
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 if tag >> 3 == 1 => status = varint(&mut rest)?,
            0 => drop(varint(&mut rest)?),
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A server that answers checks, for tests.
#[cfg(test)]
pub mod double {
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;

    /// The answer of a service that serves.
    pub const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

    /// Answers each check with these bytes and this status, if it asks for the service `asked`.
    pub async fn server(
        asked: &'static [u8],
        message: &'static [u8],
        code: &'static str,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                tokio::spawn(serve(stream, asked, message, code));
            }
        });
        address
    }

    async fn serve(
        stream: TcpStream,
        asked: &'static [u8],
        message: &'static [u8],
        code: &'static str,
    ) {
        let service = service_fn(move |request: http::Request<Incoming>| async move {
            assert_eq!(request.uri().path(), METHOD);
            let body = request.into_body().collect().await?.to_bytes();
            assert_eq!(&body[..], asked);
            let code = http::HeaderValue::from_static(code);
            let trailers =
                HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), code)]);
            let body = Full::new(Bytes::from_static(message));
            let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
            Ok::<_, hyper::Error>(http::Response::new(body))
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // The prober hangs up.
        let _ = connection
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_service_that_serves_is_healthy_and_others_say_why_not() {
        let cases: [(&'static [u8], &'static str, Option<&str>); 6] = [
            (b"\0\0\0\0\x02\x08\x01", "0", None),
            (
                b"\0\0\0\0\x02\x08\x02",
                "0",
                Some("responded with \"NOT_SERVING\""),
            ),
            (b"\0\0\0\0\0", "0", Some("responded with \"UNKNOWN\"")),
            (b"\0\0\0\0\x02\x08", "0", Some("does not read")),
            (
                b"",
                "12",
                Some("does not implement the grpc health protocol"),
            ),
            (b"", "5", Some("code 5")),
        ];
        for (message, code, expected) in cases {
            let asked = b"\0\0\0\0\x04\x0a\x02db";
            let address = double::server(asked, message, code).await;
            let done = check(address, "db").await;
            match expected {
                None => assert_eq!(done, Ok(())),
                Some(text) => {
                    let why = done.expect_err(text).to_string();
                    assert!(why.contains(text), "{why}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_fails() {
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = closed.local_addr().expect("an address");
        drop(closed);
        let why = check(address, "")
            .await
            .expect_err("nobody answers")
            .to_string();
        assert!(why.contains("failed to connect service"), "{why}");
    }

    #[test]
    fn damaged_messages_have_no_status() {
        let damaged: [&[u8]; 6] = [
            b"",
            b"\0\0\0\0",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\xff\xff\xff\xff\x08\x01",
            b"\0\0\0\0\x03\x12\xff\x01",
            b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        for frame in damaged {
            assert_eq!(status(frame), None, "{frame:?}");
        }
        // Unknown fields are passed over.
        assert_eq!(status(b"\0\0\0\0\x06\x12\x02ab\x08\x01"), Some(1));
    }
}
