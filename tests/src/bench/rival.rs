//! The rivals: flannel's overlay, kube-proxy's rules on top of it, and plain routing as the limit.
//!
//! Written from what their documentation and a running node show of their shape; nothing of theirs
//! runs here.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::load::Server;
use super::rules::{iptables, nftables};
use super::service::{CLIENT, SERVER, SERVER_ADDRESSES, Size, node_addr, server_addr};
use super::side::{From, peer, plain_switch, server_in};
use crate::netns::{Netns, OUTSIDE, Underlay};

/// Which rival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Bridge, VXLAN device with route, neighbour and FDB entry a node, masquerade.
    Flannel,
    /// The same, and kube-proxy's chains by iptables' legacy binary.
    IptablesLegacy,
    /// The same by its nft binary.
    IptablesNft,
    /// kube-proxy's nftables mode: a verdict map and numgen.
    Nftables,
    /// Routed veth pairs and plain routes between the nodes; no filter, no overlay.
    Routed,
}

/// A rival's cluster of two nodes.
pub struct Rival {
    pub kind: Kind,
    nodes: Vec<RivalNode>,
    outside: Netns,
    _underlay: Underlay,
    _server: Server,
}

/// The pod's namespace goes before the node's.
struct RivalNode {
    pod: Netns,
    netns: Netns,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Flannel,
        Self::IptablesLegacy,
        Self::IptablesNft,
        Self::Nftables,
        Self::Routed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Flannel => "flannel",
            Self::IptablesLegacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
            Self::Nftables => "nftables",
            Self::Routed => "routed",
        }
    }

    fn restore(self) -> Option<&'static str> {
        match self {
            Self::Flannel | Self::IptablesLegacy => Some("iptables-legacy-restore"),
            Self::IptablesNft => Some("iptables-nft-restore"),
            Self::Nftables | Self::Routed => None,
        }
    }
}

impl Rival {
    pub fn start(kind: Kind) -> Result<Self> {
        let underlay = Underlay::create(kind.name())?;
        plain_switch(&underlay.netns)?;
        let outside = underlay.plug("outside", OUTSIDE.octets()[3])?;
        let mut nodes = Vec::new();
        for number in 1..=2u8 {
            let netns = underlay.plug(&format!("node-{number}"), 10 + number)?;
            netns.sysctl("ipv4/ip_forward", "1")?;
            let pod = underlay.namespace(&format!("pod-{number}"))?;
            nodes.push(RivalNode { pod, netns });
        }
        for (node, number) in nodes.iter().zip(1u8..) {
            match kind {
                Kind::Routed => node.route(number)?,
                _ => node.flannel(number)?,
            }
        }
        if kind != Kind::Routed {
            introduce(&nodes)?;
        }
        for nth in 1..SERVER_ADDRESSES {
            let addr = server_addr(nth);
            nodes[1].pod.ip(&format!("addr add {addr}/32 dev eth0"))?;
            if kind == Kind::Routed {
                nodes[1].netns.ip(&format!("route add {addr} dev pod"))?;
            }
        }
        let server = Server::start(&server_in(&nodes[1].pod.name))?;
        let rival = Self {
            kind,
            nodes,
            outside,
            _underlay: underlay,
            _server: server,
        };
        // The server's node needs them too, for what comes from outside the pod range.
        for index in 0..2 {
            rival.load(index, Size::NONE)?;
        }
        Ok(rival)
    }

    pub fn client(&self, from: From) -> &str {
        match from {
            From::Pod => &self.nodes[0].pod.name,
            From::Outside => &self.outside.name,
        }
    }

    /// Replaces the rules of the node that is asked by those of that many Services.
    pub fn resize(&mut self, size: Size) -> Result<()> {
        self.load(0, size)
    }

    fn load(&self, index: usize, size: Size) -> Result<()> {
        let netns = &self.nodes[index].netns;
        match (self.kind, self.kind.restore()) {
            (Kind::Routed, _) => Ok(()),
            (Kind::Flannel, Some(restore)) => feed(netns, restore, &[], &iptables(Size::NONE)),
            (_, Some(restore)) => feed(netns, restore, &[], &iptables(size)),
            (_, None) => feed(netns, "nft", &["-f", "-"], &nftables(size)),
        }
    }

