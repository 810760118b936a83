//! The body of a request, and what becomes of its rest when nobody reads it.
//!
//! Over HTTP/2 a stream whose body is dropped before its end is reset behind the answer, and a client that
//! goes on sending may see the reset and not the answer. So the rest is read and thrown away for a while
//! after the answer was made. Over HTTP/1.1 the connection lingers instead.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{LINGER_BYTES, LINGER_TIME};

/// The body of a request, as services see it.
#[derive(Debug)]
pub struct RequestBody {
    body: Option<Incoming>,
    /// Closed once the request has its answer, or will have none; None over HTTP/1.1.
    answered: Option<oneshot::Receiver<()>>,
}

impl RequestBody {
    /// One whose rest is dropped with it.
    pub(super) fn plain(body: Incoming) -> Self {
        Self {
            body: Some(body),
            answered: None,
        }
    }

    /// The request with a body whose rest is read, from when the sender is dropped.
    pub(super) fn drained(request: Request<Incoming>) -> (Request<Self>, oneshot::Sender<()>) {
        let (sender, answered) = oneshot::channel();
        let request = request.map(|body| Self {
            body: Some(body),
            answered: Some(answered),
        });
        (request, sender)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Some(answered)) = (unread, self.answered.take())
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(drain(body, answered));
        }
    }
}

/// Reads the rest after the answer: what comes before waits in the client's window.
async fn drain(mut body: Incoming, answered: oneshot::Receiver<()>) {
    let _ = answered.await;
    let rest = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            let Some(Ok(frame)) = body.frame().await else {
                return;
            };
            let length = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(length as u64);
        }
    };
    // Whatever comes of it: the stream is over.
    let _ = tokio::time::timeout(LINGER_TIME, rest).await;
}
