//! The overlay's outer headers as bytes, for packets that no VXLAN device sees: what one writes
//! (RFC 7348) and what one takes. Pure.
//!
//! XDP has all of its packets so, and tcx those that are one on the wire over an IPv4 underlay: they spare
//! the stack's way through the device on both nodes. What is to be segmented yet needs the device.
//!
//! Words are 16 bits that lie in network order and are read natively.

use orchestrator_common::{Addr, Port, Proto, Tuple, csum};

use crate::packet::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4, IPV6};

pub const UDP: usize = 8;
pub const VXLAN: usize = 8;

/// What stands before the inner frame, Ethernet included.
pub const OUTER_V4: usize = ETHERNET + IPV4 + UDP + VXLAN;
pub const OUTER_V6: usize = ETHERNET + IPV6 + UDP + VXLAN;

/// Words behind Ethernet's header.
pub const BEHIND_V4: usize = (OUTER_V4 - ETHERNET) / 2;

const WORDS_V4: usize = OUTER_V4 / 2;
const WORDS_V6: usize = OUTER_V6 / 2;
pub const ETHERNET_WORDS: usize = ETHERNET / 2;
const IPV4_WORDS: usize = IPV4 / 2;
pub const IPV6_WORDS: usize = IPV6 / 2;

const TTL: u16 = 64;
/// The only flag of VXLAN's header that is not reserved: it has an identifier.
const HAS_VNI: u16 = 0x0800u16.to_be();

/// The two bits of explicit congestion notification (RFC 3168).
const ECN: u8 = 3;
const ECN_CAPABLE: u8 = 2;
const CONGESTION: u8 = 3;

/// The way to the next hop: destination and source of the frame, as `Mac::frame` has them.
pub type Way = [u32; 3];

/// A frame on its way through the tunnel.
pub struct Passage<'a> {
    pub way: &'a Way,
    /// Of the outer packet.
    pub ends: &'a Tuple,
    pub vni: u32,
    /// Of the inner frame.
    pub length: u16,
    /// IPv4's type of service or IPv6's traffic class of the inner packet.
    pub class: u8,
    /// Of the outer IPv4 packet, which may be cut on its way.
    pub id: u16,
}

/// Of a packet over IPv4, behind Ethernet's header: who sent it to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub from: Addr,
    pub to: Addr,
    pub to_port: Port,
}

/// How much that is with nodes of this address's family.
#[inline(always)]
pub const fn outer(underlay: &Addr) -> usize {
    if underlay.is_v4() { OUTER_V4 } else { OUTER_V6 }
}

// Both write to where the headers are to be: a packet is no place to build them beside it.

#[inline(always)]
pub fn write_v4(words: &mut [u16; WORDS_V4], it: &Passage<'_>) {
    write_ethernet(words, it.way, ETHERTYPE_IPV4);
    let ip = &mut words[ETHERNET_WORDS..ETHERNET_WORDS + IPV4_WORDS];
    ip[0] = (0x4500 | u16::from(outer_class(it.class))).to_be();
    ip[1] = (it.length + (OUTER_V4 - ETHERNET) as u16).to_be();
    [ip[2], ip[3]] = [it.id, 0];
    [ip[4], ip[5]] = [(TTL << 8 | u16::from(Proto::UDP.number)).to_be(), 0];
    [ip[6], ip[7]] = halves(it.ends.src.v4_wire());
    [ip[8], ip[9]] = halves(it.ends.dst.v4_wire());
    ip[5] = csum::finish(csum::add(0, ip));
    write_vxlan(&mut words[ETHERNET_WORDS + IPV4_WORDS..], it);
}

#[inline(always)]
pub fn write_v6(words: &mut [u16; WORDS_V6], it: &Passage<'_>) {
    write_ethernet(words, it.way, ETHERTYPE_IPV6);
    let ip = &mut words[ETHERNET_WORDS..];
    write_ipv6(ip, it, it.length + (UDP + VXLAN) as u16, Proto::UDP.number);
    write_vxlan(&mut ip[IPV6_WORDS..], it);
}

/// IPv6's header before so many bytes, which begin with what `next` names.
#[inline(always)]
pub fn write_ipv6(ip: &mut [u16], it: &Passage<'_>, length: u16, next: u8) {
    [ip[0], ip[1]] = [(0x6000 | u16::from(outer_class(it.class)) << 4).to_be(), 0];
    ip[2] = length.to_be();
    ip[3] = (u16::from(next) << 8 | TTL).to_be();
    let mut at = 0;
    while at < 4 {
        [ip[4 + 2 * at], ip[5 + 2 * at]] = halves(it.ends.src.words[at]);
        [ip[12 + 2 * at], ip[13 + 2 * at]] = halves(it.ends.dst.words[at]);
        at += 1;
    }
}

