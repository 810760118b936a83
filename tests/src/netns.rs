//! Nodes, pods and a client outside as network namespaces, with the real datapath in each node.
//!
//! Everything made here bears the process's number and is removed when dropped, also by a panic; what a
//! killed run left is removed by the next. No agent, no API: the tests hand the changes over.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use orchestrator::datapath::view::{EndpointView, PortView, Protocol};
use orchestrator::datapath::{
    Change, Datapath, FamilyConfig, LocalPod, NodeConfig, NodeView, ObjectKey, ServiceView,
    SliceView, mount, syscall,
};

use crate::prog::skipped;

/// Every name made here: `dpt<pid>-…`.
const PREFIX: &str = "dpt";

const BPFFS: &str = "/sys/fs/bpf";

/// Whether the datapath can run here; otherwise reports `test` as skipped.
pub fn ready(test: &str) -> bool {
    let lacks = if !nix::unistd::geteuid().is_root() {
        "it needs root"
    } else if !orchestrator::datapath::object::is_embedded() {
        "no datapath is built in: run `cargo xtask build-ebpf` and build again"
    } else {
        return true;
    };
    skipped(test, lacks);
    false
}

/// A network namespace that goes with its value.
pub struct Netns {
    pub name: String,
}

impl Netns {
    fn create(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        let made = Self { name };
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// `ip` inside; arguments are split at blanks.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        ip(&all).map(drop)
    }

    /// Runs `work` on a thread that is inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        let inside = || {
            let namespace = fs::File::open(&path).expect("the namespace is there");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            work()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Index and link address of a link inside.
    pub fn link(&self, name: &str) -> Result<(u32, [u8; 6])> {
        let text = ip(&["-n", &self.name, "-j", "link", "show", "dev", name])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let ifindex = links[0]["ifindex"].as_u64().context("no ifindex")?;
        let mut mac = [0; 6];
        let octets = links[0]["address"]
            .as_str()
            .context("no address")?
            .split(':');
        for (byte, octet) in mac.iter_mut().zip(octets) {
            *byte = u8::from_str_radix(octet, 16)?;
        }
        Ok((u32::try_from(ifindex)?, mac))
    }

    /// `bridge` inside; arguments are split at blanks.
    pub fn bridge(&self, arguments: &str) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        run("bridge", &all).map(drop)
    }

    pub fn sysctl(&self, path: &str, value: &str) -> io::Result<()> {
        self.enter(|| fs::write(format!("/proc/sys/net/{path}"), value))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A failure would be a panic in a drop; the next run's sweep gets what is left.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// A switch on its own, for networks that are not ours.
pub struct Underlay {
    netns: Netns,
    name: String,
}

impl Underlay {
    pub fn create(tag: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{tag}", std::process::id());
        let netns = Netns::create(format!("{name}-ul"))?;
        netns.ip("link add ul0 type bridge")?;
        netns.ip("link set ul0 up")?;
        Ok(Self { netns, name })
    }

    /// A namespace on the switch with 172.31.0.`octet`.
    pub fn plug(&self, tag: &str, octet: u8) -> Result<Netns> {
        let netns = self.namespace(tag)?;
        plug(&self.netns, &netns, tag, Ipv4Addr::new(172, 31, 0, octet))?;
        Ok(netns)
    }

    /// A namespace that nothing leads to yet.
    pub fn namespace(&self, tag: &str) -> Result<Netns> {
        Netns::create(format!("{}-{tag}", self.name))
    }
}

/// A switch, nodes on it, and a client outside.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub outside: Netns,
    /// The switch: a capture here sees all that nodes send each other.
    pub underlay: Netns,
    name: String,
    cgroup: PathBuf,
}

pub struct Node {
    pub netns: Netns,
    pub config: NodeConfig,
    /// Pods first: their namespaces go before the node's.
    pub pods: Vec<Pod>,
    datapath: Option<Datapath>,
}

pub struct Pod {
    pub netns: Netns,
    pub addr: Ipv4Addr,
    pub wired: LocalPod,
}

pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 250);

impl Cluster {
    pub fn start(nodes: u8) -> Result<Self> {
        Self::start_in(nodes, &mount::cgroup_root()?)
    }

