//! Everything the datapath was told, by unit: what a change touches, and who claims which row.
//!
//! Pure. A claim is an object's wish for a row. Two may claim the same one (an address or range handed on
//! before the old owner's deletion was heard, a host port that is a node port too, a lie); the first in
//! order has it. Between Services the kind of address decides before the name, so that no external address
//! takes a Service's own. Between nodes the older one has it, since a node chooses its name and not its age.
//! A Service comes before a node that says that it is at the Service's address. What is [`Reserved`] has no
//! claims at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use orchestrator_common::maps::services::ServiceKey;
use orchestrator_common::{Addr, Port, Prefix, Proto};

use super::Change;
use super::reserved::Reserved;
use super::table::{Unit, rebuild};
use super::view::{
    HostPort, LocalPod, NodeAge, NodeView, ObjectKey, PortView, Protocol, ServiceView, SliceView,
};

/// The whole view. Changed only by [`World::change`].
#[derive(Clone, Debug, Default)]
pub struct World {
    /// This node's name.
    own: String,
    reserved: Reserved,
    services: BTreeMap<ObjectKey, ServiceView>,
    slices: BTreeMap<ObjectKey, SliceView>,
    /// Service, and one of its slices.
    slices_of: Claims<ObjectKey, ObjectKey>,
    nodes: BTreeMap<String, NodeView>,
    pods: BTreeMap<String, LocalPod>,
    host_ports: BTreeMap<String, Vec<HostPort>>,
    service_claims: Claims<ServiceKey, Claimant>,
    /// Addresses that some node must answer for, and for which Service.
    announced_claims: Claims<Addr, ObjectKey>,
    /// Those, and the external ones, which are outside's affair to route to a node.
    routed_claims: Claims<Addr, ObjectKey>,
    /// Raised when `routed` may have changed.
    routed_version: u64,
    node_claims: Claims<Addr, NodeClaim>,
    /// Nodes by their underlay address.
    vtep_claims: Claims<Addr, NodeClaim>,
    endpoint_claims: Claims<Addr, String>,
    netns_claims: Claims<u64, String>,
}

/// Pairs of a row's key and who wants it, in order.
type Claims<K, C> = BTreeSet<(K, C)>;

/// Who wants a Service row, in the order of precedence: Services come before pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claimant {
    Port {
        via: Via,
        service: ObjectKey,
        index: u16,
    },
    HostPort {
        pod: Arc<str>,
        index: u16,
    },
}

/// A node that wants a range or an address, in the order of precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NodeClaim {
    age: NodeAge,
    name: String,
}

/// By which of its addresses a Service is asked, in the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
}

/// A Service row's owner.
#[derive(Clone, Debug)]
pub enum RowOwner<'a> {
    Port(ServicePort<'a>),
    HostPort(&'a LocalPod, HostPort),
}

/// A Service and one of its ports, asked by one kind of address.
#[derive(Clone, Debug)]
pub struct ServicePort<'a> {
    pub key: &'a ObjectKey,
    pub service: &'a ServiceView,
    pub port: &'a PortView,
    pub via: Via,
    pub slices: Vec<&'a SliceView>,
}

impl World {
    /// Nothing yet, seen from the node of this name.
    pub fn new(own: &str, reserved: Reserved) -> Self {
        Self {
            own: own.to_owned(),
            reserved,
            ..Self::default()
        }
    }

    /// This node has other addresses. Returns the units whose rows may differ now.
    pub fn reserve(&mut self, reserved: Reserved) -> BTreeSet<Unit> {
        let mut dirty = BTreeSet::new();
        for addr in reserved.own_of_either(&self.reserved) {
            let from = ServiceKey {
                addr: *addr,
                ..ServiceKey::default()
            };
            let rows = self.service_claims.range((from, Claimant::least())..);
            let rows = rows.take_while(|(key, _)| key.addr == *addr);
            dirty.extend(rows.map(|(key, _)| Unit::Service(*key)));
        }
        dirty.extend(self.announced_units());
        self.routed_version += 1;
        self.reserved = reserved;
        dirty
    }

