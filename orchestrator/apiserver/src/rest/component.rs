//! GET of ComponentStatuses: the parts of the control plane, which are parts of this process.

use axum::http::StatusCode;
use bytes::Bytes;

use super::list::Selection;
use super::{Answer, Call};
use crate::cache::Cached;
use crate::reply;
use crate::wire::ListMeta;
use api::{ApiError, Behaviour};

/// What kubectl has asked for since 2014: they run where this answer comes from.
const COMPONENTS: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];

pub fn is_of(call: &Call) -> bool {
    call.resource().behaviour == Behaviour::ComponentStatus
}

pub fn get(call: &Call) -> Answer {
    let name = COMPONENTS.iter().find(|name| **name == call.name());
    let name = name.ok_or_else(|| ApiError::not_found(call.resource(), call.name()))?;
    reply::object(
        &call.wanted,
        call.resource(),
        status(call, name),
        StatusCode::OK,
    )
}

pub fn list(call: &Call) -> Answer {
    let resource = call.resource();
    let selection = Selection::of(&call.target.served, &call.query)?;
    let mut items = Vec::new();
    for name in COMPONENTS {
        let status = status(call, name);
        if selection.selects(&Cached::of(resource, name.into(), &status, 0)) {
            items.push(status);
        }
    }
    let page = ListMeta::default();
    reply::list(&call.wanted, resource, &page, items, reply::whole)
}

fn status(call: &Call, name: &str) -> Bytes {
    let status = api::kinds::core::component_status::healthy(name);
    call.resource().serialize(&status).into()
}
