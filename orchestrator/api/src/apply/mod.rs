//! Server-side apply: who owns which field, and what an applied configuration makes of an object.
//!
//! ```text
//!            applied ──▶ check ──▶ its field set ─────────────┐
//!               │                                             ▼
//!   live ──▶ merge ──▶ prune what was applied before ──▶ compare with live ──▶ conflicts (409)
//!                                                             │
//!                             managedFields ◀─────────────────┘
//! ```
//!
//! [`update`] is called for every other write: it compares two objects and moves what changed to
//! the entry of the one who wrote. Pure: time is an argument. What a manager owns is said in the
//! version in which it wrote it; sets of other versions are read as they are.

mod compare;
mod conflict;
mod element;
mod field_set;
mod last_applied;
mod managers;
mod merge;
mod of_object;
mod prune;
mod shape;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    FieldValidation, Resource, Subresource,
    status::{ApiError, Cause, CauseKind, Target},
};
use compare::Changes;
use conflict::Conflicts;
use field_set::{FieldSet, Nodes};
use managers::{Id, Managers, Operation};

/// Of the object before anybody applied to it, if nobody kept a record.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// A manager that did not say who it is.
const UNKNOWN: &str = "unknown";
/// The name of a manager.
const MAX_NAME_BYTES: usize = 128;

/// Who writes, where and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager` of the request, or [`manager_of_user_agent`].
    pub manager: &'a str,
    pub subresource: Option<Subresource>,
    pub now: Timestamp,
}

/// The object with everything in it that a part of one says, by the schema: lists that merge lose
/// nothing. Nobody comes to own anything.
pub fn merged(resource: &Resource, live: &Value, part: &Value) -> Value {
    merge::merge(shape::whole(resource), live, part)
}

