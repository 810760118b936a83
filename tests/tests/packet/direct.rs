//! Direct server return: what a node that was asked sends on, and what the backend's node makes of it.

use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{Service, ServiceKey};
use orchestrator_common::{DropReason, Port, Proto, Rule, Trace, Verdict};
use tests::packet::*;
use tests::prog::{LOOPBACK, Ran};

use crate::world::*;

const NODE_PORT: u16 = 30080;
/// VNI 1, and its answers do not come back.
const DIRECT: u32 = 0x80_0001;
/// What IPv6 carries on the way: an option of an experiment in a header of its own.
const ROOM: usize = 24;

/// The node that was asked, the client, and the backend on another node.
const FAMILIES: [(&str, &str, End<'static>); 2] = [
    (NODE, OUTSIDE, (REMOTE_POD, 8080)),
    (NODE6, OUTSIDE6, (REMOTE_POD6, 8080)),
];

fn direct(test: &str) -> Option<World> {
    let mut world = world(test)?;
    let config = Config {
        flags: Config::DSR,
        ..config()
    };
    world.datapath.set_config(&config).unwrap();
    Some(world)
}

/// The node that is asked, with a node port for TCP and UDP.
fn asked(test: &str) -> Option<World> {
    let mut world = direct(test)?;
    for (family, (node, _, backend)) in (0..).zip(FAMILIES) {
        for (proto, id) in [(Proto::TCP, 7 + family), (Proto::UDP, 17 + family)] {
            world.service(id, (backend.0, 1), proto, &[(20 + id, backend)]);
            let key = ServiceKey::outside(addr(node), Port::new(NODE_PORT), proto);
            let row = Service {
                id,
                count: 1,
                ..Service::default()
            };
            world
                .datapath
                .put("services_v1", key.node_port(), row)
                .unwrap();
        }
    }
    Some(world)
}

/// The backend's node: the pod is here, and the other node may send for clients.
fn answering(test: &str) -> Option<World> {
    let mut world = direct(test)?;
    for (_, _, backend) in FAMILIES {
        world.endpoint(backend.0, NEIGHBOUR, 0, POD_MAC);
    }
    let node = Node {
        vtep: addr(OTHER_NODE),
        flags: Node::VTEP,
        reserved: 0,
    };
    world
        .datapath
        .put("nodes_v1", addr(OTHER_NODE), node)
        .unwrap();
    Some(world)
}

fn arrive(world: &mut World, frame: &[u8]) -> Ran {
    let ran = world
        .datapath
        .run_tunnelled(DIRECT, addr(OTHER_NODE), frame);
    ran.unwrap()
}

fn delivered() -> Trace {
    trace(Verdict::Peer, NEIGHBOUR, Rule::DirectReturn)
}

#[test]
fn a_packet_says_on_its_way_what_was_asked_and_the_pod_sees_none_of_it() {
    let (Some(mut first), Some(mut second)) = (asked("asked"), answering("answering")) else {
        return;
    };
    for (node, client, backend) in FAMILIES {
        let to = (node, NODE_PORT);
        for sent in [
            tcp((client, 50000), to, Flags::Syn, b""),
            tcp((client, 50000), to, Flags::Ack, b"hello"),
            udp((client, 50000), to, b"hello"),
        ] {
            let way = first.run(Hook::FromNetdev, &sent);
            assert_eq!(way.trace, overlay(Rule::Service));
            let v6 = any_ip(node).is_ipv6();
            let longer = if v6 { ROOM } else { 0 };
            assert_eq!(way.packet.len(), sent.len() + longer);
            if v6 {
                // Who does not know the option skips it.
                let mut option = vec![sent[20], 2, 0x1e, 20];
                option.extend(addr(node).octets());
                option.extend(NODE_PORT.to_be_bytes());
                option.extend([0, 0]);
                assert_eq!((way.packet[20], &way.packet[54..78]), (60, &option[..]));
            }
            let seen = see(&way.packet);
            assert_eq!((seen.src.as_str(), seen.dst.as_str()), (client, backend.0));

            let ran = arrive(&mut second, &way.packet);
            assert_eq!(ran.trace, delivered());
            assert_eq!(ran.packet.len(), sent.len());
            assert_eq!(ran.packet[14..22], sent[14..22], "lengths and the like");
            let seen = see(&ran.packet);
            assert_eq!(seen.macs, (POD_MAC, POD_GATEWAY_MAC));
            assert_eq!((seen.src.as_str(), seen.dst.as_str()), (client, backend.0));
        }
        second.endpoint(backend.0, LOOPBACK, 0, POD_MAC);
        let answer = tcp(backend, (client, 50000), Flags::Ack, b"hello");
        let ran = second.send(&answer);
        let expected = trace(Verdict::Outside, UPLINK, Rule::ServiceReply);
        assert_eq!(ran.trace, expected);
        let seen = see(&ran.packet);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (node, client));
        assert_eq!(seen.transport, Transport::Tcp(NODE_PORT, 50000));
    }
}

