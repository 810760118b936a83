//! The pinned maps: typed, and checked against `orchestrator_common::MAPS` before they are used.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use aya::maps::hash_map::HashMap;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::of_maps::HashOfMaps;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use orchestrator_common::maps::affinity::{self, Affinity, AffinityKey};
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::{Endpoint, Netns};
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey, SourceRange};
use orchestrator_common::maps::sockets::SocketService;
use orchestrator_common::maps::statistics::Connections;
use orchestrator_common::maps::{INNER_MAP, announced};
use orchestrator_common::maps::{config, endpoints, flows, nodes, services, sockets, statistics};
use orchestrator_common::{Addr, MAPS, MapKind, MapSpec, Tuple};

use super::DatapathError;
use super::delta::Op;
use super::kernel::Kernel;
use super::syscall::rows;
use super::table::{Admitted, Tables};

/// The rest of a `source_ranges_v1` key after its prefix length: Service number, address.
type Range = [u32; 5];

/// Shorter runs of writes to one map are written one by one.
const BATCH: usize = 16;

/// Maglev tables that are made at once: each is a descriptor for that moment.
const TABLES: usize = 128;

/// Every map that user space reads or writes.
pub struct Maps {
    config: Array<MapData, Config>,
    endpoints: HashMap<MapData, Addr, Endpoint>,
    nodes: HashMap<MapData, Addr, Node>,
    generations: Array<MapData, u32>,
    backends: Batched<BackendKey, Backend>,
    maglev: Maglev,
    source_ranges: LpmTrie<MapData, Range, u32>,
    services: Batched<ServiceKey, Service>,
    announced: HashMap<MapData, Addr, u32>,
    netns: HashMap<MapData, u64, Netns>,
    flows: HashMap<MapData, Tuple, Flow>,
    affinity: HashMap<MapData, AffinityKey, Affinity>,
    socket_services: HashMap<MapData, u64, SocketService>,
    counters: PerCpuArray<MapData, u64>,
    service_counters: PerCpuHashMap<MapData, u32, Connections>,
    backend_counters: PerCpuHashMap<MapData, u32, Connections>,
}

/// How many rows a map has, and how many it can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFill {
    pub name: &'static str,
    pub rows: u64,
    pub most: u64,
}

/// A hash of which many rows are read or written at once.
struct Batched<K, V> {
    map: HashMap<MapData, K, V>,
    fd: OwnedFd,
    spec: &'static MapSpec,
}

