//! Hollow nodes: everything of an agent but containers and the kernel, many in one process. A node joins with a token,
//! keeps its lease and its status, watches what an agent watches over as many TLS connections, and runs a worker for
//! each of its pods; what the worker asks of an engine and of a network is answered from memory.
//!
//! ```text
//!  join ─▶ heartbeat (lease, status)           real
//!      ├─▶ pods ─▶ worker ─▶ status of a pod   real
//!      │             ├─▶ FakeRuntime           memory
//!      │             └─▶ HollowNetwork         memory: an address out of the node's range
//!      └─▶ nodes, Services, slices             watched from now on and read, but not kept: there is no datapath
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use agent::api::client;
use agent::api::events;
use agent::api::servers::Servers;
use agent::api::watched::Watched;
use agent::network::drain;
use agent::network::ipam::Ipam;
use agent::network::wiring::{PodNetwork, WiringError};
use agent::node::facts::Capacity;
use agent::node::heartbeat::{self, News};
use agent::node::join::{self, Applicant};
use agent::node::register::{Health, Listed, NodeFacts};
use agent::node::running::Running;
use agent::pod::pods;
use agent::pod::worker::{Measuring, NodeContext};
use agent::runtime::fake::FakeRuntime;
use agent::runtime::image_root;
use agent::volumes::csi::{self, Csi, Places};
use anyhow::{Context as _, Result, ensure};
use datapath::{Addrs, HostPort};
use http::Request;
use http_body_util::BodyExt as _;
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::Value;
use sys::Shutdown;
use tokio::sync::{Notify, Semaphore, watch};

/// The image that is on every hollow node.
pub const IMAGE: &str = "hollow:1";

/// What a set of hollow nodes is told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub server: http::Uri,
    pub token: String,
    pub count: usize,
    /// Where nodes keep their certificates and the files of their pods.
    pub directory: PathBuf,
}

/// Nodes that join at once.
const JOINING: usize = 16;
/// Volumes that have a limit are measured as often as on a real node.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// What a datapath is made of.
const FOLLOWED: [&str; 3] = [
    "/api/v1/nodes",
    "/api/v1/services",
    "/apis/discovery.k8s.io/v1/endpointslices",
];
/// Between a watch that has ended and the next one.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// What each node says it has: room for the pods of every bench.
const CAPACITY: Capacity = Capacity {
    cpus: 32,
    memory_bytes: 256 << 30,
    disk_bytes: 1 << 40,
};

/// Nodes' own addresses: those of 172.16.0.0/12, but for some that a machine may have.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 10);
const LAST_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 31, 255, 254);
/// There are no more addresses.
const MOST_NODES: usize = (LAST_ADDRESS.to_bits() - FIRST_ADDRESS.to_bits() + 1) as usize;

/// The name of a node.
pub fn name(number: usize) -> String {
    format!("hollow-{number}")
}

/// Starts the nodes; returns when all have joined. They run until shutdown.
///
/// # Errors
/// A node cannot join, or there are more nodes than addresses.
pub async fn run(settings: Settings, shutdown: &Shutdown) -> Result<()> {
    ensure!(
        settings.count <= MOST_NODES,
        "there are addresses for {MOST_NODES} hollow nodes, and not for {}",
        settings.count
    );
    let turns = Arc::new(Semaphore::new(JOINING));
    let mut joining = tokio::task::JoinSet::new();
    for number in 0..settings.count {
        let (settings, turns, shutdown) = (settings.clone(), turns.clone(), shutdown.clone());
        joining.spawn(async move {
            let _turn = turns.acquire().await?;
            start(&settings, number, shutdown).await
        });
    }
    while let Some(joined) = joining.join_next().await {
        joined??;
    }
    Ok(())
}

