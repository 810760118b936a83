//! The addresses of a node's pods, out of its own range. Pure: rebuilt at every start from the
//! addresses that the running sandboxes carry.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};

/// Who has which address. The first address of the range is the node's, the last is no host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipam {
    range: Ipv4Network,
    by_pod: BTreeMap<String, Ipv4Addr>,
    taken: BTreeSet<Ipv4Addr>,
    /// Where the search goes on: a freed address rests as long as the range allows.
    next: u32,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    #[error("no address is left in the node's pod range {0}")]
    Full(Ipv4Network),
    #[error("the node's pod range {0} is not IPv4, which this version needs")]
    NotIpv4(IpNetwork),
}

impl Ipam {
    pub fn new(range: IpNetwork) -> Result<Ipam, IpamError> {
        let IpNetwork::V4(range) = range else {
            return Err(IpamError::NotIpv4(range));
        };
        Ok(Ipam {
            range,
            by_pod: BTreeMap::new(),
            taken: BTreeSet::new(),
            next: FIRST_POD,
        })
    }

    /// The node's own address in the range: every pod's gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// The pod's address; a pod that has one keeps it.
    pub fn allocate(&mut self, uid: &str) -> Result<IpAddr, IpamError> {
        if let Some(address) = self.by_pod.get(uid) {
            return Ok(IpAddr::V4(*address));
        }
        let end = self.range.size().saturating_sub(1);
        let candidates = (self.next..end).chain(FIRST_POD..self.next.min(end));
        for offset in candidates {
            let address = self.at(offset);
            if self.taken.insert(address) {
                self.by_pod.insert(uid.to_owned(), address);
                self.next = offset + 1;
                return Ok(IpAddr::V4(address));
            }
        }
        Err(IpamError::Full(self.range))
    }

    /// Notes that a running pod has this address. False: it is not one of this range, or another
    /// pod has it, so the pod needs a new sandbox.
    pub fn restore(&mut self, uid: &str, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else {
            return false;
        };
        let usable = self.range.contains(address) && address != self.gateway();
        if !usable || !self.taken.insert(address) {
            return false;
        }
        self.by_pod.insert(uid.to_owned(), address);
        let offset = u32::from(address) - u32::from(self.range.network());
        self.next = self.next.max(offset + 1);
        true
    }

    /// Gives the pod's address back; a pod without one is a success.
    pub fn release(&mut self, uid: &str) {
        if let Some(address) = self.by_pod.remove(uid) {
            self.taken.remove(&address);
        }
    }

    fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()) + offset)
    }
}

const FIRST_POD: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(range: &str) -> Ipam {
        Ipam::new(range.parse().expect("a range")).expect("IPv4")
    }

    #[test]
    fn the_node_has_the_first_address_and_pods_begin_at_the_second() {
        let mut ipam = ipam("10.100.3.0/24");
        assert_eq!(ipam.gateway().to_string(), "10.100.3.1");
        assert_eq!(ipam.allocate("a").expect("room").to_string(), "10.100.3.2");
        assert_eq!(ipam.allocate("a").expect("room").to_string(), "10.100.3.2");
        assert_eq!(ipam.allocate("b").expect("room").to_string(), "10.100.3.3");
    }

    #[test]
    fn a_freed_address_rests_before_it_is_given_again() {
        let mut ipam = ipam("10.100.3.0/29");
        let first = ipam.allocate("a").expect("room");
        ipam.release("a");
        assert_ne!(ipam.allocate("b").expect("room"), first);
        for uid in ["c", "d", "e", "f"] {
            ipam.allocate(uid).ok();
        }
        assert_eq!(
            ipam.allocate("g"),
            Err(IpamError::Full("10.100.3.0/29".parse().expect("ok")))
        );
        ipam.release("c");
        assert!(ipam.allocate("g").is_ok());
    }

    #[test]
    fn restored_addresses_are_not_given_twice() {
        let mut ipam = ipam("10.100.3.0/24");
        assert!(ipam.restore("a", "10.100.3.2".parse().expect("ok")));
        assert!(!ipam.restore("b", "10.100.3.2".parse().expect("ok")));
        assert!(!ipam.restore("b", "10.100.4.2".parse().expect("ok")));
        assert!(!ipam.restore("b", "10.100.3.1".parse().expect("ok")));
        assert_eq!(ipam.allocate("b").expect("room").to_string(), "10.100.3.3");
        assert_eq!(ipam.allocate("a").expect("room").to_string(), "10.100.3.2");
    }
}
