//! Answers: objects, lists, statuses, errors, in the form that was negotiated.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::negotiate::{Shape, Wanted};
use super::tables;
use super::wire::{self, ListMeta};
use api::{ApiError, Format, Resource};

/// Lists above this size go out in pieces of it.
const CHUNK_BYTES: usize = 64 * 1024;
/// What the client should hear besides the answer, in the order in which it was noticed, each once.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    pub fn add(&self, texts: impl IntoIterator<Item = String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for text in texts {
            if !all.contains(&text) {
                all.push(text);
            }
        }
    }

    pub fn all(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }
}

/// All warnings of an answer, and each of them if there are more: clients limit their headers.
const WARNINGS_BYTES: usize = 4 * 1024;
const WARNING_BYTES: usize = 256;

/// A single object from its bytes.
pub fn object(
    wanted: &Wanted,
    resource: &Resource,
    bytes: Bytes,
    code: StatusCode,
) -> Result<Response<Body>, ApiError> {
    if wanted.is_plain() {
        return Ok(plain(wanted, code, bytes));
    }
    let value: Value = parse(&bytes)?;
    let shaped = match wanted.shape {
        Shape::Object => value,
        Shape::Metadata(version) => tables::partial_metadata(version, value),
        Shape::Table(version, include) => {
            let revision = value.pointer("/metadata/resourceVersion").cloned();
            let row = tables::row(version, resource, value, include, Timestamp::now());
            let metadata = json!({"resourceVersion": revision.unwrap_or_default()});
            tables::table(version, resource, metadata, vec![row], true)
        }
    };
    value_as(wanted, code, &shaped)
}

/// A list from its items' bytes.
pub fn list(
    wanted: &Wanted,
    resource: &Resource,
    page: &ListMeta,
    items: Vec<Bytes>,
) -> Result<Response<Body>, ApiError> {
    let head = wire::list_head(&resource.list_kind, &resource.api_version(), page);
    if wanted.is_plain() {
        return Ok(response(
            wanted.content_type(),
            StatusCode::OK,
            joined(head, items),
        ));
    }
    let values = items.iter().map(parse);
    let shaped = match wanted.shape {
        Shape::Object => json!({
            "kind": resource.list_kind,
            "apiVersion": resource.api_version(),
            "metadata": page.to_json(),
            "items": values.collect::<Result<Vec<_>, _>>()?,
        }),
        Shape::Metadata(version) => {
            let partial = values.map(|value| Ok(tables::partial_metadata(version, value?)));
            json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": page.to_json(),
                "items": partial.collect::<Result<Vec<_>, ApiError>>()?,
            })
        }
        Shape::Table(version, include) => {
            let now = Timestamp::now();
            let rows = values.map(|value| Ok(tables::row(version, resource, value?, include, now)));
            let rows = rows.collect::<Result<Vec<_>, ApiError>>()?;
            tables::table(version, resource, page.to_json(), rows, true)
        }
    };
    value_as(wanted, StatusCode::OK, &shaped)
}

/// Any JSON in the negotiated encoding.
pub fn value_as(
    wanted: &Wanted,
    code: StatusCode,
    value: &Value,
) -> Result<Response<Body>, ApiError> {
    let bytes = match wanted.format {
        Format::Yaml => serde_yaml::to_string(value)
            .map(String::into_bytes)
            .map_err(internal)?,
        Format::Json if wanted.pretty => serde_json::to_vec_pretty(value).map_err(internal)?,
        Format::Json | Format::Protobuf => serde_json::to_vec(value).map_err(internal)?,
    };
    Ok(plain(wanted, code, bytes.into()))
}

/// Any JSON, as JSON.
pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    response("application/json", code, Body::from(value.to_string()))
}

/// `Status` of an error; every failed request ends here.
pub fn error(error: &ApiError) -> Response<Body> {
    let status = error.status();
    let mut value = serde_json::to_value(&status).unwrap_or_default();
    value["kind"] = "Status".into();
    value["apiVersion"] = "v1".into();
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &value);
    if let Some(seconds) = error.retry_after_seconds() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// `Status` of a success that has no object to show.
pub fn success(code: StatusCode, details: Value) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
        "code": code.as_u16(),
    })
}

