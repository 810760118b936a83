//! The cluster of namespaces: what it is made of, and what all of its agents hear.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use datapath::view::{EndpointView, Protocol};
use datapath::{Change, Datapath, mount};

use super::service::{Ep, Object, Svc};
use super::{
    BPFFS, Netns, Node, OUTSIDE, OUTSIDE_V6, PREFIX, plug, sweep_dead_runs, underlay_addr,
};
use crate::peer::udp_for;

/// Nobody listens there.
const DISCARD: u16 = 9;

/// What a cluster is made of. Nodes and pods always have both families.
///
/// ```ignore
/// let mut cluster = Plan::nodes(2).underlay_v6().start()?;
/// let near = cluster.nodes[0].add_pod(5)?;
/// let far = cluster.nodes[1].add_pod(5)?;
/// cluster.in_sync()?;
/// let _server = Server::tcp(&cluster.nodes[1].pods[0].netns, "far", 8080)?;
/// let web = Svc::new("web", 10).port(80, 8080).to([cluster.nodes[1].ep(0)]);
/// cluster.apply(&web)?;
/// let answer = ask_tcp(&cluster.nodes[0].pods[0].netns, (web.v6(), 80), "hello")?;
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    nodes: u8,
    underlay_v6: bool,
    mtu: u32,
    cgroup: Cgroup,
}

/// Whose sockets the socket programs see.
#[derive(Clone, Debug)]
enum Cgroup {
    /// Everybody's: the root.
    Root,
    /// Nobody's: TCP is translated packet by packet, as if no socket program had seen it.
    Empty,
    /// The processes of a cgroup of the caller's.
    At(PathBuf),
}

impl Plan {
    pub fn nodes(nodes: u8) -> Self {
        Self {
            nodes,
            underlay_v6: false,
            mtu: 1500,
            cgroup: Cgroup::Root,
        }
    }

    /// Nodes tunnel to each other's IPv6 addresses.
    pub fn underlay_v6(mut self) -> Self {
        self.underlay_v6 = true;
        self
    }

    /// The MTU of the nodes' uplinks, 1,500 if not given.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// No socket program sees anybody: what remains is the per-packet path.
    pub fn per_packet(mut self) -> Self {
        self.cgroup = Cgroup::Empty;
        self
    }

    /// The socket programs see the processes of this cgroup only.
    pub fn cgroup(mut self, cgroup: &Path) -> Self {
        self.cgroup = Cgroup::At(cgroup.to_owned());
        self
    }

    /// Makes all of it; each node knows of the others.
    pub fn start(self) -> Result<Cluster> {
        Cluster::make(self)
    }
}

/// A switch, nodes on it, and a client outside.
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// A client on the underlay that is no node: [`OUTSIDE`], [`OUTSIDE_V6`].
    pub outside: Netns,
    /// The switch: a capture here sees all that nodes send each other.
    pub underlay: Netns,
    pub(super) name: String,
    /// A router that a path was led through, see [`Cluster::narrow`].
    pub(super) hop: Option<Netns>,
    plan: Plan,
    cgroup: PathBuf,
    /// Everything that the agents were told, for one that starts anew.
    told: BTreeMap<String, Object>,
}

impl Cluster {
    pub fn start(nodes: u8) -> Result<Self> {
        Plan::nodes(nodes).start()
    }

    /// The same with the socket programs on a cgroup of the caller's.
    pub fn start_in(nodes: u8, cgroup: &Path) -> Result<Self> {
        Plan::nodes(nodes).cgroup(cgroup).start()
    }

    fn make(plan: Plan) -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        if serial == 0 {
            sweep_dead_runs()?;
        }
        let name = format!("{PREFIX}{}-{serial}", std::process::id());
        let cgroup = plan.cgroup.make(&name)?;
        let underlay = Netns::create(format!("{name}-ul"))?;
        underlay.batch("link add ul0 type bridge mcast_snooping 0\nlink set ul0 up\n")?;
        let outside = Netns::create(format!("{name}-outside"))?;
        plug(&underlay, &outside, "outside", OUTSIDE, Some(OUTSIDE_V6))?;
        let mut cluster = Self {
            nodes: Vec::new(),
            outside,
            underlay,
            name,
            hop: None,
            plan,
            cgroup,
            told: BTreeMap::new(),
        };
        for number in 1..=cluster.plan.nodes {
            let node = cluster.new_node(number)?;
            cluster.nodes.push(node);
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

    /// The same change to every node, as it is.
    pub fn change(&mut self, change: &Change) -> Result<()> {
        let tell = |node: &mut Node| Ok(node.with(|datapath| datapath.change(change.clone()))?);
        self.nodes.iter_mut().try_for_each(tell)
    }

    /// Has every node's agent hear of an object, and remembers it for agents that start later.
    pub fn tell(&mut self, object: Object) -> Result<()> {
        for node in &mut self.nodes {
            node.hear(&object)?;
        }
        self.told.insert(object.key(), object);
        Ok(())
    }

    /// Has every node's agent hear that an object was deleted.
    pub fn forget(&mut self, object: &Object) -> Result<()> {
        self.told.remove(&object.key());
        let unhear = |node: &mut Node| node.unhear(object);
        self.nodes.iter_mut().try_for_each(unhear)
    }

    /// Creates a Service with its endpoint slices, or makes it what it is now.
    pub fn apply(&mut self, service: &Svc) -> Result<()> {
        let (wanted, gone) = service.objects()?;
        wanted
            .into_iter()
            .try_for_each(|object| self.tell(object))?;
        gone.iter().try_for_each(|object| self.forget(object))
    }

    /// Deletes a Service and its endpoint slices, in the API's order: the Service first.
    pub fn delete(&mut self, service: &Svc) -> Result<()> {
        let (there, _) = service.objects()?;
        there.iter().try_for_each(|object| self.forget(object))
    }

    /// A Service with one port on one address, and its endpoints. [`Cluster::apply`] says more.
    pub fn service(
        &mut self,
        addr: Ipv4Addr,
        port: u16,
        protocol: Protocol,
        endpoints: &[(Ipv4Addr, u16)],
    ) -> Result<()> {
        let [.., last] = addr.octets();
        let name = format!("s{last}-{port}-{}", format!("{protocol:?}").to_lowercase());
        let target = endpoints.first().map_or(port, |(_, port)| *port);
        let service = Svc::new(&name, last).ips([addr.into()]);
        let service = match protocol {
            Protocol::Udp => service.udp(port, target),
            _ => service.port(port, target),
        };
        let endpoints = endpoints.iter().map(|(addr, _)| Ep::at([(*addr).into()]));
        self.apply(&service.to(endpoints))
    }

    /// Tells every node where the others are.
    pub fn announce_nodes(&mut self) -> Result<()> {
        let objects: Vec<_> = self.nodes.iter().map(Node::object).collect();
        objects
            .into_iter()
            .try_for_each(|node| self.tell(Object::Node(Box::new(node?))))
    }

    /// Kills a node's agent and starts it again; it hears all that the others were told.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        node.kill();
        node.open()?;
        (0..node.pods.len()).try_for_each(|pod| node.tell_pod(pod))?;
        for object in self.told.values() {
            node.hear(object)?;
        }
        Ok(node.with(Datapath::in_sync)?)
    }

