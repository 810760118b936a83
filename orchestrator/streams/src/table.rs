//! The streams of one connection: what was received and not yet read, what was written and not yet sent, and
//! who waits for either. It does no I/O and knows no protocol.
//!
//! ```text
//! wire ─▶ open, receive, finish, reset ─▶ inbox  ─▶ poll_read                  ─▶ application
//! wire ◀─ next_output                  ◀─ outbox ◀─ poll_write, finish_sending ◀─ application
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;

/// Bytes of one stream that wait for the application. SPDY as kubectl speaks it and WebSocket have no window
/// a stream: beyond this nothing more is read from the connection, until half of it has been taken.
pub(crate) const STREAM_INBOX: usize = 512 * 1024;
/// Bytes of all streams that wait for the application, likewise.
pub(crate) const CONNECTION_INBOX: usize = 8 * 1024 * 1024;
/// Bytes of one stream that wait to be sent.
pub(crate) const STREAM_OUTBOX: usize = 128 * 1024;
/// Streams of one connection. kubectl port-forward opens two for each connection.
pub(crate) const MAX_STREAMS: usize = 4_096;
/// Streams that the peer has opened and the application has not yet taken.
pub(crate) const MAX_UNACCEPTED: usize = 512;

pub(crate) type Id = u32;
/// Header names (lower case) and values of a stream.
pub(crate) type Headers = BTreeMap<String, String>;

/// How the peer's side of a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Finished,
    Reset,
}

/// How far our side of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Open,
    /// The end follows after the outbox.
    Finishing,
    Finished,
}

struct Stream {
    headers: Headers,
    inbox: BytesMut,
    received: Option<End>,
    /// The inbox has reached its limit and has not yet been emptied to half of it.
    full: bool,
    outbox: BytesMut,
    sending: Sending,
    /// The peer is told that nothing more is wanted, once everything is sent.
    cancel: bool,
    /// It is in the list of those that have something to send.
    queued: bool,
    accepted: bool,
    reader: bool,
    writer: bool,
    reads: Option<Waker>,
    writes: Option<Waker>,
}

/// What a stream has to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Data { id: Id, data: Bytes, fin: bool },
    Reset { id: Id },
}

#[derive(Default)]
pub(crate) struct Table {
    streams: BTreeMap<Id, Stream>,
    ready: VecDeque<Id>,
    opened: VecDeque<Id>,
    inbox_bytes: usize,
    full: usize,
    /// Bytes that were read from full streams: whether a blocked connection makes progress.
    drained: u64,
    /// Streams that the peer has reset before the application took them.
    early_resets: u32,
    over: Option<io::ErrorKind>,
    driver: Option<Waker>,
    acceptor: Option<Waker>,
}

impl Stream {
    fn new(headers: Headers) -> Self {
        Self {
            headers,
            inbox: BytesMut::new(),
            received: None,
            full: false,
            outbox: BytesMut::new(),
            sending: Sending::Open,
            cancel: false,
            queued: false,
            accepted: false,
            reader: true,
            writer: true,
            reads: None,
            writes: None,
        }
    }

    fn wake(&mut self) {
        wake(&mut self.reads);
        wake(&mut self.writes);
    }

    fn is_done(&self) -> bool {
        let unused = !self.reader && !self.writer;
        unused && self.sending == Sending::Finished && self.received.is_some() && !self.cancel
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn wait(waker: &mut Option<Waker>, context: &Context<'_>) {
    match waker {
        Some(known) if known.will_wake(context.waker()) => {}
        _ => *waker = Some(context.waker().clone()),
    }
}

/// What the wire tells and asks.
impl Table {
    /// A stream that the peer opens. False when there are too many.
    pub(crate) fn open(&mut self, id: Id, headers: Headers) -> bool {
        let many = self.streams.len() >= MAX_STREAMS || self.opened.len() >= MAX_UNACCEPTED;
        if many || self.over.is_some() {
            return false;
        }
        self.streams.insert(id, Stream::new(headers));
        self.opened.push_back(id);
        wake(&mut self.acceptor);
        true
    }

    /// A stream that is there from the beginning, or that we open.
    pub(crate) fn insert(&mut self, id: Id) {
        let mut stream = Stream::new(Headers::new());
        stream.accepted = true;
        self.streams.insert(id, stream);
    }

    /// False when the peer had already finished that stream, which is its error.
    pub(crate) fn receive(&mut self, id: Id, data: &[u8]) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return true;
        };
        if stream.received == Some(End::Finished) {
            return data.is_empty();
        }
        if stream.received.is_some() || !stream.reader || data.is_empty() {
            return true;
        }
        stream.inbox.extend_from_slice(data);
        self.inbox_bytes += data.len();
        if !stream.full && stream.inbox.len() >= STREAM_INBOX {
            stream.full = true;
            self.full += 1;
        }
        wake(&mut stream.reads);
        true
    }

