//! The watch cache: every object as the bytes that clients get, and the recent past.
//!
//! One task follows the store and applies its commits; GET, LIST and WATCH read here and never
//! touch the store, but for a watch that begins before the recent past. Objects are not kept
//! parsed: bytes, labels and selectable fields only. Writes go to the store, never here; who must
//! read its own write waits for its revision (`wait_for`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::Resource;
use crate::store::{Revision, Store, StoreError};
use crate::sys::Tasks;

/// One object, ready to send. Shared by every reader.
#[derive(Debug)]
pub struct Cached {
    /// The store's key.
    pub key: Arc<str>,
    /// The JSON, `metadata.resourceVersion` included.
    pub bytes: Bytes,
    /// What `metadata.resourceVersion` says.
    pub revision: Revision,
    pub labels: Arc<BTreeMap<String, String>>,
    /// What a field selector may ask for.
    pub fields: Arc<BTreeMap<&'static str, String>>,
}

/// What happened to an object of a resource (before any selector).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

/// One change, with what a selector needs to see an object enter or leave its set.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub change: Change,
    /// The new state; of a deletion the last state, at the revision of the deletion.
    pub object: Arc<Cached>,
    /// The state before, unless it was added.
    pub previous: Option<Arc<Cached>>,
}

/// The revision that a watch asked for lies before everything that is kept: the client has to
/// list again (410, reason Expired).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Gone {
    pub asked: Revision,
    pub oldest: Revision,
}

/// The cache of a whole store. Clones share it.
#[derive(Clone)]
pub struct Cache;

/// One watch: a place in the past that moves on. It holds no queue, so a slow client costs
/// nothing; one that falls behind everything kept gets `Gone`.
pub struct Watch;

/// The store's key of an object (`namespace` empty for a cluster resource).
pub fn object_key(resource: &Resource, namespace: &str, name: &str) -> String {
    format!("{}{name}", prefix(resource, Some(namespace)))
}

/// What the keys of a resource, or of its objects in a namespace, begin with.
pub fn prefix(resource: &Resource, namespace: Option<&str>) -> String {
    let group = if resource.group.is_empty() {
        "core"
    } else {
        resource.group
    };
    let plural = resource.plural;
    match namespace {
        Some(namespace) if !namespace.is_empty() => {
            format!("/registry/{group}/{plural}/{namespace}/")
        }
        _ => format!("/registry/{group}/{plural}/"),
    }
}

impl Cache {
    /// Loads the store and follows it until the tasks are stopped. Returns when every object is
    /// there.
    pub async fn start(_store: Arc<dyn Store>, _tasks: &Tasks) -> Result<Self, StoreError> {
        todo!()
    }

    /// `namespace` is empty for a cluster resource.
    pub fn get(&self, _resource: &Resource, _namespace: &str, _name: &str) -> Option<Arc<Cached>> {
        todo!()
    }

    /// All objects in key order (namespace, then name), and the revision at which this is true: a
    /// watch from it misses nothing and repeats nothing.
    pub fn list(
        &self,
        _resource: &Resource,
        _namespace: Option<&str>,
    ) -> (Revision, Vec<Arc<Cached>>) {
        todo!()
    }

    /// Everything up to this revision is visible.
    pub fn revision(&self) -> Revision {
        todo!()
    }

    /// Returns once `revision` is visible: after a commit (read your writes), or before a
    /// consistent read (`wait_for(store.revision())`).
    pub async fn wait_for(&self, _revision: Revision) {
        todo!()
    }

    /// Every change behind `from`. Bodies of watch events share the cache's bytes.
    pub async fn watch(
        &self,
        _resource: &'static Resource,
        _namespace: Option<&str>,
        _from: Revision,
    ) -> Result<Watch, Gone> {
        todo!()
    }
}

impl Watch {
    /// The next change. Cancel-safe. After `Gone` the watch is over.
    pub async fn next(&mut self) -> Result<WatchEvent, Gone> {
        todo!()
    }

    /// The next change if it is there already: to fill one write with several events.
    pub fn try_next(&mut self) -> Option<Result<WatchEvent, Gone>> {
        todo!()
    }

    /// The revision up to which this watch has delivered everything: what a bookmark may say.
    pub fn progress(&self) -> Revision {
        todo!()
    }
}

impl Cached {
    /// Empty for a cluster resource.
    pub fn namespace(&self) -> &str {
        // "", registry, group, plural, then [namespace,] name.
        let mut words = self.key.split('/').skip(4);
        match (words.next(), words.next()) {
            (Some(namespace), Some(_name)) => namespace,
            _ => "",
        }
    }

    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// The same object saying another resourceVersion: for a DELETED event of an object that only
    /// left a selector's set.
    pub fn at_revision(&self, _revision: Revision) -> Bytes {
        todo!()
    }
}
