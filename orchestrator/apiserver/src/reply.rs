//! Answers: objects, lists, statuses, errors, in the form that was negotiated.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Value, json};

use super::negotiate::{Shape, Wanted};
use super::tables;
use super::wire::{self, ListMeta};
use api::{ApiError, Format, Resource, encode};

/// Lists above this size go out in pieces of it: what TLS takes at a time (64 KiB), with the head and the end of a
/// piece of HTTP/1.1. A byte more would be a record and a write to the socket of its own.
const CHUNK_BYTES: usize = 64 * 1024 - 16;
/// What room is made for an item of a short list at first.
const ITEM_BYTES: usize = 2048;
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
    value_as(wanted, resource, code, &shaped)
}

/// An object that was made for this answer.
pub fn made(
    wanted: &Wanted,
    resource: &Resource,
    code: StatusCode,
    value: &Value,
) -> Result<Response<Body>, ApiError> {
    object(wanted, resource, resource.serialize(value).into(), code)
}

/// A list; `show` gives the bytes of an item. Items are put together while the body goes out, so that a
/// list takes no more memory than a piece of it.
pub fn list<T: Send + 'static>(
    wanted: &Wanted,
    resource: &Arc<Resource>,
    page: &ListMeta,
    items: Vec<T>,
    show: impl for<'a> Fn(&'a T) -> Cow<'a, [u8]> + Send + 'static,
) -> Result<Response<Body>, ApiError> {
    let head = head(wanted.shape, resource, page);
    // Stored bytes are JSON: an object that is not has been damaged; it is left out.
    let shape = shape_items(wanted.shape, resource);
    if wanted.format == Format::Json && !wanted.pretty {
        let body = joined(head, items, show, shape);
        return Ok(response(wanted.content_type(), StatusCode::OK, body));
    }
    let shown = items.iter().filter_map(|item| shape(show(item)));
    let values = shown.map(|text| serde_json::from_slice(&text).map_err(internal));
    let values = values.collect::<Result<Vec<Value>, ApiError>>()?;
    if wanted.format == Format::Protobuf {
        let list = match wanted.shape {
            Shape::Metadata(version) => encode::partial_list(version, &page.to_json(), &values),
            _ => encode::list(resource, &page.to_json(), &values),
        };
        let list = list.map_err(internal)?;
        return Ok(plain(wanted, StatusCode::OK, list.into()));
    }
    let head = [&head, wire::LIST_TAIL].concat();
    let mut list: Value = serde_json::from_slice(&head).map_err(internal)?;
    list[items_field(wanted.shape)] = values.into();
    value_as(wanted, resource, StatusCode::OK, &list)
}

/// Objects that are bytes already.
pub fn whole(bytes: &Bytes) -> Cow<'_, [u8]> {
    Cow::Borrowed(bytes)
}

/// How the bytes of an object become those of an item of a list.
type ShapeItem = Box<dyn for<'a> Fn(Cow<'a, [u8]>) -> Option<Cow<'a, [u8]>> + Send>;

fn shape_items(shape: Shape, resource: &Arc<Resource>) -> ShapeItem {
    match shape {
        Shape::Object => Box::new(|object| Some(object)),
        Shape::Metadata(version) => Box::new(move |object| {
            let text = tables::partial_metadata_text(version, &object);
            Some(Cow::Owned(text.into()))
        }),
        Shape::Table(version, include) => {
            let (resource, now) = (resource.clone(), Timestamp::now());
            Box::new(move |object| {
                let text = tables::row_text(version, &resource, &object, include, now)?;
                Some(Cow::Owned(text.into()))
            })
        }
    }
}

/// The field of the items.
fn items_field(shape: Shape) -> &'static str {
    match shape {
        Shape::Table(..) => "rows",
        Shape::Object | Shape::Metadata(_) => "items",
    }
}

/// What stands before the items.
fn head(shape: Shape, resource: &Resource, page: &ListMeta) -> Bytes {
    let list = match shape {
        Shape::Object => {
            return wire::list_head(&resource.list_kind, &resource.api_version(), page);
        }
        Shape::Metadata(version) => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": page.to_json(),
        }),
        Shape::Table(version, _) => {
            let mut table = tables::table(version, resource, page.to_json(), Vec::new(), true);
            if let Some(table) = table.as_object_mut() {
                table.remove("rows");
            }
            table
        }
    };
    let list = list.to_string();
    let open = list.strip_suffix('}').unwrap_or(&list);
    Bytes::from(format!("{open},\"{}\":[", items_field(shape)))
}

/// An object or a list in the negotiated encoding.
pub fn value_as(
    wanted: &Wanted,
    resource: &Resource,
    code: StatusCode,
    value: &Value,
) -> Result<Response<Body>, ApiError> {
    let bytes = match wanted.format {
        Format::Yaml => api::decode::to_yaml(value).into_bytes(),
        Format::Json if wanted.pretty => serde_json::to_vec_pretty(value).map_err(internal)?,
        Format::Json => serde_json::to_vec(value).map_err(internal)?,
        Format::Protobuf => protobuf(wanted, resource, value).map_err(internal)?,
    };
    Ok(plain(wanted, code, bytes.into()))
}

/// An object in protobuf; it has the wanted shape already.
pub fn protobuf(wanted: &Wanted, resource: &Resource, object: &Value) -> Result<Vec<u8>, String> {
    match wanted.shape {
        Shape::Metadata(version) => encode::partial(version, object),
        Shape::Object | Shape::Table(..) => encode::object(resource, object),
    }
}

/// Any JSON, as JSON.
pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    response("application/json", code, Body::from(value.to_string()))
}

/// The `Status` of an error.
pub fn status(error: &ApiError) -> Value {
    let mut status = serde_json::to_value(error.status()).unwrap_or_default();
    status["kind"] = "Status".into();
    status["apiVersion"] = "v1".into();
    status
}

