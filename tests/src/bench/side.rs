//! The sides: clusters of two nodes with one client pod and one server pod, each with its network.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use orchestrator::datapath::view::{PortView, Protocol};
use orchestrator::datapath::{Change, Datapath, ObjectKey, ServiceView, SliceView, mount};

use super::load::{CRR_PORT, Kind, Place, RR_PORT, STREAM_PORT, Server};
use super::rival::Rival;
use crate::netns::{Cluster, ready_endpoint};

/// How many Services there are and how many endpoints each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    pub services: u32,
    pub endpoints: u8,
}

/// A network under test.
pub enum Side {
    Ours(Box<Ours>),
    Rival(Box<Rival>),
}

/// Our datapath, without an agent.
///
/// What runs in the cgroup goes before it.
pub struct Ours {
    _server: Server,
    cluster: Cluster,
    cgroup: Cgroup,
    size: Size,
}

/// A cgroup v2 directory that goes with its value.
struct Cgroup(PathBuf);

/// The core of the clients; the servers have the other one.
const CLIENT_CORE: usize = 0;
const SERVER_CORE: usize = 1;

/// The last octet of the client's and of the server's first address; further ones follow it.
pub const CLIENT: u8 = 2;
pub const SERVER: u8 = 10;
/// As many addresses as the largest Service under test has endpoints.
pub const SERVER_ADDRESSES: u8 = 10;

impl Side {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ours(_) => "ours",
            Self::Rival(rival) => rival.kind.name(),
        }
    }

    /// Where the client runs.
    pub fn client(&self) -> Place {
        match self {
            Self::Ours(ours) => ours.place(0, CLIENT_CORE),
            Self::Rival(rival) => client_in(rival.client()),
        }
    }

    /// Has that many Services in place.
    pub fn resize(&mut self, size: Size) -> Result<()> {
        match self {
            Self::Ours(ours) => ours.resize(size),
            Self::Rival(rival) => rival.resize(size),
        }
    }
}

/// A rival's client: in no cgroup of ours.
fn client_in(netns: &str) -> Place {
    Place {
        netns: netns.into(),
        core: CLIENT_CORE,
        cgroup: None,
    }
}

/// A rival's server.
pub fn server_in(netns: &str) -> Place {
    Place {
        netns: netns.into(),
        core: SERVER_CORE,
        cgroup: None,
    }
}

impl Ours {
    pub fn start() -> Result<Self> {
        let cgroup = Cgroup::create()?;
        let mut cluster = Cluster::start_in(2, &cgroup.0)?;
        cluster.nodes[0].add_pod(CLIENT)?;
        cluster.nodes[1].add_pod(SERVER)?;
        let server = Place {
            netns: cluster.nodes[1].pods[0].netns.name.clone(),
            core: SERVER_CORE,
            cgroup: Some(cgroup.0.clone()),
        };
        // More addresses of the one server, as if they were pods behind the same link.
        for octet in SERVER + 1..SERVER + SERVER_ADDRESSES {
            let pod = &cluster.nodes[1].pods[0];
            let addr = server_addr(octet - SERVER);
            pod.netns.ip(&format!("addr add {addr}/32 dev eth0"))?;
            let mut wired = pod.wired.clone();
            wired.addrs = addr.into();
            let change = Change::Pod(format!("address-{octet}"), Some(wired));
            cluster.nodes[1].with(|datapath| datapath.change(change))?;
        }
        cluster.in_sync()?;
        let server = Server::start(&server)?;
        let size = Size {
            services: 0,
            endpoints: 0,
        };
        Ok(Self {
            cluster,
            cgroup,
            size,
            _server: server,
        })
    }

    /// The client's node, to measure the agent's half.
    pub fn with<T: Send>(&mut self, call: impl FnOnce(&mut Datapath) -> T + Send) -> T {
        self.cluster.nodes[0].with(call)
    }

    fn place(&self, node: usize, core: usize) -> Place {
        let netns = self.cluster.nodes[node].pods[0].netns.name.clone();
        Place {
            netns,
            core,
            cgroup: Some(self.cgroup.0.clone()),
        }
    }

    fn resize(&mut self, size: Size) -> Result<()> {
        let (before, after) = (self.size.services, size.services);
        let changes: Vec<_> = (0..after)
            .flat_map(|index| changes(index, size))
            .chain((after..before).flat_map(removals))
            .collect();
        self.with(|datapath| {
            changes
                .into_iter()
                .try_for_each(|change| datapath.change(change))
        })?;
        self.size = size;
        Ok(())
    }
}

/// The changes that make Service number `index`.
pub fn changes(index: u32, size: Size) -> [Change; 2] {
    let key = ObjectKey::new("bench", format!("s{index}").as_str());
    let ports = ports(index, size);
    let view = ServiceView {
        addrs: vec![service_addr(index).into()],
        ports: ports.clone(),
        local_only: false,
    };
    let endpoints = (0..size.endpoints)
        .map(|n| ready_endpoint(server_addr(n)))
        .collect();
    let slice = SliceView {
        service: key.name.clone(),
        ports,
        endpoints,
    };
    [
        Change::Service(key.clone(), Some(view)),
        Change::Slice(key, Some(slice)),
    ]
}

fn removals(index: u32) -> [Change; 2] {
    let key = ObjectKey::new("bench", format!("s{index}").as_str());
    [Change::Slice(key.clone(), None), Change::Service(key, None)]
}

/// Service ports equal target ports. The tested Services have all of the load's, others one.
fn ports(index: u32, size: Size) -> Vec<PortView> {
    let tested = Position::ALL
        .iter()
        .any(|position| position.index(size.services) == index);
    PORTS
        .iter()
        .take(if tested { PORTS.len() } else { 1 })
        .map(|&(name, port, protocol)| PortView {
            name: name.into(),
            port,
            protocol,
        })
        .collect()
}

/// What a Service of the bench serves.
pub const PORTS: [(&str, u16, Protocol); 5] = [
    ("crr", CRR_PORT, Protocol::Tcp),
    ("rr", RR_PORT, Protocol::Tcp),
    ("stream", STREAM_PORT, Protocol::Tcp),
    ("udp-rr", RR_PORT, Protocol::Udp),
    ("udp-stream", STREAM_PORT, Protocol::Udp),
];

/// Which of the Services is asked: rules that are searched in order make it matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    First,
    Middle,
    Last,
}

impl Position {
    pub const ALL: [Self; 3] = [Self::First, Self::Middle, Self::Last];

    pub fn index(self, services: u32) -> u32 {
        match self {
            Self::First => 0,
            Self::Middle => services / 2,
            Self::Last => services.saturating_sub(1),
        }
    }
}

pub fn service_addr(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + index)
}

pub fn server_addr(nth: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 100, 2, SERVER + nth)
}

/// Where a kind of load is sent on an address.
pub fn target(addr: Ipv4Addr, kind: Kind) -> SocketAddrV4 {
    let port = match kind {
        Kind::TcpRr | Kind::UdpRr => RR_PORT,
        Kind::TcpCrr => CRR_PORT,
        Kind::TcpStream | Kind::UdpStream => STREAM_PORT,
    };
    SocketAddrV4::new(addr, port)
}

impl Cgroup {
    fn create() -> Result<Self> {
        let dir = mount::cgroup_root()?.join(format!("orchestrator-bench-{}", std::process::id()));
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("create {}", dir.display()))
            }
            _ => Ok(Self(dir)),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir(dir) {
        eprintln!("remove {}: {error}", dir.display());
    }
}
