//! The pinned maps: typed, and checked against `orchestrator_common::MAPS` before they are used.

use std::path::Path;

use aya::maps::hash_map::HashMap;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::{Endpoint, Netns};
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};
use orchestrator_common::maps::{config, endpoints, flows, nodes, services, statistics};
use orchestrator_common::{Addr, MAPS, MapKind, MapSpec, Tuple};

use super::DatapathError;
use super::delta::Op;
use super::kernel::Kernel;
use super::meter::MapFill;
use super::table::Tables;

/// Every map that user space reads or writes.
pub struct Maps {
    config: Array<MapData, Config>,
    endpoints: HashMap<MapData, Addr, Endpoint>,
    nodes: HashMap<MapData, Addr, Node>,
    generations: Array<MapData, u32>,
    backends: HashMap<MapData, BackendKey, Backend>,
    services: HashMap<MapData, ServiceKey, Service>,
    netns: HashMap<MapData, u64, Netns>,
    flows: HashMap<MapData, Tuple, Flow>,
    counters: PerCpuArray<MapData, u64>,
}

impl Maps {
    /// Opens what is pinned in `dir`.
    pub fn open(dir: &Path) -> Result<Self, DatapathError> {
        for spec in &MAPS {
            check(dir, spec)?;
        }
        Ok(Self {
            config: open(dir, &config::CONFIG)?,
            endpoints: open(dir, &endpoints::ENDPOINTS)?,
            nodes: open(dir, &nodes::NODES)?,
            generations: open(dir, &services::GENERATIONS)?,
            backends: open(dir, &services::BACKENDS)?,
            services: open(dir, &services::SERVICES)?,
            netns: open(dir, &endpoints::NETNS)?,
            flows: open(dir, &flows::FLOWS)?,
            counters: open(dir, &statistics::COUNTERS)?,
        })
    }

    pub fn flows(&self) -> impl Iterator<Item = Result<(Tuple, Flow), DatapathError>> {
        self.flows
            .iter()
            .map(|row| row.map_err(failed("read", flows::FLOWS.name)))
    }

    pub fn flow(&self, key: &Tuple) -> Result<Option<Flow>, DatapathError> {
        match self.flows.get(key, 0) {
            Ok(row) => Ok(Some(row)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("read", flows::FLOWS.name)(error)),
        }
    }

    pub fn remove_flow(&mut self, key: &Tuple) -> Result<(), DatapathError> {
        gone(self.flows.remove(key)).map_err(failed("delete from", flows::FLOWS.name))
    }

    /// A row of the counters, summed over the processors.
    pub fn counter(&self, row: u32) -> Result<u64, DatapathError> {
        let counts = self.counters.get(&row, 0);
        let counts = counts.map_err(failed("read", statistics::COUNTERS.name))?;
        Ok(counts.iter().sum())
    }

    /// The hash maps of which every row means something, with how many there are. One call a row.
    pub fn fill(&self) -> Result<Vec<MapFill>, DatapathError> {
        let counted = [
            count(&self.endpoints, &endpoints::ENDPOINTS)?,
            count(&self.nodes, &nodes::NODES)?,
            count(&self.backends, &services::BACKENDS)?,
            count(&self.services, &services::SERVICES)?,
            count(&self.netns, &endpoints::NETNS)?,
            count(&self.flows, &flows::FLOWS)?,
        ];
        Ok(counted.into())
    }

    fn raise(&mut self, id: u32) -> Result<(), MapError> {
        let generation = self.generations.get(&id, 0)?;
        self.generations.set(id, generation.wrapping_add(1), 0)
    }
}

impl Kernel for Maps {
    fn read(&self) -> Result<Tables, DatapathError> {
        let mut tables = Tables::default();
        let config = self
            .config
            .get(&0, 0)
            .map_err(failed("read", config::CONFIG.name))?;
        if config != Config::default() {
            tables.config.insert(0, config);
        }
        read_hash(
            &self.endpoints,
            &mut tables.endpoints,
            &endpoints::ENDPOINTS,
        )?;
        read_hash(&self.nodes, &mut tables.nodes, &nodes::NODES)?;
        read_hash(&self.backends, &mut tables.backends, &services::BACKENDS)?;
        read_hash(&self.services, &mut tables.services, &services::SERVICES)?;
        read_hash(&self.netns, &mut tables.netns, &endpoints::NETNS)?;
        Ok(tables)
    }

