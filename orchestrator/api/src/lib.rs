//! The Kubernetes API as data: kinds, decoding, selectors, patches, defaults, validation. Pure.
//!
//! Objects travel as `serde_json::Value` in canonical form, that is: decoded once by the schema of
//! their kind. Nothing here does I/O, reads a clock or draws randomness.

pub mod address;
pub mod allocator;
pub mod amounts;
pub mod annotations;
pub mod apply;
pub mod cel;
pub mod columns;
pub mod custom;
pub mod decode;
mod defaults;
pub mod disruption;
pub mod encode;
pub mod join_token;
pub mod jwt;
pub mod kinds;
pub mod meta;
pub mod oidc;
pub mod openapi;
pub mod patch;
pub mod pod_resources;
pub mod pod_security;
pub mod policy;
mod prepare;
pub mod quantity;
pub mod quota;
pub mod rbac;
pub mod re2;
pub mod registry;
pub mod resource;
pub mod samples;
pub mod scale;
pub mod schema;
pub mod selector;
mod served;
pub mod status;
mod validation;
pub mod version;

pub use decode::{Decoded, FieldValidation, Format};
pub use registry::{find, find_kind, resources, views};
pub use resource::{Behaviour, Lifetime, Question, Resource, Scope, Subresource};
pub use served::{Conversion, Served, Webhook};
pub use status::{ApiError, Cause, CauseKind};

#[cfg(test)]
mod tests;
