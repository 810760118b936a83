//! The cluster that the scenarios share: two nodes, two pods on each, a server in every pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use anyhow::Result;
use datapath::Change;
use datapath::view::{HostPort, Protocol};
use etherparse::TcpHeader;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};
use tests::netns::{Cluster, Ep, Netns, OUTSIDE, OUTSIDE_V6, Plan, Svc, ready};
use tests::peer::{Client, Server};

/// The families of a scenario's Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    V4,
    V6,
    Dual,
}

impl Families {
    pub fn has(self, addr: IpAddr) -> bool {
        match self {
            Self::V4 => addr.is_ipv4(),
            Self::V6 => addr.is_ipv6(),
            Self::Dual => true,
        }
    }

    /// A ClusterIP Service of these families on the number's addresses.
    pub fn svc(self, name: &str, number: u8) -> Svc {
        let svc = Svc::new(name, number);
        let ips: Vec<IpAddr> = svc.each_ip().filter(|ip| self.has(*ip)).collect();
        svc.ips(ips)
    }
}

/// One test a family and name.
macro_rules! families {
    ($($scenario:ident: $v4:ident $v6:ident $dual:ident;)+) => {
        $(
            #[test]
            fn $v4() -> anyhow::Result<()> {
                $scenario(stringify!($v4), crate::pair::Families::V4)
            }
            #[test]
            fn $v6() -> anyhow::Result<()> {
                $scenario(stringify!($v6), crate::pair::Families::V6)
            }
            #[test]
            fn $dual() -> anyhow::Result<()> {
                $scenario(stringify!($dual), crate::pair::Families::Dual)
            }
        )+
    };
}
pub(crate) use families;

/// A pod by its node and its place there.
pub type Who = (usize, usize);

/// Asks; is never an endpoint but where the scenario says so.
pub const CLIENT: Who = (0, 0);
/// On the client's node.
pub const BESIDE: Who = (0, 1);
/// On the other node.
pub const FAR: Who = (1, 0);
pub const OTHER: Who = (1, 1);

/// What the servers of all pods listen on, TCP and UDP.
pub const TARGET: u16 = 8080;

/// Two nodes, two pods each; in every pod a server that answers with its name.
pub struct Pair {
    // Servers go before their namespaces.
    servers: Vec<(&'static str, Server)>,
    pub cluster: Cluster,
    host_ports: BTreeMap<Who, Vec<HostPort>>,
}

impl Pair {
    /// `None`: it cannot run here, and the test was reported as skipped.
    pub fn start(test: &str) -> Result<Option<Self>> {
        Self::start_as(test, Plan::nodes(2))
    }

    pub fn start_as(test: &str, plan: Plan) -> Result<Option<Self>> {
        if !ready(test) {
            return Ok(None);
        }
        let mut cluster = plan.start()?;
        for node in &mut cluster.nodes {
            node.add_pod(5)?;
            node.add_pod(6)?;
        }
        cluster.in_sync()?;
        let mut pair = Self {
            servers: Vec::new(),
            cluster,
            host_ports: BTreeMap::new(),
        };
        for (who, name) in [
            (CLIENT, "client"),
            (BESIDE, "beside"),
            (FAR, "far"),
            (OTHER, "other"),
        ] {
            pair.serve(who, name, TARGET)?;
        }
        Ok(Some(pair))
    }

    /// One more server in a pod, TCP and UDP.
    pub fn serve(&mut self, (node, pod): Who, name: &'static str, port: u16) -> Result<()> {
        let netns = &self.cluster.nodes[node].pods[pod].netns;
        self.servers.push((name, Server::tcp(netns, name, port)?));
        self.servers.push((name, Server::udp(netns, name, port)?));
        Ok(())
    }

    /// A server on a node's own network, TCP and UDP.
    pub fn serve_on_node(&mut self, node: usize, name: &'static str, port: u16) -> Result<()> {
        let netns = &self.cluster.nodes[node].netns;
        self.servers.push((name, Server::tcp(netns, name, port)?));
        self.servers.push((name, Server::udp(netns, name, port)?));
        Ok(())
    }