    /// Takes a change in. Returns the units whose rows may differ now; none when the change says
    /// nothing new.
    pub fn change(&mut self, change: Change) -> BTreeSet<Unit> {
        match change {
            Change::Service(key, view) => self.change_service(key, view),
            Change::Slice(key, view) => self.change_slice(key, view),
            Change::Node(name, view) => self.change_node(name, view),
            Change::Pod(uid, view) => self.change_pod(uid, view),
            Change::HostPorts(uid, ports) => self.change_host_ports(uid, ports),
        }
    }

    /// Packs what has grown one by one: a tree that was filled in order is half empty, and a slice that
    /// came before its Service has its own copy of the name.
    pub fn pack(&mut self) {
        for slice in self.slices.values_mut() {
            if let Some((key, _)) = self.services.get_key_value(&slice.service) {
                slice.service = key.clone();
            }
        }
        let slices = self.slices.iter();
        self.slices_of = slices
            .map(|(key, slice)| (slice.service.clone(), key.clone()))
            .collect();
        rebuild(&mut self.services);
        rebuild(&mut self.slices);
        rebuild(&mut self.service_claims);
    }

    /// Every unit that someone claims.
    pub fn units(&self) -> impl Iterator<Item = Unit> {
        let endpoints = self.endpoint_claims.iter();
        let endpoints = endpoints.map(|(addr, _)| Unit::Endpoint(*addr));
        let nodes = self.node_claims.iter().chain(&self.vtep_claims);
        let nodes = nodes.map(|(range, _)| Unit::Node(*range));
        let services = self.service_claims.iter();
        let services = services.map(|(key, _)| Unit::Service(*key));
        let netns = self.netns_claims.iter();
        let netns = netns.map(|(cookie, _)| Unit::Netns(*cookie));
        let announced = self.announced_units();
        endpoints
            .chain(nodes)
            .chain(services)
            .chain(announced)
            .chain(netns)
    }

