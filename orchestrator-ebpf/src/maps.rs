//! The maps as the programs see them, and the only `unsafe` for their rows. Sizes and names are the
//! table's of
//! `orchestrator_common::maps`; the loader checks that they agree.

use aya_ebpf::btf_maps::{
    Array, HashMap, HashOfMaps, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf,
    SkStorage, lpm_trie,
};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::SockAddrContext;
use orchestrator_common::maps::affinity::{AFFINITY as AFFINITY_SPEC, Affinity, AffinityKey};
use orchestrator_common::maps::announced::ANNOUNCED as ANNOUNCED_SPEC;
use orchestrator_common::maps::config::{CONFIG as CONFIG_SPEC, Config};
use orchestrator_common::maps::endpoints::{
    ENDPOINTS as ENDPOINTS_SPEC, Endpoint, NETNS as NETNS_SPEC, Netns,
};
use orchestrator_common::maps::flows::{
    self, FLOWS as FLOWS_SPEC, Flow, REPLIERS as REPLIERS_SPEC,
};
use orchestrator_common::maps::fragments::{
    FRAGMENTS as FRAGMENTS_SPEC, FragmentKey, FragmentPorts,
};
use orchestrator_common::maps::nodes::{NODES as NODES_SPEC, Node};
use orchestrator_common::maps::services::{
    BACKENDS as BACKENDS_SPEC, Backend, BackendKey, GENERATIONS as GENERATIONS_SPEC,
    MAGLEV as MAGLEV_SPEC, SERVICES as SERVICES_SPEC, SOURCE_RANGES as SOURCE_RANGES_SPEC, Service,
    ServiceKey,
};
use orchestrator_common::maps::sockets::{SOCKET_SERVICES as SOCKET_SERVICES_SPEC, SocketService};
use orchestrator_common::maps::statistics::{
    BACKEND_COUNTERS as BACKEND_COUNTERS_SPEC, COUNTERS as COUNTERS_SPEC, Connections,
    DROPS as DROPS_SPEC, SERVICE_COUNTERS as SERVICE_COUNTERS_SPEC, UNREMEMBERED,
};
use orchestrator_common::maps::{INNER_MAP, NO_PREALLOC};
use orchestrator_common::{Addr, DropReason, MapSpec, Port, Tuple};

use crate::conntrack::Opening;
use crate::packet::Headers;
use crate::pieces::Pieces;
use crate::refusal::Draft;

/// A hash of the table's size. Rows are allocated when they are written.
type Hash<K, V, const ENTRIES: usize> = HashMap<K, V, ENTRIES, { NO_PREALLOC as usize }>;

type PerCpu<K, V, const ENTRIES: usize> = PerCpuHashMap<K, V, ENTRIES, { NO_PREALLOC as usize }>;

const fn entries(spec: MapSpec) -> usize {
    spec.max_entries as usize
}

#[btf_map(name = "config_v3")]
static CONFIG: Array<Config, { entries(CONFIG_SPEC) }> = Array::new();
#[btf_map(name = "endpoints_v1")]
static ENDPOINTS: Hash<Addr, Endpoint, { entries(ENDPOINTS_SPEC) }> = Hash::new();
#[btf_map(name = "netns_v2")]
static NETNS: Hash<u64, Netns, { entries(NETNS_SPEC) }> = Hash::new();
#[btf_map(name = "nodes_v1")]
static NODES: Hash<Addr, Node, { entries(NODES_SPEC) }> = Hash::new();
#[btf_map(name = "services_v1")]
static SERVICES: Hash<ServiceKey, Service, { entries(SERVICES_SPEC) }> = Hash::new();
#[btf_map(name = "backends_v1")]
static BACKENDS: Hash<BackendKey, Backend, { entries(BACKENDS_SPEC) }> = Hash::new();
#[btf_map(name = "maglev_v1")]
static MAGLEV: HashOfMaps<u32, Array<u32, 1, { INNER_MAP as usize }>, { entries(MAGLEV_SPEC) }> =
    HashOfMaps::new();
#[btf_map(name = "source_ranges_v1")]
static SOURCE_RANGES: LpmTrie<[u32; 5], u32, { entries(SOURCE_RANGES_SPEC) }> = LpmTrie::new();
#[btf_map(name = "announced_v1")]
static ANNOUNCED: Hash<Addr, u32, { entries(ANNOUNCED_SPEC) }> = Hash::new();
#[btf_map(name = "generations_v1")]
static GENERATIONS: Array<u32, { entries(GENERATIONS_SPEC) }> = Array::new();
#[btf_map(name = "flows_v1")]
static FLOWS: Hash<Tuple, Flow, { entries(FLOWS_SPEC) }> = Hash::new();
#[btf_map(name = "repliers_v1")]
static REPLIERS: Array<[u8; { REPLIERS_SPEC.value_size as usize }], { entries(REPLIERS_SPEC) }> =
    Array::new();
