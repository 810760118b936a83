//! The addresses that Services of type LoadBalancer get. Pure.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnetwork::IpNetwork;

use api::address::{number, numbered};
use api::allocator::Allocator;

/// A part of the pool: the addresses from `first` to `last`, both of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    first: IpAddr,
    last: IpAddr,
}

impl Block {
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    pub fn is_ipv6(&self) -> bool {
        self.first.is_ipv6()
    }

    /// Whether any address is in both.
    pub fn overlaps(&self, network: IpNetwork) -> bool {
        self.meets(&Self {
            first: network.network(),
            last: network.broadcast(),
        })
    }

    pub fn meets(&self, other: &Self) -> bool {
        self.is_ipv6() == other.is_ipv6() && self.first <= other.last && other.first <= self.last
    }

    pub fn first(&self) -> IpAddr {
        self.first
    }

    pub fn range(&self) -> RangeInclusive<IpAddr> {
        self.first..=self.last
    }

    /// All of its addresses, free.
    pub fn numbers(&self) -> Allocator {
        Allocator::new(number(self.first)..=number(self.last))
    }
}

/// `192.0.2.0/24`, `192.0.2.10-192.0.2.20` or one address. Of a range written as a network its own
/// address and, for IPv4, the broadcast address are left out where there are others.
impl FromStr for Block {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no part of a pool: write it as 192.0.2.0/24, 192.0.2.10-192.0.2.20 \
                 or 192.0.2.10"
            )
        };
        if text.contains('/') {
            let network: IpNetwork = text.parse().map_err(|_| wrong())?;
            return Ok(Self::of(network));
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
        let (first, last) = (address(first)?, address(last)?);
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

impl Block {
    fn of(network: IpNetwork) -> Self {
        let (first, last) = (network.network(), network.broadcast());
        let v6 = network.is_ipv6();
        if number(last) - number(first) < 2 {
            return Self { first, last };
        }
        Self {
            first: numbered(v6, number(first) + 1),
            last: numbered(v6, number(last) - u128::from(!v6)),
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match text.parse::<Block>() {
            Ok(block) => block.to_string(),
            Err(why) => why,
        }
    }

    #[test]
    fn a_part_is_a_network_a_range_or_an_address() {
        let cases = [
            ("192.0.2.0/24", "192.0.2.1-192.0.2.254"),
            ("192.0.2.4/31", "192.0.2.4-192.0.2.5"),
            ("192.0.2.4/32", "192.0.2.4-192.0.2.4"),
            ("fd00::/126", "fd00::1-fd00::3"),
            ("192.0.2.10-192.0.2.20", "192.0.2.10-192.0.2.20"),
            ("192.0.2.7", "192.0.2.7-192.0.2.7"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected);
        }
        for wrong in [
            "",
            "x",
            "192.0.2.9-192.0.2.1",
            "192.0.2.1-fd00::1",
            "192.0.2.0/33",
        ] {
            assert!(shown(wrong).contains("is no part of a pool"), "{wrong}");
        }
    }

    #[test]
    fn parts_meet_networks_and_each_other() {
        let block = |text: &str| text.parse::<Block>().unwrap();
        assert!(block("10.96.0.0/24").overlaps("10.96.0.0/16".parse().unwrap()));
        assert!(!block("10.97.0.0/24").overlaps("10.96.0.0/16".parse().unwrap()));
        assert!(block("10.0.0.1-10.0.0.9").meets(&block("10.0.0.9")));
    }
}
