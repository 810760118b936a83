//! Which objects select which, kept as selectors and labels change, so that an event of a pod finds the
//! Services and sets that it concerns without asking any other. Pure.
//!
//! ```text
//! selector a=1,b=2  ──filed under──▶  (namespace, b, 2)     the rarest pair that it demands
//! pod      a=1,b=2  ──looks under──▶  (namespace, a, 1), (namespace, b, 2)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::object::{Key, Object};
use super::shelf::{Address, Shelves};
use api::selector::{LabelSelector, Operator};
use client::Kind;

/// Which kind selects objects of which other kind, and whether only those that no object controls.
const RULES: &[(Kind, Kind, bool)] = &[
    (Kind::SERVICE, Kind::POD, false),
    (Kind::REPLICA_SET, Kind::POD, true),
    (Kind::REPLICATION_CONTROLLER, Kind::POD, true),
    (Kind::DEPLOYMENT, Kind::REPLICA_SET, true),
    (Kind::JOB, Kind::POD, true),
    (Kind::DISRUPTION_BUDGET, Kind::POD, false),
    (Kind::STATEFUL_SET, Kind::POD, true),
    (Kind::DAEMON_SET, Kind::POD, true),
];

/// Namespace, key and value of a label.
type Pair = (String, String, String);

/// All selectors, and what they select.
#[derive(Default)]
pub struct Selections {
    /// A selector is filed under one key and all values of it that it takes.
    filed: BTreeMap<Pair, BTreeSet<Address>>,
    /// Those that demand no value of any label, by namespace.
    unfiled: BTreeMap<String, BTreeSet<Address>>,
    selectors: BTreeMap<Address, Selecting>,
    members: BTreeMap<Address, BTreeSet<Key>>,
    /// What nothing controls, of the kinds of which only that is selected, by namespace.
    orphans: BTreeMap<(Kind, String), BTreeSet<Key>>,
    /// New selectors whose members are not known yet.
    unscanned: BTreeSet<Address>,
}

struct Selecting {
    selector: LabelSelector,
    /// Where it is filed; nowhere: among the unfiled.
    pairs: Vec<Pair>,
}

impl Selections {
    /// Takes in that an object has changed. What a new selector selects is known after the next `scan`.
    pub fn change(&mut self, old: Option<&Object>, new: Option<&Object>) {
        let same = |a: &Object, b: &Object| {
            a.meta.labels == b.meta.labels && a.controller().is_none() == b.controller().is_none()
        };
        if !old.zip(new).is_some_and(|(old, new)| same(old, new)) {
            self.change_member(old, new);
        }
        let selector = |object: Option<&Object>| object.and_then(Object::selector);
        let (before, now) = (selector(old), selector(new));
        if before == now {
            return;
        }
        if let Some(old) = old {
            self.drop_selector(&address(old));
        }
        if let (Some(object), Some(selector)) = (new, now) {
            self.add_selector(object, selector);
        }
    }

    /// Finds the members of new selectors, those of a namespace together.
    pub fn scan(&mut self, shelves: &Shelves) {
        let mut groups: BTreeMap<(Kind, bool, String), BTreeSet<Address>> = BTreeMap::new();
        for address in std::mem::take(&mut self.unscanned) {
            if let Some((_, what, orphans)) = RULES.iter().find(|(by, ..)| *by == address.0) {
                let of = (*what, *orphans, address.1.namespace.clone());
                groups.entry(of).or_default().insert(address);
            }
        }
        for ((what, orphans, namespace), new) in groups {
            let objects: Vec<&Object> = if orphans {
                let keys = self.orphans.get(&(what, namespace)).into_iter().flatten();
                let objects = keys.filter_map(|key| shelves.get(what, key));
                objects.map(AsRef::as_ref).collect()
            } else {
                let objects = shelves.within(what, &namespace);
                objects.map(AsRef::as_ref).collect()
            };
            for object in objects {
                for address in self.selecting_among(object, &new) {
                    let members = self.members.entry(address).or_default();
                    members.insert(object.key.clone());
                }
            }
        }
    }

