//! How much a caller sees of what it may read, and for how long.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::nodes;
use crate::State;
use crate::authn::{self, User};
use crate::cache::{self, Bucket, Cached, Referent};
use crate::request::Target;
use api::Resource;
use store::Revision;

/// How much of a resource's objects a caller sees.
#[derive(Clone)]
pub enum Sight {
    Whole,
    /// This node whole, of all others what concerns their peers.
    Peers(Arc<str>),
}

impl Sight {
    pub fn of(user: &User, resource: &Resource) -> Self {
        match user.node() {
            Some(node) if cache::is_trimmed(resource) => Self::Peers(node.into()),
            _ => Self::Whole,
        }
    }

    /// The object as the caller sees it.
    pub fn bytes(&self, object: &Cached) -> Bytes {
        match self {
            Self::Peers(own) if **own != *object.name() => object.trimmed(object.revision),
            _ => object.bytes(),
        }
    }

    /// The same for whoever copies it.
    pub fn shown<'a>(&self, object: &'a Cached) -> Cow<'a, [u8]> {
        match self {
            Self::Whole => object.shown(),
            Self::Peers(_) => Cow::Owned(self.bytes(object).into()),
        }
    }

    /// Whether the caller sees a change of what was there before: most of what a node says of itself does
    /// not concern its peers.
    pub fn shows_change(&self, before: &Cached, now: &Cached) -> bool {
        match self {
            Self::Peers(own) if **own != *now.name() => !before.is_trimmed_to(now),
            _ => true,
        }
    }

    /// The changes that the caller sees, where that is not all of them.
    pub fn buckets(&self, resource: &Resource) -> Vec<Bucket> {
        match self {
            Self::Whole => Vec::new(),
            Self::Peers(own) => {
                let own = cache::object_key(resource, "", own);
                vec![Bucket::Peers, Bucket::Object(own.into())]
            }
        }
    }

    /// The same saying another resourceVersion.
    pub fn at_revision(&self, object: &Cached, revision: Revision) -> Bytes {
        match self {
            Self::Peers(own) if **own != *object.name() => object.trimmed(revision),
            _ => object.at_revision(revision),
        }
    }
}

/// A right to an event of a watch, which may end while the watch goes on: a node's with the name's key,
/// or with the last reference of a pod to the object; a token's with what it is bound to.
pub struct Standing {
    state: Arc<State>,
    user: User,
    referent: Option<Referent>,
    namespace: Box<str>,
}

impl Standing {
    /// None for callers whose rights do not end.
    pub fn of(state: &Arc<State>, user: &User, target: &Target) -> Option<Self> {
        if user.node().is_none() && user.token.is_none() {
            return None;
        }
        let referent = Referent::of(&target.resource().plural);
        Some(Self {
            state: state.clone(),
            user: user.clone(),
            referent: referent.filter(|_| target.resource().group.is_empty()),
            namespace: target.namespace.as_deref().unwrap_or_default().into(),
        })
    }

    /// Whether the caller may still hear of the object.
    pub fn holds(&self, name: &str) -> bool {
        let cache = &self.state.objects.cache;
        let refers = |(node, kind)| {
            nodes::is_every_nodes(kind, &self.namespace, name)
                || cache.refers(node, kind, &self.namespace, name)
        };
        self.user.node().zip(self.referent).is_none_or(refers)
            && authn::still_holds(&self.state, &self.user, Timestamp::now()).is_ok()
    }
}
