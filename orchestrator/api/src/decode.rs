//! From the bytes of a request to a canonical object, as strictly as the client asks.
//!
//! A body becomes a value, and `structural` brings the value to its canonical form by the definition
//! of its type.

mod document;
pub(super) mod limits;
pub(crate) mod protobuf;
mod scalar;
pub(super) mod structural;
mod yaml;

pub use document::all as documents;
pub use yaml::writer::to_yaml;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::DeleteOptions,
    serde::{
        Serialize, Serializer,
        ser::{Error as _, SerializeMap},
    },
};
use serde_json::{Value, json};

use super::{
    registry::find_kind,
    resource::Resource,
    schema::{self, Definition},
    status::ApiError,
};

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// More problems than this are not listed.
const MAX_PROBLEMS: usize = 100;

/// An object in canonical form.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub object: Value,
    /// For `Warning:` headers, without the code.
    pub warnings: Vec<String>,
}

/// What a body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
    /// Kubernetes' own framing of it.
    Protobuf,
}

/// What happens to unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// 400.
    Strict,
    /// Dropped, with a warning.
    #[default]
    Warn,
    /// Dropped.
    Ignore,
}

impl FieldValidation {
    /// The value of the query parameter `fieldValidation`.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            "Ignore" => Ok(Self::Ignore),
            other => Err(ApiError::BadRequest(format!(
                "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \
                 \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// The body of a patch: its value, and warnings about fields that it names twice.
pub fn patch_body(body: &[u8], format: Format, mode: FieldValidation) -> Result<Decoded, ApiError> {
    let parsed = document::parse(body, format)
        .map_err(|e| ApiError::BadRequest(format!("error decoding patch: {e}")))?;
    let problems = parsed
        .duplicates
        .iter()
        .map(|path| duplicate(path))
        .collect();
    let warnings = judge(problems, mode)
        .map_err(|e| ApiError::BadRequest(format!("error decoding patch: {e}")))?;
    Ok(Decoded {
        object: parsed.value,
        warnings,
    })
}

/// The body of a DELETE.
pub fn delete_options(body: &[u8], format: Format) -> Result<DeleteOptions, ApiError> {
    let value = match format {
        Format::Protobuf => {
            protobuf::open(body).and_then(|envelope| protobuf::object(DELETE_OPTIONS, &envelope))
        }
        Format::Json | Format::Yaml => document::parse(body, format).map(|parsed| parsed.value),
    };
    let canonical = value.and_then(|mut value| {
        structural::canonicalize(definition(DELETE_OPTIONS)?, &mut value)?;
        serde_json::from_value(value).map_err(|e| e.to_string())
    });
    canonical.map_err(|e| ApiError::BadRequest(format!("the body is no DeleteOptions: {e}")))
}

/// Bytes → canonical object, if the document is within `limits`.
pub(super) fn body(
    resource: &Resource,
    body: &[u8],
    format: Format,
    mode: FieldValidation,
) -> Result<Decoded, ApiError> {
    if format == Format::Protobuf {
        let object = without_given(resource, from_protobuf(resource, body)?);
        return value(resource, object, mode);
    }
    let mut parsed = document::parse(body, format).map_err(|e| unrecognized(resource, body, &e))?;
    parsed.value = without_given(resource, parsed.value);
    let (object, unknown) = canonical(resource, parsed.value)?;
    let problems = if unknown.is_empty() && parsed.duplicates.is_empty() {
        Vec::new()
    } else {
        in_order(body, format, unknown, &parsed.duplicates)
    };
    let warnings =
        judge(problems, mode).map_err(|e| cannot_handle(resource, &resource.kind, &e))?;
    Ok(Decoded { object, warnings })
}

/// The value without what the server alone writes: Go's clients send zeros for it, which need not be valid.
fn without_given(resource: &Resource, mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        for field in resource.given {
            object.remove(*field);
        }
    }
    value
}

/// Parsed value → canonical object.
pub(super) fn value(
    resource: &Resource,
    value: Value,
    mode: FieldValidation,
) -> Result<Decoded, ApiError> {
    limits::check(&value).map_err(|e| cannot_handle(resource, &resource.kind, &e))?;
    let (object, unknown) = canonical(resource, value)?;
    let problems = unknown.iter().map(|path| unknown_field(path)).collect();
    let warnings =
        judge(problems, mode).map_err(|e| cannot_handle(resource, &resource.kind, &e))?;
    Ok(Decoded { object, warnings })
}

/// The stored bytes.
pub(super) fn to_bytes(object: &Value) -> Vec<u8> {
    serde_json::to_vec(&Ordered(object)).expect("a JSON value has string keys and finite numbers")
}

/// An object with apiVersion, kind and metadata first.
struct Ordered<'a>(&'a Value);

const FIRST: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = self
            .0
            .as_object()
            .ok_or_else(|| S::Error::custom("no object"))?;
        let mut map = serializer.serialize_map(Some(object.len()))?;
        for key in FIRST {
            if let Some(value) = object.get(key) {
                map.serialize_entry(key, value)?;
            }
        }
        for (key, value) in object
            .iter()
            .filter(|(key, _)| !FIRST.contains(&key.as_str()))
        {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// The object in an envelope, which must be of the kind that the path serves.
fn from_protobuf(resource: &Resource, body: &[u8]) -> Result<Value, ApiError> {
    let envelope = protobuf::open(body).map_err(|e| unrecognized(resource, body, &e))?;
    if !envelope.kind.is_empty() {
        let said = json!({"apiVersion": envelope.api_version, "kind": envelope.kind});
        identified(resource, said)?;
    }
    protobuf::object(&resource.definition, &envelope)
        .map_err(|e| cannot_handle(resource, &resource.kind, &e))
}

/// Checks what the object says it is, then makes it canonical; also the paths of unknown fields.
/// The value is within `limits`.
fn canonical(resource: &Resource, value: Value) -> Result<(Value, Vec<String>), ApiError> {
    let mut object = identified(resource, value)?;
    let unknown = resource
        .shape()
        .and_then(|definition| structural::canonicalize(definition, &mut object))
        .map_err(|e| cannot_handle(resource, &resource.kind, &e))?;
    Ok((object, unknown))
}

fn definition(name: &str) -> Result<&'static Definition, String> {
    schema::definition(name).ok_or_else(|| format!("no schema of {name}"))
}

/// The value with apiVersion and kind, which a client may leave out but not change.
fn identified(resource: &Resource, mut value: Value) -> Result<Value, ApiError> {
    let expected = resource.api_version();
    let Some(object) = value.as_object_mut() else {
        let text = format!(
            "json: cannot unmarshal {} into Go value of type struct",
            structural::describe(&value)
        );
        return Err(ApiError::BadRequest(format!(
            "couldn't get version/kind; {text}"
        )));
    };
    let mut word = |key: &str, default: &str| match object.get(key) {
        None | Some(Value::Null) => {
            object.insert(key.into(), default.into());
            Ok(default.to_owned())
        }
        Some(Value::String(text)) if text.is_empty() => {
            object.insert(key.into(), default.into());
            Ok(default.to_owned())
        }
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(ApiError::BadRequest(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go \
             struct field .{key} of type string",
            structural::describe(other)
        ))),
    };
    let kind = word("kind", &resource.kind)?;
    let api_version = word("apiVersion", &expected)?;
    if kind == resource.kind && api_version == expected {
        return Ok(value);
    }
    Err(misfit(resource, &kind, &api_version))
}

/// The object is of another kind or version than the path serves.
fn misfit(resource: &Resource, kind: &str, api_version: &str) -> ApiError {
    let expected = resource.api_version();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if find_kind(group, version, kind).is_none() {
        let error = format!("no kind {kind:?} is registered for version {api_version:?} in scheme");
        return ApiError::BadRequest(format!(
            "{kind} in version {version:?} cannot be handled as a {}: {error}",
            resource.kind
        ));
    }
    if api_version != expected {
        return ApiError::BadRequest(format!(
            "the API version in the data ({api_version}) does not match the expected API version \
             ({expected})"
        ));
    }
    cannot_handle(resource, kind, &format!("{kind} is no {}", resource.kind))
}

fn cannot_handle(resource: &Resource, kind: &str, error: &str) -> ApiError {
    ApiError::BadRequest(format!(
        "{kind} in version {:?} cannot be handled as a {}: {error}",
        resource.version, resource.kind
    ))
}

/// The body is no document at all.
fn unrecognized(resource: &Resource, body: &[u8], error: &str) -> ApiError {
    let head = &body[..body.len().min(30)];
    let dots = if body.len() > 30 { " ..." } else { "" };
    ApiError::BadRequest(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; \
         json parse error: {error} ({}{dots})",
        resource.kind,
        hex::encode(head)
    ))
}

