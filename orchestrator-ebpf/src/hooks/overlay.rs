//! The VXLAN device: what other nodes' endpoints send.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use orchestrator_common::event::Hook;
use orchestrator_common::{DropReason, Rule};

use crate::drop::exit;
use crate::{dsr, forward, lb, maps};

/// tcx ingress, decapsulated.
#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    exit(ctx.skb.skb, Hook::FromOverlay, |packet| {
        let config = maps::config()?;
        packet.parse()?;
        let (vni, sender) = packet
            .tunnel(&config.underlay)
            .ok_or(DropReason::NotOurTunnel)?;
        if vni == dsr::vni(config) {
            return dsr::receive(packet, config, &sender);
        }
        if vni != config.vni {
            return Err(DropReason::NotOurTunnel);
        }
        let from = &packet.headers.tuple.src;
        let share = from.masked(&forward::family(packet, config).node_mask);
        match maps::node(&share) {
            Some(node) if node.vtep.same(&sender) => {}
            _ => return Err(DropReason::TunnelSpoofed),
        }
        let to = packet.headers.tuple.dst;
        if to.same(&forward::family(packet, config).translation) {
            lb::to_asker(packet)?;
            let rule = packet.headers.rule;
            return forward::route(packet, config, rule);
        }
        let endpoint = maps::endpoint(&to).ok_or(DropReason::NoEndpoint)?;
        forward::deliver(packet, endpoint, Rule::None)
    })
}
