//! What a kind does differently on create, update and selection: one constant a kind.

use std::collections::BTreeMap;

use serde_json::Value;

use super::scheme::{Resource, Subresource};

/// The functions of a kind.
#[derive(Debug)]
pub(super) struct Strategy {
    pub default: fn(&mut Value),
}

fn nothing(_: &mut Value) {}

pub(super) const PLAIN: Strategy = Strategy { default: nothing };
pub(super) const SCALE: Strategy = PLAIN;
pub(super) const CONFIG_MAP: Strategy = PLAIN;
pub(super) const ENDPOINTS: Strategy = PLAIN;
pub(super) const EVENT: Strategy = PLAIN;
pub(super) const NAMESPACE: Strategy = PLAIN;
pub(super) const NODE: Strategy = PLAIN;
pub(super) const POD: Strategy = PLAIN;
pub(super) const REPLICATION_CONTROLLER: Strategy = PLAIN;
pub(super) const SECRET: Strategy = PLAIN;
pub(super) const SERVICE: Strategy = PLAIN;
pub(super) const DEPLOYMENT: Strategy = PLAIN;
pub(super) const REPLICA_SET: Strategy = PLAIN;
pub(super) const LEASE: Strategy = PLAIN;
pub(super) const ENDPOINT_SLICE: Strategy = PLAIN;

pub(super) fn prepare_for_create(_resource: &Resource, _object: &mut Value) {
    todo!()
}

pub(super) fn prepare_for_update(
    _resource: &Resource,
    _new: &mut Value,
    _old: &Value,
    _sub: Option<Subresource>,
) {
    todo!()
}

pub(super) fn selectable_fields(
    _resource: &Resource,
    _object: &Value,
) -> BTreeMap<&'static str, String> {
    todo!()
}
