//! Namespaces: a `default` service account while they live, emptied and let go when they end. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::action::{Action, Create, Plan};
use super::controller::{Controller, Due, Watches};
use super::object::{Key, Object};
use super::world::{Address, Diff, World};
use client::Kind;

/// A namespace says what it still holds once it has been ending for so long: most are gone by then.
const PATIENCE: SignedDuration = SignedDuration::from_secs(2);

/// Keeps namespaces complete, and empties those that end. Its work is about a namespace.
pub struct NamespaceController;

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespaces"
    }

    fn account(&self) -> &'static str {
        "namespace-controller"
    }

    fn watches(&self) -> Watches {
        Watches::All
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let object = diff.object();
        if object.kind == Kind::NAMESPACE {
            due.insert((Kind::NAMESPACE, object.key.clone()));
        }
        let key = Key::new("", &object.key.namespace);
        if key.name.is_empty() {
            return;
        }
        let account_is_gone = object.kind == Kind::SERVICE_ACCOUNT && diff.new.is_none();
        let namespace = world.get(Kind::NAMESPACE, &key);
        let ends = namespace.is_some_and(|namespace| namespace.meta.deleting.is_some());
        if account_is_gone || ends {
            due.insert((Kind::NAMESPACE, key));
        }
    }

    fn plan(&mut self, world: &World, (_, key): &Address, now: Timestamp) -> Option<Plan> {
        gather(world, &key.name, now).map(|view| plan(&view))
    }
}

/// What a plan for one namespace is made from.
pub struct View<'a> {
    pub namespace: &'a Object,
    pub has_service_account: bool,
    pub holds: Vec<Held>,
    /// Kinds whose objects hold a namespace.
    pub kinds: Vec<Kind>,
    pub now: Timestamp,
}

/// The objects of one kind in a namespace that ends.
pub struct Held {
    pub kind: Kind,
    pub count: usize,
    /// Some of them are not yet on their way out.
    pub living: bool,
    /// How many each finalizer keeps.
    pub finalizers: BTreeMap<String, usize>,
}

/// Collects the view of the namespace `name`.
pub fn gather<'a>(world: &'a World, name: &str, now: Timestamp) -> Option<View<'a>> {
    let namespace = world.get(Kind::NAMESPACE, &Key::new("", name))?;
    let ends = namespace.meta.deleting.is_some();
    let kinds = world.watched().filter(|kind| ends && kind.namespaced);
    let kinds: Vec<Kind> = kinds.collect();
    let account = Key::new(name, "default");
    Some(View {
        namespace,
        has_service_account: world.get(Kind::SERVICE_ACCOUNT, &account).is_some(),
        holds: kinds
            .iter()
            .filter_map(|kind| held(world, *kind, name))
            .collect(),
        kinds,
        now,
    })
}

fn held(world: &World, kind: Kind, namespace: &str) -> Option<Held> {
    let mut held = Held {
        kind,
        count: 0,
        living: false,
        finalizers: BTreeMap::new(),
    };
    for object in world.within(kind, namespace) {
        held.count += 1;
        held.living |= object.meta.deleting.is_none();
        for finalizer in &object.meta.finalizers {
            *held.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
    (held.count > 0).then_some(held)
}

/// Empties a namespace that ends, and finalizes it once nothing is left in it.
pub fn plan(view: &View) -> Plan {
    let name = &view.namespace.key.name;
    let mut actions = Vec::new();
    let Some(deleting) = view.namespace.meta.deleting else {
        if !view.has_service_account {
            actions.push(create_account(name));
        }
        return Plan {
            actions,
            again: None,
        };
    };
    // Pods go first (KEP-5080): what protects them, a NetworkPolicy for one, outlives them.
    let pods_remain = view.holds.iter().any(|held| held.kind == Kind::POD);
    let is_next = |held: &&Held| held.living && (held.kind == Kind::POD || !pods_remain);
    for held in view.holds.iter().filter(is_next) {
        actions.push(Action::Empty {
            kind: held.kind,
            namespace: name.clone(),
        });
    }
    let row = view.namespace.as_namespace();
    let finalizers = row.map(|row| &row.spec_finalizers);
    let held = finalizers.is_some_and(|names| names.iter().any(|name| name == "kubernetes"));
    if view.holds.is_empty() && held {
        actions.push(Action::Empty {
            kind: Kind::EVENT,
            namespace: name.clone(),
        });
        let uid = view.namespace.meta.uid.clone();
        actions.push(Action::Finalize {
            namespace: name.clone(),
            uid,
            kinds: view.kinds.clone(),
        });
    }
    let mut again = None;
    if !view.holds.is_empty() {
        let patience = PATIENCE - view.now.duration_since(deleting);
        if patience.is_positive() {
            again = Some(patience);
        } else {
            actions.extend(tell_remaining(view));
        }
    }
    Plan { actions, again }
}

/// The conditions that say what keeps the namespace, where they do not say it yet.
fn tell_remaining(view: &View) -> Option<Action> {
    let remaining: Vec<String> = view.holds.iter().map(remaining).collect();
    let finalizers: Vec<String> = all_finalizers(&view.holds)
        .map(|(name, count)| format!("{name} in {count} resource instances"))
        .collect();
    let sentence = |list: &[String], some: &str, none: &str| match list {
        [] => none.to_owned(),
        list => format!("{some}: {}", list.join(", ")),
    };
    let content = sentence(
        &remaining,
        "Some resources are remaining",
        "All content successfully removed",
    );
    let kept = sentence(
        &finalizers,
        "Some content in the namespace has finalizers remaining",
        "All content-preserving finalizers finished",
    );
    let flag = |is_true: bool| if is_true { "True" } else { "False" };
    let wanted = [
        (
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            content,
        ),
        (
            "NamespaceFinalizersRemaining",
            flag(!finalizers.is_empty()),
            if finalizers.is_empty() {
                "ContentHasNoFinalizers"
            } else {
                "SomeFinalizersRemain"
            },
            kept,
        ),
    ];
    let row = view.namespace.as_namespace()?;
    let is_told = |(kind, status, _, message): &(&str, &str, &str, String)| {
        let said = |[k, s, m]: &[String; 3]| k == kind && s == status && m == message;
        row.conditions.iter().any(said)
    };
    if wanted.iter().all(is_told) {
        return None;
    }
    let now = api::meta::timestamp(view.now);
    let conditions: Vec<Value> = wanted
        .into_iter()
        .map(|(kind, status, reason, message)| {
            json!({"type": kind, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": now})
        })
        .collect();
    let body = json!({"status": {"conditions": conditions}});
    Some(Action::strategic(view.namespace, "status", body))
}

/// `pods. has 2 resource instances`, as Kubernetes says it.
fn remaining(held: &Held) -> String {
    let Kind { group, plural, .. } = held.kind;
    format!("{plural}.{group} has {} resource instances", held.count)
}

fn all_finalizers(holds: &[Held]) -> impl Iterator<Item = (&String, usize)> {
    let mut all: BTreeMap<&String, usize> = BTreeMap::new();
    for (name, count) in holds.iter().flat_map(|held| &held.finalizers) {
        *all.entry(name).or_default() += count;
    }
    all.into_iter()
}

fn create_account(namespace: &str) -> Action {
    let object = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": namespace},
    });
    Action::Create(Create {
        kind: Kind::SERVICE_ACCOUNT,
        namespace: namespace.to_owned(),
        object,
        if_absent: true,
        about: None,
    })
}

#[cfg(test)]
mod tests;
