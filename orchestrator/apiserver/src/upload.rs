//! The body of a request: read whole, up to a limit, from a client that keeps sending.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use super::shares::Ticket;
use api::ApiError;

/// How much a client may send, and how long it may take.
#[derive(Clone, Copy)]
pub struct Limit {
    pub bytes: usize,
    /// From the first byte to the last.
    whole: Duration,
    /// From one piece to the next.
    piece: Duration,
}

/// A body of a request for objects: as large as in Kubernetes.
pub const OBJECT: Limit = Limit {
    bytes: 3 * 1024 * 1024,
    whole: Duration::from_secs(60),
    piece: Duration::from_secs(10),
};
/// The body of a request to join, of a client that is not known yet: a name and a certificate
/// request.
pub const JOIN: Limit = Limit {
    bytes: 64 * 1024,
    whole: Duration::from_secs(10),
    piece: Duration::from_secs(5),
};
/// What a node says of what it uses.
pub const SAMPLE: Limit = Limit {
    bytes: api::samples::BODY_BYTES,
    ..OBJECT
};
/// Above this a body is large: few of them are read and worked on at once.
const SMALL_BYTES: usize = 64 * 1024;
/// Above this a body is of middle size: it is worked on at once, but one at a time of each client. What
/// agents and controllers write all the time is below.
const MIDDLE_BYTES: usize = 16 * 1024;

/// A body that has been read.
#[derive(Default)]
pub struct Upload {
    pub bytes: Bytes,
    /// The room of one that is not small, to be kept while it is worked on.
    pub room: Option<OwnedSemaphorePermit>,
}

impl Upload {
    pub fn is_large(&self) -> bool {
        self.bytes.len() > SMALL_BYTES
    }
}

/// Reads the body.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: Limit,
    ticket: &Ticket,
) -> Result<Upload, ApiError> {
    refuse_encoding(headers)?;
    // Refused before a byte of it is read.
    if body.size_hint().lower() > limit.bytes as u64 {
        return Err(too_large(limit));
    }
    let whole = tokio::time::timeout(limit.whole, collect(body, limit, ticket)).await;
    whole.unwrap_or_else(|_| Err(too_slow("whole body", limit.whole)))
}

async fn collect(mut body: Body, limit: Limit, ticket: &Ticket) -> Result<Upload, ApiError> {
    let mut whole = BytesMut::new();
    let mut room = None;
    loop {
        let piece = tokio::time::timeout(limit.piece, body.frame()).await;
        let piece = piece.map_err(|_| too_slow("next part of the body", limit.piece))?;
        let Some(piece) = piece else {
            let bytes = whole.freeze();
            if room.is_none() && bytes.len() > MIDDLE_BYTES {
                room = ticket.middle_body().await?;
            }
            return Ok(Upload { bytes, room });
        };
        let piece = piece.map_err(|error| {
            ApiError::BadRequest(format!("the body could not be read: {error}"))
        })?;
        let Ok(data) = piece.into_data() else {
            continue;
        };
        let length = whole.len() + data.len();
        if length > limit.bytes {
            return Err(too_large(limit));
        }
        if length > SMALL_BYTES && room.is_none() {
            room = ticket.large_body().await?;
        }
        whole.extend_from_slice(&data);
    }
}

/// Kubernetes decodes no body either: what is compressed would be no document to it.
fn refuse_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    match encodings
        .map(|value| value.to_str().unwrap_or("?"))
        .find(|it| *it != "identity")
    {
        None => Ok(()),
        Some(encoding) => Err(ApiError::UnsupportedMediaType(format!(
            "the body of the request is encoded as {encoding:?}: this server reads bodies without \
             Content-Encoding only"
        ))),
    }
}

fn too_large(limit: Limit) -> ApiError {
    ApiError::TooLarge(format!(
        "Request entity too large: limit is {}",
        limit.bytes
    ))
}

fn too_slow(what: &str, limit: Duration) -> ApiError {
    ApiError::Timeout(format!(
        "the {what} did not arrive within {} s: send it again over a faster connection, or send a \
         smaller one",
        limit.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::HeaderValue;
    use futures::{StreamExt as _, stream};

    use super::*;

    const SHORT: Limit = Limit {
        bytes: 0,
        whole: Duration::from_millis(400),
        piece: Duration::from_millis(100),
    };

    async fn code(headers: &HeaderMap, body: Body, bytes: usize) -> Result<usize, u16> {
        let limit = Limit { bytes, ..SHORT };
        let read = read(headers, body, limit, &Ticket::default()).await;
        let length = read.map(|read| read.bytes.len());
        length.map_err(|error| error.code())
    }

    fn pieces(count: usize) -> Body {
        let piece = |_| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1000]));
        Body::from_stream(stream::iter(0..count).map(piece))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_whatever_it_says_about_its_length() {
        let headers = HeaderMap::new();
        assert_eq!(code(&headers, pieces(3), 3000).await, Ok(3000));
        assert_eq!(code(&headers, pieces(4), 3000).await, Err(413));
        assert_eq!(
            code(&headers, Body::from("x".repeat(11)), 10).await,
            Err(413)
        );
        // It would never end.
        let endless = stream::repeat(Ok::<_, Infallible>(Bytes::from_static(b"x")));
        assert_eq!(
            code(&headers, Body::from_stream(endless), 3000).await,
            Err(413)
        );
    }

    #[tokio::test]
    async fn a_client_that_stops_sending_or_sends_too_slowly_is_told_so() {
        let silent = stream::pending::<Result<Bytes, Infallible>>();
        let headers = HeaderMap::new();
        assert_eq!(
            code(&headers, Body::from_stream(silent), 10).await,
            Err(504)
        );
        let slow = stream::unfold((), |()| async {
            tokio::time::sleep(SHORT.piece / 4).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b"x")), ()))
        });
        let began = std::time::Instant::now();
        assert_eq!(
            code(&headers, Body::from_stream(slow), 1000).await,
            Err(504)
        );
        assert!(began.elapsed() < SHORT.whole * 10, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_compressed_body_is_refused_before_it_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let silent = stream::pending::<Result<Bytes, Infallible>>();
        assert_eq!(
            code(&headers, Body::from_stream(silent), 10).await,
            Err(415)
        );
    }
}