/// What becomes of the problems: an error, warnings, or nothing.
fn judge(mut problems: Vec<String>, mode: FieldValidation) -> Result<Vec<String>, String> {
    problems.truncate(MAX_PROBLEMS);
    match mode {
        FieldValidation::Strict if !problems.is_empty() => {
            Err(format!("strict decoding error: {}", problems.join(", ")))
        }
        FieldValidation::Warn => Ok(problems),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
    }
}

/// Unknown and duplicate fields as the document has them; an unknown field is said once.
fn in_order(
    body: &[u8],
    format: Format,
    unknown: Vec<String>,
    duplicates: &[String],
) -> Vec<String> {
    let unknown: BTreeSet<String> = unknown.into_iter().collect();
    let duplicates: BTreeSet<&String> = duplicates
        .iter()
        .filter(|path| !unknown.contains(*path))
        .collect();
    let mut at: BTreeMap<usize, String> = BTreeMap::new();
    let mut said = BTreeSet::new();
    let mut ordinal = 0;
    let looked = document::walk(body, format, |path, again| {
        ordinal += 1;
        let problem = if unknown.contains(path) {
            unknown_field(path)
        } else if again && duplicates.contains(&path.to_owned()) {
            duplicate(path)
        } else {
            return;
        };
        if said.insert(problem.clone()) {
            at.insert(ordinal, problem);
        }
    });
    debug_assert!(looked.is_ok(), "the body was parsed before");
    at.into_values().collect()
}

fn unknown_field(path: &str) -> String {
    format!("unknown field \"{path}\"")
}

fn duplicate(path: &str) -> String {
    format!("duplicate field \"{path}\"")
}

#[cfg(test)]
mod tests;