    /// The same with the socket programs on a cgroup of the caller's.
    pub fn start_in(nodes: u8, cgroup: &Path) -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        if serial == 0 {
            sweep_dead_runs()?;
        }
        let name = format!("{PREFIX}{}-{serial}", std::process::id());
        let underlay = Netns::create(format!("{name}-ul"))?;
        underlay.ip("link add ul0 type bridge")?;
        underlay.ip("link set ul0 up")?;
        let outside = Netns::create(format!("{name}-outside"))?;
        plug(&underlay, &outside, "outside", OUTSIDE)?;
        let mut cluster = Self {
            nodes: Vec::new(),
            outside,
            underlay,
            name,
            cgroup: cgroup.to_owned(),
        };
        for number in 1..=nodes {
            cluster.add_node(number)?;
        }
        cluster.announce_nodes()?;
        Ok(cluster)
    }

    /// Every node has heard everything.
    pub fn in_sync(&mut self) -> Result<()> {
        self.nodes
            .iter_mut()
            .try_for_each(|node| Ok(node.with(Datapath::in_sync)?))
    }

    /// The same change to every node.
    pub fn change(&mut self, change: &Change) -> Result<()> {
        let tell = |node: &mut Node| Ok(node.with(|datapath| datapath.change(change.clone()))?);
        self.nodes.iter_mut().try_for_each(tell)
    }

    /// A Service with one port, and its endpoints.
    pub fn service(
        &mut self,
        addr: Ipv4Addr,
        port: u16,
        protocol: Protocol,
        endpoints: &[(Ipv4Addr, u16)],
    ) -> Result<()> {
        let name = format!("s{}-{port}-{protocol:?}", addr.octets()[3]);
        let key = ObjectKey::new("default", name.as_str());
        let listed = |port| {
            vec![PortView {
                name: "main".into(),
                port,
                protocol,
            }]
        };
        let ports = listed(port);
        let view = ServiceView {
            addrs: vec![addr.into()],
            ports,
            local_only: false,
        };
        self.change(&Change::Service(key.clone(), Some(view)))?;
        let target = endpoints.first().map_or(port, |(_, port)| *port);
        let slice = SliceView {
            service: key.name.clone(),
            ports: listed(target),
            endpoints: endpoints
                .iter()
                .map(|(addr, _)| ready_endpoint(*addr))
                .collect(),
        };
        self.change(&Change::Slice(key, Some(slice)))
    }

    fn add_node(&mut self, number: u8) -> Result<()> {
        let netns = Netns::create(format!("{}-node-{number}", self.name))?;
        let addr = Ipv4Addr::new(172, 31, 0, 10 + number);
        plug(&self.underlay, &netns, &format!("node-{number}"), addr)?;
        netns.ip(&format!("route add default via {OUTSIDE}"))?;
        let config = NodeConfig {
            node_name: format!("node-{number}"),
            underlay: addr.into(),
            v4: Some(FamilyConfig {
                node_ip: Some(addr.into()),
                pod_cidr: format!("10.100.{number}.0/24").parse()?,
                cluster_cidr: "10.100.0.0/16".parse()?,
                service_cidr: "10.96.0.0/16".parse()?,
                pod_mask_bits: 24,
            }),
            v6: None,
            uplink: "eth0".into(),
            mtu: 1500,
            vni: 1,
            vxlan_port: 4789,
            pin_root: PathBuf::from(BPFFS).join(&self.name),
            cgroup_root: self.cgroup.clone(),
        };
        let mut node = Node {
            netns,
            config,
            pods: Vec::new(),
            datapath: None,
        };
        node.open()?;
        self.nodes.push(node);
        Ok(())
    }

    /// Tells every node where the others are.
    pub fn announce_nodes(&mut self) -> Result<()> {
        let views: Vec<_> = self.nodes.iter().map(|node| node.config.clone()).collect();
        for config in views {
            let view = NodeView {
                pod_cidrs: config.families().map(|family| family.pod_cidr).collect(),
                addrs: config.underlay.into(),
            };
            self.change(&Change::Node(config.node_name, Some(view)))?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        let _ = fs::remove_dir(Path::new(BPFFS).join(&self.name));
    }
}

