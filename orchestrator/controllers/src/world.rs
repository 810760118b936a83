//! All objects that controllers know, with the indexes that plans need. Fed by watches and by the
//! answers to own writes, so that a plan always sees what earlier plans did. Pure.
//!
//! Every object carries a revision of one global order. Each kind remembers how far its watch has
//! come; an answer to a write that the watch has already passed is dropped, so nothing deleted
//! meanwhile comes back, and a list that is older than an own write does not undo it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::object::{Key, Object, PodRow};
use super::selections::{Selections, take};
pub use super::shelf::Address;
use super::shelf::Shelves;
use client::Kind;

/// One delivery of a watch.
#[derive(Clone, Debug)]
pub enum Change {
    Snapshot {
        kind: Kind,
        objects: Vec<Object>,
        revision: u64,
    },
    Upsert(Object),
    Delete(Object),
}

impl Change {
    fn kind(&self) -> Kind {
        match self {
            Self::Snapshot { kind, .. } => *kind,
            Self::Upsert(object) | Self::Delete(object) => object.kind,
        }
    }
}

/// One object's change as it took effect.
#[derive(Clone, Debug)]
pub struct Diff {
    pub old: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
}

impl Diff {
    /// The object as it is, or was.
    pub fn object(&self) -> &Object {
        let object = self.new.as_ref().or(self.old.as_ref());
        object.expect("a change has an old object or a new one")
    }

    /// The object as it was, and as it is.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Object>> {
        [&self.old, &self.new].into_iter().flatten()
    }
}

/// The objects, by kind.
#[derive(Default)]
pub struct World {
    shelves: Shelves,
    dependents: BTreeMap<String, BTreeSet<Address>>,
    by_uid: BTreeMap<String, Address>,
    pods_on: BTreeMap<String, BTreeSet<Key>>,
    /// The custom kinds of established definitions.
    custom: BTreeSet<Kind>,
    /// Those that are no more; a watch may still deliver what it had read before.
    forgotten: BTreeSet<Kind>,
    finished: BTreeSet<Key>,
    selections: Selections,
    /// Objects that were looked at.
    #[cfg(test)]
    pub visits: std::cell::Cell<usize>,
}

impl World {
    /// Whether the watch of every one of `kinds` has delivered its snapshot.
    pub fn in_sync(&self, kinds: &[Kind]) -> bool {
        kinds
            .iter()
            .all(|kind| self.shelves.kind(*kind).is_some_and(|shelf| shelf.listed))
    }

    /// Takes in what a watch delivered.
    pub fn apply(&mut self, change: Change) -> Vec<Diff> {
        if self.forgotten.contains(&change.kind()) {
            return Vec::new();
        }
        let diffs = match change {
            Change::Snapshot {
                kind,
                objects,
                revision,
            } => self.replace(kind, objects, revision),
            Change::Upsert(object) => {
                let shelf = self.shelves.kind_mut(object.kind);
                shelf.seen = shelf.seen.max(object.meta.revision);
                self.upsert(object).into_iter().collect()
            }
            Change::Delete(object) => {
                let shelf = self.shelves.kind_mut(object.kind);
                shelf.seen = shelf.seen.max(object.meta.revision);
                let known = shelf.objects.get(&object.key);
                let same = known.is_some_and(|known| {
                    known.meta.uid == object.meta.uid || known.meta.revision < object.meta.revision
                });
                let diff = if same {
                    self.remove(object.kind, &object.key)
                } else {
                    None
                };
                diff.into_iter().collect()
            }
        };
        self.selections.scan(&self.shelves);
        diffs
    }

    /// Every kind whose objects are owned, own, or hold a namespace.
    pub fn watched(&self) -> impl Iterator<Item = Kind> {
        Kind::watched().iter().chain(&self.custom).copied()
    }

    /// The custom kinds among them.
    pub fn custom(&self) -> &BTreeSet<Kind> {
        &self.custom
    }

