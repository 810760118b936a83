//! Service addresses and node ports, nodes' pod ranges and addresses, and the addresses outside at which
//! Services answer: who has which, and the next free one.
//!
//! ```text
//!  watch cache ─▶ note: what each stored object has ─┐
//!                                                    ├─▶ held, by how many ─▶ is it free?
//!  claims of writes that are under way ──────────────┘
//! ```
//!
//! What is stored is noted from the cache, whichever server wrote it, before the write is answered. A claim
//! counts as long as its write is under way. Where several servers share the store, a commit that takes
//! something also writes one key, `CLAIMS`, at the revision at which this server knew it: two servers
//! cannot give away the same thing, since the second commit fails and claims anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::ServerConfig;
use super::objects::Objects;
use api::address::{number, numbered, numbers, parse_ip, parse_range};
use api::allocator::Allocator;
use store::{Revision, StoreError};

/// A node port with its protocol: TCP and UDP may share a number.
pub type NodePort = (u16, String);

/// An address family, in the order in which Kubernetes names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

/// What Services have taken.
pub struct Addresses {
    /// At most one a family; the first is what a Service gets that asks for none.
    ranges: Vec<IpNetwork>,
    ports: RangeInclusive<u16>,
    /// Kept for Service default/kubernetes.
    own: IpAddr,
    /// Pods' ranges, each with the prefix length of one node's share.
    pods: Vec<(IpNetwork, u8)>,
    /// Where the cluster reaches this server.
    /// Every address that clients reach this server at.
    server: BTreeSet<IpAddr>,
    /// Given to Services of type LoadBalancer, so no node's.
    pool: Vec<RangeInclusive<IpAddr>>,
    taken: Mutex<Taken>,
    /// Held from a claim to its commit where others share the store.
    turn: tokio::sync::Mutex<()>,
}

/// The key that every commit writes which takes something, where several servers share the store.
pub const CLAIMS: &str = "/registry/claims";
/// What the keys of those begin with that have something.
const HOLDERS: [&str; 2] = ["/registry/core/services/", "/registry/core/nodes/"];

struct Taken {
    /// Services' addresses of each family, as numbers.
    numbers: BTreeMap<Family, Allocator>,
    /// The numbers of node ports, for any protocol.
    port_numbers: Allocator,
    addresses: Counts<IpAddr>,
    ports: Counts<NodePort>,
    pod_ranges: Counts<IpNetwork>,
    node_addresses: Counts<IpAddr>,
    /// External and load balancer addresses, which Services may share.
    outside: Counts<IpAddr>,
    /// What each stored object has, by its key.
    stored: BTreeMap<Box<str>, Holding>,
    /// The revision of `CLAIMS`.
    claims: Revision,
}

/// How many have each of these: stored objects, and writes that are under way.
#[derive(Debug)]
struct Counts<T>(BTreeMap<T, usize>);

/// Why an address or a port was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("provided IP is already allocated")]
    AddressTaken,
    #[error(
        "the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
    )]
    AddressOutside { address: IpAddr, range: IpNetwork },
    #[error("{} is not configured on this cluster", .0.name())]
    NoFamily(Family),
    #[error("range is full")]
    NoAddress,
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("provided port is not in the valid range. The range of valid ports is {0}-{1}")]
    PortOutside(u16, u16),
    #[error("range is full")]
    NoPort,
    #[error("must be a share of the cluster's pod ranges: {0}")]
    NotAShare(String),
    #[error("is the pod range of another node")]
    ShareTaken,
    #[error("is in the cluster's range {0}")]
    InRange(IpNetwork),
    #[error("is the API server's address")]
    Server,
    #[error("is in the pool of load balancer addresses, {}-{}", .0.start(), .0.end())]
    InPool(RangeInclusive<IpAddr>),
    #[error("is an address of another node")]
    NodeAddressTaken,
    #[error(
        "is an address of a node, whose ports are its own: Services answer there at their node ports \
         (type NodePort), or give this one an address that no machine has"
    )]
    NodeAddress,
    #[error("is an external or load balancer address of a Service")]
    Outside,
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the pod network.
    Pods,
    Services,
    /// This server's own.
    Server,
    /// A node's, outside the pod network.
    Node,
    /// None of the cluster's.
    Outside,
}

