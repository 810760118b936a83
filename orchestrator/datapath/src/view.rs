//! What the datapath knows about the world: compact rows, cut from API objects as they arrive.
//!
//! The agent turns every watch event into one of these and drops the object: 100,000 endpoints must fit
//! a small agent. Nothing here looks anything up; what a row means for the maps is `desired`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnetwork::{IpNetwork, Ipv6Network};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use super::addrs::Addrs;
use api::address::{parse_ip, parse_range};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Labels that say: not for this proxy. The first names another one, the second says that there is nothing
/// to proxy.
const HIDDEN: [&str; 2] = [
    "service.kubernetes.io/service-proxy-name",
    "service.kubernetes.io/headless",
];

const ZONE: &str = "topology.kubernetes.io/zone";
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What `sessionAffinity: ClientIP` means without a timeout: three hours.
const AFFINITY_S: u32 = 10_800;

/// Stands for a range that does not read: no packet comes from there. A list without it would admit all.
const NO_CLIENT: IpNetwork =
    IpNetwork::V6(match Ipv6Network::new_checked(Ipv6Addr::UNSPECIFIED, 128) {
        Some(range) => range,
        None => panic!("a prefix of 128 bits is one of IPv6"),
    });

/// Namespace and name of an object: the unit of recomputation. One text, since an agent keeps some for
/// each of thousands of objects; in the order of namespaces, then names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey(Arc<str>);

/// Before every character that a namespace or a name may have.
const BETWEEN: char = '\0';

impl ObjectKey {
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Self {
        let (namespace, name) = (namespace.as_ref(), name.as_ref());
        Self(format!("{namespace}{BETWEEN}{name}").into())
    }

    /// A key that no other is before.
    pub fn least() -> Self {
        Self(Arc::default())
    }

    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once(BETWEEN).unwrap_or_default()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.name())
    }
}

/// The transport of a Service port, as the wire numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP" | "") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// A Service that has an address of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    pub cluster_ips: Addrs,
    pub ports: Box<[PortView]>,
    /// `internalTrafficPolicy: Local`: who asks the Service's own address gets endpoints of this node.
    pub internal_local: bool,
    /// `sessionAffinity: ClientIP` in seconds; 0 is none.
    pub affinity_s: u32,
    /// What it is to the outside. Most Services are nothing.
    pub external: Option<Box<ExternalView>>,
}

/// How a Service is reached from outside the cluster; node ports stand with the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalView {
    /// Those that a node must answer for: `ipMode: Proxy` is the load balancer's own affair.
    pub load_balancer_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    /// `externalTrafficPolicy: Local`: from outside only to endpoints of this node.
    pub local: bool,
    /// Who may ask the load balancer's addresses; empty is everybody.
    pub source_ranges: Vec<IpNetwork>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// Slices say which of their ports is meant by this name, not by number.
    pub name: Box<str>,
    /// The Service's, or the target in a slice.
    pub port: u16,
    /// 0 is none; always in a slice.
    pub node_port: u16,
    pub protocol: Protocol,
}

impl PortView {
    pub fn new(name: &str, port: u16, protocol: Protocol) -> Self {
        Self {
            name: name.into(),
            port,
            node_port: 0,
            protocol,
        }
    }
}

impl ServiceView {
    /// A Service without anything but its own addresses.
    pub fn cluster_ip(cluster_ips: &[IpAddr], ports: Vec<PortView>) -> Self {
        Self {
            cluster_ips: cluster_ips.iter().copied().collect(),
            ports: ports.into(),
            internal_local: false,
            affinity_s: 0,
            external: None,
        }
    }

