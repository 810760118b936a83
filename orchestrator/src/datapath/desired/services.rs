//! `services_v1` and `backends_v1`: which endpoints a Service's address stands for, and in which slot.
//!
//! Slots are dense. An endpoint keeps its slot and number for as long as it is wanted; a new one takes
//! the place of one that goes, else the end; a hole is filled from the end. So one endpoint more or less
//! is at most two rows and a count.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use orchestrator_common::Port;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};

use super::Exhausted;
use crate::datapath::ids::Ids;
use crate::datapath::table::Tables;
use crate::datapath::view::{EndpointView, SliceView};
use crate::datapath::world::{ServicePort, World};

/// The Service row of one address, port and protocol with its backends.
pub fn service(
    key: &ServiceKey,
    world: &World,
    actual: &Tables,
    ids: &mut Ids,
) -> Result<Tables, Exhausted> {
    let mut rows = Tables::default();
    let Some((port, slices)) = world.service_port(key) else {
        return Ok(rows);
    };
    let wanted = select(port, &slices, key.addr.is_v4());
    let held = actual.services.get(key).copied();
    let id = match held {
        Some(held) => held.id,
        None => ids.services.take().ok_or(Exhausted("Service"))?,
    };
    let count = held.map_or(0, |held| held.count as usize);
    let current: Vec<Backend> = actual.slots(id).take(count).map(|(_, row)| *row).collect();
    let slots = assign(&current, &wanted, ids)?;
    let count = u32::try_from(slots.len()).map_err(|_| Exhausted("slot"))?;
    rows.services.insert(
        *key,
        Service {
            id,
            count,
            flags: 0,
            affinity_s: 0,
        },
    );
    let keys = (0..count).map(|slot| BackendKey { service: id, slot });
    rows.backends.extend(keys.zip(slots));
    Ok(rows)
}

/// Which endpoints take traffic. Those that are ready; if there is none, those that still serve while they
/// terminate. With `internalTrafficPolicy: Local` the others do not exist.
pub fn select(port: ServicePort<'_>, slices: &[&SliceView], v4: bool) -> BTreeSet<(IpAddr, u16)> {
    let among = |usable: fn(EndpointView) -> bool| {
        let mut selected = BTreeSet::new();
        for slice in slices {
            let Some(target) = slice.ports.iter().find(|target| {
                target.name == port.port.name && target.protocol == port.port.protocol
            }) else {
                continue;
            };
            let usable = slice.endpoints.iter().filter(|endpoint| {
                endpoint.addr.is_ipv4() == v4
                    && (!port.service.local_only || endpoint.local())
                    && usable(**endpoint)
            });
            selected.extend(usable.map(|endpoint| (endpoint.addr, target.port)));
        }
        selected
    };
    let ready = among(EndpointView::ready);
    if !ready.is_empty() {
        return ready;
    }
    among(|endpoint| endpoint.serving() && endpoint.terminating())
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