    /// The peer sends nothing more on that stream.
    pub(crate) fn finish(&mut self, id: Id) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.received.get_or_insert(End::Finished);
            wake(&mut stream.reads);
            self.retire(id);
        }
    }

    /// The peer neither sends nor wants anything more on that stream.
    pub(crate) fn reset(&mut self, id: Id) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.received.get_or_insert(End::Reset);
        stream.sending = Sending::Finished;
        stream.cancel = false;
        stream.outbox.clear();
        stream.wake();
        if !stream.accepted {
            self.early_resets += 1;
            self.opened.retain(|opened| *opened != id);
            stream.reader = false;
            stream.writer = false;
            self.forget_inbox(id);
        }
        self.retire(id);
    }

    /// The next data of at most `most` bytes, of each stream in turn.
    pub(crate) fn next_output(&mut self, most: usize) -> Option<Output> {
        while let Some(id) = self.ready.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.queued = false;
            if stream.sending == Sending::Finished {
                if std::mem::take(&mut stream.cancel) {
                    stream.received.get_or_insert(End::Reset);
                    self.retire(id);
                    return Some(Output::Reset { id });
                }
                continue;
            }
            let length = stream.outbox.len().min(most);
            let data = stream.outbox.split_to(length).freeze();
            let last = stream.outbox.is_empty();
            let fin = last && stream.sending == Sending::Finishing;
            if fin {
                stream.sending = Sending::Finished;
            }
            wake(&mut stream.writes);
            if !last || stream.cancel {
                self.queue(id);
            }
            self.retire(id);
            if length > 0 || fin {
                return Some(Output::Data { id, data, fin });
            }
        }
        None
    }

    /// Whether more may be read from the connection.
    pub(crate) fn wants_input(&self) -> bool {
        self.full == 0 && self.inbox_bytes < CONNECTION_INBOX
    }

    pub(crate) fn drained(&self) -> u64 {
        self.drained
    }

    /// Bytes that wait for the application and bytes that wait to be sent.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let outboxes = self.streams.values().map(|stream| stream.outbox.len());
        (self.inbox_bytes, outboxes.sum())
    }

    /// How many streams the peer has reset before the application saw them, since the last call.
    pub(crate) fn take_early_resets(&mut self) -> u32 {
        std::mem::take(&mut self.early_resets)
    }

    pub(crate) fn early_resets(&self) -> u32 {
        self.early_resets
    }

    /// Gives up the streams that the application does not read, when there are others that they block.
    pub(crate) fn cancel_full(&mut self) {
        let full = |(id, stream): (&Id, &Stream)| stream.full.then_some(*id);
        let ids: Vec<Id> = self.streams.iter().filter_map(full).collect();
        if ids.len() == self.streams.len() {
            return;
        }
        for id in ids {
            self.forget_inbox(id);
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.received = Some(End::Reset);
            stream.sending = Sending::Finished;
            stream.cancel = true;
            stream.outbox.clear();
            stream.wake();
            self.queue(id);
        }
    }

    /// Ends what the peer sends: in order, or because the connection has broken.
    pub(crate) fn finish_all(&mut self, in_order: bool) {
        let end = if in_order { End::Finished } else { End::Reset };
        for stream in self.streams.values_mut() {
            stream.received.get_or_insert(end);
            wake(&mut stream.reads);
        }
    }

    /// The connection is gone: nothing can be sent any more.
    pub(crate) fn end(&mut self, why: io::ErrorKind) {
        self.over.get_or_insert(why);
        self.finish_all(false);
        self.ready.clear();
        for stream in self.streams.values_mut() {
            stream.sending = Sending::Finished;
            stream.cancel = false;
            stream.queued = false;
            stream.outbox.clear();
            stream.wake();
        }
        wake(&mut self.acceptor);
        wake(&mut self.driver);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    pub(crate) fn wait_as_driver(&mut self, context: &Context<'_>) {
        wait(&mut self.driver, context);
    }

    pub(crate) fn wake_driver(&mut self) {
        wake(&mut self.driver);
    }

    fn queue(&mut self, id: Id) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.queued
        {
            stream.queued = true;
            self.ready.push_back(id);
        }
    }

    fn retire(&mut self, id: Id) {
        if self.streams.get(&id).is_some_and(Stream::is_done) {
            self.forget_inbox(id);
            self.streams.remove(&id);
            wake(&mut self.acceptor);
        }
    }

    fn forget_inbox(&mut self, id: Id) {
        if let Some(stream) = self.streams.get_mut(&id) {
            self.inbox_bytes -= stream.inbox.len();
            stream.inbox = BytesMut::new();
            if std::mem::take(&mut stream.full) {
                self.full -= 1;
            }
            wake(&mut self.driver);
        }
    }
}