/// The ends of a whole datagram without options and without a checksum of its own.
#[inline(always)]
pub fn ends_v4(words: &[u16; BEHIND_V4]) -> Option<Ends> {
    let unlike = (words[0] ^ 0x4500u16.to_be()) & 0xff00u16.to_be()
        | words[3] & 0x3fffu16.to_be()
        | (words[4] ^ u16::from(Proto::UDP.number).to_be()) & 0x00ffu16.to_be()
        | words[13];
    (unlike == 0).then(|| Ends {
        from: Addr::from_v4_wire(joined([words[6], words[7]])),
        to: Addr::from_v4_wire(joined([words[8], words[9]])),
        to_port: Port::from_wire(words[11]),
    })
}

/// The source port of a flow's outer packets, from where RFC 7348 recommends: what spreads flows over
/// paths and queues.
#[inline(always)]
pub fn source_port(tuple: &Tuple) -> Port {
    let ports = u32::from(tuple.src_port.wire) << 16 | u32::from(tuple.dst_port.wire);
    let mixed = (tuple.src.low_word() ^ tuple.dst.low_word().rotate_left(16) ^ ports)
        .wrapping_mul(0x9e37_79b1);
    Port::new(0xc000 | (mixed >> 18) as u16)
}

/// Whether a VXLAN device would take a packet for what that identifier's nodes sent, and in it
/// nothing but the frame. `words` are the outer headers behind Ethernet's; `length` is all that the
/// packet has behind Ethernet's. Of a UDP checksum no judgement is made: nodes send none.
#[inline(always)]
pub fn is_sound_v4(words: &[u16; BEHIND_V4], length: usize, vni: u32) -> bool {
    let header = words.first_chunk::<IPV4_WORDS>();
    header.is_some_and(|header| csum::finish(csum::add(0, header)) == 0)
        && words[1].to_be() as usize == length
        && words[0].to_be() as u8 & ECN != CONGESTION
        && is_sound(&words[IPV4_WORDS..], length - IPV4, vni)
}

#[inline(always)]
pub fn is_sound_v6(words: &[u16; (OUTER_V6 - ETHERNET) / 2], length: usize, vni: u32) -> bool {
    words[2].to_be() as usize == length - IPV6
        && (words[0].to_be() >> 4) as u8 & ECN != CONGESTION
        && is_sound(&words[IPV6_WORDS..], length - IPV6, vni)
}

/// The same of what begins with the UDP header.
#[inline(always)]
fn is_sound(words: &[u16], length: usize, vni: u32) -> bool {
    let [high, low] = vni_words(vni);
    words[2].to_be() as usize == length
        && words[3] == 0
        && words[4] == HAS_VNI
        && words[5] == 0
        && words[6] == high
        && words[7] == low
}

/// What the outer packet says of congestion: what the inner one does, but that nothing was met yet
/// (RFC 6040).
#[inline(always)]
const fn outer_class(inner: u8) -> u8 {
    match inner & ECN {
        CONGESTION => ECN_CAPABLE,
        as_it_is => as_it_is,
    }
}

#[inline(always)]
pub fn write_ethernet(words: &mut [u16], way: &Way, ethertype: u16) {
    [words[0], words[1]] = halves(way[0]);
    [words[2], words[3]] = halves(way[1]);
    [words[4], words[5]] = halves(way[2]);
    words[6] = ethertype;
}

/// UDP's header, without a checksum because the inner packet has its own, and VXLAN's.
#[inline(always)]
pub fn write_vxlan(words: &mut [u16], it: &Passage<'_>) {
    words[0] = it.ends.src_port.wire;
    words[1] = it.ends.dst_port.wire;
    words[2] = (it.length + (UDP + VXLAN) as u16).to_be();
    words[3] = 0;
    [words[4], words[5]] = [HAS_VNI, 0];
    [words[6], words[7]] = vni_words(it.vni);
}

#[inline(always)]
const fn vni_words(vni: u32) -> [u16; 2] {
    halves((vni << 8).to_be())
}

/// A word of 32 bits as it lies in memory.
#[inline(always)]
pub const fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

