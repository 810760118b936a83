//! Turns a packet that nobody will answer into its refusal and sends it back: connection refused at
//! once, no timeout.

use aya_ebpf::bindings::{BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC};
use aya_ebpf::helpers::generated::{bpf_skb_adjust_room, bpf_skb_change_tail};
use orchestrator_common::{DropReason, Rule, Trace, Verdict};

use crate::maps;
use crate::packet::{ETHERNET, IPV4, TCP_RST};
use crate::refusal::{self, ICMP, QUOTE, TCP};
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
    send_back(packet)?;
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

/// Not inlined, for the stack: it is not where most packets come along.
#[inline(never)]
fn send_back(packet: &Packet) -> Result<(), DropReason> {
    if packet.headers.is_udp() {
        port_unreachable(packet)?;
    } else {
        reset(packet)?;
    }
    turn_around(packet)
}

#[inline(always)]
fn port_unreachable(packet: &Packet) -> Result<(), DropReason> {
    let quote = packet.load::<QUOTE>(ETHERNET as u32)?;
    let headers = refusal::port_unreachable(&packet.headers.tuple, &quote);
    resize(packet, (ETHERNET + QUOTE) as u32)?;
    let room = (IPV4 + ICMP) as i32;
    // SAFETY: the context; a positive difference makes room behind the Ethernet header.
    done(unsafe { bpf_skb_adjust_room(packet.skb, room, BPF_ADJ_ROOM_MAC, 0) })?;
    packet.store(ETHERNET as u32, &headers, u64::from(BPF_F_RECOMPUTE_CSUM))
}

#[inline(always)]
fn reset(packet: &Packet) -> Result<(), DropReason> {
    let segment = packet.load::<TCP>(packet.headers.l4)?;
    let payload = packet.payload_after(u32::from(segment[12] >> 4) * 4)?;
    let headers = refusal::reset(&packet.headers.tuple, &segment, payload);
    resize(packet, (ETHERNET + IPV4 + TCP) as u32)?;
    packet.store(ETHERNET as u32, &headers, u64::from(BPF_F_RECOMPUTE_CSUM))
}

/// Cuts the packet; that also makes an ordinary one of a segmentation-offload packet.
#[inline(always)]
fn resize(packet: &Packet, length: u32) -> Result<(), DropReason> {
    // SAFETY: the context.
    done(unsafe { bpf_skb_change_tail(packet.skb, length, 0) })
}

#[inline(always)]
fn turn_around(packet: &Packet) -> Result<(), DropReason> {
    let macs = packet.load::<12>(0)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = macs;
    packet.store(0, &[g, h, i, j, k, l, a, b, c, d, e, f], 0)
}
