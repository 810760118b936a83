//! The VXLAN device: what other nodes' endpoints send.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::{DropReason, Rule, Trace};

use crate::drop::exit;
use crate::skb::Packet;
use crate::{dsr, forward, maps};

/// tcx ingress, decapsulated.
#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    exit(ctx.skb.skb, Hook::FromOverlay, |packet| {
        let config = maps::config()?;
        packet.parse()?;
        let tunnel = packet.tunnel(&config.underlay);
        let (vni, sender) = tunnel.ok_or(DropReason::NotOurTunnel)?;
        packet.headers.vni = vni;
        packet.headers.sender = sender;
        match receive(packet, config)? {
            Some(decided) => Ok(decided),
            None => forward::send_on(packet, config),
        }
    })
}

/// What another node's endpoint sent, by either way out of the tunnel. `None` if it is an answer for the asker
/// behind the translation address. Not inlined, for the stack.
#[inline(never)]
pub fn receive(packet: &mut Packet, config: &Config) -> Result<Option<Trace>, DropReason> {
    packet.headers.is_tunnelled = 1;
    if packet.headers.vni != config.vni {
        return if packet.headers.vni == dsr::vni(config) {
            dsr::receive(packet, config).map(Some)
        } else {
            Err(DropReason::NotOurTunnel)
        };
    }
    let from = &packet.headers.tuple.src;
    let share = from.masked(&forward::family(packet, config).node_mask);
    match maps::node(&share) {
        Some(node) if node.vtep.same(&packet.headers.sender) => {}
        _ => return Err(DropReason::TunnelSpoofed),
    }
    let to = packet.headers.tuple.dst;
    if to.same(&forward::family(packet, config).translation) {
        return Ok(None);
    }
    let endpoint = maps::endpoint(&to).ok_or(DropReason::NoEndpoint)?;
    forward::deliver(packet, endpoint, Rule::None).map(Some)
}
