//! Who has an address of a link: ARP (RFC 826) and neighbour solicitations (RFC 4861), read and
//! answered as words. Pure.
//!
//! Words are 16 bits that lie in network order and are read natively.

use orchestrator_common::{Addr, Mac, Proto, csum};

use crate::packet::{ETHERNET, IPV6};

pub const ARP_WORDS: usize = 14;
const ETHERNET_WORDS: usize = ETHERNET / 2;
const IPV6_WORDS: usize = IPV6 / 2;
/// An advertisement with the option of its sender's link address.
const ADVERTISEMENT_WORDS: usize = 16;

pub const ARP_FRAME: usize = ETHERNET_WORDS + ARP_WORDS;
pub const ADVERTISEMENT_FRAME: usize = ETHERNET_WORDS + IPV6_WORDS + ADVERTISEMENT_WORDS;

pub const SOLICITATION: u8 = 135;
/// What neighbour discovery is sent with, so that nothing from beyond the link is believed.
pub const HOPS: u8 = 255;

const ETHERTYPE_ARP: u16 = 0x0806u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();
const REQUEST: u16 = 1u16.to_be();
const REPLY: u16 = 2u16.to_be();
const SOLICITED: u16 = 0x4000;
const OVERRIDE: u16 = 0x2000;
const ALL_NODES: Addr = Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const ALL_NODES_MAC: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);

/// The address that an ARP packet asks for; `None` if it asks for none, or tells.
#[inline(always)]
pub fn asked(arp: &[u16; ARP_WORDS]) -> Option<Addr> {
    let ethernet_and_ipv4 = [1u16.to_be(), 0x0800u16.to_be(), 0x0604u16.to_be(), REQUEST];
    let announces_itself = arp[7] == arp[12] && arp[8] == arp[13];
    if arp[0] != ethernet_and_ipv4[0]
        || arp[1] != ethernet_and_ipv4[1]
        || arp[2] != ethernet_and_ipv4[2]
        || arp[3] != ethernet_and_ipv4[3]
        || announces_itself
    {
        return None;
    }
    Some(Addr::from_v4_wire(joined([arp[12], arp[13]])))
}

/// The frame that answers an ARP packet with `mac`.
#[inline(always)]
pub fn reply(arp: &[u16; ARP_WORDS], mac: Mac) -> [u16; ARP_FRAME] {
    let mut words = [0u16; ARP_FRAME];
    let (asker, own) = ([arp[4], arp[5], arp[6]], words_of(mac));
    [words[0], words[1], words[2]] = asker;
    [words[3], words[4], words[5]] = own;
    words[6] = ETHERTYPE_ARP;
    [words[7], words[8], words[9]] = [arp[0], arp[1], arp[2]];
    words[10] = REPLY;
    [words[11], words[12], words[13]] = own;
    [words[14], words[15]] = [arp[12], arp[13]];
    [words[16], words[17], words[18]] = asker;
    [words[19], words[20]] = [arp[7], arp[8]];
    words
}

/// The frame that answers a solicitation for `target` with `mac`; `asker` is who asked, unspecified
/// while it still finds out whether its own address is free.
#[inline(always)]
pub fn advertisement(
    target: &Addr,
    mac: Mac,
    asker: &Addr,
    asker_mac: Mac,
) -> [u16; ADVERTISEMENT_FRAME] {
    let mut words = [0u16; ADVERTISEMENT_FRAME];
    let nobody = asker.same(&Addr::UNSPECIFIED);
    let (to, to_mac) = if nobody {
        (&ALL_NODES, ALL_NODES_MAC)
    } else {
        (asker, asker_mac)
    };
    [words[0], words[1], words[2]] = words_of(to_mac);
    [words[3], words[4], words[5]] = words_of(mac);
    words[6] = ETHERTYPE_IPV6;
    words[7] = 0x6000u16.to_be();
    let length = (2 * ADVERTISEMENT_WORDS as u16).to_be();
    words[9] = length;
    let next = u16::from(Proto::ICMPV6.number);
    words[10] = (next << 8 | u16::from(HOPS)).to_be();
    write_addr(&mut words[11..19], target);
    write_addr(&mut words[19..27], to);
    words[27] = 0x8800u16.to_be();
    words[29] = (if nobody { 0 } else { SOLICITED } | OVERRIDE).to_be();
    write_addr(&mut words[31..39], target);
    words[39] = 0x0201u16.to_be();
    [words[40], words[41], words[42]] = words_of(mac);
    let pseudo = u32::from(length) + u32::from(next.to_be());
    words[28] = csum::finish(csum::add(pseudo, &words[11..]));
    words
}

