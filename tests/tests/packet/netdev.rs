//! `to_netdev` and `from_netdev`: masquerade and back, and everything that is not theirs.

use std::collections::BTreeSet;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::{DropReason, Rule, Verdict};
use tests::packet::*;
use tests::prog::LOOPBACK;

use crate::world::*;

#[test]
fn what_does_not_come_from_a_pod_leaves_unaltered() {
    let Some(mut world) = world("to_netdev passes") else {
        return;
    };
    let own = tcp((NODE, 40000), (OUTSIDE, 443), Flags::Syn, b"");
    let outer = udp((NODE, 55555), (OTHER_NODE, 4789), &[0; 60]);
    for frame in [own, outer, arp()] {
        let ran = world.run(Hook::ToNetdev, &frame);
        assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::NotOurs));
        assert_eq!(ran.code, -1);
        assert_eq!(ran.packet, frame);
    }
    world.datapath.set_config(&Config::default()).unwrap();
    let ran = world.run(Hook::ToNetdev, &udp((POD, 1), (OUTSIDE, 1), b""));
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::NotOurs));
}

#[test]
fn sixty_thousand_connections_from_one_pod_to_one_server_outside_are_kept_apart() {
    let Some(mut world) = world("60,000 masqueraded") else {
        return;
    };
    let mut given = BTreeSet::new();
    for port in 1000..=60_999u16 {
        let sent = tcp((POD, port), (OUTSIDE, 443), Flags::Syn, b"");
        let ran = world.run(Hook::ToNetdev, &sent);
        assert_eq!(
            ran.trace,
            trace(Verdict::Pass, 0, Rule::Masquerade),
            "{port}"
        );
        let from = u16::from_be_bytes([ran.packet[34], ran.packet[35]]);
        // The sockets of the node keep theirs as long as there is room.
        let most = if port < 20_000 { 29_999 } else { 65_535 };
        assert!((1024..=most).contains(&from), "{from}");
        assert!(!(30_000..32_768).contains(&from), "{from} is a node port");
        assert!(given.insert(from), "{from} was given twice");
    }
}

#[test]
fn a_pod_cannot_speak_for_the_overlay_with_packets_that_it_wraps_itself() {
    let Some(mut world) = world("pods' tunnels") else {
        return;
    };
    let inner = tcp((NEIGHBOUR_POD, 1), (REMOTE_POD, 80), Flags::Syn, b"");
    let unsigned = vxlan(POD, OTHER_NODE, 1, &inner);
    let signed = udp((POD, 50000), (OTHER_NODE, 4789), &unsigned[42..]);
    assert_ne!(signed[40..42], [0, 0]);
    let first = fragment(signed.clone(), 0, true);
    for frame in [&unsigned, &signed, &first] {
        let ran = world.run(Hook::ToNetdev, frame);
        assert_eq!(ran.trace.reason, DropReason::TunnelSpoofed);
    }
    let later = world.run(Hook::ToNetdev, &fragment(signed, 10, false));
    assert_eq!(later.trace.reason, DropReason::Fragment);
}

/// Sends a pod's frame out and returns what the node sends, and the port or identifier that it got.
fn masqueraded(world: &mut World, frame: &[u8]) -> (Seen, u16) {
    let ran = world.run(Hook::ToNetdev, frame);
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::Masquerade));
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (NODE, OUTSIDE));
    let port = match seen.transport {
        Transport::Udp(from, _) | Transport::Tcp(from, _) => from,
        Transport::Echo { id, .. } => id,
        ref other => panic!("{other:?}"),
    };
    assert!(
        (1024..30000).contains(&port),
        "{port} is not for masqueraded flows"
    );
    (seen, port)
}

#[test]
fn a_pods_packets_to_outside_become_the_nodes_and_the_answers_the_pods() {
    let Some(mut world) = world("masquerade") else {
        return;
    };
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    type Build = fn(End<'_>, End<'_>) -> Vec<u8>;
    let builds: [Build; 2] = [
        |from, to| udp(from, to, b"hello"),
        |from, to| tcp(from, to, Flags::Ack, b"hello"),
    ];
    for build in builds {
        let (_, port) = masqueraded(&mut world, &build((POD, 40000), (OUTSIDE, 53)));
        let (_, again) = masqueraded(&mut world, &build((POD, 40000), (OUTSIDE, 53)));
        assert_eq!(port, again, "a flow keeps its port");
        let ran = world.run(Hook::FromNetdev, &build((OUTSIDE, 53), (NODE, port)));
        assert_eq!(
            ran.trace,
            trace(Verdict::Peer, NEIGHBOUR, Rule::MasqueradeReply)
        );
        let seen = see(&ran.packet);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (OUTSIDE, POD));
        assert_eq!(seen.macs, (POD_MAC, POD_GATEWAY_MAC));
        assert!(matches!(
            seen.transport,
            Transport::Udp(53, 40000) | Transport::Tcp(53, 40000)
        ));
    }
}

