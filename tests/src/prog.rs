//! Runs the real programs over a packet: loads the datapath's object with maps of its own (nothing
//! is pinned or attached), fills them, and reads what came out, with the trace that the programs
//! leave in `skb->cb`.

mod pinned;
mod tunnel;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use aya::maps::lpm_trie::Key;
use aya::maps::{
    Array, HashMap, HashOfMaps, LpmTrie, MapData, MapError, PerCpuArray, PerCpuHashMap, RingBuf,
};
use aya::programs::{Program, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use datapath::events;
use datapath::lookup::tunnel::Wrapped;
use datapath::table::Tables;
use orchestrator_common::event::Hook;
use orchestrator_common::maps::INNER_MAP;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::flows::{FLOWS, Flow};
use orchestrator_common::maps::statistics::{Connections, reason_row, verdict_row};
use orchestrator_common::{Addr, DropEvent, DropReason, Trace, Tuple, Verdict};

pub use pinned::Pinned;
use tunnel::Tunnel;

/// The size of `struct __sk_buff`, and where it has what tests read and write.
const SK_BUFF: usize = 192;
const SK_BUFF_IFINDEX: usize = 40;
const SK_BUFF_CB: usize = 48;
const SK_BUFF_GSO_SEGS: usize = 164;
const SK_BUFF_GSO_SIZE: usize = 176;

/// The loopback device, which every network namespace has: where a test's packets come from unless
/// it says otherwise.
pub const LOOPBACK: u32 = 1;

/// Says that a test was skipped for want of a privilege, and fails where that must not happen.
pub fn skipped(test: &str, why: &str) {
    // Not `eprintln!`: the test runner shows that of failing tests only.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "CI=true and {test} was skipped: {why}"
    );
}

/// Whether programs can be loaded here; otherwise reports `test` as skipped.
pub fn can_load(test: &str) -> bool {
    if !nix::unistd::geteuid().is_root() {
        skipped(test, "loading programs needs root");
        return false;
    }
    if !object_path().exists() {
        skipped(
            test,
            "no datapath object: run `cargo xtask build-ebpf` first",
        );
        return false;
    }
    true
}

/// Where `cargo xtask build-ebpf` puts the object.
pub fn object_path() -> PathBuf {
    if let Some(path) = std::env::var_os("ORCHESTRATOR_BPF_OBJECT") {
        return path.into();
    }
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| workspace.join("target"))
        .join("bpf/orchestrator.o")
}

/// The loaded datapath.
pub struct Datapath {
    ebpf: Ebpf,
    tunnel: Option<Tunnel>,
}

/// What a program made of a packet.
#[derive(Debug)]
pub struct Ran {
    pub trace: Trace,
    pub code: i32,
    /// The frame that came out; of an encapsulated one what is inside.
    pub packet: Vec<u8>,
    /// What the program itself put around it.
    pub outer: Vec<u8>,
    pub duration: Duration,
}

impl Datapath {
    /// Loads every program, that is, has the verifier accept them all.
    pub fn load() -> Result<Datapath> {
        Self::load_with_flows(FLOWS.max_entries)
    }

    /// The same with room for so many rows of flows: a small table is soon full.
    pub fn load_with_flows(rows: u32) -> Result<Datapath> {
        let object = std::fs::read(object_path()).context("the datapath object")?;
        let mut loader = EbpfLoader::new();
        let mut ebpf = loader.map_max_entries(FLOWS.name, rows).load(&object)?;
        for (name, program) in ebpf.programs_mut() {
            let loaded = match program {
                Program::SchedClassifier(program) => program.load(),
                Program::CgroupSockAddr(program) => program.load(),
                Program::CgroupSock(program) => program.load(),
                Program::Xdp(program) => program.load(),
                _ => bail!("a program {name} of a kind that nobody attaches"),
            };
            loaded.with_context(|| format!("load {name}"))?;
        }
        Ok(Datapath { ebpf, tunnel: None })
    }

