//! ControllerRevisions: what a StatefulSet or a DaemonSet was, and what it is to become. Pure.
//!
//! ```text
//! template ─▶ data ─▶ the newest revision has it     recorded
//!                  ├▶ an older one has it            a rollback: it gets the next number
//!                  ├▶ none has it                    created
//!                  └▶ its name is taken              the collision count goes up, and with it the name
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::{Value, json};

use super::action::{self, Action, Create};
use super::controller::Due;
use super::object::{Body, Key, Object};
use super::world::{Diff, World};
use api::selector::LabelSelector;
use client::Kind;

/// The label that tells a pod's revision: of a StatefulSet its name, of a DaemonSet its hash.
pub const POD_LABEL: &str = "controller-revision-hash";

/// What controllers read of a revision.
#[derive(Clone, Debug)]
pub struct RevisionRow {
    /// They count up; the highest is the present one.
    pub number: i64,
    /// A strategic merge patch that brings the template back.
    pub data: Value,
}

/// A revision and its row.
pub type RevisionRef<'a> = (&'a Object, &'a RevisionRow);

/// What is to be recorded.
pub struct Snapshot<'a> {
    pub owner: &'a Object,
    pub annotations: &'a BTreeMap<String, String>,
    pub template: &'a Value,
    pub collisions: i32,
    /// Under which the revision itself carries its hash.
    pub hash_label: &'static str,
}

/// Where a snapshot stands among the revisions that are there.
pub enum Standing<'a> {
    Recorded(RevisionRef<'a>),
    /// The action records it.
    Missing(Box<Action>),
    /// Another object has its name.
    Taken,
}

/// Adds the sets of a kind that a change of a set, of its pods or of its revisions makes due. What has no owner
/// concerns the sets that may adopt it.
pub fn due(kind: Kind, world: &World, diff: &Diff, due: &mut Due) {
    for object in diff.versions() {
        if object.kind == kind {
            due.insert((object.kind, object.key.clone()));
            continue;
        }
        match object.controller() {
            Some(owner) => {
                let set = world.by_uid(&owner.uid);
                due.extend(set.map(|set| (set.kind, set.key.clone())));
            }
            // A revision has the labels of the pods of its template.
            None => due.extend(world.selecting_as(object, Kind::POD)),
        }
    }
    due.retain(|(due, _)| *due == kind);
}

/// Names are cut so that the hash fits.
const LONGEST_PREFIX: usize = 223;

/// The revisions that `owner` controls, oldest first, and what is to be adopted or released.
pub fn claim<'a>(
    world: &'a World,
    owner: &Object,
    selector: &LabelSelector,
) -> (Vec<RevisionRef<'a>>, Vec<Action>) {
    let uid = &owner.meta.uid;
    let ending = owner.meta.deleting.is_some();
    let (mut revisions, mut actions) = (Vec::new(), Vec::new());
    let own = world
        .dependents(uid)
        .filter(|it| it.as_revision().is_some());
    for object in own {
        if object.controller().is_none_or(|owner| owner.uid != *uid) {
            continue;
        }
        if !selector.matches(&object.meta.labels) && !ending {
            actions.push(action::release(object, uid));
        } else if let Some(row) = object.as_revision() {
            revisions.push((object.as_ref(), row.as_ref()));
        }
    }
    for object in world.orphaned_revisions(&owner.key.namespace) {
        let wanted = selector.matches(&object.meta.labels) && object.meta.deleting.is_none();
        if let Some(row) = object.as_revision().filter(|_| wanted && !ending) {
            let reference = action::controller_reference(owner);
            actions.push(action::adopt(object, reference));
            revisions.push((object.as_ref(), row.as_ref()));
        }
    }
    revisions.sort_by_key(|(object, row)| (row.number, object.meta.created, object.key.clone()));
    (revisions, actions)
}

