//! Names for the numbers that the datapath counts by: which Service a row's number means, which backend.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use orchestrator_common::maps::services::ServiceKey;

use super::table::Tables;
use super::world::{RowOwner, World};

/// The names of those numbers that somebody asked for and that still mean something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Several rows of one port (by its cluster address, its node port, …) have a number each.
    pub services: BTreeMap<u32, PortName>,
    /// `ADDRESS:PORT`.
    pub backends: BTreeMap<u32, String>,
}

/// A port of a Service; a host port is named after the pod's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortName {
    pub namespace: String,
    pub service: String,
    /// Its name; its number, if it has none.
    pub port: String,
}

/// Names the Services and backends of these numbers.
pub fn names(
    world: &World,
    actual: &Tables,
    services: &BTreeSet<u32>,
    backends: &BTreeSet<u32>,
) -> Names {
    let rows = actual.services.iter();
    let rows = rows.filter(|(_, row)| services.contains(&row.id));
    let named = rows.filter_map(|(key, row)| Some((row.id, port_name(world, key)?)));
    let backend = actual.backends.values();
    let backend = backend.filter(|row| backends.contains(&row.id)).map(|row| {
        let address = SocketAddr::new(row.addr.into(), row.port.host());
        (row.id, address.to_string())
    });
    Names {
        services: named.collect(),
        backends: backend.collect(),
    }
}

fn port_name(world: &World, key: &ServiceKey) -> Option<PortName> {
    match world.service_row(key)? {
        RowOwner::Port(owner) => Some(PortName {
            namespace: owner.key.namespace().to_owned(),
            service: owner.key.name().to_owned(),
            port: match &*owner.port.name {
                "" => owner.port.port.to_string(),
                name => name.to_owned(),
            },
        }),
        RowOwner::HostPort(..) => Some(PortName {
            port: key.port.to_string(),
            ..PortName::default()
        }),
    }
}