/// What one Service or node holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    pub addresses: BTreeSet<IpAddr>,
    pub ports: BTreeSet<NodePort>,
    /// A Service's `externalIPs` and those of its load balancer.
    pub outside: BTreeSet<IpAddr>,
    pub pod_ranges: BTreeSet<IpNetwork>,
    /// A node's `InternalIP`s.
    pub node_addresses: BTreeSet<IpAddr>,
}

impl Addresses {
    /// Counts what the stored Services and nodes have, now and from now on.
    pub async fn load(config: &ServerConfig, objects: &Objects) -> Result<Arc<Self>, StoreError> {
        let bits = config.node_mask_bits.iter().copied();
        let addresses = Arc::new(Self {
            ranges: config.service_cidrs.clone(),
            ports: config.node_ports.clone(),
            own: config.own_service_address(),
            pods: config.pod_cidrs.iter().copied().zip(bits).collect(),
            server: server_addresses(config),
            pool: config.load_balancer_pool.clone(),
            taken: Mutex::new(Taken::none(&config.service_cidrs, &config.node_ports)),
            turn: tokio::sync::Mutex::default(),
        });
        // Kept for the server's own Service also while somebody has deleted it.
        let own = Holding {
            addresses: [addresses.own()].into(),
            ..Holding::default()
        };
        addresses.lock().hold(&own);
        if let Some(claims) = objects.store.get(CLAIMS).await? {
            addresses.note(CLAIMS, None, claims.modified);
        }
        objects.cache.observe(addresses.clone());
        // Changes wait for the lock, so that none is overwritten by what was read before it.
        let mut taken = addresses.lock();
        for resource in ["services", "nodes"]
            .into_iter()
            .filter_map(|it| api::find("", "v1", it))
        {
            for object in objects.cache.list(resource, None).1 {
                taken.note(&object.key, Some(&object.bytes()));
            }
        }
        drop(taken);
        Ok(addresses)
    }

    /// Is told of every change of the store, in order.
    pub fn note(&self, key: &str, value: Option<&[u8]>, revision: Revision) {
        if key == CLAIMS {
            let mut taken = self.lock();
            taken.claims = taken.claims.max(revision);
        } else if HOLDERS.iter().any(|prefix| key.starts_with(prefix)) {
            self.lock().note(key, value);
        }
    }

    /// The revision up to which all claims of all servers are known.
    pub fn claims(&self) -> Revision {
        self.lock().claims
    }

    /// Keeps other claims of this server waiting.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The one of Service default/kubernetes.
    pub fn own(&self) -> IpAddr {
        self.own
    }

    /// The families that Services can have here, the primary one first.
    pub fn families(&self) -> Vec<Family> {
        self.ranges
            .iter()
            .map(|range| Family::of(range.network()))
            .collect()
    }

    /// Takes a given address.
    pub fn claim_address(&self, address: IpAddr) -> Result<(), Refusal> {
        let range = self.range(Family::of(address))?;
        let mut taken = self.lock();
        let numbers = taken.numbers.get(&Family::of(address));
        if !numbers.is_some_and(|numbers| numbers.contains(number(address))) {
            return Err(Refusal::AddressOutside { address, range });
        }
        if taken.addresses.has(&address) {
            return Err(Refusal::AddressTaken);
        }
        taken.hold_address(address);
        Ok(())
    }

    /// Takes the next free address of a family.
    pub fn next_address(&self, family: Family) -> Result<IpAddr, Refusal> {
        self.range(family)?;
        let mut taken = self.lock();
        let next = taken
            .numbers
            .get_mut(&family)
            .and_then(Allocator::take_next);
        let next = next.ok_or(Refusal::NoAddress)?;
        let next = numbered(family == Family::V6, next);
        taken.addresses.add(&next);
        Ok(next)
    }

    /// Takes a given port.
    pub fn claim_port(&self, port: NodePort) -> Result<(), Refusal> {
        if !self.ports.contains(&port.0) {
            return Err(Refusal::PortOutside(*self.ports.start(), *self.ports.end()));
        }
        let mut taken = self.lock();
        if taken.ports.has(&port) {
            return Err(Refusal::PortTaken);
        }
        taken.hold_port(&port);
        Ok(())
    }

