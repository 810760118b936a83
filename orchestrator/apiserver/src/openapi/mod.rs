//! OpenAPI: the schemas of every kind and the operations on it, as v3 (JSON, a document a group
//! and version) and as v2 (JSON or protobuf, one document).
//!
//! kubectl reads them before it creates anything. They are made when first asked for and kept
//! compressed: most clients take them as they are kept, and an idle server stays small.

pub mod foreign;
pub mod gnostic;
mod paths;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::discovery::prefix;
use super::negotiate::accepted;
use super::registry::{GroupVersion, Snapshot};
use super::reply::internal;
use super::{State, aggregation, dispatch, reply};
use api::ApiError;
use api::resource::Name;

/// The documents that were asked for already.
#[derive(Default)]
pub struct Documents(Mutex<BTreeMap<Which, Made>>);

impl Documents {
    /// Whether so many were asked for already.
    fn has(&self, many: usize) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() >= many
    }
}

/// A document, and what it was made of.
type Made = (Stamp, Arc<Document>);

/// The generation of what is served here, and the hashes of the parts that are of other servers.
type Stamp = (u64, Vec<String>);

/// Which document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    V2Json,
    V2Protobuf,
    /// Group and version.
    V3(Name, Name),
}

/// One document, compressed.
pub struct Document {
    gzip: bytes::Bytes,
    /// SHA-256 of the plain bytes.
    hash: String,
}

