//! From the bytes of a request to a canonical object, as strictly as the client asks.

use k8s_openapi::serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{scheme::Resource, status::ApiError};

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

/// What decoding through a type reports besides the value.
#[derive(Debug, Default)]
pub(super) struct Typed {
    pub unknown: Vec<String>,
}

/// The type refused the value.
#[derive(Debug)]
pub(super) struct TypeError {
    pub path: String,
    pub message: String,
}

/// Bytes → canonical object.
pub(super) fn body(
    _resource: &Resource,
    _body: &[u8],
    _format: Format,
    _mode: FieldValidation,
) -> Result<Decoded, ApiError> {
    todo!()
}

/// Parsed value → canonical object; `problems` are what parsing found already.
pub(super) fn value(
    _resource: &Resource,
    _value: Value,
    _problems: Vec<String>,
    _mode: FieldValidation,
) -> Result<Decoded, ApiError> {
    todo!()
}

/// Decodes through `T`.
pub(super) fn typed<T: DeserializeOwned + Serialize>(
    _value: &Value,
    _typed: &mut Typed,
) -> Result<Value, TypeError> {
    todo!()
}

/// The stored bytes.
pub(super) fn to_bytes(_object: &Value) -> Vec<u8> {
    todo!()
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
