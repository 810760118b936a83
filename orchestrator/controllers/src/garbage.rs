//! Garbage collection by owner: in the background, in the foreground, and orphaning. Pure.
//!
//! What is absent here may only be late: a deletion names the owners whose absence it rests on, and
//! the executor asks the server for them first.

use jiff::Timestamp;
use serde_json::json;

use super::action::{Action, Delete, Plan, drop_finalizer, owners_json, release};
use super::controller::{Controller, Due, Watches};
use super::object::{Key, Object, Owner};
use super::world::{Address, Diff, World};
use client::Kind;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// Collects what its owners leave behind. Its work is about any object.
pub struct GarbageController;

impl Controller for GarbageController {
    fn name(&self) -> &'static str {
        "garbage collector"
    }

    fn account(&self) -> &'static str {
        "generic-garbage-collector"
    }

    fn watches(&self) -> Watches {
        Watches::All
    }

    /// The object itself, what it owned, and an owner that waits for it.
    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let address = |object: &Object| (object.kind, object.key.clone());
        let dependents = |of: &Object| {
            let dependents = world.dependents(&of.meta.uid);
            dependents.map(|dependent| address(dependent))
        };
        match (&diff.old, &diff.new) {
            (Some(old), Some(new)) if !concerns_change(old, new) => return,
            (old, Some(new)) => {
                if concerns(new) {
                    due.insert(address(new));
                    if new.meta.deleting.is_some() {
                        due.extend(dependents(new));
                    }
                }
                // A replaced object of the same name leaves the dependents of the old one behind.
                let replaced = old.as_ref().filter(|old| old.meta.uid != new.meta.uid);
                due.extend(replaced.into_iter().flat_map(|old| dependents(old)));
            }
            (old, None) => due.extend(old.iter().flat_map(|old| dependents(old))),
        }
        for object in diff.versions() {
            let owners = object.meta.owners.iter();
            let owners = owners.filter_map(|owner| world.by_uid(&owner.uid));
            let going = owners.filter(|owner| owner.meta.deleting.is_some());
            due.extend(going.map(|owner| address(owner)));
        }
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, _now: Timestamp) -> Option<Plan> {
        gather(world, *kind, key).map(|view| plan(&view))
    }
}

fn concerns_change(old: &Object, new: &Object) -> bool {
    let of = |object: &Object| {
        let meta = &object.meta;
        (
            meta.owners.clone(),
            meta.finalizers.clone(),
            meta.deleting,
            meta.uid.clone(),
        )
    };
    of(old) != of(new)
}

/// What a plan for one object is made from.
pub struct View<'a> {
    pub object: &'a Object,
    pub owners: Vec<(&'a Owner, OwnerState)>,
    pub dependents: Vec<&'a Object>,
}

/// What is known of an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnerState {
    /// It exists, or its kind is not watched, so nothing can be said against it.
    Solid,
    /// It is going in the foreground and waits for this object.
    Waiting,
    /// It is not there; the row tells how to ask for it.
    Absent(Kind),
    /// It lives in another namespace, where it owns nothing of this one: as good as absent.
    Elsewhere(Kind),
}

/// Collects the view of the object at `kind`, `key`.
pub fn gather<'a>(world: &'a World, kind: Kind, key: &Key) -> Option<View<'a>> {
    let object = world.get(kind, key)?;
    let owners = object
        .meta
        .owners
        .iter()
        .map(|owner| (owner, state(world, object, owner)));
    Some(View {
        object,
        owners: owners.collect(),
        dependents: world
            .dependents(&object.meta.uid)
            .map(AsRef::as_ref)
            .collect(),
    })
}

/// Whether the collector has anything to say about the object at all.
pub fn concerns(object: &Object) -> bool {
    !object.meta.owners.is_empty()
        || object
            .meta
            .finalizers
            .iter()
            .any(|name| name == FOREGROUND || name == ORPHAN)
}

/// Deletes an object whose owners are gone; carries out what an ending owner's finalizers ask for.
pub fn plan(view: &View) -> Plan {
    let actions = if view.object.meta.deleting.is_some() {
        end(view)
    } else {
        attempt(view)
    };
    Plan {
        actions,
        again: None,
    }
}

