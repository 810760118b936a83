//! Turns a packet that nobody will answer into its refusal and sends it back: connection refused at
//! once, no timeout.

use core::mem::size_of_val;

use aya_ebpf::bindings::{BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC};
use aya_ebpf::helpers::generated::{bpf_skb_adjust_room, bpf_skb_change_tail};
use orchestrator_common::maps::config::Config;
use orchestrator_common::{DropReason, Rule, Trace, Tuple, Verdict};

use crate::maps;
use crate::packet::{ETHERNET, TCP_RST};
use crate::refusal::{
    self, IPV4_WORDS, IPV6_WORDS, Message, QUOTED_TCP_WORDS, QUOTED_WORDS, TCP_WORDS,
};
use crate::skb::{Packet, done};

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
    match (packet.headers.is_tcp(), packet.headers.is_v6()) {
        (false, false) => port_unreachable(packet)?,
        (false, true) => port_unreachable_v6(packet)?,
        (true, false) => reset(packet)?,
        (true, true) => reset_v6(packet)?,
    }
    back(packet, Verdict::Refuse, reason, Rule::Service)
}

/// Tells the sender of a packet that the overlay does not carry how large it may be: path MTU
/// discovery (RFC 1191, RFC 8201). What was translated already is taken back first, for the sender
/// knows only what it sent.
#[inline(never)]
pub fn too_big(packet: &mut Packet, config: &Config, rule: Rule) -> Result<Trace, DropReason> {
    let from_overlay = packet.ifindex() == config.overlay;
    let options = packet.headers.has_options() && !packet.headers.is_v6();
    // No error about an error (RFC 1122, section 3.2.2), and none into a tunnel without a key.
    if from_overlay || options || packet.headers.is_icmp_error() {
        return Err(DropReason::TooBig);
    }
    if packet.headers.is_translated != 0 {
        let sent = packet.headers.original;
        packet.headers.becomes = sent;
        packet.rewrite_own()?;
    }
    if packet.headers.is_v6() {
        too_big_v6(packet, config.mtu)?;
    } else {
        fragmentation_needed(packet, config.mtu)?;
    }
    back(packet, Verdict::Reply, DropReason::TooBig, rule)
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

// Those that write headers are not inlined, for the stack: few packets come along there.

#[inline(never)]
fn port_unreachable(packet: &Packet) -> Result<(), DropReason> {
    answer::<{ IPV4_WORDS + QUOTED_WORDS }, _>(packet, |words, tuple, quote| {
        refusal::error(words, tuple, quote, Message::PORT_UNREACHABLE)
    })
}

#[inline(never)]
fn port_unreachable_v6(packet: &Packet) -> Result<(), DropReason> {
    answer::<{ IPV6_WORDS + QUOTED_WORDS }, _>(packet, |words, tuple, quote| {
        refusal::error_v6(words, tuple, quote, Message::PORT_UNREACHABLE_V6)
    })
}

#[inline(never)]
fn fragmentation_needed(packet: &Packet, mtu: u32) -> Result<(), DropReason> {
    answer::<{ IPV4_WORDS + QUOTED_TCP_WORDS }, _>(packet, |words, tuple, quote| {
        refusal::error(words, tuple, quote, Message::fragmentation_needed(mtu))
    })
}

#[inline(never)]
fn too_big_v6(packet: &Packet, mtu: u32) -> Result<(), DropReason> {
    answer::<{ IPV6_WORDS + QUOTED_TCP_WORDS }, _>(packet, |words, tuple, quote| {
        refusal::error_v6(words, tuple, quote, Message::packet_too_big(mtu))
    })
}

/// Makes an ICMP error of a packet: `write` gives the headers that go before what is quoted.
#[inline(always)]
fn answer<const QUOTE: usize, const HEADERS: usize>(
    packet: &Packet,
    write: impl FnOnce(&mut [u16; HEADERS], &Tuple, &[u16; QUOTE]),
) -> Result<(), DropReason> {
    let (quote, headers) = draft::<QUOTE, HEADERS>()?;
    packet.load_into(ETHERNET as u32, quote)?;
    write(headers, &packet.headers.tuple, quote);
    resize(packet, ETHERNET + size_of_val(quote))?;
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
    resize(packet, ETHERNET + size_of_val(headers))?;
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

/// Cuts the packet; that also makes an ordinary one of a segmentation-offload packet.
#[inline(always)]
fn resize(packet: &Packet, length: usize) -> Result<(), DropReason> {
    // SAFETY: the context.
    done(unsafe { bpf_skb_change_tail(packet.skb, length as u32, 0) })
}

#[inline(always)]
fn turn_around(packet: &Packet) -> Result<(), DropReason> {
    let [a, b, c, d, e, f] = packet.load::<[u16; 6]>(0)?;
    packet.store(0, &[d, e, f, a, b, c], 0)
}
