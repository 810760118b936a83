//! The cluster's DNS beside Debian's unbound: the same names, asked by the same pod over the same datapath.
//! Ours answers on the pod's own node, unbound in a pod of another node, as a DNS add-on does.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::dns::hold::Pair;
use agent::dns::{self, Directory, Site};
use anyhow::{Context, Result, ensure};
use datapath::view::{EndpointView, PortView, Protocol};
use datapath::{Addrs, Change, ObjectKey, SliceView};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use sys::Shutdown;
use tempfile::TempDir;

use super::case::{Mark, Outcome};
use super::service::{CLIENT, SERVER, Size};
use crate::netns::{Cluster, Netns, Svc};

/// How much of it: `--short` only shows that it runs.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub services: u32,
    pub rounds: usize,
    /// Questions one by one in a round.
    pub questions: u32,
    pub round: Duration,
}

pub const FULL: Extent = Extent {
    services: 1000,
    rounds: 10,
    questions: 2000,
    round: Duration::from_millis(500),
};

pub const SHORT: Extent = Extent {
    services: 10,
    rounds: 1,
    questions: 50,
    round: Duration::from_millis(50),
};

pub const PORT: u16 = 53;
const NAMESPACE: &str = "bench";
/// Questions under way at a time when it is about how many are answered.
const WINDOW: usize = 64;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long unbound may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster with both servers.
struct Sides {
    ours: SocketAddr,
    theirs: SocketAddr,
    shutdown: Shutdown,
    unbound: Child,
    _directory: Directory,
    _runtime: tokio::runtime::Runtime,
    _files: TempDir,
    cluster: Cluster,
}

impl Drop for Sides {
    fn drop(&mut self) {
        self.shutdown.trigger();
        // It has nothing to lose.
        let _ = self.unbound.kill();
        let _ = self.unbound.wait();
    }
}

/// Time of a question, and questions a second, of both sides in turn.
pub fn figures(extent: Extent, unbound: &Path) -> Result<Vec<Outcome>> {
    let sides = Sides::start(extent, unbound)?;
    let client = &sides.cluster.nodes[0].pods[0].netns;
    let mut figures: [Vec<f64>; 4] = Default::default();
    let [our_time, their_time, our_rate, their_rate] = &mut figures;
    for round in 0..extent.rounds {
        eprint!("\rdns: round {} of {} ", round + 1, extent.rounds);
        our_time.push(time(client, sides.ours, extent)?);
        their_time.push(time(client, sides.theirs, extent)?);
        our_rate.push(rate(client, sides.ours, extent)?);
        their_rate.push(rate(client, sides.theirs, extent)?);
    }
    eprintln!();
    let size = Size::new(extent.services, 0);
    let (name, mark) = ("query, one by one, median", Mark::AtMost(100.0));
    let [our_time, their_time, our_rate, their_rate] = &figures;
    Ok(vec![
        Outcome::alone(name, size, "us", our_time, Some(mark)),
        Outcome::ratio(name, size, "us", (our_time, their_time), "unbound", None),
        Outcome::ratio(
            "queries, 64 at a time",
            size,
            "/s",
            (our_rate, their_rate),
            "unbound",
            Some(Mark::AtLeast(1.5)),
        ),
    ])
}

/// The median of questions one by one, in microseconds.
fn time(client: &Netns, server: SocketAddr, extent: Extent) -> Result<f64> {
    client.enter(|| {
        let socket = connected(server)?;
        let mut buffer = [0; 1500];
        let mut took = Vec::new();
        for number in 0..extent.questions {
            let question = question_of_service(number, extent.services);
            let started = Instant::now();
            socket.send(&question)?;
            let length = socket.recv(&mut buffer)?;
            took.push(started.elapsed().as_secs_f64() * 1e6);
            check(&buffer[..length])?;
        }
        took.sort_by(f64::total_cmp);
        Ok(took[took.len() / 2])
    })
}

/// Answers a second, with a window of questions under way.
fn rate(client: &Netns, server: SocketAddr, extent: Extent) -> Result<f64> {
    client.enter(|| {
        let socket = connected(server)?;
        let mut buffer = [0; 1500];
        let mut asked = 0;
        let mut ask = || -> Result<()> {
            socket.send(&question_of_service(asked, extent.services))?;
            asked += 1;
            Ok(())
        };
        for _ in 0..WINDOW {
            ask()?;
        }
        let started = Instant::now();
        let mut answers = 0_u32;
        while started.elapsed() < extent.round {
            match socket.recv(&mut buffer) {
                Ok(length) => check(&buffer[..length])?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            answers += 1;
            ask()?;
        }
        Ok(f64::from(answers) / started.elapsed().as_secs_f64())
    })
}

fn connected(server: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.connect(server)?;
    Ok(socket)
}

/// A question for the address of a Service, whose number goes round.
fn question_of_service(number: u32, services: u32) -> Vec<u8> {
    question(number, &name(number % services))
}

/// A question for the address of a name; its ID is from the number.
pub fn question(number: u32, name: &str) -> Vec<u8> {
    let [.., high, low] = number.to_be_bytes();
    let mut bytes = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// Asks again and again, from the calling thread's namespace; the moment of the first answer without error.
///
/// # Errors
///
/// None within seconds.
pub fn until_answered(server: SocketAddr, question: &[u8]) -> Result<Instant> {
    let socket = connected(server)?;
    let mut buffer = [0; 1500];
    let started = Instant::now();
    loop {
        socket.send(question)?;
        let length = socket.recv(&mut buffer)?;
        let answered = Instant::now();
        match check(&buffer[..length]) {
            Ok(()) => return Ok(answered),
            Err(error) => ensure!(started.elapsed() < ANSWER_TIMEOUT, "{error:#}"),
        }
    }
}

/// It has one answer and no error.
fn check(answer: &[u8]) -> Result<()> {
    let header = answer.first_chunk::<12>().context("no whole answer")?;
    ensure!(header[3] & 0x0f == 0 && header[7] == 1, "{header:?}");
    Ok(())
}

fn name(number: u32) -> String {
    format!("svc-{number}.{NAMESPACE}.svc.cluster.local")
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 128, 0).to_bits() + number)
}

