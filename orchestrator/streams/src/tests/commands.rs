//! exec and attach.

use serde_json::{Value, json};

use super::spdy_peer::Peer;
use super::*;
use crate::command::start;
use crate::{Command, TerminalSize, Wants, status};

const ALL: Wants = Wants {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};

async fn websocket(protocol: &str, wants: Wants) -> (Command, Socket) {
    let (ours, theirs) = duplex(PIPE);
    let dialect = dialect(&COMMAND, "websocket", protocol);
    let command = start(ours, dialect, wants).await.unwrap();
    (command, socket(theirs).await)
}

/// Sends back what it reads, says `done` on stderr and ends with that exit code.
async fn echo(mut command: Command, code: i32) {
    let mut stdin = command.stdin.take().unwrap();
    let mut stdout = command.stdout.take().unwrap();
    tokio::io::copy(&mut stdin, &mut stdout).await.unwrap();
    let stderr = command.stderr.as_mut().unwrap();
    stderr.write_all(b"done").await.unwrap();
    command.finish(&status::exit_code(code));
}

#[tokio::test]
async fn version_5_finishes_stdin_by_a_message_and_ends_with_a_status() {
    let (command, mut socket) = websocket("v5.channel.k8s.io", ALL).await;
    let echoing = tokio::spawn(echo(command, 3));
    assert_eq!(
        next(&mut socket).await.unwrap(),
        [1],
        "an empty greeting on stdout"
    );
    send(&mut socket, 0, b"one ").await;
    send(&mut socket, 0, b"two").await;
    send(&mut socket, 255, &[0]).await;
    let channels = all(&mut socket).await;
    assert_eq!(channels[1], b"one two");
    assert_eq!(channels[2], b"done");
    let status: Value = serde_json::from_slice(&channels[3]).unwrap();
    assert_eq!(status, status::exit_code(3));
    within(echoing).await.unwrap();
}

#[tokio::test]
async fn versions_before_4_say_only_the_text_of_a_failure() {
    for protocol in ["", "channel.k8s.io"] {
        for (code, text) in [
            (0, ""),
            (3, "command terminated with non-zero exit code: exit code 3"),
        ] {
            let (mut command, mut socket) = websocket(protocol, ALL).await;
            let mut stdout = command.stdout.take().unwrap();
            stdout.write_all(b"out").await.unwrap();
            command.finish(&status::exit_code(code));
            let channels = all(&mut socket).await;
            assert_eq!(channels[1], b"out");
            assert_eq!(channels[3], text.as_bytes());
        }
    }
}

#[tokio::test]
async fn base64_messages_carry_any_bytes_and_are_text() {
    for protocol in ["base64.channel.k8s.io", "v4.base64.channel.k8s.io"] {
        let (mut command, mut socket) = websocket(protocol, ALL).await;
        let greeting = within(socket.next()).await.unwrap().unwrap();
        assert_eq!(greeting, Message::text("1"));
        within(socket.send(Message::text("0AP+A/w==")))
            .await
            .unwrap();
        let mut read = [0; 4];
        let stdin = command.stdin.as_mut().unwrap();
        within(stdin.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, [0x00, 0xff, 0x80, 0xff]);
        let stdout = command.stdout.as_mut().unwrap();
        stdout.write_all(&read).await.unwrap();
        let echoed = within(socket.next()).await.unwrap().unwrap();
        assert_eq!(echoed, Message::text("1AP+A/w=="));
    }
}

#[tokio::test]
async fn a_message_may_come_in_parts_of_any_size() {
    for protocol in ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"] {
        let base64 = protocol.contains("base64");
        let (ours, mut theirs) = duplex(PIPE);
        let dialect = dialect(&COMMAND, "websocket", protocol);
        let mut command = start(ours, dialect, ALL).await.unwrap();
        let (opcode, text) = if base64 {
            (1, "0AP+A/w==")
        } else {
            (2, "\0abcd")
        };
        for (index, byte) in text.bytes().enumerate() {
            // Each byte is a frame of its own, masked with 0, with a ping between them.
            let last = index + 1 == text.len();
            let first = u8::from(last) << 7 | if index == 0 { opcode } else { 0 };
            let frame = [first, 0x81, 0, 0, 0, 0, byte, 0x89, 0x80, 9, 9, 9, 9];
            for byte in frame {
                theirs.write_all(&[byte]).await.unwrap();
            }
        }
        let mut read = [0; 4];
        let stdin = command.stdin.as_mut().unwrap();
        within(stdin.read_exact(&mut read)).await.unwrap();
        let wanted = if base64 {
            [0, 0xff, 0x80, 0xff]
        } else {
            *b"abcd"
        };
        assert_eq!(read, wanted);
    }
}

