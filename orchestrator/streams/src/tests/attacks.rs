//! What a hostile client does ends its own connection or its own stream, and takes bounded memory.

use std::task::{Context, Poll, Waker};

use bytes::{BufMut, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::spdy_peer::Peer;
use super::*;
use crate::session::{Session, Wire};
use crate::spdy::{Role, Spdy};
use crate::table::{CONNECTION_INBOX, MAX_UNACCEPTED, STREAM_INBOX, Table};
use crate::websocket::{Content, WebSocket};

const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// A server's SPDY session without I/O, and what has been sent to it.
struct Server {
    session: Session,
    zlib: Compress,
}

impl Server {
    fn new() -> Self {
        let wire = Wire::Spdy(Box::new(Spdy::new(Role::Server)));
        let mut zlib = Compress::new(Compression::best(), true);
        zlib.set_dictionary(include_bytes!("../spdy/dictionary.bin"))
            .unwrap();
        Self {
            session: Session::new(wire, Table::default(), true, Instant::now()),
            zlib,
        }
    }

    /// The kinds of the control frames that it answers with, each with its first number.
    fn answers(&mut self) -> Vec<(u16, u32)> {
        let mut all = Vec::new();
        while let Some(out) = self.session.poll_output() {
            all.extend_from_slice(&out);
        }
        let number = |at: usize| u32::from_be_bytes(all[at..at + 4].try_into().unwrap());
        let (mut at, mut answers) = (0, Vec::new());
        while at < all.len() {
            assert_eq!(all[at], 0x80, "a control frame");
            let kind = number(at) as u16;
            answers.push((kind, number(at + 8)));
            at += 8 + (number(at + 4) & 0xff_ffff) as usize;
        }
        answers
    }

    fn send(&mut self, bytes: &[u8]) {
        self.session.handle_input(bytes, Instant::now());
    }

    fn block(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0; plain.len() + 1_000];
        let before = self.zlib.total_out();
        self.zlib
            .compress(plain, &mut out, FlushCompress::Sync)
            .unwrap();
        out.truncate((self.zlib.total_out() - before) as usize);
        out
    }

    fn open(&mut self, id: u32, plain: &[u8]) {
        let block = self.block(plain);
        let mut body = BytesMut::new();
        body.put_u32(id);
        body.put_slice(&[0; 6]);
        body.put_slice(&block);
        self.send(&control(SYN_STREAM, &body));
    }

    fn is_over(&self) -> bool {
        self.session.table.is_over()
    }
}

fn control(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_u16(0x8003);
    frame.put_u16(kind);
    frame.put_u32(body.len() as u32);
    frame.put_slice(body);
    frame.to_vec()
}

fn numbers(kind: u16, numbers: &[u32]) -> Vec<u8> {
    let body: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect();
    control(kind, &body)
}

fn data(id: u32, fin: bool, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u32 | u32::from(fin) << 24;
    [&id.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
}

fn headers(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut block = BytesMut::new();
    block.put_u32(pairs.len() as u32);
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        block.put_u32(text.len() as u32);
        block.put_slice(text.as_bytes());
    }
    block.to_vec()
}

fn accept(server: &mut Server) -> Option<(u32, crate::table::Headers)> {
    match server
        .session
        .table
        .poll_accept(&Context::from_waker(Waker::noop()))
    {
        Poll::Ready(accepted) => accepted,
        Poll::Pending => None,
    }
}

#[test]
fn headers_are_decompressed_with_the_dictionary_and_what_came_before() {
    let mut server = Server::new();
    for id in [1, 3, 5] {
        let port = (8_000 + id).to_string();
        server.open(
            id,
            &headers(&[("streamtype", "data"), ("Port", &port), ("requestid", "0")]),
        );
        let (accepted, headers) = accept(&mut server).unwrap();
        assert_eq!((accepted, headers["port"].as_str()), (id, port.as_str()));
    }
    assert_eq!(server.answers(), [(2, 1), (2, 3), (2, 5)]);
}