    /// The client addresses that the servers of that name saw.
    pub fn seen_by(&self, name: &str) -> Vec<IpAddr> {
        let named = self.servers.iter().filter(|(served, _)| *served == name);
        let heard = named.flat_map(|(_, server)| server.heard());
        heard.map(|from| from.ip()).collect()
    }

    pub fn ep(&self, (node, pod): Who) -> Ep {
        self.cluster.nodes[node].ep(pod)
    }

    /// The pod's server also stands on a port of its node's address.
    pub fn host_port(&mut self, who: Who, at: IpAddr, port: u16, udp: bool) -> Result<()> {
        let (node, pod) = who;
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let ports = self.host_ports.entry(who).or_default();
        ports.push(HostPort {
            host_ip: Some(at),
            host_port: port,
            container_port: TARGET,
            protocol,
        });
        let change = Change::HostPorts(format!("pod-{pod}"), ports.clone());
        Ok(self.cluster.nodes[node].with(|datapath| datapath.change(change))?)
    }

    /// A segment that no window has room for, on a connection of the asker's, from the server's side.
    pub fn invalid_segment(&self, server: Who, asker: Who, connection: &Client) -> Result<()> {
        let like = connection.local()?.ip();
        let (from, to) = (self.addr_like(server, like), self.addr_like(asker, like));
        let mut header = TcpHeader::new(TARGET, connection.local()?.port(), 7, 1024);
        (header.ack, header.acknowledgment_number) = (true, 0x7fff_0000);
        let family = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                header.checksum =
                    header.calc_checksum_ipv4_raw(from.octets(), to.octets(), b"stray")?;
                AddressFamily::Inet
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                header.checksum =
                    header.calc_checksum_ipv6_raw(from.octets(), to.octets(), b"stray")?;
                AddressFamily::Inet6
            }
            _ => anyhow::bail!("{from} and {to} are of two families"),
        };
        let mut segment = Vec::new();
        header.write(&mut segment)?;
        segment.extend(b"stray");
        self.pod(server).enter(|| {
            let protocol = SockProtocol::Tcp;
            let socket = socket(family, SockType::Raw, SockFlag::empty(), protocol)?;
            let to = SockaddrStorage::from(std::net::SocketAddr::from((to, 0)));
            sendto(socket.as_raw_fd(), &segment, &to, MsgFlags::empty())?;
            Ok(())
        })
    }

    pub fn pod(&self, (node, pod): Who) -> &Netns {
        &self.cluster.nodes[node].pods[pod].netns
    }

    /// A pod's address of the same family as another.
    pub fn addr_like(&self, (node, pod): Who, like: IpAddr) -> IpAddr {
        let pod = &self.cluster.nodes[node].pods[pod];
        if like.is_ipv4() {
            pod.addr.into()
        } else {
            pod.v6.into()
        }
    }

    /// A node's addresses of these families.
    pub fn node_addrs(&self, node: usize, families: Families) -> Vec<IpAddr> {
        let addrs = self.cluster.nodes[node].addrs();
        addrs.iter().filter(|addr| families.has(*addr)).collect()
    }

    pub fn node(&self, node: usize) -> &Netns {
        &self.cluster.nodes[node].netns
    }

    pub fn outside(&self) -> &Netns {
        &self.cluster.outside
    }
}

/// The outside client's address of the same family as another.
pub fn outside_like(like: IpAddr) -> IpAddr {
    if like.is_ipv4() {
        OUTSIDE.into()
    } else {
        OUTSIDE_V6.into()
    }
}

/// Starts the pair, or ends a test that cannot run here.
macro_rules! pair {
    ($test:expr) => {
        match crate::pair::Pair::start($test)? {
            Some(pair) => pair,
            None => return Ok(()),
        }
    };
}
pub(crate) use pair;
