//! Direct server return, an option: a client outside is answered by the backend's own node, in the
//! name of the address that it asked. The packet to that node says which address and port that was:
//! with IPv4 the inner frame's source, which nobody reads; with IPv6, for which that is too short, an
//! extension header that is there only on the way. Later pieces of a datagram and ICMP errors need
//! none.

use aya_ebpf::bindings::{
    BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_NET,
};
use aya_ebpf::helpers::generated::bpf_skb_adjust_room;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::{Addr, DropReason, Mac, Port, Rule, Scope, Trace, Tuple};

use crate::carried::{Carried, ROOM};
use crate::packet::{DESTINATION_OPTIONS, ETHERNET, Fragment, IPV6, IPV6_LENGTH, IPV6_NEXT};
use crate::skb::{Packet, done};
use crate::{conntrack, forward, maps};

/// In the VXLAN identifier: the packet's answers do not come back.
const DIRECT: u32 = 0x80_0000;

const BEHIND_IPV6: u32 = (ETHERNET + IPV6) as u32;

#[inline(always)]
pub const fn is_on(config: &Config) -> bool {
    config.flags & Config::DSR != 0
}

/// The VXLAN identifier of packets whose answers do not come back.
#[inline(always)]
pub const fn vni(config: &Config) -> u32 {
    config.vni | DIRECT
}

/// Whether the overlay carries a packet of somebody outside: one that a Service takes, or an error
/// about its answers.
#[inline(always)]
pub fn may_send(config: &Config, rule: Rule) -> bool {
    is_on(config) && matches!(rule, Rule::Service | Rule::IcmpError)
}

/// How much longer a packet gets on the way to its backend's node.
#[inline(always)]
pub fn room(packet: &Packet) -> u32 {
    if packet.headers.is_v6() && packet.headers.has_ports() {
        ROOM
    } else {
        0
    }
}

/// The inner frame of a packet to a backend. It says what the client asked, or the packet now does.
#[inline(always)]
pub fn frame(packet: &mut Packet) -> Result<[u32; 3], DropReason> {
    if packet.headers.is_v6() {
        if room(packet) != 0 {
            carry(packet)?;
        }
        return Ok(forward::OVERLAY_FRAME);
    }
    let Tuple { dst, dst_port, .. } = packet.headers.original;
    let ([a, b, c, d], [e, f]) = (dst.v4_wire().to_ne_bytes(), dst_port.wire.to_ne_bytes());
    Ok(Mac::frame(
        Mac::OVERLAY_DEVICE,
        Mac::new([a, b, c, d, e, f]),
    ))
}

/// What the client asked, of such a frame.
#[inline(always)]
fn asked(frame: &[u8; 12]) -> (Addr, Port) {
    let [.., a, b, c, d, e, f] = *frame;
    let addr = Addr::from_v4_wire(u32::from_ne_bytes([a, b, c, d]));
    (addr, Port::from_wire(u16::from_ne_bytes([e, f])))
}

/// Puts what the client asked behind the IPv6 header.
#[inline(never)]
fn carry(packet: &mut Packet) -> Result<(), DropReason> {
    let asked = &packet.headers.original;
    let carried = Carried::new(packet.load(IPV6_NEXT)?, asked.dst, asked.dst_port);
    make_room(packet, ROOM as i32)?;
    packet.store(BEHIND_IPV6, &carried, BPF_F_RECOMPUTE_CSUM.into())?;
    packet.store(IPV6_NEXT, &DESTINATION_OPTIONS, BPF_F_RECOMPUTE_CSUM.into())
}

/// Takes that away again.
#[inline(never)]
fn take(packet: &mut Packet) -> Result<(Addr, Port), DropReason> {
    let carried = packet.load::<Carried>(BEHIND_IPV6)?;
    if !carried.is_sound(packet.load(IPV6_NEXT)?) {
        return Err(DropReason::Malformed);
    }
    make_room(packet, -(ROOM as i32))?;
    packet.store(IPV6_NEXT, &carried.next, BPF_F_RECOMPUTE_CSUM.into())?;
    packet.headers.l4 -= ROOM;
    Ok((carried.addr, carried.port))
}

/// So many bytes more behind the IPv6 header, in each segment as in the whole.
#[inline(always)]
fn make_room(packet: &Packet, more: i32) -> Result<(), DropReason> {
    let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
    // SAFETY: the context.
    done(unsafe { bpf_skb_adjust_room(packet.skb, more, BPF_ADJ_ROOM_NET, flags) })?;
    let length = u16::from_be(packet.load(IPV6_LENGTH)?);
    // One beyond 64 KiB, which is still to be cut, says 0.
    if length == 0 {
        return Ok(());
    }
    let length = length.wrapping_add(more as u16).to_be();
    packet.store(IPV6_LENGTH, &length, BPF_F_RECOMPUTE_CSUM.into())
}

/// Delivers a client's packet that another node sent on, and sees to it that the answers leave from
/// here. Who may do so is a node of this cluster, under its address of the underlay.
#[inline(always)]
pub fn receive(packet: &mut Packet, config: &Config) -> Result<Trace, DropReason> {
    let sender = &packet.headers.sender;
    let is_node = |node: &Node| node.flags & Node::VTEP != 0 && node.vtep.same(sender);
    if !is_on(config) || !maps::node(sender).is_some_and(is_node) {
        return Err(DropReason::TunnelSpoofed);
    }
    // A pod's address comes from its own node only, and in its own name.
    if forward::family(packet, config)
        .pods
        .contains(&packet.headers.tuple.src)
    {
        return Err(DropReason::TunnelSpoofed);
    }
    let backend = packet.headers.tuple;
    let endpoint = maps::endpoint(&backend.dst).ok_or(DropReason::NoEndpoint)?;
    // Their flow is that of the first piece, or of what they quote.
    if packet.headers.fragment == Fragment::Later || packet.headers.is_icmp_error() {
        return forward::deliver(packet, endpoint, Rule::DirectReturn);
    }
    if !packet.headers.has_ports() {
        return Err(DropReason::UnsupportedProtocol);
    }
    let (addr, port) = if packet.headers.is_v6() {
        take(packet)?
    } else {
        asked(&packet.load::<[u8; 12]>(0)?)
    };
    if packet.headers.is_sctp() && port.wire != backend.dst_port.wire {
        return Err(DropReason::SctpPort);
    }
    let tuple = &mut packet.headers.tuple;
    (tuple.dst, tuple.dst_port, tuple.scope) = (addr, port, Scope::SERVICE);
    keep(packet, backend.dst, backend.dst_port)?;
    let tuple = &mut packet.headers.tuple;
    (tuple.dst, tuple.dst_port) = (backend.dst, backend.dst_port);
    forward::deliver(packet, endpoint, Rule::DirectReturn)
}

/// The flow from the client to what it asked, towards the backend. Not inlined, for the stack.
#[inline(never)]
fn keep(packet: &mut Packet, backend: Addr, port: Port) -> Result<(), DropReason> {
    match maps::flow(&packet.headers.tuple) {
        Some(flow)
            if flow.direction == Flow::FORWARD
                && flow.translated.dst.same(&backend)
                && flow.translated.dst_port.wire == port.wire =>
        {
            conntrack::touch(flow, packet.headers);
            Ok(())
        }
        _ => {
            let opening = conntrack::begin(packet.headers)?;
            (opening.translated.dst, opening.translated.dst_port) = (backend, port);
            conntrack::open(opening)
        }
    }
}
