//! One cached object: its bytes with the resourceVersion in them, and what selectors ask for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use super::selectable;
use crate::api::{Resource, meta};
use crate::store::Revision;

/// One object, ready to send. Shared by every reader.
#[derive(Debug)]
pub struct Cached {
    /// The store's key.
    pub key: Arc<str>,
    /// The JSON, `metadata.resourceVersion` included.
    pub bytes: Bytes,
    /// What `metadata.resourceVersion` says.
    pub revision: Revision,
    resource: &'static Resource,
    /// Read out of the bytes by the first selector that looks: most objects never meet one.
    selectable: OnceLock<Box<Selectable>>,
}

#[derive(Debug)]
struct Selectable {
    labels: BTreeMap<String, String>,
    fields: BTreeMap<&'static str, String>,
}

impl Cached {
    /// From what the store holds.
    pub(super) fn of(
        resource: &'static Resource,
        key: Arc<str>,
        stored: &[u8],
        revision: Revision,
    ) -> Self {
        let bytes = with_revision(stored, revision);
        Self {
            key,
            bytes,
            revision,
            resource,
            selectable: OnceLock::new(),
        }
    }

    /// The same state at another revision: what is said of an object that is gone.
    pub(super) fn moved_to(&self, revision: Revision) -> Self {
        Self {
            key: self.key.clone(),
            bytes: self.at_revision(revision),
            revision,
            resource: self.resource,
            selectable: OnceLock::new(),
        }
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.selectable().labels
    }

    /// What a field selector may ask for.
    pub fn fields(&self) -> &BTreeMap<&'static str, String> {
        &self.selectable().fields
    }

    fn selectable(&self) -> &Selectable {
        self.selectable.get_or_init(|| {
            let skeleton = selectable::skeleton(&self.bytes).unwrap_or_else(|error| {
                tracing::error!(key = &*self.key, %error, "the store holds what is not JSON");
                Value::Null
            });
            let labels = meta::labels(&skeleton);
            let fields = self.resource.selectable_fields(&skeleton);
            Box::new(Selectable { labels, fields })
        })
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

const METADATA: &[u8] = b"\"metadata\":{";
const VERSION: &[u8] = b"\"resourceVersion\":\"";

/// The object with this resourceVersion as the first field of its metadata; one that is there
/// already (always the first field) is replaced. Stored objects begin with kind, apiVersion and
/// metadata, so the first `"metadata":{` is the object's own.
fn with_revision(object: &[u8], revision: Revision) -> Bytes {
    let Some(at) = object
        .windows(METADATA.len())
        .position(|window| window == METADATA)
    else {
        return Bytes::copy_from_slice(object);
    };
    let (head, rest) = object.split_at(at + METADATA.len());
    let rest = match rest.strip_prefix(VERSION) {
        Some(old) => {
            let end = old
                .iter()
                .position(|&byte| byte == b'"')
                .map_or(0, |quote| quote + 1);
            old[end..].strip_prefix(b",").unwrap_or(&old[end..])
        }
        None => rest,
    };
    let revision = revision.to_string();
    let comma: &[u8] = if rest.first() == Some(&b'}') {
        b"\""
    } else {
        b"\","
    };
    // Exactly as long as it is: `Bytes` of a vector with room to spare keeps the room.
    Bytes::from([head, VERSION, revision.as_bytes(), comma, rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_added_and_replaced_as_the_first_field_of_metadata() {
        let stored = br#"{"kind":"A","metadata":{"name":"x"},"spec":{"metadata":{}}}"#;
        let seven = with_revision(stored, 7);
        let expected =
            br#"{"kind":"A","metadata":{"resourceVersion":"7","name":"x"},"spec":{"metadata":{}}}"#;
        assert_eq!(seven, expected[..]);
        let twelve = with_revision(&seven, 12);
        let expected = br#"{"kind":"A","metadata":{"resourceVersion":"12","name":"x"},"spec":{"metadata":{}}}"#;
        assert_eq!(twelve, expected[..]);
    }

    #[test]
    fn empty_metadata_and_no_metadata_stay_json() {
        let one = with_revision(br#"{"metadata":{}}"#, 1);
        assert_eq!(one, br#"{"metadata":{"resourceVersion":"1"}}"#[..]);
        assert_eq!(
            with_revision(&one, 2),
            br#"{"metadata":{"resourceVersion":"2"}}"#[..]
        );
        assert_eq!(with_revision(b"{}", 1), b"{}"[..]);
    }
}
