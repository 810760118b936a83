//! IPv6 takes the ways of IPv4: the same hooks, the same maps, its own checksums and refusals.

use orchestrator_common::event::Hook;
use orchestrator_common::{DropReason, Proto, Rule, Trace, Verdict};
use tests::packet::*;
use tests::prog::LOOPBACK;

use crate::world::*;

#[test]
fn ipv6_is_routed_like_ipv4() {
    let Some(mut world) = world("IPv6 routes") else {
        return;
    };
    let cases = [
        (REMOTE_POD6, overlay(Rule::RemotePod)),
        (
            NEIGHBOUR_POD6,
            trace(Verdict::Peer, NEIGHBOUR, Rule::LocalEndpoint),
        ),
        (GATEWAY6, trace(Verdict::Node, HOST, Rule::LocalEndpoint)),
        (NODE6, trace(Verdict::Node, HOST, Rule::LocalEndpoint)),
    ];
    for (to, expected) in cases {
        for frame in [
            tcp((POD6, 40000), (to, 80), Flags::Syn, b""),
            udp((POD6, 40000), (to, 53), b"hello"),
            echo(POD6, to, 7, false),
            fragment(udp((POD6, 53), (to, 53), b"12345678"), 181, true),
        ] {
            let ran = world.send(&frame);
            assert_eq!(ran.trace, expected, "{to}");
            assert_eq!(ran.packet[14..], frame[14..], "{to}");
        }
    }
    let ran = world.send(&udp((POD6, 40000), (OUTSIDE6, 53), b"hello"));
    assert_eq!(ran.trace, trace(Verdict::Outside, UPLINK, Rule::Default));
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.ttl), (POD6, 63));
    assert!(world.datapath.flows().unwrap().is_empty());
}

#[test]
fn nobody_is_an_ipv4_host_in_ipv6() {
    let Some(mut world) = world("mapped addresses") else {
        return;
    };
    // To the pod beside, and from the pod: rows that IPv4 has.
    for (at, as_mapped) in [(38, NEIGHBOUR_POD), (22, POD)] {
        let mut frame = udp((POD6, 40000), (NEIGHBOUR_POD6, 53), b"hello");
        frame[at..at + 16].copy_from_slice(&ip(as_mapped).to_ipv6_mapped().octets());
        world.must_drop(Hook::FromContainer, &frame, DropReason::Malformed);
        world.must_drop(Hook::ToContainer, &frame, DropReason::Malformed);
        world.must_drop(Hook::FromOverlay, &frame, DropReason::Malformed);
        for hook in [Hook::FromNetdev, Hook::ToNetdev] {
            let ran = world.run(hook, &frame);
            assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::NotOurs));
            assert_eq!(ran.packet, frame);
        }
    }
}

#[test]
fn an_ipv6_underlay_carries_both_families() {
    let Some(mut world) = world("IPv6 underlay") else {
        return;
    };
    let mut config = config();
    config.underlay = addr(NODE6);
    world.datapath.set_config(&config).unwrap();
    world.node("10.100.2.0", OTHER_NODE6);
    world.node("fd00:100:0:2::", OTHER_NODE6);
    for (from, to) in [(POD, REMOTE_POD), (POD6, REMOTE_POD6)] {
        let ran = world.send(&udp((from, 40000), (to, 53), b"hello"));
        let expected = Trace {
            vtep: 0x12,
            ..trace(Verdict::Overlay, OVERLAY, Rule::RemotePod)
        };
        assert_eq!(ran.trace, expected);
    }
}

#[test]
fn from_container_drops_ipv6_with_its_reason() {
    let Some(mut world) = world("IPv6 drops") else {
        return;
    };
    let mut drops = |frame: &[u8], reason| world.must_drop(Hook::FromContainer, frame, reason);
    let to = |dst| udp((POD6, 1), (dst, 1), b"12345678");
    drops(&to(REMOTE_POD6)[..56], DropReason::Malformed);
    let foreign = udp(("fd00:100:0:1::9", 1), (REMOTE_POD6, 1), b"");
    drops(&foreign, DropReason::SourceSpoofed);
    let beside = udp((NEIGHBOUR_POD6, 1), (REMOTE_POD6, 1), b"");
    drops(&beside, DropReason::SourceSpoofed);
    drops(&to("fd00:100:0:1::99"), DropReason::NoEndpoint);
    drops(&to("fd00:100:0:99::1"), DropReason::NoNode);
    drops(&to(POD6), DropReason::Hairpin);
    for nobody in ["::1", "::"] {
        drops(&to(nobody), DropReason::NotUnicast);
    }
    let through = extend(to(OUTSIDE6), 43, &[0, 0, 0, 1, 0, 0, 0, 0]);
    drops(&through, DropReason::UnsupportedProtocol);
    drops(
        &echo(POD6, SERVICE6.0, 1, false),
        DropReason::UnsupportedProtocol,
    );
}

