//! Answers for Services' external addresses on the uplink's link, in place of the node's stack,
//! which does not know them.

use aya_ebpf::helpers::generated::bpf_skb_change_tail;
use orchestrator_common::maps::config::Config;
use orchestrator_common::{Addr, DropReason, Mac, Rule, Trace, Verdict};

use crate::maps;
use crate::neighbour::{self, ARP_WORDS};
use crate::packet::{ETHERNET, Icmp};
use crate::skb::{Packet, done};

/// Turns an ARP request for an announced address into its reply; `None` if it is not one.
#[inline(always)]
pub fn arp(packet: &Packet, config: &Config) -> Option<Trace> {
    replied(packet, arp_reply(packet, &config.uplink_mac))
}

/// The same of a neighbour solicitation.
#[inline(always)]
pub fn neighbour(packet: &Packet, config: &Config) -> Option<Trace> {
    let headers = &packet.headers;
    if headers.icmp != Icmp::Other || !headers.is_v6() || headers.ttl != neighbour::HOPS {
        return None;
    }
    replied(packet, advertisement(packet, &config.uplink_mac))
}

/// Out again where the question came in.
#[inline(always)]
fn replied(packet: &Packet, done: Result<(), DropReason>) -> Option<Trace> {
    done.ok().map(|()| Trace {
        verdict: Verdict::Reply,
        target: packet.ifindex(),
        vtep: 1,
        reason: DropReason::None,
        rule: Rule::Announced,
    })
}

// An error of these is only that there is nothing to answer.

#[inline(never)]
fn arp_reply(packet: &Packet, mac: &Mac) -> Result<(), DropReason> {
    let arp = packet.load::<[u16; ARP_WORDS]>(ETHERNET as u32)?;
    let target = neighbour::asked(&arp).ok_or(DropReason::NotIp)?;
    check(&target, mac)?;
    packet.store(0, &neighbour::reply(&arp, *mac), 0)
}

#[inline(never)]
fn advertisement(packet: &Packet, mac: &Mac) -> Result<(), DropReason> {
    let l4 = packet.headers.l4;
    if packet.load::<u8>(l4)? != neighbour::SOLICITATION {
        return Err(DropReason::NotIp);
    }
    let target = packet.load::<Addr>(l4 + 8)?;
    check(&target, mac)?;
    let asker_mac = Mac::new(packet.load(6)?);
    let frame = neighbour::advertisement(&target, *mac, &packet.headers.tuple.src, asker_mac);
    // SAFETY: the context.
    done(unsafe { bpf_skb_change_tail(packet.skb, size_of_val(&frame) as u32, 0) })?;
    packet.store(0, &frame, 0)
}

/// Whether this node answers for the address, and knows with what.
#[inline(always)]
fn check(target: &Addr, mac: &Mac) -> Result<(), DropReason> {
    if !mac.same(&Mac::NONE) && maps::is_announced(target) {
        Ok(())
    } else {
        Err(DropReason::NoEndpoint)
    }
}
