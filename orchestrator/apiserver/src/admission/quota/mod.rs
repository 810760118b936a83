//! ResourceQuotas in the write path. What an object uses is written to the status of the quotas that limit
//! it in the commit that writes the object, if they are still as they were read: no write of any server
//! passes a quota, and a write that fails has charged nothing.
//!
//! ```text
//! object ─▶ quotas of its namespace ─▶ charged (api::quota) ─▶ one commit: object, statuses
//!                    ▲                                                        │ lost a race:
//!                    └───────────────────── read anew ◀──────────────────────┘ tried again
//! ```
//!
//! What objects that change, end or go give back, and what a new quota finds, is counted by `recount`.

mod ledger;
mod recount;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::Timestamp;
use serde_json::Value;

use super::{Attributes, Operation};
use crate::cache::Cached;
use crate::objects::{Current, Objects, put};
use api::quota::{Measured, Quota, Usage};
use api::{ApiError, Resource, amounts};
use store::{Expect, Revision, Write};

pub use recount::start;

/// Writes that a quota limits take turns, a namespace at a time: those of one server would only lose
/// races against each other.
#[derive(Default)]
pub struct Turns(Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>);

type Turn = tokio::sync::OwnedMutexGuard<()>;

/// What a write uses of its namespace's quotas.
#[derive(Default)]
pub struct Charge {
    /// The quotas with more used.
    writes: Vec<Write>,
    /// The charged quotas, and the revisions that they were read at.
    read: Vec<(String, Revision)>,
    /// Held until the charge is committed or given up.
    _turn: Option<Turn>,
}

impl Charge {
    /// What the new object uses more than the old one. Fails if that is more than a quota allows.
    pub async fn of(attributes: &Attributes<'_>, object: &Value) -> Result<Self, ApiError> {
        if !concerns(attributes) {
            return Ok(Self::default());
        }
        let quotas = quota_kind()?;
        let state = attributes.state;
        let read = || {
            state
                .objects
                .cache
                .list(quotas, Some(attributes.namespace))
                .1
        };
        if !limits_any(&read(), attributes.resource)? {
            return Ok(Self::default());
        }
        let turn = state.quota_turns.take(attributes.namespace).await;
        let mut charge = Self::default();
        for quota in read() {
            charge.add(quotas, &quota, attributes, object)?;
        }
        charge._turn = Some(turn);
        Ok(charge)
    }

    fn add(
        &mut self,
        kind: &Resource,
        cached: &Cached,
        attributes: &Attributes<'_>,
        object: &Value,
    ) -> Result<(), ApiError> {
        let mut current = Current::of(cached)?;
        let measured = |object| Measured {
            resource: attributes.resource,
            object,
            now: Timestamp::now(),
        };
        let old = attributes.old.map(measured);
        let charged = Quota::in_force(&current.value).charged(&measured(object), old.as_ref());
        let used = charged
            .map_err(|why| ApiError::forbidden(attributes.resource, attributes.name, why))?;
        if let Some(used) = used {
            current.value["status"]["used"] = amounts::write(&used);
            let write = put(kind, &current.value, Expect::At(current.revision));
            self.writes.push(write);
            self.read.push((cached.name().to_owned(), current.revision));
        }
        Ok(())
    }

    /// The writes that belong in the commit of the object.
    pub fn writes(&self) -> Vec<Write> {
        self.writes.clone()
    }

    /// Whether a quota has changed since it was read, which a commit that lost a race may have been due
    /// to.
    pub fn is_outdated(&self, objects: &Objects, namespace: &str) -> Result<bool, ApiError> {
        let quotas = quota_kind()?;
        Ok(self.read.iter().any(|(name, revision)| {
            let now = objects.cache.get(quotas, namespace, name);
            now.is_none_or(|now| now.revision != *revision)
        }))
    }
}

impl Turns {
    async fn take(&self, namespace: &str) -> Turn {
        let turn = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = all.get(namespace).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                all.retain(|_, turn| turn.strong_count() > 0);
                let turn = Arc::default();
                all.insert(namespace.to_owned(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

/// As in Kubernetes: what is new, and changes of what may ask for more later.
fn concerns(attributes: &Attributes<'_>) -> bool {
    let is_charged = match attributes.operation {
        Operation::Create => true,
        Operation::Update => {
            matches!(attributes.resource.usage, Usage::Service | Usage::Claim)
        }
        Operation::Delete | Operation::Connect => false,
    };
    is_charged
        && attributes.subresource.is_none()
        && attributes.resource.namespaced()
        && attributes.resource.usage != Usage::Nothing
}

fn limits_any(quotas: &[Arc<Cached>], resource: &Resource) -> Result<bool, ApiError> {
    for quota in quotas {
        let quota = Current::of(quota)?.value;
        if !Quota::in_force(&quota).names_of(resource).is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn quota_kind() -> Result<&'static Arc<Resource>, ApiError> {
    api::find("", "v1", "resourcequotas").ok_or(ApiError::NoSuchResource)
}