    pub fn names(&self) -> Vec<String> {
        self.ebpf
            .programs()
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    pub fn classifier(&mut self, hook: Hook) -> Result<&mut SchedClassifier> {
        let program = self
            .ebpf
            .program_mut(hook.name())
            .context("no such program")?;
        Ok(program.try_into()?)
    }

    /// Runs a hook over a frame that came from (or leaves by) the interface.
    pub fn run(&mut self, hook: Hook, ifindex: u32, frame: &[u8]) -> Result<Ran> {
        self.repeat(hook, ifindex, frame, 1)
    }

    /// The same often: `duration` is then the mean.
    pub fn repeat(&mut self, hook: Hook, ifindex: u32, frame: &[u8], times: u32) -> Result<Ran> {
        self.run_in(hook, &context(ifindex), frame, times)
    }

    /// Runs a hook over a frame that is still to be cut into segments with so much payload each.
    pub fn run_segmented(
        &mut self,
        hook: Hook,
        ifindex: u32,
        frame: &[u8],
        segment: u32,
    ) -> Result<Ran> {
        let mut context = context(ifindex);
        context[SK_BUFF_GSO_SEGS..][..4].copy_from_slice(&2u32.to_ne_bytes());
        context[SK_BUFF_GSO_SIZE..][..4].copy_from_slice(&segment.to_ne_bytes());
        self.run_in(hook, &context, frame, 1)
    }

    fn run_in(
        &mut self,
        hook: Hook,
        context: &[u8; SK_BUFF],
        frame: &[u8],
        times: u32,
    ) -> Result<Ran> {
        run(self.classifier(hook)?, context, frame, times)
    }

    pub fn xdp(&mut self) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(Hook::Xdp.name());
        Ok(program.context("no such program")?.try_into()?)
    }