    pub fn service_row(&self, key: &ServiceKey) -> Option<RowOwner<'_>> {
        let mut claims = claimants(&self.service_claims, *key);
        match claims.find(|claimant| self.permits(key, claimant))? {
            Claimant::Port {
                via,
                service,
                index,
            } => {
                let (name, view) = self.services.get_key_value(service)?;
                Some(RowOwner::Port(ServicePort {
                    key: name,
                    service: view,
                    port: view.ports.get(usize::from(*index))?,
                    via: *via,
                    slices: self.slices_of(service).collect(),
                }))
            }
            Claimant::HostPort { pod, index } => {
                let port = self.host_ports.get(&**pod)?.get(usize::from(*index))?;
                Some(RowOwner::HostPort(self.pods.get(&**pod)?, *port))
            }
        }
    }

    pub fn slices_of<'a>(
        &'a self,
        service: &'a ObjectKey,
    ) -> impl Iterator<Item = &'a SliceView> + Clone {
        let slices = claimants(&self.slices_of, service.clone());
        slices.filter_map(|key| self.slices.get(key))
    }

    pub fn services(&self) -> impl Iterator<Item = (&ObjectKey, &ServiceView)> {
        self.services.iter()
    }

    pub fn service(&self, key: &ObjectKey) -> Option<&ServiceView> {
        self.services.get(key)
    }

    /// The node that has a range of pods.
    pub fn node(&self, range: &Addr) -> Option<(&str, &NodeView)> {
        self.named_node(&first(&self.node_claims, *range)?.name)
    }

    /// The node that is at an address of the underlay, which is no Service's.
    pub fn node_at(&self, addr: &Addr) -> Option<(&str, &NodeView)> {
        if self.outside(&self.routed_claims, addr).is_some() {
            return None;
        }
        self.named_node(&first(&self.vtep_claims, *addr)?.name)
    }

    /// The name of the node that is at an address, or whose pods are.
    pub fn holder(&self, addr: IpAddr) -> Option<&str> {
        let addr = addr.into();
        let of_share = || self.node(&self.reserved.share(&addr)?);
        self.node_at(&addr).or_else(of_share).map(|(name, _)| name)
    }

    /// What a node claims and another one has, with that one's name.
    pub fn lost_claims(&self, name: &str) -> impl Iterator<Item = (Addr, &str)> {
        let node = self.nodes.get(name);
        let ranges = ranges(node).into_iter();
        let ranges = ranges.filter_map(|range| Some((range, first(&self.node_claims, range)?)));
        let vteps = vteps(node).into_iter();
        let vteps = vteps.filter_map(|addr| Some((addr, first(&self.vtep_claims, addr)?)));
        let all = ranges
            .chain(vteps)
            .map(|(addr, claim)| (addr, &*claim.name));
        all.filter(move |(_, owner)| *owner != name)
    }

    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeView)> + Clone {
        self.nodes.iter().map(|(name, node)| (name.as_str(), node))
    }

    pub fn own_name(&self) -> &str {
        &self.own
    }

    /// The zone of this node, if it is in one.
    pub fn own_zone(&self) -> Option<&str> {
        self.nodes.get(&self.own)?.zone.as_deref()
    }

    /// The Service for which an address is announced.
    pub fn announced(&self, addr: &Addr) -> Option<(&ObjectKey, &ServiceView)> {
        let claims = &self.announced_claims;
        self.services.get_key_value(self.outside(claims, addr)?)
    }

    /// Load balancers' and external addresses, without those that a node says are its own: were it true,
    /// packets of the tunnel to that node would be led into it once more. What a lie takes is little: this
    /// node's own datagrams to such an address go out to the node that answers for it.
    pub fn routed(&self) -> BTreeSet<IpAddr> {
        let addrs = self.routed_claims.iter().map(|(addr, _)| addr);
        let is_node = |addr: &Addr| first(&self.vtep_claims, *addr).is_some();
        let outside = addrs.filter(|addr| !self.reserved.is_inside(addr) && !is_node(addr));
        outside.map(|addr| (*addr).into()).collect()
    }

    /// Another number whenever [`World::routed`] may be another set.
    pub fn routed_version(&self) -> u64 {
        self.routed_version
    }

    pub fn endpoint(&self, addr: &Addr) -> Option<&LocalPod> {
        self.pods.get(first(&self.endpoint_claims, *addr)?)
    }

    pub fn netns(&self, cookie: u64) -> Option<&LocalPod> {
        self.pods.get(first(&self.netns_claims, cookie)?)
    }

    /// The pods that have a link of their own.
    pub fn pods(&self) -> impl Iterator<Item = &LocalPod> {
        self.pods.values().filter(|pod| !pod.host_network)
    }

    pub fn pod(&self, uid: &str) -> Option<&LocalPod> {
        self.pods.get(uid)
    }

    pub fn slice(&self, key: &ObjectKey) -> Option<&SliceView> {
        self.slices.get(key)
    }

    fn named_node(&self, name: &str) -> Option<(&str, &NodeView)> {
        let (name, node) = self.nodes.get_key_value(name)?;
        Some((name, node))
    }

    fn change_service(&mut self, key: ObjectKey, view: Option<ServiceView>) -> BTreeSet<Unit> {
        let new = service_rows(&key, view.as_ref());
        let announced = announced_addrs(view.as_ref());
        let old_view = replace(&mut self.services, key.clone(), view.clone());
        if old_view == view {
            return BTreeSet::new();
        }
        let old = service_rows(&key, old_view.as_ref());
        let rows = reclaim(&mut self.service_claims, old, new);
        let mut dirty: BTreeSet<Unit> = rows.map(Unit::Service).collect();
        let claim = |addrs: Vec<Addr>| addrs.into_iter().map(|addr| (addr, key.clone())).collect();
        let old = claim(announced_addrs(old_view.as_ref()));
        let addrs = reclaim(&mut self.announced_claims, old, claim(announced));
        dirty.extend(addrs.map(Unit::Announced));
        let old = claim(routed_addrs(old_view.as_ref()));
        let new = claim(routed_addrs(view.as_ref()));
        if old != new {
            self.routed_version += 1;
            let addrs = reclaim(&mut self.routed_claims, old, new);
            let is_claimed = |addr: &Addr| first(&self.vtep_claims, *addr).is_some();
            let claimed: Vec<Addr> = addrs.filter(is_claimed).collect();
            if !claimed.is_empty() {
                // A node is at that address no more, or again, and so are endpoints on its network.
                dirty.extend(self.announced_units());
            }
            dirty.extend(claimed.into_iter().map(Unit::Node));
        }
        dirty
    }

    fn change_slice(&mut self, key: ObjectKey, view: Option<SliceView>) -> BTreeSet<Unit> {
        let old_view = replace(&mut self.slices, key.clone(), view.clone());
        if old_view == view {
            return BTreeSet::new();
        }
        let claim = |view: SliceView| (view.service, key.clone());
        let (old, new) = (old_view.map(claim), view.map(claim));
        let touched: BTreeSet<ObjectKey> = reclaim(
            &mut self.slices_of,
            old.into_iter().collect(),
            new.into_iter().collect(),
        )
        .collect();
        let mut dirty = BTreeSet::new();
        for name in &touched {
            let service = self.services.get(name);
            let rows = service_rows(name, service).into_iter();
            dirty.extend(rows.map(|(row, _)| Unit::Service(row)));
            // Who answers for its addresses depends on where its endpoints are.
            let addrs = announced_addrs(service).into_iter();
            let local = service.is_some_and(is_external_local);
            dirty.extend(addrs.filter(|_| local).map(Unit::Announced));
        }
        dirty
    }

    fn change_node(&mut self, name: String, view: Option<NodeView>) -> BTreeSet<Unit> {
        let zone = self.own_zone().map(str::to_owned);
        let view = view.map(|node| self.reserved.cut(node));
        let old = replace(&mut self.nodes, name.clone(), view.clone());
        if old == view {
            return BTreeSet::new();
        }
        let claims = |node: Option<&NodeView>, wanted: fn(Option<&NodeView>) -> Vec<Addr>| {
            let claim = node.map(|node| NodeClaim {
                age: node.age.clone(),
                name: name.clone(),
            });
            let wanted = wanted(node).into_iter();
            wanted.filter_map(|it| Some((it, claim.clone()?))).collect()
        };
        let (old, new) = (old.as_ref(), view.as_ref());
        let ranges = reclaim(
            &mut self.node_claims,
            claims(old, ranges),
            claims(new, ranges),
        );
        let vteps = reclaim(
            &mut self.vtep_claims,
            claims(old, vteps),
            claims(new, vteps),
        );
        let mut dirty: BTreeSet<Unit> = ranges.chain(vteps).map(Unit::Node).collect();
        self.routed_version += 1;
        dirty.extend(self.announced_units());
        if self.own_zone() != zone.as_deref() {
            let rows = self.service_claims.iter();
            dirty.extend(rows.map(|(row, _)| Unit::Service(*row)));
        }
        dirty
    }

    fn change_pod(&mut self, uid: String, view: Option<LocalPod>) -> BTreeSet<Unit> {
        let rows = self.host_port_rows(&uid);
        let old = replace(&mut self.pods, uid.clone(), view.clone());
        if old == view {
            return BTreeSet::new();
        }
        let new = self.host_port_rows(&uid);
        let rows = reclaim(&mut self.service_claims, rows, new);
        let mut dirty: BTreeSet<Unit> = rows.map(Unit::Service).collect();
        let own = |pod: Option<LocalPod>| pod.filter(|pod| !pod.host_network);
        let (old, new) = (own(old), own(view));
        let addrs = |pod: &Option<LocalPod>| {
            let addrs = pod.iter().flat_map(|pod| pod.addrs.iter());
            addrs.map(|addr| (addr.into(), uid.clone())).collect()
        };
        let cookie = |pod: &Option<LocalPod>| {
            let cookies = pod.iter().map(|pod| pod.netns_cookie);
            cookies.map(|cookie| (cookie, uid.clone())).collect()
        };
        let endpoints = reclaim(&mut self.endpoint_claims, addrs(&old), addrs(&new));
        dirty.extend(endpoints.map(Unit::Endpoint));
        let netns = reclaim(&mut self.netns_claims, cookie(&old), cookie(&new));
        dirty.extend(netns.map(Unit::Netns));
        dirty
    }

    fn change_host_ports(&mut self, uid: String, ports: Vec<HostPort>) -> BTreeSet<Unit> {
        let old = self.host_port_rows(&uid);
        let ports = (!ports.is_empty()).then_some(ports);
        let before = replace(&mut self.host_ports, uid.clone(), ports.clone());
        if before == ports {
            return BTreeSet::new();
        }
        let new = self.host_port_rows(&uid);
        let rows = reclaim(&mut self.service_claims, old, new);
        rows.map(Unit::Service).collect()
    }

    /// The rows of a pod's host ports.
    fn host_port_rows(&self, uid: &str) -> Vec<(ServiceKey, Claimant)> {
        let mut rows = Vec::new();
        let pod = self.pods.get(uid).filter(|pod| !pod.host_network);
        let (Some(pod), Some(ports)) = (pod, self.host_ports.get(uid)) else {
            return rows;
        };
        for (index, port) in (0..).zip(ports) {
            let proto = proto(port.protocol);
            for own in pod.addrs.iter() {
                let addr = match port.host_ip {
                    None => Addr::from(own).any_of_family(),
                    Some(addr) if addr.is_ipv4() == own.is_ipv4() => addr.into(),
                    Some(_) => continue,
                };
                for key_of in [ServiceKey::new, ServiceKey::outside] {
                    let claimant = Claimant::HostPort {
                        pod: uid.into(),
                        index,
                    };
                    rows.push((key_of(addr, Port::new(port.host_port), proto), claimant));
                }
            }
        }
        rows
    }

    /// The Service that has an address outside the cluster.
    fn outside<'a>(
        &self,
        claims: &'a Claims<Addr, ObjectKey>,
        addr: &Addr,
    ) -> Option<&'a ObjectKey> {
        first(claims, *addr).filter(|_| !self.reserved.is_inside(addr))
    }

    /// A Service's own addresses are the API server's to give. Those outside are taken from what is
    /// outside; a pod's host port is on this node, and one on loopback for the node's own sockets alone.
    fn permits(&self, key: &ServiceKey, claimant: &Claimant) -> bool {
        match claimant {
            Claimant::Port {
                via: Via::ClusterIp | Via::NodePort,
                ..
            } => true,
            Claimant::Port { .. } => !self.reserved.is_inside(&key.addr),
            Claimant::HostPort { .. } => {
                let is_loopback = key.addr.is_own() && key.scope == ServiceKey::INSIDE;
                let is_any = key.addr == key.addr.any_of_family();
                is_any || is_loopback || self.reserved.is_own(&key.addr)
            }
        }
    }

    fn announced_units(&self) -> impl Iterator<Item = Unit> {
        let claims = self.announced_claims.iter();
        claims.map(|(addr, _)| Unit::Announced(*addr))
    }
}

