//! Two streams of bytes as one: what comes from either goes to the other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is on its way in one direction, at most.
const BUFFER_BYTES: usize = 16 * 1024;

/// Passes bytes on in both directions until both have ended, one breaks, or neither has brought a byte
/// for `idle` to twice that time.
pub async fn relay<A, B>(one: A, other: B, idle: Duration)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let read = Arc::new(AtomicU64::new(0));
    let (mut one, mut other) = (Counted(one, read.clone()), Counted(other, read.clone()));
    let silence = async {
        let mut before = None;
        while before != Some(read.load(Ordering::Relaxed)) {
            before = Some(read.load(Ordering::Relaxed));
            tokio::time::sleep(idle).await;
        }
    };
    let copying =
        tokio::io::copy_bidirectional_with_sizes(&mut one, &mut other, BUFFER_BYTES, BUFFER_BYTES);
    tokio::select! {
        // Broken or over, nobody is left who could be told.
        _ = copying => {}
        () = silence => {}
    }
}

/// A stream that counts the bytes read from it.
struct Counted<S>(S, Arc<AtomicU64>);

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        self.1.fetch_add(read as u64, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_one_end_says_the_other_hears_until_both_have_ended() {
        let ((mut client, near), (far, mut server)) = (duplex(64), duplex(64));
        let relayed = tokio::spawn(relay(near, far, Duration::from_secs(60)));
        client.write_all(b"ping").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).await.unwrap();
        server.write_all(b"pong").await.unwrap();
        drop(server);
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "pingpong");
        relayed.await.unwrap();
    }

    #[tokio::test]
    async fn silence_on_both_sides_ends_it_and_words_on_one_side_do_not() {
        let ((mut client, near), (far, mut server)) = (duplex(64), duplex(64));
        let idle = Duration::from_millis(200);
        let relayed = tokio::spawn(relay(near, far, idle));
        for _ in 0..20 {
            tokio::time::sleep(idle / 4).await;
            server.write_all(b"x").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'x');
        }
        assert!(!relayed.is_finished());
        let ended = tokio::time::timeout(idle * 50, relayed).await;
        ended.unwrap().unwrap();
    }
}
