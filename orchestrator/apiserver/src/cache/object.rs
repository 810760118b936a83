//! One cached object: its bytes with the resourceVersion in them, and what selectors ask for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use super::super::wire::with_revision;
use super::node::{NodeParts, is_trimmed};
use super::packed::{self, Body};
use super::selectable;
use api::resource::Name;
use api::selector::{FieldSelector, LabelSelector};
use api::{Resource, meta};
use store::{Entry, Revision};

/// One object, ready to send. Shared by every reader.
#[derive(Debug)]
pub struct Cached {
    /// The store's key.
    pub key: Arc<str>,
    /// The JSON, `metadata.resourceVersion` included.
    body: Body,
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
            body: Body::Plain(bytes),
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

    /// The JSON, with its resourceVersion.
    pub fn bytes(&self) -> Bytes {
        self.body.bytes()
    }

    /// The same for whoever copies it.
    pub fn shown(&self) -> Cow<'_, [u8]> {
        self.body.shown()
    }

    /// How long the JSON is.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    /// What the JSON takes in memory.
    pub(super) fn size(&self) -> usize {
        self.body.size()
    }

    pub(super) fn is_plain(&self) -> bool {
        self.body.is_plain()
    }

    /// The same object, compressed; None, if it is already or would not get smaller.
    pub(super) fn packed(&self, dictionary: &Arc<[u8]>) -> Option<Self> {
        let Body::Plain(bytes) = &self.body else {
            return None;
        };
        let body = packed::pack(bytes, dictionary)?;
        let plain = Self::ready(
            &self.resource,
            self.key.clone(),
            Bytes::new(),
            self.revision,
        );
        Some(Self {
            body,
            indexed: self.indexed.clone(),
            ..plain
        })
    }

    /// Whether both selectors select the object. Of packed objects, of which there are many, nothing is
    /// kept for the next time.
    pub fn is_selected(&self, labels: &LabelSelector, fields: &FieldSelector) -> bool {
        let (any_labels, any_fields) = (labels.is_everything(), fields.is_everything());
        if any_labels && any_fields {
            return true;
        }
        if self.is_plain() {
            return (any_labels || labels.matches(self.labels()))
                && (any_fields || fields.matches(self.fields()));
        }
        if any_fields {
            return labels.matches(&selectable::labels(&self.bytes()));
        }
        let selectable = self.read_selectable();
        (any_labels || labels.matches(&selectable.labels)) && fields.matches(&selectable.fields)
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.selectable().labels
    }

    /// What a field selector may ask for.
    pub fn fields(&self) -> &BTreeMap<Name, String> {
        &self.selectable().fields
    }

    fn selectable(&self) -> &Selectable {
        self.selectable
            .get_or_init(|| Box::new(self.read_selectable()))
    }

    fn read_selectable(&self) -> Selectable {
        let skeleton = self.skeleton();
        Selectable {
            labels: meta::labels(&skeleton),
            fields: self.resource.selectable_fields(&skeleton),
        }
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
            0..=2 => selectable::skeleton(&self.bytes()),
            _ => serde_json::from_slice(&self.bytes()),
        };
        read.unwrap_or_else(|error| {
            tracing::error!(key = &*self.key, %error, "the store holds what is not JSON");
            Value::Null
        })
    }

    /// Whether other nodes see only a part of it.
    pub(super) fn is_trimmed(&self) -> bool {
        is_trimmed(&self.resource)
    }

    /// A node as other nodes see it, at a revision.
    pub fn trimmed(&self, revision: Revision) -> Bytes {
        with_revision(&self.node_parts().trimmed, revision)
    }

    /// Whether other nodes see the same of this node as of that one.
    pub fn is_trimmed_to(&self, other: &Self) -> bool {
        self.node_parts().trimmed == other.node_parts().trimmed
    }

    /// The fingerprint of the key that a node's certificates are for.
    pub fn node_key(&self) -> Option<&str> {
        self.node_parts().key.as_deref()
    }

    /// Whether a node's condition Ready is True.
    pub fn is_ready_node(&self) -> bool {
        self.node_parts().is_ready
    }

    fn node_parts(&self) -> &NodeParts {
        let read = || Box::new(NodeParts::of(&self.bytes()));
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
        with_revision(&self.bytes(), revision)
    }
}
