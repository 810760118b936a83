//! The agent-owned maps as ordered tables: the form in which desired and actual meet.
//!
//! Pure. [`Unit`] names the smallest part that is recomputed and diffed by itself; the rows of different
//! units never overlap. Generations are absent on purpose: they are raised, not reconciled.

use std::collections::BTreeMap;

use orchestrator_common::Addr;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::{Endpoint, Netns};
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};

/// Every row that the agent owns, or those of a few units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub config: BTreeMap<u32, Config>,
    pub endpoints: BTreeMap<Addr, Endpoint>,
    /// By the node's pod range, masked.
    pub nodes: BTreeMap<Addr, Node>,
    pub backends: BTreeMap<BackendKey, Backend>,
    pub services: BTreeMap<ServiceKey, Service>,
    /// By network namespace cookie.
    pub netns: BTreeMap<u64, Netns>,
}

/// The rows that stand or fall together. Named by the map's key, so that two objects which claim the
/// same row (an address handed on while a watch was away) are settled in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    Config,
    Endpoint(Addr),
    Node(Addr),
    /// The Service row and all its backend rows.
    Service(ServiceKey),
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
            Unit::Service(key) => {
                if let Some(service) = self.services.get(&key) {
                    rows.services.insert(key, *service);
                    rows.backends
                        .extend(self.slots(service.id).map(|(key, row)| (*key, *row)));
                }
            }
        }
        rows
    }

    /// The backend rows of a Service number, in slot order: also those that no Service row counts.
    pub fn slots(&self, id: u32) -> impl DoubleEndedIterator<Item = (&BackendKey, &Backend)> {
        let slot = |slot| BackendKey { service: id, slot };
        self.backends.range(slot(0)..=slot(u32::MAX))
    }

    /// Every unit that has rows here.
    pub fn units(&self) -> impl Iterator<Item = Unit> {
        let config = self.config.keys().map(|_| Unit::Config);
        let endpoints = self.endpoints.keys().map(|addr| Unit::Endpoint(*addr));
        let nodes = self.nodes.keys().map(|range| Unit::Node(*range));
        let services = self.services.keys().map(|key| Unit::Service(*key));
        let netns = self.netns.keys().map(|cookie| Unit::Netns(*cookie));
        config
            .chain(endpoints)
            .chain(nodes)
            .chain(services)
            .chain(netns)
    }

    /// Takes the rows of another unit.
    pub fn extend(&mut self, rows: Tables) {
        self.config.extend(rows.config);
        self.endpoints.extend(rows.endpoints);
        self.nodes.extend(rows.nodes);
        self.backends.extend(rows.backends);
        self.services.extend(rows.services);
        self.netns.extend(rows.netns);
    }
}

fn one<K: Ord + Copy, V: Copy>(table: &BTreeMap<K, V>, key: K) -> Option<(K, V)> {
    table.get(&key).map(|row| (key, *row))
}
