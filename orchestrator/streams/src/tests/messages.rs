//! A log or a watch over WebSocket, read by a client that is not ours.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, stream};
use http::{HeaderMap, Method};
use tokio::io::duplex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::{Shape, messages_over};

fn headers(protocol: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        headers.insert(name, value.parse().expect("a value"));
    }
    if !protocol.is_empty() {
        let protocol = protocol.parse().expect("a value");
        headers.insert("sec-websocket-protocol", protocol);
    }
    headers
}

/// What a client reads of these parts until the close.
async fn read(protocol: &str, shape: Shape, parts: &[&'static str]) -> Vec<Message> {
    let (ours, theirs) = duplex(1024);
    let (_, messages) = messages_over(&Method::GET, &headers(protocol)).expect("accepted");
    let parts: Vec<_> = parts
        .iter()
        .map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes())))
        .collect();
    let served = tokio::spawn(messages.carry(ours, stream::iter(parts), shape));
    let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let mut heard = Vec::new();
    while let Some(Ok(message)) = client.next().await {
        if !message.is_close() {
            heard.push(message);
        }
    }
    served.await.expect("served");
    heard
}

#[tokio::test]
async fn a_log_arrives_as_binary_messages_and_then_a_close() {
    let heard = read("binary.k8s.io", Shape::Parts, &["one\ntw", "o\n"]).await;
    assert_eq!(heard, [Message::binary("one\ntw"), Message::binary("o\n")]);
}

#[tokio::test]
async fn a_client_that_asks_for_base64_gets_text() {
    let heard = read("base64.binary.k8s.io", Shape::Parts, &["\u{1}x"]).await;
    assert_eq!(heard, [Message::text("AXg=")]);
}

#[tokio::test]
async fn each_event_of_a_watch_is_one_text_message_wherever_the_parts_end() {
    let heard = read("", Shape::Lines, &["{\"a\":1}\n{\"b\"", ":2}\n{\"c\":3}\n"]).await;
    let texts = ["{\"a\":1}\n", "{\"b\":2}\n", "{\"c\":3}\n"];
    assert_eq!(heard, texts.map(Message::text));
}

#[tokio::test]
async fn a_client_that_closes_ends_a_stream_that_says_nothing() {
    let (ours, theirs) = duplex(1024);
    let (_, messages) = messages_over(&Method::GET, &headers("")).expect("accepted");
    let quiet = stream::pending::<Result<Bytes, std::io::Error>>();
    let served = tokio::spawn(messages.carry(ours, quiet, Shape::Lines));
    let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    client.send(Message::text("hello")).await.expect("sent");
    client.close(None).await.expect("closed");
    served.await.expect("served");
}

#[tokio::test]
async fn a_client_that_sends_much_loses_its_connection() {
    let (ours, theirs) = duplex(64 * 1024);
    let (_, messages) = messages_over(&Method::GET, &headers("")).expect("accepted");
    let quiet = stream::pending::<Result<Bytes, std::io::Error>>();
    let served = tokio::spawn(messages.carry(ours, quiet, Shape::Lines));
    let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let much = Message::binary(vec![0; 32 * 1024]);
    client.send(much).await.expect("sent");
    served.await.expect("served");
}

#[test]
fn a_protocol_that_is_not_known_is_refused_with_403() {
    let refused = messages_over(&Method::GET, &headers("v4.channel.k8s.io"));
    assert_eq!(refused.err().map(|it| it.status.as_u16()), Some(403));
}
