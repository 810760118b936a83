//! Servers and clients inside namespaces: real sockets, every wait bounded.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};

use crate::netns::Netns;

/// Long enough for a loaded machine, short enough for a lost packet to be noticed.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Answers every line or datagram with `<name> <what came>`. Stops when dropped.
pub struct Server {
    heard: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    listener: Option<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn tcp(netns: &Netns, name: &str, port: u16) -> io::Result<Self> {
        Self::tcp_at(netns, name, (ANY, port).into())
    }

    pub fn tcp_at(netns: &Netns, name: &str, at: SocketAddr) -> io::Result<Self> {
        let listener = netns.enter(|| TcpListener::bind(at))?;
        let accept = listener.try_clone()?;
        let (heard, name) = (Arc::new(Mutex::new(Vec::new())), name.to_owned());
        let log = Arc::clone(&heard);
        let thread = thread::spawn(move || {
            while let Ok((stream, from)) = accept.accept() {
                log.lock()
                    .expect("no thread panics with it")
                    .push(plain(from));
                let name = name.clone();
                thread::spawn(move || echo_lines(stream, &name));
            }
        });
        let stop = Arc::default();
        Ok(Self {
            heard,
            stop,
            listener: Some(listener),
            thread: Some(thread),
        })
    }

    pub fn udp(netns: &Netns, name: &str, port: u16) -> io::Result<Self> {
        Self::udp_at(netns, name, (ANY, port).into())
    }

    pub fn udp_at(netns: &Netns, name: &str, at: SocketAddr) -> io::Result<Self> {
        let socket = netns.enter(|| UdpSocket::bind(at))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (heard, name) = (Arc::new(Mutex::new(Vec::new())), name.to_owned());
        let (log, stop) = (Arc::clone(&heard), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                log.lock()
                    .expect("no thread panics with it")
                    .push(plain(from));
                let answer = [name.as_bytes(), b" ", &buffer[..length]].concat();
                let _ = socket.send_to(&answer, from); // a client that went away
            }
        });
        Ok(Self {
            heard,
            stop,
            listener: None,
            thread: Some(thread),
        })
    }

    /// Who has connected or sent, as the server saw it.
    pub fn heard(&self) -> Vec<SocketAddr> {
        self.heard.lock().expect("no thread panics with it").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(listener) = &self.listener {
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both); // wakes the accept
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo_lines(stream: TcpStream, name: &str) {
    let Ok(mut answers) = stream.try_clone() else {
        return;
    };
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if writeln!(answers, "{name} {line}").is_err() {
            return;
        }
    }
}

/// One TCP connection to a server.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(netns: &Netns, to: impl Into<SocketAddr>) -> io::Result<Self> {
        Self::connect_within(netns, to, PATIENCE)
    }

    /// The same with a bound of the caller's on the handshake.
    pub fn connect_within(
        netns: &Netns,
        to: impl Into<SocketAddr>,
        wait: Duration,
    ) -> io::Result<Self> {
        let to = to.into();
        netns.enter(|| Self::connect_here(to, wait))
    }

    /// From the namespace that the calling thread is in.
    pub fn connect_here(to: SocketAddr, wait: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, wait)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// From an address and port of the client's: what two connections share, a test decides.
    pub fn connect_from(
        netns: &Netns,
        from: impl Into<SocketAddr>,
        to: impl Into<SocketAddr>,
    ) -> io::Result<Self> {
        let (from, to) = (from.into(), to.into());
        let stream = netns.enter(|| -> io::Result<TcpStream> {
            let socket = match to {
                SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
                SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
            };
            socket.set_reuseaddr(true)?;
            socket.bind(from)?;
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build()?;
            let connect = async { tokio::time::timeout(PATIENCE, socket.connect(to)).await? };
            let stream = runtime.block_on(connect)?.into_std()?;
            stream.set_nonblocking(false)?;
            Ok(stream)
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a line and returns the answer.
    pub fn ask(&mut self, line: &str) -> io::Result<String> {
        writeln!(self.stream.get_mut(), "{line}")?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }

    /// The client's own end.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().local_addr()
    }

    pub fn peer(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().peer_addr()
    }
}

/// Takes in one connection's bytes and counts them.
pub struct Sink(JoinHandle<io::Result<u64>>);

impl Sink {
    pub fn start(netns: &Netns, port: u16) -> io::Result<Self> {
        let listener = netns.enter(|| TcpListener::bind((ANY, port)))?;
        Ok(Self(thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            io::copy(&mut stream, &mut io::sink())
        })))
    }

    /// Sends so many bytes and waits until all have come.
    pub fn fill_from(
        self,
        netns: &Netns,
        to: impl Into<SocketAddr>,
        bytes: usize,
    ) -> io::Result<()> {
        let to = to.into();
        let mut stream = netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let chunk = vec![7; 1 << 16];
        for _ in 0..bytes / chunk.len() {
            stream.write_all(&chunk)?;
        }
        drop(stream);
        let came = self.0.join().expect("it panics at nothing")?;
        assert_eq!(came, bytes as u64);
        Ok(())
    }
}