async fn start(settings: &Settings, number: usize, shutdown: Shutdown) -> Result<()> {
    let name = name(number);
    let address = address(number).context("no address is left for this node")?;
    let applicant = Applicant {
        servers: vec![settings.server.clone()],
        token: Some(settings.token.clone()),
        node_name: name.clone(),
        node_ips: address.into(),
        data_dir: settings.directory.join(&name),
        registration: Default::default(),
    };
    std::fs::create_dir_all(&applicant.data_dir)?;
    let membership = join::join(&applicant).await;
    let membership = membership.with_context(|| format!("{name} cannot join"))?;
    let member = watch::Sender::new(membership);
    let servers = Servers::new(&applicant.servers, number);
    let client = client::start(&servers, member.subscribe(), &shutdown)?;
    let (node, beat) = parts(&applicant, client, &member);
    for path in FOLLOWED {
        let (client, stop) = (node.client.clone(), shutdown.clone());
        tokio::spawn(async move { stop.unless(follow(client, path)).await });
    }
    let (of_node, stop) = (node.clone(), shutdown.clone());
    tokio::spawn(async move {
        let learns = of_node.network.learn(&of_node.client, &of_node.name);
        stop.unless(learns).await
    });
    let stop = shutdown.clone();
    tokio::spawn(async move {
        // The heartbeat ends with those who tell it something.
        let _member = member;
        tokio::join!(beat.run(stop.clone()), pods::run(node, None, stop));
    });
    Ok(())
}

/// A node's own address, where nothing listens; None: there are no more.
fn address(number: usize) -> Option<IpAddr> {
    let number = u32::try_from(number).ok()?;
    let address = u32::from(FIRST_ADDRESS).checked_add(number)?;
    (address <= u32::from(LAST_ADDRESS)).then(|| Ipv4Addr::from(address).into())
}

/// What keeps the node's lease and status.
struct Beat {
    client: kube::Client,
    facts: NodeFacts,
    news: News,
    _told: (
        watch::Sender<Health>,
        watch::Sender<Addrs>,
        watch::Sender<Option<Listed>>,
    ),
}

impl Beat {
    async fn run(self, shutdown: Shutdown) {
        let refused = Arc::new(Notify::new());
        heartbeat::run(self.client, self.facts, self.news, refused, shutdown).await;
    }
}

fn parts(
    applicant: &Applicant,
    client: kube::Client,
    member: &watch::Sender<join::Membership>,
) -> (Arc<NodeContext<FakeRuntime, HollowNetwork>>, Beat) {
    let name = applicant.node_name.clone();
    let places = Places {
        kubelet: applicant.data_dir.join("kubelet"),
        data: applicant.data_dir.clone(),
    };
    let in_use = csi::restored(&places);
    let running: Arc<Running> = Arc::default();
    let addrs = watch::Sender::new(applicant.node_ips);
    let health = watch::Sender::default();
    let listed = watch::Sender::new(None);
    let beat = Beat {
        client: client.clone(),
        facts: NodeFacts {
            name: name.clone(),
            addrs: applicant.node_ips,
            capacity: CAPACITY,
            system: Default::default(),
            reserved: Default::default(),
            volumes_in_use: Default::default(),
        },
        news: News {
            addrs: addrs.subscribe(),
            membership: member.subscribe(),
            listed: listed.subscribe(),
            health: health.subscribe(),
            running: running.clone(),
            fence: Default::default(),
            in_use: in_use.subscribe(),
        },
        _told: (health, addrs.clone(), listed),
    };
    let runtime = FakeRuntime::default();
    runtime.add_image(IMAGE);
    let recorder = events::recorder(client.clone(), name.clone());
    let nodes = drain::Nodes::new(&name, client.clone());
    // Without a datapath no pod is in a Service here: none waits for others to let go of it.
    nodes.slices_listed();
    let spare = client.clone();
    let node = NodeContext {
        addrs: addrs.subscribe(),
        data_dir: applicant.data_dir.clone(),
        logs_dir: applicant.data_dir.join("log"),
        netns: PathBuf::from("/proc/self/ns/net"),
        capacity: CAPACITY,
        allocatable: beat.facts.allocatable(),
        allocations: Arc::default(),
        abilities: Default::default(),
        dns: Default::default(),
        runtime: Arc::new(runtime),
        image_roots: image_root::Known::default(),
        network: HollowNetwork::default(),
        recorder: recorder.clone(),
        nodes,
        csi: Csi::new(&name, client.clone(), recorder, places, in_use),
        watched: Watched::new(client.clone(), Box::new(move || spare.clone())),
        client,
        metrics: Arc::default(),
        measuring: Measuring::every(MEASURE_EVERY),
        running,
        name,
    };
    (Arc::new(node), beat)
}