#[tokio::test]
async fn a_terminal_has_sizes_and_no_stderr() {
    let wants = Wants { tty: true, ..ALL };
    let (mut command, mut socket) = websocket("v5.channel.k8s.io", wants).await;
    assert!(command.stderr.is_none());
    send(&mut socket, 4, br#"{"Width":80,"Height":24}{"wid"#).await;
    send(&mut socket, 4, br#"th":132,"height":50}"#).await;
    for (width, height) in [(80, 24), (132, 50)] {
        let size = within(command.sizes.next()).await;
        assert_eq!(size, Some(TerminalSize { width, height }));
    }
    send(&mut socket, 4, br#"{"Width":-1,"Height":24}"#).await;
    assert_eq!(within(command.sizes.next()).await, None);
}

#[tokio::test]
async fn a_client_that_ends_without_a_word_is_gone_and_one_that_closes_finishes_stdin() {
    for in_order in [true, false] {
        let (mut command, mut socket) = websocket("v4.channel.k8s.io", ALL).await;
        send(&mut socket, 0, b"last").await;
        if in_order {
            within(socket.close(None)).await.unwrap();
        }
        drop(socket);
        within(command.gone()).await;
        let mut read = Vec::new();
        let result = command.stdin.as_mut().unwrap().read_to_end(&mut read).await;
        assert_eq!(result.is_ok(), in_order, "{result:?}");
        assert_eq!(read, b"last");
        let written = command.stdout.as_mut().unwrap().write_all(b"a").await;
        assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    }
}

#[tokio::test]
async fn a_command_that_is_dropped_is_an_internal_error() {
    let (command, mut socket) = websocket("v4.channel.k8s.io", ALL).await;
    drop(command);
    let status: Value = serde_json::from_slice(&all(&mut socket).await[3]).unwrap();
    assert_eq!(status["reason"], json!("InternalError"));
}

#[tokio::test]
async fn output_that_was_written_arrives_before_the_status_however_slowly_it_is_read() {
    let (mut command, mut socket) = websocket("v5.channel.k8s.io", ALL).await;
    let mut stdout = command.stdout.take().unwrap();
    let writing = tokio::spawn(async move {
        stdout.write_all(&vec![7; 1_000_000]).await.unwrap();
        drop(stdout);
        command.finish(&status::success());
    });
    let mut length = 0;
    let mut ended = false;
    while let Some(message) = next(&mut socket).await {
        assert!(!ended, "the status is the last");
        match message[0] {
            1 => length += message.len() - 1,
            3 => ended = true,
            other => panic!("channel {other}"),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!((length, ended), (1_000_000, true));
    within(writing).await.unwrap();
}

#[tokio::test]
async fn stdin_that_is_not_read_holds_the_client_back_and_stdin_that_is_dropped_does_not() {
    let (mut command, mut socket) = websocket("v5.channel.k8s.io", ALL).await;
    let part = vec![1; 32 * 1024];
    let flood = async {
        for _ in 0..200 {
            send(&mut socket, 0, &part).await;
        }
    };
    tokio::pin!(flood);
    let held = tokio::time::timeout(Duration::from_millis(500), &mut flood).await;
    assert!(held.is_err(), "6 MiB were taken although nobody reads");
    command.stdin = None;
    within(flood).await;
}

#[tokio::test]
async fn sixty_four_mebibytes_each_way_arrive_whole_in_bounded_memory() {
    const TOTAL: usize = 64 * 1024 * 1024;
    let (ours, theirs) = duplex(PIPE);
    let starting = start(
        ours,
        dialect(&COMMAND, "SPDY/3.1", "v4.channel.k8s.io"),
        ALL,
    );
    let peer = Peer::new(theirs);
    let mut streams = open_all(&peer, &["error", "stdin", "stdout", "stderr"]).await;
    let command = within(starting).await.unwrap();
    let server = command.link().clone();
    let echoing = tokio::spawn(echo(command, 0));
    let mut stdout = streams.remove(2).reader;
    let mut stdin = streams.remove(1).writer;
    let pattern: Vec<u8> = (0..65_521u32).map(|at| (at * 7) as u8).collect();
    let sending = async {
        for at in (0..TOTAL).step_by(pattern.len()) {
            let length = pattern.len().min(TOTAL - at);
            stdin.write_all(&pattern[..length]).await.unwrap();
        }
        stdin.shutdown().await.unwrap();
    };
    let reading = async {
        let (mut total, mut most) = (0, 0);
        let mut part = vec![0; 10_000];
        loop {
            let length = stdout.read(&mut part).await.unwrap();
            if length == 0 {
                return (total, most);
            }
            for (at, byte) in part[..length].iter().enumerate() {
                assert_eq!(*byte, pattern[(total + at) % pattern.len()]);
            }
            total += length;
            for link in [&server, peer.link()] {
                let (inbox, outbox) = link.session().table.waiting();
                most = most.max(inbox + outbox);
            }
        }
    };
    let ((), (total, most)) = within(async { tokio::join!(sending, reading) }).await;
    assert_eq!(total, TOTAL);
    assert!(most < 2 * 1024 * 1024, "{most} bytes waited at once");
    within(echoing).await.unwrap();
}

/// What a SPDY client opens for all of its streams, with the headers of client-go.
async fn open_all(peer: &Peer, kinds: &[&str]) -> Vec<super::spdy_peer::Stream> {
    kinds
        .iter()
        .map(|kind| peer.open(&[("streamtype", kind)]))
        .collect()
}

#[tokio::test]
async fn spdy_has_a_stream_for_each_and_ends_with_a_status() {
    for (protocol, text) in [
        ("v4.channel.k8s.io", status::exit_code(3).to_string()),
        (
            "v2.channel.k8s.io",
            status::exit_code(3)["message"].as_str().unwrap().to_owned(),
        ),
    ] {
        let (ours, theirs) = duplex(PIPE);
        let starting = start(ours, dialect(&COMMAND, "SPDY/3.1", protocol), ALL);
        let peer = Peer::new(theirs);
        let mut streams = open_all(&peer, &["error", "stdin", "stdout", "stderr"]).await;
        let command = within(starting).await.unwrap();
        let echoing = tokio::spawn(echo(command, 3));
        streams[1].writer.write_all(b"one two").await.unwrap();
        streams[1].writer.shutdown().await.unwrap();
        for (index, wanted) in [(2, "one two"), (3, "done"), (0, &text)] {
            let mut read = String::new();
            within(streams[index].reader.read_to_string(&mut read))
                .await
                .unwrap();
            assert_eq!(read, wanted);
        }
        within(echoing).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_spdy_client_that_does_not_make_its_streams_is_given_up() {
    let (ours, theirs) = duplex(PIPE);
    let starting = start(
        ours,
        dialect(&COMMAND, "SPDY/3.1", "v4.channel.k8s.io"),
        ALL,
    );
    let peer = Peer::new(theirs);
    let _streams = open_all(&peer, &["error", "error", "stdin", "unknown"]).await;
    let error = within(starting).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "timed out waiting for client to create streams"
    );
    within(peer.link().gone()).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_command_survives_an_hour_and_a_silent_client_four() {
    let (mut command, mut socket) = websocket("v5.channel.k8s.io", ALL).await;
    // A client that answers pings.
    let answering = tokio::spawn(async move {
        let first = all(&mut socket).await;
        (first, socket)
    });
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let stdout = command.stdout.as_mut().unwrap();
    stdout.write_all(b"still here").await.unwrap();
    command.finish(&status::success());
    let (channels, _) = tokio::time::timeout(PATIENCE, answering)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(channels[1], b"still here");
    let (command, _silent) = websocket("v5.channel.k8s.io", ALL).await;
    let gone = command.gone();
    tokio::pin!(gone);
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    assert!(tokio::time::timeout(hours(3), &mut gone).await.is_err());
    assert!(tokio::time::timeout(hours(2), &mut gone).await.is_ok());
}

/// `cargo xtask idle` does the same with real clients in real time.
#[tokio::test(start_paused = true)]
async fn an_idle_command_over_spdy_survives_an_hour_in_both_directions() {
    let (ours, theirs) = duplex(PIPE);
    let dialect = dialect(&COMMAND, "SPDY/3.1", "v4.channel.k8s.io");
    let starting = start(ours, dialect, ALL);
    let peer = Peer::new(theirs);
    let mut streams = open_all(&peer, &["error", "stdin", "stdout", "stderr"]).await;
    let command = within(starting).await.unwrap();
    let echoing = tokio::spawn(echo(command, 0));
    let mut heard = [0; 6];
    for text in [b"before", b"after "] {
        within(streams[1].writer.write_all(text)).await.unwrap();
        within(streams[2].reader.read_exact(&mut heard))
            .await
            .unwrap();
        assert_eq!(&heard, text);
        tokio::time::sleep(Duration::from_secs(3_600)).await;
    }
    within(streams[1].writer.shutdown()).await.unwrap();
    within(echoing).await.unwrap();
}