#[test]
fn frames_against_the_protocol_end_the_connection() {
    type Attack = fn(&mut Server);
    let attacks: [(&str, Attack); 17] = [
        ("version 2", |server| {
            server.send(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1])
        }),
        ("data for stream 0", |server| {
            server.send(&data(0, false, b"a"))
        }),
        ("an even id", |server| server.open(2, &headers(&[]))),
        ("id 0", |server| server.open(0, &headers(&[]))),
        ("an id twice", |server| {
            server.open(1, &headers(&[]));
            server.open(1, &headers(&[]));
        }),
        ("an id that goes back", |server| {
            server.open(5, &headers(&[]));
            server.open(3, &headers(&[]));
        }),
        ("a long ping", |server| server.send(&control(PING, &[1; 5]))),
        ("a short ping", |server| {
            server.send(&control(PING, &[1; 3]))
        }),
        ("a long reset", |server| {
            server.send(&control(RST_STREAM, &[1; 9]))
        }),
        ("a short stream", |server| {
            server.send(&control(SYN_STREAM, &[1; 9]))
        }),
        ("no block", |server| {
            server.send(&numbers(SYN_STREAM, &[1, 0, 0]))
        }),
        ("no zlib", |server| {
            server.send(&control(SYN_STREAM, &[1; 200]))
        }),
        ("a long block", |server| {
            server.send(&[0x80, 3, 0, 1, 0, 0, 0x40, 1])
        }),
        ("a bomb", |server| server.open(1, &vec![0; 1024 * 1024])),
        ("many headers", |server| {
            server.open(1, &4_000_000_000u32.to_be_bytes())
        }),
        ("a header's length", |server| {
            server.open(1, &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1])
        }),
        ("a header twice", |server| {
            server.open(1, &headers(&[("a", "1"), ("A", "2")]))
        }),
    ];
    for (name, attack) in attacks {
        let mut server = Server::new();
        attack(&mut server);
        assert!(server.is_over(), "{name}");
        let last = server.answers().pop().unwrap();
        assert_eq!(last.0, GOAWAY, "{name}");
        // Nothing that follows is looked at.
        server.send(&numbers(PING, &[1]));
        assert_eq!(server.answers(), [], "{name}");
    }
}

#[test]
fn more_streams_than_are_taken_are_refused_and_the_rest_go_on() {
    let mut server = Server::new();
    let many = MAX_UNACCEPTED as u32 + 10;
    for index in 0..many {
        server.open(2 * index + 1, &headers(&[("streamtype", "data")]));
    }
    assert!(!server.is_over());
    let answers = server.answers();
    let refused = answers.iter().filter(|(kind, _)| *kind == RST_STREAM);
    assert_eq!(refused.count(), 10);
    let mut accepted = 0;
    while accept(&mut server).is_some() {
        accepted += 1;
    }
    assert_eq!(accepted, MAX_UNACCEPTED);
    server.open(2 * many + 1, &headers(&[("streamtype", "data")]));
    assert!(accept(&mut server).is_some());
}

#[test]
fn streams_that_are_opened_and_reset_at_once_leave_nothing_and_end_the_connection() {
    let mut server = Server::new();
    let mut count = 0;
    while !server.is_over() {
        server.open(2 * count + 1, &headers(&[("streamtype", "data")]));
        server.send(&numbers(RST_STREAM, &[2 * count + 1, 5]));
        server.answers();
        assert!(accept(&mut server).is_none());
        count += 1;
    }
    assert_eq!(count, 1_001);
}

#[test]
fn data_after_the_end_of_a_stream_resets_it_and_harms_no_other() {
    let mut server = Server::new();
    for id in [1, 3] {
        server.open(id, &headers(&[]));
        accept(&mut server).unwrap();
    }
    server.send(&data(1, true, b"all"));
    server.answers();
    // In parts it is one answer, too.
    for byte in data(1, false, b"more") {
        server.send(&[byte]);
    }
    server.send(&data(99, true, b"a stream that was never there"));
    server.send(&data(3, true, b"other"));
    assert_eq!(server.answers(), [(RST_STREAM, 1)]);
    for (id, wanted) in [(1, "all"), (3, "other")] {
        let mut space = [0; 16];
        let mut into = ReadBuf::new(&mut space);
        let context = Context::from_waker(Waker::noop());
        let read = server.session.table.poll_read(id, &context, &mut into);
        assert!(matches!(read, Poll::Ready(Ok(()))));
        assert_eq!(into.filled(), wanted.as_bytes());
    }
}

#[test]
fn nothing_more_is_read_once_a_stream_or_all_streams_hold_their_limit() {
    let mut server = Server::new();
    let part = vec![0; 32 * 1024];
    let streams = (CONNECTION_INBOX / STREAM_INBOX + 2) as u32;
    for index in 0..streams {
        server.open(2 * index + 1, &headers(&[]));
        accept(&mut server).unwrap();
    }
    // One below its limit for each stream.
    let mut sent = 0;
    'all: for index in 0..streams {
        for _ in 0..STREAM_INBOX / part.len() - 1 {
            if !server.session.wants_input() {
                break 'all;
            }
            server.send(&data(2 * index + 1, false, &part));
            sent += part.len();
        }
    }
    assert!(!server.session.wants_input());
    assert!(sent <= CONNECTION_INBOX + part.len());
    // An application that drops a stream makes room.
    server.session.table.drop_reader(1);
    assert!(server.session.wants_input());
}