    /// `None`: headless, ExternalName, somebody else's or not yet allocated, so the datapath has
    /// nothing to translate.
    pub fn from_object(service: &core::Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let labels = service.metadata.labels.as_ref();
        let hidden = |labels: &BTreeMap<String, String>| {
            HIDDEN.iter().any(|label| labels.contains_key(*label))
        };
        if spec.type_.as_deref() == Some("ExternalName") || labels.is_some_and(hidden) {
            return None;
        }
        let listed = spec.cluster_ips.iter().flatten().map(String::as_str);
        let listed = listed.chain(spec.cluster_ip.as_deref());
        let cluster_ips: Addrs = listed.filter_map(parse_ip).collect();
        if cluster_ips.is_empty() {
            return None;
        }
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let node_port = u16::try_from(port.node_port.unwrap_or(0)).unwrap_or(0);
            Some(PortView {
                name: port.name.as_deref().unwrap_or_default().into(),
                port: u16::try_from(port.port).ok()?,
                node_port,
                protocol: Protocol::parse(port.protocol.as_deref())?,
            })
        });
        let ports: Box<[PortView]> = ports.collect();
        let external = ExternalView::from_object(service);
        let node_ports = ports.iter().any(|port| port.node_port != 0);
        let external = (node_ports || external != ExternalView::default()).then_some(external);
        Some(Self {
            cluster_ips,
            ports,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            affinity_s: affinity_s(spec),
            external: external.map(Box::new),
        })
    }

    /// The Service balances packets of this family.
    pub fn has_family_of(&self, addr: IpAddr) -> bool {
        self.cluster_ips.like(addr).is_some()
    }
}

impl ExternalView {
    fn from_object(service: &core::Service) -> Self {
        let Some(spec) = &service.spec else {
            return Self::default();
        };
        let status = service.status.as_ref();
        let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        let answered = ingress.into_iter().flatten().filter_map(|ingress| {
            let proxied = ingress.ip_mode.as_deref() == Some("Proxy");
            ingress.ip.as_deref().filter(|_| !proxied)
        });
        let is_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
        let external_ips = spec.external_ips.iter().flatten().map(String::as_str);
        let ranges = spec.load_balancer_source_ranges.iter().flatten();
        let mut source_ranges: Vec<IpNetwork> = ranges
            .filter(|_| is_load_balancer)
            .map(|range| parse_range(range.trim()).unwrap_or(NO_CLIENT))
            .collect();
        source_ranges.sort_unstable();
        source_ranges.dedup();
        Self {
            load_balancer_ips: addresses(answered.filter(|_| is_load_balancer)),
            external_ips: addresses(external_ips),
            local: spec.external_traffic_policy.as_deref() == Some("Local"),
            source_ranges,
        }
    }
}

fn affinity_s(spec: &core::ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref();
    let timeout = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    timeout
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|seconds| *seconds != 0)
        .unwrap_or(AFFINITY_S)
}

/// Those that are addresses, in order, once.
fn addresses<'a>(listed: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    let mut addrs: Vec<IpAddr> = listed.filter_map(parse_ip).collect();
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}

/// One EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceView {
    /// Its Service, of the same namespace.
    pub service: ObjectKey,
    pub ports: Box<[PortView]>,
    pub endpoints: Box<[EndpointView]>,
    /// The lists of zones that its endpoints are hinted for, each once.
    zones: Box<[Box<[Box<str>]>]>,
}

/// One endpoint of a slice: an address and what its conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointView {
    pub addr: IpAddr,
    flags: u8,
    /// One more than the index of its zones in the slice; 0 is no hint.
    zones: u8,
}

/// For whom an endpoint is meant first of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// Nothing is said.
    Nobody,
    /// This node, or this node's zone, is among them.
    Us,
    Others,
}

impl EndpointView {
    const READY: u8 = 1;
    const SERVING: u8 = 2;
    const TERMINATING: u8 = 4;
    const LOCAL: u8 = 8;
    const NODE_HINT: u8 = 16;
    const FOR_THIS_NODE: u8 = 32;

    pub fn new(addr: IpAddr, ready: bool, serving: bool, terminating: bool, local: bool) -> Self {
        let flags = bit(ready, Self::READY)
            | bit(serving, Self::SERVING)
            | bit(terminating, Self::TERMINATING)
            | bit(local, Self::LOCAL);
        Self {
            addr,
            flags,
            zones: 0,
        }
    }

    pub fn ready(self) -> bool {
        self.flags & Self::READY != 0
    }

    pub fn serving(self) -> bool {
        self.flags & Self::SERVING != 0
    }

    pub fn terminating(self) -> bool {
        self.flags & Self::TERMINATING != 0
    }

    /// It runs on the node that asks.
    pub fn local(self) -> bool {
        self.flags & Self::LOCAL != 0
    }

