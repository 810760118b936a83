//! Puts the parts of an agent together and runs them until shutdown.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};

use super::metrics::Metrics;
use super::runtime::docker::{DockerRuntime, Owner};
use super::runtime::{Runtime, RuntimeError, State};
use super::telling::Telling;
use super::volumes::csi::{self, Csi, InUse};
use super::volumes::{Dns, keeper};
use crate::api::client::{self, ClientError};
use crate::api::events::{self, Recorder};
use crate::api::serve::stats::Seen;
use crate::api::serve::{self, Served, health_checks};
use crate::api::servers::Servers;
use crate::api::watched::Watched;
use crate::dns::{self, Directory, Site};
use crate::network::drain::{self, Nodes};
use crate::network::drops;
use crate::network::feed::{self, DatapathHandle, Hearers, OwnNode, Snapshot, Told};
use crate::network::health_checks::HealthChecks;
use crate::network::ipam::Ipam;
use crate::network::log;
use crate::network::pod_net::uplink::{self, Uplink};
use crate::network::pod_net::{NetError, PodLinks};
use crate::network::wiring::{PodNetwork, Wiring};
use crate::node::facts::{self, Capacity, Reserved};
use crate::node::farewell::Farewell;
use crate::node::heartbeat;
use crate::node::join::{self, Applicant, JoinError, Membership, Registration};
use crate::node::pressure::{self, Signal};
use crate::node::register::{Health, KUBELET_PORT, NodeFacts};
use crate::node::renewal;
use crate::node::running::Running;
use crate::node::static_pods;
use crate::node::static_pods::shell::StaticPods;
use crate::node::usage::{self, Readings};
use crate::pod::pods::{self, Manifests};
use crate::pod::refuse::Abilities;
use crate::pod::worker::{Measuring, NodeContext};
use crate::runtime::{image_gc, image_root};
use api::amounts::{self, Amounts};
use api::quantity::Quantity;
use datapath::{self, Addrs, Datapath, DatapathError, FamilyConfig, NodeConfig, Xdp, mount};
use sys::{Shutdown, Tasks, files};

const PIN_ROOT: &str = "/sys/fs/bpf/orchestrator";
const HEALTH_EVERY: Duration = Duration::from_secs(5);
/// How often the volumes of running pods are measured that have a limit.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// News of static pods that wait to be heard.
const MANIFESTS_ROOM: usize = 8 * static_pods::FILES;
/// How long a stopping agent waits for what ends in order.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that an agent is told.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The API servers of the cluster; at least one.
    pub servers: Vec<http::Uri>,
    pub token: Option<String>,
    pub node_name: String,
    /// The node's addresses on its uplink.
    pub node_ips: Addrs,
    /// The one of them that other nodes tunnel to.
    pub underlay: IpAddr,
    pub data_dir: PathBuf,
    pub docker_host: String,
    /// Processes of one container, at most; zero means no limit.
    pub pids_limit: u32,
    /// Where log shippers look for the logs of containers.
    pub logs_dir: PathBuf,
    /// Where storage drivers look for a kubelet's directories.
    pub kubelet_dir: PathBuf,
    /// When images that nothing uses are removed.
    pub image_gc: image_gc::Thresholds,
    /// Sysctls that pods may set besides the safe ones; a `*` at the end stands for any text.
    pub unsafe_sysctls: Vec<String>,
    /// Have the kernel count runs of programs, for the metrics.
    pub program_stats: bool,
    /// A backend's node answers clients outside itself.
    pub dsr: bool,
    /// XDP on the uplink.
    pub xdp: Xdp,
    pub registration: Registration,
    /// How long pods have when the machine goes down.
    pub farewell: Farewell,
    /// Where manifests of static pods lie.
    pub manifests: Option<PathBuf>,
    /// For the system and the agent, not for pods; and how many pods there may be.
    pub reserved: Reserved,
    /// What the node does when it runs out.
    pub eviction: pressure::Policy,
}

