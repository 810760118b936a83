//! The host's side of a pod's veth, and `orch-net` for the node itself.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use orchestrator_common::event::Hook;
use orchestrator_common::{DropReason, Rule, Trace};

use crate::drop::exit;
use crate::skb::Packet;
use crate::{forward, lb, maps, refuse};

/// tcx ingress: what an endpoint sends.
#[classifier]
pub fn from_container(ctx: TcContext) -> i32 {
    exit(ctx.skb.skb, Hook::FromContainer, |packet| {
        let config = maps::config()?;
        packet.parse()?;
        forward::check_link_local(packet)?;
        forward::check_source(packet)?;
        if let Err(reason) = lb::from_inside(packet, config) {
            return refuse::instead_of_drop(packet, reason);
        }
        let rule = packet.headers.rule;
        forward::route(packet, config, rule)
    })
}

/// tcx egress: what reaches an endpoint through the node's own stack, not by `deliver`; and what `deliver` has sent
/// through a limited endpoint's queue.
#[classifier]
pub fn to_container(ctx: TcContext) -> i32 {
    exit(ctx.skb.skb, Hook::ToContainer, decide_to_container)
}

#[inline(always)]
fn decide_to_container(packet: &mut Packet) -> Result<Trace, DropReason> {
    if packet.is_queued() {
        return Ok(forward::pass(Rule::LocalEndpoint));
    }
    packet.parse()?;
    let endpoint = maps::endpoint(&packet.headers.tuple.dst).ok_or(DropReason::NoEndpoint)?;
    if endpoint.ifindex != packet.ifindex() {
        return Err(DropReason::NoEndpoint);
    }
    forward::admit(packet, endpoint, Rule::None).map(forward::pass)
}
