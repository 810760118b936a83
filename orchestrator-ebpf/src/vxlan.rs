//! VXLAN (RFC 7348) by hand: the outer headers of a packet over an IPv4 underlay, written and read
//! as words. Pure.
//!
//! What fits one packet of the underlay spares the stack's way through the VXLAN device so, on both
//! nodes. All else, segmentation offload above all, goes through the device.

use orchestrator_common::{Addr, Port, Proto, Tuple, csum};

use crate::packet::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6};

/// From the outer IP header to the inner frame's type.
pub const HEADERS: usize = 50;
pub const WORDS: usize = HEADERS / 2;

const IP_WORDS: usize = 10;
const TTL: u16 = 64;
/// The first word of an IPv4 header without options.
const PLAIN: u16 = 0x4500u16.to_be();
const FRAGMENT: u16 = 0x3fffu16.to_be();
const TTL_AND_UDP: u16 = (TTL << 8 | Proto::UDP.number as u16).to_be();
/// "The identifier is valid", the only flag there is.
const FLAGS: u16 = 0x0800u16.to_be();
/// Source ports are from here on, as RFC 7348 recommends.
const PORTS: u16 = 0xc000;

/// What a node puts around a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    pub from: Addr,
    pub to: Addr,
    pub src_port: Port,
    pub dst_port: Port,
    pub vni: u32,
    /// Of the IP header: only what is fragmented on its way needs it.
    pub id: u16,
}

impl Outer {
    /// The words between the outer and the inner Ethernet header of a frame of `length` bytes, and
    /// that inner header.
    #[inline(always)]
    pub fn words(&self, length: u32, inner_macs: &[u32; 3], v6: bool) -> [u16; WORDS] {
        let udp = length as u16 + 16;
        let (from, to) = (halves(self.from.v4_wire()), halves(self.to.v4_wire()));
        let mut words = [0u16; WORDS];
        words[0] = PLAIN;
        words[1] = (udp + 20).to_be();
        words[2] = self.id;
        words[4] = TTL_AND_UDP;
        [words[6], words[7]] = from;
        [words[8], words[9]] = to;
        let mut sum = 0;
        let mut at = 0;
        while at < IP_WORDS {
            sum += u32::from(words[at]);
            at += 1;
        }
        words[5] = csum::finish(sum);
        words[10] = self.src_port.wire;
        words[11] = self.dst_port.wire;
        words[12] = udp.to_be();
        words[14] = FLAGS;
        [words[16], words[17]] = halves((self.vni << 8).to_be());
        [words[18], words[19]] = halves(inner_macs[0]);
        [words[20], words[21]] = halves(inner_macs[1]);
        [words[22], words[23]] = halves(inner_macs[2]);
        words[24] = if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        words
    }

    /// Of the words between a frame's own header and the one inside, and whether that is IPv6's;
    /// `None` for anything but a whole packet of VXLAN as [`Outer::words`] writes it.
    #[inline(always)]
    pub fn read(words: &[u16; WORDS]) -> Option<(Outer, bool)> {
        let unlike = words[0] ^ PLAIN
            | words[3] & FRAGMENT
            | (words[4] ^ TTL_AND_UDP) & 0x00ffu16.to_be()
            | words[13]
            | words[14] ^ FLAGS
            | words[15]
            | words[17] & 0x00ffu16.to_be();
        let v6 = words[24] == ETHERTYPE_IPV6;
        let is_ip = v6 || words[24] == ETHERTYPE_IPV4;
        if unlike != 0
            || !is_ip
            || csum::finish(csum::add(0, words.first_chunk::<IP_WORDS>()?)) != 0
        {
            return None;
        }
        let outer = Outer {
            from: Addr::from_v4_wire(joined([words[6], words[7]])),
            to: Addr::from_v4_wire(joined([words[8], words[9]])),
            src_port: Port::from_wire(words[10]),
            dst_port: Port::from_wire(words[11]),
            vni: u32::from_be(joined([words[16], words[17]])) >> 8,
            id: words[2],
        };
        Some((outer, v6))
    }
}

/// The source port of a flow's outer packets: what spreads flows over paths and queues.
#[inline(always)]
pub fn source_port(tuple: &Tuple) -> Port {
    let ports = u32::from(tuple.src_port.wire) << 16 | u32::from(tuple.dst_port.wire);
    let mixed = (tuple.src.low_word() ^ tuple.dst.low_word().rotate_left(16) ^ ports)
        .wrapping_mul(0x9e37_79b1);
    Port::new(PORTS | (mixed >> 18) as u16)
}

#[inline(always)]
const fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

#[inline(always)]
const fn joined(halves: [u16; 2]) -> u32 {
    let ([a, b], [c, d]) = (halves[0].to_ne_bytes(), halves[1].to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}