    /// Runs `xdp_uplink` over a frame, in this thread's network namespace: its action, and the frame
    /// afterwards.
    pub fn run_xdp(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        let mut packet = vec![0u8; frame.len() + 256];
        let result = self.xdp()?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut packet),
            ..TestRunOptions::new()
        })?;
        packet.truncate(result.data_size_out as usize);
        Ok((result.return_value, packet))
    }

    pub fn set_config(&mut self, config: &Config) -> Result<()> {
        self.set_row("config_v3", 0, *config)
    }

    /// Writes every row that the programs read.
    pub fn fill(&mut self, tables: &Tables) -> Result<()> {
        for config in tables.config.values() {
            self.set_config(config)?;
        }
        let rows = tables.endpoints.iter();
        rows.map(|(key, row)| self.put("endpoints_v1", *key, *row))
            .collect::<Result<()>>()?;
        let rows = tables.nodes.iter();
        rows.map(|(key, row)| self.put("nodes_v1", *key, *row))
            .collect::<Result<()>>()?;
        let rows = tables.backends.iter();
        rows.map(|(key, row)| self.put("backends_v1", *key, *row))
            .collect::<Result<()>>()?;
        for (service, slots) in &tables.maglev {
            let slots: Vec<u32> = slots.iter().map(|slot| u32::from(*slot)).collect();
            self.put_inner("maglev_v1", *service, &slots)?;
        }
        for range in &tables.source_ranges {
            let [a, b, c, d] = range.addr.words;
            self.put_prefix(
                "source_ranges_v1",
                32 + range.bits,
                [range.service, a, b, c, d],
            )?;
        }
        let rows = tables.services.iter();
        rows.map(|(key, row)| self.put("services_v1", *key, *row))
            .collect::<Result<()>>()
    }

    /// Takes the rows of [`Datapath::fill`] away; flows stay.
    pub fn clear(&mut self, tables: &Tables) -> Result<()> {
        use orchestrator_common::maps::{endpoints::Endpoint, nodes::Node, services};
        for range in &tables.source_ranges {
            let map = self
                .ebpf
                .map_mut("source_ranges_v1")
                .context("no such map")?;
            let mut trie: LpmTrie<&mut MapData, [u32; 5], u32> = map.try_into()?;
            let [a, b, c, d] = range.addr.words;
            trie.remove(&Key::new(32 + range.bits, [range.service, a, b, c, d]))?;
        }
        let rows = tables.services.keys();
        rows.map(|key| self.delete::<_, services::Service>("services_v1", key))
            .collect::<Result<()>>()?;
        let rows = tables.backends.keys();
        rows.map(|key| self.delete::<_, services::Backend>("backends_v1", key))
            .collect::<Result<()>>()?;
        let rows = tables.nodes.keys();
        rows.map(|key| self.delete::<_, Node>("nodes_v1", key))
            .collect::<Result<()>>()?;
        let rows = tables.endpoints.keys();
        rows.map(|key| self.delete::<_, Endpoint>("endpoints_v1", key))
            .collect::<Result<()>>()
    }

    /// Runs `from_overlay` over a frame that came by a tunnel with that VNI from that sender.
    pub fn run_tunnelled(&mut self, vni: u32, sender: Addr, frame: &[u8]) -> Result<Ran> {
        if self.tunnel.is_none() {
            let next = self.classifier(Hook::FromOverlay)?.fd()?.try_clone()?;
            self.tunnel = Some(Tunnel::to(&next)?);
        }
        let mut context = context(LOOPBACK);
        let (vni, words) = match sender.is_v4() {
            true => (vni, [sender.low_word(), 0, 0, 0]),
            false => (vni | tunnel::V6, sender.words),
        };
        context[SK_BUFF_CB + 4 * tunnel::VNI..][..4].copy_from_slice(&vni.to_ne_bytes());
        for (word, value) in (tunnel::SENDER..).zip(words) {
            context[SK_BUFF_CB + 4 * word..][..4].copy_from_slice(&value.to_ne_bytes());
        }
        let tunnel = self.tunnel.as_mut().expect("it was just made");
        run(tunnel.program()?, &context, frame, 1)
    }

    /// Writes a row of an array.
    pub fn set_row<V: Pod>(&mut self, map: &str, index: u32, value: V) -> Result<()> {
        let mut array: Array<&mut MapData, V> =
            self.ebpf.map_mut(map).context("no such map")?.try_into()?;
        Ok(array.set(index, value, 0)?)
    }

    /// Writes a row of a hash.
    pub fn put<K: Pod, V: Pod>(&mut self, map: &str, key: K, value: V) -> Result<()> {
        Ok(self.hash(map)?.insert(key, value, 0)?)
    }

    /// Writes a row of a longest-prefix table.
    pub fn put_prefix(&mut self, map: &str, bits: u32, data: [u32; 5]) -> Result<()> {
        let map = self.ebpf.map_mut(map).context("no such map")?;
        let mut trie: LpmTrie<&mut MapData, [u32; 5], u32> = map.try_into()?;
        Ok(trie.insert(&Key::new(bits, data), 1, 0)?)
    }

    /// Writes an array of its own length into a map of maps.
    pub fn put_inner(&mut self, map: &str, key: u32, values: &[u32]) -> Result<()> {
        let mut inner = Array::<MapData, u32>::create(values.len() as u32, INNER_MAP)?;
        for (index, value) in values.iter().enumerate() {
            inner.set(index as u32, value, 0)?;
        }
        let map = self.ebpf.map_mut(map).context("no such map")?;
        let mut outer: HashOfMaps<&mut MapData, u32, Array<MapData, u32>> = map.try_into()?;
        Ok(outer.insert(key, &inner, 0)?)
    }

    /// What a map of connections says of a number, summed over the processors.
    pub fn connections(&self, map: &str, number: u32) -> Result<Connections> {
        let map = self.ebpf.map(map).context("no such map")?;
        let rows: PerCpuHashMap<&MapData, u32, Connections> = map.try_into()?;
        let rows = rows.get(&number, 0)?;
        Ok(Connections {
            opened: rows.iter().map(|row| row.opened).sum(),
            refused: rows.iter().map(|row| row.refused).sum(),
        })
    }

    pub fn delete<K: Pod, V: Pod>(&mut self, map: &str, key: &K) -> Result<()> {
        Ok(self.hash::<K, V>(map)?.remove(key)?)
    }

    pub fn rows<K: Pod, V: Pod>(&mut self, map: &str) -> Result<Vec<(K, V)>> {
        Ok(self.hash::<K, V>(map)?.iter().collect::<Result<_, _>>()?)
    }

    pub fn flows(&mut self) -> Result<Vec<(Tuple, Flow)>> {
        self.rows("flows_v1")
    }

    pub fn flow(&mut self, key: &Tuple) -> Result<Option<Flow>> {
        match self.hash("flows_v1")?.get(key, 0) {
            Ok(flow) => Ok(Some(flow)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn hash<K: Pod, V: Pod>(&mut self, map: &str) -> Result<HashMap<&mut MapData, K, V>> {
        Ok(self.ebpf.map_mut(map).context("no such map")?.try_into()?)
    }

    pub fn counted(&self, reason: DropReason) -> Result<u64> {
        self.counter(reason_row(reason))
    }

    pub fn decided(&self, verdict: Verdict) -> Result<u64> {
        self.counter(verdict_row(verdict))
    }

    pub fn counter(&self, row: u32) -> Result<u64> {
        let counters: PerCpuArray<&MapData, u64> = self
            .ebpf
            .map("counters_v1")
            .context("no such map")?
            .try_into()?;
        Ok(counters.get(&row, 0)?.iter().sum())
    }

    /// The drop events since the last call.
    pub fn events(&mut self) -> Result<Vec<DropEvent>> {
        let mut ring: RingBuf<&mut MapData> = self
            .ebpf
            .map_mut("drops_v2")
            .context("no such map")?
            .try_into()?;
        let mut events = Vec::new();
        while let Some(record) = ring.next() {
            let record = events::Record::try_from(&*record)?;
            events.push(events::parse(&record).context("a drop record")?);
        }
        Ok(events)
    }
}

fn run(
    program: &mut SchedClassifier,
    context: &[u8; SK_BUFF],
    frame: &[u8],
    times: u32,
) -> Result<Ran> {
    let mut context_out = [0u8; SK_BUFF];
    let mut packet = vec![0u8; frame.len() + 256];
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut packet),
        ctx_in: Some(context),
        ctx_out: Some(&mut context_out),
        repeat: times,
        ..TestRunOptions::new()
    })?;
    packet.truncate(result.data_size_out as usize);
    let mut cb = [0u32; 5];
    for (word, bytes) in cb.iter_mut().zip(context_out[SK_BUFF_CB..].chunks(4)) {
        *word = u32::from_ne_bytes(bytes.try_into()?);
    }
    let trace = Trace::from_cb(cb).ok_or_else(|| anyhow!("no trace in {cb:?}"))?;
    let code = result.return_value as i32;
    let mut outer = Vec::new();
    // What was cut before names no node any more.
    if trace.verdict == Verdict::Tunnel && trace.vtep != 0 {
        let wrapped = Wrapped::read(&packet).context("no sound tunnel around the packet")?;
        outer = packet[..packet.len() - wrapped.inner.len()].to_vec();
        packet.drain(..outer.len());
    }
    Ok(Ran {
        trace,
        code,
        packet,
        outer,
        duration: result.duration,
    })
}

/// The context of a run for a packet from that interface.
/// Runs a program that is not of a [`Datapath`] over a frame that came from the interface.
pub fn run_program(program: &mut SchedClassifier, ifindex: u32, frame: &[u8]) -> Result<Ran> {
    run(program, &context(ifindex), frame, 1)
}

fn context(ifindex: u32) -> [u8; SK_BUFF] {
    let mut context = [0u8; SK_BUFF];
    context[SK_BUFF_IFINDEX..][..4].copy_from_slice(&ifindex.to_ne_bytes());
    context
}