impl AgentConfig {
    /// What is not for pods: what was told, and what hard evictions keep free.
    fn reserved(&self, capacity: &Capacity) -> Reserved {
        let mut reserved = self.reserved.clone();
        let memory = u64::try_from(capacity.memory_bytes).unwrap_or(0);
        for (signal, name, all) in [
            (Signal::MemoryAvailable, "memory", memory),
            (
                Signal::NodefsAvailable,
                "ephemeral-storage",
                capacity.disk_bytes,
            ),
        ] {
            let thresholds = self.eviction.thresholds.iter();
            let mut hard = thresholds.filter(|it| it.grace.is_none() && it.signal == signal);
            let Some(threshold) = hard.next() else {
                continue;
            };
            let bytes = i64::try_from(threshold.at.of(all)).unwrap_or(i64::MAX);
            let more = Amounts::from([(name.to_owned(), Quantity::from_units(bytes))]);
            amounts::add(&mut reserved.amounts, &more);
        }
        reserved
    }

    /// Where storage drivers and their notes are.
    pub(crate) fn places(&self) -> csi::Places {
        csi::Places {
            kubelet: self.kubelet_dir.clone(),
            data: self.data_dir.clone(),
        }
    }

    /// What of it a `KubeletConfiguration` has a field for.
    fn shown(&self) -> Value {
        json!({
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "port": KUBELET_PORT,
            "readOnlyPort": 0,
            "maxPods": self.reserved.max_pods,
            "podPidsLimit": if self.pids_limit == 0 { -1 } else { i64::from(self.pids_limit) },
            "cgroupDriver": "cgroupfs",
            "imageGCHighThresholdPercent": self.image_gc.high,
            "imageGCLowThresholdPercent": self.image_gc.low,
            "containerLogMaxSize": "10Mi",
            "containerLogMaxFiles": 5,
            "allowedUnsafeSysctls": self.unsafe_sysctls,
        })
    }
}

/// Why an agent could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
    #[error(
        "the pod range {0:?} of this node does not read, or the cluster has none of its family"
    )]
    PodRange(String),
}

/// Runs the node until shutdown; pods are left running.
pub async fn run(config: AgentConfig, signalled: Shutdown) -> Result<(), AgentError> {
    let (shutdown, leaving) = (Shutdown::new(), Leaving::default());
    tokio::spawn(leave(
        config.farewell,
        leaving.subscribe(),
        signalled,
        shutdown.clone(),
    ));
    files::create_private_dir(&config.data_dir).map_err(io("make the data directory"))?;
    let Some(membership) = membership(&config, &shutdown).await? else {
        return Ok(());
    };
    let owner = Owner {
        cluster: membership.cluster(),
        node: config.node_name.clone(),
    };
    let scratch = config.data_dir.clone();
    let runtime =
        DockerRuntime::connect(&config.docker_host, owner, scratch, config.pids_limit).await?;
    let runtime = Arc::new(runtime);
    make_pause_image(runtime.clone());
    let renewed = watch::Sender::new(membership.clone());
    let certificates = renewed.subscribe();
    let place = config.node_name.bytes().map(usize::from).sum();
    let servers = Servers::new(&config.servers, place);
    let client = client::start(&servers, certificates.clone(), &shutdown)?;
    let node = node_facts(&config, &runtime).await?;
    let metrics = Arc::new(Metrics::default());
    let seen = seen(&config);
    let (running, readings) = (seen.running.clone(), seen.readings.clone());
    let served = Served::new(runtime.clone(), metrics.clone(), seen);
    let server = serve::run(KUBELET_PORT, renewed.subscribe(), served, shutdown.clone());
    let (told, news) = Telling::channels(&config, certificates.clone(), running.clone());
    leaving.send_replace(Some((running.clone(), told.health.clone())));
    let fence = news.fence.clone();
    tokio::spawn(fence.keep(running.clone(), shutdown.clone()));
    let refused = Arc::new(Notify::new());
    let (applicant, stop) = (applicant(&config), shutdown.clone());
    let addrs = news.addrs.clone();
    let renewal = renewal::run(applicant, renewed, addrs, refused.clone(), stop.clone());
    tokio::spawn(renewal);
    let beat = heartbeat::run(client.clone(), node.clone(), news, refused, stop);
    let tasks = Tasks::new(shutdown.clone());
    let body = Body {
        config,
        membership: membership.clone(),
        runtime,
        servers,
        client,
        certificates,
        node,
        metrics,
        running,
        readings,
        tasks: tasks.clone(),
    };
    let work = body.run(told, shutdown.clone());
    let ended = tokio::select! {
        ended = server => ended.map_err(AgentError::from),
        ended = work => ended,
        () = beat => Ok(()),
    };
    shutdown.trigger();
    tasks.finish(END_TIMEOUT).await;
    ended
}

