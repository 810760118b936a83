//! The cluster's DNS, on every node for its own pods.
//!
//! ```text
//! pod ─▶ 10.96.0.10:53 ─▶ datapath: Service kube-system/kube-dns has one endpoint here, ─▶ server
//!                                   this node's address inside the overlay                  │
//!  feed: Services, EndpointSlices ─▶ rows ─▶ index ─▶ zone ◀── resolver ◀── message ◀───────┘
//!  ConfigMap, resolv.conf ─▶ config ────────────────────▶ │ ──▶ cache ──▶ upstream
//! ```
//!
//! `rows`, `index`, `zone`, `message`, `cache`, `config`, `limits` and `queue` are pure; `server`, `upstream` and this
//! file are the shell. Directory come from the watches that the datapath has anyway: an answer is right as soon
//! as the change was heard of. Who answers is the agent's own affair, so the Service has no EndpointSlice in
//! the API. If its owner gives it a selector, its pods answer and this node's resolver does not.

mod cache;
mod config;
pub mod hold;
mod index;
mod limits;
mod message;
mod numbers;
mod queue;
mod resolver;
mod rows;
mod server;
#[cfg(test)]
mod serving_tests;
mod sockets;
#[cfg(test)]
mod tests;
mod upstream;
mod zone;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use futures::{FutureExt, TryStreamExt};
use hickory_proto::rr::Name;
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::api::pauses::Pauses;
use crate::network::feed::DatapathHandle;
use config::Config;
use datapath::view::{EndpointView, PortView, Protocol};
use datapath::{Addrs, Change, ObjectKey, SliceView};
use hold::Pair;
use resolver::Resolver;
use rows::{ServiceRow, SliceRow};
use sys::Shutdown;
use zone::Zone;

pub use numbers::Numbers;

/// The Service at whose addresses names are asked for.
const SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// Its ports, as the API server makes them.
const PORTS: [(&str, Protocol); 2] = [("dns", Protocol::Udp), ("dns-tcp", Protocol::Tcp)];

/// The slice that only this node has: no object can have this name.
const OWN_SLICE: &str = "kube-dns (this node)";

/// How many parts there are.
const PARTS: usize = 2;

/// How long queries wait for all to be known. After that, what is known is answered.
const LIST_TIMEOUT: Duration = Duration::from_secs(3);

/// How often the node's own servers are looked up.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a node answers for.
pub struct Site {
    pub node: String,
    /// The cluster's domain, usually `cluster.local`.
    pub domain: String,
    /// The node inside the overlay: where it is asked.
    pub gateways: Addrs,
    /// This node's shares of the pods' ranges.
    pub shares: Vec<IpNetwork>,
    /// The cluster's ranges.
    pub pods: Vec<IpNetwork>,
    pub services: Vec<IpNetwork>,
}

/// Hears what names are made of. Clones are the same.
#[derive(Clone)]
pub struct Directory {
    resolver: Arc<Resolver>,
    /// This node answers: nobody else is said to.
    ours: watch::Sender<bool>,
    /// The parts of which all is known.
    listed: watch::Sender<BTreeSet<Part>>,
}

/// What names are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Services,
    Slices,
}

impl Directory {
    /// All of a part has been heard.
    pub fn listed(&self, part: Part) {
        let is_new = |listed: &mut BTreeSet<Part>| listed.insert(part);
        self.listed.send_if_modified(is_new);
        self.resolver
            .set_complete(self.listed.borrow().len() == PARTS);
    }

    fn new(site: Site, numbers: Numbers) -> Self {
        let zone = Zone {
            domain: domain(&site.domain),
            pods: site.pods,
            services: site.services,
        };
        Self {
            resolver: Arc::new(Resolver::new(zone, site.shares, numbers)),
            ours: watch::Sender::new(true),
            listed: watch::Sender::default(),
        }
    }

    /// A Service is this now; `None`: it is gone.
    pub fn service(&self, key: &ObjectKey, service: Option<&Service>) {
        if (key.namespace(), key.name()) == SERVICE {
            let spec = service.and_then(|service| service.spec.as_ref());
            let selector = spec.and_then(|spec| spec.selector.as_ref());
            let ours = selector.is_none_or(|selector| selector.is_empty());
            let ours_before = self.ours.send_replace(ours);
            if ours != ours_before {
                tracing::info!(ours, "who answers for the cluster's names has changed");
            }
        }
        let row = service.and_then(ServiceRow::from_object);
        self.resolver
            .change(|index| index.service(key.clone(), row));
    }