    /// One more node; every node learns of it. It is in sync like a node that has just started.
    pub fn join(&mut self) -> Result<()> {
        let number = self.nodes.last().map_or(0, |node| node.number) + 1;
        let mut node = self.new_node(number)?;
        for object in self.told.values() {
            node.hear(object)?;
        }
        let object = node.object()?;
        node.with(Datapath::in_sync)?;
        self.nodes.push(node);
        self.tell(Object::Node(Box::new(object)))
    }

    /// The last node goes: its object first, then everything of it.
    pub fn leave(&mut self) -> Result<()> {
        let Some(node) = self.nodes.pop() else {
            return Ok(());
        };
        self.forget(&Object::Node(Box::new(node.object()?)))
    }

    /// Power off and on: nothing of the node's kernel is left, its links have new addresses, its pods
    /// run anew under the addresses they had. Only the rebooted node hears anything.
    pub fn reboot(&mut self, index: usize) -> Result<()> {
        let old = self.nodes.remove(index);
        let pods: Vec<u8> = old.pods.iter().map(|pod| pod.number).collect();
        let number = old.number;
        self.underlay.ip(&format!("link del node-{number}"))?;
        drop(old); // before there is another of its name
        let mut node = self.new_node(number)?;
        // A machine that comes up speaks: with that, the underlay learns where it is now.
        for addr in self.nodes.iter().flat_map(|other| other.addrs().iter()) {
            let socket = udp_for(&node.netns, addr)?;
            socket.send_to(b"up", (addr, DISCARD))?;
        }
        for pod in pods {
            node.add_pod(pod)?;
        }
        for object in self.told.values() {
            node.hear(object)?;
        }
        node.with(Datapath::in_sync)?;
        self.nodes.insert(index, node);
        Ok(())
    }

    /// Where the client outside sends what is for these addresses: to that node.
    pub fn route_outside(&self, range: &str, node: usize) -> Result<()> {
        let v6 = range.contains(':');
        let addrs = self.nodes[node].addrs();
        let via = addrs.iter().find(|addr| addr.is_ipv6() == v6);
        let via = via.unwrap_or(IpAddr::V4(OUTSIDE));
        self.outside.ip(&format!("route replace {range} via {via}"))
    }

    fn new_node(&self, number: u8) -> Result<Node> {
        let netns = Netns::create(format!("{}-node-{number}", self.name))?;
        let (v4, v6) = underlay_addr(10 + number);
        let port = format!("node-{number}");
        plug(&self.underlay, &netns, &port, v4, Some(v6))?;
        netns.batch(&format!(
            "link set eth0 mtu {}\nroute add default via {OUTSIDE}\nroute add default via {OUTSIDE_V6}\n",
            self.plan.mtu
        ))?;
        let pin_root = PathBuf::from(BPFFS).join(&self.name);
        let underlay = if self.plan.underlay_v6 {
            v6.into()
        } else {
            v4.into()
        };
        Node::start(
            netns,
            number,
            underlay,
            self.plan.mtu,
            pin_root,
            &self.cgroup,
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        let _ = fs::remove_dir(Path::new(BPFFS).join(&self.name));
        if matches!(self.plan.cgroup, Cgroup::Empty) {
            let _ = fs::remove_dir(&self.cgroup);
        }
    }
}

impl Cgroup {
    fn make(&self, name: &str) -> Result<PathBuf> {
        let root = mount::cgroup_root()?;
        Ok(match self {
            Self::Root => root,
            Self::At(path) => path.clone(),
            Self::Empty => {
                let path = root.join(name);
                fs::create_dir(&path)?;
                path
            }
        })
    }
}

pub fn ready_endpoint(addr: Ipv4Addr) -> EndpointView {
    EndpointView::new(addr.into(), true, true, false, false)
}