/// Reads what a watch brings, for ever.
async fn follow(client: kube::Client, path: &str) {
    loop {
        // However it ended, the next one goes on.
        let _ = follow_once(&client, path).await;
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

/// From now on: what is there already is not asked for, since the nodes share one process.
async fn follow_once(client: &kube::Client, path: &str) -> Result<()> {
    let get = |query: String| Request::get(format!("{path}?{query}")).body(Vec::new());
    let list: Value = client.request(get("limit=1".to_owned())?).await?;
    let revision = list["metadata"]["resourceVersion"].as_str();
    let revision = revision.context("a list without a revision")?;
    let watch = get(format!("watch=1&resourceVersion={revision}"))?;
    let answer = client.send(watch.map(kube::client::Body::from)).await?;
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// A network in memory: it only gives addresses.
#[derive(Default)]
struct HollowNetwork {
    /// Those of the node's range, once that is known.
    ipam: OnceLock<Mutex<Ipam>>,
}

impl HollowNetwork {
    /// Waits until the node has a range.
    async fn learn(&self, client: &kube::Client, name: &str) {
        let nodes: Api<Node> = Api::all(client.clone());
        while self.ipam.get().is_none() {
            let node = nodes.get(name).await.ok();
            let range = node.and_then(|node| node.spec?.pod_cidr);
            if let Some(range) = range.and_then(|it| it.parse::<IpNetwork>().ok()) {
                self.ipam.get_or_init(|| Mutex::new(Ipam::new([range])));
            } else {
                tokio::time::sleep(WATCH_PAUSE).await;
            }
        }
    }

    fn ipam(&self) -> Option<MutexGuard<'_, Ipam>> {
        let ipam = self.ipam.get()?;
        Some(ipam.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PodNetwork for HollowNetwork {
    fn allocate(&self, uid: &str) -> Result<Addrs, WiringError> {
        let unknown = || WiringError::Datapath("the node has no range yet".to_owned());
        let mut ipam = self.ipam().ok_or_else(unknown)?;
        Ok(ipam.allocate(uid)?)
    }

    fn restore(&self, uid: &str, addrs: Addrs) -> bool {
        self.ipam().is_some_and(|mut ipam| ipam.restore(uid, addrs))
    }

    async fn attach(&self, _: &str, _: u32, _: Addrs) -> Result<(), WiringError> {
        Ok(())
    }

    async fn join_node(&self, _: u32) -> Result<(), WiringError> {
        Ok(())
    }

    async fn host_ports(&self, _: Option<(&str, Vec<HostPort>)>) {}

    async fn detach(&self, _: &str) -> Result<(), WiringError> {
        Ok(())
    }

    async fn release(&self, uid: &str) -> Result<(), WiringError> {
        if let Some(mut ipam) = self.ipam() {
            ipam.release(uid);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_node_has_an_address_of_its_own_and_there_are_no_more_nodes_than_addresses() {
        assert_eq!(address(0), Some(IpAddr::from([172, 16, 0, 10])));
        assert_eq!(address(500), Some(IpAddr::from([172, 16, 1, 254])));
        let last = MOST_NODES - 1;
        assert_eq!(address(last), Some(IpAddr::from([172, 31, 255, 254])));
        assert_eq!(address(MOST_NODES), None);
    }

    #[test]
    fn a_pod_that_finds_no_address_left_is_told_so() {
        let network = HollowNetwork::default();
        assert!(network.allocate("early").is_err());
        let range = "10.0.0.0/29".parse().expect("a range");
        network.ipam.get_or_init(|| Mutex::new(Ipam::new([range])));
        let given: BTreeSet<Addrs> = (0..5)
            .map(|pod| network.allocate(&pod.to_string()).expect("an address"))
            .collect();
        assert_eq!(given.len(), 5);
        assert!(network.allocate("one too many").is_err());
    }
}
