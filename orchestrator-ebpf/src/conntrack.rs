//! Flows that are translated: finding, opening and keeping the pairs of rows of `flows_v1`.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::{DropReason, Rule, Scope, Tuple};

use crate::fragments;
use crate::maps;
use crate::packet::Headers;
use crate::port;
use crate::state::seen_after;

/// Rows are written to say that they are in use at most once in this time.
const TOUCH_NS: u64 = 1_000_000_000;

/// A flow on its way into the table. One a processor, in `maps::opening`: it is too large for the
/// stack.
#[repr(C)]
pub struct Opening {
    /// The packet that opens the flow.
    pub key: Tuple,
    /// What it becomes.
    pub translated: Tuple,
    /// Who is to serve it, and the generation; 0 without backend.
    pub backend: u32,
    pub generation: u32,
    /// What the packet says of its direction, as `Flow::seen`.
    seen: u16,
    reserved: [u16; 3],
    reply_key: Tuple,
    row: Flow,
}

/// Whether the next packet is to say that the row is in use.
#[inline(always)]
pub fn is_due(flow: &Flow) -> bool {
    maps::now_ns().wrapping_sub(flow.last_seen_ns) > TOUCH_NS
}

/// Notes that a packet used its row, and rebuilds the other row if it is missing. The tuple in
/// `headers` is the row's key, with its scope.
#[inline(always)]
pub fn touch(flow: &mut Flow, headers: &Headers) {
    let seen = seen_after(flow.seen, headers);
    if seen != flow.seen {
        flow.seen = seen;
    }
    let now = maps::now_ns();
    if now.wrapping_sub(flow.last_seen_ns) > TOUCH_NS {
        flow.last_seen_ns = now;
        restore(&headers.tuple, flow);
    }
}

/// Has a packet become what its flow's row says, by that rule.
#[inline(always)]
pub fn take(headers: &mut Headers, flow: &mut Flow, rule: Rule) {
    headers.becomes = flow.translated;
    if headers.is_icmp_error() {
        headers.rule = Rule::IcmpError;
        return;
    }
    headers.rule = rule;
    fragments::remember(headers);
    touch(flow, headers);
}

/// In a full table the row stays missing: that is no reason to drop what this row can translate.
#[inline(never)]
fn restore(key: &Tuple, flow: &Flow) {
    let other = flow.other(key);
    let _ = maps::insert_flow(&flow.other_key(), &other);
}

/// Begins to open the flow of a packet: it becomes itself until the caller says otherwise.
#[inline(always)]
pub fn begin(headers: &Headers) -> Result<&'static mut Opening, DropReason> {
    let opening = maps::opening()?;
    opening.key = headers.tuple;
    opening.translated = headers.tuple;
    opening.seen = seen_after(0, headers);
    opening.backend = 0;
    opening.generation = 0;
    Ok(opening)
}

/// Opens a flow as it is. `NoFreePort` if the translated packet is another flow's already: the
/// answers could not be told apart.
#[inline(always)]
pub fn open(opening: &mut Opening) -> Result<(), DropReason> {
    prepare(opening);
    claim(opening)?;
    finish(opening)
}

/// Whether a source port may be given, besides that no other flow has it. `packet` is what the
/// search was begun with.
pub trait Ports {
    /// Up to where the port of that attempt may be.
    fn last(attempt: u32) -> u16;
    fn may_be_given(&self, translated: &Tuple) -> bool;
}

#[repr(C)]
struct Search<'a, P> {
    opening: &'a mut Opening,
    ports: &'a P,
    random: u32,
    ended: Result<(), DropReason>,
}

/// Opens a flow with another source port that keeps its answers apart from all others'.
#[inline(always)]
pub fn open_with_port<P: Ports>(opening: &mut Opening, ports: &P) -> Result<(), DropReason> {
    prepare(opening);
    let mut search = Search {
        opening,
        ports,
        random: maps::random(),
        ended: Err(DropReason::NoFreePort),
    };
    // SAFETY: the callback gets what it expects, which lives until the helper returns. A loop of the
    // kernel's is walked once by the verifier, and one of the program's as often as it turns.
    unsafe {
        let callback = try_port::<P> as *mut c_void;
        bpf_loop(port::TRIES, callback, (&raw mut search).cast(), 0);
    }
    search.ended?;
    finish(search.opening)
}

/// One turn of the search; 1 ends it.
extern "C" fn try_port<P: Ports>(attempt: u32, search: *mut c_void) -> i64 {
    // SAFETY: see the call.
    let search = unsafe { &mut *search.cast::<Search<'_, P>>() };
    let Some(candidate) = port::candidate(search.random, attempt, P::last(attempt)) else {
        return 0;
    };
    let opening = &mut *search.opening;
    opening.translated.src_port = candidate;
    opening.reply_key.dst_port = candidate;
    if !search.ports.may_be_given(&opening.translated) {
        return 0;
    }
    search.ended = claim(opening);
    i64::from(!matches!(search.ended, Err(DropReason::NoFreePort)))
}

#[inline(always)]
fn prepare(opening: &mut Opening) {
    opening.reply_key = opening.translated.reverse();
    let row = &mut opening.row;
    row.translated = opening.key.reverse();
    row.last_seen_ns = maps::now_ns();
    row.backend = opening.backend;
    row.generation = opening.generation;
    row.direction = Flow::REPLY;
    row.seen = 0;
    row.reserved = 0;
}

/// The reply row, which goes first: no answer can come before there is a row for it.
#[inline(always)]
fn claim(opening: &Opening) -> Result<(), DropReason> {
    let row = &opening.row;
    if opening.key.scope.number == Scope::SERVICE.number {
        maps::note_replier(&opening.reply_key.src, opening.reply_key.src_port);
    }
    if maps::insert_flow(&opening.reply_key, row)? {
        return Ok(());
    }
    // This very flow's, when it chooses again or its other row was lost.
    match maps::flow(&opening.reply_key) {
        Some(there) if there.translated.same_packet(&row.translated) => {
            there.backend = row.backend;
            there.generation = row.generation;
            there.last_seen_ns = row.last_seen_ns;
            Ok(())
        }
        _ => Err(DropReason::NoFreePort),
    }
}

/// The forward row. Without room for it the reply row goes again: half a flow helps nobody.
#[inline(always)]
fn finish(opening: &mut Opening) -> Result<(), DropReason> {
    opening.row.translated = opening.translated;
    opening.row.direction = Flow::FORWARD;
    opening.row.seen = opening.seen;
    let done = maps::replace_flow(&opening.key, &opening.row);
    if done.is_err() {
        maps::remove_flow(&opening.reply_key);
    }
    done
}