async fn node_facts(
    config: &AgentConfig,
    runtime: &DockerRuntime,
) -> Result<NodeFacts, AgentError> {
    let capacity = facts::capacity(&config.data_dir).map_err(io("read the node's capacity"))?;
    Ok(NodeFacts {
        name: config.node_name.clone(),
        addrs: config.node_ips,
        reserved: config.reserved(&capacity),
        capacity,
        system: facts::system(&runtime.describe().await?.version),
        volumes_in_use: BTreeSet::new(),
    })
}

/// Whose pods end with the machine, once there are some.
type Leaving = watch::Sender<Option<(Arc<Running>, watch::Sender<Health>)>>;

/// Waits for the signal to stop, ends pods if the machine goes down, and has the agent end.
async fn leave(
    farewell: Farewell,
    leaving: watch::Receiver<Option<(Arc<Running>, watch::Sender<Health>)>>,
    signalled: Shutdown,
    shutdown: Shutdown,
) {
    signalled.requested().await;
    let pods = leaving.borrow().clone();
    if let Some((running, health)) = pods
        && farewell.is_due().await
    {
        farewell.say(&running, &health).await;
    }
    shutdown.trigger();
}

/// What the node's server shows of its pods.
fn seen(config: &AgentConfig) -> Seen {
    Seen {
        node_name: config.node_name.clone(),
        started_at: Timestamp::now(),
        config: Arc::new(config.shown()),
        ..Seen::default()
    }
}

/// Early: the first pod must not wait for it.
fn make_pause_image(runtime: Arc<DockerRuntime>) {
    tokio::spawn(async move {
        if let Err(error) = runtime.pause_image().await {
            tracing::warn!(%error, "the sandbox image is not there yet");
        }
    });
}

/// The parts that need the node's network.
struct Body {
    config: AgentConfig,
    membership: Membership,
    runtime: Arc<DockerRuntime>,
    servers: Servers,
    client: Client,
    certificates: watch::Receiver<Membership>,
    node: NodeFacts,
    metrics: Arc<Metrics>,
    running: Arc<Running>,
    readings: Readings,
    /// What ends in order.
    tasks: Tasks,
}

