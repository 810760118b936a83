//! The bytes of a refusal: what a host whose port is closed would answer. Pure.

use orchestrator_common::{Tuple, csum};

use crate::packet::{IPV4, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

pub const ICMP: usize = 8;
pub const TCP: usize = 20;
/// What an ICMP error quotes of the refused packet: its IPv4 header without options and eight
/// bytes.
pub const QUOTE: usize = IPV4 + 8;

const TTL: u8 = 64;

/// The IPv4 and ICMP headers that go before `quote`.
#[inline(always)]
pub fn port_unreachable(refused: &Tuple, quote: &[u8; QUOTE]) -> [u8; IPV4 + ICMP] {
    let mut bytes = [0u8; IPV4 + ICMP];
    write_ipv4(&mut bytes, refused, 1, (IPV4 + ICMP + QUOTE) as u16);
    bytes[20] = 3; // destination unreachable
    bytes[21] = 3; // port
    let check = csum::finish(csum::add(0x0303, quote));
    bytes[22] = check[0];
    bytes[23] = check[1];
    bytes
}

/// The IPv4 and TCP headers that reset the sender of `segment` (its TCP header) with `payload`
/// bytes behind it.
#[inline(always)]
pub fn reset(refused: &Tuple, segment: &[u8; TCP], payload: u32) -> [u8; IPV4 + TCP] {
    let mut bytes = [0u8; IPV4 + TCP];
    write_ipv4(&mut bytes, refused, 6, (IPV4 + TCP) as u16);
    copy(&mut bytes, 20, &segment[2..4]);
    copy(&mut bytes, 22, &segment[0..2]);
    let flags = segment[13];
    if flags & TCP_ACK != 0 {
        copy(&mut bytes, 24, &segment[8..12]);
        bytes[33] = TCP_RST;
    } else {
        let sent = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        let mut next = sent.wrapping_add(payload);
        if flags & TCP_SYN != 0 {
            next = next.wrapping_add(1);
        }
        if flags & TCP_FIN != 0 {
            next = next.wrapping_add(1);
        }
        copy(&mut bytes, 28, &next.to_be_bytes());
        bytes[33] = TCP_RST | TCP_ACK;
    }
    bytes[32] = 5 << 4;
    let pseudo = csum::add(6 + TCP as u32, &bytes[12..20]);
    let check = csum::finish(csum::add(pseudo, &bytes[20..40]));
    bytes[36] = check[0];
    bytes[37] = check[1];
    bytes
}

/// A header from the refused packet's destination to its source.
#[inline(always)]
fn write_ipv4(bytes: &mut [u8], refused: &Tuple, proto: u8, length: u16) {
    bytes[0] = 0x45;
    copy(bytes, 2, &length.to_be_bytes());
    bytes[6] = 0x40; // don't fragment
    bytes[8] = TTL;
    bytes[9] = proto;
    copy(bytes, 12, &refused.dst.v4_wire().to_ne_bytes());
    copy(bytes, 16, &refused.src.v4_wire().to_ne_bytes());
    let check = csum::finish(csum::add(0, &bytes[..IPV4]));
    bytes[10] = check[0];
    bytes[11] = check[1];
}

/// A loop that unrolls: the kernel has no memcpy to call.
#[inline(always)]
fn copy(to: &mut [u8], at: usize, from: &[u8]) {
    let mut index = 0;
    while index < from.len() {
        to[at + index] = from[index];
        index += 1;
    }
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

    #[test]
    fn an_unreachable_port_sums_up_with_its_quote() {
        let quote: [u8; QUOTE] = core::array::from_fn(|index| index as u8 * 7);
        let bytes = port_unreachable(&refused(Proto::UDP), &quote);
        assert_eq!(csum::finish(csum::add(0, &bytes[..20])), [0, 0]);
        assert_eq!(
            csum::finish(csum::add(csum::add(0, &bytes[20..]), &quote)),
            [0, 0]
        );
        assert_eq!(&bytes[12..20], &[10, 96, 0, 53, 10, 100, 1, 5]);
        assert_eq!(u16::from_be_bytes([bytes[2], bytes[3]]), 56);
    }

    #[test]
    fn a_syn_is_reset_with_its_number_acknowledged() {
        let mut segment = [0u8; TCP];
        segment[..8].copy_from_slice(&[0x9c, 0x40, 0, 53, 0xff, 0xff, 0xff, 0xff]);
        segment[13] = TCP_SYN;
        let bytes = reset(&refused(Proto::TCP), &segment, 0);
        assert_eq!(&bytes[20..24], &[0, 53, 0x9c, 0x40]);
        assert_eq!(&bytes[28..32], &[0, 0, 0, 0]);
        assert_eq!(bytes[33], TCP_RST | TCP_ACK);
        let pseudo = csum::add(6 + 20, &bytes[12..20]);
        assert_eq!(csum::finish(csum::add(pseudo, &bytes[20..])), [0, 0]);
    }

    #[test]
    fn an_acknowledging_segment_is_reset_with_the_number_that_it_expects() {
        let mut segment = [0u8; TCP];
        segment[8..12].copy_from_slice(&[1, 2, 3, 4]);
        segment[13] = TCP_ACK;
        let bytes = reset(&refused(Proto::TCP), &segment, 100);
        assert_eq!(&bytes[24..28], &[1, 2, 3, 4]);
        assert_eq!(bytes[33], TCP_RST);
    }
}
