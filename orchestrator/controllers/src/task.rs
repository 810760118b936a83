//! Which tasks a change makes due. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::garbage;
use super::object::{Key, Object};
use super::service::{load_balancer, selection};
use super::world::{Diff, World};
use client::Kind;

/// One unit of work of one controller. A task never runs twice at a time. What one change makes due is
/// done in this order: clients wait for endpoints.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Task {
    Slices(Key),
    Set(Kind, Key),
    Deployment(Key),
    Endpoints(Key),
    /// Endpoints of the Service's name, mirrored to slices.
    Mirror(Key),
    /// What is said about a Service's ports of SCTP.
    Sctp(Key),
    LoadBalancers,
    PodCidr(String),
    Node(String),
    Namespace(String),
    Collect(Kind, Key),
    /// The pods of a node that is not there.
    PodGc(String),
    FinishedPods,
}

/// Adds the tasks that `diff` makes due, given the world after it.
pub fn tasks(world: &World, diff: &Diff, due: &mut BTreeSet<Task>) {
    let Some(object) = diff.new.as_ref().or(diff.old.as_ref()) else {
        return;
    };
    let key = object.key.clone();
    match object.kind {
        Kind::POD => pod(world, diff, due),
        Kind::REPLICA_SET => {
            due.insert(Task::Set(object.kind, key));
            each(diff, |set| deployments_of(world, set, due));
        }
        Kind::REPLICATION_CONTROLLER => {
            due.insert(Task::Set(object.kind, key));
        }
        Kind::DEPLOYMENT => {
            due.insert(Task::Deployment(key));
        }
        Kind::SERVICE => service(diff, key, due),
        Kind::ENDPOINT_SLICE => {
            let name = object.meta.labels.get(super::service::slices::SERVICE_NAME);
            let key = name.map(|name| Key::new(&key.namespace, name));
            due.extend(key.clone().map(Task::Slices));
            due.extend(key.map(Task::Mirror));
        }
        Kind::ENDPOINTS => {
            // Without a Service they are someone's who is about to create it.
            if world.get(Kind::SERVICE, &key).is_some() {
                due.insert(Task::Endpoints(key.clone()));
            }
            due.insert(Task::Mirror(key));
        }
        Kind::NODE => node(world, diff, due),
        Kind::NAMESPACE => {
            due.insert(Task::Namespace(key.name));
        }
        Kind::SERVICE_ACCOUNT if diff.new.is_none() => {
            due.insert(Task::Namespace(key.namespace.clone()));
        }
        _ => {}
    }
    ownership(world, diff, object, due);
    ending_namespace(world, object, due);
}

fn each(diff: &Diff, mut f: impl FnMut(&Object)) {
    for object in [&diff.old, &diff.new].into_iter().flatten() {
        f(object);
    }
}

fn pod(world: &World, diff: &Diff, due: &mut BTreeSet<Task>) {
    each(diff, |pod| {
        sets_of(world, pod, due);
        if let Some(row) = pod.as_pod().filter(|row| !row.node.is_empty()) {
            let node = world.get(Kind::NODE, &Key::new("", &row.node));
            match node.and_then(|node| node.as_node()) {
                None => {
                    due.insert(Task::PodGc(row.node.clone()));
                }
                Some(row_of_node)
                    if row_of_node.ready != "True" || !row_of_node.taints.is_empty() =>
                {
                    due.insert(Task::Node(row.node.clone()));
                }
                Some(_) => {}
            }
        }
    });
    let ended = |pod: &Object| pod.as_pod().is_some_and(|row| row.finished());
    if diff.new.as_deref().is_some_and(ended) {
        due.insert(Task::FinishedPods);
    }
    services_of(world, [&diff.old, &diff.new].into_iter().flatten(), due);
}

/// The Services whose endpoints a pod is, as it was and as it is.
fn services_of<'a>(
    world: &World,
    versions: impl Iterator<Item = &'a Arc<Object>>,
    due: &mut BTreeSet<Task>,
) {
    let versions: Vec<_> = versions.collect();
    let Some(pod) = versions.first() else { return };
    for object in world.within(Kind::SERVICE, &pod.key.namespace) {
        let Some(service) = object.as_service() else {
            continue;
        };
        let Some(selector) = selection::selector(service) else {
            continue;
        };
        if versions
            .iter()
            .any(|pod| selector.matches(&pod.meta.labels))
        {
            due.insert(Task::Slices(object.key.clone()));
            due.insert(Task::Endpoints(object.key.clone()));
            if selection::has_sctp(service) {
                due.insert(Task::Sctp(object.key.clone()));
            }
        }
    }
}

