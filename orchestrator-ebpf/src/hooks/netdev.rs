//! The uplink: the node's own traffic, the overlay's outer packets, Services' clients outside, and
//! masqueraded flows.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::services::ServiceKey;
use orchestrator_common::{DropReason, Rule, Trace};

use crate::drop::exit;
use crate::skb::Packet;
use crate::{announce, forward, lb, maps, nat, refuse};

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
    match packet.parse() {
        Ok(()) => {
            if let Some(answer) = announce::neighbour(packet, config) {
                return Ok(answer);
            }
        }
        Err(DropReason::NotIp) => {
            let answer = announce::arp(packet, config);
            return Ok(answer.unwrap_or(forward::pass(Rule::NotOurs)));
        }
        Err(_) => return Ok(forward::pass(Rule::NotOurs)),
    }
    let tuple = &packet.headers.tuple;
    if packet.headers.is_udp() && tuple.dst_port.wire == config.vxlan_port.wire {
        return Ok(forward::pass(Rule::NotOurs));
    }
    let pods = &forward::family(packet, config).pods;
    if pods.contains(&tuple.src) || pods.contains(&tuple.dst) {
        return Err(DropReason::PodRangeOutside);
    }
    match translate(packet, config) {
        Ok(true) => {}
        Ok(false) => return Ok(forward::pass(Rule::NotOurs)),
        Err(reason) => return refuse::instead_of_drop(packet, reason),
    }
    packet.rewrite()?;
    onward(packet, config)
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

/// To a backend, or to who is behind a masqueraded flow.
#[inline(always)]
fn onward(packet: &mut Packet, config: &Config) -> Result<Trace, DropReason> {
    let (to, rule) = (packet.headers.tuple.dst, packet.headers.rule);
    if to.same(&forward::family(packet, config).translation) {
        lb::to_asker(packet)?;
    } else if matches!(rule, Rule::Service | Rule::IcmpError)
        && maps::endpoint(&to).is_some_and(|here| here.is_host())
    {
        // A backend that is the node itself gets it from where the client's route leads to, or the
        // node's stack would take the client for an impostor.
        return Ok(forward::pass(rule));
    }
    let rule = packet.headers.rule;
    forward::route(packet, config, rule)
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
    if packet.parse().is_err() {
        return Ok(forward::pass(Rule::NotOurs));
    }
    let tuple = &packet.headers.tuple;
    let family = forward::family(packet, config);
    if family.pods.contains(&tuple.src) {
        if family.pods.contains(&tuple.dst) {
            return Err(DropReason::PodRangeOutside);
        }
        return nat::masquerade(packet, config).map(forward::pass);
    }
    let outer = packet.headers.is_udp() && tuple.dst_port.wire == config.vxlan_port.wire;
    if outer || !tuple.src.same(&family.node) {
        return Ok(forward::pass(Rule::NotOurs));
    }
    // What the node itself answers as a Service's backend.
    let rule = lb::to_service(packet)?.unwrap_or(Rule::NotOurs);
    Ok(forward::pass(rule))
}
