//! Flows that are translated: finding, opening and keeping the pairs of rows of `flows_v1`.

use orchestrator_common::maps::flows::Flow;
use orchestrator_common::{DropReason, Tuple};

use crate::maps;
use crate::packet::Headers;
use crate::state::seen_after;

/// Rows are written to say that they are in use at most once in this time.
const TOUCH_NS: u64 = 1_000_000_000;

/// Notes that a packet used its row, and rebuilds the other row if it is missing. The tuple in
/// `headers` is the row's key, with its scope.
#[inline(always)]
pub fn touch(flow: &mut Flow, headers: &Headers) -> Result<(), DropReason> {
    let seen = seen_after(flow.seen, headers);
    if seen != flow.seen {
        flow.seen = seen;
    }
    let now = maps::now_ns();
    if now.wrapping_sub(flow.last_seen_ns) > TOUCH_NS {
        flow.last_seen_ns = now;
        restore(&headers.tuple, flow)?;
    }
    Ok(())
}

#[inline(never)]
fn restore(key: &Tuple, flow: &Flow) -> Result<(), DropReason> {
    let other = flow.other(key);
    maps::insert_flow(&flow.other_key(), &other).map(|_| ())
}

/// Opens a flow: its reply row first, so that no answer can come before there is a row for it.
/// `NoFreePort` if the translated packet is another flow's already: the answers could not be told
/// apart. Not inlined, for the stack.
#[inline(never)]
pub fn open(
    key: &Tuple,
    translated: &Tuple,
    backend: u32,
    generation: u32,
) -> Result<(), DropReason> {
    let mut row = Flow {
        translated: key.reverse(),
        last_seen_ns: maps::now_ns(),
        backend,
        generation,
        direction: Flow::REPLY,
        seen: 0,
        reserved: 0,
    };
    let reply_key = translated.reverse();
    if !maps::insert_flow(&reply_key, &row)? {
        match maps::flow(&reply_key) {
            Some(there) if there.translated.same_packet(&row.translated) => {
                there.backend = backend;
                there.generation = generation;
                there.last_seen_ns = row.last_seen_ns;
            }
            _ => return Err(DropReason::NoFreePort),
        }
    }
    row.translated = *translated;
    row.direction = Flow::FORWARD;
    row.seen = Flow::USED;
    maps::replace_flow(key, &row)
}
