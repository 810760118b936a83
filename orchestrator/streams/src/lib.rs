//! Several byte streams over one upgraded HTTP connection, as exec, attach and port-forward need them: SPDY/3.1
//! and WebSocket, the server's side.
//!
//! ```text
//! request ─▶ negotiate ─▶ 101 ─▶ upgraded connection ─▶ shell (task) ─▶ session ─▶ spdy, websocket
//!                                                        │ Reader, Writer ▲             │
//!                                                        ▼                └── table ◀───┘
//!                                                 Command, Connections
//! ```
//!
//! [`command`] and [`forward`] look at a request and give the answer (101) and a future. The answer has to be
//! sent for the future to go on; it gives a [`Command`] or [`Connections`].
//!
//! ```no_run
//! # async fn serve(mut request: http::Request<hyper::body::Incoming>) -> Option<()> {
//! # use streams::{Wants, command, status};
//! let wants = Wants { stdin: true, stdout: true, ..Wants::default() };
//! let (response, command) = command(&mut request, wants).ok()?; // Err: refused.into_response()
//! tokio::spawn(async move {
//!     let Ok(mut command) = command.await else { return };
//!     let (Some(mut stdin), Some(mut stdout)) = (command.stdin.take(), command.stdout.take()) else { return };
//!     let echoed = tokio::select! {
//!         echoed = tokio::io::copy(&mut stdin, &mut stdout) => echoed.is_ok(),
//!         () = command.gone() => return,
//!     };
//!     drop(stdout);
//!     command.finish(&status::exit_code(if echoed { 0 } else { 1 }));
//! });
//! # let _ = response; Some(())
//! # }
//! ```
//!
//! What holds
//! * All memory is bounded: a stream holds 512 KiB that were received and 128 KiB that are to be sent, a
//!   connection 8 MiB; beyond that the peer waits. Neither protocol has a window a stream (see `spdy`), so a
//!   stream that is not read holds up the others of its connection; in port-forward it is reset after some 75 s
//!   of that. A [`Reader`] that is dropped holds up nothing.
//! * Nothing here waits for a client that does not read: what is written is sent by a task of the connection,
//!   which ends 15 min after [`Command::finish`] at the latest.
//! * Pings go out every 25 s. A client that has ended or whose machine has vanished is found by the transport;
//!   it needs TCP keep-alive or a user timeout. A client that is silent but whose kernel answers (stopped with
//!   Ctrl-Z, or its output is not read) is waited for, four hours as in Kubernetes.
//! * A client that breaks the protocol loses its connection, never another's.

mod command;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod messages;
mod negotiate;
mod session;
mod shell;
mod spdy;
pub mod status;
mod table;
#[cfg(test)]
mod tests;
mod websocket;

pub use command::{Command, Sizes, StartingCommand, TerminalSize, Wants, command, command_over};
pub use forward::{
    Connection, Connections, Data, ErrorStream, StartingForward, forward, forward_over,
};
pub use messages::{Messages, Shape, messages_over};
pub use negotiate::{Refused, asks_for_websocket};
pub use shell::{Reader, Writer};

use thiserror::Error;

/// Why there is no connection after an upgrade.
#[derive(Debug, Error)]
pub enum StreamError {
    #[error("the connection was not upgraded: {0}")]
    Upgrade(hyper::Error),
    #[error("timed out waiting for client to create streams")]
    Timeout,
    #[error("the client has gone before its streams were made")]
    Gone,
}
