//! The addresses of one endpoint or node: at most one of each IP family. Pure.
//!
//! IPv6 that stands for IPv4 is none: a map's row would be of the other family.

use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use orchestrator_common::Addr;

use api::address::embeds_ipv4;

/// At most one address of each family. Lists as the API has them, `podIPs` or the `InternalIP`s of a
/// node, become one by `collect`: the first of a family counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addrs {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl Addrs {
    /// IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(IpAddr::V4);
        v4.into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// The one that stands for all where there is room for one only, as in `podIP`.
    pub fn first(self) -> Option<IpAddr> {
        self.iter().next()
    }

    /// The address of the same family as `other`.
    pub fn like(self, other: IpAddr) -> Option<IpAddr> {
        match other {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    pub fn contains(self, addr: IpAddr) -> bool {
        self.like(addr) == Some(addr)
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// As map rows have them: unspecified where there is none.
    pub fn rows(self) -> (Addr, Addr) {
        let v4 = self.v4.map_or(Addr::UNSPECIFIED, Addr::from_v4);
        let v6 = self
            .v6
            .map_or(Addr::UNSPECIFIED, |v6| IpAddr::V6(v6).into());
        (v4, v6)
    }
}

impl FromIterator<IpAddr> for Addrs {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addrs: I) -> Self {
        addrs.into_iter().fold(Self::default(), |known, addr| {
            let one = Self::from(addr);
            Self {
                v4: known.v4.or(one.v4),
                v6: known.v6.or(one.v6),
            }
        })
    }
}

impl From<IpAddr> for Addrs {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => Self::from(v4),
            IpAddr::V6(v6) => Self::from(v6),
        }
    }
}

impl From<Ipv4Addr> for Addrs {
    fn from(v4: Ipv4Addr) -> Self {
        Self {
            v4: Some(v4),
            v6: None,
        }
    }
}

impl From<Ipv6Addr> for Addrs {
    fn from(v6: Ipv6Addr) -> Self {
        Self {
            v4: None,
            v6: Some(v6).filter(|v6| !embeds_ipv4(IpAddr::V6(*v6))),
        }
    }
}

/// Separated by commas, as labels and `status.podIPs` of the downward API have them.
impl FromStr for Addrs {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(str::parse::<IpAddr>).collect()
    }
}

impl fmt::Display for Addrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.iter().map(|addr| addr.to_string()).collect();
        f.write_str(&texts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_of_a_family_counts() {
        let listed = ["fd00::1", "10.0.0.1", "10.0.0.2", "fd00::2"];
        let addrs: Addrs = listed
            .iter()
            .map(|a| a.parse::<IpAddr>().unwrap())
            .collect();
        assert_eq!(addrs.to_string(), "10.0.0.1,fd00::1");
        assert!(addrs.contains("fd00::1".parse().unwrap()));
        assert!(!addrs.contains("fd00::2".parse().unwrap()));
        assert!(Addrs::default().is_empty());
        assert_eq!(addrs.to_string().parse(), Ok(addrs));
        assert!("10.0.0.1,x".parse::<Addrs>().is_err());
    }

    #[test]
    fn ipv4_written_as_ipv6_is_an_address_of_neither_family() {
        let addrs: Addrs = "::ffff:10.96.0.1,::10.96.0.1".parse().unwrap();
        assert_eq!(addrs, Addrs::default());
        let addrs: Addrs = "::ffff:10.96.0.1,fd00::1,10.0.0.1".parse().unwrap();
        assert_eq!(addrs.to_string(), "10.0.0.1,fd00::1");
    }
}