#[btf_map(name = "fragments_v1")]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, { entries(FRAGMENTS_SPEC) }> =
    LruHashMap::new();
#[btf_map(name = "affinity_v1")]
static AFFINITY: Hash<AffinityKey, Affinity, { entries(AFFINITY_SPEC) }> = Hash::new();
#[btf_map(name = "service_counters_v1")]
static SERVICE_COUNTERS: PerCpu<u32, Connections, { entries(SERVICE_COUNTERS_SPEC) }> =
    PerCpu::new();
#[btf_map(name = "backend_counters_v1")]
static BACKEND_COUNTERS: PerCpu<u32, Connections, { entries(BACKEND_COUNTERS_SPEC) }> =
    PerCpu::new();
#[btf_map(name = "counters_v1")]
static COUNTERS: PerCpuArray<u64, { entries(COUNTERS_SPEC) }> = PerCpuArray::new();
#[btf_map(name = "drops_v2")]
pub static DROPS: RingBuf<(), { entries(DROPS_SPEC) }> = RingBuf::new();
#[btf_map(name = "socket_services_v2")]
static SOCKET_SERVICES: Hash<u64, SocketService, { entries(SOCKET_SERVICES_SPEC) }> = Hash::new();
#[btf_map(name = "socket_services_v1")]
static SOCKET_STORAGE: SkStorage<SocketService> = SkStorage::new();
/// Not of the contract, nor pinned: what is too large for the stack of a program.
#[btf_map]
static OPENING: PerCpuArray<Opening, 1> = PerCpuArray::new();

/// The same, for a packet that is cut.
#[btf_map(name = "pieces")]
static PIECES: PerCpuArray<Pieces, 1> = PerCpuArray::new();

#[btf_map(name = "draft")]
static DRAFT: PerCpuArray<Draft, 1> = PerCpuArray::new();

/// A key of `source_ranges_v1` that asks for one address: the Service's number and all of it.
const ADMITTED_BITS: u32 = 32 + 128;

/// Of the program that runs on this processor, and nobody else's: so not in the table, and not
/// pinned.
#[btf_map(name = "headers")]
static HEADERS: PerCpuArray<Headers, 2> = PerCpuArray::new();

/// BPF_NOEXIST of bpf(2).
const NO_EXIST: u64 = 1;
const EEXIST: i32 = -17;

/// Room for what a program knows of its packet.
#[inline(always)]
pub fn headers() -> Option<&'static mut Headers> {
    let row = HEADERS.get_ptr_mut(0)?;
    // SAFETY: this processor's own row, for one program at a time: they run one after the other, and
    // each takes it once.
    Some(unsafe { &mut *row })
}

/// The same for the packet that an ICMP error quotes. What its headers say stays there from lookup
/// to rewriting, and nobody holds on to it.
#[inline(always)]
pub fn quote() -> Option<&'static mut Headers> {
    let row = HEADERS.get_ptr_mut(1)?;
    // SAFETY: as above.
    Some(unsafe { &mut *row })
}

#[inline(always)]
pub fn fragment_ports(key: &FragmentKey) -> Option<&'static FragmentPorts> {
    // SAFETY: as for all rows, see below; a row that is reused meanwhile is one packet's bad luck.
    unsafe { FRAGMENTS.get(key) }
}

/// The least recently used row makes room; where even that fails, the later fragments are dropped.
#[inline(always)]
pub fn set_fragment_ports(key: &FragmentKey, ports: &FragmentPorts) {
    let _ = FRAGMENTS.insert(key, ports, 0);
}

#[inline(always)]
pub fn config() -> Result<&'static Config, DropReason> {
    match CONFIG.get(0) {
        Some(config) if config.uplink != 0 => Ok(config),
        _ => Err(DropReason::NoConfig),
    }
}

// A row may be changed while it is read: the agent replaces rows as a whole, so at worst a reader
// sees the old row, or a mixture for one packet. All rows are plain integers.

#[inline(always)]
pub fn endpoint(addr: &Addr) -> Option<&'static Endpoint> {
    // SAFETY: the row stays readable until the program ends (RCU).
    unsafe { ENDPOINTS.get(addr) }
}

#[inline(always)]
pub fn netns(cookie: u64) -> Option<&'static Netns> {
    // SAFETY: as above.
    unsafe { NETNS.get(&cookie) }
}

