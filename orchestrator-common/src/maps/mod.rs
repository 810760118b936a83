//! Every map of the datapath: one file a family with key, value and spec; [`MAPS`] is the table of
//! them all.
//!
//! A name ends in the version of its layout. Agent-owned maps are reconciled against what the API
//! says; datapath-owned maps are only swept of what is idle.

pub mod affinity;
pub mod announced;
pub mod config;
pub mod endpoints;
pub mod flows;
pub mod fragments;
pub mod nodes;
pub mod services;
pub mod sockets;
pub mod statistics;

/// What the kernel creates, in the words of bpf(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    Array,
    Hash,
    HashOfMaps,
    LpmTrie,
    LruHash,
    PerCpuArray,
    PerCpuHash,
    RingBuffer,
    SocketStorage,
}

/// Who writes a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The agent, from API objects; the datapath only reads.
    Agent,
    /// The datapath; the agent reads, and sweeps.
    Datapath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    pub name: &'static str,
    pub kind: MapKind,
    pub key_size: u32,
    pub value_size: u32,
    /// Rows; bytes for a ring buffer; 0 for socket storage.
    pub max_entries: u32,
    /// BPF_F_* flags at creation.
    pub flags: u32,
    pub owner: Owner,
    pub holds: &'static str,
}

/// Rows are allocated when they are written: a table sized for a large cluster costs a small one
/// nothing.
pub const NO_PREALLOC: u32 = 1;

/// An array that may stand in a map of maps beside arrays of other lengths.
pub const INNER_MAP: u32 = 1 << 12;

/// The table. An order in which upserts are safe: what a row points to stands before it.
pub const MAPS: [MapSpec; 20] = [
    config::CONFIG,
    endpoints::ENDPOINTS,
    nodes::NODES,
    services::GENERATIONS,
    services::BACKENDS,
    services::MAGLEV,
    services::SOURCE_RANGES,
    services::SERVICES,
    announced::ANNOUNCED,
    endpoints::NETNS,
    flows::FLOWS,
    flows::REPLIERS,
    fragments::FRAGMENTS,
    affinity::AFFINITY,
    sockets::SOCKET_SERVICES,
    sockets::SOCKET_STORAGE,
    statistics::COUNTERS,
    statistics::SERVICE_COUNTERS,
    statistics::BACKEND_COUNTERS,
    statistics::DROPS,
];

impl MapSpec {
    const fn hash<K, V>(
        name: &'static str,
        max_entries: u32,
        owner: Owner,
        holds: &'static str,
    ) -> MapSpec {
        MapSpec {
            name,
            kind: MapKind::Hash,
            key_size: size_of::<K>() as u32,
            value_size: size_of::<V>() as u32,
            max_entries,
            flags: NO_PREALLOC,
            owner,
            holds,
        }
    }

    const fn array<V>(
        name: &'static str,
        max_entries: u32,
        owner: Owner,
        holds: &'static str,
    ) -> MapSpec {
        MapSpec {
            name,
            kind: MapKind::Array,
            key_size: size_of::<u32>() as u32,
            value_size: size_of::<V>() as u32,
            max_entries,
            flags: 0,
            owner,
            holds,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_end_in_a_layout_version() {
        let names: BTreeSet<&str> = MAPS.iter().map(|map| map.name).collect();
        assert_eq!(names.len(), MAPS.len());
        for name in names {
            let (_, version) = name.rsplit_once("_v").expect("a version");
            assert!(version.parse::<u32>().is_ok(), "{name}");
        }
    }
}