#[test]
fn an_echo_to_outside_and_its_reply_are_translated_by_identifier() {
    let Some(mut world) = world("masqueraded echo") else {
        return;
    };
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    let (_, id) = masqueraded(&mut world, &echo(POD, OUTSIDE, 77, false));
    let ran = world.run(Hook::FromNetdev, &echo(OUTSIDE, NODE, id, true));
    assert_eq!(
        ran.trace,
        trace(Verdict::Peer, NEIGHBOUR, Rule::MasqueradeReply)
    );
    let seen = see(&ran.packet);
    assert_eq!(
        (seen.dst.as_str(), seen.transport),
        (
            POD,
            Transport::Echo {
                id: 77,
                reply: true
            }
        )
    );
}

#[test]
fn pods_that_use_one_port_towards_one_destination_get_different_ones() {
    let Some(mut world) = world("masquerade ports") else {
        return;
    };
    let mut ports = std::collections::BTreeSet::new();
    for last in 10..200 {
        let from = format!("10.100.1.{last}");
        let (_, port) = masqueraded(&mut world, &udp((&from, 40000), (OUTSIDE, 53), b""));
        assert!(ports.insert(port), "{port} was given twice");
    }
}

#[test]
fn a_port_that_a_socket_of_the_node_holds_is_not_given() {
    let Some(mut world) = world("held ports") else {
        return;
    };
    // Every other port: 40 flows that do not look would meet a held one for certain. Other tests of
    // this process need some of the files that are left.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let sockets: Vec<_> = (1024..30000u16)
        .filter(|port| port % 2 != 0)
        .filter_map(|port| std::net::UdpSocket::bind(("0.0.0.0", port)).ok())
        .collect();
    if sockets.len() < 14_000 {
        tests::prog::skipped("held ports", "the limit of open files is below 15,000");
        return;
    }
    let mut given = 0;
    for port in 40000..40040 {
        let ran = world.run(Hook::ToNetdev, &udp((POD, port), (OUTSIDE, 53), b""));
        if ran.trace.verdict == Verdict::Drop {
            assert_eq!(ran.trace.reason, DropReason::NoFreePort);
            continue;
        }
        let Transport::Udp(from, _) = see(&ran.packet).transport else {
            panic!()
        };
        assert_eq!(from % 2, 0, "{from} is held by a socket");
        given += 1;
    }
    assert!(given > 20, "only {given} of 40 flows got a port");
}

#[test]
fn the_end_of_a_connection_is_noted() {
    let Some(mut world) = world("FIN") else {
        return;
    };
    masqueraded(
        &mut world,
        &tcp((POD, 40000), (OUTSIDE, 80), Flags::Syn, b""),
    );
    masqueraded(
        &mut world,
        &tcp((POD, 40000), (OUTSIDE, 80), Flags::Fin, b""),
    );
    let flows = world.datapath.flows().unwrap();
    let forward = flows
        .iter()
        .find(|(_, row)| row.direction == Flow::FORWARD)
        .unwrap()
        .1;
    assert_eq!(forward.seen & (Flow::FIN | Flow::RST), Flow::FIN);
}

#[test]
fn to_netdev_drops_with_its_reason() {
    let Some(mut world) = world("to_netdev drops") else {
        return;
    };
    let mut drops = |frame: &[u8], reason| world.must_drop(Hook::ToNetdev, frame, reason);
    drops(
        &udp((POD, 1), (REMOTE_POD, 1), b""),
        DropReason::PodRangeOutside,
    );
    drops(
        &fragment(udp((POD, 1), (OUTSIDE, 1), b"12345678"), 9, false),
        DropReason::Fragment,
    );
    drops(
        &of_protocol(POD, OUTSIDE, 47),
        DropReason::UnsupportedProtocol,
    );
    drops(
        &echo(POD, OUTSIDE, 1, true),
        DropReason::UnsupportedProtocol,
    );
}

#[test]
fn what_is_for_the_node_itself_passes_unaltered() {
    let Some(mut world) = world("from_netdev passes") else {
        return;
    };
    let frames = [
        arp(),
        tcp((OUTSIDE, 50000), (NODE, 22), Flags::Syn, b""),
        tcp((OUTSIDE, 443), (NODE, 50000), Flags::Ack, b""),
        // In the range of masqueraded ports, but nobody's.
        udp((OUTSIDE, 53), (NODE, 2000), b""),
        udp((OTHER_NODE, 55555), (NODE, 4789), &[0; 60]),
        udp((OUTSIDE, 1), ("172.31.0.255", 2000), b""),
        fragment(udp((OUTSIDE, 53), (NODE, 2000), b"12345678"), 9, false),
    ];
    for frame in frames {
        let ran = world.run(Hook::FromNetdev, &frame);
        assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::NotOurs));
        assert_eq!(ran.packet, frame);
    }
}

