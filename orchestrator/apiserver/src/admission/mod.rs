//! Who else has a say in a write: other objects that demand or give something (`given`), and whoever the
//! cluster's owner lets change or refuse what others write.
//!
//! `mutate` comes before the server prepares and validates an object, `validate` after that, on what
//! will be stored.

mod given;
mod limit_range;
pub mod policies;
mod priority;
pub mod quota;

use std::sync::Arc;

use serde_json::Value;

use super::State;
use super::authn::User;
use super::reply::Warnings;
use api::{ApiError, Resource, Subresource};

pub use given::{companions, complete, generate_name, keep_given, namespace_is_open, new_uid};

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// A write, as those see it who have a say in it (`AdmissionRequest` of admission.k8s.io/v1).
pub struct Attributes<'a> {
    pub state: &'a State,
    pub user: &'a User,
    /// What the path names.
    pub resource: &'a Arc<Resource>,
    pub subresource: Option<Subresource>,
    pub operation: Operation,
    /// Empty for a cluster-scoped object.
    pub namespace: &'a str,
    pub name: &'a str,
    /// The object as it is; None for a create.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    /// What the client should hear.
    pub warnings: &'a Warnings,
}

/// Lets those change a new or updated object who may. It is decoded and defaulted before and after.
#[expect(clippy::unused_async, reason = "webhooks are asked over the network")]
pub async fn mutate(attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
    limit_range::mutate(attributes, object)?;
    priority::give(attributes, object)?;
    policies::mutate(attributes, object)
}

/// Asks those who may refuse; `object` is what will be stored, None for a deletion.
#[expect(clippy::unused_async, reason = "webhooks are asked over the network")]
pub async fn validate(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    if let Some(object) = object {
        limit_range::validate(attributes, object)?;
    }
    priority::validate(attributes, object)?;
    policies::validate(attributes, object)
}
