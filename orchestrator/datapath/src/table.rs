//! The agent-owned maps as ordered tables: the form in which desired and actual meet.
//!
//! Pure. [`Unit`] names the smallest part that is recomputed and diffed by itself; the rows of different
//! units never overlap. Generations are absent on purpose: they are raised, not reconciled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::{Endpoint, Netns};
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey, SourceRange};
use orchestrator_common::{Addr, Prefix};

/// Every row that the agent owns, or those of a few units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub config: BTreeMap<u32, Config>,
    pub endpoints: BTreeMap<Addr, Endpoint>,
    /// By the node's pod range, masked; or by its underlay address.
    pub nodes: BTreeMap<Addr, Node>,
    pub backends: BTreeMap<BackendKey, Backend>,
    /// By Service number.
    pub maglev: BTreeMap<u32, Arc<[u16]>>,
    pub source_ranges: BTreeSet<Admitted>,
    pub services: BTreeMap<ServiceKey, Service>,
    pub announced: BTreeSet<Addr>,
    /// By network namespace cookie.
    pub netns: BTreeMap<u64, Netns>,
}

/// A row of `source_ranges_v1`: a range whose clients a Service admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Admitted {
    pub service: u32,
    /// Masked.
    pub addr: Addr,
    /// Leading bits of the 128; 96 more than IPv4's own.
    pub bits: u32,
}

/// Bits of a Service's number before those of the address.
const NUMBER_BITS: u32 = 32;

impl Admitted {
    pub fn new(service: u32, range: &Prefix) -> Self {
        let ones = range.mask.words.iter().map(|word| word.count_ones());
        Self {
            service,
            addr: range.addr,
            bits: ones.sum(),
        }
    }
}

impl From<Admitted> for SourceRange {
    fn from(admitted: Admitted) -> Self {
        Self {
            prefix_length: NUMBER_BITS + admitted.bits,
            service: admitted.service,
            addr: admitted.addr,
        }
    }
}

impl From<SourceRange> for Admitted {
    fn from(row: SourceRange) -> Self {
        Self {
            service: row.service,
            addr: row.addr,
            bits: row.prefix_length.saturating_sub(NUMBER_BITS),
        }
    }
}

/// The rows that stand or fall together. Named by the map's key, so that two objects which claim the
/// same row (an address handed on while a watch was away) are settled in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    Config,
    Endpoint(Addr),
    /// A pod range or an underlay address.
    Node(Addr),
    /// The Service row, and all rows under its number.
    Service(ServiceKey),
    Announced(Addr),
    Netns(u64),
}

impl Tables {
    /// The rows of one unit.
    pub fn unit(&self, unit: Unit) -> Tables {
        let mut rows = Tables::default();
        match unit {
            Unit::Config => rows.config = self.config.clone(),
            Unit::Endpoint(addr) => rows.endpoints.extend(one(&self.endpoints, addr)),
            Unit::Node(range) => rows.nodes.extend(one(&self.nodes, range)),
            Unit::Netns(cookie) => rows.netns.extend(one(&self.netns, cookie)),
            Unit::Announced(addr) => rows.announced.extend(self.announced.get(&addr)),
            Unit::Service(key) => {
                if let Some(service) = self.services.get(&key) {
                    rows.services.insert(key, *service);
                    rows.extend(self.numbered(service.id));
                }
            }
        }
        rows
    }

    /// What stands under a Service's number, whether or not a Service row has it.
    pub fn numbered(&self, id: u32) -> Tables {
        let mut rows = Tables::default();
        let slots = self.slots(id).map(|(key, row)| (*key, *row));
        rows.backends.extend(slots);
        let table = self.maglev.get(&id);
        rows.maglev.extend(table.map(|table| (id, table.clone())));
        rows.source_ranges.extend(self.admitted(id));
        rows
    }

    /// The backend rows of a Service number, in slot order: also those that no Service row counts.
    pub fn slots(&self, id: u32) -> impl DoubleEndedIterator<Item = (&BackendKey, &Backend)> {
        let slot = |slot| BackendKey { service: id, slot };
        self.backends.range(slot(0)..=slot(u32::MAX))
    }

    fn admitted(&self, id: u32) -> impl Iterator<Item = Admitted> {
        let from = Admitted {
            service: id,
            addr: Addr::UNSPECIFIED,
            bits: 0,
        };
        let rows = self.source_ranges.range(from..).copied();
        rows.take_while(move |row| row.service == id)
    }

    /// The Service numbers that have rows of any kind.
    pub fn numbers(&self) -> BTreeSet<u32> {
        let named = self.services.values().map(|service| service.id);
        named.chain(self.counted()).collect()
    }

    /// The Service numbers under which something stands.
    pub fn counted(&self) -> impl Iterator<Item = u32> {
        let slots = self.backends.keys().map(|key| key.service);
        let tables = self.maglev.keys().copied();
        slots
            .chain(tables)
            .chain(self.source_ranges.iter().map(|row| row.service))
    }

    /// Every unit that has rows here.
    pub fn units(&self) -> impl Iterator<Item = Unit> {
        let config = self.config.keys().map(|_| Unit::Config);
        let endpoints = self.endpoints.keys().map(|addr| Unit::Endpoint(*addr));
        let nodes = self.nodes.keys().map(|range| Unit::Node(*range));
        let services = self.services.keys().map(|key| Unit::Service(*key));
        let announced = self.announced.iter().map(|addr| Unit::Announced(*addr));
        let netns = self.netns.keys().map(|cookie| Unit::Netns(*cookie));
        config
            .chain(endpoints)
            .chain(nodes)
            .chain(services)
            .chain(announced)
            .chain(netns)
    }

    /// Packs what has grown one by one; see [`World::pack`](super::world::World::pack).
    pub fn pack(&mut self) {
        rebuild(&mut self.backends);
        rebuild(&mut self.services);
    }

    /// Takes the rows of another unit.
    pub fn extend(&mut self, rows: Tables) {
        self.config.extend(rows.config);
        self.endpoints.extend(rows.endpoints);
        self.nodes.extend(rows.nodes);
        self.backends.extend(rows.backends);
        self.maglev.extend(rows.maglev);
        self.source_ranges.extend(rows.source_ranges);
        self.services.extend(rows.services);
        self.announced.extend(rows.announced);
        self.netns.extend(rows.netns);
    }
}

fn one<K: Ord + Copy, V: Copy>(table: &BTreeMap<K, V>, key: K) -> Option<(K, V)> {
    table.get(&key).map(|row| (key, *row))
}

/// A tree that is made from all of its elements at once has full nodes.
pub(super) fn rebuild<T: IntoIterator + FromIterator<T::Item> + Default>(tree: &mut T) {
    *tree = std::mem::take(tree).into_iter().collect();
}