/// A UDP socket of IPv4 inside a namespace.
pub fn udp(netns: &Netns) -> io::Result<UdpSocket> {
    udp_at(netns, (Ipv4Addr::UNSPECIFIED, 0))
}

/// A UDP socket inside a namespace that can send to `to`: of its family.
pub fn udp_for(netns: &Netns, to: IpAddr) -> io::Result<UdpSocket> {
    match to {
        IpAddr::V4(_) => udp(netns),
        IpAddr::V6(_) => udp_at(netns, (Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// A UDP socket inside a namespace, bound to an address.
pub fn udp_at(netns: &Netns, at: impl Into<SocketAddr>) -> io::Result<UdpSocket> {
    let at = at.into();
    let socket = netns.enter(|| UdpSocket::bind(at))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// One connection, one line, its answer: `<name> <question>` of the [`Server`] that was reached.
pub fn ask_tcp(netns: &Netns, to: impl Into<SocketAddr>, question: &str) -> io::Result<String> {
    Client::connect(netns, to)?.ask(question)
}

/// One datagram of a new socket and its answer, which must come from where the question went.
pub fn ask_udp(netns: &Netns, to: impl Into<SocketAddr>, question: &str) -> io::Result<String> {
    let to = to.into();
    let socket = udp_for(netns, to.ip())?;
    socket.connect(to)?;
    socket.send(question.as_bytes())?;
    Ok(receive(&socket)?.0)
}

/// The names that answer to so many new connections, with how often each did.
pub fn spread(
    netns: &Netns,
    to: impl Into<SocketAddr>,
    connections: usize,
) -> io::Result<BTreeMap<String, usize>> {
    let to = to.into();
    let mut answered = BTreeMap::new();
    for _ in 0..connections {
        let answer = ask_tcp(netns, to, "x")?;
        let name = answer.trim_end_matches(" x").to_owned();
        *answered.entry(name).or_insert(0) += 1;
    }
    Ok(answered)
}

/// How long a refusal took; an error if the connection was not refused.
pub fn refused_tcp(netns: &Netns, to: impl Into<SocketAddr>) -> io::Result<Duration> {
    let begun = Instant::now();
    refusal(Client::connect(netns, to).map(drop), begun)
}

/// The same for the first datagram of a connected socket.
pub fn refused_udp(netns: &Netns, to: impl Into<SocketAddr>) -> io::Result<Duration> {
    let begun = Instant::now();
    refusal(ask_udp(netns, to, "x").map(drop), begun)
}

fn refusal(done: io::Result<()>, begun: Instant) -> io::Result<Duration> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(begun.elapsed()),
        Err(error) => Err(error),
        Ok(()) => Err(io::Error::other("somebody answered")),
    }
}

/// A server of both families.
const ANY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// An IPv4 peer of a socket of both families as IPv4.
fn plain(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// The answer and who gave it.
pub fn receive(socket: &UdpSocket) -> io::Result<(String, SocketAddr)> {
    let mut buffer = vec![0; 1 << 16];
    let (length, from) = socket.recv_from(&mut buffer)?;
    Ok((
        String::from_utf8_lossy(&buffer[..length]).into_owned(),
        from,
    ))
}
