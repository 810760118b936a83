//! Turns a packet that nobody will answer into its refusal and sends it back: connection refused at
//! once, no timeout.

use core::mem::size_of_val;

use aya_ebpf::bindings::{BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC};
use aya_ebpf::helpers::generated::{bpf_skb_adjust_room, bpf_skb_change_tail};
use orchestrator_common::{DropReason, Rule, Trace, Verdict};

use crate::maps;
use crate::packet::{ETHERNET, TCP_RST};
use crate::refusal::{self, QUOTE_WORDS, TCP_WORDS};
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
    if packet.headers.is_udp() {
        port_unreachable(packet)?;
    } else {
        reset(packet)?;
    }
    turn_around(packet)?;
    let host = maps::endpoint(&packet.headers.tuple.src).is_some_and(|endpoint| endpoint.is_host());
    // A pod gets it by peer redirect, the node through `orch-net`: `vtep` is free to tell the exit
    // which.
    Ok(Trace {
        verdict: Verdict::Refuse,
        target: packet.ifindex(),
        vtep: u32::from(host),
        reason,
        rule: Rule::Service,
    })
}

// The two that write headers are not inlined, for the stack: few packets come along there.

#[inline(never)]
fn port_unreachable(packet: &Packet) -> Result<(), DropReason> {
    let quote = packet.load::<[u16; QUOTE_WORDS]>(ETHERNET as u32)?;
    let headers = refusal::port_unreachable(&packet.headers.tuple, &quote);
    resize(packet, ETHERNET + size_of_val(&quote))?;
    let room = size_of_val(&headers) as i32;
    // SAFETY: the context; a positive difference makes room behind the Ethernet header.
    done(unsafe { bpf_skb_adjust_room(packet.skb, room, BPF_ADJ_ROOM_MAC, 0) })?;
    packet.store(ETHERNET as u32, &headers, u64::from(BPF_F_RECOMPUTE_CSUM))
}

#[inline(never)]
fn reset(packet: &Packet) -> Result<(), DropReason> {
    let segment = packet.load::<[u16; TCP_WORDS]>(packet.headers.l4)?;
    let header = u32::from(segment[6].to_be() >> 12) * 4;
    let payload = packet.payload_after(header)?;
    let headers = refusal::reset(&packet.headers.tuple, &segment, payload);
    resize(packet, ETHERNET + size_of_val(&headers))?;
    packet.store(ETHERNET as u32, &headers, u64::from(BPF_F_RECOMPUTE_CSUM))
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
