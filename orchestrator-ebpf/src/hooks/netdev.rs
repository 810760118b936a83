//! The uplink: the node's own traffic, the overlay's outer packets, and masqueraded flows.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use orchestrator_common::event::Hook;
use orchestrator_common::{DropReason, Rule, Trace};

use crate::drop::exit;
use crate::skb::Packet;
use crate::{forward, maps, nat};

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
    if packet.parse().is_err() {
        return Ok(forward::pass(Rule::NotOurs));
    }
    let tuple = &packet.headers.tuple;
    if packet.headers.is_udp() && tuple.dst_port.wire == config.vxlan_port.wire {
        return Ok(forward::pass(Rule::NotOurs));
    }
    if config.v4.pods.contains(&tuple.src) || config.v4.pods.contains(&tuple.dst) {
        return Err(DropReason::PodRangeOutside);
    }
    if !tuple.dst.same(&config.v4.node) {
        return Ok(forward::pass(Rule::NotOurs));
    }
    let Some(rule) = nat::unmasquerade(packet)? else {
        return Ok(forward::pass(Rule::NotOurs));
    };
    let endpoint = maps::endpoint(&packet.headers.tuple.dst).ok_or(DropReason::NoEndpoint)?;
    forward::deliver(packet, endpoint, rule)
}

/// tcx egress. The outer packets of the overlay have the node's address, so they leave with the
/// first comparison.
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
    if !config.v4.pods.contains(&packet.headers.tuple.src) {
        return Ok(forward::pass(Rule::NotOurs));
    }
    if config.v4.pods.contains(&packet.headers.tuple.dst) {
        return Err(DropReason::PodRangeOutside);
    }
    nat::masquerade(packet, config).map(forward::pass)
}
