//! What the datapath knows about the world: compact rows, cut from API objects as they arrive.
//!
//! The agent turns every watch event into one of these and drops the object: 100,000 endpoints must fit
//! a small agent. Nothing here looks anything up; what a row means for the maps is `desired`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use super::addrs::Addrs;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name of an object: the unit of recomputation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The transport of a Service port, as the wire numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
}

impl Protocol {
    /// SCTP has no datapath; a port that asks for it gets no row.
    fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP" | "") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some(_) => None,
        }
    }
}

/// A Service that has an address of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    pub addrs: Vec<IpAddr>,
    pub ports: Vec<PortView>,
    /// `internalTrafficPolicy: Local`: only endpoints of this node count.
    pub local_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// Slices say which of their ports is meant by this name, not by number.
    pub name: Box<str>,
    pub port: u16,
    pub protocol: Protocol,
}

impl ServiceView {
    /// `None`: headless, ExternalName or not yet allocated, so the datapath has nothing to translate.
    pub fn from_object(service: &core::Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let listed = spec.cluster_ips.iter().flatten().map(String::as_str);
        let mut addrs: Vec<IpAddr> = listed
            .chain(spec.cluster_ip.as_deref())
            .filter_map(|a| a.parse().ok())
            .collect();
        addrs.sort_unstable();
        addrs.dedup();
        if addrs.is_empty() {
            return None;
        }
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            Some(PortView {
                name: port.name.as_deref().unwrap_or_default().into(),
                port: u16::try_from(port.port).ok()?,
                protocol: Protocol::parse(port.protocol.as_deref())?,
            })
        });
        Some(Self {
            addrs,
            ports: ports.collect(),
            local_only: spec.internal_traffic_policy.as_deref() == Some("Local"),
        })
    }
}

/// One EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceView {
    /// The Service's name; its namespace is the slice's.
    pub service: Arc<str>,
    pub ports: Vec<PortView>,
    pub endpoints: Vec<EndpointView>,
}

/// One endpoint of a slice: an address and what its conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointView {
    pub addr: IpAddr,
    flags: u8,
}

impl EndpointView {
    const READY: u8 = 1;
    const SERVING: u8 = 2;
    const TERMINATING: u8 = 4;
    const LOCAL: u8 = 8;

    pub fn new(addr: IpAddr, ready: bool, serving: bool, terminating: bool, local: bool) -> Self {
        let bit = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = bit(ready, Self::READY)
            | bit(serving, Self::SERVING)
            | bit(terminating, Self::TERMINATING)
            | bit(local, Self::LOCAL);
        Self { addr, flags }
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
}

impl SliceView {
    /// `node` is this node's name. `None`: the slice names no Service or holds host names.
    pub fn from_object(slice: &discovery::EndpointSlice, node: &str) -> Option<Self> {
        if slice.address_type == "FQDN" {
            return None;
        }
        let service = slice
            .metadata
            .labels
            .as_ref()?
            .get(SERVICE_NAME)?
            .as_str()
            .into();
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some(PortView {
                name: port.name.as_deref().unwrap_or_default().into(),
                port: u16::try_from(port.port?).ok()?,
                protocol: Protocol::parse(port.protocol.as_deref())?,
            })
        });
        let mut endpoints: Vec<_> = slice
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint_view(endpoint, node))
            .collect();
        endpoints.shrink_to_fit();
        Some(Self {
            service,
            ports: ports.collect(),
            endpoints,
        })
    }
}

impl SliceView {
    /// Whether an endpoint that is not terminating here is so in `new`, or is not there any more.
    pub fn loses_endpoint(&self, new: Option<&SliceView>) -> bool {
        let stay: BTreeSet<IpAddr> = staying(new.into_iter()).collect();
        staying([self].into_iter()).any(|addr| !stay.contains(&addr))
    }
}

fn staying<'a>(slices: impl Iterator<Item = &'a SliceView>) -> impl Iterator<Item = IpAddr> {
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let staying = endpoints.filter(|endpoint| !endpoint.terminating());
    staying.map(|endpoint| endpoint.addr)
}

/// Kubernetes: consumers read the first address only; an absent `ready` is ready, an absent `serving`
/// follows `ready`, an absent `terminating` is not.
fn endpoint_view(endpoint: &discovery::Endpoint, node: &str) -> Option<EndpointView> {
    let addr = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    let local = endpoint.node_name.as_deref() == Some(node);
    Some(EndpointView::new(addr, ready, serving, terminating, local))
}

/// A node: where packets for its pods go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    pub pod_cidrs: Vec<IpNetwork>,
    /// Its `InternalIP`s; the underlay's family is where it is tunnelled to.
    pub addrs: Addrs,
}

impl NodeView {
    /// `None`: the node has no pod range yet, or has not said where it is.
    pub fn from_object(node: &core::Node) -> Option<Self> {
        let spec = node.spec.as_ref()?;
        let listed = spec.pod_cidrs.iter().flatten().map(String::as_str);
        let mut pod_cidrs: Vec<IpNetwork> = listed
            .chain(spec.pod_cidr.as_deref())
            .filter_map(|cidr| IpNetwork::from_str(cidr).ok())
            .collect();
        pod_cidrs.sort_unstable();
        pod_cidrs.dedup();
        let addresses = node.status.as_ref()?.addresses.iter().flatten();
        let internal = addresses.filter(|address| address.type_ == "InternalIP");
        let addrs: Addrs = internal
            .filter_map(|address| address.address.parse().ok())
            .collect();
        let known = !pod_cidrs.is_empty() && !addrs.is_empty();
        known.then_some(Self { pod_cidrs, addrs })
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
}