const JSON: &str = "application/json";
/// What clients ask with is not a legal media type to answer with: it contains an `@`.
const V2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v3`: where the documents are.
pub async fn v3_index(Extract(state): Extract<Arc<State>>) -> Response<Body> {
    let mut paths = Map::new();
    let served = state.registry.snapshot();
    // Held while documents are made of them.
    let _schemas = match state.documents.has(served.versions().len()) {
        true => None,
        false => tokio::task::spawn_blocking(api::openapi::published)
            .await
            .ok(),
    };
    for GroupVersion { group, version, .. } in served.versions() {
        let which = Which::V3(group.clone(), version.clone());
        let document = match document(&state, which).await {
            Ok(document) => document,
            // It has ceased to be served.
            Err(ApiError::NoSuchResource) => continue,
            Err(error) => return reply::error(&error),
        };
        let path = prefix(group, version);
        let url = format!("/openapi/v3/{path}?hash={}", document.hash);
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    let others = match state.aggregated.others(&state, &served) {
        Ok(others) => others,
        Err(error) => return reply::error(&error),
    };
    for server in others {
        if let Some(url) = server.v3_url() {
            let path = prefix(&server.group, &server.version);
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    reply::json(StatusCode::OK, &json!({"paths": paths}))
}

/// `/openapi/v3/api/v1` and so on.
pub async fn v3(
    Extract(state): Extract<Arc<State>>,
    Path(path): Path<String>,
    mut request: Request<Body>,
) -> Response<Body> {
    let words: Vec<&str> = path.split('/').collect();
    let (group, version) = match words.as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return reply::error(&ApiError::NoSuchResource),
    };
    match of_other(&state, group, version) {
        Ok(Some(server)) => {
            let user = dispatch::who(&request);
            // Without the hash: a server whose document has changed would send the client elsewhere.
            *request.uri_mut() = match format!("/openapi/v3/{path}").parse() {
                Ok(uri) => uri,
                Err(_) => return reply::error(&ApiError::NoSuchResource),
            };
            let answer = aggregation::forward(&state, &server, &user, request).await;
            return answer.unwrap_or_else(|error| reply::error(&error));
        }
        Ok(None) => {}
        Err(error) => return reply::error(&error),
    }
    let which = Which::V3(group.to_owned().into(), version.to_owned().into());
    answer(&state, which, request.headers()).await
}

/// The server that has the document of a version which is not served here.
fn of_other(
    state: &State,
    group: &str,
    version: &str,
) -> Result<Option<Arc<aggregation::Server>>, ApiError> {
    let others = state.aggregated.others(state, &state.registry.snapshot())?;
    let is_it = |server: &Arc<aggregation::Server>| {
        server.group == group && server.version == version && server.v3_url().is_some()
    };
    Ok(others.into_iter().find(is_it))
}

/// `/openapi/v2`.
pub async fn v2(Extract(state): Extract<Arc<State>>, headers: HeaderMap) -> Response<Body> {
    let protobuf = accepted(&headers)
        .into_iter()
        .find_map(|range| match range.media.as_str() {
            V2_PROTOBUF_ASKED | V2_PROTOBUF => Some(true),
            JSON | "application/*" | "*/*" => Some(false),
            _ => None,
        });
    let which = match protobuf {
        Some(true) => Which::V2Protobuf,
        Some(false) => Which::V2Json,
        None => {
            let message = format!("only {JSON} and {V2_PROTOBUF} are served here");
            return reply::error(&ApiError::NotAcceptable(message));
        }
    };
    answer(&state, which, &headers).await
}

async fn answer(state: &Arc<State>, which: Which, headers: &HeaderMap) -> Response<Body> {
    let content_type = if which == Which::V2Protobuf {
        V2_PROTOBUF
    } else {
        JSON
    };
    let document = match document(state, which).await {
        Ok(document) => document,
        Err(error) => return reply::error(&error),
    };
    let tag = format!("\"{}\"", document.hash);
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut response = if known {
        reply::response(content_type, StatusCode::NOT_MODIFIED, Body::empty())
    } else {
        match body(&document, headers) {
            Ok((body, compressed)) => {
                let mut response = reply::response(content_type, StatusCode::OK, body);
                if compressed {
                    let gzip = HeaderValue::from_static("gzip");
                    response
                        .headers_mut()
                        .insert(header::CONTENT_ENCODING, gzip);
                }
                response
            }
            Err(error) => return reply::error(&error),
        }
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert(
        header::VARY,
        HeaderValue::from_static("Accept, Accept-Encoding"),
    );
    response
}

/// The document as the client can read it, and whether it is compressed.
fn body(document: &Document, headers: &HeaderMap) -> Result<(Body, bool), ApiError> {
    let encodings = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    if encodings.is_some_and(|encodings| encodings.contains("gzip")) {
        return Ok((Body::from(document.gzip.clone()), true));
    }
    Ok((Body::from(document.unpack()?), false))
}

/// A document, compressed.
///
/// # Errors
/// It cannot be compressed.
pub fn pack(document: &Value) -> Result<Document, ApiError> {
    Document::pack(document.to_string().as_bytes())
}

/// The document, made now if nobody asked before.
async fn document(state: &Arc<State>, which: Which) -> Result<Arc<Document>, ApiError> {
    let state = state.clone();
    let made = tokio::task::spawn_blocking(move || {
        // Held while the document is made: two clients that ask at once wait for the same one.
        let mut documents = state
            .documents
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let served = state.registry.snapshot();
        let mut parts = Vec::new();
        let since = match &which {
            Which::V2Json | Which::V2Protobuf => {
                let others = state.aggregated.others(&state, &served)?;
                parts = others
                    .iter()
                    .filter_map(|server| server.v2_part())
                    .collect();
                Some(served.generation)
            }
            Which::V3(group, version) => served.version(group, version).map(|v| v.since),
        };
        let Some(since) = since else {
            documents.remove(&which);
            return Err(ApiError::NoSuchResource);
        };
        let stamp = (since, parts.iter().map(|part| part.hash.clone()).collect());
        if let Some((_, document)) = documents.get(&which).filter(|(made, _)| *made == stamp) {
            return Ok(document.clone());
        }
        let document = Arc::new(Document::pack(&make(&served, &which, &parts)?)?);
        documents.insert(which, (stamp, document.clone()));
        Ok(document)
    });
    made.await.map_err(internal)?
}

impl Document {
    fn unpack(&self) -> Result<Vec<u8>, ApiError> {
        let mut plain = Vec::new();
        let read = GzDecoder::new(&self.gzip[..]).read_to_end(&mut plain);
        read.map_err(internal)?;
        Ok(plain)
    }

    fn pack(plain: &[u8]) -> Result<Self, ApiError> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(plain).map_err(internal)?;
        let gzip = encoder.finish().map_err(internal)?;
        let hash = hex::encode_upper(Sha256::digest(plain));
        Ok(Self {
            gzip: gzip.into(),
            hash,
        })
    }
}

/// `parts`: those of other servers.
fn make(served: &Snapshot, which: &Which, parts: &[Arc<Document>]) -> Result<Vec<u8>, ApiError> {
    let v2 = || {
        let mut document = v2_document(served);
        for part in parts {
            let part = serde_json::from_slice(&part.unpack()?).map_err(internal)?;
            foreign::merge(&mut document, part);
        }
        Ok::<_, ApiError>(document)
    };
    Ok(match which {
        Which::V3(group, version) => match served.version(group, version) {
            Some(version) => v3_document(version).to_string().into_bytes(),
            None => Vec::new(),
        },
        Which::V2Json => v2()?.to_string().into_bytes(),
        Which::V2Protobuf => gnostic::encode(&v2()?),
    })
}

fn v3_document(version: &GroupVersion) -> Value {
    let resources: Vec<_> = version.resources().collect();
    let schemas = api::openapi::v3_schemas(&resources);
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::of(paths::Dialect::V3, version, &schemas),
        "components": {"schemas": schemas},
    })
}

fn v2_document(served: &Snapshot) -> Value {
    let versions = served.versions();
    let resources: Vec<_> = versions.iter().flat_map(GroupVersion::resources).collect();
    let definitions = api::openapi::v2_definitions(&resources);
    let mut all = Map::new();
    for version in versions {
        all.extend(paths::of(paths::Dialect::V2, version, &definitions));
    }
    json!({"swagger": "2.0", "info": info(), "paths": all, "definitions": definitions})
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": super::health::KUBERNETES})
}

#[cfg(test)]
mod tests {
    use super::super::registry::Registry;
    use super::*;

    #[test]
    fn every_reference_in_every_document_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|field| references(field, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let served = Registry::new().snapshot();
        let mut documents = vec![v2_document(&served)];
        documents.extend(served.versions().iter().map(v3_document));
        for document in &documents {
            let mut found = Vec::new();
            references(document, &mut found);
            assert!(!found.is_empty());
            for reference in found {
                let pointer = reference.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
        }
    }

    #[test]
    fn every_kind_can_be_patched_with_validation_and_dry_run() {
        for version in Registry::new().snapshot().versions() {
            let GroupVersion {
                group,
                version: name,
                ..
            } = version;
            let document = v3_document(version);
            let paths = document["paths"].as_object().expect("paths");
            for resource in version
                .resources()
                .filter(|resource| resource.verbs.contains(&"patch"))
            {
                let wanted = json!({"group": group, "version": name, "kind": resource.kind});
                let patch = paths
                    .values()
                    .map(|path| &path["patch"])
                    .find(|operation| operation["x-kubernetes-group-version-kind"] == wanted);
                let patch = patch.unwrap_or_else(|| panic!("{} has no patch", resource.kind));
                for name in ["fieldValidation", "dryRun"] {
                    let parameters = patch["parameters"].as_array().expect("parameters");
                    assert!(
                        parameters.iter().any(|p| p["name"] == name),
                        "{}",
                        resource.kind
                    );
                }
            }
        }
    }

    #[test]
    fn a_document_comes_out_as_it_went_in() {
        let document = Document::pack(b"{\"a\":1}").expect("packed");
        let mut plain = String::new();
        GzDecoder::new(&document.gzip[..])
            .read_to_string(&mut plain)
            .expect("unpacked");
        assert_eq!(plain, "{\"a\":1}");
    }
}