    /// Takes the next port that no protocol uses.
    pub fn next_port(&self, protocol: &str) -> Result<u16, Refusal> {
        let mut taken = self.lock();
        let next = taken.port_numbers.take_next();
        let port = next.and_then(|number| u16::try_from(number).ok());
        let port = port.ok_or(Refusal::NoPort)?;
        taken.ports.add(&(port, protocol.to_owned()));
        Ok(port)
    }

    /// Takes a node's range of pods: a share of the cluster's that no other node has.
    pub fn claim_pod_range(&self, range: IpNetwork) -> Result<(), Refusal> {
        let is_share = |(pods, bits): &(IpNetwork, u8)| {
            pods.is_ipv4() == range.is_ipv4()
                && pods.contains(range.ip())
                && range.prefix() == *bits
                && range.ip() == range.network()
        };
        if !self.pods.iter().any(is_share) {
            let shares = self.pods.iter();
            let shares = shares.map(|(pods, bits)| format!("a /{bits} of {pods}"));
            return Err(Refusal::NotAShare(shares.collect::<Vec<_>>().join(" or ")));
        }
        let overlaps =
            |other: &IpNetwork| other.contains(range.network()) || range.contains(other.network());
        let mut taken = self.lock();
        if taken.pod_ranges.iter().any(overlaps) {
            return Err(Refusal::ShareTaken);
        }
        taken.pod_ranges.add(&range);
        Ok(())
    }

    /// Takes an address of the network between nodes for one of them.
    pub fn claim_node_address(&self, address: IpAddr) -> Result<(), Refusal> {
        self.check_foreign(address)?;
        if let Some(block) = self.pool.iter().find(|block| block.contains(&address)) {
            return Err(Refusal::InPool(block.clone()));
        }
        let mut taken = self.lock();
        if taken.outside.has(&address) {
            return Err(Refusal::Outside);
        }
        if taken.node_addresses.has(&address) {
            return Err(Refusal::NodeAddressTaken);
        }
        taken.node_addresses.add(&address);
        Ok(())
    }

    /// Takes an address outside the cluster for a Service, which may share it with others.
    pub fn claim_outside(&self, address: IpAddr) -> Result<(), Refusal> {
        self.check_foreign(address)?;
        let mut taken = self.lock();
        if taken.node_addresses.has(&address) {
            return Err(Refusal::NodeAddress);
        }
        taken.outside.add(&address);
        Ok(())
    }

    /// Whose an address is.
    pub fn place_of(&self, address: IpAddr) -> Place {
        if self.pods.iter().any(|(range, _)| range.contains(address)) {
            Place::Pods
        } else if self.ranges.iter().any(|range| range.contains(address)) {
            Place::Services
        } else if self.server.contains(&address) {
            Place::Server
        } else if self.lock().node_addresses.has(&address) {
            Place::Node
        } else {
            Place::Outside
        }
    }

    /// The address is none of pods, Services or this server.
    fn check_foreign(&self, address: IpAddr) -> Result<(), Refusal> {
        let pods = self.pods.iter().map(|(range, _)| range);
        let mut ranges = pods.chain(&self.ranges);
        if let Some(range) = ranges.find(|range| range.contains(address)) {
            return Err(Refusal::InRange(*range));
        }
        if self.server.contains(&address) {
            return Err(Refusal::Server);
        }
        Ok(())
    }

    /// The write that claimed it is over.
    pub fn release(&self, claimed: &Holding) {
        self.lock().let_go(claimed);
    }

    /// All that is taken, the server's own address too.
    #[cfg(test)]
    pub fn taken(&self) -> Holding {
        let taken = self.lock();
        let addresses = taken.numbers.iter().flat_map(|(family, numbers)| {
            let v6 = *family == Family::V6;
            numbers.taken().map(move |number| numbered(v6, number))
        });
        Holding {
            addresses: addresses.collect(),
            ports: taken.ports.iter().cloned().collect(),
            outside: taken.outside.iter().copied().collect(),
            pod_ranges: taken.pod_ranges.iter().copied().collect(),
            node_addresses: taken.node_addresses.iter().copied().collect(),
        }
    }

