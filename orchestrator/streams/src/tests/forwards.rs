//! port-forward.

use super::spdy_peer::{Peer, Stream};
use super::*;
use crate::Connections;
use crate::forward::start;

fn spdy() -> (Connections, Peer) {
    let (ours, theirs) = duplex(PIPE);
    let dialect = dialect(&FORWARD, "SPDY/3.1", "portforward.k8s.io");
    (start(ours, dialect, &[]), Peer::new(theirs))
}

/// Serves every connection by sending back what it gets, with the port before it.
async fn echo_all(mut connections: Connections) -> usize {
    let mut count = 0;
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(mut connection) = connections.next().await {
        count += 1;
        tasks.spawn(async move {
            let port = connection.port.to_be_bytes();
            connection.data.write_all(&port).await.unwrap();
            let (mut reader, mut writer) = tokio::io::split(connection.data);
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        });
    }
    tasks.join_all().await;
    count
}

/// What kubectl does for each connection: an error stream that it closes, a data stream.
fn open(peer: &Peer, port: &str, request: &str) -> (Stream, Stream) {
    let headers = |kind| [("streamtype", kind), ("port", port), ("requestid", request)];
    let given = if request.is_empty() { 2 } else { 3 };
    let error = peer.open(&headers("error")[..given]);
    error.writer.finish(&[]);
    (error, peer.open(&headers("data")[..given]))
}

async fn round_trip(peer: &Peer, request: usize, data: Vec<u8>) {
    let request = request.to_string();
    let (mut error, data_stream) = open(peer, "8080", &request);
    let Stream {
        mut reader,
        mut writer,
    } = data_stream;
    let sending = async {
        writer.write_all(&data).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (_, read) = tokio::join!(sending, reader.read_to_end(&mut back));
    read.unwrap();
    assert_eq!(back[..2], 8080u16.to_be_bytes());
    assert!(back[2..] == data, "bytes were lost or changed");
    let mut text = String::new();
    error.reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "");
}

#[tokio::test]
async fn ten_thousand_connections_in_sequence_lose_no_byte_and_leave_nothing() {
    let (connections, peer) = spdy();
    let echoing = tokio::spawn(echo_all(connections));
    for request in 0..10_000 {
        let data = request.to_string().into_bytes();
        within(round_trip(&peer, request, data)).await;
    }
    within(peer.link().unused()).await;
    drop(peer);
    assert_eq!(within(echoing).await.unwrap(), 10_000);
}

#[tokio::test]
async fn a_hundred_connections_at_once_lose_no_byte() {
    let (connections, peer) = spdy();
    let echoing = tokio::spawn(echo_all(connections));
    let trips = (0..100).map(|request| {
        let data = (0..100_000 + request).map(|at| (at * 7 + request) as u8);
        round_trip(&peer, request, data.collect())
    });
    within(futures::future::join_all(trips)).await;
    drop(peer);
    assert_eq!(within(echoing).await.unwrap(), 100);
}

#[tokio::test]
async fn clients_without_request_ids_are_paired_by_the_order_of_their_streams() {
    let (mut connections, peer) = spdy();
    let mut streams = Vec::new();
    for port in ["80", "81"] {
        streams.push(open(&peer, port, ""));
    }
    for port in [80, 81] {
        assert_eq!(within(connections.next()).await.unwrap().port, port);
    }
}

