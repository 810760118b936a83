//! Direct server return, an option: a client outside is answered by the backend's own node, in the
//! name of the address that it asked. Only IPv4: the inner frame's source, which nobody reads, has
//! room for one such address and a port. What does not fit takes the translation address instead.

use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::{Addr, DropReason, Mac, Port, Rule, Scope, Trace};

use crate::conntrack;
use crate::forward;
use crate::maps;
use crate::skb::Packet;

/// In the VXLAN identifier: the inner frame's source is an address and a port.
const DIRECT: u32 = 0x80_0000;

#[inline(always)]
pub const fn is_on(config: &Config) -> bool {
    config.flags & Config::DSR != 0
}

/// The VXLAN identifier of packets whose answers do not come back.
#[inline(always)]
pub const fn vni(config: &Config) -> u32 {
    config.vni | DIRECT
}

/// The inner frame of a packet to a backend: its source is what the client asked.
#[inline(always)]
pub fn frame(addr: &Addr, port: Port) -> [u32; 3] {
    let ([a, b, c, d], [e, f]) = (addr.v4_wire().to_ne_bytes(), port.wire.to_ne_bytes());
    Mac::frame(Mac::OVERLAY_DEVICE, Mac::new([a, b, c, d, e, f]))
}

/// What the client asked, of such a frame.
#[inline(always)]
fn asked(frame: &[u8; 12]) -> (Addr, Port) {
    let [.., a, b, c, d, e, f] = *frame;
    let addr = Addr::from_v4_wire(u32::from_ne_bytes([a, b, c, d]));
    (addr, Port::from_wire(u16::from_ne_bytes([e, f])))
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
    if !packet.headers.has_ports() {
        return Err(DropReason::Fragment);
    }
    let (addr, port) = asked(&packet.load::<[u8; 12]>(0)?);
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
