//! Probes by the gRPC health checking protocol (`grpc.health.v1.Health/Check`), without TLS, as in Kubernetes.

use std::net::SocketAddr;

use prost::Message;
use tokio::net::TcpStream;
use tonic::{Code, Status};

use super::{Failure, failure};
use crate::grpc::{self, Call};

const METHOD: &str = "/grpc.health.v1.Health/Check";

/// The answer is a few bytes; more than this is not read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// `HealthCheckResponse.ServingStatus`, by its numbers.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Whether the server says that the service serves; the empty name means the server as a whole.
pub async fn check(address: SocketAddr, service: &str) -> Result<(), Failure> {
    let what = format!("error: failed to connect service at \"{address}\"");
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| failure(&what, &error))?;
    let call = Call {
        authority: &address.to_string(),
        path: METHOD,
        user_agent: "kube-probe/1.33",
        answer_limit: ANSWER_LIMIT,
    };
    let service = service.to_owned();
    let answer = grpc::ask(stream, call, HealthCheckRequest { service }).await;
    match answer {
        Ok(HealthCheckResponse { status: SERVING }) => Ok(()),
        Ok(HealthCheckResponse { status }) => Err(unhealthy(status)),
        Err(status) => Err(failed(&status)),
    }
}

fn unhealthy(status: i32) -> Failure {
    let known = usize::try_from(status).ok().and_then(|it| STATUSES.get(it));
    let name = known.map_or_else(|| status.to_string(), |it| (*it).to_owned());
    Failure::Container(format!("service unhealthy (responded with \"{name}\")"))
}

fn failed(status: &Status) -> Failure {
    let message = status.message();
    Failure::Container(match status.code() {
        Code::Unimplemented => format!(
            "error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health): {message}"
        ),
        code => {
            format!("error: health rpc probe failed: rpc error: code = {code:?} desc = {message}")
        }
    })
}

/// A server that answers checks, for tests.
#[cfg(test)]
pub mod double {
    use bytes::Bytes;
    use http::HeaderMap;
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
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
        let damaged = "health rpc probe failed";
        let cases: [(&'static [u8], &'static str, Option<&str>); 11] = [
            (b"\0\0\0\0\x02\x08\x01", "0", None),
            (
                b"\0\0\0\0\x02\x08\x02",
                "0",
                Some("responded with \"NOT_SERVING\""),
            ),
            (b"\0\0\0\0\0", "0", Some("responded with \"UNKNOWN\"")),
            (b"\0\0\0\0\x02\x08\x07", "0", Some("responded with \"7\"")),
            // A field that is not known is passed over.
            (b"\0\0\0\0\x06\x12\x02ab\x08\x01", "0", None),
            // Too short, with a wrong length, compressed, and longer than is read.
            (b"\0\0\0\0\x02\x08", "0", Some(damaged)),
            (b"\0\0\0\0\x03\x12\xff\x01", "0", Some(damaged)),
            (b"\x01\0\0\0\x02\x08\x01", "0", Some(damaged)),
            (b"\0\xff\xff\xff\xff\x08\x01", "0", Some(damaged)),
            (
                b"",
                "12",
                Some("does not implement the grpc health protocol"),
            ),
            (b"", "5", Some("code = NotFound")),
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
}
