//! One cached object: its bytes with the resourceVersion in them, and what selectors ask for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use super::super::wire::with_revision;
use super::node::NodeParts;
use super::selectable;
use api::resource::Name;
use api::{Resource, meta};
use store::{Entry, Revision};

/// One object, ready to send. Shared by every reader.
#[derive(Debug)]
pub struct Cached {
    /// The store's key.
    pub key: Arc<str>,
    /// The JSON, `metadata.resourceVersion` included.
    pub bytes: Bytes,
    /// What `metadata.resourceVersion` says.
    pub revision: Revision,
    resource: Arc<Resource>,
    /// Read out of the bytes by the first selector that looks: most objects never meet one.
    selectable: OnceLock<Box<Selectable>>,
    /// The values of the resource's indexes; read out of the bytes when they are first needed.
    indexed: OnceLock<Box<[Arc<str>]>>,
    /// Of a node, once another node or an authorisation has asked.
    node: OnceLock<Box<NodeParts>>,
}

#[derive(Debug)]
struct Selectable {
    labels: BTreeMap<String, String>,
    fields: BTreeMap<Name, String>,
}

impl Cached {
    /// From what the store holds.
    pub fn of(resource: &Arc<Resource>, key: Arc<str>, stored: &[u8], revision: Revision) -> Self {
        let bytes = with_revision(&resource.read(stored), revision);
        Self::ready(resource, key, bytes, revision)
    }

    /// From bytes that have their revision.
    pub(super) fn ready(
        resource: &Arc<Resource>,
        key: Arc<str>,
        bytes: Bytes,
        revision: Revision,
    ) -> Self {
        Self {
            key,
            bytes,
            revision,
            resource: resource.clone(),
            selectable: OnceLock::new(),
            indexed: OnceLock::new(),
            node: OnceLock::new(),
        }
    }

    /// An object as it was, out of the store's past.
    pub fn past(resource: &Arc<Resource>, entry: Entry) -> Self {
        Self::of(resource, entry.key, &entry.value, entry.modified)
    }

    /// The same state at another revision: what is said of an object that is gone.
    pub(super) fn moved_to(&self, revision: Revision) -> Self {
        let bytes = self.at_revision(revision);
        let moved = Self::ready(&self.resource, self.key.clone(), bytes, revision);
        Self {
            indexed: self.indexed.clone(),
            ..moved
        }
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.selectable().labels
    }

    /// What a field selector may ask for.
    pub fn fields(&self) -> &BTreeMap<Name, String> {
        &self.selectable().fields
    }

    fn selectable(&self) -> &Selectable {
        self.selectable.get_or_init(|| {
            let skeleton = self.skeleton();
            let labels = meta::labels(&skeleton);
            let fields = self.resource.selectable_fields(&skeleton);
            Box::new(Selectable { labels, fields })
        })
    }

    /// The values of the resource's indexes, in their order.
    pub(super) fn indexed(&self) -> &[Arc<str>] {
        self.indexed.get_or_init(|| {
            let names = &self.resource.indexes;
            if names.is_empty() {
                return Box::default();
            }
            let fields = self.resource.selectable_fields(&self.skeleton());
            let value = |name: &Name| fields.get(name).map_or("", String::as_str).into();
            names.iter().map(value).collect()
        })
    }

    fn skeleton(&self) -> Value {
        // Fields of built-in kinds are never deeper.
        let read = match self.resource.selectable_depth() {
            0..=2 => selectable::skeleton(&self.bytes),
            _ => serde_json::from_slice(&self.bytes),
        };
        read.unwrap_or_else(|error| {
            tracing::error!(key = &*self.key, %error, "the store holds what is not JSON");
            Value::Null
        })
    }

    /// A node as other nodes see it, at a revision.
    pub fn trimmed(&self, revision: Revision) -> Bytes {
        with_revision(&self.node_parts().trimmed, revision)
    }

    /// The fingerprint of the key that a node's certificates are for.
    pub fn node_key(&self) -> Option<&str> {
        self.node_parts().key.as_deref()
    }

    fn node_parts(&self) -> &NodeParts {
        let read = || Box::new(NodeParts::of(&self.bytes));
        self.node.get_or_init(read)
    }

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
    pub fn at_revision(&self, revision: Revision) -> Bytes {
        with_revision(&self.bytes, revision)
    }
}