/// The object that `applied` makes of the live one: canonical, not defaulted, with its
/// managedFields. Equal to the live one if nothing changes. `applied` is the body as it was
/// written, with the name and namespace of the request.
///
/// # Errors
/// The configuration is malformed (400), or changes what others own and is not forced (409).
pub fn apply(
    resource: &Resource,
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApiError> {
    let shape = shape::whole(resource);
    let applied = configuration(resource, applied, writer)?;
    let api_version = resource.api_version();
    let own = writer.id(Operation::Apply, &api_version);
    let mut managers = live.map(Managers::of_stored).unwrap_or_default();
    let live_bare = live.map_or_else(|| Value::Object(Map::new()), bare);
    if managers.is_empty() {
        let before = compare::compare(tracked(resource, writer), &empty(), &live_bare);
        let id = Id {
            manager: BEFORE_FIRST_APPLY,
            ..writer.id(Operation::Update, &api_version)
        };
        managers.add(id, before.written, writer.now);
    }
    let fields = of_object::of_object(shape, &applied);
    let merged = merge::merge(shape, &live_bare, &applied);
    let merged = pruned(shape, merged, &managers, own, &fields);
    let mut object = resource.canonical(merged, FieldValidation::Ignore)?.object;
    let changes = compare::compare(tracked(resource, writer), &live_bare, &object);
    let taken = taken(&changes, &fields);
    let conflicts = Conflicts::find(&managers, own, &taken);
    if !force && !conflicts.is_empty() {
        settle_conflicts(shape, &live_bare, writer, conflicts)?;
    }
    managers.subtract(&taken, Some(own));
    managers.subtract(&changes.removed, Some(own));
    if writer.manager == last_applied::KUBECTL {
        last_applied::renew(&mut object, &applied);
    }
    let mut fields = fields.nodes().clone();
    if let Some(never) = shape::never_owned().as_object() {
        field_set::subtract(&mut fields, never);
    }
    let same_entry = managers
        .find(own)
        .is_some_and(|entry| *entry.fields() == fields && entry.id().api_version == api_version);
    let changed = object != live_bare || !same_entry;
    managers.set(own, FieldSet::of(fields), changed.then_some(writer.now));
    managers.write(&mut object);
    Ok(object)
}

/// Renews the managedFields of an object that was created, updated or patched: `new` is decoded
/// and defaulted, and still has the managedFields that the client sent or patched.
pub fn update(resource: &Resource, live: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    if !new["metadata"].is_object() {
        return;
    }
    let mut managers = sent(live, new, writer);
    if managers.is_empty() && live.is_some() {
        // Nobody keeps a record of this object, until somebody applies to it.
        managers.write(new);
        return;
    }
    let nothing = empty();
    let old = live.unwrap_or(&nothing);
    let changes = compare::compare(tracked(resource, writer), old, new);
    if !changes.is_empty() {
        let api_version = resource.api_version();
        let id = writer.id(Operation::Update, &api_version);
        managers.subtract(&changes.removed, None);
        managers.subtract(&changes.written, Some(id));
        managers.add(id, changes.written, writer.now);
        managers.cap();
    }
    managers.write(new);
}

/// Keeps the managedFields of `old` if `new` is the same but for their times: what a client wrote
/// and the server took back is no change.
pub fn keep_times(new: &mut Value, old: &Value) {
    if is_same_but_times(new, old) {
        Managers::of_stored(old).write(new);
    }
}

/// The configuration of a workload that an applied Scale stands for, for [`apply`] with the
/// subresource `scale`: it is about the replicas alone.
pub fn configuration_of_scale(resource: &Resource, scale: &Value) -> Value {
    let mut metadata = Map::new();
    for key in ["name", "namespace", "resourceVersion", "uid"] {
        if let Some(value) = scale["metadata"].get(key) {
            metadata.insert(key.into(), value.clone());
        }
    }
    let mut configuration = json!({
        "apiVersion": resource.api_version(),
        "kind": resource.kind,
        "metadata": metadata,
    });
    if let Some(replicas) = scale["spec"].get("replicas") {
        configuration["spec"] = json!({"replicas": replicas});
    }
    configuration
}

/// Checks the parameter `fieldManager`; `options` is the kind of the request's options, such as
/// `PatchOptions`.
///
/// # Errors
/// It is too long, has a character that cannot be printed, or is absent where it is `required`
/// (an apply): 422.
pub fn check_field_manager(options: &str, manager: &str, required: bool) -> Result<(), ApiError> {
    let (kind, message) = if required && manager.is_empty() {
        let why = "Required value: is required for apply patch".to_owned();
        (CauseKind::Required, why)
    } else if manager.len() > MAX_NAME_BYTES {
        let why = format!("Too long: may not be more than {MAX_NAME_BYTES} bytes");
        (CauseKind::TooLong, why)
    } else {
        match check_name(manager) {
            Ok(()) => return Ok(()),
            Err(why) => (
                CauseKind::Invalid,
                format!("Invalid value: {manager:?}: {why}"),
            ),
        }
    };
    Err(ApiError::Invalid {
        target: Target {
            group: "meta.k8s.io".into(),
            kind: options.into(),
            ..Target::default()
        },
        causes: vec![Cause {
            field: "fieldManager".into(),
            kind,
            message,
        }],
    })
}

/// The manager of a request that does not name one: what its `User-Agent` is before the first `/`.
pub fn manager_of_user_agent(user_agent: &str) -> String {
    let product = user_agent.split('/').next().unwrap_or_default();
    let mut name: String = product.chars().filter(|c| is_printable(*c)).collect();
    name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
    name
}

impl Writer<'_> {
    fn id<'a>(&'a self, operation: Operation, api_version: &'a str) -> Id<'a> {
        Id {
            manager: match self.manager {
                "" => UNKNOWN,
                manager => manager,
            },
            operation,
            api_version,
            subresource: self.subresource.map_or("", Subresource::name),
        }
    }
}

/// The applied configuration without what this path does not write.
fn configuration(
    resource: &Resource,
    applied: &Value,
    writer: &Writer<'_>,
) -> Result<Value, ApiError> {
    let word = |key: &str| applied[key].as_str().unwrap_or_default();
    let (api_version, kind) = (word("apiVersion"), word("kind"));
    if api_version != resource.api_version() || kind != resource.kind {
        let group_version = match api_version.contains('/') {
            true => api_version.to_owned(),
            false => format!("/{api_version}"),
        };
        let text = format!("invalid object type: {group_version}, Kind={kind}");
        return Err(ApiError::BadRequest(text));
    }
    if !applied["metadata"]["managedFields"].is_null() {
        let text = "metadata.managedFields must be nil";
        return Err(ApiError::BadRequest(text.into()));
    }
    of_object::check(shape::whole(resource), applied).map_err(|why| {
        let metadata = |key: &str| applied["metadata"][key].as_str().unwrap_or_default();
        ApiError::BadRequest(format!(
            "failed to create typed patch object ({}/{}; {api_version}, Kind={kind}): {why}",
            metadata("namespace"),
            metadata("name"),
        ))
    })?;
    let fields = applied.as_object().into_iter().flatten();
    let written = fields.filter(|(key, _)| shape::is_written(resource, writer.subresource, key));
    Ok(written.map(|(k, v)| (k.clone(), v.clone())).collect())
}

