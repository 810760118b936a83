//! What an object may hold: Kubernetes' rules, paths and messages.

mod errors;
pub(super) mod names;
mod object;

use serde_json::Value;

pub(super) use errors::{At, Errors};

use super::{
    meta,
    scheme::{Resource, Subresource},
    status::ApiError,
};

/// Which names the objects of a kind may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameRule {
    /// DNS labels with dots between.
    Subdomain,
    /// One DNS label.
    Label,
    /// One DNS label that begins with a letter.
    Label1035,
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
    object::metadata(resource, &at, &mut errors);
    if let Some(old) = old {
        object::metadata_update(&at, &At::root(old), &mut errors);
    }
    if matches!(sub, None | Some(Subresource::Scale)) {
        (resource.strategy.validate)(&at, &mut errors);
        if let Some(old) = old {
            (resource.strategy.validate_update)(&at, &At::root(old), &mut errors);
        }
    }
    errors.finish(resource, meta::name(new))
}

macro_rules! todo_kinds { ($($f:ident),*) => { $(pub(super) fn $f(_: &At<'_>, _: &mut Errors) {})* } }
macro_rules! todo_updates { ($($f:ident),*) => { $(pub(super) fn $f(_: &At<'_>, _: &At<'_>, _: &mut Errors) {})* } }
todo_kinds!(
    scale,
    config_map,
    secret,
    endpoints,
    endpoint_slice,
    event,
    lease,
    node,
    pod,
    service,
    replication_controller,
    replica_set,
    deployment
);
todo_updates!(
    config_map_update,
    secret_update,
    endpoint_slice_update,
    node_update,
    pod_update,
    service_update,
    selector_is_immutable
);
