//! What the crate `fuzz` calls: all that one client sends, as one input.

use std::task::{Context, Poll, Waker};

use bytes::{BufMut, BytesMut};
use tokio::time::Instant;

use crate::session::{Session, Wire};
use crate::spdy::{Role, Spdy};
use crate::table::Table;
use crate::websocket::{Content, WebSocket};

/// A length at which input is cut, so that every frame is cut somewhere.
const PART: usize = 7;
/// Content of a WebSocket connection, by the first byte of its input.
const CONTENTS: u8 = 4;

/// Whether a SPDY server takes the input as a whole; in parts it does the same.
///
/// # Panics
/// When the parts lead elsewhere.
pub fn spdy(input: &[u8]) -> bool {
    both(input, || Wire::Spdy(Box::new(Spdy::new(Role::Server))))
}

/// Likewise for WebSocket; the first byte says what its messages carry.
///
/// # Panics
/// When the parts lead elsewhere.
pub fn websocket(input: &[u8]) -> bool {
    let Some((first, input)) = input.split_first() else {
        return false;
    };
    both(input, || {
        Wire::WebSocket(Box::new(WebSocket::new(match first % CONTENTS {
            0 => Content::Spdy(Box::new(Spdy::new(Role::Server))),
            kind => Content::Channels {
                base64: kind == 1,
                close_signal: kind == 2,
            },
        })))
    })
}

fn both(input: &[u8], wire: impl Fn() -> Wire) -> bool {
    let whole = serve(wire(), [input].into_iter());
    let parts = serve(wire(), input.chunks(PART));
    assert!(whole == parts, "the parts of an input lead elsewhere");
    whole.0
}

/// Whether the connection goes on, what is answered, and what the streams hold.
fn serve<'a>(wire: Wire, parts: impl Iterator<Item = &'a [u8]>) -> (bool, Vec<u8>, u64) {
    let mut table = Table::default();
    if let Wire::WebSocket(_) = &wire {
        (0..5).for_each(|id| table.insert(id));
    }
    let now = Instant::now();
    let mut session = Session::new(wire, table, true, now);
    for part in parts {
        session.handle_input(part, now);
    }
    let goes_on = !session.table.is_over();
    let context = Context::from_waker(Waker::noop());
    let mut accepted = 0;
    while let Poll::Ready(Some((id, headers))) = session.table.poll_accept(&context) {
        accepted += u64::from(id) + headers.len() as u64;
        // Every second one is used, the others are dropped.
        if id % 4 == 1 {
            session.table.drop_reader(id);
            session.table.drop_writer(id);
        } else {
            let _ = session.table.poll_write(id, &context, b"answer");
        }
    }
    session.close(None);
    let mut answers = Vec::new();
    while let Some(out) = session.poll_output() {
        answers.extend_from_slice(&out);
    }
    (goes_on, answers, accepted)
}

/// Connections as clients begin them.
pub fn spdy_seeds() -> Vec<Vec<u8>> {
    let kinds = ["error", "stdin", "stdout", "stderr", "resize"];
    let exec = client(&kinds.map(|kind| vec![("streamtype", kind)]));
    let forward = client(&["error", "data"].map(|kind| {
        let pair = [("streamtype", kind), ("port", "8080"), ("requestid", "0")];
        pair.to_vec()
    }));
    vec![exec, forward]
}

/// The same in WebSocket, after the byte that says what messages carry.
pub fn websocket_seeds() -> Vec<Vec<u8>> {
    let tunnels = spdy_seeds().into_iter().map(|seed| {
        let mut all = BytesMut::from(&[0][..]);
        message(2, &seed, &mut all);
        all.to_vec()
    });
    let mut base64 = BytesMut::from(&[1][..]);
    message(1, b"0AP+A/w==", &mut base64);
    let mut raw = BytesMut::from(&[2][..]);
    message(9, b"ping", &mut raw);
    message(2, b"\0input", &mut raw);
    message(2, br#"4{"Width":80,"Height":24}"#, &mut raw);
    message(2, &[255, 0], &mut raw);
    tunnels.chain([base64.to_vec(), raw.to_vec()]).collect()
}

fn client(streams: &[Vec<(&str, &str)>]) -> Vec<u8> {
    let wire = Wire::Spdy(Box::new(Spdy::new(Role::Client)));
    let mut session = Session::new(wire, Table::default(), false, Instant::now());
    let context = Context::from_waker(Waker::noop());
    for headers in streams {
        if let Some(id) = session.open(headers) {
            let _ = session.table.poll_write(id, &context, b"some data");
            session.table.finish_sending(id, &[]);
        }
    }
    let mut all = Vec::new();
    while let Some(out) = session.poll_output() {
        all.extend_from_slice(&out);
    }
    all
}

/// A client's message, masked with a key of zeros.
fn message(opcode: u8, data: &[u8], out: &mut BytesMut) {
    out.put_u8(0x80 | opcode);
    out.put_u8(0x80 | 126);
    out.put_u16(data.len() as u16);
    if opcode >= 8 {
        // A control frame has no longer form of its length.
        out.truncate(out.len() - 3);
        out.put_u8(0x80 | data.len() as u8);
    }
    out.put_u32(0);
    out.put_slice(data);
}