/// The key of a node's range in `nodes_v1`.
pub fn range_key(range: &IpNetwork) -> Addr {
    Prefix::new(range.ip(), range.prefix()).addr
}

fn ranges(node: Option<&NodeView>) -> Vec<Addr> {
    let ranges = node.iter().flat_map(|node| &node.pod_cidrs);
    ranges.map(range_key).collect()
}

fn vteps(node: Option<&NodeView>) -> Vec<Addr> {
    let addrs = node.iter().flat_map(|node| node.addrs.iter());
    addrs.map(Addr::from).collect()
}

fn announced_addrs(service: Option<&ServiceView>) -> Vec<Addr> {
    let Some(service) = service else {
        return Vec::new();
    };
    let external = service.external.iter();
    let addrs = external.flat_map(|it| &it.load_balancer_ips);
    let own = addrs.filter(|addr| service.has_family_of(**addr));
    own.map(|addr| (*addr).into()).collect()
}

fn routed_addrs(service: Option<&ServiceView>) -> Vec<Addr> {
    let mut addrs = announced_addrs(service);
    let external = service.and_then(|service| Some((service, service.external.as_ref()?)));
    if let Some((service, external)) = external {
        let own = external.external_ips.iter();
        let own = own.filter(|addr| service.has_family_of(**addr));
        addrs.extend(own.map(|addr| Addr::from(*addr)));
    }
    addrs
}

