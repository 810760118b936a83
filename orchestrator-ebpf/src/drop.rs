//! The one exit of every program: trace, counters, drop event, return code.

use core::mem::size_of;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::statistics::{LOST, reason_row, verdict_row};
use orchestrator_common::{DropEvent, DropReason, Rule, Trace, Verdict};

use crate::log;
use crate::maps;
use crate::packet::Headers;
use crate::skb::Packet;

/// Runs a hook's decision and carries it out.
#[inline(always)]
pub fn exit(
    skb: *mut __sk_buff,
    hook: Hook,
    decide: impl FnOnce(&mut Packet) -> Result<Trace, DropReason>,
) -> i32 {
    let Some(headers) = maps::headers() else {
        return TC_ACT_SHOT;
    };
    let mut packet = Packet::new(skb, headers);
    let trace = match decide(&mut packet) {
        Ok(trace) => trace,
        Err(reason) => Trace {
            verdict: Verdict::Drop,
            target: 0,
            vtep: 0,
            reason,
            rule: Rule::None,
        },
    };
    // SAFETY: the context that the kernel called the program with.
    unsafe { (*skb).cb = trace.to_cb() };
    maps::count(verdict_row(trace.verdict));
    if trace.reason.number() != DropReason::None.number() {
        // SAFETY: as above.
        let (ifindex, length) = unsafe { ((*skb).ifindex, (*skb).len) };
        report(packet.headers, hook, trace.reason, ifindex, length);
    }
    log::packet(packet.headers, hook, &trace);
    // SAFETY: helpers that take numbers; a null parameter makes the kernel look the neighbour up.
    let code = unsafe {
        match trace.verdict {
            Verdict::Drop => i64::from(TC_ACT_SHOT),
            // The next program on the hook, then the stack: ours need not be the only one.
            Verdict::Pass => i64::from(TC_ACT_UNSPEC),
            Verdict::Peer => bpf_redirect_peer(trace.target, 0),
            Verdict::Node | Verdict::Overlay => bpf_redirect(trace.target, 0),
            Verdict::Tunnel if packet.headers.is_neighbour != 0 => {
                let mut to = next_hop(trace.vtep);
                let size = size_of::<bpf_redir_neigh>() as i32;
                bpf_redirect_neigh(trace.target, &mut to, size, 0)
            }
            Verdict::Outside | Verdict::Tunnel => {
                bpf_redirect_neigh(trace.target, core::ptr::null_mut(), 0, 0)
            }
            Verdict::Refuse | Verdict::Reply if trace.vtep != 0 => bpf_redirect(trace.target, 0),
            Verdict::Refuse | Verdict::Reply => bpf_redirect_peer(trace.target, 0),
        }
    };
    code as i32
}

/// A host on the link itself: the kernel need not look for a route.
#[inline(always)]
fn next_hop(addr: u32) -> bpf_redir_neigh {
    /// AF_INET.
    const IPV4: u32 = 2;
    // SAFETY: all zero is a valid next hop; the family says which member counts.
    let mut to: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    to.nh_family = IPV4;
    to.__bindgen_anon_1.ipv4_nh = addr.to_be();
    to
}

/// Counts a drop and tells the agent of it, as the packet came, as long as there is room. ARP, and what
/// IPv6 has in its place, is only counted: pods send it all the time.
#[inline(never)]
pub fn report(headers: &Headers, hook: Hook, reason: DropReason, ifindex: u32, length: u32) {
    maps::count(reason_row(reason));
    let v6 = !headers.tuple.src.is_v4();
    if matches!(reason, DropReason::NotIp) || v6 && matches!(reason, DropReason::NotUnicast) {
        return;
    }
    let came = if headers.is_translated != 0 {
        &headers.original
    } else {
        &headers.tuple
    };
    tell(hook, reason, |event| {
        event.tuple = *came;
        event.ifindex = ifindex;
        event.length = length;
        event.service = headers.service;
    });
}

/// Tells the agent, as long as there is room; `fill` says whom and where it met.
#[inline(always)]
pub fn tell(hook: Hook, reason: DropReason, fill: impl FnOnce(&mut DropEvent)) {
    let Some(mut entry) = maps::DROPS.reserve_untyped::<DropEvent>(0) else {
        maps::count(LOST);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the reserved record. It is all zeros, a valid event, before it is referred to.
    let event = unsafe {
        event.write_bytes(0, 1);
        &mut *event
    };
    event.time_ns = maps::now_ns();
    event.reason = reason.number();
    event.hook = hook as u32;
    fill(event);
    entry.submit(0);
}
