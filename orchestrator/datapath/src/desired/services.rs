//! `services_v1`, `backends_v1`, `maglev_v1`, `source_ranges_v1`: which endpoints an address stands for,
//! in which slot, and who may ask.
//!
//! Slots are dense. An endpoint keeps its slot and number for as long as it is wanted; a new one takes
//! the place of one that goes, else the end; a hole is filled from the end. So one endpoint more or less
//! is at most two rows and a count.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use orchestrator_common::maps::services::{Backend, BackendKey, MAGLEV, Service, ServiceKey};
use orchestrator_common::{Addr, Port, Prefix, maglev};

use super::Exhausted;
use super::choice::{Policy, Traits};
use crate::ids::Ids;
use crate::table::{Admitted, Tables};
use crate::view::{EndpointView, SliceView};
use crate::world::{RowOwner, ServicePort, Via, World};

/// What a Service row stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted<'a> {
    backends: BTreeSet<(IpAddr, u16)>,
    /// `Service::ELSEWHERE`
    elsewhere: bool,
    affinity_s: u32,
    /// Who may ask; empty is everybody.
    ranges: &'a [IpNetwork],
}

/// The Service row of one address, port, protocol and scope, with all that stands under its number.
pub fn service(
    key: &ServiceKey,
    world: &World,
    actual: &Tables,
    ids: &mut Ids,
) -> Result<Tables, Exhausted> {
    let mut rows = Tables::default();
    let Some(owner) = world.service_row(key) else {
        return Ok(rows);
    };
    let wanted = wanted(key, &owner, world);
    let held = actual.services.get(key).copied();
    let id = match held {
        Some(held) => held.id,
        None => ids.services.take().ok_or(Exhausted("Service"))?,
    };
    let count = held.map_or(0, |held| held.count as usize);
    let current: Vec<Backend> = actual.slots(id).take(count).map(|(_, row)| *row).collect();
    let slots = assign(&current, &wanted.backends, ids)?;
    let count = u32::try_from(slots.len()).map_err(|_| Exhausted("slot"))?;
    let mut flags = 0;
    if wanted.elsewhere {
        flags |= Service::ELSEWHERE;
    }
    if !wanted.ranges.is_empty() {
        flags |= Service::SOURCE_RANGES;
        rows.source_ranges = admitted(id, wanted.ranges, key.addr.is_v4());
    }
    let mut row = Service {
        id,
        count,
        flags,
        affinity_s: wanted.affinity_s,
    };
    if key.scope == ServiceKey::OUTSIDE && has_room(actual, id) {
        row = row.with_maglev(maglev::length(count));
    }
    if row.maglev() != 0 {
        rows.maglev.insert(id, table(row.maglev(), &slots));
    }
    rows.services.insert(*key, row);
    let keys = (0..count).map(|slot| BackendKey { service: id, slot });
    rows.backends.extend(keys.zip(slots));
    Ok(rows)
}

/// Whom a Service row should lead to.
pub fn backends(key: &ServiceKey, world: &World) -> BTreeSet<(IpAddr, u16)> {
    let owner = world.service_row(key);
    owner.map_or_else(BTreeSet::new, |owner| wanted(key, &owner, world).backends)
}

fn wanted<'a>(key: &ServiceKey, owner: &RowOwner<'a>, world: &World) -> Wanted<'a> {
    match owner {
        RowOwner::Port(port) => of_port(key, port, world.own_zone()),
        RowOwner::HostPort(pod, port) => Wanted {
            backends: pod
                .addrs
                .like(key.addr.into())
                .map(|addr| (addr, port.container_port))
                .into_iter()
                .collect(),
            ..Wanted::default()
        },
    }
}

fn of_port<'a>(key: &ServiceKey, port: &ServicePort<'a>, zone: Option<&str>) -> Wanted<'a> {
    let external = port.service.external.as_deref();
    let outside = key.scope == ServiceKey::OUTSIDE;
    // Who is inside and asks an external address is not sent away by what is meant for outside.
    let local = match port.via {
        Via::ClusterIp => port.service.internal_local,
        _ => outside && external.is_some_and(|it| it.local),
    };
    let policy = if local {
        Policy::Local
    } else {
        Policy::Cluster
    };
    let candidates = candidates(port, key.addr.is_v4(), zone);
    let backends = select(policy, &candidates);
    let usable = candidates.iter().any(|(_, _, it)| it.usable());
    let ranges = external.filter(|_| port.via == Via::LoadBalancer);
    Wanted {
        elsewhere: outside && usable && backends.is_empty(),
        affinity_s: port.service.affinity_s,
        ranges: ranges.map_or(&[], |it| it.source_ranges.as_slice()),
        backends,
    }
}

