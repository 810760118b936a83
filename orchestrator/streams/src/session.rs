//! One connection as a state machine without I/O: bytes of the peer go in, bytes for the peer come out.
//!
//! ```text
//!            handle_input ─▶ Wire (SPDY, WebSocket) ─▶ Table (streams)
//! transport                                                           ◀─▶ application
//!            poll_output  ◀─ Wire (frames)          ◀─ Table
//! ```
//!
//! Replies to the peer (pongs, resets, answers to new streams) are bounded by not reading on while
//! [`MAX_REPLIES`] bytes of them wait to be sent.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::time::Instant;

use crate::spdy::Spdy;
use crate::table::{Id, Table};
use crate::websocket::WebSocket;

/// The most bytes of one frame's data that we send, so that streams take turns.
const FRAME: usize = 16 * 1024;
/// About so many bytes are handed to the transport at once.
const CHUNK: usize = 64 * 1024;
/// Bytes of replies that wait to be sent, beyond which nothing more is read.
const MAX_REPLIES: usize = 64 * 1024;
/// How often the peer is asked whether it is there: an idle connection stays known to what is in between, and
/// the kernel finds a machine that has vanished by what it does not acknowledge.
pub(crate) const PING_PERIOD: Duration = Duration::from_secs(25);
/// A peer may be silent for so long while the kernel of its machine answers: a kubectl that is stopped, or
/// whose output nobody reads, sends nothing. Kubernetes' `streamingConnectionIdleTimeout`.
pub(crate) const SILENCE_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);
/// Ping periods that a stream may block the other streams of its connection without being read.
const STALLED_PERIODS: u32 = 3;
/// Streams that the peer opens and resets in a ping period before the application has seen them.
const MAX_EARLY_RESETS: u32 = 1_000;