impl Sides {
    fn start(extent: Extent, unbound: &Path) -> Result<Self> {
        let mut cluster = Cluster::start(2)?;
        cluster.nodes[0].add_pod(CLIENT)?;
        cluster.nodes[1].add_pod(SERVER)?;
        cluster.in_sync()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let (ours, theirs) = (Svc::new("ours", 10), Svc::new("theirs", 11));
        let far = cluster.nodes[1].ep(0);
        let (ours, theirs) = (ours.udp(PORT, PORT), theirs.udp(PORT, PORT).to([far]));
        cluster.apply(&ours)?;
        cluster.apply(&theirs)?;
        let shutdown = Shutdown::new();
        let directory = resolver(&mut cluster, extent, &runtime, &shutdown)?;
        let files = TempDir::new()?;
        let pod = &cluster.nodes[1].pods[0].netns;
        let unbound = start_unbound(unbound, files.path(), pod, extent)?;
        let at = |svc: &Svc| SocketAddr::new(svc.v4().into(), PORT);
        let sides = Self {
            ours: at(&ours),
            theirs: at(&theirs),
            shutdown,
            unbound,
            _directory: directory,
            _runtime: runtime,
            _files: files,
            cluster,
        };
        sides.wait(extent)?;
        Ok(sides)
    }

    /// Until both answer.
    fn wait(&self, extent: Extent) -> Result<()> {
        let started = Instant::now();
        let once = Extent {
            questions: 1,
            ..extent
        };
        let client = &self.cluster.nodes[0].pods[0].netns;
        for server in [self.ours, self.theirs] {
            while let Err(error) = time(client, server, once) {
                ensure!(started.elapsed() < START_TIMEOUT, "{server}: {error:#}");
            }
        }
        Ok(())
    }
}

/// Our resolver, on the client's node.
fn resolver(
    cluster: &mut Cluster,
    extent: Extent,
    runtime: &tokio::runtime::Runtime,
    shutdown: &Shutdown,
) -> Result<Directory> {
    let node = &mut cluster.nodes[0];
    let gateway = node.gateways().v4.context("the node has IPv4")?;
    let ports = vec![PortView::new("udp-53", PORT, Protocol::Udp)];
    let endpoint = EndpointView::new(gateway.into(), true, true, false, true);
    let slice = SliceView::new(ObjectKey::new("default", "ours"), ports, vec![endpoint]);
    let key = ObjectKey::new("default", "ours (this node)");
    node.with(|datapath| datapath.change(Change::Slice(key, Some(slice))))?;
    let at = SocketAddr::new(IpAddr::from(gateway), PORT);
    let pair = node.netns.enter(|| Pair::open(at))?;
    let site = Site {
        node: node.config.node_name.clone(),
        domain: "cluster.local".into(),
        gateways: Addrs::default(),
        shares: node
            .config
            .v4
            .iter()
            .map(|family| family.pod_cidr)
            .collect(),
        pods: Vec::new(),
        services: Vec::new(),
    };
    let _inside = runtime.enter();
    let directory = dns::alone(site, &Default::default(), vec![pair], shutdown)?;
    for number in 0..extent.services {
        let service = Service {
            spec: Some(ServiceSpec {
                cluster_ip: Some(address(number).to_string()),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        let key = ObjectKey::new(NAMESPACE, format!("svc-{number}"));
        directory.service(&key, Some(&service));
    }
    Ok(directory)
}

fn start_unbound(program: &Path, dir: &Path, pod: &Netns, extent: Extent) -> Result<Child> {
    let mut conf = format!(
        "server:\n  interface: 0.0.0.0\n  access-control: 0.0.0.0/0 allow\n  chroot: \"\"\n  username: \"\"\n  \
         directory: \"{0}\"\n  pidfile: \"\"\n  use-syslog: no\n  do-daemonize: no\n  do-ip6: no\n  \
         module-config: \"iterator\"\n  local-zone: \"cluster.local.\" static\n",
        dir.display()
    );
    for number in 0..extent.services {
        let (name, address) = (name(number), address(number));
        conf += &format!("  local-data: \"{name}. 5 IN A {address}\"\n");
    }
    conf += "remote-control:\n  control-enable: no\n";
    let file = dir.join("unbound.conf");
    fs::write(&file, conf)?;
    Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", pod.name))
        .arg(program)
        .args(["-d", "-c"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(dir.join("unbound.log"))?)
        .spawn()
        .context("start unbound")
}