/// The Status that an answer is, for the audit log.
#[derive(Clone)]
pub struct Said(pub Arc<Value>);

/// The answer to a request that failed, as JSON.
pub fn error(error: &ApiError) -> Response<Body> {
    error_as(Format::Json, error)
}

/// The answer to a request that failed; every one ends here.
pub fn error_as(format: Format, error: &ApiError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = status_as(format, code, status(error));
    if let Some(seconds) = error.retry_after_seconds() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// The answer to a request that succeeded and has no object to show.
pub fn success(wanted: &Wanted, code: StatusCode, details: Value) -> Response<Body> {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
        "code": code.as_u16(),
    });
    status_as(wanted.format, code, status)
}

fn status_as(format: Format, code: StatusCode, status: Value) -> Response<Body> {
    let mut answer = match (format, encode::status(&status)) {
        (Format::Protobuf, Ok(bytes)) => {
            let wanted = Wanted {
                format,
                ..Wanted::JSON
            };
            plain(&wanted, code, bytes.into())
        }
        _ => json(code, &status),
    };
    answer.extensions_mut().insert(Said(Arc::new(status)));
    answer
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

/// An error that is told with a reason of its own.
pub fn failed(code: StatusCode, reason: &str, message: String) -> ApiError {
    ApiError::Given(Box::new(Status {
        status: Some("Failure".to_owned()),
        code: Some(code.as_u16().into()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..Status::default()
    }))
}

fn plain(wanted: &Wanted, code: StatusCode, bytes: Bytes) -> Response<Body> {
    response(wanted.content_type(), code, Body::from(bytes))
}

/// The bytes of a list; big ones are put together piece by piece while they go out.
fn joined<T: Send + 'static>(
    head: Bytes,
    items: Vec<T>,
    show: impl for<'a> Fn(&'a T) -> Cow<'a, [u8]> + Send + 'static,
    shape: ShapeItem,
) -> Body {
    let mut pieces = Pieces {
        head: Some(head),
        items: items.into_iter(),
        ahead: None,
        show,
        shape,
        is_first: true,
    };
    match (pieces.next(), pieces.is_over()) {
        (Some(whole), true) => Body::from(whole),
        (first, _) => {
            let rest = stream::unfold(pieces, |mut pieces| async move {
                let piece = pieces.next()?;
                Some((Ok::<_, Infallible>(piece), pieces))
            });
            Body::from_stream(stream::iter(first.map(Ok)).chain(rest))
        }
    }
}

/// A list that is put together piece by piece.
struct Pieces<T, F> {
    /// None, once it has gone out.
    head: Option<Bytes>,
    items: std::vec::IntoIter<T>,
    /// An item that the piece before had no room for.
    ahead: Option<T>,
    show: F,
    shape: ShapeItem,
    is_first: bool,
}

impl<T, F: for<'a> Fn(&'a T) -> Cow<'a, [u8]>> Pieces<T, F> {
    /// The end has been written.
    fn is_over(&self) -> bool {
        self.head.is_none() && self.ahead.is_none() && self.items.as_slice().is_empty()
    }

    /// The next piece; the one with the last item has the end.
    fn next(&mut self) -> Option<Bytes> {
        if self.is_over() {
            return None;
        }
        let left = 1 + self.items.as_slice().len();
        let mut out = BytesMut::with_capacity(CHUNK_BYTES.min(ITEM_BYTES * left));
        out.put_slice(&self.head.take().unwrap_or_default());
        while let Some(item) = self.ahead.take().or_else(|| self.items.next()) {
            let shown = (self.shape)((self.show)(&item));
            let Some(bytes) = shown.as_deref() else {
                continue;
            };
            let length = out.len() + ",".len() + bytes.len() + wire::LIST_TAIL.len();
            if length > CHUNK_BYTES && !out.is_empty() {
                drop(shown);
                self.ahead = Some(item);
                break;
            }
            if !std::mem::replace(&mut self.is_first, false) {
                out.put_u8(b',');
            }
            out.put_slice(bytes);
        }
        if self.is_over() {
            out.put_slice(wire::LIST_TAIL);
        }
        Some(out.freeze())
    }
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
        for count in [0, 1, 2, 64, 65, 66, 500] {
            let head = wire::list_head("PodList", "v1", &ListMeta::default());
            let items = vec![item.clone(); count];
            let value = collect(joined(head, items, whole, Box::new(|item| Some(item)))).await;
            assert_eq!(value["items"].as_array().map(Vec::len), Some(count));
        }
    }

    #[tokio::test]
    async fn pieces_are_full_and_no_longer_than_tls_takes_at_a_time() {
        let item = Bytes::from(json!({"data": "x".repeat(1000)}).to_string());
        let head = wire::list_head("PodList", "v1", &ListMeta::default());
        let large = Bytes::from(json!({"data": "x".repeat(CHUNK_BYTES)}).to_string());
        let mut items = vec![item; 500];
        items.push(large.clone());
        let body = joined(head, items, whole, Box::new(|item| Some(item)));
        let sizes = body
            .into_data_stream()
            .map(|piece| piece.map_or(0, |piece| piece.len()));
        let mut sizes: Vec<usize> = sizes.collect().await;
        // What is longer by itself has a piece of its own, behind a comma and before the end.
        assert_eq!(sizes.pop(), Some(large.len() + 1 + wire::LIST_TAIL.len()));
        sizes.pop();
        assert_eq!(sizes.len(), 500 * 1011 / CHUNK_BYTES);
        assert!(
            sizes
                .iter()
                .all(|size| (CHUNK_BYTES - 1100..=CHUNK_BYTES).contains(size))
        );
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