    /// Those of `new` that select the object.
    fn selecting_among(&self, object: &Object, new: &BTreeSet<Address>) -> Vec<Address> {
        if new.len() > 1 {
            let all = self.selecting(object).into_iter();
            return all.filter(|address| new.contains(address)).collect();
        }
        let selects = |address: &&Address| {
            let selector = self.selectors.get(*address);
            selector.is_some_and(|it| it.selector.matches(&object.meta.labels))
        };
        new.iter().filter(selects).cloned().collect()
    }

    /// The objects that select this one.
    pub fn selecting(&self, object: &Object) -> BTreeSet<Address> {
        self.selecting_as(object, object.kind)
    }

    /// The same, of an object that is selected like one of another kind.
    pub fn selecting_as(&self, object: &Object, what: Kind) -> BTreeSet<Address> {
        let Key { namespace, .. } = &object.key;
        let labels = object.meta.labels.iter();
        let pairs = labels.map(|(key, value)| (namespace.clone(), key.clone(), value.clone()));
        let filed = pairs.filter_map(|pair| self.filed.get(&pair));
        let found = filed.chain(self.unfiled.get(namespace)).flatten();
        let selects = |address: &&Address| {
            let rule = RULES
                .iter()
                .find(|(by, of, _)| *by == address.0 && *of == what);
            let selector = self.selectors.get(*address);
            rule.is_some_and(|(.., orphans)| !orphans || object.controller().is_none())
                && selector.is_some_and(|it| it.selector.matches(&object.meta.labels))
        };
        found.filter(selects).cloned().collect()
    }

    /// The kind that objects of a kind select.
    pub fn selected_by(kind: Kind) -> Option<Kind> {
        let rule = RULES.iter().find(|(by, ..)| *by == kind);
        rule.map(|(_, what, _)| *what)
    }

    /// What an object selects, in the order of keys.
    pub fn members<'a>(&'a self, of: &Address) -> impl Iterator<Item = &'a Key> + use<'a> {
        self.members.get(of).into_iter().flatten()
    }

    /// What nothing controls of a kind in a namespace: of pods, sets and revisions.
    pub fn orphans<'a>(
        &'a self,
        kind: Kind,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Key> + use<'a> {
        let keys = self.orphans.get(&(kind, namespace.to_owned()));
        keys.into_iter().flatten()
    }

    fn change_member(&mut self, old: Option<&Object>, new: Option<&Object>) {
        if let Some(object) = old {
            if let Some(place) = orphan(object) {
                take(&mut self.orphans, &place, &object.key);
            }
            for address in self.selecting(object) {
                if let Some(members) = self.members.get_mut(&address) {
                    members.remove(&object.key);
                }
            }
        }
        if let Some(object) = new {
            if let Some(place) = orphan(object) {
                let orphans = self.orphans.entry(place).or_default();
                orphans.insert(object.key.clone());
            }
            for address in self.selecting(object) {
                let members = self.members.entry(address).or_default();
                members.insert(object.key.clone());
            }
        }
    }

    fn add_selector(&mut self, object: &Object, selector: LabelSelector) {
        let (address, namespace) = (address(object), &object.key.namespace);
        let pairs = self.rarest(namespace, &selector);
        for pair in &pairs {
            let filed = self.filed.entry(pair.clone()).or_default();
            filed.insert(address.clone());
        }
        if pairs.is_empty() {
            let unfiled = self.unfiled.entry(namespace.clone()).or_default();
            unfiled.insert(address.clone());
        }
        self.unscanned.insert(address.clone());
        let selecting = Selecting { selector, pairs };
        self.selectors.insert(address, selecting);
    }

    fn drop_selector(&mut self, address: &Address) {
        let Some(selecting) = self.selectors.remove(address) else {
            return;
        };
        self.members.remove(address);
        self.unscanned.remove(address);
        for pair in &selecting.pairs {
            take(&mut self.filed, pair, address);
        }
        if selecting.pairs.is_empty() {
            take(&mut self.unfiled, &address.1.namespace, address);
        }
    }

    /// The label that the selector demands under which the fewest others are filed, with the values that it
    /// may have.
    fn rarest(&self, namespace: &str, selector: &LabelSelector) -> Vec<Pair> {
        let demands = selector.requirements().iter();
        let demands = demands.filter(|requirement| requirement.operator == Operator::In);
        let pairs = demands.map(|requirement| -> Vec<Pair> {
            let (namespace, key) = (namespace.to_owned(), requirement.key.clone());
            let values = requirement.values.iter();
            values
                .map(|value| (namespace.clone(), key.clone(), value.clone()))
                .collect()
        });
        let filed = |pair: &Pair| self.filed.get(pair).map_or(0, BTreeSet::len);
        pairs
            .min_by_key(|pairs| pairs.iter().map(filed).sum::<usize>())
            .unwrap_or_default()
    }
}

