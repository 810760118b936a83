//! What a node's live programs would do with a packet, step by step, and which row decided each step.
//!
//! The programs are run by BPF_PROG_TEST_RUN: no packet leaves. They read and write the node's real maps, so
//! a flow that a trace opened is removed again, and an affinity is put back as it was; counters keep
//! counting it.

mod client;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use aya::programs::{SchedClassifier, TestRun, TestRunOptions, loaded_programs};
use nix::sched::{CloneFlags, setns};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::Netns;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};
use orchestrator_common::{Addr, Port, Proto, Scope, Trace, Tuple, Verdict};

use client::Standing;

use super::kernel::Kernel;
use super::lookup::tunnel::Wrapped;
use super::maps::Maps;
use super::table::Tables;
use super::{DatapathError, attach, node_dir, probe, syscall};

/// The size of `struct __sk_buff`, and where it has what is read and written here.
const SK_BUFF: usize = 192;
const SK_BUFF_IFINDEX: usize = 40;
const SK_BUFF_CB: usize = 48;
/// Room that a program may add to a packet: a refusal's or an answer's headers.
const GROWTH: usize = 256;

/// The first packet that an endpoint of a node would send.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub from: IpAddr,
    pub to: SocketAddr,
    pub proto: Proto,
    pub source_port: u16,
}

/// One place that the packet came to.
#[derive(Clone, Debug)]
pub struct Step {
    /// The program, `connect` for the socket programs.
    pub at: &'static str,
    pub before: Tuple,
    pub after: Tuple,
    /// The rows that decided, in the dump's words.
    pub rows: Vec<String>,
    /// What came of it.
    pub outcome: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<15} {}", self.at, self.before)?;
        for row in &self.rows {
            writeln!(f, "                  {row}")?;
        }
        if !self.after.same_packet(&self.before) {
            writeln!(f, "                  becomes {}", self.after)?;
        }
        write!(f, "                => {}", self.outcome)
    }
}

/// The node whose endpoint an address is, among those that have pins here.
pub fn node_of(pin_root: &Path, addr: IpAddr) -> Result<Option<String>, DatapathError> {
    for node in super::nodes(pin_root)? {
        let tables = Maps::open(&node_dir(pin_root, &node).join("maps"))?.read()?;
        if tables.endpoints.contains_key(&addr.into()) {
            return Ok(Some(node));
        }
    }
    Ok(None)
}