/// Where the snapshot stands among the owner's `revisions`, which are sorted.
pub fn standing<'a>(
    world: &World,
    snapshot: &Snapshot,
    revisions: &[RevisionRef<'a>],
) -> Standing<'a> {
    let wanted = plain(&data(snapshot.template));
    let newest = revisions.last().map_or(0, |(_, row)| row.number);
    let mut equal = revisions.iter().rev();
    let equal = equal.find(|(_, row)| plain(&row.data) == wanted);
    if let Some(&(object, row)) = equal {
        if row.number == newest {
            return Standing::Recorded((object, row));
        }
        let next = json!({"revision": newest + 1});
        return Standing::Missing(Box::new(Action::merge(object, "", next)));
    }
    let hash = hash(&plain(snapshot.template), snapshot.collisions);
    let owner = snapshot.owner;
    let name = format!("{}-{hash}", prefix(&owner.key.name));
    let key = Key::new(&owner.key.namespace, &name);
    if world.get(Kind::CONTROLLER_REVISION, &key).is_some() {
        return Standing::Taken;
    }
    Standing::Missing(Box::new(create(snapshot, newest + 1, &name, &hash)))
}

/// Deletes the oldest of `revisions` that no pod has, `excess` of them.
pub fn truncate(revisions: &[RevisionRef], live: &BTreeSet<&str>, excess: usize) -> Vec<Action> {
    let dead = revisions
        .iter()
        .filter(|(object, _)| !live.contains(object.key.name.as_str()));
    dead.filter(|(object, _)| object.meta.deleting.is_none())
        .take(excess)
        .map(|(object, _)| Action::delete(object))
        .collect()
}

/// The template that a revision's data brings back.
pub fn template(row: &RevisionRow) -> Value {
    plain(&row.data["spec"]["template"])
}

/// The hash that names a template; `collisions` makes it another one.
pub fn hash(template: &Value, collisions: i32) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let salt = if collisions > 0 {
        collisions.to_string()
    } else {
        String::new()
    };
    let text = template.to_string();
    let bytes = text.bytes().chain(salt.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

/// What Kubernetes stores of a template. Clients compare it byte by byte with what their own types write, so it
/// has what Go writes of an empty value: a creation time, resources, a divisor.
pub fn data(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = "replace".into();
    template["metadata"]["creationTimestamp"] = Value::Null;
    for list in ["containers", "initContainers"] {
        for container in items(&mut template["spec"], list) {
            fill(container, "resources", json!({}));
            for variable in items(container, "env") {
                if let Some(field) = variable.pointer_mut("/valueFrom/resourceFieldRef") {
                    fill(field, "divisor", "0".into());
                }
            }
        }
    }
    for volume in items(&mut template["spec"], "volumes") {
        if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate") {
            claim["metadata"]["creationTimestamp"] = Value::Null;
            fill(&mut claim["spec"], "resources", json!({}));
        }
    }
    json!({"spec": {"template": template}})
}

fn items<'a>(value: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = value.get_mut(list).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

fn fill(value: &mut Value, field: &str, default: Value) {
    if value[field].is_null() {
        value[field] = default;
    }
}

/// Without what says nothing: nulls, empty resources, how the patch is applied.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let says = |(name, value): &(&String, &Value)| {
                let empty = value.as_object().is_some_and(serde_json::Map::is_empty);
                let default = name.as_str() == "divisor" && **value == "0";
                !value.is_null()
                    && name.as_str() != "$patch"
                    && !(empty && name.as_str() == "resources")
                    && !default
            };
            let fields = fields.iter().filter(says);
            let fields = fields.map(|(name, value)| (name.clone(), plain(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

fn prefix(name: &str) -> &str {
    name.get(..LONGEST_PREFIX).unwrap_or(name)
}

fn create(snapshot: &Snapshot, number: i64, name: &str, hash: &str) -> Action {
    let owner = snapshot.owner;
    let mut labels = snapshot.template["metadata"]["labels"].clone();
    labels[snapshot.hash_label] = hash.into();
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "namespace": owner.key.namespace,
            "labels": labels,
            "annotations": snapshot.annotations,
            "ownerReferences": action::owners_json(&[action::controller_reference(owner)]),
        },
        "data": data(snapshot.template),
        "revision": number,
    });
    Action::Create(Create {
        kind: Kind::CONTROLLER_REVISION,
        namespace: owner.key.namespace.clone(),
        object,
        if_absent: false,
        about: None,
    })
}

impl From<ControllerRevision> for Object {
    fn from(revision: ControllerRevision) -> Self {
        let row = RevisionRow {
            number: revision.revision,
            data: revision.data.map(|data| data.0).unwrap_or_default(),
        };
        let body = Body::Revision(Arc::new(row));
        Self::new(Kind::CONTROLLER_REVISION, revision.metadata, body)
    }
}

#[cfg(test)]
mod tests;
