//! The node's network: API objects in, kernel maps, links and programs out.
//!
//! The agent opens one [`Datapath`], hands every watch event to [`Datapath::change`] and says once that
//! its view is complete ([`Datapath::in_sync`]). Everything between is `view` → `desired` → `delta` →
//! `maps`. This module never watches the API itself and knows no pod but by its address.

pub mod addrs;
pub mod announcement;
pub mod attach;
pub mod check;
pub mod config;
pub mod delta;
pub mod desired;
pub mod dump;
pub mod events;
pub mod facts;
pub mod fake;
pub mod gc;
pub mod ids;
pub mod kernel;
pub mod link;
pub mod log;
pub mod lookup;
pub mod maps;
pub mod meter;
pub mod mount;
pub mod names;
pub mod object;
mod probe;
#[cfg(test)]
mod property;
pub mod reconcile;
mod repliers;
mod reserved;
pub mod syscall;
pub mod table;
pub mod trace;
pub mod view;
pub mod world;
mod xdp;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use orchestrator_common::maps::statistics::{LOST, XDP, reason_row, verdict_row};
use orchestrator_common::{Addr, DropReason, Mac, Verdict};

use attach::{Attachment, Links, Prepared};
use maps::Maps;
use meter::Meter;
use names::Names;
use object::Programs;
use reconcile::Reconciler;
use syscall::XdpMode;

pub use addrs::Addrs;
pub use attach::Guard;
pub use config::{FamilyConfig, NodeConfig};
pub use view::{HostPort, LocalPod, NodeView, ObjectKey, ServiceView, SliceView};
pub use xdp::Xdp;

/// One watch event, or one pod wired or gone. `None` is a deletion.
#[derive(Clone, Debug)]
pub enum Change {
    Service(ObjectKey, Option<ServiceView>),
    Slice(ObjectKey, Option<SliceView>),
    Node(String, Option<NodeView>),
    /// By pod UID.
    Pod(String, Option<LocalPod>),
    /// Of the pod with this UID, whether or not it is wired yet; none is a deletion.
    HostPorts(String, Vec<HostPort>),
}

