//! The Kubernetes API as data: kinds, decoding, selectors, patches, defaults, validation. Pure.
//!
//! Objects travel as `serde_json::Value` in canonical form, that is: decoded once through the
//! k8s-openapi type of their kind. Nothing here does I/O, reads a clock or draws randomness.

pub mod address;
pub mod annotations;
pub mod apply;
pub mod decode;
mod defaults;
pub mod join_token;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod scale;
pub mod schema;
pub mod scheme;
pub mod selector;
pub mod status;
mod strategy;
mod validation;

pub use decode::{Decoded, FieldValidation, Format};
pub use scheme::{Lifetime, Resource, Scope, Subresource, find, find_kind, resources};
pub use status::{ApiError, Cause, CauseKind};

#[cfg(test)]
mod tests;
