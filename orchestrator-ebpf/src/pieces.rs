//! An outer packet of IPv6 in two pieces, as bytes: for paths that do not carry it whole (RFC 8200,
//! section 4.5). Every link carries either piece. Pure.

use orchestrator_common::Proto;

use crate::packet::{ETHERNET, ETHERTYPE_IPV6, IPV6};
use crate::tunnel::{
    ETHERNET_WORDS, IPV6_WORDS, OUTER_V6, Passage, UDP, VXLAN, halves, write_ethernet, write_ipv6,
    write_vxlan,
};

const FRAGMENT: usize = 8;
const FRAGMENT_HEADER: u8 = 44;
const MORE: u16 = 1;

/// What stands before the frame's part in either piece.
pub const BEFORE_FIRST: usize = OUTER_V6 + FRAGMENT;
pub const BEFORE_SECOND: usize = ETHERNET + IPV6 + FRAGMENT;

/// The largest frame that every link carries whole.
pub const WHOLE: usize = 1280 + ETHERNET - OUTER_V6;
/// So much of a larger one is in the first piece.
pub const FIRST: usize = 640;
/// So much at most in the second.
pub const MOST: usize = 1024;

/// Where the second begins in the packet that they make.
const OFFSET: usize = UDP + VXLAN + FIRST;
const _: () = assert!(OFFSET.is_multiple_of(8));
const _: () = assert!(BEFORE_FIRST + FIRST - ETHERNET <= 1280);
const _: () = assert!(BEFORE_SECOND + MOST - ETHERNET <= 1280);

/// Of the packet that is being cut: more than a program's stack holds.
#[repr(C)]
pub struct Pieces {
    pub whole: [u16; OUTER_V6 / 2],
    pub first: [u16; BEFORE_FIRST / 2],
    pub second: [u16; BEFORE_SECOND / 2],
    pub rest: [u8; MOST],
}

/// The headers of both pieces of a frame, which `id` holds together.
#[inline(always)]
pub fn write(pieces: &mut Pieces, it: &Passage<'_>, id: u32) {
    let (first, rest) = (UDP + VXLAN + FIRST, it.length as usize - FIRST);
    write_piece(&mut pieces.first, it, first as u16, MORE, id);
    write_vxlan(&mut pieces.first[BEFORE_SECOND / 2..], it);
    write_piece(&mut pieces.second, it, rest as u16, OFFSET as u16, id);
}

/// `field` is the offset in bytes and whether more follows.
#[inline(always)]
fn write_piece(words: &mut [u16], it: &Passage<'_>, length: u16, field: u16, id: u32) {
    write_ethernet(words, it.way, ETHERTYPE_IPV6);
    let ip = &mut words[ETHERNET_WORDS..];
    write_ipv6(ip, it, FRAGMENT as u16 + length, FRAGMENT_HEADER);
    let fragment = &mut ip[IPV6_WORDS..];
    fragment[0] = (u16::from(Proto::UDP.number) << 8).to_be();
    fragment[1] = field.to_be();
    [fragment[2], fragment[3]] = halves(id);
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use orchestrator_common::{Addr, Port, Tuple};

    use super::*;

    const FRAME: usize = 1294;

    fn pieces(length: usize) -> [Vec<u8>; 2] {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        let ends = Tuple {
            src: addr("fd31::11"),
            dst: addr("fd31::12"),
            src_port: Port::new(0xc007),
            dst_port: Port::new(4789),
            proto: Proto::UDP,
            ..Tuple::default()
        };
        let passage = Passage {
            way: &[0; 3],
            ends: &ends,
            vni: 1,
            length: length as u16,
            class: 2,
            id: 0,
        };
        let mut pieces = Pieces {
            whole: [0xffff; _],
            first: [0xffff; _],
            second: [0xffff; _],
            rest: [0; _],
        };
        write(&mut pieces, &passage, 0x0102_0304);
        let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        [bytes(&pieces.first), bytes(&pieces.second)]
    }

    fn number(bytes: &[u8]) -> usize {
        usize::from(u16::from_be_bytes(bytes.try_into().unwrap()))
    }

    #[test]
    fn two_pieces_make_one_datagram_of_the_tunnel() {
        let [first, second] = pieces(FRAME);
        for piece in [&first, &second] {
            assert_eq!(piece[12..18], [0x86, 0xdd, 0x60, 0x20, 0, 0]);
            assert_eq!(piece[20..22], [FRAGMENT_HEADER, 64]);
            assert_eq!(piece[22..24], [0xfd, 0x31]);
            assert_eq!((piece[37], piece[53]), (0x11, 0x12));
            assert_eq!(piece[54..56], [17, 0]);
        }
        assert_eq!(first[58..62], second[58..62], "one datagram's");
        let sent = [&first, &second].map(|piece| number(&piece[18..20]) - FRAGMENT);
        let [at, then] = [&first, &second].map(|piece| number(&piece[56..58]));
        assert_eq!(
            (at, then),
            (1, sent[0]),
            "the second goes on where the first ends"
        );
        let datagram = number(&first[66..68]);
        assert_eq!(datagram, sent[0] + sent[1]);
        assert_eq!(datagram, UDP + VXLAN + FRAME);
        assert_eq!(first[62..66], [0xc0, 7, 0x12, 0xb5]);
        assert_eq!(first[68..], [0, 0, 8, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(first.len() + FIRST - ETHERNET, 40 + FRAGMENT + sent[0]);
    }
}
