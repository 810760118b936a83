//! The load tool: what netperf's tests of the same names do, between two processes.
//!
//! One process is the server, one the client; each enters a namespace, pins itself to a core and
//! joins a cgroup before it opens a socket. The client prints one JSON line: [`Measured`].
//! Congestion control is the kernel's default one whatever the machine's is: a paced sender would
//! measure its pace.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::awake;
use super::service::{SERVER_ADDRESSES, server_addr};

/// What the client does over and over until time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// One byte there and back over an open connection.
    TcpRr,
    /// Connect, one byte there and back, close.
    TcpCrr,
    UdpRr,
    /// As many bytes as go, one way.
    TcpStream,
    UdpStream,
}

/// One run of the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub kind: Kind,
    pub to: SocketAddrV4,
    /// Asked in turn with `to`, connection by connection or slice by slice, each for half of the time.
    pub beside: Option<SocketAddrV4>,
    pub flows: u32,
    pub millis: u64,
}

/// What a run gave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Transactions or received bytes a second, over all flows.
    pub rate: f64,
    /// Of connect() for TcpCrr: nanoseconds at the median and the 99th percentile.
    pub connect_p50_ns: f64,
    pub connect_p99_ns: f64,
    /// Of TcpCrr: connections that were refused, reset or never made.
    pub failed: u64,
    /// The same of the address that was asked in turn.
    pub beside: Option<Box<Measured>>,
}

/// Where a process of the load runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// A namespace by name, below `/run/netns`.
    pub netns: String,
    pub core: usize,
    /// A cgroup v2 directory.
    pub cgroup: Option<PathBuf>,
}

/// A server of every kind that goes with its value.
pub struct Server(Child);

/// Ports of the server: TCP and UDP transactions, TCP and UDP streams.
pub const RR_PORT: u16 = 7000;
pub const CRR_PORT: u16 = 7001;
pub const STREAM_PORT: u16 = 7002;

/// A send of the streams: TCP writes, and UDP datagrams that fit one packet of the overlay.
const TCP_WRITE: usize = 64 * 1024;
const UDP_WRITE: usize = 1400;

const CONGESTION_CONTROL: &str = "cubic";

/// A wait after which a connection has failed.
const TCP_PATIENCE: Duration = Duration::from_secs(5);

/// A wait after which a lost datagram is given up.
const UDP_PATIENCE: Duration = Duration::from_millis(200);

impl Server {
    /// Starts a server for all kinds at a place and waits until it listens.
    pub fn start(place: &Place) -> Result<Self> {
        let mut child = command(place, "serve").stdout(Stdio::piped()).spawn()?;
        let mut ready = [0; 6];
        let mut out = child.stdout.take().context("no stdout")?;
        let server = Self(child);
        out.read_exact(&mut ready)
            .context("the load server did not start")?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a client at a place and gives what it measured.
pub fn run(place: &Place, job: &Job) -> Result<Measured> {
    start(place, job)?.finish()
}

/// Starts a client that goes on beside what the caller does.
pub fn start(place: &Place, job: &Job) -> Result<Client> {
    let child = command(place, "drive")
        .arg(serde_json::to_string(job)?)
        .stdout(Stdio::piped())
        .spawn()?;
    let what = format!("{job:?} in {}", place.netns);
    Ok(Client { child, what })
}

/// A client at work.
pub struct Client {
    child: Child,
    what: String,
}

impl Client {
    /// What it measured, once its time is up.
    pub fn finish(self) -> Result<Measured> {
        let output = self.child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{}: {}",
            self.what,
            complaint.trim()
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn command(place: &Place, role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["load", role, &place.netns, &place.core.to_string()]);
    command.arg(place.cgroup.as_deref().unwrap_or(Path::new("-")));
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The child's side of [`Server::start`] and [`run`]: `serve|drive NETNS CORE CGROUP [JOB]`.
pub fn main(arguments: &[String]) -> Result<()> {
    if let [role, core] = arguments
        && role == "turn"
    {
        return awake::turn(core);
    }
    let [role, netns, core, cgroup, rest @ ..] = arguments else {
        bail!("load serve|drive NETNS CORE CGROUP [JOB]");
    };
    // Nobody stays behind when the bench is killed.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if cgroup != "-" {
        fs::write(Path::new(cgroup).join("cgroup.procs"), "0").context("join the cgroup")?;
    }
    let mut cores = CpuSet::new();
    cores.set(core.parse()?)?;
    sched_setaffinity(Pid::from_raw(0), &cores)?;
    setns(
        fs::File::open(format!("/run/netns/{netns}"))?,
        CloneFlags::CLONE_NEWNET,
    )?;
    match (role.as_str(), rest) {
        ("serve", []) => serve(),
        ("drive", [job]) => {
            println!(
                "{}",
                serde_json::to_string(&drive(&serde_json::from_str(job)?)?)?
            );
            Ok(())
        }
        _ => bail!("no such role: {role}"),
    }
}

fn serve() -> Result<()> {
    let any = Ipv4Addr::UNSPECIFIED;
    let (rr, crr) = (
        TcpListener::bind((any, RR_PORT))?,
        TcpListener::bind((any, CRR_PORT))?,
    );
    let stream = TcpListener::bind((any, STREAM_PORT))?;
    for listener in [&rr, &crr, &stream] {
        set_congestion_control(listener)?;
    }
    thread::spawn(move || each(&rr, echo));
    thread::spawn(move || each(&stream, count));
    // A socket an address: an answer must come from the address that was asked.
    for nth in 0..SERVER_ADDRESSES {
        let udp = UdpSocket::bind((server_addr(nth), RR_PORT))?;
        let sink = UdpSocket::bind((server_addr(nth), STREAM_PORT))?;
        thread::spawn(move || echo_datagrams(&udp));
        thread::spawn(move || count_datagrams(&sink));
    }
    println!("ready");
    // One thread serves all short connections: a thread each would measure threads.
    for stream in crr.incoming() {
        let _ = answer_once(stream);
    }
    Ok(())
}

fn each(listener: &TcpListener, serve: fn(TcpStream) -> io::Result<()>) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || serve(stream));
    }
}

