//! From actual to desired, as single map writes in an order in which every moment is safe.
//!
//! Pure. The order is one constant, [`ORDER`]: first what others point to, then what points to it;
//! deletions the other way round; last the generations of backends that are in no slot any more, so that
//! a flow that chooses again cannot meet the dead one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use orchestrator_common::Addr;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::{Endpoint, Netns};
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};

use super::table::{Admitted, Tables};

/// One write to one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    PutConfig(Config),
    PutEndpoint(Addr, Endpoint),
    PutNode(Addr, Node),
    PutBackend(BackendKey, Backend),
    PutMaglev(u32, Arc<[u16]>),
    PutSourceRange(Admitted),
    PutService(ServiceKey, Service),
    PutAnnounced(Addr),
    PutNetns(u64, Netns),
    DeleteEndpoint(Addr),
    DeleteNode(Addr),
    DeleteBackend(BackendKey),
    DeleteMaglev(u32),
    DeleteSourceRange(Admitted),
    /// And the number that it had.
    DeleteService(ServiceKey, u32),
    DeleteAnnounced(Addr),
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
    Maglev,
    SourceRanges,
    Services,
    Announced,
    Netns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Put(Map),
    Delete(Map),
    RaiseGenerations,
}

/// The order of application. Rows of `orchestrator_common::MAPS` stand in the same order. A Maglev table
/// goes in before the Service row that names its length, and a range before the row that asks for it; who
/// announces an address can already serve it.
pub const ORDER: [Phase; 18] = [
    Phase::Put(Map::Config),
    Phase::Put(Map::Endpoints),
    Phase::Put(Map::Nodes),
    Phase::Put(Map::Backends),
    Phase::Put(Map::Maglev),
    Phase::Put(Map::SourceRanges),
    Phase::Put(Map::Services),
    Phase::Put(Map::Announced),
    Phase::Put(Map::Netns),
    Phase::Delete(Map::Netns),
    Phase::Delete(Map::Announced),
    Phase::Delete(Map::Services),
    Phase::Delete(Map::SourceRanges),
    Phase::Delete(Map::Maglev),
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
pub fn replay(tables: &mut Tables, op: &Op) {
    match op {
        Op::PutConfig(row) => drop(tables.config.insert(0, *row)),
        Op::PutEndpoint(key, row) => drop(tables.endpoints.insert(*key, *row)),
        Op::PutNode(key, row) => drop(tables.nodes.insert(*key, *row)),
        Op::PutBackend(key, row) => drop(tables.backends.insert(*key, *row)),
        Op::PutMaglev(id, table) => drop(tables.maglev.insert(*id, table.clone())),
        Op::PutSourceRange(row) => drop(tables.source_ranges.insert(*row)),
        Op::PutService(key, row) => drop(tables.services.insert(*key, *row)),
        Op::PutAnnounced(addr) => drop(tables.announced.insert(*addr)),
        Op::PutNetns(key, row) => drop(tables.netns.insert(*key, *row)),
        Op::DeleteEndpoint(key) => drop(tables.endpoints.remove(key)),
        Op::DeleteNode(key) => drop(tables.nodes.remove(key)),
        Op::DeleteBackend(key) => drop(tables.backends.remove(key)),
        Op::DeleteMaglev(id) => drop(tables.maglev.remove(id)),
        Op::DeleteSourceRange(row) => drop(tables.source_ranges.remove(row)),
        Op::DeleteService(key, _) => drop(tables.services.remove(key)),
        Op::DeleteAnnounced(addr) => drop(tables.announced.remove(addr)),
        Op::DeleteNetns(key) => drop(tables.netns.remove(key)),
        Op::Raise(_) => {}
    }
}

fn puts(map: Map, old: &Tables, new: &Tables, ops: &mut Vec<Op>) {
    match map {
        Map::Config => {
            ops.extend(changed(&old.config, &new.config).map(|(_, row)| Op::PutConfig(row)));
        }
        Map::Endpoints => {
            let put = changed(&old.endpoints, &new.endpoints);
            ops.extend(put.map(|(key, row)| Op::PutEndpoint(key, row)));
        }
        Map::Nodes => {
            ops.extend(changed(&old.nodes, &new.nodes).map(|(key, row)| Op::PutNode(key, row)));
        }
        Map::Backends => {
            let put = changed(&old.backends, &new.backends);
            ops.extend(put.map(|(key, row)| Op::PutBackend(key, row)));
        }
        Map::Maglev => {
            ops.extend(changed(&old.maglev, &new.maglev).map(|(id, row)| Op::PutMaglev(id, row)));
        }
        Map::SourceRanges => {
            let put = new.source_ranges.difference(&old.source_ranges);
            ops.extend(put.copied().map(Op::PutSourceRange));
        }
        Map::Services => {
            let put = changed(&old.services, &new.services);
            ops.extend(put.map(|(key, row)| Op::PutService(key, row)));
        }
        Map::Announced => {
            let put = new.announced.difference(&old.announced);
            ops.extend(put.copied().map(Op::PutAnnounced));
        }
        Map::Netns => {
            ops.extend(changed(&old.netns, &new.netns).map(|(key, row)| Op::PutNetns(key, row)));
        }
    }
}

fn deletes(map: Map, old: &Tables, new: &Tables, ops: &mut Vec<Op>) {
    match map {
        // The row of an array cannot go; a node keeps its configuration until it is removed.
        Map::Config => {}
        Map::Endpoints => {
            ops.extend(absent(&old.endpoints, &new.endpoints).map(Op::DeleteEndpoint));
        }
        Map::Nodes => ops.extend(absent(&old.nodes, &new.nodes).map(Op::DeleteNode)),
        Map::Backends => ops.extend(absent(&old.backends, &new.backends).map(Op::DeleteBackend)),
        Map::Maglev => ops.extend(absent(&old.maglev, &new.maglev).map(Op::DeleteMaglev)),
        Map::SourceRanges => {
            let gone = old.source_ranges.difference(&new.source_ranges);
            ops.extend(gone.copied().map(Op::DeleteSourceRange));
        }
        Map::Services => {
            let gone = absent(&old.services, &new.services);
            ops.extend(gone.map(|key| Op::DeleteService(key, old.services[&key].id)));
        }
        Map::Announced => {
            let gone = old.announced.difference(&new.announced);
            ops.extend(gone.copied().map(Op::DeleteAnnounced));
        }
        Map::Netns => ops.extend(absent(&old.netns, &new.netns).map(Op::DeleteNetns)),
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

fn changed<K: Ord + Copy, V: PartialEq + Clone>(
    actual: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
) -> impl Iterator<Item = (K, V)> {
    let differs = |(key, row): &(&K, &V)| actual.get(key) != Some(row);
    desired
        .iter()
        .filter(differs)
        .map(|(key, row)| (*key, row.clone()))
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