#[inline(always)]
const fn joined(halves: [u16; 2]) -> u32 {
    let ([a, b], [c, d]) = (halves[0].to_ne_bytes(), halves[1].to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use orchestrator_common::Mac;

    use super::*;

    const VNI: u32 = 0x01_0203;
    const LENGTH: u16 = 60;

    fn ends(from: &str, to: &str) -> Tuple {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        Tuple {
            src: addr(from),
            dst: addr(to),
            src_port: Port::new(0xc007),
            dst_port: Port::new(4789),
            proto: Proto::UDP,
            ..Tuple::default()
        }
    }

    fn passage<'a>(way: &'a Way, ends: &'a Tuple, class: u8) -> Passage<'a> {
        Passage {
            way,
            ends,
            vni: VNI,
            length: LENGTH,
            class,
            id: 9,
        }
    }

    fn bytes(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// The same headers over IPv4, and behind Ethernet's.
    fn over_v4(class: u8) -> ([u16; WORDS_V4], [u16; WORDS_V4 - ETHERNET_WORDS]) {
        let way = Mac::frame(
            Mac::new([1, 2, 3, 4, 5, 6]),
            Mac::new([7, 8, 9, 10, 11, 12]),
        );
        let mut words = [0xffff; WORDS_V4];
        let ends = ends("172.31.0.11", "172.31.0.12");
        write_v4(&mut words, &passage(&way, &ends, class));
        (words, *words.last_chunk().unwrap())
    }

    fn over_v6(class: u8) -> ([u16; WORDS_V6], [u16; WORDS_V6 - ETHERNET_WORDS]) {
        let way = Mac::frame(
            Mac::new([1, 2, 3, 4, 5, 6]),
            Mac::new([7, 8, 9, 10, 11, 12]),
        );
        let mut words = [0xffff; WORDS_V6];
        let ends = ends("fd31::11", "fd31::12");
        write_v6(&mut words, &passage(&way, &ends, class));
        (words, *words.last_chunk().unwrap())
    }

    #[test]
    fn every_byte_of_the_outer_headers_is_written() {
        let (v4, v6) = (bytes(&over_v4(0).0), bytes(&over_v6(0).0));
        assert_eq!(v4[..14], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 0]);
        assert_eq!(v4[14..18], [0x45, 0, 0, 96]);
        assert_eq!(v4[20..24], [0, 0, 64, 17]);
        assert_eq!(v4[26..34], [172, 31, 0, 11, 172, 31, 0, 12]);
        assert_eq!(v6[12..22], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 76, 17, 64]);
        assert_eq!(v6[22..38], ends("fd31::11", "::").src.octets());
        assert_eq!(v6[38..54], ends("::", "fd31::12").dst.octets());
        for (udp, port) in [(&v4[34..], 0xc007u16), (&v6[54..], 0xc007)] {
            let [a, b] = port.to_be_bytes();
            assert_eq!(udp[..8], [a, b, 0x12, 0xb5, 0, 76, 0, 0]);
            assert_eq!(udp[8..], [8, 0, 0, 0, 1, 2, 3, 0]);
        }
    }

    #[test]
    fn what_is_written_is_sound_and_nothing_else_is() {
        let (length_v4, length_v6) = (96, 116);
        let (_, v4) = over_v4(0);
        let (_, v6) = over_v6(0);
        assert!(is_sound_v4(&v4, length_v4, VNI));
        assert!(is_sound_v6(&v6, length_v6, VNI));
        assert!(!is_sound_v4(&v4, length_v4, VNI + 1));
        assert!(!is_sound_v6(&v6, length_v6, VNI + 1));
        assert!(!is_sound_v4(&v4, length_v4 + 6, VNI), "padded");
        assert!(!is_sound_v6(&v6, length_v6 - 1, VNI), "cut off");
        // Ports are free, and so are addresses where no checksum covers them.
        for at in (0..10).chain(12..18) {
            let mut altered = v4;
            altered[at] ^= 0x0101;
            assert!(!is_sound_v4(&altered, length_v4, VNI), "word {at}");
        }
        for at in [2].into_iter().chain(22..28) {
            let mut altered = v6;
            altered[at] ^= 0x0101;
            assert!(!is_sound_v6(&altered, length_v6, VNI), "word {at}");
        }
    }

    #[test]
    fn congestion_that_was_met_inside_is_not_met_again_outside() {
        for (inner, outer) in [(0, 0), (0b101, 1), (0b110, 2), (0b111, 2)] {
            assert_eq!(outer_class(inner), outer);
            assert_eq!(bytes(&over_v4(inner).0)[15], outer);
            assert_eq!(bytes(&over_v6(inner).0)[15], outer << 4);
        }
    }

    #[test]
    fn what_met_congestion_in_the_tunnel_is_left_to_who_notes_it() {
        let (_, mut v6) = over_v6(0);
        v6[0] |= 0x0030u16.to_be();
        assert!(!is_sound_v6(&v6, 116, VNI));
        let (_, mut v4) = over_v4(0);
        v4[0] |= 3u16.to_be();
        v4[5] = 0;
        v4[5] = csum::finish(csum::add(0, &v4[..IPV4_WORDS]));
        assert!(!is_sound_v4(&v4, 96, VNI));
    }

    #[test]
    fn only_a_plain_datagram_has_ends() {
        let (_, v4) = over_v4(1);
        let ends = ends_v4(&v4).unwrap();
        let [from, to] = [ends.from, ends.to].map(|addr| addr.to_string());
        assert_eq!((from.as_str(), to.as_str()), ("172.31.0.11", "172.31.0.12"));
        assert_eq!(ends.to_port.host(), 4789);
        // Options, a fragment, TCP, a checksum of its own.
        let unlike = [(0, 0x4600), (3, 0x2000), (4, 0x4006), (13, 1)];
        for (word, value) in unlike {
            let mut altered = v4;
            altered[word] = u16::to_be(value);
            assert_eq!(ends_v4(&altered), None, "word {word}");
        }
    }

    #[test]
    fn flows_spread_over_source_ports() {
        let flow = |port| Tuple {
            src_port: Port::new(port),
            ..ends("10.100.1.5", "10.100.2.7")
        };
        let ports: std::collections::BTreeSet<u16> = (40000..41000)
            .map(|port| source_port(&flow(port)).host())
            .collect();
        assert!(
            ports.len() > 900 && ports.first() >= Some(&0xc000),
            "{ports:?}"
        );
    }
}
