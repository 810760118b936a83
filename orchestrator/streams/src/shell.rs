//! The I/O around the state machine: a task that moves bytes between it and the transport, and the halves of
//! streams that the application holds.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::session::Session;
use crate::table::{Headers, Id};

/// Bytes that are read from the transport at once.
const READ: usize = 32 * 1024;
/// After our last byte the client has so long to read it all and to close; closing earlier would make the
/// kernel throw away what it has not yet delivered. Kubernetes waits as long (apiserver, `finishTimeout`).
pub(crate) const LINGER: Duration = Duration::from_secs(15 * 60);
/// A client that has gone, or has broken the protocol, has so long to take the last bytes.
const GOODBYE: Duration = Duration::from_secs(5);
/// Reads and writes without the task giving way to others.
const ROUNDS: usize = 64;

struct Shared {
    session: Mutex<Session>,
    /// Cancelled when the client has gone, or the connection has ended.
    over: CancellationToken,
}

/// A connection, as everything that uses it holds it.
#[derive(Clone)]
pub(crate) struct Link(Arc<Shared>);

impl Link {
    /// Starts the task that serves the connection. It ends with the transport.
    pub(crate) fn start<T>(session: Session, transport: T) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let link = Self(Arc::new(Shared {
            session: Mutex::new(session),
            over: CancellationToken::new(),
        }));
        let mut driver = Driver {
            link: link.clone(),
            transport: Box::pin(transport),
            chunk: Bytes::new(),
            buffer: vec![0; READ].into(),
            flushed: true,
            shut_down: false,
            timer: Box::pin(sleep_until(Instant::now())),
            ends: None,
        };
        tokio::spawn(async move { poll_fn(|context| driver.poll(context)).await });
        link
    }

    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        let session = &self.0.session;
        session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn gone(&self) -> WaitForCancellationFutureOwned {
        self.0.over.clone().cancelled_owned()
    }

    /// The next stream that the client opens; None when the connection is over.
    pub(crate) async fn accept(&self) -> Option<(Id, Headers)> {
        poll_fn(|context| self.session().table.poll_accept(context)).await
    }

    /// Until nobody uses a stream of this connection any more.
    pub(crate) async fn unused(&self) {
        poll_fn(|context| self.session().table.poll_unused(context)).await;
    }

    pub(crate) fn reader(&self, id: Id) -> Reader {
        Reader {
            link: self.clone(),
            id,
            back: None,
        }
    }

    pub(crate) fn writer(&self, id: Id) -> Writer {
        Writer {
            link: self.clone(),
            id,
        }
    }
}

struct Driver<T> {
    link: Link,
    transport: Pin<Box<T>>,
    /// What the transport has not yet taken.
    chunk: Bytes,
    buffer: Box<[u8]>,
    flushed: bool,
    shut_down: bool,
    timer: Pin<Box<Sleep>>,
    /// When the client is no longer waited for.
    ends: Option<Instant>,
}

/// However the task ends, nobody waits for the connection any more.
impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.link.session().lost();
        self.link.0.over.cancel();
    }
}

impl<T: AsyncRead + AsyncWrite> Driver<T> {
    /// Ready when the connection is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS {
            self.link.session().table.wait_as_driver(context);
            let Ok(wrote) = self.write(context) else {
                // What the client has said before it closed is still heard.
                while let Ok(true) = self.read(context) {}
                return Poll::Ready(());
            };
            let Ok(read) = self.read(context) else {
                return Poll::Ready(());
            };
            if self.time(context).is_ready() {
                return Poll::Ready(());
            }
            if !wrote && !read {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the transport took anything.
    fn write(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut progress = false;
        loop {
            if self.chunk.is_empty() {
                let next = self.link.session().poll_output();
                let Some(next) = next else { break };
                self.chunk = next;
                self.flushed = false;
            }
            match self.transport.as_mut().poll_write(context, &self.chunk) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(length) => self.chunk.advance(length?),
                Poll::Pending => return Ok(progress),
            }
            progress = true;
            if self.chunk.has_remaining() {
                continue;
            }
            // Input has its turn after each chunk.
            break;
        }
        if !self.flushed {
            match self.transport.as_mut().poll_flush(context) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(progress),
            }
            self.flushed = true;
        }
        if self.chunk.is_empty()
            && !self.shut_down
            && self.link.session().has_said_all()
            && !progress
        {
            match self.transport.as_mut().poll_shutdown(context) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(progress),
            }
            self.shut_down = true;
            // A client that has gone hears nothing: there is nothing to wait for.
            if self.link.session().table.is_over() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(progress)
    }

    /// Whether anything came.
    fn read(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        if !self.link.session().wants_input() {
            return Ok(false);
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match self.transport.as_mut().poll_read(context, &mut buffer) {
            Poll::Ready(result) => result?,
            Poll::Pending => return Ok(false),
        }
        if buffer.filled().is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut session = self.link.session();
        session.handle_input(buffer.filled(), Instant::now());
        if session.table.is_over() {
            self.link.0.over.cancel();
        }
        Ok(true)
    }

    /// Ready when the client has had its time.
    fn time(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let mut session = self.link.session();
            session.handle_timeout(now);
            if session.is_ending() {
                let over = session.table.is_over();
                let last = now + if over { GOODBYE } else { LINGER };
                self.ends = Some(self.ends.map_or(last, |ends| ends.min(last)));
            }
            let next = match self.ends {
                Some(ends) if ends <= now => return Poll::Ready(()),
                // A client that is asked nothing is only waited for.
                Some(ends) if session.has_said_all() => ends,
                Some(ends) => ends.min(session.timeout()),
                None => session.timeout(),
            };
            drop(session);
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            ready!(self.timer.as_mut().poll(context));
        }
    }
}

/// What the client sends on a stream. Dropped, what still comes is thrown away.
pub struct Reader {
    link: Link,
    id: Id,
    /// Our side of the stream, where the client takes its end for the end of both.
    back: Option<Writer>,
}

impl Reader {
    /// Keeps our side of the stream open as long as the client's is read.
    pub(crate) fn keep(mut self, back: Writer) -> Self {
        self.back = Some(back);
        self
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut session = self.link.session();
        session.table.poll_read(self.id, context, into)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.link.session().table.drop_reader(self.id);
    }
}

/// What the client gets on a stream. Dropped or shut down, the stream ends in order after what was written.
///
/// Writing waits while 128 KiB are not yet sent; flushing does nothing, since what was written is sent as soon
/// as the transport takes it.
pub struct Writer {
    link: Link,
    id: Id,
}

impl Writer {
    /// Ends the stream with `last`, which is sent whatever is waiting already.
    pub(crate) fn finish(&self, last: &[u8]) {
        self.link.session().table.finish_sending(self.id, last);
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.link.session().table.poll_write(self.id, context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish(&[]);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.link.session().table.drop_writer(self.id);
    }
}

/// Ends the connection in order when it is dropped.
pub(crate) struct Closer {
    link: Link,
}

impl Closer {
    pub(crate) fn new(link: Link) -> Self {
        Self { link }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Sends `status` on its stream as the last that the client hears.
    pub(crate) fn close(&self, status: Option<(Id, Bytes)>) {
        self.link.session().close(status);
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.close(None);
    }
}