#[test]
fn pieces_of_a_datagram_reach_the_backend_whole() {
    let (Some(mut first), Some(mut second)) = (asked("pieces"), answering("pieces")) else {
        return;
    };
    let payload: Vec<u8> = (0..5000).map(|at| (at * 7 + at / 251) as u8).collect();
    for (node, client, backend) in FAMILIES {
        let sent = pieces(&udp((client, 50000), (node, NODE_PORT), &payload), 1368);
        let mut arrived = Vec::new();
        for piece in sent {
            let way = first.run(Hook::FromNetdev, &piece);
            assert_eq!(way.trace, overlay(Rule::Service));
            let ran = arrive(&mut second, &way.packet);
            assert_eq!(ran.trace, delivered());
            arrived.push(ran.packet);
        }
        let whole = reassembled(&arrived);
        let seen = see(&whole);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (client, backend.0));
        assert_eq!(seen.transport, Transport::Udp(50000, backend.1));
        assert!(whole.ends_with(&payload));
    }
}

#[test]
fn an_error_about_an_answer_reaches_the_pod_that_sent_it() {
    let (Some(mut first), Some(mut second)) = (asked("errors"), answering("errors")) else {
        return;
    };
    for (node, client, backend) in FAMILIES {
        let v6 = any_ip(node).is_ipv6();
        first.run(
            Hook::FromNetdev,
            &udp((client, 50000), (node, NODE_PORT), b"hello"),
        );
        let answered = udp((node, NODE_PORT), (client, 50000), b"the answer");
        let answer = udp(backend, (client, 50000), b"the answer");
        let (router, says, ip) = if v6 {
            ("2001:db8::9", (2, 0, 1280), 40)
        } else {
            ("192.0.2.9", (3, 4, 1280), 20)
        };
        for teller in [client, router] {
            let error = icmp_error(teller, node, says, &answered, ip + 8);
            let way = first.run(Hook::FromNetdev, &error);
            assert_eq!(way.trace, overlay(Rule::IcmpError));
            assert_eq!(way.packet.len(), error.len());
            let ran = arrive(&mut second, &way.packet);
            assert_eq!(ran.trace, delivered());
            let seen = see(&ran.packet);
            assert_eq!((seen.src.as_str(), seen.dst.as_str()), (client, backend.0));
            let quote = answer[14..14 + ip + 8].to_vec();
            assert_eq!(seen.transport, Transport::TooBig { mtu: 1280, quote });
        }
    }
}

