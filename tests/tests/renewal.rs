//! Certificates that last seconds: a server and a node's two sides, in one process over real TLS,
//! renew theirs under load, and no request fails.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use agent::api::serve::Served;
use agent::api::{client, serve};
use agent::node::facts::Capacity;
use agent::node::heartbeat::{self, News};
use agent::node::join::{self, Applicant, Membership};
use agent::node::register::{Health, Listed, NodeFacts};
use agent::node::renewal;
use agent::runtime::fake::FakeRuntime;
use apiserver::cache::object_key;
use apiserver::{ApiServer, Pki, ServerConfig};
use datapath::Addrs;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{LogParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use store::{Expect, MemoryStore, Store, Write};
use sys::{Shutdown, Tasks};
use tokio::sync::{Notify, watch};

const NODE: &str = "node-1";
/// What the node's certificate names; nothing listens there.
const ADDRESS: &str = "172.31.0.11";
/// Renewed after four to six of these seconds.
const LIFETIME: Duration = Duration::from_secs(9);
const RENEWALS: usize = 3;
/// For all renewals, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where the agent answers.
const AGENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A server on the loopback device with its files.
struct Server {
    api: ApiServer,
    store: MemoryStore,
    directory: tempfile::TempDir,
    address: SocketAddr,
    shutdown: Shutdown,
}

impl Server {
    /// Its certificates, and those that it gives, last that long.
    async fn start(lifetime: Duration) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = ApiServer::bind(SocketAddr::new(LOCAL, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let now = Timestamp::now();
        let pki = directory.path().join("pki");
        let pki = Pki::load_or_create(&pki, &["127.0.0.1".to_owned()], lifetime, now);
        let kubeconfig = directory.path().join("admin.kubeconfig");
        let pki = pki.expect("certificates");
        let pki = pki.with_kubeconfig(kubeconfig, &format!("https://{address}"));
        let config = ServerConfig {
            advertise: address,
            token_file: Some(directory.path().join("node-token")),
            ..ServerConfig::default()
        };
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.clone());
        let store = MemoryStore::default();
        let api = ApiServer::build(config, Arc::new(store.clone()), pki.ok(), tasks).await;
        let api = api.expect("a server");
        let serving = api.clone();
        tokio::spawn(async move { serving.serve(vec![listener]).await });
        Self {
            api,
            store,
            directory,
            address,
            shutdown,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Joins as a node whose address is not used but for being its name.
    async fn join(&self) -> (Applicant, Membership) {
        let token = std::fs::read_to_string(self.file("node-token")).expect("a token");
        let applicant = Applicant {
            servers: vec![format!("https://{}", self.address).parse().expect("a URL")],
            token: Some(token),
            node_name: NODE.to_owned(),
            node_ips: ADDRESS.parse().expect("an address"),
            data_dir: self.file("agent"),
            registration: Default::default(),
        };
        let member = join::join(&applicant).await.expect("the node joins");
        (applicant, member)
    }

    /// Tells the server where the node's agent listens: past the API, for which no node is on this
    /// device.
    async fn place_node(&self, port: u16) {
        let nodes: Api<Node> = Api::all(self.api.client("test"));
        let node = nodes.get(NODE).await.expect("the node");
        let mut node = serde_json::to_value(node).expect("JSON");
        node["status"] = json!({
            "addresses": [
                {"type": "InternalIP", "address": AGENT},
                {"type": "InternalIP", "address": ADDRESS},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        });
        let resource = api::find("", "v1", "nodes").expect("a kind");
        let key = object_key(resource, "", NODE);
        let write = Write::put(key, resource.serialize(&node), Expect::Any);
        self.store.commit(vec![write]).await.expect("a commit");
        let pods: Api<Pod> = Api::default_namespaced(self.api.client("test"));
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": NODE,
            "containers": [{"name": "c", "image": "i"}]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        pods.create(&PostParams::default(), &pod)
            .await
            .expect("a pod");
    }
}

/// What was asked and what went wrong.
#[derive(Default)]
struct Tally {
    done: AtomicUsize,
    stop: AtomicBool,
    failures: std::sync::Mutex<Vec<String>>,
}

impl Tally {
    fn note<T>(&self, what: &str, outcome: Result<T, String>) {
        self.done.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = outcome {
            let error = format!("{}: {what}: {error}", Timestamp::now());
            self.failures.lock().expect("no panic").push(error);
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Ends the load however the test ends.
struct Stop(Arc<Tally>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// The agent's requests: its Node, its lease.
async fn ask(client: Client, tally: Arc<Tally>) {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let lease = json!({"metadata": {"name": NODE}});
    let lease: Lease = serde_json::from_value(lease).expect("a lease");
    let made = leases.create(&PostParams::default(), &lease).await;
    tally.note("create the lease", made.map_err(|e| e.to_string()));
    while tally.goes_on() {
        let own = nodes.get(NODE).await;
        tally.note("get the node", own.map_err(|e| e.to_string()));
        let renewed = json!({"spec": {"holderIdentity": NODE}});
        let renewed = Patch::Merge(renewed);
        let renewed = leases.patch(NODE, &PatchParams::default(), &renewed).await;
        tally.note("renew the lease", renewed.map_err(|e| e.to_string()));
    }
}

/// The agent's watch, which the server ends with each certificate.
async fn follow(client: Client, tally: Arc<Tally>) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={NODE}"));
    let pods = watcher(Api::<Pod>::all(client), config).default_backoff();
    let mut pods = pods.boxed();
    while let Some(event) = pods.next().await {
        tally.note("watch pods", event.map_err(|e| e.to_string()));
    }
}

/// The server's requests to the agent.
async fn read_logs(client: Client, tally: Arc<Tally>) {
    let pods: Api<Pod> = Api::default_namespaced(client);
    while tally.goes_on() {
        let outcome = match pods.logs("p", &LogParams::default()).await {
            // The agent's own answer: it has no such container.
            Err(kube::Error::Api(status)) if status.code == 400 => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("a log of nothing".to_owned()),
        };
        tally.note("read a log", outcome);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Counts how often a file has another content, until it has had that many.
async fn changes(path: &Path, wanted: usize) {
    let read = || std::fs::read(path).expect("the file is there");
    let (mut last, mut seen) = (read(), 0);
    while seen < wanted {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = read();
        seen += usize::from(now != last);
        last = now;
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((LOCAL, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_under_load_on_both_sides_and_no_request_fails() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server::start(LIFETIME).await;
    let (applicant, member) = server.join().await;
    let first = watch::Sender::new(member.clone());
    let renewed = watch::Sender::new(member);
    let shutdown = server.shutdown.clone();
    let asks = |of: &watch::Sender<Membership>| {
        let client = client::start(&applicant.servers, of.subscribe(), &shutdown);
        client.expect("a client")
    };
    let (client, stale) = (asks(&renewed), asks(&first));
    let port = free_port();
    let served = Served::new(
        Arc::new(FakeRuntime::default()),
        Arc::default(),
        Default::default(),
    );
    let agent = serve::run(port, renewed.subscribe(), served, shutdown.clone());
    let agent = tokio::spawn(agent);
    server.place_node(port).await;
    let nodes: Api<Node> = Api::all(stale);
    nodes
        .get(NODE)
        .await
        .expect("the first certificate is good at first");

    let tally = Arc::new(Tally::default());
    let load = Stop(tally.clone());
    let asking = tokio::spawn(ask(client.clone(), tally.clone()));
    let following = tokio::spawn(follow(client, tally.clone()));
    let logs = tokio::spawn(read_logs(server.api.client("test"), tally.clone()));
    let addrs = watch::Sender::new(applicant.node_ips);
    let (refused, stop) = (Arc::default(), shutdown.clone());
    let renewing = renewal::run(applicant, renewed, addrs.subscribe(), refused, stop);
    tokio::spawn(renewing);

    let (own, admin) = (
        server.file("agent/pki/node.crt"),
        server.file("admin.kubeconfig"),
    );
    let all = async { tokio::join!(changes(&own, RENEWALS), changes(&admin, RENEWALS)) };
    let all = tokio::time::timeout(PATIENCE, all).await;
    all.expect("both sides renew theirs in time");
    // Requests by the newest ones, too.
    let done = tally.done.load(Ordering::Relaxed);
    while tally.done.load(Ordering::Relaxed) < done + 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(load);
    asking.await.expect("no panic");
    logs.await.expect("no panic");
    following.abort();
    let failures = tally.failures.lock().expect("no panic").clone();
    assert!(failures.is_empty(), "of {done}: {failures:#?}");
    // What is not renewed ends: neither an open connection nor a new one lets it through.
    nodes
        .get(NODE)
        .await
        .expect_err("the first certificate has ended");
    assert!(!agent.is_finished(), "the agent serves to the end");
    shutdown.trigger();
}

/// The parts of an agent that keep its Node and its certificate.
struct Agent {
    listed: watch::Sender<Option<Listed>>,
    // The heartbeat ends with those that tell it something.
    _others: (watch::Sender<Addrs>, watch::Sender<Health>),
}

impl Agent {
    fn start(applicant: Applicant, member: Membership, shutdown: &Shutdown) -> Self {
        let renewed = watch::Sender::new(member);
        let client = client::start(&applicant.servers, renewed.subscribe(), shutdown);
        let (addrs, listed) = (
            watch::Sender::new(applicant.node_ips),
            watch::Sender::new(None),
        );
        let health = watch::Sender::default();
        let news = News {
            addrs: addrs.subscribe(),
            membership: renewed.subscribe(),
            listed: listed.subscribe(),
            health: health.subscribe(),
            running: Arc::default(),
            fence: Default::default(),
            in_use: watch::channel(Default::default()).1,
        };
        let facts = NodeFacts {
            name: NODE.to_owned(),
            addrs: applicant.node_ips,
            capacity: Capacity {
                cpus: 1,
                memory_bytes: 1 << 30,
                disk_bytes: 1 << 30,
            },
            system: Default::default(),
            reserved: Default::default(),
            volumes_in_use: Default::default(),
        };
        let refused = Arc::new(Notify::new());
        let renewing = renewal::run(
            applicant,
            renewed,
            addrs.subscribe(),
            refused.clone(),
            shutdown.clone(),
        );
        tokio::spawn(renewing);
        let client = client.expect("a client");
        tokio::spawn(heartbeat::run(
            client,
            facts,
            news,
            refused,
            shutdown.clone(),
        ));
        Self {
            listed,
            _others: (addrs, health),
        }
    }
}

/// The Node once it is as wanted.
async fn node_that(nodes: &Api<Node>, is_wanted: impl Fn(&Node) -> bool) -> Node {
    let waiting = async {
        loop {
            match nodes.get_opt(NODE).await.expect("the server answers") {
                Some(node) if is_wanted(&node) => return node,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, waiting).await;
    found.expect("the node becomes as wanted in time")
}

fn has_address(node: &Node, address: &str) -> bool {
    let status = node.status.iter();
    let mut addresses = status.flat_map(|status| status.addresses.iter().flatten());
    addresses.any(|it| it.type_ == "InternalIP" && it.address == address)
}

fn is_ready(node: &Node) -> bool {
    let status = node.status.iter();
    let mut conditions = status.flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|it| it.type_ == "Ready" && it.status == "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_writes_its_addresses_back_and_a_token_makes_it_a_node_again() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // No renewal that is due has a part in it.
    let server = Server::start(Duration::from_secs(24 * 3600)).await;
    let (applicant, member) = server.join().await;
    let shutdown = server.shutdown.clone();
    let agent = Agent::start(applicant, member, &shutdown);
    let nodes: Api<Node> = Api::all(server.api.client("test"));
    let own = |node: &Node| has_address(node, ADDRESS) && is_ready(node);
    let first = node_that(&nodes, own).await;

    let other = json!({"type": "InternalIP", "address": "172.31.0.99"});
    let other = Patch::Merge(json!({"status": {"addresses": [other]}}));
    let parameters = PatchParams::default();
    let written = nodes.patch_status(NODE, &parameters, &other).await;
    written.expect("an administrator may");
    let other: Addrs = "172.31.0.99".parse().expect("an address");
    let listed = Listed {
        addrs: other,
        uncopied: Default::default(),
    };
    agent.listed.send_replace(Some(listed));
    node_that(&nodes, own).await;

    let deleted = nodes.delete(NODE, &Default::default()).await;
    deleted.expect("an administrator may");
    let again = node_that(&nodes, own).await;
    assert_ne!(first.metadata.uid, again.metadata.uid);
    let labels = again.metadata.labels.unwrap_or_default();
    assert_eq!(
        labels.get("kubernetes.io/hostname").map(String::as_str),
        Some(NODE)
    );
    shutdown.trigger();
}
