//! What an object may hold: Kubernetes' rules, paths and messages.

mod config;
mod container;
mod errors;
pub(super) mod names;
mod network;
mod node;
mod object;
mod placement;
mod pod;
mod pod_update;
mod security;
mod service;
mod volume;
mod workload;

use serde_json::Value;

pub(super) use {
    config::{config_map, config_map_update, secret, secret_update},
    errors::{At, Errors},
    network::{endpoint_slice, endpoint_slice_update, endpoints, pod_status},
    node::{event, lease, node, node_status, node_update},
    pod::pod,
    pod_update::pod_update,
    service::{service, service_status, service_update},
    workload::{deployment, replica_set, replication_controller, scale, selector_is_immutable},
};

use super::{
    meta,
    scheme::{Resource, Subresource},
    status::ApiError,
};

/// Which names the objects of a kind may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameRule {
    /// No object of its own: nothing about its metadata is checked.
    None,
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
    if resource.strategy.name != NameRule::None {
        object::metadata(resource, &at, &mut errors);
    }
    if let Some(old) = old {
        object::metadata_update(&at, &At::root(old), &mut errors);
    }
    if matches!(sub, None | Some(Subresource::Scale)) {
        (resource.strategy.validate)(&at, &mut errors);
        if let Some(old) = old {
            (resource.strategy.validate_update)(&at, &At::root(old), &mut errors);
        }
    }
    if sub == Some(Subresource::Status) {
        (resource.strategy.validate_status)(&at, &mut errors);
    }
    errors.finish(resource, meta::name(new))
}

#[cfg(test)]
mod tests;
