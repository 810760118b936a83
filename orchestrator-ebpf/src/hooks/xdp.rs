//! XDP on the uplink, an option: clients outside to backends on other nodes and back, and drops,
//! before the kernel has made a packet of the frame.
//!
//! It finishes what it can finish completely and exactly as `from_netdev` and `from_overlay` would.
//! Everything else it leaves to them as it came: so leaving is always right. What makes a flow's row
//! due for a look, once a second, is left to them too. That also keeps the stack's neighbours alive,
//! which are only read here.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::services::ServiceKey;
use orchestrator_common::maps::statistics::{XDP, verdict_row};
use orchestrator_common::{DropReason, Proto, Scope, Tuple, Verdict};

use crate::drop::report;
use crate::frame::Frame;
use crate::packet::{ETHERNET, Headers, TCP_RST};
use crate::{conntrack, forward, lb, log, maps, nat, tunnel};

/// Why a packet was not sent.
enum Unsent {
    /// It is for the tcx programs.
    Left,
    Dropped(DropReason),
}

use Unsent::{Dropped, Left};

#[xdp]
pub fn xdp_uplink(ctx: XdpContext) -> u32 {
    let Some(headers) = maps::headers() else {
        return XDP_PASS;
    };
    let mut frame = Frame::new(ctx.ctx, headers);
    let (verdict, action, reason) = match decide(&mut frame) {
        Ok(verdict) => (verdict, XDP_TX, DropReason::None),
        Err(Left) => return XDP_PASS,
        Err(Dropped(reason)) => {
            let (ifindex, length) = (frame.ifindex(), frame.length());
            report(frame.headers, Hook::Xdp, reason, ifindex, length);
            (Verdict::Drop, XDP_DROP, reason)
        }
    };
    log::frame(frame.headers, verdict, reason);
    maps::count(verdict_row(verdict));
    maps::count(XDP);
    action
}

#[inline(always)]
fn decide(frame: &mut Frame) -> Result<Verdict, Unsent> {
    let config = maps::config().map_err(|_| Left)?;
    if !frame.is_for(&config.uplink_mac) || !frame.parse(0) {
        return Err(Left);
    }
    let tuple = &frame.headers.tuple;
    if frame.headers.is_udp() && tuple.dst_port.wire == config.vxlan_port.wire {
        return from_overlay(frame, config);
    }
    let pods = &forward::family_of(frame.headers, config).pods;
    if pods.contains(&tuple.src) || pods.contains(&tuple.dst) {
        return Err(Dropped(DropReason::PodRangeOutside));
    }
    translate(frame.headers, config)?;
    to_node(frame, config)
}

/// What a packet of a client outside becomes. The order is `from_netdev`'s.
#[inline(always)]
fn translate(headers: &mut Headers, config: &Config) -> Result<(), Unsent> {
    if by_flow(headers, Flow::FORWARD)? {
        return Ok(());
    }
    let node = &forward::family_of(headers, config).node;
    if headers.tuple.dst.same(node) && nat::may_unmasquerade(headers) {
        return Err(Left);
    }
    // Who finds nobody is refused with an answer, which is made elsewhere.
    let service = lb::find(config, &headers.tuple, ServiceKey::OUTSIDE).ok_or(Left)?;
    if service.count == 0 || headers.tcp_flags & TCP_RST != 0 {
        return Err(Left);
    }
    match lb::by_row(headers, config, ServiceKey::OUTSIDE) {
        Ok(true) => Ok(()),
        Ok(false) | Err(DropReason::NoBackend | DropReason::NoService) => Err(Left),
        Err(reason) => Err(Dropped(reason)),
    }
}

#[inline(always)]
fn by_flow(headers: &mut Headers, wanted: u16) -> Result<bool, Unsent> {
    headers.tuple.scope = Scope::SERVICE;
    let Some(flow) = maps::flow(&headers.tuple) else {
        return Ok(false);
    };
    if conntrack::is_due(flow) {
        return Err(Left);
    }
    Ok(lb::follow(headers, flow, wanted))
}

/// On to the backend, if that is a pod of another node which will answer this one.
#[inline(always)]
fn to_node(frame: &mut Frame, config: &Config) -> Result<Verdict, Unsent> {
    let family = forward::family_of(frame.headers, config);
    let becomes = &frame.headers.becomes;
    if !family.pods.contains(&becomes.src) || !family.pods.contains(&becomes.dst) {
        return Err(Left);
    }
    let node = maps::node(&becomes.dst.masked(&family.node_mask)).ok_or(Left)?;
    let length = inner_length(frame.length(), config)?;
    let outer = tunnel::outer(&config.underlay);
    let ends = Tuple {
        src: config.underlay,
        dst: node.vtep,
        src_port: tunnel::source_port(becomes),
        dst_port: config.vxlan_port,
        proto: Proto::UDP,
        ..Tuple::default()
    };
    let way = frame
        .way(config, &ends, length + outer as u16)
        .ok_or(Left)?;
    if !frame.grow(outer) {
        return Err(Left);
    }
    frame.rewrite(outer, 0).map_err(Dropped)?;
    frame
        .set_macs(outer, &forward::OVERLAY_FRAME)
        .map_err(Dropped)?;
    frame.wrap(config, &ends, &way).map_err(Dropped)?;
    Ok(Verdict::Tunnel)
}

/// Back to a client outside, if the packet is a backend's answer from another node.
#[inline(always)]
fn from_overlay(frame: &mut Frame, config: &Config) -> Result<Verdict, Unsent> {
    if !frame.headers.tuple.dst.same(&config.underlay) {
        return Err(Left);
    }
    let sender = frame.headers.tuple.src;
    let outer = frame.outer(config).ok_or(Left)?;
    if !frame.has_macs(outer, &forward::OVERLAY_FRAME) || !frame.parse(outer) {
        return Err(Left);
    }
    let family = forward::family_of(frame.headers, config);
    let tuple = &frame.headers.tuple;
    let node = maps::node(&tuple.src.masked(&family.node_mask)).ok_or(Left)?;
    if !node.vtep.same(&sender) || !tuple.dst.same(&family.translation) {
        return Err(Left);
    }
    if !by_flow(frame.headers, Flow::REPLY)? {
        return Err(Left);
    }
    let headers = &frame.headers;
    let to = &headers.becomes.dst;
    let is_here = family.pods.contains(to) || to.same(&family.node);
    if is_here || !forward::is_unicast(to) || headers.ttl <= 1 {
        return Err(Left);
    }
    let length = inner_length(frame.length() - outer as u32, config)?;
    let way = frame.way(config, &headers.becomes, length).ok_or(Left)?;
    frame.rewrite(outer, 1).map_err(Dropped)?;
    frame.set_macs(outer, &way).map_err(Dropped)?;
    frame.shrink(outer).map_err(Dropped)?;
    Ok(Verdict::Outside)
}

/// The length of the IP packet in a frame. What is longer than the overlay carries is for others to
/// refuse, or is several packets that the stack has put together.
#[inline(always)]
fn inner_length(frame: u32, config: &Config) -> Result<u16, Unsent> {
    match frame - ETHERNET as u32 {
        length if length <= config.mtu => Ok(length as u16),
        _ => Err(Left),
    }
}
