//! Where a packet goes: `route` for what an endpoint sent, `deliver` as the one way to a local
//! endpoint.

use core::mem::{offset_of, size_of};

use orchestrator_common::maps::config::{Config, Family};
use orchestrator_common::maps::endpoints::Endpoint;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::{Addr, DropReason, Mac, Proto, Rule, Trace, Tuple, Verdict};

use crate::packet::Headers;
use crate::skb::Packet;
use crate::{dsr, icmp, lb, maps, path, refuse, tunnel};

/// In the first word of an IPv6 address.
const MULTICAST: u32 = 0xff00_0000u32.to_be();
const LINK_LOCAL: u32 = 0xfe80_0000u32.to_be();
const LINK_LOCAL_MASK: u32 = 0xffc0_0000u32.to_be();

/// The addresses of every frame in the overlay.
pub const OVERLAY_FRAME: [u32; 3] = Mac::frame(Mac::OVERLAY_DEVICE, Mac::OVERLAY_SENDER);

/// What the node is in the packet's family.
#[inline(always)]
pub fn family<'a>(packet: &Packet, config: &'a Config) -> &'a Family {
    family_of(packet.headers, config)
}

#[inline(always)]
pub fn family_of<'a>(headers: &Headers, config: &'a Config) -> &'a Family {
    // Computed, not chosen, so that the verifier has one way to walk: v6 follows v4 in the row.
    const { assert!(offset_of!(Config, v6) == offset_of!(Config, v4) + size_of::<Family>()) };
    let at = usize::from(headers.v6 & 1) * size_of::<Family>();
    // SAFETY: both are in the row, see above.
    unsafe { &*(&raw const config.v4).byte_add(at) }
}

/// Pods speak IPv6's neighbour protocols without need, for their neighbours are permanent: what is
/// only for the link ends here, as ARP does.
#[inline(always)]
pub fn check_link_local(packet: &Packet) -> Result<(), DropReason> {
    let tuple = &packet.headers.tuple;
    let own =
        tuple.src.words[0] & LINK_LOCAL_MASK == LINK_LOCAL || tuple.src.same(&Addr::UNSPECIFIED);
    if packet.headers.is_v6() && (own || !is_unicast_v6(&tuple.dst)) {
        return Err(DropReason::NotUnicast);
    }
    Ok(())
}

/// An endpoint may send only from its own addresses, and errors only about what it was sent. The
/// node itself also speaks for packets that it forwards.
#[inline(always)]
pub fn check_source(packet: &Packet) -> Result<(), DropReason> {
    let source = maps::endpoint(&packet.headers.tuple.src).ok_or(DropReason::SourceSpoofed)?;
    let is_own = source.ifindex == packet.ifindex() && packet.is_from(&source.mac);
    let is_told = packet.headers.is_icmp_error() && !source.is_host();
    if !is_own || is_told && !icmp::is_about_own(packet) {
        return Err(DropReason::SourceSpoofed);
    }
    Ok(())
}

/// Sends a packet of a local endpoint on its way.
#[inline(always)]
pub fn route(packet: &mut Packet, config: &Config, rule: Rule) -> Result<Trace, DropReason> {
    let to = packet.headers.tuple.dst;
    let family = family(packet, config);
    if family.pods.contains(&to) {
        let share = to.masked(&family.node_mask);
        if share.same(&family.gateway.masked(&family.node_mask)) {
            let endpoint = maps::endpoint(&to).ok_or(DropReason::NoEndpoint)?;
            return deliver(packet, endpoint, rule);
        }
        return to_node(packet, config, &share, rule);
    }
    if let Some(endpoint) = maps::endpoint(&to) {
        return deliver(packet, endpoint, rule);
    }
    to_outside(packet, config, rule)
}

/// Sends on what came from another host: an answer to the translation address to who is behind it.
/// Not inlined, for the stack.
#[inline(never)]
pub fn send_on(packet: &mut Packet, config: &Config) -> Result<Trace, DropReason> {
    let family = family(packet, config);
    if packet.headers.tuple.dst.same(&family.translation) {
        lb::to_asker(packet)?;
    }
    let rule = packet.headers.rule;
    route(packet, config, rule)
}

/// Hands a packet to a local endpoint. Every hook comes here: a peer redirect skips the host veth's
/// egress, so what protects or translates for an endpoint may live only here.
#[inline(always)]
pub fn deliver(packet: &mut Packet, endpoint: &Endpoint, rule: Rule) -> Result<Trace, DropReason> {
    // Only a Service leads back to who asked, and then in another's name.
    let is_error = matches!(rule, Rule::IcmpError);
    if endpoint.ifindex == packet.ifindex() && !is_service(rule) && !is_error {
        return Err(DropReason::Hairpin);
    }
    let rule = admit(packet, endpoint, rule)?;
    if endpoint.is_queued() {
        packet.mark_queued();
    }
    let verdict = if endpoint.is_redirected() {
        Verdict::Node
    } else {
        Verdict::Peer
    };
    Ok(Trace {
        verdict,
        target: endpoint.ifindex,
        vtep: 0,
        reason: DropReason::None,
        rule,
    })
}

