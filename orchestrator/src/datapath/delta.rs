//! From actual to desired, as single map writes in an order in which every moment is safe.
//!
//! Pure. The order is one constant, [`ORDER`]: first what others point to, then what points to it;
//! deletions the other way round; last the generations of backends that are in no slot any more, so that
//! a flow that chooses again cannot meet the dead one.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_common::Addr;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::{Endpoint, Netns};
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};

use super::table::Tables;

/// One write to one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    PutConfig(Config),
    PutEndpoint(Addr, Endpoint),
    PutNode(Addr, Node),
    PutBackend(BackendKey, Backend),
    PutService(ServiceKey, Service),
    PutNetns(u64, Netns),
    DeleteEndpoint(Addr),
    DeleteNode(Addr),
    DeleteBackend(BackendKey),
    DeleteService(ServiceKey),
    DeleteNetns(u64),
    /// The backend with this number has gone: its flows choose again.
    Raise(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    Config,
    Endpoints,
    Nodes,
    Backends,
    Services,
    Netns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Put(Map),
    Delete(Map),
    RaiseGenerations,
}

/// The order of application. Rows of `orchestrator_common::MAPS` stand in the same order.
pub const ORDER: [Phase; 12] = [
    Phase::Put(Map::Config),
    Phase::Put(Map::Endpoints),
    Phase::Put(Map::Nodes),
    Phase::Put(Map::Backends),
    Phase::Put(Map::Services),
    Phase::Put(Map::Netns),
    Phase::Delete(Map::Netns),
    Phase::Delete(Map::Services),
    Phase::Delete(Map::Backends),
    Phase::Delete(Map::Nodes),
    Phase::Delete(Map::Endpoints),
    Phase::RaiseGenerations,
];

/// The writes that turn `actual` into `desired`. Without `prune` nothing is deleted.
pub fn delta(actual: &Tables, desired: &Tables, prune: bool) -> Vec<Op> {
    let mut ops = Vec::new();
    for phase in ORDER {
        match phase {
            Phase::Delete(_) | Phase::RaiseGenerations if !prune => {}
            Phase::Put(map) => puts(map, actual, desired, &mut ops),
            Phase::Delete(map) => deletes(map, actual, desired, &mut ops),
            Phase::RaiseGenerations => ops.extend(gone(actual, desired).map(Op::Raise)),
        }
    }
    ops
}

/// What one write does to the tables: the mirror of the kernel's maps follows by it.
pub fn replay(tables: &mut Tables, op: Op) {
    match op {
        Op::PutConfig(row) => drop(tables.config.insert(0, row)),
        Op::PutEndpoint(key, row) => drop(tables.endpoints.insert(key, row)),
        Op::PutNode(key, row) => drop(tables.nodes.insert(key, row)),
        Op::PutBackend(key, row) => drop(tables.backends.insert(key, row)),
        Op::PutService(key, row) => drop(tables.services.insert(key, row)),
        Op::PutNetns(key, row) => drop(tables.netns.insert(key, row)),
        Op::DeleteEndpoint(key) => drop(tables.endpoints.remove(&key)),
        Op::DeleteNode(key) => drop(tables.nodes.remove(&key)),
        Op::DeleteBackend(key) => drop(tables.backends.remove(&key)),
        Op::DeleteService(key) => drop(tables.services.remove(&key)),
        Op::DeleteNetns(key) => drop(tables.netns.remove(&key)),
        Op::Raise(_) => {}
    }
}

fn puts(map: Map, actual: &Tables, desired: &Tables, ops: &mut Vec<Op>) {
    match map {
        Map::Config => {
            let put = changed(&actual.config, &desired.config);
            ops.extend(put.map(|(_, row)| Op::PutConfig(row)));
        }
        Map::Endpoints => {
            let put = changed(&actual.endpoints, &desired.endpoints);
            ops.extend(put.map(|(key, row)| Op::PutEndpoint(key, row)));
        }
        Map::Nodes => {
            let put = changed(&actual.nodes, &desired.nodes);
            ops.extend(put.map(|(key, row)| Op::PutNode(key, row)));
        }
        Map::Backends => {
            let put = changed(&actual.backends, &desired.backends);
            ops.extend(put.map(|(key, row)| Op::PutBackend(key, row)));
        }
        Map::Services => {
            let put = changed(&actual.services, &desired.services);
            ops.extend(put.map(|(key, row)| Op::PutService(key, row)));
        }
        Map::Netns => {
            let put = changed(&actual.netns, &desired.netns);
            ops.extend(put.map(|(key, row)| Op::PutNetns(key, row)));
        }
    }
}

fn deletes(map: Map, actual: &Tables, desired: &Tables, ops: &mut Vec<Op>) {
    match map {
        // The row of an array cannot go; a node keeps its configuration until it is removed.
        Map::Config => {}
        Map::Endpoints => {
            ops.extend(absent(&actual.endpoints, &desired.endpoints).map(Op::DeleteEndpoint));
        }
        Map::Nodes => ops.extend(absent(&actual.nodes, &desired.nodes).map(Op::DeleteNode)),
        Map::Backends => {
            ops.extend(absent(&actual.backends, &desired.backends).map(Op::DeleteBackend));
        }
        Map::Services => {
            ops.extend(absent(&actual.services, &desired.services).map(Op::DeleteService));
        }
        Map::Netns => ops.extend(absent(&actual.netns, &desired.netns).map(Op::DeleteNetns)),
    }
}

/// The numbers of the backends that lose their last row.
fn gone(actual: &Tables, desired: &Tables) -> impl Iterator<Item = u32> {
    let numbers = |tables: &Tables| -> BTreeSet<u32> {
        tables.backends.values().map(|backend| backend.id).collect()
    };
    let kept = numbers(desired);
    numbers(actual)
        .into_iter()
        .filter(move |id| !kept.contains(id))
}

fn changed<K: Ord + Copy, V: PartialEq + Copy>(
    actual: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
) -> impl Iterator<Item = (K, V)> {
    let differs = |(key, row): &(&K, &V)| actual.get(key) != Some(row);
    desired
        .iter()
        .filter(differs)
        .map(|(key, row)| (*key, *row))
}

fn absent<K: Ord + Copy, V>(
    actual: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
) -> impl Iterator<Item = K> {
    actual
        .keys()
        .filter(|key| !desired.contains_key(key))
        .copied()
}
