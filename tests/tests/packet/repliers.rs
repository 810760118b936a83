//! The filter before the flows: answers are looked up where a flow noted that they come from.

use aya::maps::{Array, Map, MapData};
use orchestrator_common::maps::flows::REPLIERS;
use orchestrator_common::{Rule, Verdict};
use tests::packet::udp;
use tests::prog::LOOPBACK;

use crate::world::*;

type Row = [u8; REPLIERS.value_size as usize];

const ASKER: (&str, u16) = (POD, 40000);

#[test]
fn only_who_was_noted_is_looked_up_among_the_flows() {
    let Some(mut world) = world("filter") else {
        return;
    };
    world.send(&udp(ASKER, SERVICE, b"query"));
    // Whoever sends by loopback is the backend now.
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    world.endpoint(REMOTE_POD, LOOPBACK, 0, POD_MAC);
    let mut answered_by = || {
        let ran = world.send(&udp(BACKEND, ASKER, b"answer"));
        assert_eq!(ran.trace.verdict, Verdict::Peer);
        ran.trace.rule
    };
    assert_eq!(answered_by(), Rule::ServiceReply);

    let pinned = world.datapath.pinned().unwrap();
    let map = MapData::from_pin(pinned.dir.join(REPLIERS.name)).unwrap();
    let mut rows: Array<_, Row> = Map::from_map_data(map).unwrap().try_into().unwrap();
    let noted: Vec<Row> = rows.iter().collect::<Result<_, _>>().unwrap();
    let bytes = noted.iter().flatten();
    assert_eq!(bytes.filter(|byte| **byte != 0).count(), 1);
    for row in 0..REPLIERS.max_entries {
        rows.set(row, [0; REPLIERS.value_size as usize], 0).unwrap();
    }
    let ran = world.send(&udp(BACKEND, ASKER, b"answer"));
    assert_eq!(ran.trace.rule, Rule::LocalEndpoint);
}