/// `maglev_v1` and the arrays in it.
struct Maglev {
    outer: HashOfMaps<MapData, u32, MapData>,
    fd: OwnedFd,
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
            backends: Batched::open(dir, &services::BACKENDS)?,
            maglev: Maglev {
                outer: open(dir, &services::MAGLEV)?,
                fd: descriptor(dir, &services::MAGLEV)?,
            },
            source_ranges: open(dir, &services::SOURCE_RANGES)?,
            services: Batched::open(dir, &services::SERVICES)?,
            announced: open(dir, &announced::ANNOUNCED)?,
            netns: open(dir, &endpoints::NETNS)?,
            flows: open(dir, &flows::FLOWS)?,
            affinity: open(dir, &affinity::AFFINITY)?,
            socket_services: open(dir, &sockets::SOCKET_SERVICES)?,
            counters: open(dir, &statistics::COUNTERS)?,
            service_counters: open(dir, &statistics::SERVICE_COUNTERS)?,
            backend_counters: open(dir, &statistics::BACKEND_COUNTERS)?,
        })
    }

    pub fn flows(&self) -> impl Iterator<Item = Result<(Tuple, Flow), DatapathError>> {
        let rows = self.flows.iter();
        rows.map(|row| row.map_err(failed("read", flows::FLOWS.name)))
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

    pub fn affinities(
        &self,
    ) -> impl Iterator<Item = Result<(AffinityKey, Affinity), DatapathError>> {
        let rows = self.affinity.iter();
        rows.map(|row| row.map_err(failed("read", affinity::AFFINITY.name)))
    }

    pub fn affinity(&self, key: &AffinityKey) -> Result<Option<Affinity>, DatapathError> {
        match self.affinity.get(key, 0) {
            Ok(row) => Ok(Some(row)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("read", affinity::AFFINITY.name)(error)),
        }
    }

    pub fn put_affinity(&mut self, key: &AffinityKey, row: &Affinity) -> Result<(), DatapathError> {
        let done = self.affinity.insert(key, row, 0);
        done.map_err(failed("write to", affinity::AFFINITY.name))
    }

    pub fn generation(&self, backend: u32) -> Result<u32, DatapathError> {
        let generation = self.generations.get(&backend, 0);
        generation.map_err(failed("read", services::GENERATIONS.name))
    }

    pub fn remove_affinity(&mut self, key: &AffinityKey) -> Result<(), DatapathError> {
        gone(self.affinity.remove(key)).map_err(failed("delete from", affinity::AFFINITY.name))
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
            count(&self.backends.map, &services::BACKENDS)?,
            count(&self.services.map, &services::SERVICES)?,
            count(&self.announced, &announced::ANNOUNCED)?,
            count(&self.netns, &endpoints::NETNS)?,
            count(&self.affinity, &affinity::AFFINITY)?,
            count(&self.flows, &flows::FLOWS)?,
            count(&self.socket_services, &sockets::SOCKET_SERVICES)?,
        ];
        Ok(counted.into())
    }

    /// Connections by Service number, summed over the processors.
    pub fn service_counters(&self) -> Result<BTreeMap<u32, Connections>, DatapathError> {
        connections(&self.service_counters, &statistics::SERVICE_COUNTERS)
    }

    /// Connections by backend number, summed over the processors.
    pub fn backend_counters(&self) -> Result<BTreeMap<u32, Connections>, DatapathError> {
        connections(&self.backend_counters, &statistics::BACKEND_COUNTERS)
    }

    /// A number that is given back takes its counters along.
    pub fn remove_service_counter(&mut self, id: u32) -> Result<(), DatapathError> {
        let done = gone(self.service_counters.remove(&id));
        done.map_err(failed("delete from", statistics::SERVICE_COUNTERS.name))
    }

    pub fn remove_backend_counter(&mut self, id: u32) -> Result<(), DatapathError> {
        let done = gone(self.backend_counters.remove(&id));
        done.map_err(failed("delete from", statistics::BACKEND_COUNTERS.name))
    }

    fn raise(&mut self, id: u32) -> Result<(), MapError> {
        let generation = self.generations.get(&id, 0)?;
        self.generations.set(id, generation.wrapping_add(1), 0)?;
        gone(self.backend_counters.remove(&id))
    }

    fn delete_service(&mut self, key: &ServiceKey, id: u32) -> Result<(), MapError> {
        gone(self.services.map.remove(key))?;
        gone(self.service_counters.remove(&id))
    }

    fn write_one(&mut self, op: &Op) -> Result<(), DatapathError> {
        let (map, done) = match op {
            Op::PutConfig(row) => (&config::CONFIG, self.config.set(0, row, 0)),
            Op::PutEndpoint(key, row) => {
                (&endpoints::ENDPOINTS, self.endpoints.insert(key, row, 0))
            }
            Op::PutNode(key, row) => (&nodes::NODES, self.nodes.insert(key, row, 0)),
            Op::PutBackend(key, row) => {
                (&services::BACKENDS, self.backends.map.insert(key, row, 0))
            }
            Op::PutMaglev(id, table) => return self.maglev.put(&[(*id, table.clone())]).1,
            Op::PutSourceRange(row) => {
                let done = self.source_ranges.insert(&range_key(*row), 1, 0);
                (&services::SOURCE_RANGES, done)
            }
            Op::PutService(key, row) => {
                (&services::SERVICES, self.services.map.insert(key, row, 0))
            }
            Op::PutAnnounced(addr) => (&announced::ANNOUNCED, self.announced.insert(addr, 1, 0)),
            Op::PutNetns(key, row) => (&endpoints::NETNS, self.netns.insert(key, row, 0)),
            Op::DeleteEndpoint(key) => (&endpoints::ENDPOINTS, gone(self.endpoints.remove(key))),
            Op::DeleteNode(key) => (&nodes::NODES, gone(self.nodes.remove(key))),
            Op::DeleteBackend(key) => (&services::BACKENDS, gone(self.backends.map.remove(key))),
            Op::DeleteMaglev(id) => (&services::MAGLEV, gone(self.maglev.outer.remove(id))),
            Op::DeleteSourceRange(row) => {
                let done = self.source_ranges.remove(&range_key(*row));
                (&services::SOURCE_RANGES, gone(done))
            }
            Op::DeleteService(key, id) => (&services::SERVICES, self.delete_service(key, *id)),
            Op::DeleteAnnounced(addr) => (&announced::ANNOUNCED, gone(self.announced.remove(addr))),
            Op::DeleteNetns(key) => (&endpoints::NETNS, gone(self.netns.remove(key))),
            Op::Raise(id) => (&services::GENERATIONS, self.raise(*id)),
        };
        done.map_err(failed("write to", map.name))
    }

    /// The writes at the head of `ops` that can go in one call, if they are worth one.
    fn write_run(&mut self, ops: &[Op]) -> Option<(usize, Result<(), DatapathError>)> {
        match ops.first()? {
            Op::PutBackend(..) => self.backends.put(ops, |op| match op {
                Op::PutBackend(key, row) => Some((*key, *row)),
                _ => None,
            }),
            Op::PutService(..) => self.services.put(ops, |op| match op {
                Op::PutService(key, row) => Some((*key, *row)),
                _ => None,
            }),
            Op::PutMaglev(..) => {
                let tables = ops.iter().take(TABLES).map_while(|op| match op {
                    Op::PutMaglev(id, table) => Some((*id, table.clone())),
                    _ => None,
                });
                Some(self.maglev.put(&tables.collect::<Vec<_>>()))
            }
            _ => None,
        }
    }
}

