//! Addresses, ports, protocols and link addresses as they are on the wire: network order, behind
//! constructors.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::layout::layout;

/// The third word of an IPv4-mapped IPv6 address, `::ffff:a.b.c.d`, as it lies in memory.
const MAPPED: u32 = 0xffffu32.to_be();

layout! {
    /// An IP address. IPv4 is IPv4-mapped, so that one code path keys both families. The words are
    /// the address's bytes in network order, read natively.
    pub struct Addr {
        pub words: [u32; 4],
    }
}

impl Addr {
    /// `::`
    pub const UNSPECIFIED: Addr = Addr { words: [0; 4] };
    /// `0.0.0.0`
    pub const UNSPECIFIED_V4: Addr = Addr::from_v4_wire(0);

    /// From the four bytes of an IPv4 address as they lie in a packet, read natively.
    #[inline(always)]
    pub const fn from_v4_wire(word: u32) -> Addr {
        Addr {
            words: [0, 0, MAPPED, word],
        }
    }

    pub const fn from_v4(ip: Ipv4Addr) -> Addr {
        Addr::from_v4_wire(u32::from_ne_bytes(ip.octets()))
    }

    pub const fn from_octets(octets: [u8; 16]) -> Addr {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Addr {
            words: [
                u32::from_ne_bytes([a, b, c, d]),
                u32::from_ne_bytes([e, f, g, h]),
                u32::from_ne_bytes([i, j, k, l]),
                u32::from_ne_bytes([m, n, o, p]),
            ],
        }
    }

    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d] = self.words[0].to_ne_bytes();
        let [e, f, g, h] = self.words[1].to_ne_bytes();
        let [i, j, k, l] = self.words[2].to_ne_bytes();
        let [m, n, o, p] = self.words[3].to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The word that an IPv4 header carries; meaningful only for an IPv4 address.
    #[inline(always)]
    pub const fn v4_wire(&self) -> u32 {
        self.words[3]
    }

    /// The last four bytes in host order: an IPv4 address, or enough of an IPv6 one to tell nodes
    /// apart.
    #[inline(always)]
    pub const fn low_word(&self) -> u32 {
        u32::from_be(self.words[3])
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// Loopback or unspecified: to a socket, the host that it is on.
    #[inline(always)]
    pub const fn is_own(&self) -> bool {
        let [a, b, c, d] = self.words;
        if self.is_v4() {
            return d == 0 || d.to_be() >> 24 == 127;
        }
        a | b | c == 0 && d.to_be() <= 1
    }

    /// The address of the same family that stands for any.
    #[inline(always)]
    pub const fn any_of_family(&self) -> Addr {
        if self.is_v4() {
            Addr::UNSPECIFIED_V4
        } else {
            Addr::UNSPECIFIED
        }
    }

    /// Equality as one expression: a derived `==` becomes a call and a loop in the kernel.
    #[inline(always)]
    pub const fn same(&self, other: &Addr) -> bool {
        let (a, b) = (&self.words, &other.words);
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }

    #[inline(always)]
    pub const fn masked(&self, mask: &Addr) -> Addr {
        Addr {
            words: [
                self.words[0] & mask.words[0],
                self.words[1] & mask.words[1],
                self.words[2] & mask.words[2],
                self.words[3] & mask.words[3],
            ],
        }
    }

    /// The mask of an IPv4 prefix over the mapped form: the 96 leading bits are always part of it.
    pub const fn v4_mask(bits: u8) -> Addr {
        let bits = if bits > 32 { 32 } else { bits };
        let mask = if bits == 0 {
            0
        } else {
            u32::MAX << (32 - bits)
        };
        Addr {
            words: [u32::MAX, u32::MAX, u32::MAX, mask.to_be()],
        }
    }

    pub const fn v6_mask(bits: u8) -> Addr {
        let bits = if bits > 128 { 128 } else { bits };
        let mask = if bits == 0 {
            0
        } else {
            u128::MAX << (128 - bits)
        };
        Addr::from_octets(mask.to_be_bytes())
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Addr {
        Addr::from_v4(ip)
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Addr {
        match ip {
            IpAddr::V4(ip) => Addr::from_v4(ip),
            IpAddr::V6(ip) => Addr::from_octets(ip.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> IpAddr {
        if addr.is_v4() {
            IpAddr::V4(Ipv4Addr::from(addr.v4_wire().to_ne_bytes()))
        } else {
            IpAddr::V6(Ipv6Addr::from(addr.octets()))
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

layout! {
    /// A range of addresses: `addr` is already masked.
    pub struct Prefix {
        pub addr: Addr,
        pub mask: Addr,
    }
}

impl Prefix {
    /// Holds no address.
    pub const NONE: Prefix = Prefix {
        addr: Addr { words: [1; 4] },
        mask: Addr { words: [0; 4] },
    };

    pub fn new(ip: IpAddr, bits: u8) -> Prefix {
        let mask = match ip {
            IpAddr::V4(_) => Addr::v4_mask(bits),
            IpAddr::V6(_) => Addr::v6_mask(bits),
        };
        Prefix {
            addr: Addr::from(ip).masked(&mask),
            mask,
        }
    }

    #[inline(always)]
    pub const fn contains(&self, addr: &Addr) -> bool {
        let (a, m, p) = (&addr.words, &self.mask.words, &self.addr.words);
        // One expression without branches: the verifier walks it once.
        ((a[0] & m[0]) ^ p[0])
            | ((a[1] & m[1]) ^ p[1])
            | ((a[2] & m[2]) ^ p[2])
            | ((a[3] & m[3]) ^ p[3])
            == 0
    }
}

layout! {
    /// A TCP or UDP port, or the identifier of an ICMP echo, in network order.
    pub struct Port {
        pub wire: u16,
    }
}

impl Port {
    pub const ZERO: Port = Port { wire: 0 };

    #[inline(always)]
    pub const fn new(host: u16) -> Port {
        Port { wire: host.to_be() }
    }

    #[inline(always)]
    pub const fn from_wire(wire: u16) -> Port {
        Port { wire }
    }

    #[inline(always)]
    pub const fn host(&self) -> u16 {
        u16::from_be(self.wire)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host().fmt(f)
    }
}

layout! {
    /// An IP protocol number.
    pub struct Proto {
        pub number: u8,
    }
}

impl Proto {
    pub const ICMP: Proto = Proto { number: 1 };
    pub const TCP: Proto = Proto { number: 6 };
    pub const UDP: Proto = Proto { number: 17 };
    pub const ICMPV6: Proto = Proto { number: 58 };
    pub const SCTP: Proto = Proto { number: 132 };
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Proto::ICMP => f.write_str("icmp"),
            Proto::TCP => f.write_str("tcp"),
            Proto::UDP => f.write_str("udp"),
            Proto::ICMPV6 => f.write_str("icmpv6"),
            Proto::SCTP => f.write_str("sctp"),
            Proto { number } => number.fmt(f),
        }
    }
}

layout! {
    /// A link (Ethernet) address.
    pub struct Mac {
        pub octets: [u8; 6],
    }
}

impl Mac {
    /// The address of every node's VXLAN device, and so the destination of every inner frame.
    pub const OVERLAY_DEVICE: Mac = Mac {
        octets: [0x02, 0x6f, 0x72, 0x63, 0x68, 0x01],
    };
    /// The source of every inner frame: another one, because a device drops what seems to come from
    /// itself.
    pub const OVERLAY_SENDER: Mac = Mac {
        octets: [0x02, 0x6f, 0x72, 0x63, 0x68, 0x02],
    };

    /// Nobody's.
    pub const NONE: Mac = Mac { octets: [0; 6] };

    #[inline(always)]
    pub const fn same(&self, other: &Mac) -> bool {
        let (a, b) = (&self.octets, &other.octets);
        (a[0] ^ b[0])
            | (a[1] ^ b[1])
            | (a[2] ^ b[2])
            | (a[3] ^ b[3])
            | (a[4] ^ b[4])
            | (a[5] ^ b[5])
            == 0
    }

    pub const fn new(octets: [u8; 6]) -> Mac {
        Mac { octets }
    }

    /// The twelve bytes that a frame begins with, as words to be stored natively.
    #[inline(always)]
    pub const fn frame(destination: Mac, source: Mac) -> [u32; 3] {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (destination.octets, source.octets);
        [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
        ]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.octets;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_sockets_own_host_is_loopback_or_unspecified_in_either_family() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        for own in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::"] {
            assert!(addr(own).is_own(), "{own}");
        }
        for other in [
            "10.127.0.1",
            "128.0.0.1",
            "::2",
            "1::1",
            "fd00::",
            "fd00::1",
        ] {
            assert!(!addr(other).is_own(), "{other}");
        }
    }

    #[test]
    fn an_ipv4_address_survives_the_mapped_form() {
        let addr = Addr::from(ip("10.100.1.5"));
        assert!(addr.is_v4());
        assert_eq!(
            addr.octets(),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 100, 1, 5]
        );
        assert_eq!(addr.to_string(), "10.100.1.5");
        assert_eq!(addr.v4_wire().to_ne_bytes(), [10, 100, 1, 5]);
    }

    #[test]
    fn an_ipv6_address_is_not_taken_for_ipv4() {
        let addr = Addr::from(ip("fd00::1"));
        assert!(!addr.is_v4());
        assert_eq!(addr.to_string(), "fd00::1");
    }

    #[test]
    fn a_prefix_holds_its_addresses_and_no_other() {
        let range = Prefix::new(ip("10.100.7.9"), 16);
        assert_eq!(range.addr.to_string(), "10.100.0.0");
        assert!(range.contains(&ip("10.100.255.255").into()));
        assert!(!range.contains(&ip("10.101.0.0").into()));
        assert!(!range.contains(&ip("fd00::1").into()));
        assert!(Prefix::new(ip("0.0.0.0"), 0).contains(&ip("1.2.3.4").into()));
        assert!(!Prefix::new(ip("0.0.0.0"), 0).contains(&ip("::1").into()));
        assert!(Prefix::new(ip("fd00:1::"), 32).contains(&ip("fd00:1::5").into()));
        assert!(!Prefix::NONE.contains(&ip("::1").into()));
        assert!(!Prefix::NONE.contains(&ip("10.100.0.1").into()));
    }

    #[test]
    fn ports_are_in_network_order() {
        assert_eq!(Port::new(80).wire.to_ne_bytes(), [0, 80]);
        assert_eq!(Port::new(443).host(), 443);
        assert_eq!(Port::new(443).to_string(), "443");
    }

    #[test]
    fn a_mac_prints_as_people_write_it() {
        assert_eq!(Mac::OVERLAY_DEVICE.to_string(), "02:6f:72:63:68:01");
    }
}
