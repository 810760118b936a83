//! The sides: clusters of two nodes with one client pod and one server pod, each with its network.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datapath::{Change, Datapath, NodeView, Xdp, mount};
use k8s_openapi::api::core::v1 as core;

use super::load::{Place, Server};
use super::rival::{self, Rival};
use super::service::{CLIENT, SERVER, SERVER_ADDRESSES, Size, changes, removals, server_addr};
use crate::netns::{Cluster, Netns, Node};

/// Whose network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Ours,
    /// Ours once more: with one Service, while the other has many.
    OursSmall,
    /// Ours with XDP on the uplink of the client's node, in the stack: no card is here.
    OursXdp,
    Rival(rival::Kind),
}

/// From where a side is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum From {
    Pod,
    /// The underlay, beside the nodes.
    Outside,
}

/// A network under test.
pub enum Side {
    Ours(Who, Box<Ours>),
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

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours | Self::OursSmall => "ours",
            Self::OursXdp => "ours with XDP",
            Self::Rival(kind) => kind.name(),
        }
    }
}

impl Side {
    pub fn start(who: Who) -> Result<Self> {
        Ok(match who {
            Who::Ours | Who::OursSmall => Self::Ours(who, Box::new(Ours::start()?)),
            Who::OursXdp => Self::Ours(who, Box::new(Ours::start_with_xdp()?)),
            Who::Rival(kind) => Self::Rival(Box::new(Rival::start(kind)?)),
        })
    }

    pub fn who(&self) -> Who {
        match self {
            Self::Ours(who, _) => *who,
            Self::Rival(rival) => Who::Rival(rival.kind),
        }
    }

    /// Where the client runs.
    pub fn client(&self, from: From) -> Place {
        let (netns, cgroup) = match (self, from) {
            (Self::Ours(_, ours), From::Pod) => {
                let netns = &ours.cluster.nodes[0].pods[0].netns.name;
                (netns.as_str(), Some(ours.cgroup.0.clone()))
            }
            (Self::Ours(_, ours), From::Outside) => (ours.cluster.outside.name.as_str(), None),
            (Self::Rival(rival), from) => (rival.client(from), None),
        };
        Place {
            netns: netns.into(),
            core: CLIENT_CORE,
            cgroup,
        }
    }

    /// Has that many Services in place.
    pub fn resize(&mut self, size: Size) -> Result<()> {
        match self {
            Self::Ours(Who::OursSmall, ours) => ours.resize(Size {
                services: size.services.min(1),
                ..size
            }),
            Self::Ours(_, ours) => ours.resize(size),
            Self::Rival(rival) => rival.resize(size),
        }
    }

    /// Has that many other nodes in its tables, which nobody ever asks.
    pub fn add_peers(&mut self, peers: u16) -> Result<()> {
        match self {
            Self::Ours(_, ours) => ours.add_peers(peers),
            Self::Rival(rival) => rival.add_peers(peers),
        }
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

/// The first address of the pod range, a /24, and the underlay address of another node, by number.
pub fn peer(number: u16) -> (Ipv4Addr, Ipv4Addr) {
    let [high, low] = number.to_be_bytes();
    let first = Ipv4Addr::new(10, 101 + high, low, 0);
    (first, Ipv4Addr::new(172, 30, high, low))
}

fn node_object(first: Ipv4Addr, addr: Ipv4Addr) -> core::Node {
    core::Node {
        spec: Some(core::NodeSpec {
            pod_cidr: Some(format!("{first}/24")),
            ..core::NodeSpec::default()
        }),
        status: Some(core::NodeStatus {
            addresses: Some(vec![core::NodeAddress {
                type_: "InternalIP".into(),
                address: addr.to_string(),
            }]),
            ..core::NodeStatus::default()
        }),
        ..core::Node::default()
    }
}

/// The switch is not part of what is measured: it looks into no packet.
pub fn plain_switch(underlay: &Netns) -> Result<()> {
    match underlay.sysctl("bridge/bridge-nf-call-iptables", "0") {
        // This kernel has no bridge that could.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => Ok(done?),
    }
}

impl Ours {
    pub fn start() -> Result<Self> {
        let cgroup = Cgroup::create()?;
        let mut cluster = Cluster::start_in(2, &cgroup.0)?;
        plain_switch(&cluster.underlay)?;
        cluster.nodes[0].add_pod(CLIENT)?;
        cluster.nodes[1].add_pod(SERVER)?;
        let server = Place {
            cgroup: Some(cgroup.0.clone()),
            ..server_in(&cluster.nodes[1].pods[0].netns.name)
        };
        // More addresses of the one server, as if they were pods behind the same link.
        for nth in 1..SERVER_ADDRESSES {
            let pod = &cluster.nodes[1].pods[0];
            let addr = server_addr(nth);
            pod.netns.ip(&format!("addr add {addr}/32 dev eth0"))?;
            let mut wired = pod.wired.clone();
            wired.addrs = addr.into();
            let change = Change::Pod(format!("address-{nth}"), Some(wired));
            cluster.nodes[1].with(|datapath| datapath.change(change))?;
        }
        cluster.in_sync()?;
        cluster.nodes.iter_mut().try_for_each(Node::quicken)?;
        let server = Server::start(&server)?;
        Ok(Self {
            cluster,
            cgroup,
            size: Size::NONE,
            _server: server,
        })
    }

    /// XDP would not know a checksum that is left to a card, so who sends computes it.
    fn start_with_xdp() -> Result<Self> {
        let mut ours = Self::start()?;
        let cluster = &mut ours.cluster;
        cluster.outside.ethtool("eth0 tx off")?;
        cluster.nodes[1].pods[0].netns.ethtool("eth0 tx off")?;
        cluster.nodes[0].config.xdp = Xdp::Generic;
        cluster.restart(0)?;
        Ok(ours)
    }

    /// The client's node, to measure the agent's half.
    pub fn with<T: Send>(&mut self, call: impl FnOnce(&mut Datapath) -> T + Send) -> T {
        self.cluster.nodes[0].with(call)
    }

    fn resize(&mut self, size: Size) -> Result<()> {
        let (before, after) = (self.size.services, size.services);
        self.apply(
            (0..after)
                .flat_map(|index| changes(index, size))
                .chain((after..before).flat_map(removals)),
        )?;
        self.size = size;
        Ok(())
    }

    fn add_peers(&mut self, peers: u16) -> Result<()> {
        self.apply((0..peers).map(|number| {
            let (first, addr) = peer(number);
            let view = NodeView::from_object(&node_object(first, addr));
            Change::Node(format!("peer-{number}"), view)
        }))
    }

    fn apply(&mut self, changes: impl Iterator<Item = Change> + Send) -> Result<()> {
        let apply = |datapath: &mut Datapath| {
            let mut changes = changes;
            changes.try_for_each(|change| datapath.change(change))
        };
        Ok(self.with(apply)?)
    }
}

impl Cgroup {
    /// One for every cluster of this process: none may balance another's sockets.
    fn create() -> Result<Self> {
        let root = mount::cgroup_root()?;
        let name = |number| format!("orchestrator-bench-{}-{number}", std::process::id());
        let mut number = 0;
        loop {
            let dir = root.join(name(number));
            match fs::create_dir(&dir) {
                Ok(()) => return Ok(Self(dir)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => {
                    return Err(error).with_context(|| format!("create {}", dir.display()));
                }
            }
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