    fn write(&mut self, op: Op) -> Result<(), DatapathError> {
        let (map, done) = match op {
            Op::PutConfig(row) => (&config::CONFIG, self.config.set(0, row, 0)),
            Op::PutEndpoint(key, row) => {
                (&endpoints::ENDPOINTS, self.endpoints.insert(key, row, 0))
            }
            Op::PutNode(key, row) => (&nodes::NODES, self.nodes.insert(key, row, 0)),
            Op::PutBackend(key, row) => (&services::BACKENDS, self.backends.insert(key, row, 0)),
            Op::PutService(key, row) => (&services::SERVICES, self.services.insert(key, row, 0)),
            Op::PutNetns(key, row) => (&endpoints::NETNS, self.netns.insert(key, row, 0)),
            Op::DeleteEndpoint(key) => (&endpoints::ENDPOINTS, gone(self.endpoints.remove(&key))),
            Op::DeleteNode(key) => (&nodes::NODES, gone(self.nodes.remove(&key))),
            Op::DeleteBackend(key) => (&services::BACKENDS, gone(self.backends.remove(&key))),
            Op::DeleteService(key) => (&services::SERVICES, gone(self.services.remove(&key))),
            Op::DeleteNetns(key) => (&endpoints::NETNS, gone(self.netns.remove(&key))),
            Op::Raise(id) => (&services::GENERATIONS, self.raise(id)),
        };
        done.map_err(failed("write to", map.name))
    }
}

/// A map that another version of us pinned under this name, or somebody else did.
fn check(dir: &Path, spec: &MapSpec) -> Result<(), DatapathError> {
    let data = pinned(dir, spec)?;
    let info = data
        .info()
        .map_err(failed("read the facts of", spec.name))?;
    // The kernel rounds a ring buffer's facts as it likes; socket storage has no row count.
    let shaped = matches!(spec.kind, MapKind::RingBuffer)
        || (info.key_size() == spec.key_size && info.value_size() == spec.value_size);
    if shaped {
        return Ok(());
    }
    Err(DatapathError::Invalid(format!(
        "{}/{} has rows of {}+{} bytes where this version has {}+{}: it was pinned by another build; \
         run `orchestrator datapath remove` for this node and start again",
        dir.display(),
        spec.name,
        info.key_size(),
        info.value_size(),
        spec.key_size,
        spec.value_size,
    )))
}

fn pinned(dir: &Path, spec: &MapSpec) -> Result<MapData, DatapathError> {
    MapData::from_pin(dir.join(spec.name)).map_err(failed("open", spec.name))
}

fn open<M: TryFrom<Map, Error = MapError>>(dir: &Path, spec: &MapSpec) -> Result<M, DatapathError> {
    let map = pinned(dir, spec)
        .and_then(|data| Map::from_map_data(data).map_err(failed("open", spec.name)))?;
    M::try_from(map).map_err(failed("open", spec.name))
}

fn read_hash<K: aya::Pod + Ord, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
    rows: &mut std::collections::BTreeMap<K, V>,
    spec: &MapSpec,
) -> Result<(), DatapathError> {
    for row in map.iter() {
        let (key, value) = row.map_err(failed("read", spec.name))?;
        rows.insert(key, value);
    }
    Ok(())
}

fn count<K: aya::Pod, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
    spec: &MapSpec,
) -> Result<MapFill, DatapathError> {
    let mut rows = 0;
    for key in map.keys() {
        key.map_err(failed("read", spec.name))?;
        rows += 1;
        // The datapath takes rows away meanwhile: the kernel then begins anew.
        if rows == u64::from(spec.max_entries) {
            break;
        }
    }
    Ok(MapFill {
        name: spec.name,
        rows,
        most: spec.max_entries.into(),
    })
}

/// Deleting what is absent succeeds.
fn gone(done: Result<(), MapError>) -> Result<(), MapError> {
    match done {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        done => done,
    }
}

fn failed(what: &'static str, map: &'static str) -> impl FnOnce(MapError) -> DatapathError {
    move |error| DatapathError::kernel(format!("{what} the map {map}"), error)
}