impl Body {
    async fn run(self, told: Telling, shutdown: Shutdown) -> Result<(), AgentError> {
        let (own_range, range) = watch::channel(self.remembered_range());
        let (ready, datapath_known) = watch::channel(None);
        let (name, client) = (&self.config.node_name, &self.client);
        let nodes = Nodes::new(name, client.clone());
        let (applied, told_applied) = watch::channel(0);
        drain::report(client.clone(), told_applied, &shutdown);
        let own = OwnNode {
            range: own_range,
            listed: told.listed,
        };
        feed::start_nodes(client, name, own, datapath_known, &shutdown);
        let Some(range) = first(range, &shutdown).await else {
            return Ok(());
        };
        self.remember_range(&range)?;
        let ranges = ranges_of(&range).ok_or_else(|| AgentError::PodRange(range.clone()))?;
        tracing::info!(range, "this node has its pod range");

        let links = PodLinks::new()?;
        let uplink = links.uplink(self.config.node_ips).await?;
        let config = self.datapath_config(&ranges, &uplink).await?;
        let gateways: Addrs = config.families().map(FamilyConfig::gateway).collect();
        let mtu = config.overlay_mtu();
        let datapath = Datapath::open(config).await?;
        let dropped = datapath::drops_pinned(Path::new(PIN_ROOT), name)?;
        tokio::spawn(drops::run(dropped, drops::socket(name), shutdown.clone()));
        let (in_sync, synced) = watch::channel(false);
        let datapath = self.own(datapath, applied, in_sync, &shutdown)?;
        ready.send_replace(Some(datapath.clone()));
        let recorder = events::recorder(self.client.clone(), name.clone());
        let hearers = Hearers {
            nodes: nodes.clone(),
            checks: self.answer_health_checks(synced, &recorder, &shutdown),
            names: self.answer_names(&ranges, gateways, &datapath, &shutdown),
        };
        feed::start(&self.client, name, &hearers, &datapath, &shutdown);
        let (ipam, metrics) = (Ipam::new(ranges), self.metrics.clone());
        let network = Wiring::new(links, ipam, datapath.clone(), gateways, mtu, metrics);
        self.adopt(&network, &datapath).await?;
        let addrs = follow_uplink(uplink.index, told.node_ips, datapath, &shutdown);
        let context = NodeContext {
            name: name.clone(),
            addrs,
            netns: PathBuf::from(format!("/proc/{}/ns/net", std::process::id())),
            data_dir: self.config.data_dir.clone(),
            logs_dir: self.config.logs_dir.clone(),
            capacity: self.node.capacity.clone(),
            allocatable: self.node.allocatable(),
            allocations: Arc::default(),
            abilities: self.abilities(),
            dns: self.dns(),
            runtime: self.runtime.clone(),
            image_roots: image_root::Known::default(),
            network,
            client: self.client.clone(),
            recorder,
            metrics: self.metrics.clone(),
            nodes,
            watched: self.watched(&shutdown),
            measuring: Measuring::every(MEASURE_EVERY),
            running: self.running.clone(),
            csi: self.keep_driver_volumes(told.in_use, &shutdown),
        };
        self.measure(told.health, context.recorder.clone(), &shutdown);
        self.keep_local_volumes(&shutdown);
        pods::run(Arc::new(context), self.static_pods(&shutdown), shutdown).await;
        Ok(())
    }

    /// Starts to make, grow and remove the volumes on this node's disk.
    fn keep_local_volumes(&self, shutdown: &Shutdown) {
        let (client, name) = (self.client.clone(), self.config.node_name.clone());
        let data_dir = self.config.data_dir.clone();
        tokio::spawn(keeper::run(client, name, data_dir, shutdown.clone()));
    }

    /// Starts to register storage drivers, and to look after what they mount.
    fn keep_driver_volumes(&self, in_use: InUse, shutdown: &Shutdown) -> Csi {
        let name = &self.config.node_name;
        let recorder = events::recorder(self.client.clone(), name.clone());
        let places = self.config.places();
        let csi = Csi::new(name, self.client.clone(), recorder, places, in_use);
        tokio::spawn(csi::run(
            csi.clone(),
            self.running.clone(),
            csi::ROUND,
            shutdown.clone(),
        ));
        csi
    }

    /// Starts to read the directory of manifests, if there is one.
    fn static_pods(&self, shutdown: &Shutdown) -> Option<Manifests> {
        let directory = self.config.manifests.clone()?;
        let (send, given) = mpsc::channel(MANIFESTS_ROOM);
        let (mirrors, news) = mpsc::channel(MANIFESTS_ROOM);
        let static_pods = StaticPods {
            client: self.client.clone(),
            node: self.config.node_name.clone(),
            directory,
            given: send,
        };
        tokio::spawn(static_pods.run(news, shutdown.clone()));
        Some(Manifests { given, mirrors })
    }

