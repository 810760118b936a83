//! Both sides over a pipe in memory.

mod attacks;
mod commands;
mod forwards;
mod messages;
mod negotiations;
mod random;
mod spdy_peer;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::negotiate::{COMMAND, Dialect, FORWARD, Operation, negotiate};

/// Bytes that are on their way in one direction.
const PIPE: usize = 64 * 1024;
/// Everything that is waited for comes at once, or never.
const PATIENCE: Duration = Duration::from_secs(60);

/// The dialect that a protocol name stands for.
fn dialect(operation: &Operation, upgrade: &str, protocol: &str) -> Dialect {
    let (dialect, _) =
        negotiate(&http::Method::GET, &headers(upgrade, protocol), operation).unwrap();
    dialect
}

fn headers(upgrade: &str, protocol: &str) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    let mut insert = |name: &'static str, value: &str| {
        if !value.is_empty() {
            headers.insert(name, value.parse().unwrap());
        }
    };
    insert("connection", "keep-alive, Upgrade");
    insert("upgrade", upgrade);
    insert("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    insert("sec-websocket-version", "13");
    insert("sec-websocket-protocol", protocol);
    insert("x-stream-protocol-version", protocol);
    headers
}

type Socket = WebSocketStream<DuplexStream>;

async fn socket(io: DuplexStream) -> Socket {
    WebSocketStream::from_raw_socket(io, Role::Client, None).await
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.expect("it does not end")
}

/// The next message that is data; None at the end of the connection.
async fn next(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        match within(socket.next()).await?.ok()? {
            Message::Binary(data) => return Some(data.to_vec()),
            Message::Text(text) => return Some(text.as_bytes().to_vec()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

/// All that comes on each of 256 channels until the end.
async fn all(socket: &mut Socket) -> Vec<Vec<u8>> {
    let mut channels = vec![Vec::new(); 256];
    while let Some(message) = next(socket).await {
        channels[usize::from(message[0])].extend_from_slice(&message[1..]);
    }
    channels
}

async fn send(socket: &mut Socket, channel: u8, data: &[u8]) {
    let message = [&[channel], data].concat();
    within(socket.send(Message::binary(message))).await.unwrap();
}