/// The endpoints behind a Service's port in one family, with what decides about them.
fn candidates(port: &ServicePort<'_>, v4: bool, zone: Option<&str>) -> Vec<(IpAddr, u16, Traits)> {
    let mut candidates = Vec::new();
    for slice in &port.slices {
        let same = |name: &str| *port.port.name == *name;
        let Some(target) = slice
            .ports
            .iter()
            .find(|it| same(&it.name) && it.protocol == port.port.protocol)
        else {
            continue;
        };
        let own = slice.endpoints.iter().filter(|it| it.addr.is_ipv4() == v4);
        candidates.extend(own.map(|it| (it.addr, target.port, traits(*it, slice, zone))));
    }
    candidates
}

/// What `choice` wants to know of an endpoint.
pub fn traits(endpoint: EndpointView, slice: &SliceView, zone: Option<&str>) -> Traits {
    Traits {
        ready: endpoint.ready(),
        serving: endpoint.serving(),
        terminating: endpoint.terminating(),
        local: endpoint.local(),
        node: endpoint.for_node(),
        zone: slice.for_zone(endpoint, zone),
    }
}

fn select(policy: Policy, candidates: &[(IpAddr, u16, Traits)]) -> BTreeSet<(IpAddr, u16)> {
    let all: Vec<Traits> = candidates.iter().map(|(_, _, it)| *it).collect();
    let Some(pool) = policy.choose(&all) else {
        return BTreeSet::new();
    };
    let taken = candidates.iter().filter(|(_, _, it)| pool.takes(it));
    taken.map(|(addr, port, _)| (*addr, *port)).collect()
}

/// Ranges of the other family admit nobody of this one.
fn admitted(id: u32, ranges: &[IpNetwork], v4: bool) -> BTreeSet<Admitted> {
    let own = ranges.iter().filter(|range| range.is_ipv4() == v4);
    let prefixes = own.map(|range| Prefix::new(range.ip(), range.prefix()));
    prefixes.map(|prefix| Admitted::new(id, &prefix)).collect()
}

/// Without room for another table, a Service chooses by chance.
fn has_room(actual: &Tables, id: u32) -> bool {
    actual.maglev.contains_key(&id) || actual.maglev.len() < MAGLEV.max_entries as usize
}

/// The Maglev table of these slots: the same clients get the same backends on every node, whatever slots
/// they have there.
fn table(length: u32, slots: &[Backend]) -> Arc<[u16]> {
    let mut backends: Vec<((Addr, Port), u16)> = (0..)
        .zip(slots)
        .map(|(slot, row)| ((row.addr, row.port), slot))
        .collect();
    backends.sort_unstable();
    let (backends, slots): (Vec<_>, Vec<u16>) = backends.into_iter().unzip();
    let mut table = vec![0; length as usize];
    let mut walks = vec![maglev::Walk::default(); backends.len()];
    maglev::fill(&mut table, &backends, &mut walks);
    table.into_iter().map(|at| slots[usize::from(at)]).collect()
}

/// The slots for `wanted`, moving as few of the current ones as possible.
fn assign(
    current: &[Backend],
    wanted: &BTreeSet<(IpAddr, u16)>,
    ids: &mut Ids,
) -> Result<Vec<Backend>, Exhausted> {
    let mut missing = wanted.clone();
    // A row stays if it is wanted, and once: an interrupted move leaves two.
    let mut slots: Vec<Option<Backend>> = current
        .iter()
        .map(|row| {
            missing
                .remove(&(row.addr.into(), row.port.host()))
                .then_some(*row)
        })
        .collect();
    let mut missing = missing.into_iter();
    let mut next = || match missing.next() {
        None => Ok(None),
        Some((addr, port)) => {
            let id = ids.backends.take().ok_or(Exhausted("backend"))?;
            Ok(Some(Backend {
                addr: addr.into(),
                port: Port::new(port),
                flags: 0,
                id,
            }))
        }
    };
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = next()?;
    }
    while let Some(row) = next()? {
        slots.push(Some(row));
    }
    Ok(compact(slots))
}

/// Fills the holes from the end.
fn compact(slots: Vec<Option<Backend>>) -> Vec<Backend> {
    let mut slots = VecDeque::from(slots);
    let mut dense = Vec::with_capacity(slots.len());
    while let Some(slot) = slots.pop_front() {
        let from_end = || std::iter::from_fn(|| slots.pop_back()).flatten().next();
        dense.extend(slot.or_else(from_end));
    }
    dense
}