fn service(diff: &Diff, key: Key, due: &mut BTreeSet<Task>) {
    let mut balanced = false;
    each(diff, |service| {
        balanced |= load_balancer::is_balanced(service)
    });
    if balanced {
        due.insert(Task::LoadBalancers);
    }
    due.insert(Task::Slices(key.clone()));
    due.insert(Task::Endpoints(key.clone()));
    due.insert(Task::Mirror(key.clone()));
    due.insert(Task::Sctp(key));
}

/// The set that controls the pod, or, for an orphan, every set that would adopt it. A Deployment
/// that recreates waits for the last old pod to be gone.
fn sets_of(world: &World, pod: &Object, due: &mut BTreeSet<Task>) {
    if let Some(owner) = pod.controller() {
        let set = world
            .by_uid(&owner.uid)
            .filter(|set| set.as_set().is_some());
        if let Some(set) = set {
            due.insert(Task::Set(set.kind, set.key.clone()));
            let ended = pod.as_pod().is_some_and(|row| row.finished());
            if ended || world.get(Kind::POD, &pod.key).is_none() {
                deployments_of(world, set, due);
            }
        }
        return;
    }
    for kind in [Kind::REPLICA_SET, Kind::REPLICATION_CONTROLLER] {
        for (set, row) in world.sets(kind, &pod.key.namespace) {
            if row.selector.matches(&pod.meta.labels) {
                due.insert(Task::Set(kind, set.key.clone()));
            }
        }
    }
}

/// The Deployment that controls the set; for an orphan every one of its namespace. One whose new
/// set has this name wants to know as well.
fn deployments_of(world: &World, set: &Object, due: &mut BTreeSet<Task>) {
    match set.controller() {
        Some(owner) => {
            let owner = world
                .by_uid(&owner.uid)
                .filter(|owner| owner.kind == Kind::DEPLOYMENT);
            due.extend(owner.map(|owner| Task::Deployment(owner.key.clone())));
        }
        None => {
            let all = world.within(Kind::DEPLOYMENT, &set.key.namespace);
            due.extend(all.map(|deployment| Task::Deployment(deployment.key.clone())));
        }
    }
}

fn node(world: &World, diff: &Diff, due: &mut BTreeSet<Task>) {
    each(diff, |node| {
        due.insert(Task::Node(node.key.name.clone()));
        if diff.new.is_none() && !world.pods_on(&node.key.name).is_empty() {
            due.insert(Task::PodGc(node.key.name.clone()));
        }
    });
    let zone = |node: &Option<Arc<Object>>| {
        let zone = node
            .as_ref()
            .and_then(|node| node.meta.labels.get(selection::ZONE));
        zone.cloned()
    };
    if zone(&diff.old) != zone(&diff.new)
        && let Some(node) = diff.new.as_ref().or(diff.old.as_ref())
    {
        for (pod, _) in world.pods_on(&node.key.name) {
            services_of(world, world.get(Kind::POD, &pod.key).into_iter(), due);
        }
    }
}

/// Collection: of the object itself, of what it owned, of an owner that waits for it.
fn ownership(world: &World, diff: &Diff, object: &Object, due: &mut BTreeSet<Task>) {
    let collect = |object: &Object| Task::Collect(object.kind, object.key.clone());
    if let Some(new) = &diff.new {
        let changed = diff.old.as_ref().is_none_or(|old| {
            old.meta.owners != new.meta.owners
                || old.meta.finalizers != new.meta.finalizers
                || old.meta.deleting != new.meta.deleting
        });
        if changed && garbage::concerns(new) {
            due.insert(collect(new));
        }
        if changed && new.meta.deleting.is_some() && garbage::concerns(new) {
            due.extend(
                world
                    .dependents(&new.meta.uid)
                    .map(|dependent| collect(dependent)),
            );
        }
        if !changed {
            return;
        }
    } else {
        due.extend(
            world
                .dependents(&object.meta.uid)
                .map(|dependent| collect(dependent)),
        );
    }
    each(diff, |object| {
        let owners = object
            .meta
            .owners
            .iter()
            .filter_map(|owner| world.by_uid(&owner.uid));
        due.extend(
            owners
                .filter(|owner| owner.meta.deleting.is_some())
                .map(|owner| collect(owner)),
        );
    });
    // A replaced object of the same name leaves the dependents of the old one behind.
    if let (Some(old), Some(new)) = (&diff.old, &diff.new)
        && old.meta.uid != new.meta.uid
    {
        due.extend(
            world
                .dependents(&old.meta.uid)
                .map(|dependent| collect(dependent)),
        );
    }
}

fn ending_namespace(world: &World, object: &Object, due: &mut BTreeSet<Task>) {
    let name = &object.key.namespace;
    let namespace = world.get(Kind::NAMESPACE, &Key::new("", name));
    if !name.is_empty() && namespace.is_some_and(|ns| ns.meta.deleting.is_some()) {
        due.insert(Task::Namespace(name.clone()));
    }
}
