//! `from_netdev` answers for the external addresses of Services that this node announces.

use orchestrator_common::event::Hook;
use orchestrator_common::{Rule, Trace, Verdict};
use tests::packet::*;
use tests::prog::LOOPBACK;

use crate::world::*;

const ANNOUNCED: &str = "172.31.9.9";
const ANNOUNCED6: &str = "fd31::9:9";

fn announcing(test: &str) -> Option<World> {
    let mut world = world(test)?;
    for announced in [ANNOUNCED, ANNOUNCED6] {
        world
            .datapath
            .put("announced_v1", addr(announced), 1u32)
            .unwrap();
    }
    Some(world)
}

/// Out again where the question came in, by a plain redirect.
fn answer() -> Trace {
    Trace {
        vtep: 1,
        ..trace(Verdict::Reply, LOOPBACK, Rule::Announced)
    }
}

#[test]
fn an_arp_request_for_an_announced_address_is_answered_with_the_uplinks_mac() {
    let Some(mut world) = announcing("ARP") else {
        return;
    };
    let ran = world.run(Hook::FromNetdev, &arp_request(OUTSIDE, ANNOUNCED));
    assert_eq!(ran.trace, answer());
    let mut expected = SENDER_MAC.to_vec();
    expected.extend(UPLINK_MAC);
    expected.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    expected.extend(UPLINK_MAC);
    expected.extend(ip(ANNOUNCED).octets());
    expected.extend(SENDER_MAC);
    expected.extend(ip(OUTSIDE).octets());
    assert_eq!(ran.packet, expected);
}

#[test]
fn a_neighbour_solicitation_for_an_announced_address_is_answered() {
    let Some(mut world) = announcing("neighbour solicitation") else {
        return;
    };
    for (from, to, has_address) in [
        (OUTSIDE6, OUTSIDE6, true),
        ("fe80::1", "fe80::1", false),
        ("::", "ff02::1", false),
    ] {
        let asked = solicitation(from, ANNOUNCED6, has_address);
        let ran = world.run(Hook::FromNetdev, &asked);
        assert_eq!(ran.trace, answer(), "{from}");
        let seen = see(&ran.packet);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (ANNOUNCED6, to));
        assert_eq!((seen.macs.1, seen.ttl), (UPLINK_MAC, 255));
        let Transport::Error(136, 0, told) = seen.transport else {
            panic!("{:?}", seen.transport)
        };
        assert_eq!(told[..16], addr(ANNOUNCED6).octets());
        assert_eq!(told[16..], [&[2, 1][..], &UPLINK_MAC].concat());
    }
}

#[test]
fn what_is_not_announced_is_left_to_the_nodes_stack() {
    let Some(mut world) = announcing("not announced") else {
        return;
    };
    let from_beyond = with_ttl(solicitation(OUTSIDE6, ANNOUNCED6, true), 254);
    for frame in [
        arp_request(OUTSIDE, NODE),
        arp_request(ANNOUNCED, ANNOUNCED),
        solicitation(OUTSIDE6, NODE6, true),
        from_beyond,
        echo(OUTSIDE6, ANNOUNCED6, 1, false),
    ] {
        let ran = world.run(Hook::FromNetdev, &frame);
        assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::NotOurs));
        assert_eq!(ran.packet, frame);
    }
}