    /// `hints.forNodes`
    pub fn for_node(self) -> Hint {
        match (
            self.flags & Self::NODE_HINT,
            self.flags & Self::FOR_THIS_NODE,
        ) {
            (0, _) => Hint::Nobody,
            (_, 0) => Hint::Others,
            _ => Hint::Us,
        }
    }
}

fn bit(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

impl SliceView {
    /// A slice without hints.
    pub fn new(service: ObjectKey, ports: Vec<PortView>, endpoints: Vec<EndpointView>) -> Self {
        Self {
            service,
            ports: ports.into(),
            endpoints: endpoints.into(),
            zones: Box::default(),
        }
    }

    /// `node` is this node's name. `None`: the slice names no Service or holds host names.
    pub fn from_object(slice: &discovery::EndpointSlice, node: &str) -> Option<Self> {
        if slice.address_type == "FQDN" {
            return None;
        }
        let labels = slice.metadata.labels.as_ref()?;
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        let service = ObjectKey::new(namespace, labels.get(SERVICE_NAME)?);
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let name = port.name.as_deref().unwrap_or_default();
            let protocol = Protocol::parse(port.protocol.as_deref())?;
            Some(PortView::new(
                name,
                u16::try_from(port.port?).ok()?,
                protocol,
            ))
        });
        let v4 = slice.address_type == "IPv4";
        let mut zones: Vec<Box<[Box<str>]>> = Vec::new();
        let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
            let view = endpoint_view(endpoint, node, &mut zones)?;
            // A slice holds one family; an address of the other one is somebody's mistake.
            (view.addr.is_ipv4() == v4).then_some(view)
        });
        Some(Self {
            service,
            ports: ports.collect(),
            endpoints: endpoints.collect(),
            zones: zones.into(),
        })
    }

    /// `hints.forZones`, asked from `zone`.
    pub fn for_zone(&self, endpoint: EndpointView, zone: Option<&str>) -> Hint {
        let listed = usize::from(endpoint.zones).checked_sub(1);
        let Some(zones) = listed.and_then(|index| self.zones.get(index)) else {
            return Hint::Nobody;
        };
        if zones.iter().any(|listed| Some(&**listed) == zone) {
            Hint::Us
        } else {
            Hint::Others
        }
    }
}

/// Kubernetes: consumers read the first address only; an absent `ready` is ready, an absent `serving`
/// follows `ready`, an absent `terminating` is not.
fn endpoint_view(
    endpoint: &discovery::Endpoint,
    node: &str,
    zones: &mut Vec<Box<[Box<str>]>>,
) -> Option<EndpointView> {
    let addr = parse_ip(endpoint.addresses.first()?)?;
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    let local = endpoint.node_name.as_deref() == Some(node);
    let mut view = EndpointView::new(addr, ready, serving, terminating, local);
    let Some(hints) = &endpoint.hints else {
        return Some(view);
    };
    let nodes = hints.for_nodes.as_deref().unwrap_or_default();
    view.flags |= bit(!nodes.is_empty(), EndpointView::NODE_HINT);
    let ours = nodes.iter().any(|listed| listed.name == node);
    view.flags |= bit(ours, EndpointView::FOR_THIS_NODE);
    let listed = hints.for_zones.iter().flatten();
    let listed: Box<[Box<str>]> = listed.map(|zone| zone.name.as_str().into()).collect();
    if !listed.is_empty() {
        let known = zones.iter().position(|known| *known == listed);
        let index = known.unwrap_or_else(|| {
            zones.push(listed);
            zones.len() - 1
        });
        // Beyond 255 lists in one slice the hint is lost, which only widens the choice.
        view.zones = u8::try_from(index + 1).unwrap_or(0);
    }
    Some(view)
}

/// A node: where packets for its pods go, and whether it can answer for addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    pub age: NodeAge,
    pub pod_cidrs: Vec<IpNetwork>,
    /// Its `InternalIP`s; the underlay's family is where it is tunnelled to.
    pub addrs: Addrs,
    pub zone: Option<Box<str>>,
    /// It is Ready, and nobody took it out of balancing from outside.
    pub announces: bool,
}

