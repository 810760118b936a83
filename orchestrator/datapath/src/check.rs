//! A second pair of eyes on the tables: what must hold whatever the world looks like.
//!
//! Pure. A finding is a bug of ours or a row that somebody else wrote, never a user's mistake. Shares
//! nothing with `desired`.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_common::Addr;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{BackendKey, Service, ServiceKey};

use super::table::Tables;

/// Everything that contradicts itself; empty when all is well.
pub fn check(tables: &Tables) -> Vec<String> {
    let mut findings = Vec::new();
    services(tables, &mut findings);
    numbers(tables, &mut findings);
    tables_by_number(tables, &mut findings);
    announced(tables, &mut findings);
    nodes(tables, &mut findings);
    endpoints(tables, &mut findings);
    findings
}

/// Every slot that a Service counts exists, none beyond, and no endpoint is there twice.
fn services(tables: &Tables, findings: &mut Vec<String>) {
    let mut counts = BTreeMap::new();
    for (key, service) in &tables.services {
        let name = name(key);
        if service.id == 0 {
            findings.push(format!("{name} has no number"));
        }
        if counts.insert(service.id, service.count).is_some() {
            findings.push(format!("{name} shares number {} with another", service.id));
        }
        let mut seen = BTreeSet::new();
        for slot in 0..service.count {
            match tables.backends.get(&BackendKey {
                service: service.id,
                slot,
            }) {
                None => findings.push(format!("{name} counts slot {slot}, which is empty")),
                Some(row) if !seen.insert((row.addr, row.port)) => {
                    findings.push(format!("{name} has {}:{} twice", row.addr, row.port));
                }
                Some(_) => {}
            }
        }
    }
    for key in tables.backends.keys() {
        if counts
            .get(&key.service)
            .is_none_or(|count| key.slot >= *count)
        {
            findings.push(format!(
                "slot {} of Service number {} is stray",
                key.slot, key.service
            ));
        }
    }
}

/// A backend's number stands for one endpoint of one Service.
fn numbers(tables: &Tables, findings: &mut Vec<String>) {
    let mut owners = BTreeMap::new();
    for (key, row) in &tables.backends {
        let owner = (key.service, row.addr, row.port);
        if row.id == 0 {
            findings.push(format!("backend {}:{} has no number", row.addr, row.port));
        }
        if *owners.entry(row.id).or_insert(owner) != owner {
            findings.push(format!("backend number {} is given twice", row.id));
        }
    }
}

/// Maglev tables and admitted ranges belong to a Service that asks for them, and lead to its slots.
fn tables_by_number(tables: &Tables, findings: &mut Vec<String>) {
    let rows = tables.services.iter();
    let by_id: BTreeMap<u32, _> = rows.map(|row| (row.1.id, row)).collect();
    for (id, table) in &tables.maglev {
        let Some((key, row)) = by_id.get(id) else {
            findings.push(format!("the Maglev table of Service number {id} is stray"));
            continue;
        };
        if table.len() != row.maglev() as usize {
            findings.push(format!(
                "{} names a Maglev table of another length",
                name(key)
            ));
        }
        if table.iter().any(|slot| u32::from(*slot) >= row.count) {
            findings.push(format!("{} has a Maglev table beyond its slots", name(key)));
        }
    }
    for (key, row) in &tables.services {
        if row.maglev() != 0 && !tables.maglev.contains_key(&row.id) {
            findings.push(format!(
                "{} names a Maglev table that is not there",
                name(key)
            ));
        }
    }
    for range in &tables.source_ranges {
        let asks = |row: &&Service| row.flags & Service::SOURCE_RANGES != 0;
        if by_id
            .get(&range.service)
            .map(|row| row.1)
            .filter(asks)
            .is_none()
        {
            findings.push(format!(
                "a range of Service number {} is stray",
                range.service
            ));
        }
    }
}

/// Nobody should answer for an address that leads nowhere.
fn announced(tables: &Tables, findings: &mut Vec<String>) {
    let outside = |key: &&ServiceKey| key.scope == ServiceKey::OUTSIDE;
    let rows = tables.services.keys().filter(outside);
    let served: BTreeSet<Addr> = rows.map(|key| key.addr).collect();
    for addr in tables.announced.difference(&served) {
        findings.push(format!("{addr} is announced and no Service is there"));
    }
}

fn name(key: &ServiceKey) -> String {
    let outside = key.scope == ServiceKey::OUTSIDE;
    let scope = if outside { " from outside" } else { "" };
    format!("Service {}:{}/{}{scope}", key.addr, key.port, key.proto)
}

/// Rows that no lookup can hit, or that would tunnel a packet to its sender.
fn nodes(tables: &Tables, findings: &mut Vec<String>) {
    let Some(config) = tables.config.get(&0) else {
        return;
    };
    let shares = tables.nodes.iter();
    for (range, node) in shares.filter(|(_, node)| node.flags & Node::VTEP == 0) {
        let family = config.family(range);
        if range.masked(&family.node_mask) != *range {
            findings.push(format!("node range {range} has bits below the mask"));
        }
        if node.vtep == config.underlay {
            findings.push(format!(
                "node range {range} is tunnelled to this node itself"
            ));
        }
        if family.translation == *range {
            findings.push(format!("node range {range} is this node's own"));
        }
    }
}

fn endpoints(tables: &Tables, findings: &mut Vec<String>) {
    for (addr, row) in &tables.endpoints {
        if row.ifindex == 0 {
            findings.push(format!("endpoint {addr} has no interface"));
        }
    }
    for (cookie, row) in &tables.netns {
        let held = [row.v4, row.v6];
        for addr in held.iter().filter(|addr| **addr != Addr::UNSPECIFIED) {
            if !tables.endpoints.contains_key(addr) {
                findings.push(format!(
                    "namespace {cookie} is {addr}, which is no endpoint"
                ));
            }
        }
    }
}