/// What can go wrong between the agent and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    #[error("this binary holds no datapath: run `cargo xtask build-ebpf` and build again")]
    NoObject,
    /// A map, a program or a link; the source is the library's.
    #[error("{what}: {source}")]
    Kernel {
        what: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    Exhausted(#[from] desired::Exhausted),
    #[error("{0}")]
    Invalid(String),
}

impl DatapathError {
    fn kernel(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Kernel {
            what: what.into(),
            source: source.into(),
        }
    }

    fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}

/// The running datapath of one node. Dropping it leaves everything in the kernel at work.
pub struct Datapath {
    config: NodeConfig,
    devices: link::Devices,
    reconciler: Reconciler<Maps>,
    /// Those that are at work: the normal ones, or those that log.
    programs: Programs,
    /// Those of them that guard the links of pods.
    guard: Arc<Guard>,
    /// The normal ones, while others are at work.
    normal: Option<Programs>,
    links: Links,
    /// Pins of the node's own attachments.
    own_links: BTreeSet<String>,
    /// Attachments that wait for a quiet moment, by pin: filters do their work.
    late: BTreeMap<String, Attachment>,
    /// The view is complete and links of pods that are gone may still be there.
    prune_due: bool,
    /// The world's version that the routes of single addresses are of.
    routed: Option<u64>,
    /// Packets that met a full flow table, at the last look.
    full: u64,
}

impl Datapath {
    /// Adopts what an earlier agent left pinned, or creates it: maps, links, programs, attachments. Needs
    /// root, the node's network namespace and the root mount namespace.
    pub async fn open(config: NodeConfig) -> Result<Self, DatapathError> {
        config.validate()?;
        mount::ensure_bpffs(&config.pin_root)?;
        let (maps, links) = pin_dirs(&config)?;
        let devices = link::ensure(&config, Mac::OVERLAY_DEVICE.octets).await?;
        repliers::ensure(&maps)?;
        let programs = object::load(&maps)?;
        let facts = config.facts(&devices)?;
        // The rows come first: a program that runs before them drops what it sees.
        let reconciler = Reconciler::start(Maps::open(&maps)?, facts)?;
        let links = Links::open(&links, &config.cgroup_root)?;
        let mut own_links = BTreeSet::new();
        for attachment in attach::node_attachments(&devices) {
            links.attach(&programs, &attachment)?;
            own_links.insert(attachment.name);
        }
        own_links.extend(links.attach_xdp(&programs, &config, &devices)?);
        let guard = Arc::new(Guard::of(&programs)?);
        gc::remove_old_maps(&maps)?;
        Ok(Self {
            config,
            devices,
            reconciler,
            programs,
            guard,
            normal: None,
            links,
            own_links,
            late: BTreeMap::new(),
            prune_due: false,
            routed: None,
            full: 0,
        })
    }

    /// Takes one change into the maps. Nodes and pods act at once; Services wait for
    /// [`Datapath::in_sync`] the first time. A failed change stays due and is retried by
    /// [`Datapath::sweep`].
    pub fn change(&mut self, change: Change) -> Result<(), DatapathError> {
        let taken = self.take(change, None);
        self.announce_fresh();
        taken
    }

    /// Takes a pod that was wired, whose link this guard was set on.
    pub fn wired(
        &mut self,
        uid: String,
        pod: LocalPod,
        guard: &Arc<Guard>,
    ) -> Result<(), DatapathError> {
        let taken = self.take(Change::Pod(uid, Some(pod)), Some(guard));
        self.announce_fresh();
        taken
    }

    /// What is set on the links of pods before they are up.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    fn take(&mut self, change: Change, guard: Option<&Arc<Guard>>) -> Result<(), DatapathError> {
        if let Change::Node(name, _) = &change {
            return self.take_node(name.clone(), change);
        }
        let Change::Pod(uid, pod) = &change else {
            return self.reconciler.change(change);
        };
        let wired = pod.clone().filter(|pod| !pod.host_network);
        let before = self.reconciler.world().pod(uid).cloned();
        self.reconciler.change(change)?;
        let same = |old: &LocalPod| wired.as_ref().is_some_and(|pod| pod.ifname == old.ifname);
        if let Some(gone) = before.filter(|old| !old.host_network && !same(old)) {
            let link = attach::pod_attachment(&gone.ifname, gone.ifindex);
            self.late.remove(&link.name);
            self.links.detach(&link.name)?;
        }
        if let Some(pod) = wired {
            // Other programs may have come since.
            if guard.is_none_or(|guard| !Arc::ptr_eq(guard, &self.guard)) {
                self.guard.set(&pod.ifname, pod.ifindex)?;
            }
            let link = attach::pod_attachment(&pod.ifname, pod.ifindex);
            if !self.links.update(&self.programs, &link)? {
                self.late.insert(link.name.clone(), link);
            }
        }
        Ok(())
    }

    /// Says once which of a node's claims are not believed.
    fn take_node(&mut self, name: String, change: Change) -> Result<(), DatapathError> {
        let lost = |reconciler: &Reconciler<Maps>| {
            let lost = reconciler.world().lost_claims(&name);
            lost.map(|(addr, owner)| (addr, owner.to_owned())).collect()
        };
        let before: BTreeSet<(Addr, String)> = lost(&self.reconciler);
        let taken = self.reconciler.change(change);
        for (addr, owner) in lost(&self.reconciler).difference(&before) {
            tracing::warn!(node = name, %addr, owner, "a node claims what an older one has");
        }
        taken
    }

    /// The work of a moment in which no pod waits for its network: spares one pod's packets some of their
    /// way. Takes an RCU grace period, in which the kernel changes no link. `false`: nothing is left to do.
    pub fn quicken(&mut self) -> Result<bool, DatapathError> {
        let late = self.late()?;
        let is_left = late.is_some();
        late.map_or(Ok(()), Prepared::attach)?;
        Ok(is_left)
    }

    /// That work, for a thread that may wait; until it is done nothing may be changed. None: nothing is left to do.
    pub fn late(&mut self) -> Result<Option<Prepared>, DatapathError> {
        let late = self.late.pop_first();
        late.map(|(_, late)| self.links.prepare(&self.programs, &late))
            .transpose()
    }

    /// Has the node's own traffic to load balancers' and external addresses go through the programs, once
    /// the view is complete. Cheap when nothing has changed; to be called after changes.
    pub async fn follow_routes(&mut self) -> Result<(), DatapathError> {
        let world = self.reconciler.world();
        let version = Some(world.routed_version());
        if self.routed == version || !self.reconciler.is_in_sync() {
            return Ok(());
        }
        link::route_addresses(&self.config, &self.devices, &world.routed()).await?;
        self.routed = version;
        Ok(())
    }

    /// The maps are as the world wants them: everything was delivered, and nothing failed.
    pub fn is_settled(&self) -> bool {
        self.reconciler.is_settled()
    }

    /// Everything was delivered, and nobody is sent any more to an endpoint that has left, whatever else
    /// could not be written.
    pub fn has_let_go(&self) -> bool {
        self.reconciler.has_let_go()
    }

    /// The node has other addresses on its uplink, which keeps its family of the underlay: the
    /// config row and the node's own endpoints are written anew. Must be called in the node's
    /// network namespace, as [`Datapath::open`].
    pub fn readdress(&mut self, addrs: Addrs) -> Result<(), DatapathError> {
        let config = self.config.readdressed(addrs);
        config.validate()?;
        let facts = config.facts(&self.devices)?;
        self.config = config;
        self.reconciler.learn(facts)
    }

    /// Every watch has delivered its snapshot and every running pod was handed over: from now on what
    /// nobody asked for is removed. Idempotent.
    pub fn in_sync(&mut self) -> Result<(), DatapathError> {
        if !self.reconciler.is_in_sync() {
            let (maps, actual) = self.reconciler.kernel_and_actual();
            gc::sweep_numbers(maps, actual)?;
        }
        self.prune_due = true;
        let settled = self.reconciler.in_sync();
        self.announce_fresh();
        settled?;
        for finding in check::check(self.reconciler.actual()) {
            tracing::error!(finding, "the datapath's tables contradict themselves");
        }
        self.prune_links()
    }

    /// The maps in the golden text form.
    pub fn dump(&self) -> Result<String, DatapathError> {
        Ok(dump::dump(&kernel::Kernel::read(self.reconciler.kernel())?))
    }

    /// The work of every few seconds: tries again what failed, and removes flows and affinities that are
    /// closed or idle.
    /// `now` is the monotonic clock. Returns how many flows went.
    pub fn sweep(&mut self, now: Duration) -> Result<usize, DatapathError> {
        let retried = self.reconciler.retry();
        self.announce_fresh();
        if self.prune_due {
            self.prune_links()?;
        }
        let (maps, actual) = self.reconciler.kernel_and_actual();
        gc::sweep_affinity(maps, actual, now)?;
        let swept = gc::sweep_flows(maps, now, &gc::ROOMY)?;
        retried.map(|()| swept)
    }

    /// Makes room if the flow table was too full for a flow since the last call: half-open flows go first,
    /// and within seconds, so that a flood of them keeps nobody out for long. Cheap otherwise; meant for
    /// every second. Returns how many flows went.
    pub fn relieve(&mut self, now: Duration) -> Result<usize, DatapathError> {
        let maps = self.reconciler.kernel_mut();
        let full = maps.counter(reason_row(DropReason::FlowTableFull))?;
        if std::mem::replace(&mut self.full, full) == full {
            return Ok(0);
        }
        gc::sweep_flows(maps, now, &gc::CROWDED)
    }

    /// Puts the programs that log in the place of the normal ones: no packet passes without one, and both
    /// work on the same maps. They stay until [`Datapath::end_log`], or until an agent starts.
    pub fn begin_log(&mut self, programs: Programs) -> Result<(), DatapathError> {
        if self.normal.is_some() {
            let taken = "this node's log is being read already, by one reader at a time";
            return Err(DatapathError::Invalid(taken.into()));
        }
        self.guard = Arc::new(Guard::of(&programs)?);
        self.normal = Some(std::mem::replace(&mut self.programs, programs));
        self.put_programs()
    }

    /// Puts the normal programs back; they may be there already.
    pub fn end_log(&mut self) -> Result<(), DatapathError> {
        match self.normal.take() {
            Some(normal) => {
                self.guard = Arc::new(Guard::of(&normal)?);
                self.programs = normal;
                self.put_programs()
            }
            None => Ok(()),
        }
    }

    /// Has every attachment run the programs that are to be at work. Tries all, and returns the first
    /// error.
    fn put_programs(&self) -> Result<(), DatapathError> {
        let modes = [XdpMode::Native, XdpMode::Generic];
        let xdp = modes.map(|mode| attach::xdp_attachment(&self.devices, mode));
        let own = attach::node_attachments(&self.devices)
            .into_iter()
            .chain(xdp)
            .filter(|attachment| self.own_links.contains(&attachment.name));
        let mut outcomes: Vec<Result<(), DatapathError>> = own
            .map(|attachment| self.links.update(&self.programs, &attachment).map(drop))
            .collect();
        for pod in self.reconciler.world().pods() {
            outcomes.push(self.guard.set(&pod.ifname, pod.ifindex));
            let link = attach::pod_attachment(&pod.ifname, pod.ifindex);
            outcomes.push(self.links.update(&self.programs, &link).map(drop));
        }
        outcomes.into_iter().collect()
    }

    /// Tells neighbours once more where the addresses are that this node has begun to answer for. Cheap
    /// when there are none; meant for every second.
    pub fn announce(&mut self) -> Result<(), DatapathError> {
        let due = self.reconciler.announcements().due();
        self.tell_neighbours(&due)
    }

    /// The first time, as soon as the rows are written. What fails stays due.
    fn announce_fresh(&mut self) {
        let fresh = self.reconciler.announcements().fresh();
        if let Err(error) = self.tell_neighbours(&fresh) {
            tracing::warn!(%error, "neighbours were not told of an address");
        }
    }

    fn tell_neighbours(&mut self, addrs: &[Addr]) -> Result<(), DatapathError> {
        if addrs.is_empty() {
            return Ok(());
        }
        let sender = link::Sender::open(&self.config.uplink)?;
        for addr in addrs {
            sender.send(&announcement::frame(
                addr,
                Mac::new(self.devices.uplink.mac),
            ))?;
            self.reconciler.announcements().told(addr);
        }
        Ok(())
    }

    fn prune_links(&mut self) -> Result<(), DatapathError> {
        let mut wanted = self.own_links.clone();
        for pod in self.reconciler.world().pods() {
            wanted.insert(attach::pod_attachment(&pod.ifname, pod.ifindex).name);
        }
        gc::prune_links(&self.links, &wanted)?;
        self.prune_due = false;
        Ok(())
    }

    /// Packets by what became of them, for metrics.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, DatapathError> {
        count(self.reconciler.kernel())
    }

    /// What the numbers of Services and backends mean that are asked for.
    pub fn names(&self, services: &BTreeSet<u32>, backends: &BTreeSet<u32>) -> Names {
        let (world, actual) = (self.reconciler.world(), self.reconciler.actual());
        names::names(world, actual, services, backends)
    }

    /// A reader of all numbers that works beside this. `count_runs`: the kernel counts runs of programs
    /// while it lives.
    pub fn meter(&self, count_runs: bool) -> Result<Meter, DatapathError> {
        let maps = Maps::open(&pin_dirs(&self.config)?.0)?;
        let programs = self.programs.all();
        let programs = programs.map_err(|error| DatapathError::io("share the programs", error))?;
        let runs = count_runs.then(object::count_runs).transpose()?;
        Ok(Meter::new(maps, programs, runs))
    }

    /// Detaches and removes everything of this node: pins, programs, links.
    pub async fn remove_all(self) -> Result<(), DatapathError> {
        let NodeConfig {
            pin_root,
            node_name,
            ..
        } = self.config.clone();
        drop(self);
        remove_pins(&pin_root, &node_name)?;
        link::remove().await
    }
}

