//! HTTP/2 by hand, for tests: a client that sees every frame, and that sends the body of a request only
//! once it has its answer.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// One connection.
pub struct Client<S> {
    stream: S,
    next: u32,
}

/// The stream was reset, for this reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Reset(pub u32);

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub async fn start(stream: S) -> Self {
        let mut client = Self { stream, next: 1 };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let sent = client.stream.write_all(preface).await;
        sent.expect("the server reads");
        client.send(SETTINGS, 0, 0, &[]).await;
        client
    }

    /// Sends the head of a POST; its stream.
    pub async fn ask(&mut self, path: &str, field: Option<(&str, &str)>) -> u32 {
        let number = self.next;
        self.next += 2;
        // POST and https of HPACK's static table, then literals without Huffman.
        let mut head = vec![0x83, 0x87];
        let text = |head: &mut Vec<u8>, text: &str| {
            head.push(u8::try_from(text.len()).expect("a short text"));
            head.extend(text.as_bytes());
        };
        for (name, value) in [(1, "localhost"), (4, path)] {
            head.push(name);
            text(&mut head, value);
        }
        if let Some((name, value)) = field {
            head.push(0);
            text(&mut head, name);
            text(&mut head, value);
        }
        self.send(HEADERS, END_HEADERS, number, &head).await;
        number
    }

    /// Begins a POST and waits for its answer; its stream and what the answer says.
    pub async fn begin(&mut self, path: &str, field: Option<(&str, &str)>) -> (u32, Vec<u8>) {
        let number = self.ask(path, field).await;
        let mut body = Vec::new();
        loop {
            let frame = self.receive().await;
            if frame.stream != number {
                continue;
            }
            assert_ne!(frame.kind, RESET, "{path}: reset before its answer's end");
            if frame.kind == DATA {
                body.extend(frame.payload);
            }
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                return (number, body);
            }
        }
    }

    /// Sends the body, and learns whether the server has let it.
    pub async fn end(&mut self, stream: u32, pieces: usize) -> Result<(), Reset> {
        for piece in 1..=pieces {
            let flags = if piece == pieces { END_STREAM } else { 0 };
            self.send(DATA, flags, stream, &[b' '; 1000]).await;
        }
        self.send(PING, 0, 0, &[0; 8]).await;
        loop {
            let frame = self.receive().await;
            match frame.kind {
                PING => return Ok(()),
                RESET if frame.stream == stream => return Err(reset(&frame.payload)),
                _ => {}
            }
        }
    }

    /// Waits until the server has reset the stream.
    pub async fn until_reset(&mut self, stream: u32) -> Reset {
        loop {
            let frame = self.receive().await;
            if frame.kind == RESET && frame.stream == stream {
                return reset(&frame.payload);
            }
        }
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        let sent = self.stream.write_all(&frame).await;
        sent.expect("the server reads");
        self.stream.flush().await.expect("the server reads");
    }

    async fn receive(&mut self) -> Frame {
        let mut head = [0; 9];
        let read = self.stream.read_exact(&mut head).await;
        read.expect("the connection is open");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        let read = self.stream.read_exact(&mut payload).await;
        read.expect("a whole frame");
        Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            payload,
        }
    }
}

fn reset(payload: &[u8]) -> Reset {
    let reason = payload.try_into().expect("four bytes");
    Reset(u32::from_be_bytes(reason))
}