    /// Rows for that many other nodes.
    pub fn add_peers(&mut self, peers: u16) -> Result<()> {
        let node = &self.nodes[0].netns;
        let (mut routes, mut entries) = (String::new(), String::new());
        for number in 0..peers {
            let ((first, addr), [high, low]) = (peer(number), number.to_be_bytes());
            if self.kind == Kind::Routed {
                let _ = writeln!(routes, "route replace {first}/24 via {}", node_addr(2));
                continue;
            }
            let mac = format!("02:00:00:00:{high:02x}:{low:02x}");
            let _ = writeln!(
                routes,
                "neigh replace {first} lladdr {mac} dev flannel.1 nud permanent\n\
                 route replace {first}/24 via {first} dev flannel.1 onlink"
            );
            let _ = writeln!(entries, "fdb replace {mac} dev flannel.1 dst {addr}");
        }
        feed(node, "ip", &["-batch", "-"], &routes)?;
        feed(node, "bridge", &["-batch", "-"], &entries)
    }
}

impl RivalNode {
    /// A bridge with the node's first pod address, the pod on it, and the overlay's device.
    fn flannel(&self, number: u8) -> Result<()> {
        let node = &self.netns;
        node.ip("link add cni0 mtu 1450 type bridge")?;
        node.ip(&format!("addr add 10.100.{number}.1/24 dev cni0"))?;
        node.ip("link set cni0 up")?;
        self.veth(1450)?;
        node.ip("link set pod master cni0 up")?;
        self.pod
            .ip(&format!("addr add {}/24 dev eth0", pod_addr(number)))?;
        self.pod.ip("link set eth0 up")?;
        self.pod
            .ip(&format!("route add default via 10.100.{number}.1"))?;
        node.ip(&format!(
            "link add flannel.1 mtu 1450 type vxlan id 1 local 172.31.0.{} dev eth0 dstport 8472 \
             nolearning",
            10 + number
        ))?;
        node.ip(&format!("addr add 10.100.{number}.0/32 dev flannel.1"))?;
        node.ip("link set flannel.1 up")
    }

    /// A veth pair with a route a pod, and a plain route a node.
    fn route(&self, number: u8) -> Result<()> {
        let (node, other) = (&self.netns, 3 - number);
        self.veth(1500)?;
        node.ip("link set pod up")?;
        self.pod
            .ip(&format!("addr add {}/32 dev eth0", pod_addr(number)))?;
        self.pod.ip("link set eth0 up")?;
        self.pod.ip("route add 169.254.1.1 dev eth0")?;
        let (_, mac) = node.link("pod")?;
        let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
        self.pod.ip(&format!(
            "neigh add 169.254.1.1 lladdr {mac} dev eth0 nud permanent"
        ))?;
        self.pod.ip("route add default via 169.254.1.1 dev eth0")?;
        node.ip(&format!("route add {} dev pod", pod_addr(number)))?;
        node.ip(&format!(
            "route add 10.100.{other}.0/24 via 172.31.0.{}",
            10 + other
        ))
    }

    fn veth(&self, mtu: u16) -> Result<()> {
        self.netns.ip(&format!(
            "link add name pod mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
            self.pod.name
        ))
    }
}

/// Route, neighbour and FDB entry of each node at each other.
fn introduce(nodes: &[RivalNode]) -> Result<()> {
    for (at, number) in nodes.iter().zip(1u8..) {
        for (of, other) in nodes
            .iter()
            .zip(1u8..)
            .filter(|(_, other)| *other != number)
        {
            let (_, mac) = of.netns.link("flannel.1")?;
            let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
            at.netns.ip(&format!(
                "neigh add 10.100.{other}.0 lladdr {mac} dev flannel.1 nud permanent"
            ))?;
            at.netns.bridge(&format!(
                "fdb add {mac} dev flannel.1 dst 172.31.0.{}",
                10 + other
            ))?;
            at.netns.ip(&format!(
                "route add 10.100.{other}.0/24 via 10.100.{other}.0 dev flannel.1 onlink"
            ))?;
        }
    }
    Ok(())
}

fn pod_addr(number: u8) -> String {
    let octet = if number == 1 { CLIENT } else { SERVER };
    format!("10.100.{number}.{octet}")
}

/// Runs a program inside a namespace with a text as its input.
fn feed(netns: &Netns, program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", netns.name))
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}"))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint: String = complaint.chars().take(500).collect();
    ensure!(
        output.status.success(),
        "{program} in {}: {complaint}",
        netns.name
    );
    Ok(written?)
}