/// Removes a node's pins, and with them its programs and maps, without its agent; its links stay. The
/// agent must not run.
pub fn remove_pins(pin_root: &Path, node: &str) -> Result<(), DatapathError> {
    gc::remove_pins(&node_dir(pin_root, node))
}

/// The nodes that have pins here.
pub fn nodes(pin_root: &Path) -> Result<Vec<String>, DatapathError> {
    attach::names(pin_root)
}

/// One node's pinned maps in the golden text form; needs no agent.
pub fn dump_pinned(pin_root: &Path, node: &str) -> Result<String, DatapathError> {
    let maps = Maps::open(&node_dir(pin_root, node).join("maps"))?;
    Ok(dump::dump(&kernel::Kernel::read(&maps)?))
}

/// Packets of a node by what became of them: the verdicts, then the reasons of drops and refusals,
/// how many of all these XDP finished, and how many records of drops found no room.
pub fn counters_pinned(
    pin_root: &Path,
    node: &str,
) -> Result<Vec<(&'static str, u64)>, DatapathError> {
    count(&Maps::open(&node_dir(pin_root, node).join("maps"))?)
}

/// The Services that a node's records of dropped packets are about.
pub fn services_pinned(pin_root: &Path, node: &str) -> Result<events::Services, DatapathError> {
    events::Services::open(&node_dir(pin_root, node).join("maps"))
}