#[test]
fn what_is_longer_on_its_way_may_be_so_much_less_long() {
    let Some(mut world) = asked("direct MTU") else {
        return;
    };
    for ((node, client, _), (ip, room)) in FAMILIES.into_iter().zip([(20, 0), (40, ROOM)]) {
        let most = MTU as usize - room;
        let datagram = |length| {
            udp(
                (client, 50000),
                (node, NODE_PORT),
                &vec![7; length - ip - 8],
            )
        };
        let ran = world.run(Hook::FromNetdev, &datagram(most));
        assert_eq!(ran.trace, overlay(Rule::Service));
        assert_eq!(ran.packet.len(), 14 + most + room);
        let large = datagram(most + 1);
        let ran = world.run(Hook::FromNetdev, &large);
        assert_eq!(ran.trace.reason, DropReason::TooBig);
        let told = Transport::TooBig {
            mtu: most as u32,
            quote: large[14..14 + ip + 20].to_vec(),
        };
        assert_eq!(see(&ran.packet).transport, told);

        let segments = tcp((client, 50000), (node, NODE_PORT), Flags::Ack, &[7; 2800]);
        let mut segmented = |size| {
            let ran =
                world
                    .datapath
                    .run_segmented(Hook::FromNetdev, LOOPBACK, &segments, size as u32);
            ran.unwrap().trace.reason
        };
        // A test run's segments are of no protocol, so that no room can be made in them.
        assert_ne!(segmented(most - ip - 20), DropReason::TooBig);
        assert_eq!(segmented(most - ip - 20 + 1), DropReason::TooBig);
    }
}

#[test]
fn a_packet_with_as_many_headers_as_it_may_have_reaches_the_backend_with_one_more() {
    let (Some(mut first), Some(mut second)) = (asked("headers"), answering("headers")) else {
        return;
    };
    // As options padding, as a route one without a hop left, as a fragment all of its datagram.
    const NOTHING: [u8; 8] = [0; 8];
    let (node, client, backend) = FAMILIES[1];
    for proto in [tcp as fn(_, _, _, &[u8]) -> _, |from, to, _, payload| {
        udp(from, to, payload)
    }] {
        let mut sent = proto((client, 50000), (node, NODE_PORT), Flags::Syn, b"hello");
        for kind in [60, 43, 60, 44, 60, 0] {
            sent = extend(sent, kind, &NOTHING);
            let way = first.run(Hook::FromNetdev, &sent);
            assert_eq!(way.trace, overlay(Rule::Service));
            assert_eq!(way.packet.len(), sent.len() + ROOM);
            let ran = arrive(&mut second, &way.packet);
            assert_eq!(ran.trace, delivered());
            assert_eq!(ran.packet.len(), sent.len());
            let seen = see(&ran.packet);
            assert_eq!((seen.src.as_str(), seen.dst.as_str()), (client, backend.0));
        }
        let ran = first.run(Hook::FromNetdev, &extend(sent, 60, &NOTHING));
        assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::NotOurs));
    }
}

#[test]
fn a_packet_that_does_not_say_what_was_asked_is_malformed() {
    let Some(mut world) = answering("nothing asked") else {
        return;
    };
    let (_, client, backend) = FAMILIES[1];
    let plain = udp((client, 50000), backend, b"hello");
    let options = |option: &[u8; 24]| extend(plain.clone(), 60, option);
    let mut asked = [0; 24];
    (asked[1], asked[2], asked[3]) = (2, 0x1e, 20);
    asked[4..20].copy_from_slice(&addr(NODE6).octets());
    assert_eq!(arrive(&mut world, &options(&asked)).trace, delivered());
    let mut others = Vec::new();
    for at in 1..4 {
        let mut other = asked;
        other[at] ^= 1;
        others.push(options(&other));
    }
    others.push(plain.clone());
    for frame in others {
        let ran = arrive(&mut world, &frame);
        assert_eq!(ran.trace.reason, DropReason::Malformed, "{frame:x?}");
    }
    let stranger = world
        .datapath
        .run_tunnelled(DIRECT, addr(OUTSIDE), &options(&asked));
    assert_eq!(stranger.unwrap().trace.reason, DropReason::TunnelSpoofed);
}