    /// Starts to watch the Engine and what pods use, and to act when the node runs out.
    fn measure(&self, health: watch::Sender<Health>, recorder: Recorder, shutdown: &Shutdown) {
        let engine = self.runtime.clone();
        tokio::spawn(watch_health(engine, health.clone(), shutdown.clone()));
        let disks = self.readings.disks();
        let reclaim = Arc::new(Notify::new());
        let node = self.config.node_name.clone();
        let about = events::node(&node);
        let collector = image_gc::run(
            self.runtime.clone(),
            self.config.image_gc,
            reclaim.clone(),
            (recorder.clone(), about),
            shutdown.clone(),
        );
        tokio::spawn(collector);
        let keeper = pressure::keeper::Keeper {
            node_name: self.config.node_name.clone(),
            policy: self.config.eviction.clone(),
            running: self.running.clone(),
            disks: disks.clone(),
            health,
            recorder,
            images: reclaim.clone(),
        };
        tokio::spawn(keeper.run(self.readings.clone(), shutdown.clone()));
        let data = self.config.data_dir.clone();
        let (running, stop) = (self.running.clone(), shutdown.clone());
        tokio::spawn(usage::measure_disks(running, disks, data, stop));
        let (running, readings) = (self.running.clone(), self.readings.clone());
        let data = self.config.data_dir.clone();
        let client = self.client.clone();
        tokio::spawn(usage::run(
            client,
            running,
            readings,
            data,
            shutdown.clone(),
        ));
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            app_armor: facts::app_armor(),
            selinux: facts::selinux(),
            unsafe_sysctls: self.config.unsafe_sysctls.clone(),
            cluster_dns: !self.membership.settings.dns_addresses().is_empty(),
            user_namespaces: self.runtime.powers().user_namespaces,
            pod_cgroups: self.runtime.powers().cgroup_driver == "cgroupfs",
            huge_pages: facts::limits_huge_pages(),
        }
    }

    /// Starts the datapath's own task, logs it for whoever asks, and measures it from now on.
    fn own(
        &self,
        datapath: Datapath,
        applied: watch::Sender<u64>,
        in_sync: watch::Sender<bool>,
        shutdown: &Shutdown,
    ) -> Result<DatapathHandle, AgentError> {
        let metrics = self.metrics.clone();
        let meter = datapath.meter(self.config.program_stats)?;
        let told = Told {
            applied,
            in_sync,
            metrics: metrics.clone(),
        };
        let datapath = feed::own(datapath, told, &self.tasks);
        let node = self.config.node_name.clone();
        let socket = log::socket(&node);
        let logged = log::Source {
            node,
            pin_root: PathBuf::from(PIN_ROOT),
            datapath: datapath.clone(),
        };
        tokio::spawn(log::run(logged, socket, shutdown.clone()));
        let named = datapath.clone();
        metrics.measure(meter, move |services, backends| {
            named.names(services, backends)
        });
        Ok(datapath)
    }

    /// Starts the answers to load balancers; what they are made from is sent to them.
    fn answer_health_checks(
        &self,
        in_sync: watch::Receiver<bool>,
        recorder: &Recorder,
        shutdown: &Shutdown,
    ) -> watch::Sender<HealthChecks> {
        let (sender, checks) = watch::channel(HealthChecks::default());
        let source = health_checks::Source { checks, in_sync };
        let node = self.config.node_name.clone();
        let answers = health_checks::run(source, node, recorder.clone(), shutdown.clone());
        tokio::spawn(answers);
        sender
    }

    /// The objects that pods refer to. Their watches have connections of their own: they may not
    /// keep the node's lease waiting.
    fn watched(&self, shutdown: &Shutdown) -> Watched {
        let (servers, spare) = (self.servers.clone(), self.client.clone());
        let (certificates, shutdown) = (self.certificates.clone(), shutdown.clone());
        let own = move || {
            let certificates = certificates.clone();
            client::start_beside(&servers, certificates, &shutdown)
        };
        let connect = move || match own() {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(%error, "watches share the connections of the node's requests");
                spare.clone()
            }
        };
        Watched::new(self.client.clone(), Box::new(connect))
    }

    /// Finds the pods that still run: their addresses stay theirs and the datapath learns of them
    /// before anything is removed.
    async fn adopt(&self, network: &Wiring, datapath: &DatapathHandle) -> Result<(), AgentError> {
        let mut keep = Vec::new();
        for sighting in self.runtime.pods().await? {
            let uid = sighting.pod.uid;
            let Some(addrs) = sighting.addrs else {
                continue;
            };
            if !network.restore(&uid, addrs) {
                tracing::warn!(%uid, %addrs, "a pod's addresses are not this node's any more");
                continue;
            }
            keep.push(uid.clone());
            let containers = self.runtime.containers(&uid).await?;
            let sandbox = crate::pod::shape::sandbox(&containers);
            if let Some(State::Running { pid, .. }) = sandbox.map(|sandbox| &sandbox.state)
                && let Err(error) = network.attach(&uid, *pid, addrs).await
            {
                tracing::warn!(%uid, %error, "a running pod could not be adopted yet");
            }
        }
        let removed = network.remove_others(&keep).await?;
        if !removed.is_empty() {
            tracing::info!(?removed, "links of pods that are gone were removed");
        }
        datapath.delivered(Snapshot::Pods).await;
        Ok(())
    }

    async fn datapath_config(
        &self,
        shares: &[IpNetwork],
        uplink: &Uplink,
    ) -> Result<NodeConfig, AgentError> {
        let settings = &self.membership.settings;
        let mut families = [None, None];
        for share in shares {
            let unknown = || AgentError::PodRange(share.to_string());
            let ranges = settings.ranges(*share).ok_or_else(unknown)?;
            families[usize::from(share.is_ipv6())] = Some(FamilyConfig {
                node_ip: self.config.node_ips.like(share.ip()),
                pod_cidr: *share,
                cluster_cidr: ranges.pods,
                service_cidr: ranges.services,
                pod_mask_bits: ranges.mask_bits,
            });
        }
        let [v4, v6] = families;
        Ok(NodeConfig {
            node_name: self.config.node_name.clone(),
            underlay: self.config.underlay,
            v4,
            v6,
            uplink: uplink.name.clone(),
            mtu: uplink.mtu,
            vni: settings.vni,
            vxlan_port: settings.vxlan_port,
            servers: crate::api::servers::addresses(&self.config.servers).await,
            dsr: self.config.dsr,
            xdp: self.config.xdp,
            pin_root: PathBuf::from(PIN_ROOT),
            cgroup_root: mount::cgroup_root()?,
        })
    }

    /// Starts to answer pods' questions for names.
    fn answer_names(
        &self,
        shares: &[IpNetwork],
        gateways: Addrs,
        datapath: &DatapathHandle,
        shutdown: &Shutdown,
    ) -> Directory {
        let ranges = self.membership.settings.all_ranges();
        let site = Site {
            node: self.config.node_name.clone(),
            domain: self.dns().domain,
            gateways,
            shares: shares.to_vec(),
            pods: ranges.iter().map(|range| range.pods).collect(),
            services: ranges.iter().filter_map(|range| range.services).collect(),
        };
        let numbers = self.metrics.names().clone();
        dns::start(site, &self.client, datapath, numbers, shutdown)
    }

    /// What pods are told of the cluster's DNS.
    fn dns(&self) -> Dns {
        let settings = &self.membership.settings;
        let domain = settings.cluster_domain.clone();
        Dns {
            servers: settings.dns_addresses(),
            domain: domain.unwrap_or_else(|| "cluster.local".to_owned()),
        }
    }

    /// The range that this node had before: a restarted agent goes on without the server.
    fn remembered_range(&self) -> Option<String> {
        let text = files::read_if_present(&self.range_file()).ok().flatten()?;
        Some(text.trim().to_owned()).filter(|text| ranges_of(text).is_some())
    }

    fn remember_range(&self, range: &str) -> Result<(), AgentError> {
        let written = files::write_atomic(&self.range_file(), range.as_bytes(), files::PUBLIC);
        written.map_err(io("remember the node's pod range"))
    }

    fn range_file(&self) -> PathBuf {
        self.config.data_dir.join("pod-range")
    }
}

