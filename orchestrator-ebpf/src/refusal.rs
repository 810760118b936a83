//! The words of a refusal: what a host whose port is closed would answer. Pure.
//!
//! Headers are arrays of 16-bit words that lie in network order and are read natively.

use orchestrator_common::{Addr, Proto, Tuple, csum};

use crate::packet::{IPV4, IPV6, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// Lengths in words.
pub const ICMP_WORDS: usize = 4;
pub const TCP_WORDS: usize = 10;
pub const IPV4_WORDS: usize = IPV4 / 2;
pub const IPV6_WORDS: usize = IPV6 / 2;
/// What an ICMP error quotes behind the IP header without options: enough to find the socket.
pub const QUOTED_WORDS: usize = 4;
/// The same of a packet that may be a segment whose checksum the card fills in: that place has to
/// stay in the packet.
pub const QUOTED_TCP_WORDS: usize = 10;

const TTL: u16 = 64;
const DONT_FRAGMENT: u16 = 0x4000;

/// Room for a refusal while it is written: what is quoted of the packet, or its TCP header; and the
/// headers that go before. Too large for the stack.
#[repr(C)]
pub struct Draft {
    pub quote: [u16; IPV6_WORDS + QUOTED_TCP_WORDS],
    pub headers: [u16; IPV6_WORDS + TCP_WORDS],
}

/// What an ICMP error says: type and code, and the word behind the checksum.
#[derive(Clone, Copy)]
pub struct Message {
    type_and_code: u16,
    word: u32,
}

impl Message {
    pub const PORT_UNREACHABLE: Message = Message {
        type_and_code: 0x0303,
        word: 0,
    };
    pub const PORT_UNREACHABLE_V6: Message = Message {
        type_and_code: 0x0104,
        word: 0,
    };

    pub const TTL_EXCEEDED: Message = Message {
        type_and_code: 0x0b00,
        word: 0,
    };
    pub const HOPS_EXCEEDED: Message = Message {
        type_and_code: 0x0300,
        word: 0,
    };

    /// RFC 1191: the next hop's MTU.
    pub const fn fragmentation_needed(mtu: u32) -> Message {
        Message {
            type_and_code: 0x0304,
            word: mtu & 0xffff,
        }
    }

    /// RFC 4443, section 3.2.
    pub const fn packet_too_big(mtu: u32) -> Message {
        Message {
            type_and_code: 0x0200,
            word: mtu,
        }
    }
}

/// The IPv4 and ICMP headers that go before `quote`.
#[inline(always)]
pub fn error<const QUOTE: usize>(
    words: &mut [u16; IPV4_WORDS + ICMP_WORDS],
    refused: &Tuple,
    quote: &[u16; QUOTE],
    message: Message,
) {
    *words = [0; IPV4_WORDS + ICMP_WORDS];
    let length = 2 * (IPV4_WORDS + ICMP_WORDS + QUOTE);
    write_ipv4(words, refused, Proto::ICMP, length as u16);
    write_icmp(&mut words[IPV4_WORDS..], 0, quote, message);
}

/// The IPv6 and ICMPv6 headers that go before `quote`.
#[inline(always)]
pub fn error_v6<const QUOTE: usize>(
    words: &mut [u16; IPV6_WORDS + ICMP_WORDS],
    refused: &Tuple,
    quote: &[u16; QUOTE],
    message: Message,
) {
    *words = [0; IPV6_WORDS + ICMP_WORDS];
    let length = 2 * (ICMP_WORDS + QUOTE) as u16;
    let pseudo = write_ipv6(words, refused, Proto::ICMPV6, length);
    write_icmp(&mut words[IPV6_WORDS..], pseudo, quote, message);
}

/// The IPv4 and TCP headers that reset the sender of `segment` (its TCP header) with `payload`
/// bytes behind it.
#[inline(always)]
pub fn reset(
    words: &mut [u16; IPV4_WORDS + TCP_WORDS],
    refused: &Tuple,
    segment: &[u16; TCP_WORDS],
    payload: u32,
) {
    *words = [0; IPV4_WORDS + TCP_WORDS];
    let length = 2 * (IPV4_WORDS + TCP_WORDS) as u16;
    write_ipv4(words, refused, Proto::TCP, length);
    let tcp = 2 * TCP_WORDS as u16 + u16::from(Proto::TCP.number);
    let pseudo = csum::add(u32::from(tcp.to_be()), &words[6..IPV4_WORDS]);
    write_reset(&mut words[IPV4_WORDS..], pseudo, segment, payload);
}

/// The same of IPv6.
#[inline(always)]
pub fn reset_v6(
    words: &mut [u16; IPV6_WORDS + TCP_WORDS],
    refused: &Tuple,
    segment: &[u16; TCP_WORDS],
    payload: u32,
) {
    *words = [0; IPV6_WORDS + TCP_WORDS];
    let pseudo = write_ipv6(words, refused, Proto::TCP, 2 * TCP_WORDS as u16);
    write_reset(&mut words[IPV6_WORDS..], pseudo, segment, payload);
}

#[inline(always)]
fn write_icmp(words: &mut [u16], pseudo: u32, quote: &[u16], message: Message) {
    words[0] = message.type_and_code.to_be();
    words[2] = ((message.word >> 16) as u16).to_be();
    words[3] = (message.word as u16).to_be();
    words[1] = csum::finish(csum::add(csum::add(pseudo, &words[..ICMP_WORDS]), quote));
}

/// A TCP header behind a pseudo header of that sum.
#[inline(always)]
fn write_reset(words: &mut [u16], pseudo: u32, segment: &[u16; TCP_WORDS], payload: u32) {
    words[0] = segment[1];
    words[1] = segment[0];
    let flags = segment[6].to_be() as u8;
    if flags & TCP_ACK != 0 {
        words[2] = segment[4];
        words[3] = segment[5];
        words[6] = reset_flags(TCP_RST);
    } else {
        let sent = u32::from(segment[2].to_be()) << 16 | u32::from(segment[3].to_be());
        let mut next = sent.wrapping_add(payload);
        // A SYN and a FIN count as a byte each.
        next = next.wrapping_add(u32::from(flags & TCP_SYN != 0));
        next = next.wrapping_add(u32::from(flags & TCP_FIN != 0));
        words[4] = ((next >> 16) as u16).to_be();
        words[5] = (next as u16).to_be();
        words[6] = reset_flags(TCP_RST | TCP_ACK);
    }
    words[8] = csum::finish(csum::add(pseudo, &words[..TCP_WORDS]));
}

/// The word of TCP's header length and flags.
#[inline(always)]
const fn reset_flags(flags: u8) -> u16 {
    (5 << 12 | flags as u16).to_be()
}

/// A header from the refused packet's destination to its source.
#[inline(always)]
fn write_ipv4(words: &mut [u16], refused: &Tuple, proto: Proto, length: u16) {
    words[0] = 0x4500u16.to_be();
    words[1] = length.to_be();
    words[3] = DONT_FRAGMENT.to_be();
    words[4] = (TTL << 8 | u16::from(proto.number)).to_be();
    let (from, to) = (halves(refused.dst.words[3]), halves(refused.src.words[3]));
    [words[6], words[7]] = from;
    [words[8], words[9]] = to;
    words[5] = csum::finish(csum::add(0, &words[..IPV4_WORDS]));
}

/// The same of IPv6, where the checksum is the transport's: the sum of its pseudo header.
#[inline(always)]
fn write_ipv6(words: &mut [u16], refused: &Tuple, proto: Proto, length: u16) -> u32 {
    words[0] = 0x6000u16.to_be();
    words[2] = length.to_be();
    words[3] = (u16::from(proto.number) << 8 | TTL).to_be();
    write_addr(&mut words[4..12], &refused.dst);
    write_addr(&mut words[12..20], &refused.src);
    let rest = u32::from(length.to_be()) + u32::from(u16::from(proto.number).to_be());
    csum::add(rest, &words[4..20])
}

#[inline(always)]
fn write_addr(words: &mut [u16], addr: &Addr) {
    let mut at = 0;
    while at < 4 {
        [words[2 * at], words[2 * at + 1]] = halves(addr.words[at]);
        at += 1;
    }
}

/// The two words that lie where a longer one lies.
#[inline(always)]
fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
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

    /// What a function wrote over what was there before.
    fn written<const N: usize>(write: impl FnOnce(&mut [u16; N])) -> [u16; N] {
        let mut words = [0xabcd; N];
        write(&mut words);
        words
    }

    fn bytes(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn segment(bytes: [u8; 20]) -> [u16; TCP_WORDS] {
        core::array::from_fn(|at| u16::from_ne_bytes([bytes[2 * at], bytes[2 * at + 1]]))
    }

    #[test]
    fn an_unreachable_port_sums_up_with_its_quote() {
        let quote: [u16; 14] = core::array::from_fn(|at| at as u16 * 3333);
        let words = written(|words| {
            error(
                words,
                &refused(Proto::UDP),
                &quote,
                Message::PORT_UNREACHABLE,
            )
        });
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
        let words = written(|words| reset(words, &refused(Proto::TCP), &segment(syn), 0));
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
        let reset = bytes(&written(|words| {
            reset(words, &refused(Proto::TCP), &segment(ack), 100)
        }));
        assert_eq!(reset[24..28], [1, 2, 3, 4]);
        assert_eq!(reset[33], TCP_RST);
    }

    fn refused_v6(proto: Proto) -> Tuple {
        let addr = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().unwrap());
        Tuple {
            src: addr("fd00:100::5"),
            dst: addr("fd00:96::53"),
            ..refused(proto)
        }
    }

    /// What the receiver adds up: everything behind the pseudo header of the words' own addresses.
    fn sum_v6(words: &[u16], proto: Proto, rest: &[u16]) -> u16 {
        let length = (2 * (words.len() - IPV6_WORDS + rest.len())) as u16;
        let pseudo = u32::from(length.to_be()) + u32::from(u16::from(proto.number).to_be());
        csum::finish(csum::add(csum::add(pseudo, &words[4..]), rest))
    }

    #[test]
    fn an_ipv6_error_sums_up_with_its_quote_and_says_the_mtu() {
        let quote: [u16; 30] = core::array::from_fn(|at| at as u16 * 2000);
        let words = written(|words| {
            error_v6(
                words,
                &refused_v6(Proto::UDP),
                &quote,
                Message::packet_too_big(70_000),
            )
        });
        assert_eq!(sum_v6(&words, Proto::ICMPV6, &quote), 0);
        let bytes = bytes(&words);
        assert_eq!(bytes[4..8], [0, 68, 58, 64]);
        assert_eq!(bytes[40..42], [2, 0]);
        assert_eq!(bytes[44..48], 70_000u32.to_be_bytes());
    }

    #[test]
    fn fragmentation_needed_says_the_mtu() {
        let message = Message::fragmentation_needed(1450);
        let words = written(|words| error(words, &refused(Proto::TCP), &[0x1234; 20], message));
        assert_eq!(bytes(&words)[20..22], [3, 4]);
        assert_eq!(bytes(&words)[24..28], [0, 0, 5, 0xaa]);
    }

    #[test]
    fn an_ipv6_syn_is_reset_with_its_number_acknowledged() {
        let mut syn = [0u8; 20];
        syn[..8].copy_from_slice(&[0x9c, 0x40, 0, 53, 0, 0, 0, 9]);
        syn[13] = TCP_SYN;
        let words = written(|words| reset_v6(words, &refused_v6(Proto::TCP), &segment(syn), 0));
        assert_eq!(sum_v6(&words, Proto::TCP, &[]), 0);
        let reset = bytes(&words);
        assert_eq!(reset[40..44], [0, 53, 0x9c, 0x40]);
        assert_eq!(reset[48..52], [0, 0, 0, 10]);
        assert_eq!(reset[23], 0x53);
        assert_eq!(reset[39], 5);
    }
}
