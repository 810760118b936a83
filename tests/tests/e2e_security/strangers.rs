//! Clients without credentials, or with a stolen certificate, that try to keep the API server and an
//! agent from their work. What that costs the others is measured by `cargo xtask bench strangers`.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use kube::config::Kubeconfig;
use sys::descriptors;
use tests::cluster::wait;
use tests::scenarios::Scenario;
use tests::strangers::attacks::{ATTACKS, Attack, CUT_OFF};
use tests::strangers::{STOLEN, Target, resident_bytes, stolen_node};

use crate::setting::Setting;

pub const SCENARIOS: &[Scenario<Setting>] = &[
    (
        "every_attack_on_the_api_server_is_told_why_it_fails",
        attacks_are_answered,
    ),
    (
        "kubectl_is_served_while_strangers_hold_on",
        kubectl_is_served,
    ),
    (
        "pods_that_hold_connections_to_the_agent_do_not_stop_its_work",
        the_agent_works_on,
    ),
];

/// Beside what it takes at rest.
const MEMORY_BYTES: u64 = 768 * 1024 * 1024;
/// The attacks that are answered at once, and not only after a timeout.
const AT_ONCE: [&str; 6] = ["400", "401", "403", "413", "415", "431"];

fn target(setting: &Setting) -> Target {
    let file = setting.cluster.dir().join("kubeconfig");
    let config = Kubeconfig::read_from(file).expect("a kubeconfig");
    let server = config.clusters[0]
        .cluster
        .as_ref()
        .and_then(|it| it.server.clone());
    let address = server.expect("an address").replace("https://", "");
    let address: SocketAddr = address.parse().expect("an address and a port");
    let directory: PathBuf = setting.cluster.dir().join("server");
    Target::new(address, &directory).expect("the server's authority")
}

/// The Node of the stolen certificate, while the value lasts.
struct Stolen<'a>(&'a Setting);

impl<'a> Stolen<'a> {
    fn make(setting: &'a Setting) -> Self {
        let made = setting.kubectl.given("create", &stolen_node());
        made.expect("a Node");
        Self(setting)
    }
}

impl Drop for Stolen<'_> {
    fn drop(&mut self) {
        let deleted = self.0.kubectl.run(&format!("delete node {STOLEN}"));
        if let Err(error) = deleted {
            eprintln!("the stolen node is left: {error:#}");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let _ = rustls::crypto::ring::default_provider().install_default();
    descriptors::raise_limit();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

fn server_pid(setting: &Setting) -> u32 {
    u32::try_from(setting.cluster.pid("server").expect("a server")).expect("a pid")
}

fn attacks_are_answered(setting: &Setting) {
    let (target, runtime) = (target(setting), runtime());
    let _stolen = Stolen::make(setting);
    let server = server_pid(setting);
    let before = resident_bytes(server).expect("it runs");
    let answered = |attack: &&Attack| AT_ONCE.contains(&attack.hears);
    for attack in ATTACKS.iter().filter(answered) {
        let heard = runtime.block_on(attack.once(&target));
        assert_eq!(heard, attack.hears, "{}", attack.name);
        setting
            .kubectl
            .run("get namespace default")
            .expect("it is served");
        let grown = resident_bytes(server)
            .expect("it runs")
            .saturating_sub(before);
        assert!(grown < MEMORY_BYTES, "{}: {grown} bytes more", attack.name);
    }
    assert_eq!(server_pid(setting), server, "it was not started anew");
}

/// How long it waits is measured by `cargo xtask bench strangers`.
fn kubectl_is_served(setting: &Setting) {
    /// Those that shake hands; who only connects costs nothing.
    const CLIENTS: usize = 100;
    let (target, runtime) = (target(setting), runtime());
    let _stolen = Stolen::make(setting);
    let server = server_pid(setting);
    let before = resident_bytes(server).expect("it runs");
    let held = |attack: &&Attack| attack.hears == CUT_OFF || attack.clients >= 200;
    for attack in ATTACKS.iter().filter(held) {
        let attack = match attack.clients {
            10_000.. => attack.of(usize::MAX),
            _ => attack.of(CLIENTS),
        };
        let attacking = async {
            let run = attack.run(&target, |_| {});
            let _ = tokio::time::timeout(Duration::from_secs(6), run).await;
        };
        let served = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let began = Instant::now();
                let mut served = Ok(String::new());
                while served.is_ok() && began.elapsed() < Duration::from_secs(5) {
                    let get = "get --raw /api/v1/namespaces/default";
                    served = setting.kubectl.run(get);
                }
                served
            });
            runtime.block_on(attacking);
            asking.join().expect("no panic")
        });
        if let Err(error) = served {
            panic!("{}: {error:#}", attack.name);
        }
        let grown = resident_bytes(server)
            .expect("it runs")
            .saturating_sub(before);
        assert!(grown < MEMORY_BYTES, "{}: {grown} bytes more", attack.name);
    }
}

/// From the client's side of the network, as a pod of another node would.
fn the_agent_works_on(setting: &Setting) {
    let node = setting.cluster.node(1);
    let addresses = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
    let get = ["get", "node", &node, "-o", addresses];
    let address = setting.kubectl.args(&get).expect("a node");
    let address = address
        .split_whitespace()
        .find_map(|ip| ip.parse::<IpAddr>().ok());
    let agent = SocketAddr::new(address.expect("the node has an address"), 10250);
    let pid = setting.cluster.pid("node-1").expect("an agent");
    descriptors::raise_limit();
    let enter = setting.cluster.enter("outside");
    let held = std::thread::spawn(move || {
        enter();
        let connect = |_| TcpStream::connect_timeout(&agent, Duration::from_secs(2)).ok();
        (0..10_000).filter_map(connect).collect::<Vec<_>>()
    });
    let held = held.join().expect("the attacker");
    assert!(held.len() > 5000, "only {} were taken", held.len());
    wait("the agent keeps few connections of strangers", || {
        let files = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        let open = held.iter().filter(|stream| is_open(stream)).count();
        ensure!(
            open <= 128 && files < 600,
            "{open} connections are open, {files} files"
        );
        Ok(Some(()))
    });
    let metrics = setting.cluster.metrics(&setting.kubectl, 1);
    metrics.expect("the agent answers the API server's certificate");
    assert_eq!(setting.cluster.pid("node-1").expect("an agent"), pid);
}

fn is_open(mut stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let read = stream.read(&mut [0]);
    matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}