/// What the peer has done against the protocol.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum Fault {
    #[error("{0}")]
    Protocol(&'static str),
    /// Bytes that are not of the encoding that was agreed on.
    #[error("{0}")]
    Encoding(&'static str),
    #[error("{0}")]
    TooLarge(&'static str),
}

/// A protocol: frames to and from the table of streams.
pub(crate) enum Wire {
    Spdy(Box<Spdy>),
    WebSocket(Box<WebSocket>),
}

impl Wire {
    fn input(&mut self, input: &[u8], table: &mut Table) -> Result<(), Fault> {
        match self {
            Self::Spdy(spdy) => spdy.input(input, table),
            Self::WebSocket(socket) => socket.input(input, table),
        }
    }

    /// Moves what is to be sent to `out`: replies first, then data of the streams in turn.
    fn output(&mut self, table: &mut Table, out: &mut BytesMut) {
        match self {
            Self::Spdy(spdy) => spdy.output(table, out, FRAME, CHUNK),
            Self::WebSocket(socket) => socket.output(table, out, FRAME, CHUNK),
        }
    }

    fn reply_bytes(&self) -> usize {
        match self {
            Self::Spdy(spdy) => spdy.reply_bytes(),
            Self::WebSocket(socket) => socket.reply_bytes(),
        }
    }

    fn ping(&mut self) {
        match self {
            Self::Spdy(spdy) => spdy.ping(),
            Self::WebSocket(socket) => socket.ping(),
        }
    }

    fn goodbye(&mut self, fault: Option<Fault>) {
        match self {
            Self::Spdy(spdy) => spdy.goodbye(fault),
            Self::WebSocket(socket) => socket.goodbye(fault),
        }
    }

    fn peer_closed(&self) -> bool {
        match self {
            Self::Spdy(_) => false,
            Self::WebSocket(socket) => socket.peer_closed(),
        }
    }
}

enum Stage {
    Open,
    /// Everything written is sent, then the status, then the goodbye.
    Closing(Option<(Id, Bytes)>),
    /// Nothing follows what has been taken from `poll_output`.
    Said,
}

pub(crate) struct Session {
    pub(crate) table: Table,
    wire: Wire,
    stage: Stage,
    /// A stream that is not read is given up when it blocks others.
    gives_up_stalled: bool,
    stalled_periods: u32,
    drained: u64,
    heard: Instant,
    pinged: Instant,
}

impl Session {
    pub(crate) fn new(wire: Wire, table: Table, gives_up_stalled: bool, now: Instant) -> Self {
        Self {
            table,
            wire,
            stage: Stage::Open,
            gives_up_stalled,
            stalled_periods: 0,
            drained: 0,
            heard: now,
            pinged: now,
        }
    }

    /// Bytes that the peer has sent. What it does against the protocol ends the connection.
    pub(crate) fn handle_input(&mut self, input: &[u8], now: Instant) {
        self.heard = now;
        if matches!(self.stage, Stage::Said) {
            return;
        }
        let result = self.wire.input(input, &mut self.table);
        let resets = self.table.early_resets() > MAX_EARLY_RESETS;
        let flood = resets.then_some(Fault::Protocol("too many streams are reset at once"));
        if let Some(fault) = result.err().or(flood) {
            self.fail(fault);
        } else if self.wire.peer_closed() {
            self.table.finish_all(true);
            self.table.end(io::ErrorKind::ConnectionAborted);
            self.stage = Stage::Said;
        }
    }

    /// Bytes for the peer, until there is nothing to send.
    pub(crate) fn poll_output(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        loop {
            self.wire.output(&mut self.table, &mut out);
            if !out.is_empty() {
                return Some(out.freeze());
            }
            match &mut self.stage {
                Stage::Closing(status) => match status.take() {
                    Some((id, text)) => self.table.finish_sending(id, &text),
                    None => {
                        self.wire.goodbye(None);
                        self.stage = Stage::Said;
                    }
                },
                Stage::Open | Stage::Said => return None,
            }
        }
    }

    pub(crate) fn wants_input(&self) -> bool {
        self.table.wants_input() && self.wire.reply_bytes() < MAX_REPLIES
    }

    /// When `handle_timeout` is to be called.
    pub(crate) fn timeout(&self) -> Instant {
        self.pinged + PING_PERIOD
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if now < self.timeout() || matches!(self.stage, Stage::Said) {
            return;
        }
        self.pinged = now;
        self.table.take_early_resets();
        self.give_up_stalled();
        if !self.wants_input() {
            // It may have said something that has not been read.
            self.heard = now;
        }
        if now.duration_since(self.heard) > SILENCE_LIMIT {
            self.table.end(io::ErrorKind::TimedOut);
            self.stage = Stage::Said;
            return;
        }
        self.wire.ping();
    }

    fn give_up_stalled(&mut self) {
        let blocked = !self.table.wants_input() && self.table.drained() == self.drained;
        self.drained = self.table.drained();
        self.stalled_periods = if blocked { self.stalled_periods + 1 } else { 0 };
        if self.gives_up_stalled && self.stalled_periods >= STALLED_PERIODS {
            self.stalled_periods = 0;
            self.table.cancel_full();
        }
    }

    /// Ends the connection in order: what was written is sent, then `status` on its stream.
    pub(crate) fn close(&mut self, status: Option<(Id, Bytes)>) {
        if !matches!(self.stage, Stage::Open) {
            return;
        }
        let except = status.as_ref().map(|(id, _)| *id);
        self.table.finish_sending_all(except);
        self.table.discard_all();
        self.stage = Stage::Closing(status);
        self.table.wake_driver();
    }

    /// The transport is gone.
    pub(crate) fn lost(&mut self) {
        self.table.end(io::ErrorKind::ConnectionReset);
        self.stage = Stage::Said;
    }

    /// Whether the end was begun, by either side.
    pub(crate) fn is_ending(&self) -> bool {
        !matches!(self.stage, Stage::Open)
    }

    /// Whether nothing follows once `poll_output` gives none.
    pub(crate) fn has_said_all(&self) -> bool {
        matches!(self.stage, Stage::Said)
    }

    /// Opens a stream, on the client's side of SPDY.
    pub(crate) fn open(&mut self, headers: &[(&str, &str)]) -> Option<Id> {
        let Wire::Spdy(spdy) = &mut self.wire else {
            return None;
        };
        let id = spdy.open(headers, &mut self.table);
        self.table.wake_driver();
        id
    }

    fn fail(&mut self, fault: Fault) {
        tracing::debug!(%fault, "the peer of a stream connection breaks the protocol");
        self.table.end(io::ErrorKind::ConnectionAborted);
        self.wire.goodbye(Some(fault));
        self.stage = Stage::Said;
    }
}
