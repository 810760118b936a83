//! The filter before the flows: answers are looked up where a flow noted that they come from.

use std::path::Path;

use aya::maps::{Array, Map, MapData};
use orchestrator::datapath::repliers::Repliers;
use orchestrator_common::maps::flows::REPLIERS;
use orchestrator_common::{Rule, Verdict};
use tests::packet::udp;
use tests::prog::LOOPBACK;

use crate::world::*;

type Row = [u8; REPLIERS.value_size as usize];

const ASKER: (&str, u16) = (POD, 40000);

/// The pod asks a Service, and then whoever sends by loopback is its backend.
fn asked(test: &str) -> Option<World> {
    let mut world = world(test)?;
    world.send(&udp(ASKER, SERVICE, b"query"));
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    world.endpoint(REMOTE_POD, LOOPBACK, 0, POD_MAC);
    Some(world)
}

fn answered_by(world: &mut World) -> Rule {
    let ran = world.send(&udp(BACKEND, ASKER, b"answer"));
    assert_eq!(ran.trace.verdict, Verdict::Peer);
    ran.trace.rule
}

#[test]
fn flows_of_an_agent_without_the_filter_go_on_under_one_that_has_it() {
    let Some(mut world) = asked("filter of an upgrade") else {
        return;
    };
    let pinned = world.datapath.pinned().unwrap();
    let mut rows = rows(&pinned.dir);
    for row in 0..REPLIERS.max_entries {
        rows.set(row, [0; REPLIERS.value_size as usize], 0).unwrap();
    }
    // Without the agent's note it would be as if nobody had asked.
    assert_eq!(answered_by(&mut world), Rule::LocalEndpoint);
    Repliers::open(&pinned.dir).unwrap().note().unwrap();
    assert_eq!(answered_by(&mut world), Rule::ServiceReply);
}

#[test]
fn a_filter_that_the_programs_keep_is_left_to_them() {
    let Some(mut world) = asked("filter of a restart") else {
        return;
    };
    let pinned = world.datapath.pinned().unwrap();
    let before = noted(&pinned.dir);
    assert_eq!(
        before.iter().flatten().filter(|byte| **byte != 0).count(),
        1
    );
    Repliers::open(&pinned.dir).unwrap().note().unwrap();
    assert_eq!(noted(&pinned.dir), before);
    assert_eq!(answered_by(&mut world), Rule::ServiceReply);
}

fn noted(dir: &Path) -> Vec<Row> {
    rows(dir).iter().collect::<Result<_, _>>().unwrap()
}

fn rows(dir: &Path) -> Array<MapData, Row> {
    let map = MapData::from_pin(dir.join(REPLIERS.name)).unwrap();
    Map::from_map_data(map).unwrap().try_into().unwrap()
}