fn address(object: &Object) -> Address {
    (object.kind, object.key.clone())
}

/// Where an object is kept that may be selected because nothing controls it.
fn orphan(object: &Object) -> Option<(Kind, String)> {
    let mut rules = RULES.iter();
    let counts = object.kind == Kind::CONTROLLER_REVISION
        || rules.any(|(_, what, orphans)| *orphans && *what == object.kind);
    let is_one = counts && object.controller().is_none();
    is_one.then(|| (object.kind, object.key.namespace.clone()))
}

/// Removes one member of a set in a map of sets, and the set with its last.
pub fn take<K: Ord, T: Ord>(map: &mut BTreeMap<K, BTreeSet<T>>, key: &K, member: &T) {
    if let Some(set) = map.get_mut(key) {
        set.remove(member);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{object, world};
    use crate::world::{Change, World};

    fn service(name: &str, selector: Value) -> (Kind, Value) {
        let value = json!({"metadata": {"name": name}, "spec": {"selector": selector}});
        (Kind::SERVICE, value)
    }

    fn pod(name: &str, revision: u64, labels: Value) -> Value {
        let revision = revision.to_string();
        json!({"metadata": {"name": name, "labels": labels, "resourceVersion": revision}})
    }

    fn members(world: &World, of: &(Kind, Value)) -> Vec<String> {
        let key = object(of.0, of.1.clone()).key;
        let members = world.selected(of.0, &key);
        members.map(|object| object.key.name.clone()).collect()
    }

    #[test]
    fn members_follow_labels_and_selectors() {
        let web = service("web", json!({"app": "web"}));
        let both = service("both", json!({"app": "web", "tier": "front"}));
        let first = (Kind::POD, pod("a", 1, json!({"app": "web"})));
        let second = (
            Kind::POD,
            pod("b", 1, json!({"app": "web", "tier": "front"})),
        );
        let mut world = world([web.clone(), first, both.clone(), second]);
        assert_eq!(members(&world, &web), ["a", "b"]);
        assert_eq!(members(&world, &both), ["b"]);
        let moved = pod("b", 2, json!({"app": "db", "tier": "front"}));
        world.apply(Change::Upsert(object(Kind::POD, moved)));
        assert_eq!(members(&world, &web), ["a"]);
        assert!(members(&world, &both).is_empty());
        let (_, mut other) = both.clone();
        other["metadata"]["resourceVersion"] = "2".into();
        other["spec"]["selector"] = json!({"app": "db"});
        world.apply(Change::Upsert(object(Kind::SERVICE, other)));
        assert_eq!(members(&world, &both), ["b"]);
    }

    #[test]
    fn sets_select_what_nothing_controls() {
        let set = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchExpressions": [
            {"key": "app", "operator": "In", "values": ["a", "b"]}]}}});
        let set = (Kind::REPLICA_SET, set);
        let mut owned = pod("owned", 1, json!({"app": "a"}));
        owned["metadata"]["ownerReferences"] =
            crate::fixture::controlled_by(Kind::REPLICA_SET, "other");
        let orphan = pod("orphan", 1, json!({"app": "b"}));
        let objects = [set.clone(), (Kind::POD, owned), (Kind::POD, orphan)];
        assert_eq!(members(&world(objects), &set), ["orphan"]);
    }

    #[test]
    fn a_selector_without_values_is_found_as_well() {
        let set = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchExpressions": [
            {"key": "app", "operator": "Exists"}]}}});
        let orphan = object(Kind::POD, pod("orphan", 1, json!({"app": "b"})));
        let world = world([(Kind::REPLICA_SET, set)]);
        assert_eq!(world.selecting(&orphan).len(), 1);
        let other = object(Kind::POD, pod("other", 1, json!({"tier": "b"})));
        assert!(world.selecting(&other).is_empty());
    }
}