/// A node's records of dropped packets. Each goes to one reader only, which is the node's agent while
/// one runs.
pub fn drops_pinned(pin_root: &Path, node: &str) -> Result<events::Drops, DatapathError> {
    events::Drops::open(&node_dir(pin_root, node).join("maps"))
}

/// Loads the programs that log beside a node's datapath, for [`Datapath::begin_log`]: the second value reads
/// what they write. Takes as long as the verifier does, some seconds.
pub fn load_log(
    pin_root: &Path,
    node: &str,
    filter: &log::Filter,
) -> Result<(Programs, log::Records), DatapathError> {
    log::load(&node_dir(pin_root, node).join("maps"), filter)
}

fn count(maps: &Maps) -> Result<Vec<(&'static str, u64)>, DatapathError> {
    let verdicts = Verdict::ALL
        .iter()
        .map(|verdict| (verdict.name(), verdict_row(*verdict)));
    let reasons = DropReason::ALL
        .iter()
        .filter(|reason| **reason != DropReason::None);
    let reasons = reasons.map(|reason| (reason.name(), reason_row(*reason)));
    verdicts
        .chain(reasons)
        .chain([("xdp", XDP), ("lost_records", LOST)])
        .map(|(name, row)| Ok((name, maps.counter(row)?)))
        .collect()
}

/// A node's directory below the pin root: bpffs allows no dot in a name, a node's may have some.
pub fn pin_name(node: &str) -> String {
    node.replace('.', "_")
}

fn node_dir(pin_root: &Path, node: &str) -> PathBuf {
    pin_root.join(pin_name(node))
}

fn pin_dirs(config: &NodeConfig) -> Result<(PathBuf, PathBuf), DatapathError> {
    let node = node_dir(&config.pin_root, &config.node_name);
    let dirs = (node.join("maps"), node.join("links"));
    for dir in [&dirs.0, &dirs.1] {
        std::fs::create_dir_all(dir)
            .map_err(|error| DatapathError::io(format!("create {}", dir.display()), error))?;
    }
    Ok(dirs)
}