fn is_external_local(service: &ServiceView) -> bool {
    service.external.as_ref().is_some_and(|it| it.local)
}

/// The rows that a Service asks for.
fn service_rows(key: &ObjectKey, service: Option<&ServiceView>) -> Vec<(ServiceKey, Claimant)> {
    let mut rows = Vec::new();
    let Some(service) = service else {
        return rows;
    };
    for (index, port) in (0..).zip(&service.ports) {
        let proto = proto(port.protocol);
        let mut claim = |key_of: fn(Addr, Port, Proto) -> ServiceKey, addr: Addr, port, via| {
            let claimant = Claimant::Port {
                via,
                service: key.clone(),
                index,
            };
            rows.push((key_of(addr, Port::new(port), proto), claimant));
        };
        let mut both = |addr: Addr, port, via| {
            claim(ServiceKey::new, addr, port, via);
            if via != Via::ClusterIp {
                claim(ServiceKey::outside, addr, port, via);
            }
        };
        for addr in service.cluster_ips.iter() {
            both(addr.into(), port.port, Via::ClusterIp);
            if port.node_port != 0 {
                let any = Addr::from(addr).any_of_family();
                both(any, port.node_port, Via::NodePort);
            }
        }
        let Some(external) = &service.external else {
            continue;
        };
        let own = |addr: &&IpAddr| service.has_family_of(**addr);
        for addr in external.load_balancer_ips.iter().filter(own) {
            both((*addr).into(), port.port, Via::LoadBalancer);
        }
        for addr in external.external_ips.iter().filter(own) {
            both((*addr).into(), port.port, Via::ExternalIp);
        }
    }
    rows
}