#[tokio::test]
async fn a_flood_of_pings_whose_answers_are_not_read_is_not_read_on() {
    let (ours, mut theirs) = duplex(PIPE);
    let dialect = dialect(&FORWARD, "SPDY/3.1", "portforward.k8s.io");
    let _connections = crate::forward::start(ours, dialect, &[]);
    let flood = numbers(PING, &[1]).repeat(1_000);
    let mut taken = 0;
    let writing = async {
        loop {
            theirs.write_all(&flood).await.unwrap();
            taken += flood.len();
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(1), writing)
            .await
            .is_err()
    );
    assert!(taken < 1024 * 1024, "{taken} bytes of pings were taken");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_is_given_up_when_it_blocks_others() {
    let (ours, theirs) = duplex(PIPE);
    let dialect = dialect(&FORWARD, "SPDY/3.1", "portforward.k8s.io");
    let mut connections = crate::forward::start(ours, dialect, &[]);
    let peer = Peer::new(theirs);
    let open = |request| {
        let headers = |kind| [("streamtype", kind), ("port", "80"), ("requestid", request)];
        (peer.open(&headers("error")), peer.open(&headers("data")))
    };
    let (_error, mut stuck) = open("1");
    let (_error, mut other) = open("2");
    let mut unread = connections.next().await.unwrap();
    let mut read = connections.next().await.unwrap();
    let flooding = tokio::spawn(async move {
        let flood = stuck.writer.write_all(&vec![0; 4 * STREAM_INBOX]).await;
        flood.unwrap_err().kind()
    });
    let mut answer = [0; 5];
    tokio::task::yield_now().await;
    other.writer.write_all(b"hello").await.unwrap();
    let minutes = Duration::from_secs(120);
    let got = tokio::time::timeout(minutes, read.data.read_exact(&mut answer)).await;
    got.expect("it is blocked for ever").unwrap();
    assert_eq!(&answer, b"hello");
    assert_eq!(flooding.await.unwrap(), std::io::ErrorKind::BrokenPipe);
    let ended = unread.data.read_exact(&mut answer).await.unwrap_err();
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
}

fn websocket(base64: bool) -> Session {
    let mut table = Table::default();
    (0..5).for_each(|id| table.insert(id));
    let content = Content::Channels {
        base64,
        close_signal: true,
    };
    let wire = Wire::WebSocket(Box::new(WebSocket::new(content)));
    Session::new(wire, table, false, Instant::now())
}

#[test]
fn websocket_frames_against_the_protocol_end_the_connection_with_a_code() {
    let long = [&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat();
    let attacks: [(&str, bool, &[u8], u16); 13] = [
        ("not masked", false, &[0x82, 0x02, 0, 0, 0, 0], 1002),
        ("compressed", false, &[0xc2, 0x80, 0, 0, 0, 0], 1002),
        ("an unknown opcode", false, &[0x83, 0x80, 0, 0, 0, 0], 1002),
        (
            "an unknown control frame",
            false,
            &[0x8b, 0x80, 0, 0, 0, 0],
            1002,
        ),
        ("a long ping", false, &long, 1002),
        ("a ping in parts", false, &[0x09, 0x80, 0, 0, 0, 0], 1002),
        ("a part of nothing", false, &[0x80, 0x80, 0, 0, 0, 0], 1002),
        (
            "a message in a message",
            false,
            &[2, 0x80, 0, 0, 0, 0, 2, 0x80, 0, 0, 0, 0],
            1002,
        ),
        (
            "a length of 2^63",
            false,
            &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            1002,
        ),
        (
            "not base64",
            true,
            &[0x81, 0x85, 0, 0, 0, 0, b'0', b'*', b'*', b'*', b'*'],
            1007,
        ),
        (
            "base64 that ends early",
            true,
            &[0x81, 0x83, 0, 0, 0, 0, b'0', b'a', b'a'],
            1007,
        ),
        (
            "base64 after its padding",
            true,
            &[
                0x81, 0x89, 0, 0, 0, 0, b'0', b'a', b'a', b'=', b'=', b'a', b'a', b'a', b'a',
            ],
            1007,
        ),
        ("closing", false, &[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8], 1000),
    ];
    for (name, base64, bytes, code) in attacks {
        for step in [1, bytes.len()] {
            let mut session = websocket(base64);
            for part in bytes.chunks(step) {
                session.handle_input(part, Instant::now());
            }
            assert!(session.table.is_over(), "{name}");
            let out = session.poll_output().unwrap();
            assert_eq!(
                out[..],
                [&[0x88, 2][..], &code.to_be_bytes()].concat(),
                "{name}"
            );
        }
    }
}

#[test]
fn a_websocket_message_of_any_size_takes_no_memory_and_unknown_channels_are_passed_over() {
    let mut session = websocket(false);
    session.table.drop_reader(0);
    let mut head = vec![0x82, 0xff];
    head.extend_from_slice(&(1u64 << 62).to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    session.handle_input(&head, Instant::now());
    // Its channel is 200.
    session.handle_input(&[200], Instant::now());
    for _ in 0..64 {
        session.handle_input(&[0; 64 * 1024], Instant::now());
        assert!(session.wants_input());
    }
    assert!(!session.table.is_over());
}
