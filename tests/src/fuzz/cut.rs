//! Random frames through `from_cut`: each leaves whole in the tunnel, or as two pieces that make it up, or
//! is dropped for the reason that the model gives.

use anyhow::{Context, Result, ensure};
use datapath::lookup::packet::Packet;
use datapath::table::Tables;
use orchestrator_common::event::Hook;
use orchestrator_common::{DropReason, Verdict};

use super::world;
use crate::prog::{Datapath, LOOPBACK, Ran};
use crate::sim::rng::Rng;

/// Ethernet, IPv6, UDP and VXLAN; or IPv6's header of a fragment in the place of the last two.
const TUNNEL: usize = 14 + 40 + 8 + 8;
const SECOND: usize = 14 + 40 + 8;
/// The largest frame that goes whole, and how much of others is in the first piece.
const WHOLE: usize = 1280 + 14 - TUNNEL;
const FIRST: usize = 640;
/// The largest that two pieces hold.
const MOST: usize = FIRST + 1024;

/// How many frames went whole, in pieces, or not at all.
pub fn run(packets: u64, seed: u64, mut tables: Tables) -> Result<[u64; 3]> {
    let config = tables.config.get_mut(&0).context("no config")?;
    // Not where the test's frames come in.
    config.cut = LOOPBACK + 1;
    let mut datapath = Datapath::load()?;
    datapath.fill(&tables)?;
    let pool = world::pool(&tables);
    let mut rng = Rng::new(seed);
    let senders = world::senders(Hook::FromCut);
    // Pods of other nodes.
    let addressees = world::senders(Hook::FromOverlay);
    let mut met = [0; 3];
    for number in 0..packets {
        let mut frame = pool.frame(&mut rng, &senders, &addressees).bytes;
        if rng.chance(700) {
            frame.resize(54 + rng.below(1700), 7);
        }
        frame.resize(frame.len().max(54), 0);
        let ran = datapath.run(Hook::FromCut, LOOPBACK, &frame)?;
        let became = judge(expected(&tables, &frame), &frame, &ran);
        met[became.with_context(|| format!("packet {number}: {:?} {frame:02x?}", ran.trace))?] += 1;
    }
    Ok(met)
}

fn expected(tables: &Tables, frame: &[u8]) -> Result<u32, DropReason> {
    let to = Packet::read(frame)?.tuple.dst;
    let config = tables.config.get(&0).ok_or(DropReason::NoConfig)?;
    let share = to.masked(&config.family(&to).node_mask);
    let node = tables.nodes.get(&share).ok_or(DropReason::NoNode)?;
    if frame.len() > MOST {
        return Err(DropReason::TooBig);
    }
    Ok(node.vtep.low_word())
}

/// The place in the counts.
fn judge(expected: Result<u32, DropReason>, frame: &[u8], ran: &Ran) -> Result<usize> {
    let vtep = match expected {
        Ok(vtep) => vtep,
        Err(reason) => {
            let got = (ran.trace.verdict, ran.trace.reason);
            ensure!(got == (Verdict::Drop, reason), "not dropped by {reason}");
            return Ok(2);
        }
    };
    let got = (ran.trace.verdict, ran.trace.vtep, ran.trace.target);
    ensure!(got == (Verdict::Overlay, vtep, LOOPBACK), "not sent back");
    let (headers, rest, place) = match frame.len() {
        ..=WHOLE => (TUNNEL, frame, 0),
        _ => (SECOND, &frame[FIRST..], 1),
    };
    ensure!(
        ran.packet.get(headers..) == Some(rest),
        "other bytes came out"
    );
    Ok(place)
}