fn answer_once(stream: io::Result<TcpStream>) -> io::Result<()> {
    let mut stream = stream?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    // The server closes first: TIME_WAIT stays here and the client does not run out of ports.
    stream.write_all(&byte)
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Counts what comes and says the sum when the other side stops sending.
fn count(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut sum = 0u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => sum += n as u64,
        }
    }
    stream.write_all(&sum.to_be_bytes())
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut byte = [0; 16];
    while let Ok((length, from)) = socket.recv_from(&mut byte) {
        let _ = socket.send_to(&byte[..length], from);
    }
}

/// Counts bytes; an 8-byte datagram asks for the sum and resets it.
fn count_datagrams(socket: &UdpSocket) {
    let mut buffer = vec![0; 64 * 1024];
    let mut sum = 0u64;
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        if length == 8 {
            let _ = socket.send_to(&sum.to_be_bytes(), from);
            sum = 0;
        } else {
            sum += length as u64;
        }
    }
}

fn drive(job: &Job) -> Result<Measured> {
    let end = Instant::now() + Duration::from_millis(job.millis);
    let mut sums = [Flow::default(), Flow::default()];
    thread::scope(|scope| -> Result<()> {
        let flows: Vec<_> = (0..job.flows)
            .map(|_| scope.spawn(|| flow(job, end)))
            .collect();
        for flow in flows {
            let flow = flow.join().expect("a flow does not panic")?;
            for (sum, mut one) in sums.iter_mut().zip(flow) {
                sum.done += one.done;
                sum.failed += one.failed;
                sum.seconds = sum.seconds.max(one.seconds);
                sum.connects_ns.append(&mut one.connects_ns);
            }
        }
        Ok(())
    })?;
    let [to, beside] = sums.map(Flow::measured);
    Ok(Measured {
        beside: job.beside.map(|_| Box::new(beside)),
        ..to
    })
}

/// What one flow of a client did to one address.
#[derive(Default)]
struct Flow {
    /// Transactions, or bytes.
    done: u64,
    seconds: f64,
    connects_ns: Vec<u32>,
    failed: u64,
}

impl Flow {
    fn measured(mut self) -> Measured {
        let connects = &mut self.connects_ns;
        connects.sort_unstable();
        let percentile = |p: usize| {
            let index = (connects.len() * p / 100).min(connects.len().saturating_sub(1));
            connects.get(index).map_or(0.0, |ns| f64::from(*ns))
        };
        Measured {
            rate: self.done as f64 / self.seconds,
            connect_p50_ns: percentile(50),
            connect_p99_ns: percentile(99),
            failed: self.failed,
            beside: None,
        }
    }
}

/// One flow, or two in turn: what slows the machine down for a while then slows both.
fn flow(job: &Job, end: Instant) -> Result<[Flow; 2]> {
    let mut flows = [Flow::default(), Flow::default()];
    let Some(beside) = job.beside else {
        turn(job.kind, job.to, end, &mut flows[0])?;
        return Ok(flows);
    };
    let slice = match job.kind {
        // A turn is one connection.
        Kind::TcpCrr => Duration::ZERO,
        Kind::TcpRr | Kind::UdpRr => Duration::from_millis(10),
        Kind::TcpStream | Kind::UdpStream => Duration::from_millis(40),
    };
    let mut both = [(job.to, 0), (beside, 1)];
    while Instant::now() < end {
        // So that neither is always the one after the other.
        both.reverse();
        for (to, at) in both {
            turn(job.kind, to, Instant::now() + slice, &mut flows[at])?;
        }
    }
    Ok(flows)
}