#[inline(always)]
fn words_of(mac: Mac) -> [u16; 3] {
    let [a, b, c, d, e, f] = mac.octets;
    [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes)
}

#[inline(always)]
fn joined(halves: [u16; 2]) -> u32 {
    let ([a, b], [c, d]) = (halves[0].to_ne_bytes(), halves[1].to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

#[inline(always)]
fn write_addr(words: &mut [u16], addr: &Addr) {
    let mut at = 0;
    while at < 4 {
        let [a, b, c, d] = addr.words[at].to_ne_bytes();
        words[2 * at] = u16::from_ne_bytes([a, b]);
        words[2 * at + 1] = u16::from_ne_bytes([c, d]);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 0xaa]);
    const ASKER: Mac = Mac::new([2, 0, 0, 0, 0, 0xbb]);

    fn bytes(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn arp(operation: u8, from: [u8; 4], to: [u8; 4]) -> [u16; ARP_WORDS] {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation];
        arp.extend(ASKER.octets);
        arp.extend(from);
        arp.extend([0; 6]);
        arp.extend(to);
        core::array::from_fn(|at| u16::from_ne_bytes([arp[2 * at], arp[2 * at + 1]]))
    }

    #[test]
    fn an_arp_request_asks_and_its_reply_tells_who_asked() {
        let request = arp(1, [172, 31, 0, 1], [172, 31, 9, 9]);
        assert_eq!(asked(&request).unwrap().to_string(), "172.31.9.9");
        let reply = bytes(&reply(&request, OWN));
        assert_eq!(
            reply[..14],
            [&ASKER.octets[..], &OWN.octets, &[8, 6]].concat()
        );
        assert_eq!(reply[14..22], [0, 1, 8, 0, 6, 4, 0, 2]);
        assert_eq!(reply[22..32], [&OWN.octets[..], &[172, 31, 9, 9]].concat());
        assert_eq!(reply[32..], [&ASKER.octets[..], &[172, 31, 0, 1]].concat());
    }

    #[test]
    fn what_only_tells_asks_for_nothing() {
        assert_eq!(asked(&arp(2, [172, 31, 0, 1], [172, 31, 9, 9])), None);
        assert_eq!(asked(&arp(1, [172, 31, 9, 9], [172, 31, 9, 9])), None);
        let mut foreign = arp(1, [172, 31, 0, 1], [172, 31, 9, 9]);
        foreign[1] = 0x86ddu16.to_be();
        assert_eq!(asked(&foreign), None);
    }

    #[test]
    fn an_advertisement_sums_up_and_names_the_link_address() {
        let target = Addr::from_octets([0xfd, 0x31, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9]);
        let asker = Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        for (asker, to, flags) in [
            (asker, ASKER, 0x60),
            (Addr::UNSPECIFIED, ALL_NODES_MAC, 0x20),
        ] {
            let words = advertisement(&target, OWN, &asker, ASKER);
            let pseudo = u32::from(32u16.to_be()) + u32::from(58u16.to_be());
            assert_eq!(csum::finish(csum::add(pseudo, &words[11..])), 0);
            let frame = bytes(&words);
            assert_eq!(frame[..6], to.octets);
            assert_eq!(frame[6..12], OWN.octets);
            assert_eq!(frame[20..22], [58, 255]);
            assert_eq!(frame[22..38], target.octets());
            assert_eq!((frame[54], frame[58]), (136, flags));
            assert_eq!(frame[62..78], target.octets());
            assert_eq!(frame[78..], [&[2, 1][..], &OWN.octets].concat());
        }
    }
}
