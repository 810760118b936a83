//! What neighbours are told when this node begins to answer for an address: those that have asked
//! before would go on to send to the node that answered them then, for as long as their tables say.
//!
//! Pure: the frames, and which addresses are to be told of how often yet. They leave by `link`.

use std::collections::BTreeMap;

use orchestrator_common::{Addr, Mac, csum};

/// How often an address is told of: a frame may be lost, and nobody confirms one.
const TIMES: u8 = 3;

const ALL_NODES: Addr = Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const EVERYBODY: [u8; 6] = [0xff; 6];
const ICMPV6: u8 = 58;
const ADVERTISEMENT: u8 = 136;
/// Whoever has another link address for this one takes the new one.
const OVERRIDE: u8 = 0x20;

/// The addresses that neighbours have not been told of often enough.
#[derive(Debug, Default)]
pub struct Announcements {
    /// And how often they are to be told of yet.
    due: BTreeMap<Addr, u8>,
    fresh: Vec<Addr>,
}

impl Announcements {
    /// This node answers for the address from now on.
    pub fn begin(&mut self, addr: Addr) {
        self.due.insert(addr, TIMES);
        self.fresh.push(addr);
    }

    /// This node does not answer for it any more.
    pub fn end(&mut self, addr: &Addr) {
        self.due.remove(addr);
    }

    /// Neighbours were told of the address once more.
    pub fn told(&mut self, addr: &Addr) {
        match self.due.get_mut(addr) {
            Some(left @ 2..) => *left -= 1,
            _ => drop(self.due.remove(addr)),
        }
    }

    pub fn due(&self) -> Vec<Addr> {
        self.due.keys().copied().collect()
    }

    /// Those that have come since the last call.
    pub fn fresh(&mut self) -> Vec<Addr> {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.retain(|addr| self.due.contains_key(addr));
        fresh
    }
}

/// The frame that says to everybody on a link that `addr` is at `mac`.
pub fn frame(addr: &Addr, mac: Mac) -> Vec<u8> {
    if addr.is_v4() {
        arp(addr, mac)
    } else {
        advertisement(addr, mac)
    }
}

/// A request for the sender's own address: an announcement of RFC 5227, section 2.3.
fn arp(addr: &Addr, mac: Mac) -> Vec<u8> {
    let own = &addr.v4_wire().to_ne_bytes();
    let ethernet_and_ipv4 = [0, 1, 8, 0, 6, 4, 0, 1];
    let parts: [&[u8]; 8] = [
        &EVERYBODY,
        &mac.octets,
        &[8, 6],
        &ethernet_and_ipv4,
        &mac.octets,
        own,
        &[0; 6],
        own,
    ];
    parts.concat()
}

/// An unsolicited neighbour advertisement: RFC 4861, sections 4.4 and 7.2.6.
fn advertisement(addr: &Addr, mac: Mac) -> Vec<u8> {
    let (own, all) = (addr.octets(), ALL_NODES.octets());
    let told: [&[u8]; 4] = [&[OVERRIDE, 0, 0, 0], &own, &[2, 1], &mac.octets];
    let told = told.concat();
    let length = 4 + told.len() as u8;
    let pseudo: [&[u8]; 4] = [&own, &all, &[0, length, 0, ICMPV6], &[ADVERTISEMENT, 0]];
    let covered = [pseudo.concat(), told.clone()].concat();
    let words: Vec<u16> = covered
        .chunks_exact(2)
        .map(|pair| u16::from_ne_bytes([pair[0], pair[1]]))
        .collect();
    let sum = csum::finish(csum::add(0, &words)).to_ne_bytes();
    let parts: [&[u8]; 9] = [
        &ALL_NODES_MAC,
        &mac.octets,
        &[0x86, 0xdd],
        &[0x60, 0, 0, 0, 0, length, ICMPV6, 255],
        &own,
        &all,
        &[ADVERTISEMENT, 0],
        &sum,
        &told,
    ];
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 0xaa]);

    fn addr(text: &str) -> Addr {
        text.parse::<std::net::IpAddr>().expect("an address").into()
    }

    #[test]
    fn an_arp_announcement_asks_everybody_for_the_senders_own_address() {
        let frame = frame(&addr("172.31.0.200"), OWN);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[6..14], [&OWN.octets[..], &[8, 6]].concat());
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        let own = [172, 31, 0, 200];
        assert_eq!(frame[22..32], [&OWN.octets[..], &own].concat());
        assert_eq!(frame[32..], [&[0; 6][..], &own].concat());
    }

    #[test]
    fn an_unsolicited_advertisement_overrides_and_sums_up() {
        let target = addr("fd00:31::200");
        let frame = frame(&target, OWN);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame[6..14], [&OWN.octets[..], &[0x86, 0xdd]].concat());
        assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(frame[22..38], target.octets());
        assert_eq!(frame[38..54], addr("ff02::1").octets());
        assert_eq!((frame[54], frame[55]), (136, 0));
        assert_eq!(frame[58..62], [0x20, 0, 0, 0], "override, not solicited");
        assert_eq!(frame[62..78], target.octets());
        assert_eq!(frame[78..], [&[2, 1][..], &OWN.octets].concat());
        let words = frame[22..].chunks(2).map(|it| [it[0], it[1]]);
        let words: Vec<u16> = words
            .chain([[0, 32], [0, 58]])
            .map(u16::from_ne_bytes)
            .collect();
        assert_eq!(csum::finish(csum::add(0, &words)), 0);
    }

    #[test]
    fn an_address_is_told_of_three_times_unless_it_goes() {
        let (stays, goes) = (addr("172.31.0.200"), addr("fd00:31::200"));
        let mut announcements = Announcements::default();
        announcements.begin(stays);
        announcements.begin(goes);
        announcements.end(&goes);
        assert_eq!(announcements.fresh(), [stays]);
        assert!(announcements.fresh().is_empty());
        for _ in 0..3 {
            assert_eq!(announcements.due(), [stays]);
            announcements.told(&stays);
        }
        assert!(announcements.due().is_empty());
    }
}
