//! One stream as WebSocket messages: a log or a watch for clients that speak no other streaming protocol, as
//! Kubernetes' `wsstream` serves them. The client's messages mean nothing; its pings are answered, and its close
//! ends the stream.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, Stream, StreamExt as _};
use http::{HeaderMap, Method, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::negotiate::{self, Encoding, Refused};

/// How long a client may take to read what waits for it.
const SEND_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long the client's own close is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(25);
/// Nothing that a client sends has a meaning, so nothing of it needs room.
const MAX_RECEIVED: usize = 4 * 1024;
/// A line that is longer is sent in parts.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// What makes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each part of the stream, as binary.
    Parts,
    /// Each line, as text: a watch's events.
    Lines,
}

/// A stream whose client has its answer.
pub struct Messages {
    encoding: Encoding,
}

/// The answer to a request for WebSocket, and what goes on over the connection once that was sent.
///
/// # Errors
/// [`Refused`]: 400 without the headers of an upgrade, 403 when no protocol is known to both.
pub fn messages_over(
    method: &Method,
    headers: &HeaderMap,
) -> Result<(Response<()>, Messages), Refused> {
    let (encoding, response) = negotiate::messages(method, headers)?;
    Ok((response, Messages { encoding }))
}

impl Messages {
    /// Sends the stream until it ends, fails, or the client closes or does not read.
    pub async fn carry<C, S, E>(self, connection: C, mut stream: S, shape: Shape)
    where
        C: AsyncRead + AsyncWrite + Unpin,
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_RECEIVED))
            .max_frame_size(Some(MAX_RECEIVED));
        let mut socket =
            WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await;
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.tick().await;
        let mut lines = Lines::default();
        loop {
            let parts = tokio::select! {
                part = stream.next() => match part {
                    Some(Ok(part)) => lines.of(part, shape),
                    Some(Err(_)) | None => break,
                },
                said = socket.next() => match said {
                    Some(Ok(said)) if !said.is_close() => continue,
                    _ => return,
                },
                _ = pings.tick() => {
                    let ping = socket.send(Message::Ping(Bytes::new()));
                    if !matches!(timeout(SEND_TIMEOUT, ping).await, Ok(Ok(()))) {
                        return;
                    }
                    continue;
                }
            };
            for part in parts {
                let message = self.message(part, shape);
                if !matches!(
                    timeout(SEND_TIMEOUT, socket.send(message)).await,
                    Ok(Ok(()))
                ) {
                    return;
                }
            }
        }
        let rest = lines.rest();
        if !rest.is_empty() {
            let _ = timeout(SEND_TIMEOUT, socket.send(self.message(rest, shape))).await;
        }
        let _ = timeout(CLOSE_TIMEOUT, async {
            if socket.close(None).await.is_ok() {
                while let Some(Ok(_)) = socket.next().await {}
            }
        })
        .await;
    }

    fn message(&self, part: Bytes, shape: Shape) -> Message {
        match (self.encoding, shape) {
            (Encoding::Base64, _) => Message::text(STANDARD.encode(&part)),
            (Encoding::Plain, Shape::Parts) => Message::binary(part),
            (Encoding::Plain, Shape::Lines) => match String::from_utf8(part.to_vec()) {
                Ok(text) => Message::text(text),
                Err(_) => Message::binary(part),
            },
        }
    }
}

/// The line that has begun.
#[derive(Default)]
struct Lines(BytesMut);

impl Lines {
    /// The messages that a part completes.
    fn of(&mut self, part: Bytes, shape: Shape) -> Vec<Bytes> {
        if shape == Shape::Parts {
            return vec![part];
        }
        self.0.extend_from_slice(&part);
        let mut whole = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            whole.push(self.0.split_to(end + 1).freeze());
        }
        if self.0.len() > MAX_LINE {
            whole.push(self.0.split().freeze());
        }
        whole
    }

    fn rest(&mut self) -> Bytes {
        self.0.split().freeze()
    }
}