fn state(world: &World, object: &Object, owner: &Owner) -> OwnerState {
    let Some(kind) = world.find(&owner.api_version, &owner.kind) else {
        return OwnerState::Solid;
    };
    match world.by_uid(&owner.uid) {
        None => OwnerState::Absent(kind),
        Some(known) if kind.namespaced && known.key.namespace != object.key.namespace => {
            OwnerState::Elsewhere(kind)
        }
        Some(known) => {
            if is_foreground(known) {
                OwnerState::Waiting
            } else {
                OwnerState::Solid
            }
        }
    }
}

fn attempt(view: &View) -> Vec<Action> {
    let solid = view
        .owners
        .iter()
        .any(|(_, state)| *state == OwnerState::Solid);
    let mut gone = Vec::new();
    let mut waiting = false;
    for (owner, state) in &view.owners {
        match state {
            OwnerState::Absent(kind) | OwnerState::Elsewhere(kind) => {
                let namespace = if kind.namespaced {
                    view.object.key.namespace.as_str()
                } else {
                    ""
                };
                gone.push((*kind, Key::new(namespace, &owner.name), owner.uid.clone()));
            }
            OwnerState::Waiting => waiting = true,
            OwnerState::Solid => {}
        }
    }
    if view.owners.is_empty() || (gone.is_empty() && !waiting) {
        return Vec::new();
    }
    if solid {
        // Some owner still wants it: only the references of those that go are taken off.
        let going = view
            .owners
            .iter()
            .filter(|(_, state)| *state == OwnerState::Waiting);
        return going
            .map(|(owner, _)| release(view.object, &owner.uid))
            .collect();
    }
    let propagation = if waiting && !view.dependents.is_empty() {
        "Foreground"
    } else if has(view.object, ORPHAN) {
        "Orphan"
    } else if has(view.object, FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    };
    let strangers = view.owners.iter().filter_map(|(owner, state)| match state {
        OwnerState::Elsewhere(_) => Some(tell_elsewhere(view.object, owner)),
        _ => None,
    });
    let mut actions: Vec<Action> = strangers.collect();
    if waiting && view.dependents.iter().any(|it| is_foreground(it)) {
        // The owners wait for each other: this object lets go of its own.
        actions.push(unblock(view.object));
    }
    actions.push(Action::Delete(Delete {
        propagation: Some(propagation),
        unless_any: gone,
        ..Delete::of(view.object)
    }));
    actions
}

/// Being deleted, and waiting for its dependents.
fn is_foreground(object: &Object) -> bool {
    object.meta.deleting.is_some() && has(object, FOREGROUND)
}

/// No owner waits for the object any more.
fn unblock(object: &Object) -> Action {
    let mut owners = object.meta.owners.clone();
    owners.iter_mut().for_each(|owner| owner.blocks = false);
    let body = json!({"metadata": {"ownerReferences": owners_json(&owners)}});
    Action::merge(object, "", body)
}

fn tell_elsewhere(object: &Object, owner: &Owner) -> Action {
    let Owner {
        api_version,
        kind,
        name,
        uid,
        ..
    } = owner;
    let namespace = &object.key.namespace;
    let message = format!(
        "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not \
         exist in namespace {namespace:?}"
    );
    Action::warning(object, "OwnerRefInvalidNamespace", message)
}

/// The object is on its way out and its finalizers concern its dependents.
fn end(view: &View) -> Vec<Action> {
    let uid = &view.object.meta.uid;
    if has(view.object, ORPHAN) {
        let mut actions: Vec<Action> = view
            .dependents
            .iter()
            .map(|dependent| release(dependent, uid))
            .collect();
        actions.push(drop_finalizer(view.object, ORPHAN));
        return actions;
    }
    if !has(view.object, FOREGROUND) {
        return Vec::new();
    }
    let blocking = view.dependents.iter().filter(|dependent| {
        dependent
            .meta
            .owners
            .iter()
            .any(|owner| owner.uid == *uid && owner.blocks)
    });
    if blocking.count() == 0 {
        return vec![drop_finalizer(view.object, FOREGROUND)];
    }
    Vec::new()
}

fn has(object: &Object, finalizer: &str) -> bool {
    object.meta.finalizers.iter().any(|name| name == finalizer)
}

#[cfg(test)]
mod tests;
