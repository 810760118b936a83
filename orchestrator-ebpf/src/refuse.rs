//! Turns a packet that nobody will answer into its refusal and sends it back: connection refused at
//! once, no timeout.

use core::mem::size_of_val;

use aya_ebpf::bindings::{BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC};
use aya_ebpf::helpers::generated::bpf_skb_adjust_room;
use orchestrator_common::maps::config::Config;
use orchestrator_common::{DropReason, Rule, Trace, Tuple, Verdict};

use crate::packet::{ETHERNET, Fragment, TCP_RST};
use crate::refusal::{
    self, IPV4_WORDS, IPV6_WORDS, Message, QUOTED_TCP_WORDS, QUOTED_WORDS, TCP_WORDS,
};
use crate::skb::{Packet, done};
use crate::{forward, maps};

/// Refuses what has no backend; any other reason stays a drop.
#[inline(always)]
pub fn instead_of_drop(packet: &mut Packet, reason: DropReason) -> Result<Trace, DropReason> {
    if !matches!(reason, DropReason::NoBackend | DropReason::NoService) {
        return Err(reason);
    }
    // Options would have to be quoted, and a reset is never answered.
    if packet.headers.has_options() || packet.headers.tcp_flags & TCP_RST != 0 {
        return Err(reason);
    }
    let told = &packet.headers.tuple;
    match (packet.headers.is_tcp(), packet.headers.is_v6()) {
        (false, false) => tell(packet, told, Message::PORT_UNREACHABLE)?,
        (false, true) => tell_v6(packet, told, Message::PORT_UNREACHABLE_V6)?,
        (true, false) => reset(packet)?,
        (true, true) => reset_v6(packet)?,
    }
    back(packet, Verdict::Refuse, reason, Rule::Service)
}

/// Tells the sender of a packet that the overlay does not carry how large one may be: path MTU
/// discovery (RFC 1191, RFC 8201). What was translated already is taken back first, for the sender
/// knows only what it sent.
#[inline(never)]
pub fn too_big(packet: &mut Packet, mtu: u32, rule: Rule) -> Result<Trace, DropReason> {
    if !may_be_told(packet) {
        return Err(DropReason::TooBig);
    }
    take_back(packet)?;
    let told = &packet.headers.tuple;
    if packet.headers.is_v6() {
        tell_at_length_v6(packet, told, Message::packet_too_big(mtu))?;
    } else {
        tell_at_length(packet, told, Message::fragmentation_needed(mtu))?;
    }
    back(packet, Verdict::Reply, DropReason::TooBig, rule)
}

/// Tells the sender of a packet that it came no further than to this node, in the name of the address
/// that the node has on that side. So one can trace a route.
#[inline(never)]
pub fn ttl_exceeded(packet: &mut Packet, config: &Config, rule: Rule) -> Result<Trace, DropReason> {
    // Of a datagram in pieces the first is told of.
    if !may_be_told(packet) || packet.headers.fragment == Fragment::Later {
        return Err(DropReason::TtlExceeded);
    }
    take_back(packet)?;
    let family = forward::family(packet, config);
    let own = if packet.ifindex() == config.uplink {
        family.node
    } else {
        family.gateway
    };
    packet.headers.becomes = packet.headers.tuple;
    packet.headers.becomes.dst = own;
    let told = &packet.headers.becomes;
    match (packet.headers.is_tcp(), packet.headers.is_v6()) {
        (false, false) => tell(packet, told, Message::TTL_EXCEEDED)?,
        (false, true) => tell_v6(packet, told, Message::HOPS_EXCEEDED)?,
        (true, false) => tell_at_length(packet, told, Message::TTL_EXCEEDED)?,
        (true, true) => tell_at_length_v6(packet, told, Message::HOPS_EXCEEDED)?,
    }
    back(packet, Verdict::Reply, DropReason::TtlExceeded, rule)
}

/// No error about an error (RFC 1122, section 3.2.2; RFC 4443, section 2.4) nor, with IPv4, about
/// later pieces; none into a tunnel without a key; and IPv4's options would have to be quoted.
#[inline(always)]
fn may_be_told(packet: &Packet) -> bool {
    let headers = &packet.headers;
    let is_plain = !headers.has_options() && headers.fragment != Fragment::Later;
    headers.is_tunnelled == 0 && (is_plain || headers.is_v6()) && !headers.is_icmp_error()
}

/// Makes a packet again what its sender sent.
#[inline(always)]
fn take_back(packet: &mut Packet) -> Result<(), DropReason> {
    if packet.headers.is_translated != 0 {
        packet.headers.becomes = packet.headers.original;
        packet.rewrite_own()?;
    }
    Ok(())
}

