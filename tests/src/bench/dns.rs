//! The cluster's DNS beside Debian's unbound: the same names, asked by the same pod over the same datapath.
//! Ours answers on the pod's own node, unbound in a pod of another node, as a DNS add-on does.

use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use agent::dns::hold::Pair;
use agent::dns::{self, Directory, Site};
use anyhow::{Context, Result, ensure};
use datapath::view::{EndpointView, PortView, Protocol};
use datapath::{Addrs, Change, ObjectKey, SliceView};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
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
/// Where the bare echo listens, on the client's node.
const ECHO_PORT: u16 = 5300;
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
    echo: SocketAddr,
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
    let mut figures: [Vec<f64>; 5] = Default::default();
    let [our_time, their_time, our_rate, their_rate, echo_rate] = &mut figures;
    for round in 0..extent.rounds {
        eprint!("\rdns: round {} of {} ", round + 1, extent.rounds);
        our_time.push(time(client, sides.ours, extent)?);
        their_time.push(time(client, sides.theirs, extent)?);
        our_rate.push(rate(client, sides.ours, extent)?);
        their_rate.push(rate(client, sides.theirs, extent)?);
        echo_rate.push(rate(client, sides.echo, extent)?);
    }
    eprintln!();
    let size = Size::new(extent.services, 0);
    let (name, mark) = ("query, one by one, median", Mark::AtMost(100.0));
    let [our_time, their_time, our_rate, their_rate, echo_rate] = &figures;
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
        Outcome::alone(
            "echoes that look at nothing, 64 at a time",
            size,
            "/s",
            echo_rate,
            None,
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

/// Answers a second, with a window of questions under way. The client takes and sends as many at once as there
/// are: it must not be the limit.
fn rate(client: &Netns, server: SocketAddr, extent: Extent) -> Result<f64> {
    client.enter(|| {
        let mut window = Window::open(connected(server)?, extent.services);
        window.ask(WINDOW)?;
        let started = Instant::now();
        let mut answers = 0;
        while started.elapsed() < extent.round {
            let heard = window.hear()?;
            window.ask(heard)?;
            answers += heard;
        }
        Ok(answers as f64 / started.elapsed().as_secs_f64())
    })
}

/// Questions under way of one socket.
struct Window {
    socket: UdpSocket,
    headers: MultiHeaders<SockaddrStorage>,
    services: u32,
    asked: u32,
}

impl Window {
    fn open(socket: UdpSocket, services: u32) -> Self {
        Self {
            socket,
            headers: MultiHeaders::preallocate(WINDOW, None),
            services,
            asked: 0,
        }
    }

    /// Sends so many questions, at most a window.
    fn ask(&mut self, count: usize) -> Result<()> {
        let questions: Vec<Vec<u8>> = (self.asked..)
            .take(count)
            .map(|number| question_of_service(number, self.services))
            .collect();
        let mut rest = &questions[..];
        while !rest.is_empty() {
            let slices: Vec<_> = rest.iter().map(|it| [IoSlice::new(it)]).collect();
            let (to, socket) = (vec![None; rest.len()], self.socket.as_raw_fd());
            let none = MsgFlags::empty();
            let sent = sendmmsg(socket, &mut self.headers, &slices, to, [], none)?.count();
            rest = &rest[sent..];
        }
        self.asked += u32::try_from(count)?;
        Ok(())
    }

    /// Waits for an answer, and takes all that are there; how many.
    fn hear(&mut self) -> Result<usize> {
        let mut buffers = [[0; 512]; WINDOW];
        let mut slices: Vec<_> = buffers.iter_mut().map(|it| [IoSliceMut::new(it)]).collect();
        let socket = self.socket.as_raw_fd();
        let (headers, flags) = (&mut self.headers, MsgFlags::MSG_WAITFORONE);
        let heard = recvmmsg(socket, headers, slices.iter_mut(), flags, None);
        let lengths: Vec<usize> = heard.context("no answer")?.map(|it| it.bytes).collect();
        for (length, buffer) in lengths.iter().zip(&buffers) {
            check(&buffer[..*length])?;
        }
        Ok(lengths.len())
    }
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
        let [ours, theirs, echo] =
            [("ours", 10), ("theirs", 11), ("echo", 12)].map(|(name, at)| Svc::new(name, at));
        let far = cluster.nodes[1].ep(0);
        let (ours, theirs) = (ours.udp(PORT, PORT), theirs.udp(PORT, PORT).to([far]));
        let echo = echo.udp(PORT, ECHO_PORT);
        for service in [&ours, &theirs, &echo] {
            cluster.apply(service)?;
        }
        start_echo(&mut cluster)?;
        let shutdown = Shutdown::new();
        let directory = resolver(&mut cluster, extent, &runtime, &shutdown)?;
        let files = TempDir::new()?;
        let pod = &cluster.nodes[1].pods[0].netns;
        let unbound = start_unbound(unbound, files.path(), pod, extent)?;
        let at = |svc: &Svc| SocketAddr::new(svc.v4().into(), PORT);
        let sides = Self {
            ours: at(&ours),
            theirs: at(&theirs),
            echo: at(&echo),
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
        for server in [self.ours, self.theirs, self.echo] {
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
    let at = on_the_node(cluster, "ours", PORT)?;
    let node = &cluster.nodes[0];
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

/// Leads the Service to a port of the client's node itself; where that listens.
fn on_the_node(cluster: &mut Cluster, service: &str, port: u16) -> Result<SocketAddr> {
    let node = &mut cluster.nodes[0];
    let gateway = node.gateways().v4.context("the node has IPv4")?;
    let ports = vec![PortView::new("udp-53", port, Protocol::Udp)];
    let endpoint = EndpointView::new(gateway.into(), true, true, false, true);
    let slice = SliceView::new(ObjectKey::new("default", service), ports, vec![endpoint]);
    let key = ObjectKey::new("default", format!("{service} (this node)"));
    node.with(|datapath| datapath.change(Change::Slice(key, Some(slice))))?;
    Ok(SocketAddr::new(IpAddr::from(gateway), port))
}

/// Sends each datagram back as if it held an answer, and looks at nothing: what the kernel takes.
fn start_echo(cluster: &mut Cluster) -> Result<()> {
    let at = on_the_node(cluster, "echo", ECHO_PORT)?;
    let socket = cluster.nodes[0].netns.enter(|| UdpSocket::bind(at))?;
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            if length < 12 {
                return;
            }
            buffer[2] |= 0x80;
            buffer[7] = 1;
            // Whoever does not listen any more needs nothing.
            let _ = socket.send_to(&buffer[..length], client);
        }
    });
    Ok(())
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
