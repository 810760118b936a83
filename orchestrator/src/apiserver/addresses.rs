//! Service addresses and node ports: who has which, and the next free one.
//!
//! Held in memory and rebuilt from the Services at start, so it cannot disagree with them for
//! longer than a request lasts. A claim that is not kept is given back when it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::ServerConfig;
use super::objects::Objects;
use super::reply;
use crate::api;

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
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<NodePort>,
    /// By family, where the search for the next address begins, counted from the start of the
    /// range. It goes round, so that a freed address is not given to the next Service at once.
    next_address: BTreeMap<Family, u128>,
    next_port: u16,
}

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
}

/// What one Service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    pub addresses: BTreeSet<IpAddr>,
    pub ports: BTreeSet<NodePort>,
}

impl Addresses {
    /// Counts what the stored Services have.
    pub fn load(config: &ServerConfig, objects: &Objects) -> Self {
        let addresses = Self {
            ranges: config.service_cidrs.clone(),
            ports: config.node_ports.clone(),
            own: config.own_service_address(),
            taken: Mutex::default(),
        };
        // Kept for the server's own Service also while somebody has deleted it.
        addresses.lock().addresses.insert(addresses.own());
        if let Some(services) = api::find("", "v1", "services") {
            let mut taken = addresses.lock();
            for service in objects.cache.list(services, None).1 {
                let Ok(value) = reply::parse(&service.bytes) else {
                    continue;
                };
                let holding = Holding::of(&value);
                taken.addresses.extend(holding.addresses);
                taken.ports.extend(holding.ports);
            }
        }
        addresses
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
        if !range.contains(address) || !usable(range, offset(range, address)) {
            return Err(Refusal::AddressOutside { address, range });
        }
        match self.lock().addresses.insert(address) {
            true => Ok(()),
            false => Err(Refusal::AddressTaken),
        }
    }

    /// Takes the next free address of a family. The first part of the range is left for given
    /// ones while there are others.
    pub fn next_address(&self, family: Family) -> Result<IpAddr, Refusal> {
        let range = self.range(family)?;
        let size = size(range);
        let reserved = (size / 16).clamp(16.min(size / 2), 256);
        let mut taken = self.lock();
        let next = taken.next_address.get(&family).copied();
        let start = next.unwrap_or_default().max(reserved);
        let candidates = (start..size)
            .chain(reserved..start.min(size))
            .chain(1..reserved);
        for candidate in candidates.filter(|candidate| usable(range, *candidate)) {
            let address = at(range, candidate);
            if taken.addresses.insert(address) {
                taken.next_address.insert(family, candidate + 1);
                return Ok(address);
            }
        }
        Err(Refusal::NoAddress)
    }

    /// Takes a given port.
    pub fn claim_port(&self, port: NodePort) -> Result<(), Refusal> {
        if !self.ports.contains(&port.0) {
            return Err(Refusal::PortOutside(*self.ports.start(), *self.ports.end()));
        }
        match self.lock().ports.insert(port) {
            true => Ok(()),
            false => Err(Refusal::PortTaken),
        }
    }

    /// Takes the next port that no protocol uses. The first part of the range is left for given
    /// ones while there are others (KEP-3668).
    pub fn next_port(&self, protocol: &str) -> Result<u16, Refusal> {
        let mut taken = self.lock();
        let (first, last) = (*self.ports.start(), *self.ports.end());
        let size = last - first;
        let reserved = if size < 16 {
            0
        } else {
            (size / 32).clamp(16, 128)
        };
        let start = taken.next_port.clamp(first + reserved.min(size), last);
        let candidates = (start..=last).chain(first + reserved..start);
        let candidates = candidates.chain(first..first + reserved);
        for port in candidates {
            let used = taken
                .ports
                .range((port, String::new())..)
                .next()
                .is_some_and(|p| p.0 == port);
            if !used {
                taken.ports.insert((port, protocol.to_owned()));
                taken.next_port = port.saturating_add(1);
                return Ok(port);
            }
        }
        Err(Refusal::NoPort)
    }

    /// Gives back what a Service held.
    pub fn release(&self, holding: &Holding) {
        let (mut taken, own) = (self.lock(), self.own());
        taken
            .addresses
            .retain(|address| *address == own || !holding.addresses.contains(address));
        taken.ports.retain(|port| !holding.ports.contains(port));
    }

    /// All that is taken, the server's own address too.
    #[cfg(test)]
    pub fn taken(&self) -> Holding {
        let taken = self.lock();
        Holding {
            addresses: taken.addresses.clone(),
            ports: taken.ports.clone(),
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

impl Holding {
    /// What a Service's spec says that it has.
    pub fn of(service: &Value) -> Self {
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
        }
    }

    /// What is held here and not there.
    pub fn without(&self, other: &Self) -> Self {
        Self {
            addresses: self
                .addresses
                .difference(&other.addresses)
                .copied()
                .collect(),
            ports: self.ports.difference(&other.ports).cloned().collect(),
        }
    }
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
    at(range, 1)
}

/// The network's own address and, for IPv4, the broadcast address are nobody's.
fn usable(range: IpNetwork, offset: u128) -> bool {
    offset > 0 && (range.is_ipv6() || offset + 1 < size(range))
}

fn size(range: IpNetwork) -> u128 {
    let bits = if range.is_ipv4() { 32 } else { 128 };
    1_u128
        .checked_shl(u32::from(bits - range.prefix()))
        .unwrap_or(u128::MAX)
}

fn at(range: IpNetwork, offset: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(base) => {
            // Below the size of an IPv4 range.
            Ipv4Addr::from_bits(base.to_bits() + u32::try_from(offset).unwrap_or(u32::MAX)).into()
        }
        IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() + offset).into(),
    }
}

fn offset(range: IpNetwork, address: IpAddr) -> u128 {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    bits(address).saturating_sub(bits(range.network()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn addresses(range: &str) -> Addresses {
        let range: IpNetwork = range.parse().expect("a range");
        Addresses {
            ranges: vec![range],
            ports: 30000..=30002,
            own: first_of(range),
            taken: Mutex::default(),
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
        let mut addresses = addresses("10.96.0.0/16");
        assert_eq!(
            addresses.next_address(Family::V6),
            Err(Refusal::NoFamily(Family::V6))
        );
        addresses
            .ranges
            .push("fd00:10:96::/112".parse().expect("a range"));
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
        let with = |ports| Addresses {
            ports,
            ..addresses("10.96.0.0/16")
        };
        assert_eq!(with(30000..=32767).next_port("TCP"), Ok(30086));
        let addresses = with(30000..=30017);
        let all: Vec<_> = (0..18).map(|_| addresses.next_port("TCP")).collect();
        assert_eq!(all[..3], [Ok(30016), Ok(30017), Ok(30000)]);
        assert_eq!(all[17], Ok(30015));
        assert_eq!(addresses.next_port("TCP"), Err(Refusal::NoPort));
    }

    #[test]
    fn a_service_holds_its_addresses_and_ports() {
        let service = json!({"spec": {
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