    fn range(&self, family: Family) -> Result<IpNetwork, Refusal> {
        let mut ranges = self.ranges.iter();
        let range = ranges.find(|range| Family::of(range.network()) == family);
        range.copied().ok_or(Refusal::NoFamily(family))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Every change under the lock is one insert or retain: a panic leaves nothing half done.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The first part of each range is left for addresses and ports that Services ask for, while there are
    /// others (KEP-3070, KEP-3668).
    fn none(ranges: &[IpNetwork], ports: &RangeInclusive<u16>) -> Self {
        let numbers = |range: &IpNetwork| (Family::of(range.network()), of_services(*range));
        let (first, last) = (u128::from(*ports.start()), u128::from(*ports.end()));
        let spared = match last.saturating_sub(first) {
            0..16 => 0,
            size => (size / 32).clamp(16, 128),
        };
        Self {
            numbers: ranges.iter().map(numbers).collect(),
            port_numbers: Allocator::new(first..=last).sparing_below(first + spared),
            addresses: Counts::none(),
            ports: Counts::none(),
            pod_ranges: Counts::none(),
            node_addresses: Counts::none(),
            outside: Counts::none(),
            stored: BTreeMap::new(),
            claims: 0,
        }
    }

    /// What a stored object has from now on.
    fn note(&mut self, key: &str, value: Option<&[u8]>) {
        // One that nobody can read has nothing.
        let object = value.and_then(|value| serde_json::from_slice::<Value>(value).ok());
        let has = object
            .map(|object| Holding::of(&object))
            .unwrap_or_default();
        self.hold(&has);
        let had = match value {
            Some(_) => self.stored.insert(key.into(), has),
            None => self.stored.remove(key),
        };
        self.let_go(&had.unwrap_or_default());
    }

    fn hold_address(&mut self, address: IpAddr) {
        self.addresses.add(&address);
        if let Some(numbers) = self.numbers.get_mut(&Family::of(address)) {
            numbers.take(number(address));
        }
    }

    fn hold_port(&mut self, port: &NodePort) {
        self.ports.add(port);
        self.port_numbers.take(port.0.into());
    }

    fn hold(&mut self, holding: &Holding) {
        for address in &holding.addresses {
            self.hold_address(*address);
        }
        for port in &holding.ports {
            self.hold_port(port);
        }
        holding
            .pod_ranges
            .iter()
            .for_each(|it| self.pod_ranges.add(it));
        let addresses = holding.node_addresses.iter();
        addresses.for_each(|it| self.node_addresses.add(it));
        holding.outside.iter().for_each(|it| self.outside.add(it));
    }

    fn let_go(&mut self, holding: &Holding) {
        for address in &holding.addresses {
            self.addresses.remove(address);
            let numbers = self.numbers.get_mut(&Family::of(*address));
            if let Some(numbers) = numbers.filter(|_| !self.addresses.has(address)) {
                numbers.free(number(*address));
            }
        }
        for port in &holding.ports {
            self.ports.remove(port);
            let mut others = self.ports.0.range((port.0, String::new())..);
            if others.next().is_none_or(|(other, _)| other.0 != port.0) {
                self.port_numbers.free(port.0.into());
            }
        }
        let ranges = holding.pod_ranges.iter();
        ranges.for_each(|it| self.pod_ranges.remove(it));
        let addresses = holding.node_addresses.iter();
        addresses.for_each(|it| self.node_addresses.remove(it));
        holding
            .outside
            .iter()
            .for_each(|it| self.outside.remove(it));
    }
}

impl<T: Ord + Clone> Counts<T> {
    fn none() -> Self {
        Self(BTreeMap::new())
    }

    fn has(&self, item: &T) -> bool {
        self.0.contains_key(item)
    }

    fn add(&mut self, item: &T) {
        *self.0.entry(item.clone()).or_default() += 1;
    }

    fn remove(&mut self, item: &T) {
        match self.0.get_mut(item) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.0.remove(item)),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.keys()
    }
}

impl Holding {
    /// What a Service or a node says that it has; nothing for another kind.
    pub fn of(object: &Value) -> Self {
        match object["kind"].as_str() {
            Some("Service") => Self::of_service(object),
            Some("Node") => Self::of_node(object),
            _ => Self::default(),
        }
    }