/// Sends what was made of a packet to where that came from.
#[inline(always)]
fn back(
    packet: &Packet,
    verdict: Verdict,
    reason: DropReason,
    rule: Rule,
) -> Result<Trace, DropReason> {
    turn_around(packet)?;
    let pod = maps::endpoint(&packet.headers.tuple.src).is_some_and(|asker| !asker.is_host());
    // A pod gets it by peer redirect, the node through `orch-net` and others through the uplink:
    // `vtep` is free to tell the exit which.
    Ok(Trace {
        verdict,
        target: packet.ifindex(),
        vtep: u32::from(!pod),
        reason,
        rule,
    })
}

// Those that write headers are not inlined, for the stack: few packets come along there. `told` is the
// packet that an error answers.

#[inline(never)]
fn tell(packet: &Packet, told: &Tuple, message: Message) -> Result<(), DropReason> {
    answer::<{ IPV4_WORDS + QUOTED_WORDS }, _>(packet, |words, quote| {
        refusal::error(words, told, quote, message)
    })
}

#[inline(never)]
fn tell_v6(packet: &Packet, told: &Tuple, message: Message) -> Result<(), DropReason> {
    answer::<{ IPV6_WORDS + QUOTED_WORDS }, _>(packet, |words, quote| {
        refusal::error_v6(words, told, quote, message)
    })
}

#[inline(never)]
fn tell_at_length(packet: &Packet, told: &Tuple, message: Message) -> Result<(), DropReason> {
    answer::<{ IPV4_WORDS + QUOTED_TCP_WORDS }, _>(packet, |words, quote| {
        refusal::error(words, told, quote, message)
    })
}

#[inline(never)]
fn tell_at_length_v6(packet: &Packet, told: &Tuple, message: Message) -> Result<(), DropReason> {
    answer::<{ IPV6_WORDS + QUOTED_TCP_WORDS }, _>(packet, |words, quote| {
        refusal::error_v6(words, told, quote, message)
    })
}

/// Makes an ICMP error of a packet: `write` gives the headers that go before what is quoted.
#[inline(always)]
fn answer<const QUOTE: usize, const HEADERS: usize>(
    packet: &Packet,
    write: impl FnOnce(&mut [u16; HEADERS], &[u16; QUOTE]),
) -> Result<(), DropReason> {
    let (quote, headers) = draft::<QUOTE, HEADERS>()?;
    packet.load_into(ETHERNET as u32, quote)?;
    write(headers, quote);
    packet.resize((ETHERNET + size_of_val(quote)) as u32)?;
    let room = size_of_val(headers) as i32;
    // SAFETY: the context; a positive difference makes room behind the Ethernet header.
    done(unsafe { bpf_skb_adjust_room(packet.skb, room, BPF_ADJ_ROOM_MAC, 0) })?;
    packet.store(ETHERNET as u32, headers, u64::from(BPF_F_RECOMPUTE_CSUM))
}

#[inline(never)]
fn reset(packet: &Packet) -> Result<(), DropReason> {
    overwrite(packet, refusal::reset)
}

#[inline(never)]
fn reset_v6(packet: &Packet) -> Result<(), DropReason> {
    overwrite(packet, refusal::reset_v6)
}

/// Makes the reset of a segment, from its TCP header and the length of its payload.
#[inline(always)]
fn overwrite<const HEADERS: usize>(
    packet: &Packet,
    write: impl FnOnce(&mut [u16; HEADERS], &Tuple, &[u16; TCP_WORDS], u32),
) -> Result<(), DropReason> {
    let (segment, headers) = draft::<TCP_WORDS, HEADERS>()?;
    packet.load_into(packet.headers.l4, segment)?;
    let header = u32::from(segment[6].to_be() >> 12) * 4;
    let payload = packet.payload_after(header)?;
    write(headers, &packet.headers.tuple, segment, payload);
    packet.resize((ETHERNET + size_of_val(headers)) as u32)?;
    packet.store(ETHERNET as u32, headers, u64::from(BPF_F_RECOMPUTE_CSUM))
}

/// Room for what is read of a packet and what is written.
#[inline(always)]
fn draft<const QUOTE: usize, const HEADERS: usize>()
-> Result<(&'static mut [u16; QUOTE], &'static mut [u16; HEADERS]), DropReason> {
    let draft = maps::draft()?;
    let quote = draft.quote.first_chunk_mut();
    match (quote, draft.headers.first_chunk_mut()) {
        (Some(quote), Some(headers)) => Ok((quote, headers)),
        _ => Err(DropReason::Helper),
    }
}

#[inline(always)]
fn turn_around(packet: &Packet) -> Result<(), DropReason> {
    let [a, b, c, d, e, f] = packet.load::<[u16; 6]>(0)?;
    packet.store(0, &[d, e, f, a, b, c], 0)
}