#[test]
fn what_ipv6_says_on_its_link_only_ends_quietly() {
    let Some(mut world) = world("neighbour discovery") else {
        return;
    };
    let frames = [
        echo("fe80::5", "ff02::1:ff00:1", 1, false),
        echo("fe80::5", "ff02::2", 1, false),
        echo("::", "ff02::16", 1, false),
        echo(POD6, "fe80::1", 1, false),
        udp((POD6, 5353), ("ff02::fb", 5353), b"mdns"),
    ];
    for frame in &frames {
        world.must_drop(Hook::FromContainer, frame, DropReason::NotUnicast);
    }
}

#[test]
fn udp_to_an_ipv6_service_goes_to_a_backend_and_the_answer_comes_from_the_service() {
    let Some(mut world) = world("IPv6 UDP Service") else {
        return;
    };
    let ran = world.send(&udp((POD6, 40000), SERVICE6, b"query"));
    assert_eq!(ran.trace, overlay(Rule::Service));
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (POD6, BACKEND6.0));
    assert_eq!(seen.transport, Transport::Udp(40000, BACKEND6.1));

    world.endpoint(POD6, NEIGHBOUR, 0, POD_MAC);
    world.endpoint(REMOTE_POD6, LOOPBACK, 0, POD_MAC);
    let ran = world.send(&udp(BACKEND6, (POD6, 40000), b"answer"));
    assert_eq!(
        ran.trace,
        trace(Verdict::Peer, NEIGHBOUR, Rule::ServiceReply)
    );
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (SERVICE6.0, POD6));
    assert_eq!(seen.transport, Transport::Udp(SERVICE6.1, 40000));
}

#[test]
fn an_address_whose_words_only_changed_places_is_rewritten_all_the_same() {
    let Some(mut world) = world("equal sums") else {
        return;
    };
    // Checksums do not see the difference between the two.
    let (service, backend) = (("fd00:96::7:2", 53), ("fd00:96::2:7", 53));
    world.service(14, service, Proto::UDP, &[(16, backend)]);
    let ran = world.send(&udp((POD6, 40000), service, b"query"));
    assert_eq!(see(&ran.packet).dst, backend.0);
}

#[test]
fn ports_behind_extension_headers_are_translated() {
    let Some(mut world) = world("extension headers") else {
        return;
    };
    let query = udp((POD6, 40000), SERVICE6, b"query");
    let ran = world.send(&extend(query, 60, &[0; 8]));
    assert_eq!(ran.trace, overlay(Rule::Service));
    let seen = see(&ran.packet);
    assert_eq!(seen.dst, BACKEND6.0);
    assert_eq!(seen.transport, Transport::Udp(40000, BACKEND6.1));
}

#[test]
fn tcp_to_an_ipv6_service_is_balanced_and_masked_by_no_checksum_error() {
    let Some(mut world) = world("IPv6 TCP Service") else {
        return;
    };
    let service = ("fd00:96::90", 80);
    world.service(14, service, Proto::TCP, &[(16, (NEIGHBOUR_POD6, 8080))]);
    let ran = world.send(&tcp((POD6, 40000), service, Flags::Syn, b"x"));
    assert_eq!(ran.trace, trace(Verdict::Peer, NEIGHBOUR, Rule::Service));
    let seen = see(&ran.packet);
    assert_eq!(seen.dst, NEIGHBOUR_POD6);
    assert_eq!(seen.transport, Transport::Tcp(40000, 8080));
}

#[test]
fn an_ipv6_service_without_endpoints_refuses_at_once() {
    let Some(mut world) = world("IPv6 refusals") else {
        return;
    };
    let refusal = Trace {
        verdict: Verdict::Refuse,
        target: LOOPBACK,
        vtep: 0,
        reason: DropReason::NoBackend,
        rule: Rule::Service,
    };
    let frame = udp(
        (POD6, 40000),
        EMPTY6,
        b"a query that is longer than what is quoted",
    );
    let ran = world.send(&frame);
    assert_eq!(ran.trace, refusal);
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (EMPTY6.0, POD6));
    assert_eq!(seen.macs, (SENDER_MAC, GATEWAY_MAC));
    assert_eq!(
        seen.transport,
        Transport::PortUnreachable(frame[14..62].to_vec())
    );

    let ran = world.send(&tcp((POD6, 40000), EMPTY6, Flags::Syn, b""));
    assert_eq!(ran.trace, refusal);
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (EMPTY6.0, POD6));
    let reset = Transport::Reset {
        from: 80,
        to: 40000,
        sequence: 0,
        acknowledges: Some(1001),
    };
    assert_eq!(seen.transport, reset);
    let ran = world.send(&tcp((POD6, 40000), EMPTY6, Flags::Fin, &[7; 1000]));
    assert!(matches!(
        see(&ran.packet).transport,
        Transport::Reset {
            sequence: 2000,
            acknowledges: None,
            ..
        }
    ));
}