impl Node {
    /// What an agent's start does; a second time, what its restart does.
    pub fn open(&mut self) -> Result<()> {
        let config = self.config.clone();
        let open = || -> Result<Datapath> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(Datapath::open(config))?)
        };
        self.datapath = Some(self.netns.enter(open)?);
        Ok(())
    }

    /// What taking a node out of service does.
    pub fn remove(&mut self) -> Result<()> {
        let datapath = self.datapath.take().expect("the agent runs");
        let remove = || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(datapath.remove_all())?)
        };
        self.netns.enter(remove)
    }

    /// What kill -9 of an agent does.
    pub fn kill(&mut self) {
        self.datapath = None;
    }

    /// Calls the datapath from inside the node, as the agent does.
    pub fn with<T: Send>(&mut self, call: impl FnOnce(&mut Datapath) -> T + Send) -> T {
        let datapath = self.datapath.as_mut().expect("the agent runs");
        self.netns.enter(|| call(datapath))
    }

    /// A pod with the given last octet, wired as the agent does.
    pub fn add_pod(&mut self, octet: u8) -> Result<Ipv4Addr> {
        let family = self.config.v4.context("the node has no IPv4")?;
        let IpAddr::V4(gateway) = family.gateway() else {
            bail!("the tests are IPv4");
        };
        let [a, b, c, _] = gateway.octets();
        let addr = Ipv4Addr::new(a, b, c, octet);
        let netns = Netns::create(format!("{}-pod-{octet}", self.netns.name))?;
        let ifname = format!("orchpod{octet}");
        netns.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        let node = &self.netns.name;
        ip(&split(&format!(
            "link add name {ifname} netns {node} mtu 1450 type veth peer name eth0 mtu 1450 netns {}",
            netns.name
        )))?;
        self.netns
            .sysctl(&format!("ipv6/conf/{ifname}/disable_ipv6"), "1")?;
        self.netns.ip(&format!("link set {ifname} up"))?;
        let (ifindex, host_mac) = self.netns.link(&ifname)?;
        let (_, mac) = netns.link("eth0")?;
        netns.ip("link set eth0 up")?;
        netns.ip(&format!("addr add {addr}/32 dev eth0"))?;
        netns.ip(&format!(
            "neigh add {gateway} lladdr {} dev eth0 nud permanent",
            host_mac.map(|octet| format!("{octet:02x}")).join(":")
        ))?;
        netns.ip(&format!("route add default via {gateway} dev eth0 onlink"))?;
        let netns_cookie = netns.enter(syscall::own_netns_cookie)?;
        let wired = LocalPod {
            addrs: addr.into(),
            ifindex,
            ifname,
            mac,
            host_mac,
            netns_cookie,
            host_network: false,
        };
        self.pods.push(Pod { netns, addr, wired });
        self.tell_pod(self.pods.len() - 1)?;
        Ok(addr)
    }

    /// Hands a pod over (again).
    pub fn tell_pod(&mut self, index: usize) -> Result<()> {
        let pod = self.pods[index].wired.clone();
        Ok(self.with(|datapath| datapath.change(Change::Pod(format!("pod-{index}"), Some(pod))))?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.datapath = None;
        let removed =
            orchestrator::datapath::remove_pins(&self.config.pin_root, &self.config.node_name);
        if let Err(error) = removed {
            eprintln!("{}: {error}", self.config.node_name);
        }
    }
}

pub fn ready_endpoint(addr: Ipv4Addr) -> EndpointView {
    EndpointView::new(addr.into(), true, true, false, false)
}

/// Joins a namespace to the switch.
fn plug(underlay: &Netns, netns: &Netns, port: &str, addr: Ipv4Addr) -> Result<()> {
    ip(&split(&format!(
        "link add name {port} netns {} type veth peer name eth0 netns {}",
        underlay.name, netns.name
    )))?;
    underlay.ip(&format!("link set {port} master ul0 up"))?;
    netns.sysctl("ipv6/conf/eth0/disable_ipv6", "1")?;
    netns.ip(&format!("addr add {addr}/24 dev eth0"))?;
    netns.ip("link set eth0 up")
}

fn split(arguments: &str) -> Vec<&str> {
    arguments.split_whitespace().collect()
}

fn ip(arguments: &[&str]) -> Result<String> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("run {program}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        complaint.trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Removes what a run that was killed could not.
fn sweep_dead_runs() -> Result<()> {
    let dead = |name: &str| {
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
    };
    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| dead(name)).collect()
    };
    for name in names("/run/netns") {
        ip(&["netns", "del", &name])?;
    }
    for name in names(BPFFS) {
        let root = Path::new(BPFFS).join(name);
        for node in orchestrator::datapath::nodes(&root)? {
            orchestrator::datapath::remove_pins(&root, &node)?;
        }
        fs::remove_dir(root)?;
    }
    Ok(())
}