/// Follows the packet from the endpoint to where it leaves the node's programs. Needs root; finds the
/// node's network namespace by its cookie, and leaves the caller's alone.
pub fn trace(pin_root: &Path, node: &str, asked: Question) -> Result<Vec<Step>, DatapathError> {
    let dir = node_dir(pin_root, node);
    let run = std::thread::spawn(move || Tracer::open(dir)?.follow(&asked));
    run.join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

struct Tracer {
    links: PathBuf,
    maps: Maps,
    tables: Tables,
    config: Config,
}

impl Tracer {
    /// Moves this thread to the node's namespace: a test run finds interfaces only there.
    fn open(dir: PathBuf) -> Result<Self, DatapathError> {
        let maps = Maps::open(&dir.join("maps"))?;
        let tables = maps.read()?;
        let config = tables.config.get(&0).copied().ok_or_else(|| {
            DatapathError::Invalid("the node's datapath was never configured".into())
        })?;
        let host = |(_, row): &(&u64, &Netns)| row.flags & Netns::HOST != 0;
        let cookie = tables.netns.iter().find(host).map(|(cookie, _)| *cookie);
        enter(cookie)?;
        Ok(Self {
            links: dir.join("links"),
            maps,
            tables,
            config,
        })
    }

    fn follow(mut self, asked: &Question) -> Result<Vec<Step>, DatapathError> {
        let from = Addr::from(asked.from);
        let mut tuple = Tuple {
            src: from,
            dst: asked.to.ip().into(),
            src_port: Port::new(asked.source_port),
            dst_port: Port::new(asked.to.port()),
            proto: asked.proto,
            scope: Scope::PACKET,
            reserved: [0; 2],
        };
        let Some(endpoint) = self.tables.endpoints.get(&from).copied() else {
            return Err(DatapathError::Invalid(format!(
                "{} is no endpoint of this node",
                asked.from
            )));
        };
        let mut steps = Vec::new();
        if let Some(step) = self.connect(&tuple, endpoint.is_host())? {
            let refused = step.after.dst_port == Port::ZERO;
            tuple = step.after;
            steps.push(step);
            if refused {
                return Ok(steps);
            }
        }
        let (step, verdict) = self.run(Hook::FromContainer, endpoint.ifindex, &tuple)?;
        let after = step.after;
        steps.push(step);
        if verdict == Verdict::Outside {
            let (step, _) = self.run(Hook::ToNetdev, self.config.uplink, &after)?;
            steps.push(step);
        }
        Ok(steps)
    }

    /// TCP is balanced at connect: the socket program has no test run, its rows say it all.
    fn connect(&self, tuple: &Tuple, is_host: bool) -> Result<Option<Step>, DatapathError> {
        if tuple.proto != Proto::TCP {
            return Ok(None);
        }
        let Some((key, service)) = self.service(tuple) else {
            return Ok(None);
        };
        let mut rows = vec![service_row(&key, &service)];
        let client = self.socket_client(&tuple.src, is_host);
        let standing = Standing::read(&self.maps, &self.tables, &service, client)?;
        rows.extend(standing.rows());
        let slots: Vec<_> = self.tables.slots(service.id).collect();
        let slots = &slots[..slots.len().min(service.count as usize)];
        rows.extend(slots.iter().map(|(key, row)| backend_row(key, row)));
        let (backend, outcome) = match (standing.backend(), slots.first()) {
            _ if !standing.is_admitted() => (
                None,
                "connection refused: the client is in no source range".into(),
            ),
            (_, None) => (
                None,
                "connection refused: the Service has no endpoint".into(),
            ),
            (Some(had), _) => (Some(had), "the backend that the client had last".into()),
            (None, Some((_, first))) => {
                let count = slots.len();
                (
                    Some(**first),
                    format!("one of {count} backends, by chance; the first is followed"),
                )
            }
        };
        let after = match backend {
            None => Tuple {
                dst_port: Port::ZERO,
                ..*tuple
            },
            Some(backend) => Tuple {
                dst: backend.addr,
                dst_port: backend.port,
                ..*tuple
            },
        };
        Ok(Some(Step {
            at: "connect",
            before: *tuple,
            after,
            rows,
            outcome,
        }))
    }

    /// Whom the socket programs take for the client: its source is not chosen yet, so the node is one
    /// address to them.
    fn socket_client(&self, src: &Addr, is_host: bool) -> Addr {
        let mut rows = self.tables.netns.values();
        let node = rows.find(|row| is_host && row.is_host());
        node.map_or(*src, |row| if src.is_v4() { row.v4 } else { row.v6 })
    }

    fn service(&self, tuple: &Tuple) -> Option<(ServiceKey, Service)> {
        let exact = ServiceKey::new(tuple.dst, tuple.dst_port, tuple.proto);
        let of_node = self
            .tables
            .endpoints
            .get(&tuple.dst)
            .is_some_and(|endpoint| endpoint.is_host());
        let keys = [Some(exact), of_node.then(|| exact.node_port())];
        keys.into_iter()
            .flatten()
            .find_map(|key| Some((key, *self.tables.services.get(&key)?)))
    }

    fn run(
        &mut self,
        hook: Hook,
        ifindex: u32,
        before: &Tuple,
    ) -> Result<(Step, Verdict), DatapathError> {
        let known = self.flow_keys(before)?;
        let service = self.service(before);
        let standing = service
            .map(|(_, service)| Standing::read(&self.maps, &self.tables, &service, before.src));
        let standing = standing.transpose()?;
        // An endpoint's frames are its own.
        let source = self.tables.endpoints.get(&before.src);
        let mac = source.map(|endpoint| endpoint.mac).unwrap_or_default();
        let (trace, frame) = run(&self.program(hook)?, ifindex, &probe::frame(mac, before))?;
        let after = probe::tuple(&frame).unwrap_or(*before);
        let rows = self.rows(hook, before, &after, &trace, standing.as_ref());
        self.forget(before, &known)?;
        if let Some(standing) = standing {
            standing.restore(&mut self.maps)?;
        }
        let rows = rows?;
        let step = Step {
            at: hook.name(),
            before: *before,
            after: if matches!(trace.verdict, Verdict::Refuse | Verdict::Reply) {
                *before
            } else {
                after
            },
            rows,
            outcome: outcome(&trace, &self.config),
        };
        Ok((step, trace.verdict))
    }

    /// The program of a hook, by a link that the agent pinned: the same one runs everywhere.
    fn program(&self, hook: Hook) -> Result<SchedClassifier, DatapathError> {
        let prefix = format!("{}-", hook.name());
        for name in attach::names(&self.links)? {
            if !name.starts_with(&prefix) {
                continue;
            }
            let failed = |error| DatapathError::io(format!("open the link {name}"), error);
            let link = syscall::pinned(&self.links.join(&name)).map_err(failed)?;
            let info = syscall::link_info(std::os::fd::AsFd::as_fd(&link)).map_err(failed)?;
            let loaded = loaded_programs()
                .flatten()
                .find(|program| program.id() == info.program_id);
            if let Some(program) = loaded {
                return SchedClassifier::from_program_info(program, Cow::Borrowed(hook.name()))
                    .map_err(|error| DatapathError::kernel(format!("open {name}"), error));
            }
        }
        Err(DatapathError::Invalid(format!(
            "no {} runs here: is the agent of this node up?",
            hook.name()
        )))
    }

    /// The rows that agree with what happened.
    fn rows(
        &self,
        hook: Hook,
        before: &Tuple,
        after: &Tuple,
        trace: &Trace,
        standing: Option<&Standing>,
    ) -> Result<Vec<String>, DatapathError> {
        let tables = &self.tables;
        let mut rows = Vec::new();
        if hook == Hook::FromContainer {
            rows.extend(
                tables
                    .endpoints
                    .get(&before.src)
                    .map(|row| format!("endpoint {} = interface {}", before.src, row.ifindex)),
            );
        }
        if let Some((key, service)) = self.service(before) {
            rows.push(service_row(&key, &service));
            rows.extend(standing.into_iter().flat_map(Standing::rows));
            let chosen = tables
                .slots(service.id)
                .find(|(_, row)| row.addr == after.dst && row.port == after.dst_port);
            rows.extend(chosen.map(|(key, row)| backend_row(key, row)));
        }
        for key in scopes(before) {
            if let Some(flow) = self.maps.flow(&key)? {
                rows.push(format!("flow ({}) {key} = {}", key.scope, flow.translated));
            }
        }
        if matches!(trace.verdict, Verdict::Overlay | Verdict::Tunnel) {
            let share = after.dst.masked(&self.config.family(&after.dst).node_mask);
            let node = tables.nodes.get(&share);
            rows.extend(node.map(|node| format!("node {share} = {}", node.vtep)));
        } else if let Some(row) = tables.endpoints.get(&after.dst) {
            rows.push(format!(
                "endpoint {} = interface {}",
                after.dst, row.ifindex
            ));
        }
        Ok(rows)
    }

    /// The flows that this packet may be of and that are there already.
    fn flow_keys(&self, tuple: &Tuple) -> Result<Vec<Tuple>, DatapathError> {
        let mut there = Vec::new();
        for key in scopes(tuple) {
            if self.maps.flow(&key)?.is_some() {
                there.push(key);
            }
        }
        Ok(there)
    }

    /// Removes what the run opened.
    fn forget(&mut self, tuple: &Tuple, known: &[Tuple]) -> Result<(), DatapathError> {
        for key in scopes(tuple) {
            if known.contains(&key) {
                continue;
            }
            if let Some(flow) = self.maps.flow(&key)? {
                self.maps.remove_flow(&flow.other_key())?;
                self.maps.remove_flow(&key)?;
            }
        }
        Ok(())
    }
}

fn scopes(tuple: &Tuple) -> [Tuple; 2] {
    [
        tuple.in_scope(Scope::SERVICE),
        tuple.in_scope(Scope::MASQUERADE),
    ]
}

/// What the program decided and what it made of the frame, out of its tunnel.
fn run(
    program: &SchedClassifier,
    ifindex: u32,
    frame: &[u8],
) -> Result<(Trace, Vec<u8>), DatapathError> {
    let mut context_in = [0_u8; SK_BUFF];
    context_in[SK_BUFF_IFINDEX..][..4].copy_from_slice(&ifindex.to_ne_bytes());
    let mut context_out = [0_u8; SK_BUFF];
    let mut packet = vec![0_u8; frame.len() + GROWTH];
    let ran = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut packet),
            ctx_in: Some(&context_in),
            ctx_out: Some(&mut context_out),
            repeat: 1,
            ..TestRunOptions::new()
        })
        .map_err(|error| DatapathError::kernel("run the program over the packet", error))?;
    packet.truncate(ran.data_size_out as usize);
    let mut cb = [0_u32; 5];
    for (word, bytes) in cb.iter_mut().zip(context_out[SK_BUFF_CB..].chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let trace = Trace::from_cb(cb).ok_or_else(|| {
        DatapathError::Invalid(format!("a program of another version runs here: {cb:?}"))
    })?;
    if trace.verdict == Verdict::Tunnel
        && let Some(wrapped) = Wrapped::read(&packet)
    {
        packet = wrapped.inner.to_vec();
    }
    Ok((trace, packet))
}