/// The merged object without what this manager applied before and nobody owns any more.
fn pruned(
    shape: shape::Shape<'_>,
    merged: Value,
    managers: &Managers,
    own: Id<'_>,
    fields: &FieldSet,
) -> Value {
    let Some(last) = managers.find(own) else {
        return merged;
    };
    let mut given_up = last.fields().clone();
    field_set::subtract(&mut given_up, fields.nodes());
    if given_up.is_empty() {
        return merged;
    }
    let mut managed = fields.nodes().clone();
    for entry in managers.iter().filter(|entry| entry.id() != own) {
        field_set::unite(&mut managed, entry.fields().clone());
    }
    prune::prune(shape, &merged, last.fields(), &managed)
}

/// What others lose to the applier: what it changed, and what it emptied with a null.
fn taken(changes: &Changes, fields: &FieldSet) -> Nodes {
    let mut taken = field_set::intersection(&changes.removed, fields.nodes());
    field_set::unite(&mut taken, changes.written.clone());
    taken
}

/// Refuses the conflicts that kubectl's own client-side apply does not explain.
fn settle_conflicts(
    shape: shape::Shape<'_>,
    live: &Value,
    writer: &Writer<'_>,
    conflicts: Conflicts<'_>,
) -> Result<(), ApiError> {
    let left = if writer.manager == last_applied::KUBECTL {
        conflicts.without(&last_applied::still_applied(shape, live))
    } else {
        conflicts
    };
    if left.is_empty() {
        Ok(())
    } else {
        Err(left.error())
    }
}

/// The managers before this write. A client may write them itself, or reset them with an empty
/// list or entry; what it left out or wrote wrongly is as it was. The list is taken out of `new`.
fn sent(live: Option<&Value>, new: &mut Value, writer: &Writer<'_>) -> Managers {
    let metadata = new.get_mut("metadata").and_then(Value::as_object_mut);
    let list = metadata.and_then(|metadata| metadata.remove("managedFields"));
    let old = live.map_or(&Value::Null, |live| &live["metadata"]["managedFields"]);
    let Some(list) = list.filter(|list| !list.is_null()) else {
        return Managers::stored(old.clone());
    };
    if list == *old {
        return Managers::stored(list);
    }
    if writer.subresource.is_some() {
        return Managers::stored(old.clone());
    }
    if list == json!([]) || list == json!([{}]) {
        return Managers::default();
    }
    match Managers::parse(&list) {
        Ok(managers) if !managers.is_empty() => managers,
        _ => Managers::stored(old.clone()),
    }
}

/// Two objects differ in the times of their managedFields at most.
fn is_same_but_times(new: &Value, old: &Value) -> bool {
    // Both have the same keys with the same values, but for one that is compared otherwise.
    fn same(new: &Value, old: &Value, key: &str, other: fn(&Value, &Value) -> bool) -> bool {
        let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
            return false;
        };
        let mut pairs = new.iter().zip(old);
        new.len() == old.len()
            && pairs.all(|((k, new), (l, old))| {
                k == l
                    && if k == key {
                        other(new, old)
                    } else {
                        new == old
                    }
            })
    }
    fn entries(new: &Value, old: &Value) -> bool {
        let (Some(new), Some(old)) = (new.as_array(), old.as_array()) else {
            return false;
        };
        let mut pairs = new.iter().zip(old);
        new.len() == old.len() && pairs.all(|(new, old)| same(new, old, "time", |_, _| true))
    }
    same(new, old, "metadata", |new, old| {
        same(new, old, "managedFields", entries)
    })
}

fn tracked(resource: &Resource, writer: &Writer<'_>) -> shape::Shape<'static> {
    shape::tracked(resource, writer.subresource)
}

fn empty() -> Value {
    Value::Object(Map::new())
}

/// The object without its managedFields.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
    }
    object
}

/// A name that a manager or subresource may have.
fn check_name(name: &str) -> Result<(), String> {
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("may not be more than {MAX_NAME_BYTES} bytes"));
    }
    match name.char_indices().find(|(_, c)| !is_printable(*c)) {
        None => Ok(()),
        Some((at, c)) => Err(format!(
            "invalid character U+{:04X} (at position {at})",
            u32::from(c)
        )),
    }
}

fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests;