impl Kernel for Maps {
    fn read(&self) -> Result<Tables, DatapathError> {
        let mut tables = Tables::default();
        let config = self.config.get(&0, 0);
        let config = config.map_err(failed("read", config::CONFIG.name))?;
        if config != Config::default() {
            tables.config.insert(0, config);
        }
        tables.endpoints = read_hash(&self.endpoints, &endpoints::ENDPOINTS)?;
        tables.nodes = read_hash(&self.nodes, &nodes::NODES)?;
        tables.backends = self.backends.read()?;
        tables.maglev = self.maglev.read()?;
        for key in self.source_ranges.keys() {
            let key = key.map_err(failed("read", services::SOURCE_RANGES.name))?;
            tables.source_ranges.insert(admitted(&key));
        }
        tables.services = self.services.read()?;
        let announced = read_hash(&self.announced, &announced::ANNOUNCED)?;
        tables.announced = announced.into_keys().collect();
        tables.netns = read_hash(&self.netns, &endpoints::NETNS)?;
        Ok(tables)
    }

    fn remembered(&self) -> Result<BTreeSet<u32>, DatapathError> {
        let flows = self.flows().map(|row| Ok(row?.1.backend));
        let clients = self.affinities().map(|row| Ok(row?.1.backend.id));
        let numbers: Result<BTreeSet<u32>, DatapathError> = flows.chain(clients).collect();
        // A flow that is not translated has none.
        numbers.map(|numbers| &numbers - &BTreeSet::from([0]))
    }

    fn write(&mut self, ops: &[Op]) -> (usize, Result<(), DatapathError>) {
        let mut done = 0;
        while let Some(next) = ops.get(done) {
            let (written, outcome) = match self.write_run(&ops[done..]) {
                Some(run) => run,
                None => match self.write_one(next) {
                    Ok(()) => (1, Ok(())),
                    Err(error) => (0, Err(error)),
                },
            };
            done += written;
            if outcome.is_err() {
                return (done, outcome);
            }
        }
        (done, Ok(()))
    }
}

impl<K, V> Batched<K, V>
where
    K: aya::Pod + Default + Ord,
    V: aya::Pod + Default,
{
    fn open(dir: &Path, spec: &'static MapSpec) -> Result<Self, DatapathError> {
        Ok(Self {
            map: open(dir, spec)?,
            fd: descriptor(dir, spec)?,
            spec,
        })
    }

    fn read(&self) -> Result<BTreeMap<K, V>, DatapathError> {
        let mut rows = Vec::new();
        rows::read(self.fd.as_fd(), |key, value| rows.push((key, value)))
            .map_err(refused("read", self.spec))?;
        // Sorted first, the tree is built in one go.
        Ok(rows.into_iter().collect())
    }

    fn put(
        &self,
        ops: &[Op],
        row: impl Fn(&Op) -> Option<(K, V)>,
    ) -> Option<(usize, Result<(), DatapathError>)> {
        let (keys, values): (Vec<K>, Vec<V>) = ops.iter().map_while(row).unzip();
        if keys.len() < BATCH {
            return None;
        }
        let (done, outcome) = rows::update(self.fd.as_fd(), &keys, &values);
        Some((done, outcome.map_err(refused("write to", self.spec))))
    }
}

impl Maglev {
    /// Puts tables in, each whole. One of the length that is there already is written into the array that
    /// stands: every position leads to a slot that exists, before and after, and to replace an array the
    /// kernel waits until no program can be reading the old one.
    fn put(&self, tables: &[(u32, Arc<[u16]>)]) -> (usize, Result<(), DatapathError>) {
        let (mut ids, mut arrays, mut filled) = (Vec::new(), Vec::new(), Ok(()));
        let mut done = 0;
        for (id, table) in tables {
            match self.array(*id, table) {
                Ok(None) => {}
                Ok(Some(array)) => {
                    ids.push(*id);
                    arrays.push(array);
                }
                Err(error) => {
                    filled = Err(error);
                    break;
                }
            }
            done += 1;
        }
        if ids.is_empty() {
            return (done, filled);
        }
        let fds: Vec<u32> = arrays.iter().map(|fd| fd.as_raw_fd() as u32).collect();
        let (inserted, outcome) = rows::update(self.fd.as_fd(), &ids, &fds);
        match outcome.map_err(refused("write to", &services::MAGLEV)) {
            Ok(()) => (done, filled),
            Err(error) => {
                let missing = |(id, _): &(u32, _)| *id == ids[inserted];
                (tables.iter().position(missing).unwrap_or(0), Err(error))
            }
        }
    }