    fn of_service(service: &Value) -> Self {
        let spec = &service["spec"];
        let list = spec["clusterIPs"].as_array().into_iter().flatten();
        let texts = list
            .chain(std::iter::once(&spec["clusterIP"]))
            .filter_map(Value::as_str);
        let addresses = texts.filter_map(|text| text.parse().ok()).collect();
        let ports = spec["ports"].as_array().into_iter().flatten();
        let ports = ports.filter_map(|port| {
            let number = u16::try_from(port["nodePort"].as_u64()?).ok()?;
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            (number != 0).then(|| (number, protocol.to_owned()))
        });
        let health = u16::try_from(spec["healthCheckNodePort"].as_u64().unwrap_or_default());
        let health = health
            .ok()
            .filter(|port| *port != 0)
            .map(|port| (port, "TCP".to_owned()));
        Self {
            addresses,
            ports: ports.chain(health).collect(),
            outside: outside(service).map(|(_, address)| address).collect(),
            ..Self::default()
        }
    }

    fn of_node(node: &Value) -> Self {
        let ranges = pod_ranges(node).filter_map(|(_, range)| range);
        Self {
            pod_ranges: ranges.collect(),
            node_addresses: internal_addresses(node).map(|(_, it)| it).collect(),
            ..Self::default()
        }
    }
}

/// The addresses outside the cluster at which a Service answers, with their fields.
pub fn outside(service: &Value) -> impl Iterator<Item = (String, IpAddr)> {
    let external = service["spec"]["externalIPs"].as_array();
    let external = external.into_iter().flatten().enumerate();
    let external = external.map(|(index, ip)| (format!("spec.externalIPs[{index}]"), ip));
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    let ingress = ingress.into_iter().flatten().enumerate();
    let ingress = ingress.map(|(index, entry)| {
        let field = format!("status.loadBalancer.ingress[{index}].ip");
        (field, &entry["ip"])
    });
    let all = external.chain(ingress);
    all.filter_map(|(field, ip)| Some((field, parse_ip(ip.as_str()?)?)))
}

/// A node's ranges of pods, with their fields; `None` is one that cannot be a range.
pub fn pod_ranges(node: &Value) -> impl Iterator<Item = (String, Option<IpNetwork>)> {
    let listed = node["spec"]["podCIDRs"].as_array();
    let listed = listed.into_iter().flatten().enumerate();
    listed.map(|(index, text)| {
        let field = format!("spec.podCIDRs[{index}]");
        (field, text.as_str().and_then(parse_range))
    })
}

/// Where other nodes reach a node, with the addresses' fields.
pub fn internal_addresses(node: &Value) -> impl Iterator<Item = (String, IpAddr)> {
    let listed = node["status"]["addresses"].as_array();
    let listed = listed.into_iter().flatten().enumerate();
    let internal = listed.filter(|(_, entry)| entry["type"] == "InternalIP");
    internal.filter_map(|(index, entry)| {
        let address = parse_ip(entry["address"].as_str()?)?;
        Some((format!("status.addresses[{index}].address"), address))
    })
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::V4, Self::V6]
            .into_iter()
            .find(|family| family.name() == name)
    }

    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// The address that Service default/kubernetes has in a range.
pub fn first_of(range: IpNetwork) -> IpAddr {
    numbered(range.is_ipv6(), numbers(range).start() + 1)
}

/// The address that Service kube-system/kube-dns has in a range; `None`: the range is too small for it.
pub fn tenth_of(range: IpNetwork) -> Option<IpAddr> {
    let numbers = numbers(range);
    let tenth = numbers.start().checked_add(10)?;
    let address = || numbered(range.is_ipv6(), tenth);
    numbers.contains(&tenth).then(address)
}

/// The addresses that Services have of a range: the network's own address and, for IPv4, the broadcast
/// address are nobody's.
fn of_services(range: IpNetwork) -> Allocator {
    let (first, last) = numbers(range).into_inner();
    let size = (last - first).saturating_add(1);
    let spared = (size / 16).clamp(16.min(size / 2), 256);
    let last = last.saturating_sub(range.is_ipv4().into());
    Allocator::new(first.saturating_add(1)..=last).sparing_below(first + spared)
}

