//! Namespaces: a `default` service account while they live, emptied and let go when they end. Pure.

use serde_json::json;

use super::action::{Action, Create, Plan};
use super::object::{Key, Object};
use super::world::World;
use client::Kind;

/// What a plan for one namespace is made from.
pub struct View<'a> {
    pub namespace: &'a Object,
    pub has_service_account: bool,
    /// The kinds of which the namespace holds something, and whether any of it is not yet on its
    /// way out.
    pub holds: Vec<(Kind, bool)>,
}

/// Collects the view of the namespace `name`.
pub fn gather<'a>(world: &'a World, name: &str) -> Option<View<'a>> {
    let namespace = world.get(Kind::NAMESPACE, &Key::new("", name))?;
    let mut holds = Vec::new();
    if namespace.meta.deleting.is_some() {
        for kind in Kind::watched()
            .iter()
            .copied()
            .filter(|kind| kind.namespaced)
        {
            let mut objects = world.within(kind, name).peekable();
            if objects.peek().is_some() {
                holds.push((kind, objects.any(|object| object.meta.deleting.is_none())));
            }
        }
    }
    let account = Key::new(name, "default");
    Some(View {
        namespace,
        has_service_account: world.get(Kind::SERVICE_ACCOUNT, &account).is_some(),
        holds,
    })
}

/// Empties a namespace that ends, and finalizes it once nothing is left in it.
pub fn plan(view: &View) -> Plan {
    let name = &view.namespace.key.name;
    let mut actions = Vec::new();
    if view.namespace.meta.deleting.is_none() {
        if !view.has_service_account {
            actions.push(create_account(name));
        }
        return Plan {
            actions,
            again: None,
        };
    }
    for (kind, _) in view.holds.iter().filter(|(_, living)| *living) {
        actions.push(Action::Empty {
            kind: *kind,
            namespace: name.clone(),
        });
    }
    let finalizers = view
        .namespace
        .as_namespace()
        .map(|row| &row.spec_finalizers);
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
        });
    }
    Plan {
        actions,
        again: None,
    }
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
