//! Everything the datapath was told, by unit: what a change touches, and who claims which row.
//!
//! Pure. A claim is an object's wish for a row. Two may claim the same one while a watch catches up (an
//! address or range handed on before the old owner's deletion was heard); the first in order has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use orchestrator_common::maps::services::ServiceKey;
use orchestrator_common::{Addr, Port, Prefix, Proto};

use super::Change;
use super::table::Unit;
use super::view::{LocalPod, NodeView, ObjectKey, PortView, Protocol, ServiceView, SliceView};

/// The whole view. Changed only by [`World::change`].
#[derive(Clone, Debug, Default)]
pub struct World {
    services: BTreeMap<ObjectKey, ServiceView>,
    slices: BTreeMap<ObjectKey, SliceView>,
    /// Slices by their Service.
    slices_of: BTreeMap<ObjectKey, BTreeSet<Arc<str>>>,
    nodes: BTreeMap<String, NodeView>,
    pods: BTreeMap<String, LocalPod>,
    /// Service rows by who wants them: the Service, and which of its ports.
    service_claims: Claims<ServiceKey, (ObjectKey, usize)>,
    node_claims: Claims<Addr, String>,
    endpoint_claims: Claims<Addr, String>,
    netns_claims: Claims<u64, String>,
}

type Claims<K, C> = BTreeMap<K, BTreeSet<C>>;

/// A Service row's owner: the Service and one of its ports.
#[derive(Clone, Copy, Debug)]
pub struct ServicePort<'a> {
    pub service: &'a ServiceView,
    pub port: &'a PortView,
}

impl World {
    /// Takes a change in. Returns the units whose rows may differ now; none when the change says
    /// nothing new.
    pub fn change(&mut self, change: Change) -> BTreeSet<Unit> {
        match change {
            Change::Service(key, view) => self.change_service(key, view),
            Change::Slice(key, view) => self.change_slice(key, view),
            Change::Node(name, view) => {
                let old = replace(&mut self.nodes, name.clone(), view.clone());
                if old == view {
                    return BTreeSet::new();
                }
                let old = ranges(old.as_ref());
                let new = ranges(view.as_ref());
                reclaim(&mut self.node_claims, &name, old, new)
                    .map(Unit::Node)
                    .collect()
            }
            Change::Pod(uid, view) => self.change_pod(uid, view),
        }
    }

    /// Every unit that someone claims.
    pub fn units(&self) -> impl Iterator<Item = Unit> {
        let endpoints = self
            .endpoint_claims
            .keys()
            .map(|addr| Unit::Endpoint(*addr));
        let nodes = self.node_claims.keys().map(|range| Unit::Node(*range));
        let services = self.service_claims.keys().map(|key| Unit::Service(*key));
        let netns = self.netns_claims.keys().map(|cookie| Unit::Netns(*cookie));
        endpoints.chain(nodes).chain(services).chain(netns)
    }

    pub fn service_port(&self, key: &ServiceKey) -> Option<(ServicePort<'_>, Vec<&SliceView>)> {
        let (object, index) = self.service_claims.get(key)?.first()?;
        let service = self.services.get(object)?;
        let port = service.ports.get(*index)?;
        let names = self.slices_of.get(object).into_iter().flatten();
        let slices = names.filter_map(|name| {
            self.slices
                .get(&ObjectKey::new(object.namespace.clone(), name.clone()))
        });
        Some((ServicePort { service, port }, slices.collect()))
    }

    pub fn node(&self, range: &Addr) -> Option<(&str, &NodeView)> {
        let name = self.node_claims.get(range)?.first()?;
        Some((name, self.nodes.get(name)?))
    }

    pub fn endpoint(&self, addr: &Addr) -> Option<&LocalPod> {
        self.pods.get(self.endpoint_claims.get(addr)?.first()?)
    }

    pub fn netns(&self, cookie: u64) -> Option<&LocalPod> {
        self.pods.get(self.netns_claims.get(&cookie)?.first()?)
    }

    /// The pods that have a link of their own.
    pub fn pods(&self) -> impl Iterator<Item = &LocalPod> {
        self.pods.values().filter(|pod| !pod.host_network)
    }

    pub fn pod(&self, uid: &str) -> Option<&LocalPod> {
        self.pods.get(uid)
    }

    pub fn slice(&self, key: &ObjectKey) -> Option<&SliceView> {
        self.slices.get(key)
    }

