//! ICMP errors about translated packets. An error quotes the packet that it is about as that was
//! where it failed: the quote's reverse is the packet of a flow, and whoever sent it must hear of
//! what they sent.

use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_l3_csum_replace};
use orchestrator_common::{Addr, DropReason, Prefix, Scope, Tuple, csum};

use crate::maps;
use crate::packet::{self, ETHERNET, Fragment, Headers, Icmp};
use crate::skb::{Packet, done};

/// An error's own header.
const ICMP: u32 = 8;

/// Where the quote would begin if an Ethernet header were before it: `Headers` count from there.
#[inline(always)]
fn frame_of_quote(headers: &Headers) -> u32 {
    headers.l4 + ICMP - ETHERNET as u32
}

/// The key of the flow that an error belongs to: the answer to the quoted packet. `None` if the
/// quote is not one of a packet that a flow could have.
#[inline(never)]
pub fn key(packet: &mut Packet, scope: Scope) -> Option<&'static Tuple> {
    let quote = maps::quote()?;
    quote.clear();
    if packet
        .parse_quote(frame_of_quote(packet.headers), quote)
        .is_err()
    {
        return None;
    }
    let has_identity =
        matches!(quote.icmp, Icmp::Echo | Icmp::EchoReply) || quote.has_port_protocol();
    if quote.fragment == Fragment::Later || !has_identity {
        return None;
    }
    quote.original = quote.tuple.reverse();
    quote.original.scope = scope;
    Some(&quote.original)
}

/// Whether an error is about a packet that was sent to who tells of it.
#[inline(never)]
pub fn is_about_own(packet: &Packet) -> bool {
    quoted_addresses(packet).is_ok_and(|[_, to]| to.same(&packet.headers.tuple.src))
}

/// Whether an error is about a packet from or to somebody of a range.
#[inline(never)]
pub fn is_about(packet: &Packet, range: &Prefix) -> bool {
    quoted_addresses(packet).is_ok_and(|[from, to]| range.contains(&from) || range.contains(&to))
}

/// Source and destination of the quoted packet, whatever else it is.
#[inline(always)]
fn quoted_addresses(packet: &Packet) -> Result<[Addr; 2], DropReason> {
    let at = frame_of_quote(packet.headers);
    if packet.headers.is_v6() {
        return packet.load(at + packet::IPV6_SRC);
    }
    let words = packet.load::<[u32; 2]>(at + packet::IPV4_SRC)?;
    Ok(words.map(Addr::from_v4_wire))
}

/// Rewrites an error as its flow's row says, `becomes` being what the answer to the quoted
/// packet becomes.
/// It then comes from where answers come from; but one of a router towards outside stays that
/// router's, or pods could not trace a route.
#[inline(never)]
pub fn rewrite(packet: &mut Packet) -> Result<(), DropReason> {
    // SAFETY: of the same row, but nothing below writes this part of it.
    let to = unsafe { &*(&raw const packet.headers.becomes) };
    let quote = maps::quote().ok_or(DropReason::Helper)?;
    let added = rewrite_quote(packet, quote, to)?;
    let is_masquerade = to.scope.number == Scope::MASQUERADE.number;
    let outer = &mut quote.original;
    outer.src = if is_masquerade && to.src.same(&quote.tuple.dst) {
        packet.headers.tuple.src
    } else {
        to.src
    };
    outer.dst = to.dst;
    readdress(packet, outer, added)
}

/// The outer addresses, and the checksum of an error whose quote's sum grew by `added`.
#[inline(always)]
fn readdress(packet: &mut Packet, to: &Tuple, added: u32) -> Result<(), DropReason> {
    let own = &packet.headers.tuple;
    let difference = address_difference(own, to);
    let mut added = added;
    if packet.headers.is_v6() {
        packet.store(packet::IPV6_SRC, &[to.src, to.dst], 0)?;
        added += difference;
    } else {
        let (skb, sum) = (packet.skb, u64::from(difference));
        // SAFETY: the context.
        done(unsafe { bpf_l3_csum_replace(skb, packet::IPV4_CHECK, 0, sum, 0) })?;
        let words = [to.src.v4_wire(), to.dst.v4_wire()];
        packet.store(packet::IPV4_SRC, &words, 0)?;
    }
    adjust(packet, packet.headers.l4 + 2, added)?;
    packet.headers.tuple.src = to.src;
    packet.headers.tuple.dst = to.dst;
    Ok(())
}

/// Makes the quoted packet the one whose answer becomes `to`, and returns what that adds to the sum
/// of the quote.
#[inline(always)]
fn rewrite_quote(packet: &Packet, quote: &mut Headers, to: &Tuple) -> Result<u32, DropReason> {
    let at = frame_of_quote(packet.headers);
    // In the map: there is no room for it on the stack.
    quote.original = to.reverse();
    let wanted = &quote.original;
    let addresses = address_difference(&quote.tuple, wanted);
    let ports = port_difference(&quote.tuple, wanted);
    // IPv4's own checksum takes back what its addresses add.
    let mut sum = ports;
    if quote.is_v6() {
        packet.store(at + packet::IPV6_SRC, &[wanted.src, wanted.dst], 0)?;
        sum += addresses;
    } else {
        let words = [wanted.src.v4_wire(), wanted.dst.v4_wire()];
        packet.store(at + packet::IPV4_SRC, &words, 0)?;
        adjust(packet, at + packet::IPV4_CHECK, addresses)?;
    }
    let l4 = at + quote.l4;
    if ports != 0 {
        replace_ports(packet, quote, l4, wanted)?;
    }
    // The transport's checksum takes back the ports, and the addresses if it has them in it; where
    // the quote does not reach to it, or there is none, nothing does.
    let check = l4 + quote.checksum_offset();
    if quote.is_sctp() || check + 2 > packet.length() {
        return Ok(sum);
    }
    if quote.is_udp() && packet.load::<u16>(check)? == 0 {
        return Ok(sum);
    }
    let mut covered = ports;
    if quote.is_v6() || !quote.is_icmp() {
        covered += addresses;
    }
    adjust(packet, check, covered)?;
    Ok(sum + csum::negative(covered))
}

#[inline(always)]
fn replace_ports(packet: &Packet, quote: &Headers, l4: u32, to: &Tuple) -> Result<(), DropReason> {
    if quote.is_sctp() {
        return Err(DropReason::SctpPort);
    }
    if quote.is_icmp() {
        let id = to.src_port.wire | to.dst_port.wire;
        return packet.store(l4 + 4, &id, 0);
    }
    packet.store(l4, &[to.src_port, to.dst_port], 0)
}

/// Sums of what replaces something less what was there: at most 17 bits.
#[inline(always)]
pub fn port_difference(from: &Tuple, to: &Tuple) -> u32 {
    let from = [from.src_port.wire, from.dst_port.wire];
    csum::difference(&from, &[to.src_port.wire, to.dst_port.wire])
}

#[inline(always)]
pub fn address_difference(from: &Tuple, to: &Tuple) -> u32 {
    const SIZE: u32 = 2 * size_of::<Addr>() as u32;
    let (from, to) = (&raw const from.src, &raw const to.src);
    // SAFETY: the destination follows the source in both.
    let sum = unsafe { bpf_csum_diff(from.cast_mut().cast(), SIZE, to.cast_mut().cast(), SIZE, 0) };
    csum::fold(sum as u32)
}

/// Takes what was added elsewhere back in a checksum.
#[inline(always)]
fn adjust(packet: &Packet, at: u32, added: u32) -> Result<(), DropReason> {
    let check = packet.load::<u16>(at)?;
    packet.store(at, &csum::adjusted(check, added), 0)
}