#[test]
fn from_netdev_drops_with_its_reason() {
    let Some(mut world) = world("from_netdev drops") else {
        return;
    };
    let spoofed = udp((REMOTE_POD, 1), (NODE, 22), b"");
    world.must_drop(Hook::FromNetdev, &spoofed, DropReason::PodRangeOutside);
    let direct = udp((OUTSIDE, 1), (POD, 22), b"");
    world.must_drop(Hook::FromNetdev, &direct, DropReason::PodRangeOutside);
    let (_, port) = masqueraded(&mut world, &udp(("10.100.1.99", 1), (OUTSIDE, 53), b""));
    let for_nobody = udp((OUTSIDE, 53), (NODE, port), b"");
    world.must_drop(Hook::FromNetdev, &for_nobody, DropReason::NoEndpoint);
}

#[test]
fn a_service_with_a_backend_outside_is_translated_twice_and_back() {
    let Some(mut world) = world("twice translated") else {
        return;
    };
    let service = ("10.96.0.90", 53);
    let backends = [(9, (OUTSIDE, 5300))];
    world.service(4, service, orchestrator_common::Proto::UDP, &backends);
    let ran = world.send(&udp((POD, 40000), service, b"query"));
    assert_eq!(ran.trace, trace(Verdict::Outside, UPLINK, Rule::Service));
    let (_, port) = masqueraded(&mut world, &ran.packet);
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    let ran = world.run(
        Hook::FromNetdev,
        &udp((OUTSIDE, 5300), (NODE, port), b"answer"),
    );
    assert_eq!(
        ran.trace,
        trace(Verdict::Peer, NEIGHBOUR, Rule::ServiceReply)
    );
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (service.0, POD));
    assert_eq!(seen.transport, Transport::Udp(53, 40000));
}

#[test]
fn what_another_node_sent_is_taken_out_of_the_overlay_on_the_uplink() {
    let Some(mut world) = world("unwrapped") else {
        return;
    };
    world.endpoint(POD6, NEIGHBOUR, 0, POD_MAC);
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    for (remote, pod) in [(REMOTE_POD, POD), (REMOTE_POD6, POD6)] {
        let frame = udp((remote, 53), (pod, 40000), b"hello");
        let ran = world.run(Hook::FromNetdev, &vxlan(OTHER_NODE, NODE, 1, &frame));
        let expected = trace(Verdict::Peer, NEIGHBOUR, Rule::LocalEndpoint);
        assert_eq!(ran.trace, expected);
        assert_eq!(ran.packet[..6], POD_MAC);
        assert_eq!(ran.packet[12..], frame[12..]);
        let spoofed = vxlan(OUTSIDE, NODE, 1, &frame);
        world.must_drop_inner(
            Hook::FromNetdev,
            &spoofed,
            &frame,
            DropReason::TunnelSpoofed,
        );
    }
}

#[test]
fn what_is_not_plainly_one_packet_of_the_overlay_is_left_to_the_stack() {
    let Some(mut world) = world("not unwrapped") else {
        return;
    };
    let inner = udp((REMOTE_POD, 53), (POD, 40000), b"hello");
    let good = vxlan(OTHER_NODE, NODE, 1, &inner);
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    let cases = [
        ("another's", vxlan(OTHER_NODE, OUTSIDE, 1, &inner)),
        ("another identifier", vxlan(OTHER_NODE, NODE, 2, &inner)),
        ("a wrong IP checksum", with(24, good[24] ^ 1)),
        ("a UDP checksum", with(41, 1)),
        ("an unknown flag", with(42, 0x48)),
        ("not IP inside", with(63, 6)),
        ("a first fragment", pieces(&good, 40).remove(0)),
        ("met congestion", with_class(&good, 3)),
        ("longer than it says", [&good[..], &[0; 4]].concat()),
    ];
    for (what, frame) in cases {
        let ran = world.run(Hook::FromNetdev, &frame);
        assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::NotOurs), "{what}");
        assert_eq!(ran.packet, frame, "{what}");
    }
    let segments = world
        .datapath
        .run_segmented(Hook::FromNetdev, LOOPBACK, &good, 20);
    let trace_of_segments = segments.unwrap().trace;
    assert_eq!(trace_of_segments, trace(Verdict::Pass, 0, Rule::NotOurs));
}

#[test]
fn whoever_may_be_told_of_congestion_may_be_in_the_tunnel_too() {
    let Some(mut world) = world("congestion") else {
        return;
    };
    let frame = udp((POD, 40000), (REMOTE_POD, 53), b"hello");
    for (inside, outside) in [(0, 0), (1, 1), (2, 2), (3, 2)] {
        let ran = world.send(&with_class(&frame, inside));
        assert_eq!(ran.trace, overlay(Rule::RemotePod));
        assert_eq!((ran.outer[15], ran.packet[15]), (outside, inside));
    }
}