/// Since when a node is known, the oldest first: of two that claim the same, it decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeAge {
    /// The object's creation, in seconds since the epoch.
    pub created_s: i64,
    pub uid: Box<str>,
}

impl NodeView {
    /// A node that is ready, in no zone.
    pub fn new(pod_cidrs: Vec<IpNetwork>, addrs: impl Into<Addrs>) -> Self {
        Self {
            age: NodeAge::default(),
            pod_cidrs,
            addrs: addrs.into(),
            zone: None,
            announces: true,
        }
    }

    /// `None`: the node has no pod range yet, or has not said where it is.
    pub fn from_object(node: &core::Node) -> Option<Self> {
        let spec = node.spec.as_ref()?;
        let status = node.status.as_ref()?;
        let listed = spec.pod_cidrs.iter().flatten().map(String::as_str);
        let mut pod_cidrs: Vec<IpNetwork> = listed
            .chain(spec.pod_cidr.as_deref())
            .filter_map(parse_range)
            .collect();
        pod_cidrs.sort_unstable();
        pod_cidrs.dedup();
        let addresses = status.addresses.iter().flatten();
        let internal = addresses.filter(|address| address.type_ == "InternalIP");
        let addrs: Addrs = internal
            .filter_map(|address| parse_ip(&address.address))
            .collect();
        let meta = &node.metadata;
        let age = NodeAge {
            created_s: meta
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.0.as_second()),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
        };
        let labels = meta.labels.as_ref();
        let label = |name: &str| labels.and_then(|labels| labels.get(name));
        let mut conditions = status.conditions.iter().flatten();
        let ready = conditions.any(|it| it.type_ == "Ready" && it.status == "True");
        (!pod_cidrs.is_empty() && !addrs.is_empty()).then(|| Self {
            age,
            pod_cidrs,
            addrs,
            zone: label(ZONE).map(|zone| zone.as_str().into()),
            announces: ready && label(EXCLUDED).is_none(),
        })
    }
}

/// A pod that runs here, as the agent wired it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPod {
    pub addrs: Addrs,
    /// The host side of its veth pair.
    pub ifindex: u32,
    pub ifname: String,
    /// The pod side's address: what frames to the pod are addressed to.
    pub mac: [u8; 6],
    /// The host side's address: the pod's gateway.
    pub host_mac: [u8; 6],
    /// SO_NETNS_COOKIE of its network namespace.
    pub netns_cookie: u64,
    /// It lives in the node's own namespace and has no row of its own.
    pub host_network: bool,
    /// What it receives goes through the queue of its link.
    pub is_queued: bool,
}

/// A port of the node that leads to a pod (`hostPort`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Only on this address of the node; `None` is on all.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

impl HostPort {
    /// Every one that a pod asks for.
    pub fn of(pod: &core::Pod) -> Vec<Self> {
        let Some(spec) = &pod.spec else {
            return Vec::new();
        };
        // A sidecar is an init container that stays.
        let inits = spec.init_containers.iter().flatten();
        let sidecars = inits.filter(|it| it.restart_policy.as_deref() == Some("Always"));
        let ports = sidecars.chain(&spec.containers).flat_map(|it| &it.ports);
        let mut ports: Vec<Self> = ports.flatten().filter_map(Self::from_object).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether a node can give only one of the two.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let shares_address = match (self.host_ip, other.host_ip) {
            (Some(one), Some(another)) => one == another,
            _ => true,
        };
        shares_address && (self.host_port, self.protocol) == (other.host_port, other.protocol)
    }

    fn from_object(port: &core::ContainerPort) -> Option<Self> {
        let host_ip = match port.host_ip.as_deref() {
            None | Some("") => None,
            Some(text) => Some(parse_ip(text)?),
        };
        let host_port = u16::try_from(port.host_port?)
            .ok()
            .filter(|port| *port != 0);
        Some(Self {
            host_ip: host_ip.filter(|addr| !addr.is_unspecified()),
            host_port: host_port?,
            container_port: u16::try_from(port.container_port).ok()?,
            protocol: Protocol::parse(port.protocol.as_deref())?,
        })
    }
}

#[cfg(test)]
mod tests;
