//! Unary gRPC calls over a unix socket. The other side is a driver that may hang, lie and go away: each call has a
//! connection of its own, a deadline and a limit for its answer.

use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

/// The largest answer that is read, in bytes; what gRPC's own libraries take.
const ANSWER_LIMIT: usize = 4 << 20;
/// How much of what a driver says of a failure is passed on, in bytes.
const MESSAGE_LIMIT: usize = 1024;
/// Flag, and four bytes of length, before a message.
const FRAME_HEAD: usize = 5;

/// The names of `google.rpc.Code`, by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {} desc = {message}", code_name(*.code))]
pub struct RpcError {
    /// `google.rpc.Code`.
    pub code: usize,
    pub message: String,
}

/// A method: its service and its name, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    pub path: &'static str,
    pub timeout: Duration,
}

/// Asks the server behind `socket`, once.
pub async fn call<Q: Message, A: Message + Default>(
    socket: &Path,
    method: Method,
    question: &Q,
) -> Result<A, RpcError> {
    let asking = ask(socket, method.path, question.encode_to_vec());
    let answer = tokio::time::timeout(method.timeout, asking).await;
    let late = |_| {
        let seconds = method.timeout.as_secs();
        failed(4, format!("no answer within {seconds} s"))
    };
    let message = answer.map_err(late)??;
    A::decode(message).map_err(|error| failed(13, format!("the answer does not read: {error}")))
}

async fn ask(socket: &Path, path: &str, question: Vec<u8>) -> Result<Bytes, RpcError> {
    let unavailable = |error: &dyn std::fmt::Display| {
        failed(14, format!("connect to {:?}: {error}", socket.display()))
    };
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| unavailable(&error))?;
    let (executor, io) = (TokioExecutor::new(), TokioIo::new(stream));
    let handshake = hyper::client::conn::http2::handshake(executor, io).await;
    let (mut sender, connection) = handshake.map_err(|error| unavailable(&error))?;
    // It ends with the call.
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = http::Request::post(format!("http://localhost{path}"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(Full::new(framed(&question)))
        .map_err(|error| failed(13, error.to_string()))?;
    let answer = sender.send_request(request).await;
    let (head, body) = answer.map_err(|error| unavailable(&error))?.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(failed(2, format!("HTTP status {}", head.status)));
    }
    let body = Limited::new(body, ANSWER_LIMIT + FRAME_HEAD)
        .collect()
        .await;
    let body = body.map_err(|error| failed(8, format!("the answer was not read: {error}")))?;
    // An answer without a message has its trailers in its head.
    let trailers = body.trailers().cloned().unwrap_or(head.headers);
    drop(connection);
    judged(&trailers)?;
    unframed(body.to_bytes())
}

/// What the trailers say of the call.
fn judged(trailers: &HeaderMap) -> Result<(), RpcError> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").map(str::parse) {
        Some(Ok(0)) => Ok(()),
        Some(Ok(code)) => {
            let message = text("grpc-message").unwrap_or_default();
            Err(failed(code, unescaped(message)))
        }
        _ => Err(failed(13, "the answer has no status".to_owned())),
    }
}

/// A message in gRPC's frame: not compressed, its length, itself.
pub fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_HEAD + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// The one message of a body.
pub fn unframed(mut body: Bytes) -> Result<Bytes, RpcError> {
    let damaged = || failed(13, "the answer is not one gRPC message".to_owned());
    if body.len() < FRAME_HEAD || body.get_u8() != 0 {
        return Err(damaged());
    }
    let length = usize::try_from(body.get_u32()).ok();
    match length == Some(body.len()) {
        true => Ok(body),
        false => Err(damaged()),
    }
}

/// Percent-encoding, as gRPC has it in its messages; at most so much that a person reads it. Control characters
/// become spaces: it ends in events and logs.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *byte == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = &after[2..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
        if bytes.len() == MESSAGE_LIMIT {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    text.replace(|it: char| it.is_control(), " ")
}

fn failed(code: usize, message: String) -> RpcError {
    RpcError { code, message }
}

fn code_name(code: usize) -> String {
    match CODES.get(code) {
        Some(name) => (*name).to_owned(),
        None => format!("Code({code})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_says_of_a_failure_is_short_and_in_one_line() {
        assert_eq!(unescaped("no%20space%0aleft%"), "no space left%");
        assert_eq!(unescaped("%zz%e4%bd%a0"), "%zz\u{4f60}");
        assert_eq!(unescaped(&"%41".repeat(9000)).len(), MESSAGE_LIMIT);
        let error = failed(9, "busy".to_owned());
        let said = "rpc error: code = FailedPrecondition desc = busy";
        assert_eq!(error.to_string(), said);
        assert!(failed(99, String::new()).to_string().contains("Code(99)"));
    }

    #[test]
    fn a_body_is_one_whole_message() {
        assert_eq!(unframed(framed(b"abc")), Ok(Bytes::from_static(b"abc")));
        let damaged: [&'static [u8]; 5] = [
            b"",
            b"\0\0\0\0",
            b"\x01\0\0\0\x01a",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\x01ab",
        ];
        for body in damaged {
            assert!(unframed(Bytes::from_static(body)).is_err(), "{body:?}");
        }
    }
}