fn applicant(config: &AgentConfig) -> Applicant {
    Applicant {
        servers: config.servers.clone(),
        token: config.token.clone(),
        node_name: config.node_name.clone(),
        node_ips: config.node_ips,
        data_dir: config.data_dir.clone(),
        registration: config.registration.clone(),
    }
}

/// Joins, or goes on as the member that this node is. None: shutdown came first.
async fn membership(
    config: &AgentConfig,
    shutdown: &Shutdown,
) -> Result<Option<Membership>, AgentError> {
    let applicant = applicant(config);
    let now = Timestamp::now();
    let known = join::remembered(&applicant)?;
    let known = known.filter(|it| it.is_for(&applicant) && !it.has_ended(now));
    if known.as_ref().is_some_and(|it| it.covers(&applicant)) {
        // One that is due is renewed while the node runs: the server may be away.
        return Ok(known);
    }
    let ask = async || match &known {
        Some(known) => join::renew(&applicant, known).await,
        None => join::join(&applicant).await,
    };
    let mut pause = Duration::from_millis(100);
    loop {
        match shutdown.unless(ask()).await {
            None => return Ok(None),
            Some(Ok(membership)) => return Ok(Some(membership)),
            Some(Err(error)) if error.is_temporary() => {
                tracing::warn!(%error, "joining again in {pause:?}");
            }
            Some(Err(error)) => match known {
                // Its pods and their network go on; the renewal goes on trying.
                Some(known) => {
                    tracing::warn!(%error, "the node goes on with the certificate that it has");
                    return Ok(Some(known));
                }
                None => return Err(error.into()),
            },
        }
        if shutdown.unless(tokio::time::sleep(pause)).await.is_none() {
            return Ok(None);
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// The first value that is there. None: shutdown came first.
async fn first(mut range: watch::Receiver<Option<String>>, shutdown: &Shutdown) -> Option<String> {
    let known = shutdown.unless(range.wait_for(Option::is_some)).await?;
    known.ok().and_then(|known| known.clone())
}

/// The node's shares of the pod ranges, as a text with commas between them.
fn ranges_of(text: &str) -> Option<Vec<IpNetwork>> {
    text.split(',').map(|range| range.parse().ok()).collect()
}

/// Starts to watch the uplink's addresses, for the datapath and for who listens.
fn follow_uplink(
    uplink: u32,
    node_ips: watch::Sender<Addrs>,
    datapath: DatapathHandle,
    shutdown: &Shutdown,
) -> watch::Receiver<Addrs> {
    let addrs = node_ips.subscribe();
    tokio::spawn(readdress(datapath, addrs.clone(), shutdown.clone()));
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        if let Err(error) = uplink::follow(uplink, node_ips, shutdown).await {
            tracing::error!(%error, "a new address of the node will not be noticed");
        }
    });
    addrs
}

/// Hands the node's addresses to the datapath as they change.
async fn readdress(
    datapath: DatapathHandle,
    mut addrs: watch::Receiver<Addrs>,
    shutdown: Shutdown,
) {
    while let Some(Ok(())) = shutdown.unless(addrs.changed()).await {
        let now = *addrs.borrow_and_update();
        match datapath.readdress(now).await {
            Ok(()) => tracing::info!(addrs = %now, "the node has other addresses"),
            Err(error) => tracing::error!(addrs = %now, error, "the node's addresses were refused"),
        }
    }
}

/// The node is ready while its engine answers; the datapath works on its own once it is open.
async fn watch_health(
    runtime: Arc<DockerRuntime>,
    health: watch::Sender<Health>,
    shutdown: Shutdown,
) {
    let mut tick = tokio::time::interval(HEALTH_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.unless(tick.tick()).await.is_some() {
        let answer = tokio::time::timeout(HEALTH_EVERY, runtime.describe()).await;
        let problems = match answer {
            Ok(Ok(_)) => Vec::new(),
            Ok(Err(error)) => vec![error.to_string()],
            Err(_) => vec!["the container engine does not answer".to_owned()],
        };
        health.send_if_modified(|known| {
            let changed = known.problems != problems;
            known.problems = problems;
            changed
        });
    }
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> AgentError {
    let what = what.to_owned();
    move |source| AgentError::Io { what, source }
}