    /// The kind that an owner reference names, where it is one that is watched. A custom kind has the
    /// same objects in every version.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<Kind> {
        let (group, _) = api_version.split_once('/').unwrap_or_default();
        let mut custom = self.custom.iter();
        let custom = custom.find(|row| row.group == group && row.kind == kind);
        Kind::find(api_version, kind).or(custom.copied())
    }

    /// Forgets the objects of a kind that is served no more.
    pub fn forget(&mut self, kind: Kind) -> Vec<Diff> {
        let keys = self.shelves.kind(kind).into_iter();
        let keys: Vec<Key> = keys
            .flat_map(|shelf| shelf.objects.keys().cloned())
            .collect();
        let diffs = keys
            .iter()
            .filter_map(|key| self.remove(kind, key))
            .collect();
        self.shelves.remove(kind);
        self.forgotten.insert(kind);
        diffs
    }

    /// Takes in the answer to an own write, unless the watch is already past it.
    pub fn assume(&mut self, object: Object) -> Option<Diff> {
        let seen = self.shelves.kind(object.kind);
        let seen = seen.map_or(0, |shelf| shelf.seen);
        if object.meta.revision <= seen {
            return None;
        }
        let diff = self.upsert(object);
        self.selections.scan(&self.shelves);
        diff
    }

    /// Forgets an object that an own delete removed at once.
    pub fn assume_gone(&mut self, kind: Kind, key: &Key, uid: &str) -> Option<Diff> {
        let known = self.get(kind, key)?;
        if known.meta.uid == uid {
            self.remove(kind, key)
        } else {
            None
        }
    }

    pub fn get(&self, kind: Kind, key: &Key) -> Option<&Arc<Object>> {
        self.visit();
        self.shelves.get(kind, key)
    }

    pub fn by_uid(&self, uid: &str) -> Option<&Arc<Object>> {
        let (kind, key) = self.by_uid.get(uid)?;
        self.get(*kind, key)
    }

    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        let shelf = self.shelves.kind(kind).into_iter();
        shelf
            .flat_map(|shelf| shelf.objects.values())
            .inspect(|_| self.visit())
    }

    /// The objects of `kind` in one namespace.
    pub fn within<'a, 'n>(
        &'a self,
        kind: Kind,
        namespace: &'n str,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a, 'n> {
        let objects = self.shelves.within(kind, namespace);
        objects.inspect(|_| self.visit())
    }

    /// The objects that the object's selector selects: pods of a Service; of what has a controller or may
    /// get one, those without.
    pub fn selected<'a>(
        &'a self,
        kind: Kind,
        key: &Key,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let what = Selections::selected_by(kind);
        let members = self.selections.members(&(kind, key.clone()));
        let members = members.zip(std::iter::repeat(what));
        members.filter_map(|(key, what)| self.get(what?, key))
    }

    /// The objects whose selectors select this one.
    pub fn selecting(&self, object: &Object) -> BTreeSet<Address> {
        self.selections.selecting(object)
    }

    /// What would select the object if it were of another kind.
    pub fn selecting_as(&self, object: &Object, what: Kind) -> BTreeSet<Address> {
        self.selections.selecting_as(object, what)
    }

    /// What the object controls and what it may come to control, in the order of keys.
    pub fn claimable<'a>(&'a self, object: &Object) -> Vec<&'a Object> {
        let what = Selections::selected_by(object.kind);
        let own = self.dependents(&object.meta.uid);
        let own = own.filter(|it| Some(it.kind) == what);
        let orphans = self.selected(object.kind, &object.key);
        let mut all: Vec<&Object> = own.chain(orphans).map(AsRef::as_ref).collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all.dedup_by(|a, b| a.key == b.key);
        all
    }

    /// The revisions in a namespace that nothing controls.
    pub fn orphaned_revisions<'a>(
        &'a self,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let kind = Kind::CONTROLLER_REVISION;
        let keys = self.selections.orphans(kind, namespace);
        keys.filter_map(move |key| self.get(kind, key))
    }

    /// Pods that will not run again.
    pub fn finished_pods(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.finished.iter()
    }

    pub fn pods_on<'a>(&'a self, node: &str) -> Vec<(&'a Object, &'a PodRow)> {
        let keys = self.pods_on.get(node).into_iter().flatten();
        let pods = keys.filter_map(|key| self.get(Kind::POD, key));
        pods.filter_map(|object| Some((object.as_ref(), object.as_pod()?)))
            .collect()
    }

    /// The names that pods give for their nodes.
    pub fn nodes_of_pods(&self) -> impl Iterator<Item = &String> {
        self.pods_on.keys()
    }

    /// The objects that name `uid` among their owners.
    pub fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let addresses = self.dependents.get(uid).into_iter().flatten();
        addresses.filter_map(|(kind, key)| self.get(*kind, key))
    }

    /// Whether anything that is watched still lives in `namespace`.
    pub fn holds_any(&self, namespace: &str) -> bool {
        self.shelves
            .kinds()
            .any(|kind| kind.namespaced && self.within(*kind, namespace).next().is_some())
    }

    fn replace(&mut self, kind: Kind, objects: Vec<Object>, revision: u64) -> Vec<Diff> {
        let shelf = self.shelves.kind_mut(kind);
        let known: BTreeMap<Key, u64> = shelf
            .objects
            .iter()
            .map(|(key, object)| (key.clone(), object.meta.revision))
            .collect();
        let keep: BTreeSet<Key> = objects.iter().map(|object| object.key.clone()).collect();
        let mut diffs = Vec::new();
        for (key, known_revision) in known {
            if !keep.contains(&key) && known_revision <= revision {
                diffs.extend(self.remove(kind, &key));
            }
        }
        for object in objects {
            diffs.extend(self.upsert(object));
        }
        let shelf = self.shelves.kind_mut(kind);
        shelf.seen = shelf.seen.max(revision);
        shelf.listed = true;
        diffs
    }

    fn upsert(&mut self, object: Object) -> Option<Diff> {
        let (kind, key) = (object.kind, object.key.clone());
        let old = self.get(kind, &key).cloned();
        if old
            .as_ref()
            .is_some_and(|old| old.meta.revision >= object.meta.revision)
        {
            return None;
        }
        if let Some(old) = &old {
            self.unindex(old);
        }
        let new = Arc::new(object);
        self.index(&new);
        let shelf = self.shelves.kind_mut(kind);
        shelf.objects.insert(key, new.clone());
        self.selections.change(old.as_deref(), Some(&new));
        Some(Diff {
            old,
            new: Some(new),
        })
    }

    fn remove(&mut self, kind: Kind, key: &Key) -> Option<Diff> {
        let old = self.shelves.kind_mut(kind).objects.remove(key)?;
        self.unindex(&old);
        self.selections.change(Some(&old), None);
        Some(Diff {
            old: Some(old),
            new: None,
        })
    }

    /// Counts the objects that are looked at, for tests of what an event costs.
    fn visit(&self) {
        #[cfg(test)]
        self.visits.set(self.visits.get() + 1);
    }

    fn index(&mut self, object: &Object) {
        let address = (object.kind, object.key.clone());
        self.by_uid.insert(object.meta.uid.clone(), address.clone());
        if let Some(kind) = object.as_definition() {
            self.custom.insert(kind);
            self.forgotten.remove(&kind);
        }
        for owner in &object.meta.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(address.clone());
        }
        if object.as_pod().is_some_and(PodRow::finished) {
            self.finished.insert(object.key.clone());
        }
        if let Some(pod) = object.as_pod().filter(|pod| !pod.node.is_empty()) {
            self.pods_on
                .entry(pod.node.clone())
                .or_default()
                .insert(object.key.clone());
        }
    }

    fn unindex(&mut self, object: &Object) {
        let address = (object.kind, object.key.clone());
        if self.by_uid.get(&object.meta.uid) == Some(&address) {
            self.by_uid.remove(&object.meta.uid);
        }
        for owner in &object.meta.owners {
            take(&mut self.dependents, &owner.uid, &address);
        }
        if let Some(kind) = object.as_definition() {
            self.custom.remove(&kind);
        }
        if let Some(pod) = object.as_pod() {
            self.finished.remove(&object.key);
            take(&mut self.pods_on, &pod.node, &object.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Body, Meta, Owner};

    fn object(name: &str, uid: &str, revision: u64) -> Object {
        let meta = Meta {
            uid: uid.to_owned(),
            revision,
            ..Meta::default()
        };
        Object {
            kind: Kind::POD,
            key: Key::new("ns", name),
            meta,
            body: Body::Bare,
        }
    }

    fn known(world: &World) -> Vec<(String, u64)> {
        let pods = world.all(Kind::POD);
        pods.map(|object| (object.meta.uid.clone(), object.meta.revision))
            .collect()
    }

    #[test]
    fn an_older_event_does_not_undo_an_own_write() {
        let mut world = World::default();
        world.assume(object("a", "1", 7));
        assert!(world.apply(Change::Upsert(object("a", "1", 5))).is_empty());
        assert_eq!(known(&world), [("1".to_owned(), 7)]);
    }

    #[test]
    fn a_late_answer_does_not_bring_back_what_was_deleted() {
        let mut world = World::default();
        world.apply(Change::Upsert(object("a", "1", 5)));
        world.apply(Change::Delete(object("a", "1", 8)));
        assert!(world.assume(object("a", "1", 5)).is_none());
        assert!(known(&world).is_empty());
    }

    #[test]
    fn a_list_keeps_own_writes_that_are_newer_and_drops_what_is_gone() {
        let mut world = World::default();
        world.apply(Change::Upsert(object("old", "1", 3)));
        world.assume(object("mine", "2", 9));
        let snapshot = Change::Snapshot {
            kind: Kind::POD,
            objects: vec![object("b", "3", 4)],
            revision: 6,
        };
        assert_eq!(world.apply(snapshot).len(), 2);
        assert_eq!(known(&world), [("3".to_owned(), 4), ("2".to_owned(), 9)]);
        assert!(world.in_sync(&[Kind::POD]));
    }

    #[test]
    fn a_custom_kind_is_watched_as_long_as_its_definition_is_established() {
        let web = Kind::custom("example.com", "v1", "Web", "webs", true);
        let of = |kind: Kind, body: Body, revision: u64| Object {
            kind,
            body,
            ..object("a", &format!("{}-{revision}", kind.plural), revision)
        };
        let mut world = World::default();
        let definition = |served| of(Kind::DEFINITION, Body::Definition(served), 1);
        world.apply(Change::Upsert(definition(None)));
        assert!(world.custom().is_empty());
        let mut established = definition(Some(web));
        established.meta.revision = 2;
        world.apply(Change::Upsert(established.clone()));
        assert_eq!(world.find("example.com/v2", "Web"), Some(web));
        assert_eq!(world.find("apps/v1", "Deployment"), Some(Kind::DEPLOYMENT));
        world.apply(Change::Upsert(of(web, Body::Bare, 3)));
        assert_eq!(world.within(web, "ns").count(), 1);
        established.meta.revision = 4;
        world.apply(Change::Delete(established));
        assert_eq!(world.forget(web).len(), 1);
        world.apply(Change::Upsert(of(web, Body::Bare, 5)));
        assert_eq!(
            (
                world.within(web, "ns").count(),
                world.find("example.com/v1", "Web")
            ),
            (0, None)
        );
    }

    #[test]
    fn dependents_follow_owner_references() {
        let mut world = World::default();
        let mut child = object("child", "2", 2);
        child.meta.owners.push(Owner {
            uid: "1".to_owned(),
            ..Owner::default()
        });
        world.apply(Change::Upsert(child));
        assert_eq!(world.dependents("1").count(), 1);
        world.apply(Change::Upsert(object("child", "2", 3)));
        assert_eq!(world.dependents("1").count(), 0);
    }
}
