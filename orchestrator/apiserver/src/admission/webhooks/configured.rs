//! The webhooks of all configurations, made once a change.

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use super::hook::Hook;
use super::review::Role;
use crate::objects::Objects;
use crate::reply;
use api::{ApiError, Resource, meta};
use store::Revision;

/// The webhooks as they are now, by role.
#[derive(Default)]
pub struct Configured {
    mutating: RwLock<Made>,
    validating: RwLock<Made>,
}

/// In the order in which they are asked: by the name of their configuration, then as it lists them.
pub type Hooks = Arc<[Arc<Hook>]>;

#[derive(Clone, Default)]
struct Made {
    hooks: Hooks,
    /// The last change of a configuration that they know of.
    at: Revision,
}

impl Configured {
    pub fn of(&self, role: Role, objects: &Objects) -> Result<Hooks, ApiError> {
        let (made, plural) = match role {
            Role::Mutating => (&self.mutating, "mutatingwebhookconfigurations"),
            Role::Validating => (&self.validating, "validatingwebhookconfigurations"),
        };
        let kind = api::find(super::GROUP, "v1", plural).ok_or(ApiError::NoSuchResource)?;
        let changed = objects.cache.last_change(kind);
        let known = made.read().unwrap_or_else(PoisonError::into_inner).clone();
        if known.at == changed {
            return Ok(known.hooks);
        }
        let made_now = Made {
            hooks: make(kind, objects, &known.hooks)?,
            at: changed,
        };
        let hooks = made_now.hooks.clone();
        *made.write().unwrap_or_else(PoisonError::into_inner) = made_now;
        Ok(hooks)
    }
}

/// Webhooks that are as they were keep their connections.
fn make(kind: &Arc<Resource>, objects: &Objects, known: &Hooks) -> Result<Hooks, ApiError> {
    let mut hooks = Vec::new();
    for cached in objects.cache.list(kind, None).1 {
        let configuration = reply::parse(&cached.bytes())?;
        let (name, uid) = (meta::name(&configuration), meta::uid(&configuration));
        let same = |webhook: &Value| known.iter().find(|hook| hook.is_of(uid, webhook)).cloned();
        let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
        hooks.extend(webhooks.map(|webhook| {
            same(webhook).unwrap_or_else(|| Arc::new(Hook::of(name, uid, webhook)))
        }));
    }
    Ok(hooks.into())
}
