//! A node of the cluster of namespaces and its pods: the real datapath, driven as an agent does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datapath::{
    self, Addrs, Change, Datapath, DatapathError, FamilyConfig, LocalPod, NodeConfig, Xdp, syscall,
};
use k8s_openapi::api::core::v1 as core;
use serde_json::json;

use super::service::{Ep, Object};
use super::{Netns, ip, pod_addr, split, underlay_addr};

pub struct Node {
    /// Counted from 1.
    pub number: u8,
    pub netns: Netns,
    pub config: NodeConfig,
    /// Its zone, if the test gave it one before it was announced.
    pub zone: Option<String>,
    /// Pods first: their namespaces go before the node's.
    pub pods: Vec<Pod>,
    datapath: Option<Datapath>,
}

pub struct Pod {
    pub netns: Netns,
    /// The last octet of its addresses.
    pub number: u8,
    pub addr: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub wired: LocalPod,
}

impl Node {
    pub(super) fn start(
        netns: Netns,
        number: u8,
        underlay: IpAddr,
        mtu: u32,
        pin_root: PathBuf,
        cgroup: &Path,
    ) -> Result<Self> {
        let (v4, v6) = underlay_addr(10 + number);
        let (v4_share, v6_share) = pod_addr(number, 0);
        let family = |node: IpAddr, share: String, pods: &str, services: &str, bits| {
            Ok::<_, anyhow::Error>(FamilyConfig {
                node_ip: Some(node),
                pod_cidr: share.parse()?,
                cluster_cidr: pods.parse()?,
                service_cidr: Some(services.parse()?),
                pod_mask_bits: bits,
            })
        };
        let v4 = family(
            v4.into(),
            format!("{v4_share}/24"),
            "10.100.0.0/16",
            "10.96.0.0/16",
            24,
        )?;
        let v6 = family(
            v6.into(),
            format!("{v6_share}/64"),
            "fd00:100::/48",
            "fd00:96::/112",
            64,
        )?;
        let config = NodeConfig {
            node_name: format!("node-{number}"),
            underlay,
            v4: Some(v4),
            v6: Some(v6),
            uplink: "eth0".into(),
            mtu,
            vni: 1,
            vxlan_port: 4789,
            servers: Vec::new(),
            dsr: false,
            xdp: Xdp::Auto,
            pin_root,
            cgroup_root: cgroup.to_owned(),
        };
        let mut node = Self {
            number,
            netns,
            config,
            zone: None,
            pods: Vec::new(),
            datapath: None,
        };
        node.open()?;
        Ok(node)
    }

    /// The node's addresses on the underlay.
    pub fn addrs(&self) -> Addrs {
        self.config
            .families()
            .filter_map(|family| family.node_ip)
            .collect()
    }

    pub fn v4(&self) -> IpAddr {
        underlay_addr(10 + self.number).0.into()
    }

    pub fn v6(&self) -> IpAddr {
        underlay_addr(10 + self.number).1.into()
    }

    /// The node inside the overlay.
    pub fn gateways(&self) -> Addrs {
        self.config.families().map(FamilyConfig::gateway).collect()
    }

