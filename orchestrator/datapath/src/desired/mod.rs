//! What the maps should hold, computed from what the world says: one pure function a unit.
//!
//! The whole is the fold over the units, so recomputing only what a change touched gives the same
//! tables. Identities and slots come from the actual rows, which is why those are an argument.

pub mod announced;
pub mod choice;
pub mod endpoints;
pub mod nodes;
pub mod services;

use std::collections::BTreeSet;

use super::facts::Facts;
use super::ids::Ids;
use super::table::{Tables, Unit};
use super::world::World;

/// All numbers of a kind are in use: the cluster is larger than the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no free {0} number: the cluster has more than the datapath's maps hold")]
pub struct Exhausted(pub &'static str);

/// The rows of one unit; none when nobody wants it.
pub fn unit(
    unit: Unit,
    world: &World,
    facts: &Facts,
    actual: &Tables,
    ids: &mut Ids,
) -> Result<Tables, Exhausted> {
    let mut rows = Tables::default();
    match unit {
        Unit::Config => drop(rows.config.insert(0, nodes::config(facts))),
        Unit::Endpoint(addr) => {
            let row = endpoints::endpoint(addr, world, facts);
            rows.endpoints.extend(row.map(|row| (addr, row)));
        }
        Unit::Node(range) => {
            let row = nodes::node(range, world, facts);
            rows.nodes.extend(row.map(|row| (range, row)));
        }
        Unit::Announced(addr) => {
            rows.announced
                .extend(announced::announced(addr, world).then_some(addr));
        }
        Unit::Service(key) => rows = services::service(&key, world, actual, ids)?,
        Unit::Netns(cookie) => {
            let row = endpoints::netns(cookie, world, facts);
            rows.netns.extend(row.map(|row| (cookie, row)));
        }
    }
    Ok(rows)
}

/// Every unit that should have rows.
pub fn units(world: &World, facts: &Facts) -> BTreeSet<Unit> {
    let own = [Unit::Config, Unit::Netns(facts.netns_cookie)];
    let addresses = facts.own_addresses().map(Unit::Endpoint);
    let own = own.into_iter().chain(addresses);
    own.chain(world.units()).collect()
}

/// The whole: the fold over the units.
pub fn full(
    world: &World,
    facts: &Facts,
    actual: &Tables,
    ids: &mut Ids,
) -> Result<Tables, Exhausted> {
    let mut tables = Tables::default();
    for each in units(world, facts) {
        tables.extend(unit(each, world, facts, actual, ids)?);
    }
    Ok(tables)
}
