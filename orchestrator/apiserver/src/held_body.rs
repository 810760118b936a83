//! A body that keeps something until it was sent, or its client is gone.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// The same body, which keeps `kept` as long as it is there. It goes on to say how long it is.
pub fn keeping<K: Send + Unpin + 'static>(body: Body, kept: K) -> Body {
    Body::new(Keeping { body, _kept: kept })
}

struct Keeping<K> {
    body: Body,
    _kept: K,
}

impl<K: Unpin> HttpBody for Keeping<K> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_keeps_something_says_how_long_it_is() {
        let body = keeping(Body::from("seven b"), ());
        assert_eq!(HttpBody::size_hint(&body).exact(), Some(7));
    }
}
