//! Large answers are compressed for clients that take it, piece by piece as they go out.

use std::io::Write;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, stream};

/// Smaller bodies cost more to compress than to send; Kubernetes' threshold.
const MIN_BYTES: u64 = 128 * 1024;

/// Whether the client takes gzip.
pub fn is_accepted(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(header::ACCEPT_ENCODING).iter();
    let encodings = encodings.filter_map(|value| value.to_str().ok());
    let refused = |parameters: &str| matches!(parameters.trim(), "q=0" | "q=0.0");
    encodings.flat_map(|value| value.split(',')).any(|entry| {
        let (name, parameters) = entry.split_once(';').unwrap_or((entry, ""));
        name.trim().eq_ignore_ascii_case("gzip") && !refused(parameters)
    })
}

/// The answer, compressed if it is large: its length is beyond the threshold, or it is sent in pieces.
pub fn if_large(mut response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact();
    let encoded = response.headers().contains_key(header::CONTENT_ENCODING);
    if encoded || length.is_some_and(|length| length < MIN_BYTES) {
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.remove(header::CONTENT_LENGTH);
    response.map(compressed)
}

/// What is left to be sent: the plain pieces, and the compressor until it has written its end.
struct Pieces {
    plain: axum::body::BodyDataStream,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

fn compressed(body: Body) -> Body {
    let pieces = Pieces {
        plain: body.into_data_stream(),
        encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())),
    };
    Body::from_stream(stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.next().await?;
        Some((piece, pieces))
    }))
}

impl Pieces {
    /// The next compressed bytes; what fails ends the answer before its end, which the client notices.
    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        loop {
            let encoder = self.encoder.as_mut()?;
            match self.plain.next().await {
                Some(Ok(piece)) => {
                    if let Err(error) = encoder.write_all(&piece) {
                        return Some(Err(axum::Error::new(error)));
                    }
                    let ready = std::mem::take(encoder.get_mut());
                    if !ready.is_empty() {
                        return Some(Ok(ready.into()));
                    }
                }
                Some(Err(error)) => {
                    self.encoder = None;
                    return Some(Err(error));
                }
                None => {
                    let end = self.encoder.take()?.finish();
                    return Some(end.map(Bytes::from).map_err(axum::Error::new));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_large_answer_comes_out_as_it_went_in() {
        let text = "orchestrator ".repeat(20_000);
        let whole = Response::new(Body::from(text.clone()));
        let pieces = text.as_bytes().chunks(7_000).map(Bytes::copy_from_slice);
        let pieces: Vec<_> = pieces.map(Ok::<_, std::convert::Infallible>).collect();
        let in_pieces = Response::new(Body::from_stream(stream::iter(pieces)));
        for response in [whole, in_pieces] {
            let response = if_large(response);
            assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
            let bytes = response
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes();
            assert!(bytes.len() < text.len() / 10);
            let mut plain = String::new();
            let mut decoder = GzDecoder::new(&bytes[..]);
            decoder.read_to_string(&mut plain).expect("gzip");
            assert_eq!(plain, text);
        }
    }

    #[test]
    fn a_small_answer_stays_as_it_is() {
        let response = if_large(Response::new(Body::from("x".repeat(1000))));
        assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
    }

    #[test]
    fn gzip_is_accepted_where_it_is_named_and_not_refused() {
        let accepted = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            is_accepted(&headers)
        };
        for (value, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
            ("xgzip", false),
        ] {
            assert_eq!(accepted(value), expected, "{value}");
        }
        assert!(!is_accepted(&HeaderMap::new()));
    }
}
