//! The addresses of a node's pods, out of its own ranges, at most one of each family. Pure: rebuilt
//! at every start from the addresses that the running sandboxes carry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use api::address::{number, numbered, numbers};
use api::allocator::Allocator;
use datapath::Addrs;

/// Who has which addresses. A range's own number is the translation address, its first address the
/// node's; the last is no host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipam {
    /// One a family.
    books: Vec<Book>,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no address is left in the node's pod range {0}")]
pub struct IpamError(pub IpNetwork);

impl Ipam {
    /// Of one range, or of one of each family.
    pub fn new(ranges: impl IntoIterator<Item = IpNetwork>) -> Ipam {
        Ipam {
            books: ranges.into_iter().map(Book::new).collect(),
        }
    }

    /// The pod's addresses, one of each range; a pod that has some keeps them.
    pub fn allocate(&mut self, uid: &str) -> Result<Addrs, IpamError> {
        let new = self.of(uid).is_empty();
        let taken: Result<Addrs, IpamError> = self
            .books
            .iter_mut()
            .map(|book| book.allocate(uid))
            .collect();
        if taken.is_err() && new {
            self.release(uid);
        }
        taken
    }

    /// Notes that a running pod has these addresses. False: they are not all of this node's ranges,
    /// or another pod has one of them, so the pod needs a new sandbox.
    pub fn restore(&mut self, uid: &str, addrs: Addrs) -> bool {
        let known = |addr| self.books.iter().any(|book| book.may_have(uid, addr));
        let usable = !addrs.is_empty() && addrs.iter().all(known);
        for addr in addrs.iter().filter(|_| usable) {
            self.books
                .iter_mut()
                .for_each(|book| book.restore(uid, addr));
        }
        usable
    }

    /// Gives the pod's addresses back; a pod without any is a success.
    pub fn release(&mut self, uid: &str) {
        for book in &mut self.books {
            book.release(uid);
        }
    }

    fn of(&self, uid: &str) -> Addrs {
        let known = self.books.iter().filter_map(|book| {
            let number = book.by_pod.get(uid)?;
            Some(book.at(*number))
        });
        known.collect()
    }
}

/// One range.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Book {
    range: IpNetwork,
    by_pod: BTreeMap<String, u128>,
    numbers: Allocator,
}

/// Behind the range's own number and the node's.
const FIRST_POD: u128 = 2;

impl Book {
    fn new(range: IpNetwork) -> Book {
        let (first, last) = numbers(range).into_inner();
        Book {
            range,
            by_pod: BTreeMap::new(),
            numbers: Allocator::new(first.saturating_add(FIRST_POD)..=last.saturating_sub(1)),
        }
    }

    fn allocate(&mut self, uid: &str) -> Result<IpAddr, IpamError> {
        let had = self.by_pod.get(uid).copied();
        let number = had.or_else(|| self.numbers.take_next());
        let number = number.ok_or(IpamError(self.range))?;
        self.by_pod.insert(uid.to_owned(), number);
        Ok(self.at(number))
    }

    /// Whether a pod may have the address: it is one of this range and not another pod's.
    fn may_have(&self, uid: &str, addr: IpAddr) -> bool {
        let number = number(addr);
        let is_own = self.by_pod.get(uid) == Some(&number);
        self.range.contains(addr) && (is_own || self.numbers.is_free(number))
    }

    fn restore(&mut self, uid: &str, addr: IpAddr) {
        if self.may_have(uid, addr) {
            let number = number(addr);
            self.release(uid);
            self.numbers.take(number);
            self.by_pod.insert(uid.to_owned(), number);
            // Those below may have been another pod's until just now.
            self.numbers.go_on_after(number);
        }
    }

    fn release(&mut self, uid: &str) {
        if let Some(number) = self.by_pod.remove(uid) {
            self.numbers.free(number);
        }
    }

    fn at(&self, number: u128) -> IpAddr {
        numbered(self.range.is_ipv6(), number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUAL: [&str; 2] = ["10.100.3.0/24", "fd00:100:0:3::/64"];

    fn ipam(ranges: &[&str]) -> Ipam {
        Ipam::new(ranges.iter().map(|range| range.parse().expect("a range")))
    }

    fn addrs(text: &str) -> Addrs {
        text.parse().expect("addresses")
    }

    fn allocated(ipam: &mut Ipam, uid: &str) -> String {
        ipam.allocate(uid).expect("room").to_string()
    }

    #[test]
    fn the_number_and_the_first_address_of_a_range_are_the_nodes() {
        let mut ipam = ipam(&DUAL);
        assert_eq!(allocated(&mut ipam, "a"), "10.100.3.2,fd00:100:0:3::2");
        assert_eq!(allocated(&mut ipam, "a"), "10.100.3.2,fd00:100:0:3::2");
        assert_eq!(allocated(&mut ipam, "b"), "10.100.3.3,fd00:100:0:3::3");
    }

    #[test]
    fn a_freed_address_rests_before_it_is_given_again() {
        let range = "10.100.3.0/29";
        let mut ipam = ipam(&[range]);
        let first = ipam.allocate("a").expect("room");
        ipam.release("a");
        assert_ne!(ipam.allocate("b").expect("room"), first);
        for uid in ["c", "d", "e", "f"] {
            ipam.allocate(uid).ok();
        }
        assert_eq!(
            ipam.allocate("g"),
            Err(IpamError(range.parse().expect("ok")))
        );
        ipam.release("c");
        assert!(ipam.allocate("g").is_ok());
    }

    #[test]
    fn a_pod_has_an_address_of_each_family_or_none() {
        let mut ipam = ipam(&["fd00:100:0:3::/64", "10.100.3.0/30"]);
        assert!(ipam.allocate("a").is_ok());
        assert!(ipam.allocate("b").is_err(), "IPv4 is full");
        ipam.release("a");
        assert_eq!(allocated(&mut ipam, "c"), "10.100.3.2,fd00:100:0:3::4");
    }

    #[test]
    fn restored_addresses_are_not_given_twice() {
        let mut ipam = ipam(&DUAL);
        assert!(ipam.restore("a", addrs("10.100.3.2,fd00:100:0:3::2")));
        for taken in [
            "10.100.3.2",
            "fd00:100:0:3::2",
            "10.100.3.7,fd00:100:0:3::2",
            "10.100.4.2",
            "10.100.3.0",
            "10.100.3.1",
            "fd00:100:0:3::1",
            "fd00:100:0:4::2",
            "10.100.3.255",
        ] {
            assert!(!ipam.restore("b", addrs(taken)), "{taken}");
        }
        assert_eq!(allocated(&mut ipam, "b"), "10.100.3.3,fd00:100:0:3::3");
        assert_eq!(allocated(&mut ipam, "a"), "10.100.3.2,fd00:100:0:3::2");
        assert!(
            ipam.restore("old", addrs("10.100.3.9")),
            "of before there was IPv6"
        );
    }
}
