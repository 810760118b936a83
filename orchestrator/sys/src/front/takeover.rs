//! A connection of HTTP/1.1 that becomes something else: a tunnel after CONNECT, another protocol after
//! an upgrade. It keeps its room, and ends with what ends every connection.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a stream of bytes can do.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Any stream of bytes.
pub type AnyStream = Box<dyn Stream>;

type Work = Box<dyn FnOnce(AnyStream) -> BoxFuture<'static, ()> + Send>;

/// The place where a service leaves what it does with the bare connection. In the extensions of each
/// request of HTTP/1.1.
#[derive(Clone, Default)]
pub struct Takeover(Arc<Mutex<Option<Work>>>);

impl Takeover {
    /// Does `work` with the connection once this request has its answer, if that is 101, or a success
    /// for CONNECT. What the client has already sent behind its request is read first.
    pub fn then<F>(&self, work: impl FnOnce(AnyStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        *self.lock() = Some(Box::new(|stream| Box::pin(work(stream))));
    }

    pub(super) fn take(&self) -> Option<Work> {
        self.lock().take()
    }

    /// Forgets the work unless hyper gives the connection away after this answer.
    pub(super) fn keep_if_upgraded(&self, method: &Method, status: Option<StatusCode>) {
        let connected = method == Method::CONNECT && status.is_some_and(|it| it.is_success());
        if !connected && status != Some(StatusCode::SWITCHING_PROTOCOLS) {
            drop(self.take());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream of which some bytes were read already.
pub(super) struct Rest<S> {
    pub read: Bytes,
    pub stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rest<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        } else {
            let length = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read.split_to(length));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rest<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