fn proto(protocol: Protocol) -> Proto {
    match protocol {
        Protocol::Tcp => Proto::TCP,
        Protocol::Udp => Proto::UDP,
        Protocol::Sctp => Proto::SCTP,
    }
}

fn replace<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

/// Moves an object's claims from the old rows to the new ones; returns all of them.
fn reclaim<K: Ord + Clone, C: Ord + Clone>(
    claims: &mut Claims<K, C>,
    old: Vec<(K, C)>,
    new: Vec<(K, C)>,
) -> impl Iterator<Item = K> + use<K, C> {
    for claim in &old {
        claims.remove(claim);
    }
    claims.extend(new.iter().cloned());
    old.into_iter().chain(new).map(|(key, _)| key)
}

/// Who has the row.
fn first<K: Ord + Clone, C: Least + Ord>(claims: &Claims<K, C>, key: K) -> Option<&C> {
    claimants(claims, key).next()
}

/// Everybody who claims the row, the first first.
fn claimants<K: Ord + Clone, C: Least + Ord>(
    claims: &Claims<K, C>,
    key: K,
) -> impl Iterator<Item = &C> + Clone {
    let from = (key.clone(), C::least());
    let claims = claims.range(from..);
    claims
        .take_while(move |(claimed, _)| *claimed == key)
        .map(|(_, claimant)| claimant)
}

/// A value that no other is before.
trait Least {
    fn least() -> Self;
}

impl Least for String {
    fn least() -> Self {
        Self::new()
    }
}

impl Least for NodeClaim {
    fn least() -> Self {
        let age = NodeAge {
            created_s: i64::MIN,
            uid: Box::default(),
        };
        Self {
            age,
            name: String::new(),
        }
    }
}

impl Least for ObjectKey {
    fn least() -> Self {
        ObjectKey::least()
    }
}

impl Least for Claimant {
    fn least() -> Self {
        Self::Port {
            via: Via::ClusterIp,
            service: ObjectKey::least(),
            index: 0,
        }
    }
}

#[cfg(test)]
mod tests;
