//! What an object may hold: Kubernetes' rules, paths and messages. The rules of a kind are in its file.

pub mod addresses;
pub mod changes;
mod errors;
pub mod int_or_percent;
pub mod names;
pub mod object;
pub mod resources;
pub mod selector;
pub mod webhooks;

use serde_json::Value;

pub use errors::{At, Errors};

use super::{
    meta,
    resource::{Resource, Subresource},
    schema::structural::Part,
    status::ApiError,
};

/// Which names the objects of a kind may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// No object of its own: nothing about its metadata is checked.
    None,
    /// DNS labels with dots between.
    Subdomain,
    /// One DNS label.
    Label,
    /// One DNS label that begins with a letter.
    Label1035,
    /// Whatever can stand in a path: `system:node`.
    PathSegment,
    /// An IP address in its shortest form.
    IpAddress,
}

/// Checks a defaulted object.
pub(super) fn validate(
    resource: &Resource,
    new: &Value,
    old: Option<&Value>,
    sub: Option<Subresource>,
) -> Result<(), ApiError> {
    let mut errors = Errors::default();
    let at = At::root(new);
    if resource.name_rule != NameRule::None {
        object::metadata(resource, &at, &mut errors);
    }
    if let Some(old) = old {
        object::metadata_update(&at, &At::root(old), &mut errors);
    }
    if matches!(sub, None | Some(Subresource::Scale)) {
        (resource.validate)(&at, &mut errors);
        match old {
            Some(old) => (resource.validate_update)(&at, &At::root(old), &mut errors),
            None => (resource.validate_create)(&at, &mut errors),
        }
    }
    if let Some(custom) = &resource.custom {
        let part = match sub {
            Some(Subresource::Status) => Part::Status,
            _ => Part::Whole,
        };
        errors.extend(custom.rules().validate(new, old, part));
    }
    if sub == Some(Subresource::Status) {
        (resource.validate_status)(&at, &mut errors);
    }
    let parts = [
        Subresource::Status,
        Subresource::Approval,
        Subresource::EphemeralContainers,
        Subresource::Resize,
    ];
    if let (Some(sub), Some(old)) = (sub.filter(|sub| parts.contains(sub)), old) {
        (resource.validate_subresource)(sub, &at, &At::root(old), &mut errors);
    }
    errors.finish(resource, meta::name(new))
}

#[cfg(test)]
mod tests;
