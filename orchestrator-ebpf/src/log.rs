//! The log of decisions for whoever debugs the datapath, in the build with the feature `log` only: which
//! backend a connection or a flow was given, what was refused or dropped and why, and, at level debug,
//! where every packet went. In the normal build `log_off` stands here, which is empty.
//!
//! A statement's target is the event. Its text has numbers for names and the bytes of a tuple in
//! hexadecimal digits, because a text of unknown length would cost the verifier and an address with its
//! format would cost stack; `datapath::log` reads it. The filter is what the loader wrote into the constants
//! below, so a program without one has no comparison either: the verifier removes it.

use aya_ebpf::Global;
use aya_log_ebpf::{debug, info};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::services::Backend;
use orchestrator_common::{Addr, DropReason, Port, Rule, Trace, Tuple, Verdict};

use crate::packet::Headers;

/// The addresses of the pod whose packets are logged; zero for no such address.
#[unsafe(no_mangle)]
static LOG_POD_V4: Global<[u32; 4]> = Global::new([0; 4]);
#[unsafe(no_mangle)]
static LOG_POD_V6: Global<[u32; 4]> = Global::new([0; 4]);
/// Whether only the pod's packets are logged: 1 or 0.
#[unsafe(no_mangle)]
static LOG_IS_OF_POD: Global<u32> = Global::new(0);
/// Where the packets go to that are logged, or where their answers come from.
#[unsafe(no_mangle)]
static LOG_TO: Global<[u32; 4]> = Global::new([0; 4]);
/// The port of that, in network order; zero if all destinations are logged.
#[unsafe(no_mangle)]
static LOG_TO_PORT: Global<u32> = Global::new(0);

/// A program's exit: a drop, a refusal, or where the packet goes.
#[inline(always)]
pub fn packet(headers: &Headers, hook: Hook, trace: &Trace) {
    let came = if headers.is_translated != 0 {
        &headers.original
    } else {
        &headers.tuple
    };
    let (hook, service) = (hook as u32, headers.service);
    if trace.reason.number() != DropReason::None.number() {
        dropped(came, hook, trace.reason.number(), service);
    } else {
        let how = how(trace.rule, trace.verdict);
        sent(came, &headers.tuple, hook, how, trace.target);
    }
}

/// What XDP has finished: a drop, or what leaves by the uplink.
#[inline(always)]
pub fn frame(headers: &Headers, verdict: Verdict, reason: DropReason) {
    let (tuple, hook) = (&headers.tuple, Hook::Xdp as u32);
    if reason.number() != DropReason::None.number() {
        dropped(tuple, hook, reason.number(), headers.service);
    } else {
        let how = how(headers.rule, verdict);
        sent(tuple, &headers.becomes, hook, how, 0);
    }
}

/// A packet has opened a flow of a Service.
#[inline(always)]
pub fn opened(headers: &Headers) {
    balanced(&headers.tuple, &headers.becomes, headers.service);
}

/// A socket's connection goes to a backend of the Service that it asked for.
#[inline(never)]
pub fn connected(asked: &Tuple, service: u32, backend: &Backend) {
    if !is_wanted(asked, &backend.addr, backend.port) {
        return;
    }
    let (port, number) = (backend.port.wire, backend.id);
    let backend = backend.addr.words;
    info!(
        (),
        target: "connect",
        "tuple={:x} service={} backend={} addr={:x} port={}",
        bytes(asked),
        service,
        number,
        bytes(&backend),
        port
    );
}

/// A socket's connection is refused.
#[inline(always)]
pub fn refused(asked: &Tuple, service: u32, reason: DropReason) {
    dropped(asked, Hook::Connect as u32, reason.number(), service);
}

// Not inlined, for the stack.

#[inline(never)]
fn balanced(came: &Tuple, becomes: &Tuple, service: u32) {
    if !is_wanted(came, &becomes.dst, becomes.dst_port) {
        return;
    }
    info!(
        (),
        target: "open",
        "tuple={:x} becomes={:x} service={}",
        bytes(came),
        bytes(becomes),
        service
    );
}

#[inline(never)]
fn dropped(came: &Tuple, hook: u32, reason: u32, service: u32) {
    if !is_wanted(came, &came.dst, came.dst_port) {
        return;
    }
    info!(
        (),
        target: "drop",
        "tuple={:x} hook={} reason={} service={}",
        bytes(came),
        hook,
        reason,
        service
    );
}

#[inline(never)]
fn sent(came: &Tuple, becomes: &Tuple, hook: u32, how: u32, target: u32) {
    if !is_wanted(came, &becomes.dst, becomes.dst_port) {
        return;
    }
    debug!(
        (),
        target: "packet",
        "tuple={:x} becomes={:x} hook={} rule={} verdict={} target={}",
        bytes(came),
        bytes(becomes),
        hook,
        how >> 16,
        how & 0xffff,
        target
    );
}

/// Both in one word: a function of BPF takes five arguments.
#[inline(always)]
fn how(rule: Rule, verdict: Verdict) -> u32 {
    (rule.number() << 16) | verdict.number()
}

/// Whether the filter lets a packet be logged that came so and goes there now.
#[inline(always)]
fn is_wanted(came: &Tuple, to: &Addr, port: Port) -> bool {
    if LOG_IS_OF_POD.load() != 0 {
        let is_pod = |addr: &Addr| {
            let (v4, v6) = (LOG_POD_V4.load(), LOG_POD_V6.load());
            addr.same(&Addr { words: v4 }) || addr.same(&Addr { words: v6 })
        };
        if !is_pod(&came.src) && !is_pod(&came.dst) && !is_pod(to) {
            return false;
        }
    }
    let wanted_port = LOG_TO_PORT.load();
    if wanted_port == 0 {
        return true;
    }
    let words = LOG_TO.load();
    let is_asked =
        |addr: &Addr, port: Port| addr.same(&Addr { words }) && u32::from(port.wire) == wanted_port;
    is_asked(&came.dst, came.dst_port) || is_asked(to, port) || is_asked(&came.src, came.src_port)
}

/// A row's bytes as they lie in memory.
#[inline(always)]
fn bytes<T: Copy>(row: &T) -> &[u8] {
    // SAFETY: rows are plain integers without padding (`layout!`).
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(row).cast(), size_of::<T>()) }
}