/// What is done to a packet before an endpoint sees it.
#[inline(always)]
pub fn admit(packet: &mut Packet, endpoint: &Endpoint, rule: Rule) -> Result<Rule, DropReason> {
    let reply = if is_service(rule) {
        None
    } else {
        lb::to_service(packet)?
    };
    packet.set_macs(&endpoint.frame())?;
    Ok(match (reply, rule) {
        (Some(reply), _) => reply,
        (None, Rule::None) => Rule::LocalEndpoint,
        (None, rule) => rule,
    })
}

/// A packet that is translated already.
#[inline(always)]
const fn is_service(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::Service | Rule::ServiceReply | Rule::DirectReturn
    )
}

#[inline(always)]
fn to_node(
    packet: &mut Packet,
    config: &Config,
    share: &Addr,
    rule: Rule,
) -> Result<Trace, DropReason> {
    let node = maps::node(share).ok_or(DropReason::NoNode)?;
    // The other side takes from this node only what its share of the pod range sends, or what says
    // that its answer is to go straight to the client.
    let is_direct = !family(packet, config)
        .pods
        .contains(&packet.headers.tuple.src);
    if is_direct && !dsr::may_send(config, rule) {
        return Err(DropReason::SourceSpoofed);
    }
    let room = if is_direct { dsr::room(packet) } else { 0 };
    let mtu = path::mtu(packet, config, node, room);
    if mtu != 0 && mtu != path::IN_PIECES {
        return refuse::too_big(packet, mtu, rule);
    }
    let (mut vni, mut frame) = (config.vni, OVERLAY_FRAME);
    if is_direct {
        (vni, frame) = (dsr::vni(config), dsr::frame(packet)?);
    }
    let (verdict, target) =
        if packet.is_single(config.mtu) && wrap(packet, config, vni, &node.vtep, &frame) {
            packet.headers.is_neighbour = (node.flags & Node::NEIGHBOUR != 0).into();
            (Verdict::Tunnel, config.uplink)
        } else {
            packet.set_tunnel(vni, &config.underlay, &node.vtep)?;
            packet.set_macs(&frame)?;
            let through = match mtu {
                path::IN_PIECES => config.cut,
                _ => config.overlay,
            };
            (Verdict::Overlay, through)
        };
    Ok(Trace {
        verdict,
        target,
        vtep: node.vtep.low_word(),
        reason: DropReason::None,
        rule: if let Rule::None = rule {
            Rule::RemotePod
        } else {
            rule
        },
    })
}

/// Of the outer packet that takes a packet to another node.
#[inline(always)]
pub fn tunnel_ends(packet: &Packet, config: &Config, to: &Addr) -> Tuple {
    Tuple {
        src: config.underlay,
        dst: *to,
        src_port: tunnel::source_port(&packet.headers.tuple),
        dst_port: config.vxlan_port,
        proto: Proto::UDP,
        ..packet.headers.tuple
    }
}

/// Encapsulates a packet that is one on the wire. `false`: it is as it was. Not inlined, for the
/// stack.
#[inline(never)]
fn wrap(packet: &Packet, config: &Config, vni: u32, to: &Addr, frame: &[u32; 3]) -> bool {
    let ends = tunnel_ends(packet, config, to);
    to.is_v4() && packet.wrap(&ends, vni, frame)
}

#[inline(always)]
fn to_outside(packet: &mut Packet, config: &Config, rule: Rule) -> Result<Trace, DropReason> {
    if !is_unicast(&packet.headers.tuple.dst) {
        return Err(DropReason::NotUnicast);
    }
    if packet.headers.ttl <= 1 {
        return refuse::ttl_exceeded(packet, config, rule);
    }
    packet.decrement_ttl()?;
    Ok(Trace {
        verdict: Verdict::Outside,
        target: config.uplink,
        vtep: 0,
        reason: DropReason::None,
        rule: if let Rule::None = rule {
            Rule::Default
        } else {
            rule
        },
    })
}

/// Whether the destination is somebody's who may be elsewhere: not a group, not this link, not this
/// host.
#[inline(always)]
pub fn is_unicast(to: &Addr) -> bool {
    if !to.is_v4() {
        let words = &to.words;
        let loopback = words[0] | words[1] | words[2] == 0 && words[3] == 1u32.to_be();
        return is_unicast_v6(to) && !loopback && !to.same(&Addr::UNSPECIFIED);
    }
    let first = to.v4_wire().to_ne_bytes()[0];
    first < 224 && first != 127 && first != 0
}

/// Neither ff00::/8 nor fe80::/10.
#[inline(always)]
fn is_unicast_v6(to: &Addr) -> bool {
    to.words[0] & MULTICAST != MULTICAST && to.words[0] & LINK_LOCAL_MASK != LINK_LOCAL
}

/// Lets a packet go on through the node's stack.
#[inline(always)]
pub fn pass(rule: Rule) -> Trace {
    Trace {
        verdict: Verdict::Pass,
        target: 0,
        vtep: 0,
        reason: DropReason::None,
        rule,
    }
}
