//! Who has which role (rbac.authorization.k8s.io/v1), ready for a decision.
//!
//! ```text
//! store ─▶ watch cache ─▶ index: subject ─▶ namespace ─▶ grants ─▶ role ─▶ rules ─▶ authz
//!                           ▲ changed with the objects, before a write of one is answered
//! ```
//!
//! The default roles and bindings are `defaults`; they are data, made and mended when the server starts.

mod defaults;
mod escalation;
mod index;

use std::sync::{Arc, PoisonError, RwLock};

use api::kinds::rbac::GROUP;
use api::rbac::{Attributes, Rule};

pub use defaults::first_objects;
pub use escalation::check as check_escalation;
pub use index::{Granted, Subject};

use index::Index;

/// The roles and bindings of the store. Written by the task that follows the store; clones share it.
#[derive(Clone, Default)]
pub struct Rbac(Arc<RwLock<Index>>);

impl Rbac {
    /// Takes in an object that is new or has changed (`stored` is its JSON), or forgets one that is gone.
    /// Keys of other kinds change nothing.
    pub fn note(&self, key: &str, stored: Option<&[u8]>) {
        let Some(name) = name_of(key) else {
            return;
        };
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = index.note(name, stored) {
            tracing::error!(key, %error, "a stored role or binding does not read");
        }
    }

    /// By which grant somebody may do this; the error says which roles are missing, if any.
    pub fn allows(
        &self,
        subject: Subject<'_>,
        wanted: &Attributes<'_>,
    ) -> Result<Granted, Vec<String>> {
        let index = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match index.allows(subject, wanted) {
            Some(granted) => Ok(granted),
            None => Err(index.missing(subject, wanted.namespace)),
        }
    }

    /// Every rule that somebody has in a namespace or in all of them, and which roles are missing.
    pub fn rules(&self, subject: Subject<'_>, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let index = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (
            index.rules(subject, namespace),
            index.missing(subject, namespace),
        )
    }
}

/// `clusterroles/view` of `/registry/rbac.authorization.k8s.io/clusterroles/view`.
fn name_of(key: &str) -> Option<&str> {
    key.strip_prefix("/registry/")?
        .strip_prefix(GROUP)?
        .strip_prefix('/')
}
