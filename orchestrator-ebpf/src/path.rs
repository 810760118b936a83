//! What the path to another node carries. Outer packets of IPv4 are cut by who finds them too large;
//! those of IPv6 are not (the kernel does not cut what others made), so who sent what is inside has to
//! hear of a hop that is narrower than this node's link. IPv6 hosts send 1,280 bytes whatever they hear
//! (RFC 8200, section 5): those go in pieces (RFC 2473, section 7.1).

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, bpf_fib_lookup as Route, bpf_fib_lookup__bindgen_ty_1 as Length,
    bpf_fib_lookup__bindgen_ty_3 as Source, bpf_fib_lookup__bindgen_ty_4 as Destination,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use orchestrator_common::Proto;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::nodes::Node;

use crate::packet::ETHERNET;
use crate::skb::Packet;

/// IPv6, UDP, VXLAN and the inner frame's header.
const OVERHEAD: u32 = 40 + 8 + 8 + ETHERNET as u32;
/// So much every link of IPv6 carries (RFC 8200, section 5).
const LEAST: u32 = 1280;
const AF_INET6: u8 = 10;
/// In the place of a size: the packet goes in pieces.
pub const IN_PIECES: u32 = u32::MAX;

/// How large a packet may be that goes to a node with `room` bytes more in it; 0 if this one may go.
#[inline(always)]
pub fn mtu(packet: &Packet, config: &Config, node: &Node, room: u32) -> u32 {
    if packet.exceeds(config.mtu - room) {
        return bounded(packet, config, config.mtu - room);
    }
    let always = LEAST - OVERHEAD + ETHERNET as u32;
    if packet.length() + room <= always || config.underlay.is_v4() {
        return 0;
    }
    bounded(packet, config, narrowest(packet, config, node, room))
}

/// The same, but that nobody is told of less than it has to send.
#[inline(always)]
fn bounded(packet: &Packet, config: &Config, mtu: u32) -> u32 {
    if mtu == 0 || config.cut == 0 || !packet.headers.is_v6() {
        return mtu;
    }
    if packet.longest() <= LEAST {
        IN_PIECES
    } else {
        mtu.max(LEAST)
    }
}

/// Asks the kernel, which has been told of narrow hops.
#[inline(never)]
fn narrowest(packet: &Packet, config: &Config, node: &Node, room: u32) -> u32 {
    let length = packet.longest() + room + OVERHEAD;
    // SAFETY: all zero is a valid question.
    let mut route: Route = unsafe { core::mem::zeroed() };
    route.family = AF_INET6;
    route.l4_protocol = Proto::UDP.number;
    route.__bindgen_anon_1 = Length {
        tot_len: length.min(u16::MAX.into()) as u16,
    };
    // As if it came in by an interface of ours: the kernel asks that it may forward.
    route.ifindex = config.host;
    route.__bindgen_anon_3 = Source {
        ipv6_src: config.underlay.words,
    };
    route.__bindgen_anon_4 = Destination {
        ipv6_dst: node.vtep.words,
    };
    let size = core::mem::size_of::<Route>() as i32;
    // SAFETY: the context and a question of the size given, into which the answer is written.
    let (found, mtu) = unsafe {
        let found = bpf_fib_lookup(packet.skb.cast(), &mut route, size, 0);
        (found, u32::from(route.__bindgen_anon_1.mtu_result))
    };
    if found != i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) {
        return 0;
    }
    mtu.saturating_sub(OVERHEAD + room)
}