/// Asks an address until the end, at least once.
fn turn(kind: Kind, to: SocketAddrV4, end: Instant, flow: &mut Flow) -> Result<()> {
    let begun = Instant::now();
    match kind {
        Kind::TcpRr => flow.done += transactions(to, end)?,
        Kind::UdpRr => flow.done += datagrams(to, end)?,
        Kind::TcpCrr => connections(to, end, flow)?,
        Kind::TcpStream => flow.done += stream(to, end)?,
        Kind::UdpStream => flow.done += datagram_stream(to, end)?,
    }
    flow.seconds += begun.elapsed().as_secs_f64();
    Ok(())
}

/// Connections accepted by a listener have what it has.
fn set_congestion_control(socket: &impl AsFd) -> Result<()> {
    socket::setsockopt(socket, sockopt::TcpCongestion, &CONGESTION_CONTROL.into())
        .with_context(|| format!("this kernel has no {CONGESTION_CONTROL}"))
}

/// A socket as [`TcpStream::connect`] makes it, before it connects.
fn tcp_socket() -> Result<OwnedFd> {
    let (family, kind) = (AddressFamily::Inet, SockType::Stream);
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    set_congestion_control(&socket)?;
    // Of connect() too. Who is not answered in time has failed.
    let patience = TimeVal::milliseconds(TCP_PATIENCE.as_millis() as i64);
    socket::setsockopt(&socket, sockopt::SendTimeout, &patience)?;
    socket::setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    Ok(socket)
}

fn connect(to: SocketAddrV4) -> Result<TcpStream> {
    let socket = tcp_socket()?;
    socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(socket.into())
}

fn transactions(to: SocketAddrV4, end: Instant) -> Result<u64> {
    let mut stream = connect(to)?;
    stream.set_nodelay(true)?;
    let mut byte = [1];
    let mut done = 0;
    while Instant::now() < end {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        done += 1;
    }
    Ok(done)
}

fn connections(to: SocketAddrV4, end: Instant, flow: &mut Flow) -> Result<()> {
    let to = SockaddrIn::from(to);
    loop {
        let socket = tcp_socket()?;
        let before = Instant::now();
        let connected = socket::connect(socket.as_raw_fd(), &to);
        let took = u32::try_from(before.elapsed().as_nanos()).unwrap_or(u32::MAX);
        match connected
            .map_err(io::Error::from)
            .and_then(|()| ask(socket))
        {
            Ok(()) => {
                flow.done += 1;
                flow.connects_ns.push(took);
            }
            Err(_) => flow.failed += 1,
        }
        if Instant::now() >= end {
            return Ok(());
        }
    }
}

/// One byte there and back.
fn ask(socket: OwnedFd) -> io::Result<()> {
    let mut stream = TcpStream::from(socket);
    let mut byte = [1];
    stream.write_all(&byte)?;
    stream.read_exact(&mut byte)?;
    // Waits for the server's close, so that TIME_WAIT stays there.
    stream.read(&mut byte).map(drop)
}

fn datagrams(to: SocketAddrV4, end: Instant) -> Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(UDP_PATIENCE))?;
    let mut byte = [1];
    let mut done = 0;
    while Instant::now() < end {
        socket.send(&byte)?;
        match socket.recv(&mut byte) {
            Ok(_) => done += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

fn stream(to: SocketAddrV4, end: Instant) -> Result<u64> {
    let mut stream = connect(to)?;
    let block = vec![7; TCP_WRITE];
    while Instant::now() < end {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut sum = [0; 8];
    stream.read_exact(&mut sum)?;
    Ok(u64::from_be_bytes(sum))
}

/// What arrived, as the receiver counted it.
fn datagram_stream(to: SocketAddrV4, end: Instant) -> Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    let block = [7; UDP_WRITE];
    while Instant::now() < end {
        match socket.send(&block) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    socket.set_read_timeout(Some(UDP_PATIENCE))?;
    for _ in 0..50 {
        socket.send(&[0; 8])?;
        let mut sum = [0; 8];
        if socket.recv(&mut sum).is_ok() {
            return Ok(u64::from_be_bytes(sum));
        }
    }
    bail!("the receiver's count was lost 50 times")
}