    /// The same of a slice.
    pub fn slice(&self, key: &ObjectKey, slice: Option<&EndpointSlice>) {
        let row = slice.and_then(SliceRow::from_object);
        self.resolver.change(|index| index.slice(key.clone(), row));
    }
}

/// Starts to answer, until shutdown.
pub fn start(
    site: Site,
    client: &Client,
    datapath: &DatapathHandle,
    numbers: Numbers,
    shutdown: &Shutdown,
) -> Directory {
    let (node, gateways) = (site.node.clone(), site.gateways);
    let directory = Directory::new(site, numbers);
    let resolver = directory.resolver.clone();
    let tasks = [
        answer(
            resolver.clone(),
            (node, gateways),
            datapath.clone(),
            (directory.ours.subscribe(), directory.listed.subscribe()),
            shutdown.clone(),
        )
        .boxed(),
        follow_config(resolver.clone(), client.clone()).boxed(),
        follow_node(resolver, gateways).boxed(),
    ];
    for task in tasks {
        let shutdown = shutdown.clone();
        tokio::spawn(async move { shutdown.unless(task).await });
    }
    directory
}

/// Answers at sockets of the caller's, by what the directory hears and what the configuration says. For tests
/// and measurements.
pub fn alone(
    site: Site,
    config: &BTreeMap<String, String>,
    at: Vec<Pair>,
    shutdown: &Shutdown,
) -> io::Result<Directory> {
    let directory = Directory::new(site, Numbers::default());
    directory.resolver.configure(Config::parse(config).0);
    directory.resolver.set_complete(true);
    for pair in at {
        serve(pair.registered()?, &directory.resolver, shutdown);
    }
    Ok(directory)
}

fn serve(sockets: sockets::Sockets, resolver: &Arc<Resolver>, shutdown: &Shutdown) {
    let (udp, tcp) = (resolver.clone(), resolver.clone());
    tokio::spawn(server::datagrams(sockets.udp, udp, shutdown.clone()));
    tokio::spawn(server::connections(sockets.tcp, tcp, shutdown.clone()));
}

/// Opens the sockets and leads the Service to them.
async fn answer(
    resolver: Arc<Resolver>,
    (node, gateways): (String, Addrs),
    datapath: DatapathHandle,
    (mut ours, mut listed): (watch::Receiver<bool>, watch::Receiver<BTreeSet<Part>>),
    shutdown: Shutdown,
) {
    let (opened, port, kept) = sockets::open(&node, gateways).await;
    tracing::info!(%gateways, port, "this node answers for the cluster's names");
    let all = listed.wait_for(|listed| listed.len() == PARTS);
    if tokio::time::timeout(LIST_TIMEOUT, all).await.is_err() {
        tracing::warn!("not all is known yet of the cluster's names");
    }
    for sockets in opened {
        serve(sockets, &resolver, &shutdown);
    }
    let stop = shutdown.clone();
    tokio::spawn(async move { stop.unless(kept).await });
    loop {
        let is_ours = *ours.borrow_and_update();
        for (key, view) in own_slices(gateways, port) {
            let change = Change::Slice(key, Some(view).filter(|_| is_ours));
            // What fails is reported there, and tried again with the next change.
            let _ = datapath.change(change).await;
        }
        if ours.changed().await.is_err() {
            return;
        }
    }
}

/// This node as the endpoint of the Service, in a slice for each family.
fn own_slices(gateways: Addrs, port: u16) -> impl Iterator<Item = (ObjectKey, SliceView)> {
    let (namespace, name) = SERVICE;
    gateways.iter().map(move |gateway| {
        let family = if gateway.is_ipv4() { "IPv4" } else { "IPv6" };
        let key = ObjectKey::new(namespace, format!("{OWN_SLICE}, {family}"));
        let ports = PORTS.map(|(name, protocol)| PortView::new(name, port, protocol));
        let endpoint = EndpointView::new(gateway, true, true, false, true);
        let service = ObjectKey::new(namespace, name);
        (key, SliceView::new(service, ports.to_vec(), vec![endpoint]))
    })
}