    fn change_service(&mut self, key: ObjectKey, view: Option<ServiceView>) -> BTreeSet<Unit> {
        let new = service_keys(view.as_ref());
        let old_view = replace(&mut self.services, key.clone(), view.clone());
        if old_view == view {
            return BTreeSet::new();
        }
        let old = service_keys(old_view.as_ref());
        let mut dirty = BTreeSet::new();
        for (row, port) in &old {
            release(&mut self.service_claims, row, &(key.clone(), *port));
            dirty.insert(Unit::Service(*row));
        }
        for (row, port) in new {
            self.service_claims
                .entry(row)
                .or_default()
                .insert((key.clone(), port));
            dirty.insert(Unit::Service(row));
        }
        dirty
    }

    fn change_slice(&mut self, key: ObjectKey, view: Option<SliceView>) -> BTreeSet<Unit> {
        let service_of =
            |view: &SliceView| ObjectKey::new(key.namespace.clone(), view.service.clone());
        let new = view.as_ref().map(service_of);
        let old_view = replace(&mut self.slices, key.clone(), view.clone());
        if old_view == view {
            return BTreeSet::new();
        }
        let old = old_view.as_ref().map(service_of);
        if let Some(service) = &old {
            release(&mut self.slices_of, service, &key.name);
        }
        if let Some(service) = &new {
            self.slices_of
                .entry(service.clone())
                .or_default()
                .insert(key.name.clone());
        }
        let touched: BTreeSet<ObjectKey> = old.into_iter().chain(new).collect();
        let rows = touched
            .iter()
            .flat_map(|service| service_keys(self.services.get(service)));
        rows.map(|(row, _)| Unit::Service(row)).collect()
    }

    fn change_pod(&mut self, uid: String, view: Option<LocalPod>) -> BTreeSet<Unit> {
        let old = replace(&mut self.pods, uid.clone(), view.clone());
        if old == view {
            return BTreeSet::new();
        }
        let own = |pod: &Option<LocalPod>| pod.clone().filter(|pod| !pod.host_network);
        let (old, new) = (own(&old), own(&view));
        let addr = |pod: &Option<LocalPod>| {
            let addrs = pod.iter().flat_map(|pod| pod.addrs.iter());
            addrs.map(Addr::from).collect()
        };
        let cookie = |pod: &Option<LocalPod>| pod.iter().map(|pod| pod.netns_cookie).collect();
        let endpoints = reclaim(&mut self.endpoint_claims, &uid, addr(&old), addr(&new));
        let mut dirty: BTreeSet<Unit> = endpoints.map(Unit::Endpoint).collect();
        let netns = reclaim(&mut self.netns_claims, &uid, cookie(&old), cookie(&new));
        dirty.extend(netns.map(Unit::Netns));
        dirty
    }
}

/// The key of a node's range in `nodes_v1`.
pub fn range_key(range: &IpNetwork) -> Addr {
    Prefix::new(range.ip(), range.prefix()).addr
}

fn ranges(node: Option<&NodeView>) -> Vec<Addr> {
    node.iter()
        .flat_map(|node| &node.pod_cidrs)
        .map(range_key)
        .collect()
}

/// The rows that a Service asks for, with the port that each stands for.
fn service_keys(service: Option<&ServiceView>) -> Vec<(ServiceKey, usize)> {
    let mut keys = Vec::new();
    for addr in service.iter().flat_map(|service| &service.addrs) {
        for (index, port) in service
            .iter()
            .flat_map(|service| &service.ports)
            .enumerate()
        {
            let proto = match port.protocol {
                Protocol::Tcp => Proto::TCP,
                Protocol::Udp => Proto::UDP,
            };
            keys.push((
                ServiceKey::new((*addr).into(), Port::new(port.port), proto),
                index,
            ));
        }
    }
    keys
}

fn replace<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

/// Moves a claimant from the old keys to the new ones; returns all of them.
fn reclaim<K: Ord + Copy, C: Ord + Clone>(
    claims: &mut Claims<K, C>,
    claimant: &C,
    old: Vec<K>,
    new: Vec<K>,
) -> impl Iterator<Item = K> + use<K, C> {
    for key in &old {
        release(claims, key, claimant);
    }
    for key in &new {
        claims.entry(*key).or_default().insert(claimant.clone());
    }
    old.into_iter().chain(new)
}

fn release<K: Ord, C: Ord>(claims: &mut Claims<K, C>, key: &K, claimant: &C) {
    if let Some(claimants) = claims.get_mut(key) {
        claimants.remove(claimant);
        if claimants.is_empty() {
            claims.remove(key);
        }
    }
}
