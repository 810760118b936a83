//! The veth pair `orch-cut`/`orch-pieces`: what a path over an IPv6 underlay does not carry whole and its
//! sender cannot make smaller.
//!
//! The kernel cuts only what a socket of this host made (ip6_fragment, `ignore_df`), and a program cannot
//! cut what has its checksum or its segments yet to come. So such a packet leaves by `orch-cut`, which
//! leaves neither to a card, comes in at `orch-pieces`, is sent back there in two pieces, and these go on
//! from `orch-cut`.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::{Addr, DropReason, Rule, Trace, Verdict};

use crate::drop::exit;
use crate::packet::ETHERNET;
use crate::pieces::{self, BEFORE_SECOND, FIRST, WHOLE};
use crate::skb::Packet;
use crate::tunnel::{self, Passage};
use crate::{dsr, forward, maps};

/// tcx ingress of both ends. Nothing gets to the stack.
#[classifier]
pub fn from_cut(ctx: TcContext) -> i32 {
    exit(ctx.skb.skb, Hook::FromCut, |packet| {
        let config = maps::config()?;
        if packet.ifindex() == config.cut {
            return Ok(on(Verdict::Tunnel, config.uplink, 0));
        }
        packet.parse()?;
        let tuple = &packet.headers.tuple;
        let family = forward::family(packet, config);
        let node = maps::node(&tuple.dst.masked(&family.node_mask)).ok_or(DropReason::NoNode)?;
        let vni = if family.pods.contains(&tuple.src) {
            config.vni
        } else {
            dsr::vni(config)
        };
        cut(packet, config, &node.vtep, vni)?;
        let back = packet.ifindex();
        Ok(on(Verdict::Overlay, back, node.vtep.low_word()))
    })
}

#[inline(always)]
fn on(verdict: Verdict, target: u32, vtep: u32) -> Trace {
    Trace {
        verdict,
        target,
        vtep,
        reason: DropReason::None,
        rule: Rule::RemotePod,
    }
}

/// Wraps a frame. Of one that is too large for that the first piece is sent back to where the frame came
/// from, and it becomes the second.
#[inline(never)]
fn cut(packet: &Packet, config: &Config, to: &Addr, vni: u32) -> Result<(), DropReason> {
    let pieces = maps::pieces()?;
    let length = packet.length();
    let ends = forward::tunnel_ends(packet, config, to);
    let passage = Passage {
        way: &forward::OVERLAY_FRAME,
        ends: &ends,
        vni,
        length: length as u16,
        class: (packet.load::<u16>(ETHERNET as u32)?.to_be() >> 4) as u8,
        id: 0,
    };
    // The last segment of many.
    if length <= WHOLE as u32 {
        tunnel::write_v6(&mut pieces.whole, &passage);
        return packet.prepend(&pieces.whole);
    }
    let rest = packet.load_rest(FIRST as u32, &mut pieces.rest)?;
    pieces::write(pieces, &passage, maps::random());
    packet.resize(FIRST as u32)?;
    packet.prepend(&pieces.first)?;
    packet.send_copy(packet.ifindex())?;
    packet.resize(BEFORE_SECOND as u32 + rest)?;
    packet.store(0, &pieces.second, 0)?;
    packet.store_part(BEFORE_SECOND as u32, &pieces.rest, rest)
}