/// Adds `Warning:` headers; where they are long, each is cut, and the last ones are left out.
pub fn warn(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    let total: usize = warnings.iter().map(String::len).sum();
    let longest = if total > WARNINGS_BYTES {
        WARNING_BYTES
    } else {
        total
    };
    let mut left = WARNINGS_BYTES;
    for warning in warnings {
        let warning = &warning[..warning.floor_char_boundary(longest)];
        let Some(rest) = left.checked_sub(warning.len()) else {
            break;
        };
        left = rest;
        let text = warning
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// A body of a known type.
pub fn response(content_type: &'static str, code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

/// Stored bytes as JSON.
pub fn parse(bytes: &Bytes) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes).map_err(internal)
}

/// An error that is no fault of the client.
pub fn internal(error: impl std::fmt::Display) -> ApiError {
    ApiError::Internal(error.to_string())
}

fn plain(wanted: &Wanted, code: StatusCode, bytes: Bytes) -> Response<Body> {
    response(wanted.content_type(), code, Body::from(bytes))
}

/// The bytes of a list; big ones are put together piece by piece while they go out.
fn joined(head: Bytes, items: Vec<Bytes>) -> Body {
    let total = head.len() + items.iter().map(|item| item.len() + 1).sum::<usize>();
    if total <= CHUNK_BYTES {
        let mut out = BytesMut::with_capacity(total + wire::LIST_TAIL.len());
        out.put_slice(&head);
        fill(&mut out, &items, 0);
        out.put_slice(wire::LIST_TAIL);
        return Body::from(out.freeze());
    }
    let pieces = stream::unfold((Some(head), items, 0), |(head, items, at)| async move {
        if at > items.len() {
            return None;
        }
        let mut out = BytesMut::with_capacity(CHUNK_BYTES + 8 * 1024);
        out.put_slice(&head.unwrap_or_default());
        let mut next = fill(&mut out, &items, at);
        if next == items.len() {
            out.put_slice(wire::LIST_TAIL);
            next += 1;
        }
        Some((Ok::<_, Infallible>(out.freeze()), (None, items, next)))
    });
    Body::from_stream(pieces)
}

/// Appends items until the piece is full; answers the first item that is left.
fn fill(out: &mut BytesMut, items: &[Bytes], from: usize) -> usize {
    for (at, item) in items.iter().enumerate().skip(from) {
        if out.len() > CHUNK_BYTES {
            return at;
        }
        if at > 0 {
            out.put_u8(b',');
        }
        out.put_slice(item);
    }
    items.len()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn collect(body: Body) -> Value {
        let bytes = body.collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[tokio::test]
    async fn a_list_is_the_same_in_one_piece_and_in_many() {
        let item = Bytes::from(json!({"data": "x".repeat(1000)}).to_string());
        for count in [0, 1, 2, 65, 66, 500] {
            let head = wire::list_head("PodList", "v1", &ListMeta::default());
            let value = collect(joined(head, vec![item.clone(); count])).await;
            assert_eq!(value["items"].as_array().map(Vec::len), Some(count));
        }
    }

    #[test]
    fn many_long_warnings_are_cut_to_what_clients_take() {
        let warnings: Vec<String> = (0..100).map(|n| format!("{n:0>300}")).collect();
        let response = warn(Response::new(Body::empty()), &warnings);
        let values = response.headers().get_all(header::WARNING);
        let lengths: Vec<usize> = values.iter().map(HeaderValue::len).collect();
        assert_eq!(lengths.len(), WARNINGS_BYTES / WARNING_BYTES);
        assert!(lengths.iter().all(|length| *length < WARNING_BYTES + 10));
        let one = warn(Response::new(Body::empty()), &warnings[..1]);
        let whole = one.headers().get(header::WARNING).expect("a warning");
        assert!(whole.len() > 300);
    }

    #[test]
    fn a_warning_is_one_quoted_header() {
        let response = warn(
            Response::new(Body::empty()),
            &["unknown field \"spec.x\"".to_owned()],
        );
        let value = response.headers().get(header::WARNING).expect("a warning");
        assert_eq!(value, r#"299 - "unknown field \"spec.x\"""#);
    }
}