/// The node that owns a share of the pod range.
#[inline(always)]
pub fn node(share: &Addr) -> Option<&'static Node> {
    // SAFETY: as above.
    unsafe { NODES.get(share) }
}

/// A row by value. The kernel gives the memory of a row that is replaced to another row at once
/// (hashes without preallocation, Linux 6.1), also under a program that has just found it. So what
/// was read counts only while it still stands there: else a connection goes to another Service.
/// None, also if it does not.
#[inline(always)]
fn settled<V: Copy + 'static>(
    find: impl Fn() -> Option<&'static V>,
    same: impl Fn(&V, &V) -> bool,
) -> Option<V> {
    // SAFETY: references. Volatile, so that each is read where it says so, and once.
    let row = unsafe { core::ptr::read_volatile(find()?) };
    let now = unsafe { core::ptr::read_volatile(find()?) };
    same(&row, &now).then_some(row)
}

#[inline(always)]
pub fn service(key: &ServiceKey) -> Option<Service> {
    // SAFETY: as above.
    let find = || unsafe { SERVICES.get(key) };
    settled(find, |a, b| {
        a.id == b.id && a.count == b.count && a.flags == b.flags && a.affinity_s == b.affinity_s
    })
}

#[inline(always)]
pub fn backend(service: u32, slot: u32) -> Option<Backend> {
    let key = BackendKey { service, slot };
    // SAFETY: as above.
    let find = || unsafe { BACKENDS.get(&key) };
    settled(find, |a, b| {
        a.id == b.id && a.port.wire == b.port.wire && a.addr.same(&b.addr)
    })
}

/// Whether this node answers for an address on its uplink's link.
#[inline(always)]
pub fn is_announced(addr: &Addr) -> bool {
    // SAFETY: as above.
    unsafe { ANNOUNCED.get(addr) }.is_some()
}

#[inline(always)]
pub fn generation(backend: u32) -> u32 {
    GENERATIONS.get(backend).copied().unwrap_or(0)
}

#[inline(always)]
pub fn flow(key: &Tuple) -> Option<&'static mut Flow> {
    let row = FLOWS.get_ptr_mut(key)?;
    // SAFETY: as above; several processors may write the row's plain integers, the last one wins.
    Some(unsafe { &mut *row })
}

/// Whether a Service's flow may have its answers from there: if not, there is no such row.
#[inline(always)]
pub fn may_reply(from: &Addr, port: Port) -> bool {
    let (row, byte) = flows::replier(from, port);
    REPLIERS.get(row).is_none_or(|row| row[byte as usize] != 0)
}

/// Notes that one will. Before its row goes in.
#[inline(always)]
pub fn note_replier(from: &Addr, port: Port) {
    let (row, byte) = flows::replier(from, port);
    if let Some(row) = REPLIERS.get_ptr_mut(row) {
        // SAFETY: a byte, which all processors write alike.
        unsafe { (*row)[byte as usize] = 1 };
    }
}

/// What a socket asked for.
#[inline(always)]
pub fn socket_service(ctx: &SockAddrContext, cookie: u64) -> Option<&'static SocketService> {
    // SAFETY: as above. The row is the socket's own, which is there as long as the program runs for it.
    unsafe {
        SOCKET_SERVICES
            .get(&cookie)
            .or_else(|| SOCKET_STORAGE.get_ptr_mut(ctx).as_ref())
    }
}

/// Without room for it anywhere the socket works and shows the other address.
#[inline(always)]
pub fn set_socket_service(ctx: &SockAddrContext, cookie: u64, row: &mut SocketService) {
    if SOCKET_SERVICES.insert(&cookie, &*row, 0).is_ok() {
        return;
    }
    // SAFETY: as above; it is made with the row in it, or has an older one.
    unsafe {
        let kept = SOCKET_STORAGE.get_or_insert_ptr_mut(ctx, Some(row));
        if !kept.is_null() {
            *kept = *row;
        }
    }
}

#[inline(always)]
pub fn remove_socket_service(cookie: u64) {
    // Most sockets have none.
    let _ = SOCKET_SERVICES.remove(&cookie);
}

/// The row of an answer to a Service's flow.
#[inline(always)]
pub fn answer(key: &Tuple) -> Option<&'static mut Flow> {
    if !may_reply(&key.src, key.src_port) {
        return None;
    }
    flow(key)
}

/// Whether the row went in; `Ok(false)` if there was one.
#[inline(always)]
pub fn insert_flow(key: &Tuple, flow: &Flow) -> Result<bool, DropReason> {
    match FLOWS.insert(key, flow, NO_EXIST) {
        Ok(()) => Ok(true),
        Err(EEXIST) => Ok(false),
        Err(_) => Err(DropReason::FlowTableFull),
    }
}

