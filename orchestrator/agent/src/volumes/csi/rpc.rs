//! Unary gRPC calls over a unix socket. The other side is a driver that may hang, lie and go away: each call has a
//! connection of its own, a deadline and a limit for its answer.

use std::path::Path;
use std::time::Duration;

use prost::Message;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::grpc::{self, Call};

/// The largest answer that is read, in bytes; what gRPC's own libraries take.
const ANSWER_LIMIT: usize = 4 << 20;
/// How much of what a driver says of a failure is passed on, in bytes.
const MESSAGE_LIMIT: usize = 1024;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {code:?} desc = {message}")]
pub struct RpcError {
    pub code: Code,
    pub message: String,
}

/// A method: its service and its name, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    pub path: &'static str,
    pub timeout: Duration,
}

/// Asks the server behind `socket`, once.
pub async fn call<Q, A>(socket: &Path, method: Method, question: &Q) -> Result<A, RpcError>
where
    Q: Message + Clone + 'static,
    A: Message + Default + 'static,
{
    let answer = timeout(method.timeout, ask(socket, method.path, question.clone())).await;
    let late = |_| {
        let seconds = method.timeout.as_secs();
        Status::deadline_exceeded(format!("no answer within {seconds} s"))
    };
    let answer = answer.map_err(late).and_then(|answer| answer);
    answer.map_err(|status| RpcError {
        code: status.code(),
        message: short(status.message()),
    })
}

async fn ask<Q, A>(socket: &Path, path: &'static str, question: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        Status::unavailable(format!("connect to {:?}: {error}", socket.display()))
    })?;
    let call = Call {
        authority: "localhost",
        path,
        user_agent: "orchestrator",
        answer_limit: ANSWER_LIMIT,
    };
    grpc::ask(stream, call, question).await
}

/// At most so much that a person reads it. Control characters become spaces: it ends in events and logs.
fn short(text: &str) -> String {
    let end = text.floor_char_boundary(MESSAGE_LIMIT);
    text[..end].replace(|it: char| it.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_says_of_a_failure_is_short_and_in_one_line() {
        assert_eq!(short("no space\nleft"), "no space left");
        assert_eq!(short(&"\u{4f60}".repeat(9000)).len(), 1023);
        let error = RpcError {
            code: Code::FailedPrecondition,
            message: "busy".to_owned(),
        };
        let said = "rpc error: code = FailedPrecondition desc = busy";
        assert_eq!(error.to_string(), said);
    }
}
