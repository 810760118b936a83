//! The rivals: flannel's overlay, kube-proxy's rules on top of it, and plain routing as the limit.
//!
//! Written from what their documentation and a running node show of their shape; nothing of theirs
//! runs here.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::load::Server;
use super::side::{
    CLIENT, PORTS, Position, SERVER, SERVER_ADDRESSES, Size, server_addr, server_in, service_addr,
};
use crate::netns::{Netns, Underlay};

/// Which rival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let mut rival = Self {
            kind,
            nodes,
            _underlay: underlay,
            _server: server,
        };
        rival.resize(Size {
            services: 0,
            endpoints: 0,
        })?;
        Ok(rival)
    }

    pub fn client(&self) -> &str {
        &self.nodes[0].pod.name
    }

    /// Replaces the rules by those of that many Services.
    pub fn resize(&mut self, size: Size) -> Result<()> {
        let size = match self.kind {
            Kind::Flannel | Kind::Routed => Size {
                services: 0,
                endpoints: 0,
            },
            _ => size,
        };
        for node in &self.nodes {
            match (self.kind, self.kind.restore()) {
                (Kind::Nftables, _) => feed(&node.netns, "nft", &["-f", "-"], &nftables(size))?,
                (_, Some(restore)) => feed(&node.netns, restore, &[], &iptables(size))?,
                (_, None) => {}
            }
        }
        Ok(())
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

/// Flannel's masquerade and kube-proxy's chains: one rule a Service port in KUBE-SERVICES, a chain
/// a Service port that chooses by chance, a chain an endpoint that translates.
fn iptables(size: Size) -> String {
    let (mut chains, mut services, mut rules) = (String::new(), String::new(), String::new());
    for (index, name, port, protocol) in ports(size) {
        let svc = format!(
            "KUBE-SVC-{index:06}{}",
            name.replace('-', "").to_uppercase()
        );
        let vip = service_addr(index);
        let _ = writeln!(chains, ":{svc} - [0:0]");
        let _ = writeln!(
            services,
            "-A KUBE-SERVICES -d {vip}/32 -p {protocol} -m comment --comment \"bench/s{index}:{name} \
             cluster IP\" -m {protocol} --dport {port} -j {svc}"
        );
        let _ = writeln!(
            rules,
            "-A {svc} ! -s 10.100.0.0/16 -d {vip}/32 -p {protocol} -m {protocol} --dport {port} -j \
             KUBE-MARK-MASQ"
        );
        for nth in 0..size.endpoints {
            let sep = svc.replacen("SVC", "SEP", 1) + &nth.to_string();
            let addr = server_addr(nth);
            let left = size.endpoints - nth;
            let chance = match left {
                1 => String::new(),
                left => format!(
                    "-m statistic --mode random --probability {:.11} ",
                    1.0 / f64::from(left)
                ),
            };
            let _ = writeln!(chains, ":{sep} - [0:0]");
            let _ = writeln!(rules, "-A {svc} {chance}-j {sep}");
            let _ = writeln!(rules, "-A {sep} -s {addr}/32 -j KUBE-MARK-MASQ");
            let _ = writeln!(
                rules,
                "-A {sep} -p {protocol} -m {protocol} -j DNAT --to-destination {addr}:{port}"
            );
        }
    }
    format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         :POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n\
         :KUBE-MARK-MASQ - [0:0]\n:FLANNEL-POSTRTG - [0:0]\n{chains}\
         -A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n\
         -A POSTROUTING -j KUBE-POSTROUTING\n-A POSTROUTING -j FLANNEL-POSTRTG\n\
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
         -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN\n\
         -A FLANNEL-POSTRTG -s 10.100.0.0/16 -d 10.100.0.0/16 -j RETURN\n\
         -A FLANNEL-POSTRTG -s 10.100.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully\n\
         {services}{rules}COMMIT\n"
    )
}

/// kube-proxy's nftables mode: one look-up in a verdict map, a chain a Service port with numgen.
fn nftables(size: Size) -> String {
    let (mut chains, mut elements) = (String::new(), Vec::new());
    for (index, name, port, protocol) in ports(size) {
        let vip = service_addr(index);
        let chain = format!("service-{index}-{name}");
        elements.push(format!("{vip} . {protocol} . {port} : goto {chain}"));
        let choices: Vec<_> = (0..size.endpoints)
            .map(|nth| {
                let endpoint = format!("endpoint-{index}-{name}-{nth}");
                let addr = server_addr(nth);
                let _ = writeln!(
                    chains,
                    "chain {endpoint} {{ ip saddr {addr} jump mark-for-masquerade; meta l4proto \
                     {protocol} dnat to {addr}:{port}; }}"
                );
                format!("{nth} : goto {endpoint}")
            })
            .collect();
        let _ = writeln!(
            chains,
            "chain {chain} {{ ip daddr {vip} {protocol} dport {port} ip saddr != 10.100.0.0/16 jump \
             mark-for-masquerade; numgen random mod {} vmap {{ {} }}; }}",
            size.endpoints,
            choices.join(", ")
        );
    }
    let elements = match elements.is_empty() {
        true => String::new(),
        false => format!("elements = {{ {} }}", elements.join(",\n")),
    };
    format!(
        "table ip kube-proxy {{ }}\ndelete table ip kube-proxy\ntable ip kube-proxy {{\n\
         chain mark-for-masquerade {{ mark set mark or 0x4000; }}\n{chains}\
         map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; {elements} }}\n\
         chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}\n\
         chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}\n\
         chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
         chain nat-postrouting {{ type nat hook postrouting priority srcnat;\n\
         mark and 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random\n\
         ip saddr 10.100.0.0/16 ip daddr 10.100.0.0/16 return\n\
         ip saddr 10.100.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random; }}\n}}\n"
    )
}

/// Index of the Service, name, port and protocol of each Service port.
fn ports(size: Size) -> impl Iterator<Item = (u32, &'static str, u16, &'static str)> {
    (0..size.services).flat_map(move |index| {
        let tested = Position::ALL
            .iter()
            .any(|p| p.index(size.services) == index);
        let count = if tested { PORTS.len() } else { 1 };
        PORTS.iter().take(count).map(move |(name, port, protocol)| {
            let protocol = match protocol {
                orchestrator::datapath::view::Protocol::Udp => "udp",
                _ => "tcp",
            };
            (index, *name, *port, protocol)
        })
    })
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