#[inline(always)]
pub fn replace_flow(key: &Tuple, flow: &Flow) -> Result<(), DropReason> {
    FLOWS
        .insert(key, flow, 0)
        .map_err(|_| DropReason::FlowTableFull)
}

#[inline(always)]
pub fn remove_flow(key: &Tuple) {
    // What is not there is gone.
    let _ = FLOWS.remove(key);
}

/// This processor's flow in the making. Only for the tcx programs, which nothing interrupts that
/// opens flows.
#[inline(always)]
pub fn opening() -> Result<&'static mut Opening, DropReason> {
    let row = OPENING.get_ptr_mut(0).ok_or(DropReason::Helper)?;
    // SAFETY: the only row, plain integers; each program takes it once.
    Ok(unsafe { &mut *row })
}

/// Room for the refusal of this processor's packet.
#[inline(always)]
pub fn draft() -> Result<&'static mut Draft, DropReason> {
    let row = DRAFT.get_ptr_mut(0).ok_or(DropReason::Helper)?;
    // SAFETY: as above.
    Ok(unsafe { &mut *row })
}

/// Room for the pieces of this processor's packet.
#[inline(always)]
pub fn pieces() -> Result<&'static mut Pieces, DropReason> {
    let row = PIECES.get_ptr_mut(0).ok_or(DropReason::Helper)?;
    // SAFETY: as above.
    Ok(unsafe { &mut *row })
}

/// The slot at a position of a Service's Maglev table.
#[inline(always)]
pub fn maglev(service: u32, position: u32) -> Option<u32> {
    // SAFETY: rows and inner maps stay readable until the program ends (RCU).
    unsafe { MAGLEV.get_value(&service, &position) }.copied()
}

/// Whether a Service's source ranges have the client.
#[inline(always)]
pub fn is_admitted(service: u32, client: &Addr) -> bool {
    let [a, b, c, d] = client.words;
    let key = lpm_trie::Key::new(ADMITTED_BITS, [service, a, b, c, d]);
    SOURCE_RANGES.get(&key).is_some()
}

#[inline(always)]
pub fn affinity(key: &AffinityKey) -> Option<Affinity> {
    // SAFETY: as above.
    let find = || unsafe { AFFINITY.get(key) };
    settled(find, |a, b| {
        a.backend.id == b.backend.id
            && a.backend.port.wire == b.backend.port.wire
            && a.backend.addr.same(&b.backend.addr)
            && a.generation == b.generation
    })
}

/// Without room it is counted.
#[inline(always)]
pub fn set_affinity(key: &AffinityKey, row: &Affinity) {
    if AFFINITY.insert(key, row, 0).is_err() {
        count(UNREMEMBERED);
    }
}

/// Counts a connection that a Service took, under the Service and the backend that it was given.
#[inline(always)]
pub fn count_opened(service: u32, backend: u32) {
    let opened = Connections {
        opened: 1,
        refused: 0,
    };
    add(SERVICE_COUNTERS.get_ptr_mut(service), &opened, |row| {
        SERVICE_COUNTERS.insert(service, row, NO_EXIST)
    });
    add(BACKEND_COUNTERS.get_ptr_mut(backend), &opened, |row| {
        BACKEND_COUNTERS.insert(backend, row, NO_EXIST)
    });
}

/// Counts one that a Service did not take.
#[inline(always)]
pub fn count_refused(service: u32) {
    let refused = Connections {
        opened: 0,
        refused: 1,
    };
    add(SERVICE_COUNTERS.get_ptr_mut(service), &refused, |row| {
        SERVICE_COUNTERS.insert(service, row, NO_EXIST)
    });
}

/// Adds to this processor's row, or makes the first. A full table counts no more.
#[inline(always)]
fn add(
    row: Option<*mut Connections>,
    more: &Connections,
    insert: impl FnOnce(&Connections) -> Result<(), i32>,
) {
    match row {
        // SAFETY: this processor's own row.
        Some(row) => unsafe {
            (*row).opened += more.opened;
            (*row).refused += more.refused;
        },
        None => {
            let _ = insert(more);
        }
    }
}

#[inline(always)]
pub fn count(row: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(row) {
        // SAFETY: this processor's own row.
        unsafe { *counter += 1 };
    }
}

/// CLOCK_MONOTONIC_COARSE: a read of memory, not of the clock.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

#[inline(always)]
pub fn random() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_prandom_u32() }
}