    /// A new array with the table, or `None` when it is in the one that stands.
    fn array(&self, id: u32, table: &[u16]) -> Result<Option<OwnedFd>, DatapathError> {
        let keys: Vec<u32> = (0..table.len() as u32).collect();
        let slots: Vec<u32> = table.iter().map(|slot| u32::from(*slot)).collect();
        let fill = |array: BorrowedFd<'_>| {
            let (_, outcome) = rows::update(array, &keys, &slots);
            outcome.map_err(refused("fill a table of", &services::MAGLEV))
        };
        match self.outer.get(&id, 0) {
            Ok(standing) if length(&standing)? as usize == table.len() => {
                fill(standing.fd().as_fd()).map(|()| None)
            }
            Ok(_) | Err(MapError::KeyNotFound) => {
                let array =
                    rows::array(b"maglev\0\0\0\0\0\0\0\0\0\0", keys.len() as u32, INNER_MAP);
                let array = array.map_err(refused("make a table of", &services::MAGLEV))?;
                fill(array.as_fd())?;
                Ok(Some(array))
            }
            Err(error) => Err(failed("read", services::MAGLEV.name)(error)),
        }
    }

    fn read(&self) -> Result<BTreeMap<u32, Arc<[u16]>>, DatapathError> {
        let mut tables = BTreeMap::new();
        for id in self.outer.keys() {
            let id = id.map_err(failed("read", services::MAGLEV.name))?;
            let array = self.outer.get(&id, 0);
            let array: MapData = array.map_err(failed("read", services::MAGLEV.name))?;
            let mut table = vec![0_u16; length(&array)? as usize];
            let slot_of = |position: u32, slot: u32| {
                table[position as usize] = slot as u16;
            };
            rows::read(array.fd().as_fd(), slot_of)
                .map_err(refused("read a table of", &services::MAGLEV))?;
            tables.insert(id, table.into());
        }
        Ok(tables)
    }
}

fn length(array: &MapData) -> Result<u32, DatapathError> {
    let info = array.info();
    let info = info.map_err(failed(
        "read the facts of a table of",
        services::MAGLEV.name,
    ))?;
    Ok(info.max_entries())
}

fn range_key(row: Admitted) -> Key<Range> {
    let row = SourceRange::from(row);
    let [a, b, c, d] = row.addr.words;
    Key::new(row.prefix_length, [row.service, a, b, c, d])
}

fn admitted(key: &Key<Range>) -> Admitted {
    let [service, a, b, c, d] = key.data();
    let addr = Addr {
        words: [a, b, c, d],
    };
    Admitted::from(SourceRange {
        prefix_length: key.prefix_len(),
        service,
        addr,
    })
}

fn connections(
    map: &PerCpuHashMap<MapData, u32, Connections>,
    spec: &MapSpec,
) -> Result<BTreeMap<u32, Connections>, DatapathError> {
    let mut sums = BTreeMap::new();
    for row in map.iter() {
        let (number, counts) = row.map_err(failed("read", spec.name))?;
        let sum = counts
            .iter()
            .fold(Connections::default(), |sum, count| Connections {
                opened: sum.opened + count.opened,
                refused: sum.refused + count.refused,
            });
        sums.insert(number, sum);
    }
    Ok(sums)
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

fn descriptor(dir: &Path, spec: &MapSpec) -> Result<OwnedFd, DatapathError> {
    let data = pinned(dir, spec)?;
    let fd = data.fd().as_fd().try_clone_to_owned();
    fd.map_err(refused("open", spec))
}

fn read_hash<K: aya::Pod + Ord, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
    spec: &MapSpec,
) -> Result<BTreeMap<K, V>, DatapathError> {
    map.iter()
        .map(|row| row.map_err(failed("read", spec.name)))
        .collect()
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

pub fn failed(what: &'static str, map: &'static str) -> impl FnOnce(MapError) -> DatapathError {
    move |error| DatapathError::kernel(format!("{what} the map {map}"), error)
}

fn refused(what: &'static str, spec: &MapSpec) -> impl FnOnce(io::Error) -> DatapathError {
    let map = spec.name;
    move |error| DatapathError::io(format!("{what} the map {map}"), error)
}