/// What the application does.
impl Table {
    /// The next stream that the peer has opened. None when the connection is over.
    pub(crate) fn poll_accept(&mut self, context: &Context<'_>) -> Poll<Option<(Id, Headers)>> {
        if let Some(id) = self.opened.pop_front()
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.accepted = true;
            return Poll::Ready(Some((id, std::mem::take(&mut stream.headers))));
        }
        if self.over.is_some() {
            return Poll::Ready(None);
        }
        wait(&mut self.acceptor, context);
        Poll::Pending
    }

    /// Ready when no stream has a user any more, or the connection is over.
    pub(crate) fn poll_unused(&mut self, context: &Context<'_>) -> Poll<()> {
        let used = |stream: &Stream| stream.reader || stream.writer;
        if self.over.is_some() || !self.streams.values().any(used) {
            return Poll::Ready(());
        }
        wait(&mut self.acceptor, context);
        Poll::Pending
    }

    /// # Errors
    /// `ConnectionReset` when the peer has ended the stream out of order, or the connection has broken.
    pub(crate) fn poll_read(
        &mut self,
        id: Id,
        context: &Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let over = self.over;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Ok(()));
        };
        if stream.inbox.is_empty() {
            return match (stream.received, over) {
                (Some(End::Finished), _) => Poll::Ready(Ok(())),
                (Some(End::Reset), why) => {
                    Poll::Ready(Err(why.unwrap_or(io::ErrorKind::ConnectionReset).into()))
                }
                (None, Some(why)) => Poll::Ready(Err(why.into())),
                (None, None) => {
                    wait(&mut stream.reads, context);
                    Poll::Pending
                }
            };
        }
        let length = stream.inbox.len().min(into.remaining());
        into.put_slice(&stream.inbox[..length]);
        stream.inbox.advance(length);
        if stream.inbox.is_empty() {
            // The allocation of an idle stream is given back.
            stream.inbox = BytesMut::new();
        }
        let blocked = self.full > 0 || self.inbox_bytes >= CONNECTION_INBOX;
        self.inbox_bytes -= length;
        if stream.full {
            self.drained += length as u64;
            if stream.inbox.len() <= STREAM_INBOX / 2 {
                stream.full = false;
                self.full -= 1;
            }
        }
        if blocked {
            wake(&mut self.driver);
        }
        Poll::Ready(Ok(()))
    }

    /// # Errors
    /// `BrokenPipe` when the peer wants nothing more, or the connection is over.
    pub(crate) fn poll_write(
        &mut self,
        id: Id,
        context: &Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let open = |stream: &&mut Stream| stream.sending == Sending::Open;
        let stream = self.streams.get_mut(&id).filter(open);
        let (Some(stream), None) = (stream, self.over) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let length = STREAM_OUTBOX
            .saturating_sub(stream.outbox.len())
            .min(data.len());
        if length == 0 && !data.is_empty() {
            wait(&mut stream.writes, context);
            return Poll::Pending;
        }
        stream.outbox.extend_from_slice(&data[..length]);
        self.queue(id);
        wake(&mut self.driver);
        Poll::Ready(Ok(length))
    }

    /// Ends our side of the stream in order; `last` is sent before the end, whatever the limit.
    pub(crate) fn finish_sending(&mut self, id: Id, last: &[u8]) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.sending == Sending::Open
        {
            stream.outbox.extend_from_slice(last);
            stream.sending = Sending::Finishing;
            wake(&mut stream.writes);
            self.queue(id);
            wake(&mut self.driver);
        }
    }

    /// Ends our side of all streams but `except` in order.
    pub(crate) fn finish_sending_all(&mut self, except: Option<Id>) {
        let ids: Vec<Id> = self.streams.keys().copied().collect();
        for id in ids.into_iter().filter(|id| Some(*id) != except) {
            self.finish_sending(id, &[]);
        }
    }

    /// What is received from now on is thrown away.
    pub(crate) fn discard_all(&mut self) {
        let ids: Vec<Id> = self.streams.keys().copied().collect();
        for id in ids {
            self.forget_inbox(id);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.received.get_or_insert(End::Reset);
                wake(&mut stream.reads);
            }
        }
    }

    pub(crate) fn drop_reader(&mut self, id: Id) {
        self.forget_inbox(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.reader = false;
            stream.reads = None;
            self.drop_both(id);
        }
    }

    pub(crate) fn drop_writer(&mut self, id: Id) {
        self.finish_sending(id, &[]);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.writer = false;
            stream.writes = None;
            self.drop_both(id);
        }
    }

    /// A peer that goes on sending to a stream that has no user is told to stop.
    fn drop_both(&mut self, id: Id) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.reader
            && !stream.writer
        {
            stream.cancel = stream.received.is_none() && self.over.is_none();
            if stream.cancel {
                self.queue(id);
            }
            self.retire(id);
            wake(&mut self.acceptor);
            wake(&mut self.driver);
        }
    }
}
