//! Addresses and ranges as texts of API objects, and as numbers. Pure.
//!
//! The datapath has IPv4 addresses in their mapped form, so `::ffff:10.96.0.1` in an object that says IPv6
//! would be the row of 10.96.0.1 to it, past every check of a family or a range. Whatever reads an address
//! or a range out of an object reads it here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;

/// The address that a text is, unless it is IPv6 that stands for IPv4.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|addr| !embeds_ipv4(*addr))
}

/// The range that a text is, with its prefix, unless it is IPv6 that stands for IPv4.
pub fn parse_range(text: &str) -> Option<IpNetwork> {
    // A range is written with its prefix; an address alone is none.
    let range: IpNetwork = text.parse().ok().filter(|_| text.contains('/'))?;
    let stands = [range.ip(), range.network()].into_iter().any(embeds_ipv4);
    (!stands).then_some(range)
}

/// An IPv6 address of a form that stands for IPv4: mapped (`::ffff:a.b.c.d`) or compatible (`::a.b.c.d`,
/// RFC 4291, sections 2.5.5.1 and 2.5.5.2). `::` and `::1` are themselves.
pub fn embeds_ipv4(addr: IpAddr) -> bool {
    let IpAddr::V6(v6) = addr else {
        return false;
    };
    let compatible = v6.segments()[..6] == [0; 6];
    let itself = v6 == Ipv6Addr::UNSPECIFIED || v6 == Ipv6Addr::LOCALHOST;
    v6.to_ipv4_mapped().is_some() || (compatible && !itself)
}

/// An address as a number, in which the next address is the next number.
pub fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// The address of a family with that number. An IPv4 address has 32 bits of it.
pub fn numbered(v6: bool, number: u128) -> IpAddr {
    if v6 {
        Ipv6Addr::from_bits(number).into()
    } else {
        Ipv4Addr::from_bits(number as u32).into()
    }
}

/// The numbers of all addresses of a range, its own and the last one too.
pub fn numbers(range: IpNetwork) -> RangeInclusive<u128> {
    number(range.network())..=number(range.broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_that_stands_for_ipv4_is_no_address_of_an_object() {
        for text in [
            "::ffff:127.0.0.1",
            "::ffff:a60:1",
            "0:0:0:0:0:ffff:10.96.0.1",
            "::169.254.169.254",
            "::2",
            "10.0.0.1/32",
            "",
        ] {
            assert_eq!(parse_ip(text), None, "{text}");
        }
        for text in ["10.0.0.1", "fd00::1", "2001:db8::ffff:a00:1", "::1", "::"] {
            assert!(parse_ip(text).is_some(), "{text}");
        }
    }

    #[test]
    fn an_address_is_the_number_that_it_has() {
        for text in ["0.0.0.0", "10.96.0.10", "255.255.255.255", "::", "fd00::1"] {
            let addr: IpAddr = text.parse().unwrap();
            assert_eq!(numbered(addr.is_ipv6(), number(addr)), addr);
        }
        let count = |range: &str| {
            let numbers = numbers(range.parse().unwrap());
            numbers.end() - numbers.start()
        };
        assert_eq!(count("10.96.0.9/30"), 3);
        assert_eq!(count("fd00::/64"), u128::from(u64::MAX));
        assert_eq!(count("::/0"), u128::MAX);
    }

    #[test]
    fn ipv6_that_stands_for_ipv4_is_no_range_of_an_object() {
        for text in [
            "::ffff:10.100.2.0/120",
            "::ffff:0:0/96",
            "::10.0.0.0/104",
            "10.0.0.1",
            "10.0.0.0/33",
        ] {
            assert_eq!(parse_range(text), None, "{text}");
        }
        for text in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "::1/128"] {
            assert!(parse_range(text).is_some(), "{text}");
        }
    }
}
