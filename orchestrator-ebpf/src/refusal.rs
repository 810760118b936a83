//! The words of a refusal: what a host whose port is closed would answer. Pure.
//!
//! Headers are arrays of 16-bit words that lie in network order and are read natively.

use orchestrator_common::{Tuple, csum};

use crate::packet::{IPV4, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// Lengths in words.
pub const ICMP_WORDS: usize = 4;
pub const TCP_WORDS: usize = 10;
pub const IPV4_WORDS: usize = IPV4 / 2;
/// What an ICMP error quotes of the refused packet: its IPv4 header without options and eight bytes.
pub const QUOTE_WORDS: usize = IPV4_WORDS + 4;

const TTL: u16 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
const PORT_UNREACHABLE: u16 = 0x0303;

/// The IPv4 and ICMP headers that go before `quote`.
#[inline(always)]
pub fn port_unreachable(
    refused: &Tuple,
    quote: &[u16; QUOTE_WORDS],
) -> [u16; IPV4_WORDS + ICMP_WORDS] {
    let mut words = [0u16; IPV4_WORDS + ICMP_WORDS];
    let length = 2 * (IPV4_WORDS + ICMP_WORDS + QUOTE_WORDS);
    write_ipv4(&mut words, refused, 1, length as u16);
    words[10] = PORT_UNREACHABLE.to_be();
    words[11] = csum::finish(csum::add(u32::from(words[10]), quote));
    words
}

/// The IPv4 and TCP headers that reset the sender of `segment` (its TCP header) with `payload`
/// bytes behind it.
#[inline(always)]
pub fn reset(
    refused: &Tuple,
    segment: &[u16; TCP_WORDS],
    payload: u32,
) -> [u16; IPV4_WORDS + TCP_WORDS] {
    let mut words = [0u16; IPV4_WORDS + TCP_WORDS];
    write_ipv4(&mut words, refused, 6, 2 * (IPV4_WORDS + TCP_WORDS) as u16);
    words[10] = segment[1];
    words[11] = segment[0];
    let flags = segment[6].to_be() as u8;
    if flags & TCP_ACK != 0 {
        words[12] = segment[4];
        words[13] = segment[5];
        words[16] = reset_flags(TCP_RST);
    } else {
        let sent = u32::from(segment[2].to_be()) << 16 | u32::from(segment[3].to_be());
        let mut next = sent.wrapping_add(payload);
        // A SYN and a FIN count as a byte each.
        next = next.wrapping_add(u32::from(flags & TCP_SYN != 0));
        next = next.wrapping_add(u32::from(flags & TCP_FIN != 0));
        words[14] = ((next >> 16) as u16).to_be();
        words[15] = (next as u16).to_be();
        words[16] = reset_flags(TCP_RST | TCP_ACK);
    }
    // The pseudo header: both addresses, protocol, length.
    let pseudo = u32::from((6 + 2 * TCP_WORDS as u16).to_be());
    words[18] = csum::finish(csum::add(pseudo, &words[6..]));
    words
}

/// The word of TCP's header length and flags.
#[inline(always)]
const fn reset_flags(flags: u8) -> u16 {
    (5 << 12 | flags as u16).to_be()
}

/// A header from the refused packet's destination to its source.
#[inline(always)]
fn write_ipv4(words: &mut [u16], refused: &Tuple, proto: u16, length: u16) {
    words[0] = 0x4500u16.to_be();
    words[1] = length.to_be();
    words[3] = DONT_FRAGMENT.to_be();
    words[4] = (TTL << 8 | proto).to_be();
    let (from, to) = (refused.dst.v4_wire().to_be(), refused.src.v4_wire().to_be());
    words[6] = ((from >> 16) as u16).to_be();
    words[7] = (from as u16).to_be();
    words[8] = ((to >> 16) as u16).to_be();
    words[9] = (to as u16).to_be();
    words[5] = csum::finish(csum::add(0, &words[..IPV4_WORDS]));
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use orchestrator_common::{Addr, Port, Proto};

    use super::*;

    fn refused(proto: Proto) -> Tuple {
        Tuple {
            src: Addr::from(Ipv4Addr::new(10, 100, 1, 5)),
            dst: Addr::from(Ipv4Addr::new(10, 96, 0, 53)),
            src_port: Port::new(40000),
            dst_port: Port::new(53),
            proto,
            ..Tuple::default()
        }
    }

    fn bytes(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn segment(bytes: [u8; 20]) -> [u16; TCP_WORDS] {
        core::array::from_fn(|at| u16::from_ne_bytes([bytes[2 * at], bytes[2 * at + 1]]))
    }

    #[test]
    fn an_unreachable_port_sums_up_with_its_quote() {
        let quote: [u16; QUOTE_WORDS] = core::array::from_fn(|at| at as u16 * 3333);
        let words = port_unreachable(&refused(Proto::UDP), &quote);
        assert_eq!(csum::finish(csum::add(0, &words[..IPV4_WORDS])), 0);
        assert_eq!(
            csum::finish(csum::add(csum::add(0, &words[IPV4_WORDS..]), &quote)),
            0
        );
        assert_eq!(bytes(&words)[12..22], [10, 96, 0, 53, 10, 100, 1, 5, 3, 3]);
        assert_eq!(words[1].to_be(), 56);
    }

    #[test]
    fn a_syn_is_reset_with_its_number_acknowledged() {
        let mut syn = [0u8; 20];
        syn[..8].copy_from_slice(&[0x9c, 0x40, 0, 53, 0xff, 0xff, 0xff, 0xff]);
        syn[13] = TCP_SYN;
        let words = reset(&refused(Proto::TCP), &segment(syn), 0);
        let reset = bytes(&words);
        assert_eq!(reset[20..24], [0, 53, 0x9c, 0x40]);
        assert_eq!(reset[28..32], [0, 0, 0, 0]);
        assert_eq!(reset[32..34], [0x50, TCP_RST | TCP_ACK]);
        let pseudo = u32::from(26u16.to_be());
        assert_eq!(csum::finish(csum::add(pseudo, &words[6..])), 0);
    }

    #[test]
    fn an_acknowledging_segment_is_reset_with_the_number_that_it_expects() {
        let mut ack = [0u8; 20];
        ack[8..12].copy_from_slice(&[1, 2, 3, 4]);
        ack[13] = TCP_ACK;
        let reset = bytes(&reset(&refused(Proto::TCP), &segment(ack), 100));
        assert_eq!(reset[24..28], [1, 2, 3, 4]);
        assert_eq!(reset[33], TCP_RST);
    }
}