/// Reads what the cluster's owner says, whenever it changes.
async fn follow_config(resolver: Arc<Resolver>, client: Client) {
    let api = Api::<ConfigMap>::namespaced(client, config::NAMESPACE);
    let wanted = watcher::Config::default().fields(&format!("metadata.name={}", config::NAME));
    let mut events = Box::pin(watcher(api, wanted).backoff(Pauses::default()));
    // What the list that is under way has.
    let mut listed = None;
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => listed = None,
            Ok(Some(watcher::Event::InitApply(found))) => listed = Some(found),
            Ok(Some(watcher::Event::InitDone)) => configure(&resolver, listed.take()),
            Ok(Some(watcher::Event::Apply(found))) => configure(&resolver, Some(found)),
            Ok(Some(watcher::Event::Delete(_))) => configure(&resolver, None),
            Ok(None) => return,
            Err(error) => tracing::debug!(%error, "the DNS configuration's watch is interrupted"),
        }
    }
}

fn configure(resolver: &Resolver, found: Option<ConfigMap>) {
    let data = found.and_then(|found| found.data).unwrap_or_default();
    let (config, complaints) = Config::parse(&data);
    for complaint in complaints {
        let (namespace, name) = (config::NAMESPACE, config::NAME);
        tracing::warn!("ConfigMap {namespace}/{name}: {complaint}");
    }
    resolver.configure(config);
}

/// Reads the node's own servers, again and again.
async fn follow_node(resolver: Arc<Resolver>, gateways: Addrs) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let service = ObjectKey::new(SERVICE.0, SERVICE.1);
        let mut own: BTreeSet<IpAddr> = gateways.iter().collect();
        own.extend(resolver.look(|index| index.addresses(&service).to_vec()));
        resolver.set_node_servers(config::node_servers(&node_resolv_conf(), &own));
    }
}

/// The node's `resolv.conf`. systemd-resolved's own address is of no use to pods; it has another file with
/// the servers that it asks.
pub fn node_resolv_conf() -> String {
    const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let stub = |line: &str| line.trim_start().starts_with("nameserver 127.0.0.53");
    match text.lines().any(stub) {
        true => fs::read_to_string(RESOLVED).unwrap_or(text),
        false => text,
    }
}

fn domain(text: &str) -> Name {
    let full = |text: &str| Name::from_ascii(format!("{}.", text.trim_end_matches('.')));
    full(text)
        .or_else(|_| full("cluster.local"))
        .unwrap_or_default()
}

/// Entry points for damaged input.
pub mod fuzzing {
    use std::sync::LazyLock;

    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::Name;

    use super::message::{self, PAYLOAD, Read, Transport};
    use super::resolver::{Resolver, Step};
    use super::{Numbers, Zone, upstream};

    static RESOLVER: LazyLock<Resolver> = LazyLock::new(|| {
        let zone = Zone {
            domain: super::domain("cluster.local"),
            pods: vec![],
            services: vec![],
        };
        Resolver::new(zone, vec![], Numbers::default())
    });

    /// What is done with a datagram of a pod: `true`, it asks something.
    ///
    /// # Panics
    ///
    /// If an answer is longer than a datagram may be, or does not read.
    pub fn query(bytes: &[u8]) -> bool {
        let (answer, is_asked) = match message::read(bytes) {
            Read::Ignored => return false,
            Read::Refused(answer) => (Some(answer), false),
            Read::Asked(asked) => match RESOLVER.at_once(&asked) {
                Step::Done(answer) => (asked.answer(answer, Transport::Udp), true),
                Step::Ask(_, question) => {
                    let forwarded = asked.forward(&question).to_vec();
                    assert!(forwarded.is_ok(), "{forwarded:?}");
                    (None, true)
                }
            },
        };
        if let Some(answer) = answer {
            assert!(
                answer.len() <= usize::from(PAYLOAD),
                "{} bytes",
                answer.len()
            );
            assert!(Message::from_vec(&answer).is_ok(), "{answer:?}");
        }
        is_asked
    }

    /// What is done with a datagram of another server: `true`, it is the answer.
    pub fn answer(bytes: &[u8]) -> bool {
        let name = Name::from_ascii("a.example.").unwrap_or_default();
        let question = Query::query(name, hickory_proto::rr::RecordType::A);
        let number = bytes
            .first_chunk::<2>()
            .map(|head| u16::from_be_bytes(*head));
        number.is_some_and(|number| upstream::matching(bytes, number, &question).is_some())
    }
}