/// Not those by which every machine knows itself.
fn server_addresses(config: &ServerConfig) -> BTreeSet<IpAddr> {
    let all = config.bound.iter().copied();
    let all = all.chain([config.advertise.ip()]);
    all.filter(|address| !address.is_loopback() && !address.is_unspecified())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn addresses(ranges: &str) -> Addresses {
        with_ports(ranges, 30000..=30002)
    }

    fn with_ports(ranges: &str, ports: RangeInclusive<u16>) -> Addresses {
        let ranges = ranges.split(',').map(|range| range.parse());
        let ranges: Vec<IpNetwork> = ranges.collect::<Result<_, _>>().expect("ranges");
        Addresses {
            own: first_of(ranges[0]),
            taken: Mutex::new(Taken::none(&ranges, &ports)),
            ranges,
            ports,
            pods: vec![("10.100.0.0/16".parse().expect("a range"), 24)],
            server: ["172.31.0.1".parse().expect("an address")].into(),
            pool: Vec::new(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    #[test]
    fn given_addresses_are_left_room_and_freed_ones_rest() {
        let addresses = addresses("10.96.0.0/16");
        let first = addresses.next_address(Family::V4).expect("free");
        assert_eq!(first.to_string(), "10.96.1.0");
        let holding = Holding {
            addresses: [first].into(),
            ..Holding::default()
        };
        addresses.release(&holding);
        assert_eq!(
            addresses
                .next_address(Family::V4)
                .expect("free")
                .to_string(),
            "10.96.1.1"
        );
    }

    #[test]
    fn a_small_range_is_used_up_before_it_is_full() {
        let addresses = addresses("10.0.0.0/29");
        for _ in 0..6 {
            addresses.next_address(Family::V4).expect("free");
        }
        assert_eq!(addresses.next_address(Family::V4), Err(Refusal::NoAddress));
    }

    #[test]
    fn each_family_has_its_own_range() {
        assert_eq!(
            addresses("10.96.0.0/16").next_address(Family::V6),
            Err(Refusal::NoFamily(Family::V6))
        );
        let addresses = addresses("10.96.0.0/16,fd00:10:96::/112");
        let v6 = addresses.next_address(Family::V6).expect("free");
        assert_eq!(v6.to_string(), "fd00:10:96::100");
        assert_eq!(addresses.claim_address(v6), Err(Refusal::AddressTaken));
        let v4 = addresses.next_address(Family::V4).expect("free");
        assert_eq!(v4.to_string(), "10.96.1.0");
    }

    #[test]
    fn a_given_address_must_be_free_and_inside() {
        let addresses = addresses("10.96.0.0/16");
        let address: IpAddr = "10.96.0.10".parse().expect("an address");
        assert_eq!(addresses.claim_address(address), Ok(()));
        assert_eq!(addresses.claim_address(address), Err(Refusal::AddressTaken));
        for outside in ["10.97.0.1", "10.96.0.0", "10.96.255.255"] {
            let refused = addresses.claim_address(outside.parse().expect("an address"));
            assert!(
                matches!(refused, Err(Refusal::AddressOutside { .. })),
                "{outside}"
            );
        }
    }

    #[test]
    fn protocols_share_a_given_port_and_never_a_chosen_one() {
        let addresses = addresses("10.96.0.0/16");
        assert_eq!(addresses.claim_port((30000, "UDP".to_owned())), Ok(()));
        assert_eq!(addresses.claim_port((30000, "TCP".to_owned())), Ok(()));
        assert_eq!(
            addresses.claim_port((30000, "TCP".to_owned())),
            Err(Refusal::PortTaken)
        );
        assert_eq!(addresses.next_port("TCP"), Ok(30001));
        assert_eq!(addresses.next_port("UDP"), Ok(30002));
        assert_eq!(addresses.next_port("TCP"), Err(Refusal::NoPort));
    }

    #[test]
    fn the_first_ports_are_left_for_given_ones_while_there_are_others() {
        let with = |ports| with_ports("10.96.0.0/16", ports);
        assert_eq!(with(30000..=32767).next_port("TCP"), Ok(30086));
        let addresses = with(30000..=30017);
        let all: Vec<_> = (0..18).map(|_| addresses.next_port("TCP")).collect();
        assert_eq!(all[..3], [Ok(30016), Ok(30017), Ok(30000)]);
        assert_eq!(all[17], Ok(30015));
        assert_eq!(addresses.next_port("TCP"), Err(Refusal::NoPort));
    }

    #[test]
    fn a_service_holds_its_addresses_and_ports() {
        let service = json!({"kind": "Service", "spec": {
            "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 81}],
        }});
        let holding = Holding::of(&service);
        assert_eq!(holding.addresses.len(), 1);
        assert_eq!(holding.ports, [(30080, "TCP".to_owned())].into());
        assert!(
            Holding::of(&json!({"spec": {"clusterIP": "None"}}))
                .addresses
                .is_empty()
        );
    }
}
