//! Where a packet goes: `route` for what an endpoint sent, `deliver` as the one way to a local
//! endpoint.

use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::Endpoint;
use orchestrator_common::{Addr, DropReason, Mac, Rule, Trace, Verdict};

use crate::skb::Packet;
use crate::{lb, maps};

/// The addresses of every frame in the overlay.
const OVERLAY_FRAME: [u32; 3] = Mac::frame(Mac::OVERLAY_DEVICE, Mac::OVERLAY_SENDER);

/// An endpoint may send only from its own addresses.
#[inline(always)]
pub fn check_source(packet: &Packet) -> Result<(), DropReason> {
    match maps::endpoint(&packet.headers.tuple.src) {
        Some(endpoint) if endpoint.ifindex == packet.ifindex() => Ok(()),
        _ => Err(DropReason::SourceSpoofed),
    }
}

/// Sends a packet of a local endpoint on its way.
#[inline(always)]
pub fn route(packet: &mut Packet, config: &Config, rule: Rule) -> Result<Trace, DropReason> {
    let to = packet.headers.tuple.dst;
    if config.v4.pods.contains(&to) {
        let share = to.masked(&config.v4.node_mask);
        if share.same(&config.v4.gateway.masked(&config.v4.node_mask)) {
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

/// Hands a packet to a local endpoint. Every hook comes here: a peer redirect skips the host veth's
/// egress, so what protects or translates for an endpoint may live only here.
#[inline(always)]
pub fn deliver(packet: &mut Packet, endpoint: &Endpoint, rule: Rule) -> Result<Trace, DropReason> {
    if endpoint.ifindex == packet.ifindex() {
        return Err(DropReason::Hairpin);
    }
    let rule = admit(packet, endpoint, rule)?;
    let verdict = if endpoint.is_host() {
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
    let reply = lb::to_service(packet)?;
    packet.set_macs(&endpoint.frame())?;
    Ok(match (reply, rule) {
        (Some(reply), _) => reply,
        (None, Rule::None) => Rule::LocalEndpoint,
        (None, rule) => rule,
    })
}

#[inline(always)]
fn to_node(
    packet: &Packet,
    config: &Config,
    share: &Addr,
    rule: Rule,
) -> Result<Trace, DropReason> {
    let node = maps::node(share).ok_or(DropReason::NoNode)?;
    // The other side takes from this node only what its share of the pod range sends.
    if !config.v4.pods.contains(&packet.headers.tuple.src) {
        return Err(DropReason::SourceSpoofed);
    }
    packet.set_tunnel(config.vni, &config.underlay, &node.vtep)?;
    packet.set_macs(&OVERLAY_FRAME)?;
    Ok(Trace {
        verdict: Verdict::Overlay,
        target: config.overlay,
        vtep: u32::from_be(node.vtep.v4_wire()),
        reason: DropReason::None,
        rule: if let Rule::None = rule {
            Rule::RemotePod
        } else {
            rule
        },
    })
}

#[inline(always)]
fn to_outside(packet: &Packet, config: &Config, rule: Rule) -> Result<Trace, DropReason> {
    let first = packet.headers.tuple.dst.v4_wire().to_ne_bytes()[0];
    if first >= 224 || first == 127 || first == 0 {
        return Err(DropReason::NotUnicast);
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
