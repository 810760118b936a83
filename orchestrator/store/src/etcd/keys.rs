//! Where what lies in etcd.
//!
//! ```text
//! /orchestrator/data/registry/…  values: the store's keys behind `/orchestrator/data`
//! /orchestrator/control/…        the store's own: see the constants
//! ```
//!
//! Both lie beneath one prefix, so that one watch delivers both in order.

use std::sync::Arc;

use bytes::Bytes;

use super::{events, wire};
use crate::Entry;

/// The etcd keys of a store.
pub(super) struct Keys {
    prefix: Box<str>,
    data: Arc<str>,
}

/// Written to get a revision of the store's own.
pub(super) const SYNC: &str = "sync";
/// Up to which revision the history is, or is about to be, compacted.
pub(super) const COMPACTED: &str = "compacted";
/// The last revision of before this etcd, where there is one: written once, before anything else.
pub(super) const BASE: &str = "base";

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
            data: format!("{prefix}/data").into(),
        }
    }

    /// What the etcd keys of values begin with.
    pub fn data(&self) -> Arc<str> {
        self.data.clone()
    }

    /// The etcd key of a value.
    pub fn of(&self, key: &str) -> Bytes {
        format!("{}{key}", self.data).into()
    }

    pub fn control(&self, name: &str) -> Bytes {
        format!("{}/control/{name}", self.prefix).into()
    }

    /// Everything of this store.
    pub fn all(&self) -> (Bytes, Bytes) {
        span(format!("{}/", self.prefix))
    }

    /// The values whose keys begin with `prefix`.
    pub fn with_prefix(&self, prefix: &str) -> (Bytes, Bytes) {
        span(format!("{}{prefix}", self.data))
    }

    /// None: the key is none of a value.
    pub fn entry(&self, kv: wire::KeyValue) -> Option<Entry> {
        let key = events::key_of(&kv.key, &self.data)?.into();
        Some(Entry {
            key,
            // A copy, which does not keep the whole message.
            value: Bytes::copy_from_slice(&kv.value),
            created: kv.create_revision.unsigned_abs(),
            modified: kv.mod_revision.unsigned_abs(),
        })
    }
}

/// The keys that begin with a text: from it to the first that does not. Texts are ASCII or UTF-8,
/// whose bytes are below 0xff.
fn span(prefix: String) -> (Bytes, Bytes) {
    let mut end = prefix.clone().into_bytes();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (prefix.into(), end.into())
}