    /// The node's object as its agent keeps it: addresses, pod ranges, zone, Ready.
    pub fn object(&self) -> Result<core::Node> {
        let internal = self.addrs();
        let addresses: Vec<_> = internal
            .iter()
            .map(|addr| json!({ "type": "InternalIP", "address": addr }))
            .collect();
        let ranges: Vec<_> = self
            .config
            .families()
            .map(|family| family.pod_cidr.to_string())
            .collect();
        let mut labels = json!({ "kubernetes.io/hostname": self.config.node_name });
        if let Some(zone) = &self.zone {
            labels["topology.kubernetes.io/zone"] = json!(zone);
        }
        let object = json!({
            "metadata": { "name": self.config.node_name, "labels": labels },
            "spec": { "podCIDR": ranges[0], "podCIDRs": ranges },
            "status": {
                "addresses": addresses,
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        });
        Ok(serde_json::from_value(object)?)
    }

    /// What an agent's start does; a second time, what its restart does.
    pub fn open(&mut self) -> Result<()> {
        let config = self.config.clone();
        let open = || Ok(runtime()?.block_on(Datapath::open(config))?);
        let opened: Result<Datapath> = self.netns.enter(open);
        self.datapath = Some(opened?);
        Ok(())
    }

    /// What taking a node out of service does.
    pub fn remove(&mut self) -> Result<()> {
        let datapath = self.datapath.take().expect("the agent runs");
        self.netns
            .enter(|| Ok(runtime()?.block_on(datapath.remove_all())?))
    }

    /// What kill -9 of an agent does.
    pub fn kill(&mut self) {
        self.datapath = None;
    }

    /// Gives the datapath away, as the agent does to the task that owns it.
    pub fn hand_over(&mut self) -> Datapath {
        self.datapath.take().expect("the agent runs")
    }

    /// Calls the datapath from inside the node, as the agent does.
    pub fn with<T: Send>(&mut self, call: impl FnOnce(&mut Datapath) -> T + Send) -> T {
        let datapath = self.datapath.as_mut().expect("the agent runs");
        self.netns.enter(|| call(datapath))
    }

    /// The agent hears of an object.
    pub fn hear(&mut self, object: &Object) -> Result<()> {
        self.take(object.change(&self.config.node_name))
    }

    /// The agent hears that an object was deleted.
    pub fn unhear(&mut self, object: &Object) -> Result<()> {
        self.take(object.deletion())
    }

    /// As the agent does: routes to external addresses follow at once.
    fn take(&mut self, change: Change) -> Result<()> {
        let runtime = runtime()?;
        Ok(self.with(|datapath| {
            datapath.change(change)?;
            runtime.block_on(datapath.follow_routes())
        })?)
    }

    /// A pod with the given last octet, wired as the agent does. The IPv4 address; both are in
    /// [`Pod`].
    pub fn add_pod(&mut self, number: u8) -> Result<Ipv4Addr> {
        let (addr, v6) = pod_addr(self.number, number);
        let netns = Netns::create(format!("{}-pod-{number}", self.netns.name))?;
        let ifname = format!("orchpod{number}");
        netns.ipv6("default", &PLAIN_IPV6)?;
        let (node, mtu) = (&self.netns.name, self.config.overlay_mtu());
        ip(&split(&format!(
            "link add name {ifname} netns {node} mtu {mtu} type veth \
             peer name eth0 mtu {mtu} netns {}",
            netns.name
        )))?;
        self.netns.ipv6(&ifname, &[("disable_ipv6", "1")])?;
        self.netns.ip(&format!("link set {ifname} up"))?;
        let (ifindex, host_mac) = self.netns.link(&ifname)?;
        let (_, mac) = netns.link("eth0")?;
        let lladdr = host_mac.map(|octet| format!("{octet:02x}")).join(":");
        let mut script = format!(
            "link set eth0 up\naddr add {addr}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\n"
        );
        for gateway in self.gateways().iter() {
            script += &format!(
                "neigh add {gateway} lladdr {lladdr} dev eth0 nud permanent\n\
                 route add default via {gateway} dev eth0 onlink\n"
            );
        }
        netns.batch(&script)?;
        let netns_cookie = netns.enter(syscall::own_netns_cookie)?;
        let wired = LocalPod {
            addrs: [addr.into(), v6.into()].into_iter().collect(),
            ifindex,
            ifname,
            mac,
            host_mac,
            netns_cookie,
            host_network: false,
            is_queued: false,
        };
        self.pods.push(Pod {
            netns,
            number,
            addr,
            v6,
            wired,
        });
        self.tell_pod(self.pods.len() - 1)?;
        Ok(addr)
    }

    /// Hands a pod over (again).
    pub fn tell_pod(&mut self, index: usize) -> Result<()> {
        let pod = self.pods[index].wired.clone();
        let change = Change::Pod(format!("pod-{index}"), Some(pod));
        Ok(self.with(|datapath| datapath.change(change))?)
    }

    /// The pod that was added last ends: its network goes, and the agent hears of it. What still holds
    /// a socket inside keeps its network alive.
    pub fn end_last_pod(&mut self) -> Result<()> {
        drop(self.pods.pop().context("no pod is left")?);
        let change = Change::Pod(format!("pod-{}", self.pods.len()), None);
        Ok(self.with(|datapath| datapath.change(change))?)
    }

    /// What an agent does in quiet moments, all at once.
    pub fn quicken(&mut self) -> Result<()> {
        Ok(self.with(|datapath| {
            while datapath.quicken()? {}
            Ok::<_, DatapathError>(())
        })?)
    }

    /// A pod as an endpoint of a Service: ready, on this node, in its zone.
    pub fn ep(&self, pod: usize) -> Ep {
        let pod = &self.pods[pod];
        Ep::at([pod.addr.into(), pod.v6.into()]).on(self)
    }

    /// A pod on the host network as an endpoint of a Service.
    pub fn host_ep(&self) -> Ep {
        Ep::at(self.addrs().iter()).on(self)
    }

    /// Packets by what became of them.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>> {
        let (root, name) = (&self.config.pin_root, &self.config.node_name);
        Ok(datapath::counters_pinned(root, name)?)
    }

    /// One verdict or drop reason of [`Node::counters`].
    pub fn counted(&self, name: &str) -> Result<u64> {
        let counters = self.counters()?;
        let found = counters.iter().find(|(counted, _)| *counted == name);
        let (_, count) = found.with_context(|| format!("nothing is counted as {name}"))?;
        Ok(*count)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.datapath = None;
        let removed = datapath::remove_pins(&self.config.pin_root, &self.config.node_name);
        if let Err(error) = removed {
            eprintln!("{}: {error}", self.config.node_name);
        }
    }
}

/// What a pod's links to come have of IPv6: only what is given to them.
const PLAIN_IPV6: [(&str, &str); 5] = [
    ("addr_gen_mode", "1"),
    ("accept_ra", "0"),
    ("accept_dad", "0"),
    ("router_solicitations", "0"),
    ("disable_ipv6", "0"),
];

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}
