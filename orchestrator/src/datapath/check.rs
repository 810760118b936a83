//! A second pair of eyes on the tables: what must hold whatever the world looks like.
//!
//! Pure. A finding is a bug of ours or a row that somebody else wrote, never a user's mistake. Shares
//! nothing with `desired`.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_common::Addr;
use orchestrator_common::maps::services::BackendKey;

use super::table::Tables;

/// Everything that contradicts itself; empty when all is well.
pub fn check(tables: &Tables) -> Vec<String> {
    let mut findings = Vec::new();
    services(tables, &mut findings);
    numbers(tables, &mut findings);
    nodes(tables, &mut findings);
    endpoints(tables, &mut findings);
    findings
}

/// Every slot that a Service counts exists, none beyond, and no endpoint is there twice.
fn services(tables: &Tables, findings: &mut Vec<String>) {
    let mut counts = BTreeMap::new();
    for (key, service) in &tables.services {
        let name = format!("Service {}:{}/{}", key.addr, key.port, key.proto);
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

/// Rows that no lookup can hit, or that would tunnel a packet to its sender.
fn nodes(tables: &Tables, findings: &mut Vec<String>) {
    let Some(config) = tables.config.get(&0) else {
        return;
    };
    for (range, node) in &tables.nodes {
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