fn outcome(trace: &Trace, config: &Config) -> String {
    let Trace {
        verdict,
        target,
        reason,
        rule,
        ..
    } = trace;
    match verdict {
        Verdict::Drop => format!("dropped: {reason}"),
        Verdict::Refuse => format!("refused: {reason}"),
        Verdict::Reply => format!("answered at once: {reason} ({rule})"),
        Verdict::Pass => format!("on through the node's stack ({rule})"),
        Verdict::Peer => format!("to the pod behind interface {target} ({rule})"),
        Verdict::Node => format!("to the node itself ({rule})"),
        Verdict::Overlay | Verdict::Tunnel => {
            format!("through the overlay, VNI {} ({rule})", config.vni)
        }
        Verdict::Outside => format!("out of the uplink, interface {target} ({rule})"),
    }
}

fn service_row(key: &ServiceKey, row: &Service) -> String {
    let target = socket(key.addr, key.port);
    format!(
        "service {target}/{} = {}, slots {}",
        key.proto, row.id, row.count
    )
}

fn backend_row(key: &BackendKey, row: &Backend) -> String {
    let target = socket(row.addr, row.port);
    let (service, slot) = (key.service, key.slot);
    format!("backend {service}[{slot}] = {target}, number {}", row.id)
}

fn socket(addr: Addr, port: Port) -> SocketAddr {
    SocketAddr::new(addr.into(), port.host())
}

/// Moves this thread to the network namespace with that cookie: its own, or one that has a name.
fn enter(cookie: Option<u64>) -> Result<(), DatapathError> {
    const NAMED: &str = "/run/netns";
    let own = || syscall::own_netns_cookie().ok();
    if cookie.is_none() || own() == cookie {
        return Ok(());
    }
    for entry in std::fs::read_dir(NAMED).into_iter().flatten().flatten() {
        let Ok(namespace) = std::fs::File::open(entry.path()) else {
            continue;
        };
        if setns(namespace, CloneFlags::CLONE_NEWNET).is_ok() && own() == cookie {
            return Ok(());
        }
    }
    Err(DatapathError::Invalid(format!(
        "the node's network namespace is neither this one nor in {NAMED}: run this in it, with \
         `nsenter --net=/proc/PID/ns/net` and its agent's PID"
    )))
}
