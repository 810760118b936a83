//! The uplink: the node's own traffic, the overlay's outer packets, Services' clients outside, and
//! masqueraded flows.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::services::ServiceKey;
use orchestrator_common::{DropReason, Rule, Trace};

use super::overlay;
use crate::drop::exit;
use crate::skb::Packet;
use crate::{announce, forward, icmp, lb, maps, nat, refuse};

/// tcx ingress. What is not ours is the node's own affair, also when it cannot be read.
#[classifier]
pub fn from_netdev(ctx: TcContext) -> i32 {
    exit(ctx.skb.skb, Hook::FromNetdev, decide_from_netdev)
}

#[inline(always)]
fn decide_from_netdev(packet: &mut Packet) -> Result<Trace, DropReason> {
    let Ok(config) = maps::config() else {
        return Ok(forward::pass(Rule::NotOurs));
    };
    let decided = match unwrap(packet, config) {
        Tunnel::Not => from_outside(packet, config)?,
        Tunnel::Device => Some(forward::pass(Rule::NotOurs)),
        Tunnel::Unwrapped => {
            packet.parse()?;
            overlay::receive(packet, config)?
        }
        Tunnel::Broken => return Err(DropReason::Helper),
    };
    match decided {
        Some(decided) => Ok(decided),
        None => forward::send_on(packet, config),
    }
}

/// What a packet is to the overlay.
#[repr(u32)]
enum Tunnel {
    Not,
    /// For the VXLAN device to open.
    Device,
    /// Opened: the sender and the identifier are in the headers.
    Unwrapped,
    Broken,
}

/// Takes the outer headers off what another node sent, if it was one packet on the wire. Left to the
/// VXLAN device is what is to be cut into several yet, and what has more to say in its inner frame.
/// Not inlined, for the stack.
#[inline(never)]
fn unwrap(packet: &mut Packet, config: &Config) -> Tunnel {
    let Some(ends) = packet.ends() else {
        return Tunnel::Not;
    };
    if ends.to_port.wire != config.vxlan_port.wire {
        return Tunnel::Not;
    }
    let carries = packet.carries(config.vni);
    match carries.filter(|_| ends.to.same(&config.underlay)) {
        Some(v6) => {
            packet.headers.sender = ends.from;
            packet.headers.vni = config.vni;
            if packet.unwrap(v6).is_err() {
                return Tunnel::Broken;
            }
            Tunnel::Unwrapped
        }
        None => Tunnel::Device,
    }
}

/// What did not come through the overlay. `None` if it is to be sent on.
#[inline(always)]
fn from_outside(packet: &mut Packet, config: &Config) -> Result<Option<Trace>, DropReason> {
    match packet.parse() {
        Ok(()) => {
            if let Some(answer) = announce::neighbour(packet, config) {
                return Ok(Some(answer));
            }
        }
        Err(DropReason::NotIp) => {
            let answer = announce::arp(packet, config);
            return Ok(answer.or(Some(forward::pass(Rule::NotOurs))));
        }
        Err(_) => return Ok(Some(forward::pass(Rule::NotOurs))),
    }
    let tuple = &packet.headers.tuple;
    if packet.headers.is_udp() && tuple.dst_port.wire == config.vxlan_port.wire {
        return Ok(Some(forward::pass(Rule::NotOurs)));
    }
    let pods = &forward::family(packet, config).pods;
    if pods.contains(&tuple.src) || pods.contains(&tuple.dst) {
        return Err(DropReason::PodRangeOutside);
    }
    // What leaves by the uplink has no pod's address, so nobody there can tell of one.
    if packet.headers.is_icmp_error() && icmp::is_about(packet, pods) {
        return Err(DropReason::PodRangeOutside);
    }
    match translate(packet, config) {
        Ok(true) => {}
        Ok(false) => return Ok(Some(forward::pass(Rule::NotOurs))),
        Err(reason) => return refuse::instead_of_drop(packet, reason).map(Some),
    }
    packet.rewrite()?;
    Ok(is_for_node(packet).then(|| forward::pass(packet.headers.rule)))
}

/// Flows come first: they go on when their Service is there no more.
#[inline(always)]
fn translate(packet: &mut Packet, config: &Config) -> Result<bool, DropReason> {
    if lb::by_flow(packet, Flow::FORWARD) {
        return Ok(true);
    }
    let family = forward::family(packet, config);
    if packet.headers.tuple.dst.same(&family.node) && nat::unmasquerade(packet) {
        return Ok(true);
    }
    lb::by_row(packet.headers, config, ServiceKey::OUTSIDE)
}

/// Whether a packet goes to the node itself as a backend: it gets that from where the client's route
/// leads to, or the node's stack would take the client for an impostor.
#[inline(always)]
fn is_for_node(packet: &Packet) -> bool {
    let headers = &packet.headers;
    matches!(headers.rule, Rule::Service | Rule::IcmpError)
        && maps::endpoint(&headers.tuple.dst).is_some_and(|here| here.is_host())
}

/// tcx egress. The outer packets of the overlay have the node's address and its port, so they leave
/// with the first comparisons.
#[classifier]
pub fn to_netdev(ctx: TcContext) -> i32 {
    exit(ctx.skb.skb, Hook::ToNetdev, decide_to_netdev)
}

#[inline(always)]
fn decide_to_netdev(packet: &mut Packet) -> Result<Trace, DropReason> {
    let Ok(config) = maps::config() else {
        return Ok(forward::pass(Rule::NotOurs));
    };
    let is_outer = packet.ends().is_some_and(|ends| {
        ends.to_port.wire == config.vxlan_port.wire && ends.from.same(&config.underlay)
    });
    if is_outer || packet.parse().is_err() {
        return Ok(forward::pass(Rule::NotOurs));
    }
    let tuple = &packet.headers.tuple;
    let family = forward::family(packet, config);
    let is_outer = packet.headers.is_udp() && tuple.dst_port.wire == config.vxlan_port.wire;
    if family.pods.contains(&tuple.src) {
        if family.pods.contains(&tuple.dst) {
            return Err(DropReason::PodRangeOutside);
        }
        // In the node's name it would be the overlay's to every other node.
        if is_outer {
            return Err(DropReason::TunnelSpoofed);
        }
        return nat::masquerade(packet, config).map(forward::pass);
    }
    if is_outer || !tuple.src.same(&family.node) {
        return Ok(forward::pass(Rule::NotOurs));
    }
    // What the node itself answers as a Service's backend.
    let rule = lb::to_service(packet)?.unwrap_or(Rule::NotOurs);
    Ok(forward::pass(rule))
}