#[tokio::test]
async fn a_stream_without_a_port_or_a_type_is_reset_and_harms_no_other() {
    let (mut connections, peer) = spdy();
    let bad: [&[(&str, &str)]; 6] = [
        &[],
        &[("port", "80")],
        &[("streamtype", "data")],
        &[("streamtype", "data"), ("port", "0")],
        &[("streamtype", "data"), ("port", "65536")],
        &[("streamtype", "stdin"), ("port", "80")],
    ];
    let mut streams: Vec<Stream> = bad.iter().map(|headers| peer.open(headers)).collect();
    let (_error, _data) = open(&peer, "80", "1");
    assert_eq!(within(connections.next()).await.unwrap().port, 80);
    for stream in &mut streams {
        let mut read = Vec::new();
        within(stream.reader.read_to_end(&mut read)).await.ok();
        let written = within(async {
            loop {
                if let Err(error) = stream.writer.write_all(b"a").await {
                    return error;
                }
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(written.await.kind(), std::io::ErrorKind::BrokenPipe);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_which_one_stream_never_comes_is_given_up_with_a_text() {
    let (connections, peer) = spdy();
    let _echoing = tokio::spawn(echo_all(connections));
    let headers = [("streamtype", "error"), ("port", "80"), ("requestid", "1")];
    let mut error = peer.open(&headers);
    let mut text = String::new();
    within(error.reader.read_to_string(&mut text))
        .await
        .unwrap();
    assert_eq!(text, "timed out waiting for streams");
}

#[tokio::test]
async fn a_failed_connection_says_why_and_the_others_go_on() {
    let (mut connections, peer) = spdy();
    let (mut error, mut data) = open(&peer, "80", "1");
    let failed = within(connections.next()).await.unwrap();
    failed.error.fail("nobody listens on port 80");
    drop(failed.data);
    let mut text = String::new();
    within(error.reader.read_to_string(&mut text))
        .await
        .unwrap();
    assert_eq!(text, "nobody listens on port 80");
    assert_eq!(
        within(data.reader.read_to_end(&mut Vec::new()))
            .await
            .unwrap(),
        0
    );
    let echoing = tokio::spawn(echo_all(connections));
    within(round_trip(&peer, 2, b"next".to_vec())).await;
    drop(peer);
    assert_eq!(within(echoing).await.unwrap(), 1);
}

#[tokio::test]
async fn a_relay_ends_with_its_target_though_the_client_waits_for_the_error_stream() {
    let (mut connections, peer) = spdy();
    let (mut error, mut data) = open(&peer, "80", "1");
    let connection = within(connections.next()).await.unwrap();
    let (target, mut far) = duplex(PIPE);
    let relaying = tokio::spawn(connection.relay(target));
    data.writer.write_all(b"question").await.unwrap();
    let mut question = [0; 8];
    within(far.read_exact(&mut question)).await.unwrap();
    far.write_all(b"answer").await.unwrap();
    drop(far);
    let mut text = String::new();
    within(data.reader.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "answer");
    within(error.reader.read_to_string(&mut text))
        .await
        .unwrap();
    assert_eq!(text, "answer");
    within(relaying).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_has_finished_sending_still_gets_the_answer() {
    let (mut connections, peer) = spdy();
    let (_error, mut data) = open(&peer, "80", "1");
    let connection = within(connections.next()).await.unwrap();
    let (target, mut far) = duplex(PIPE);
    let relaying = tokio::spawn(connection.relay(target));
    data.writer.write_all(b"question").await.unwrap();
    data.writer.shutdown().await.unwrap();
    let mut question = Vec::new();
    within(far.read_to_end(&mut question)).await.unwrap();
    assert_eq!(question, b"question");
    far.write_all(b"answer").await.unwrap();
    drop(far);
    let mut text = String::new();
    within(data.reader.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "answer");
    within(relaying).await.unwrap().unwrap();
}

#[tokio::test]
async fn websocket_channels_begin_with_their_port_and_end_with_their_connections() {
    let (ours, theirs) = duplex(PIPE);
    let dialect = dialect(&FORWARD, "websocket", "v4.channel.k8s.io");
    let connections = start(ours, dialect, &[80, 8443]);
    let mut socket = socket(theirs).await;
    let echoing = tokio::spawn(async move {
        let mut connections = connections;
        for port in [80, 8443] {
            let mut connection = connections.next().await.unwrap();
            assert_eq!(connection.port, port);
            let mut read = [0; 4];
            connection.data.read_exact(&mut read).await.unwrap();
            connection.data.write_all(&read).await.unwrap();
            connection.error.fail("ended");
        }
        assert!(connections.next().await.is_none());
    });
    for (channel, port) in [(0, 80u16), (1, 80), (2, 8443), (3, 8443)] {
        let wanted = [&[channel][..], &port.to_le_bytes()].concat();
        assert_eq!(next(&mut socket).await.unwrap(), wanted);
    }
    send(&mut socket, 2, b"last").await;
    send(&mut socket, 0, b"frst").await;
    let channels = all(&mut socket).await;
    assert_eq!(channels[0], b"frst");
    assert_eq!(channels[1], b"ended");
    assert_eq!(channels[2], b"last");
    assert_eq!(channels[3], b"ended");
    within(echoing).await.unwrap();
}
