//! `from_container` and `to_container`: what an endpoint sends, and what reaches one through the stack.

use datapath::lookup::tunnel::Wrapped;
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::Endpoint;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::services::{BackendKey, Service, ServiceKey};
use orchestrator_common::{DropReason, Mac, Port, Proto, Rule, Trace, Verdict};
use tests::packet::*;
use tests::prog::LOOPBACK;

use crate::world::*;

const REDIRECT: i32 = 7;
const NEXT: i32 = -1;

#[test]
fn a_packet_to_a_pod_on_another_node_is_encapsulated_unaltered() {
    let Some(mut world) = world("remote pod") else {
        return;
    };
    let frame = tcp((POD, 40000), (REMOTE_POD, 80), Flags::Syn, b"");
    let ran = world.send(&frame);
    assert_eq!(ran.trace, overlay(Rule::RemotePod));
    assert_eq!(ran.code, REDIRECT);
    assert_eq!(ran.packet[14..], frame[14..]);
    assert_eq!(ran.packet[..6], Mac::OVERLAY_DEVICE.octets);
    assert_eq!(ran.packet[6..12], Mac::OVERLAY_SENDER.octets);
    let whole = [&ran.outer[..], &ran.packet].concat();
    let outer = Wrapped::read(&whole).unwrap();
    assert_eq!((outer.from, outer.to), (addr(NODE), addr(OTHER_NODE)));
    assert_eq!((outer.port, outer.vni), (4789, 1));
    let source_port = u16::from_be_bytes([whole[34], whole[35]]);
    assert!(source_port >= 49152, "{source_port}");
    assert!(world.datapath.flows().unwrap().is_empty());
    assert_eq!(world.datapath.decided(Verdict::Tunnel).unwrap(), 1);
    assert_eq!(world.datapath.decided(Verdict::Drop).unwrap(), 0);
}

#[test]
fn a_packet_to_a_pod_beside_is_handed_to_its_interface() {
    let Some(mut world) = world("local pod") else {
        return;
    };
    let frame = udp((POD, 40000), (NEIGHBOUR_POD, 53), b"hello");
    let ran = world.send(&frame);
    assert_eq!(
        ran.trace,
        trace(Verdict::Peer, NEIGHBOUR, Rule::LocalEndpoint)
    );
    assert_eq!(ran.code, REDIRECT);
    assert_eq!(see(&ran.packet).macs, (POD_MAC, POD_GATEWAY_MAC));
    assert_eq!(ran.packet[14..], frame[14..]);
}

#[test]
fn the_node_is_reached_under_both_its_addresses() {
    let Some(mut world) = world("node endpoint") else {
        return;
    };
    for node in [GATEWAY, NODE] {
        let ran = world.send(&tcp((POD, 40000), (node, 10250), Flags::Syn, b""));
        assert_eq!(
            ran.trace,
            trace(Verdict::Node, HOST, Rule::LocalEndpoint),
            "{node}"
        );
        assert_eq!(see(&ran.packet).macs.0, HOST_MAC);
    }
}

#[test]
fn a_packet_to_outside_leaves_by_the_uplink_with_one_hop_less_and_its_own_source() {
    let Some(mut world) = world("outside") else {
        return;
    };
    let ran = world.send(&udp((POD, 40000), (OUTSIDE, 53), b"hello"));
    assert_eq!(ran.trace, trace(Verdict::Outside, UPLINK, Rule::Default));
    let seen = see(&ran.packet);
    assert_eq!(
        (seen.src.as_str(), seen.dst.as_str(), seen.ttl),
        (POD, OUTSIDE, 63)
    );
}

#[test]
fn fragments_between_pods_pass_unaltered_and_their_payload_is_not_taken_for_ports() {
    let Some(mut world) = world("fragments") else {
        return;
    };
    for (offset, more) in [(0, true), (185, true), (370, false)] {
        let frame = udp((POD, 53), (REMOTE_POD, 53), b"12345678");
        let frame = fragment(frame, offset, more);
        let ran = world.send(&frame);
        assert_eq!(ran.trace, overlay(Rule::RemotePod));
        assert_eq!(ran.packet[14..], frame[14..]);
    }
}

#[test]
fn udp_to_a_service_goes_to_a_backend_and_the_answer_comes_from_the_service() {
    let Some(mut world) = world("UDP Service") else {
        return;
    };
    let ran = world.send(&udp((POD, 40000), SERVICE, b"query"));
    assert_eq!(ran.trace, overlay(Rule::Service));
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (POD, BACKEND.0));
    assert_eq!(seen.transport, Transport::Udp(40000, BACKEND.1));
    assert_eq!(
        world.datapath.flows().unwrap().len(),
        2,
        "one flow, two rows"
    );

    // The pod is now behind another interface, so that the answer may come in by loopback.
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    world.endpoint(REMOTE_POD, LOOPBACK, 0, POD_MAC);
    let ran = world.send(&udp(BACKEND, (POD, 40000), b"answer"));
    assert_eq!(
        ran.trace,
        trace(Verdict::Peer, NEIGHBOUR, Rule::ServiceReply)
    );
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (SERVICE.0, POD));
    assert_eq!(seen.transport, Transport::Udp(SERVICE.1, 40000));
}

#[test]
fn tcp_that_no_socket_hook_saw_is_balanced_too() {
    let Some(mut world) = world("TCP Service per packet") else {
        return;
    };
    world.service(
        4,
        ("10.96.0.90", 80),
        Proto::TCP,
        &[(9, (NEIGHBOUR_POD, 8080))],
    );
    let ran = world.send(&tcp((POD, 40000), ("10.96.0.90", 80), Flags::Syn, b""));
    assert_eq!(ran.trace, trace(Verdict::Peer, NEIGHBOUR, Rule::Service));
    let seen = see(&ran.packet);
    assert_eq!(seen.dst, NEIGHBOUR_POD);
    assert_eq!(seen.transport, Transport::Tcp(40000, 8080));
}

#[test]
fn a_service_may_have_a_backend_outside_the_cluster() {
    let Some(mut world) = world("outside backend") else {
        return;
    };
    world.service(4, ("10.96.0.90", 53), Proto::UDP, &[(9, (OUTSIDE, 5300))]);
    let ran = world.send(&udp((POD, 40000), ("10.96.0.90", 53), b"query"));
    assert_eq!(ran.trace, trace(Verdict::Outside, UPLINK, Rule::Service));
    assert_eq!(see(&ran.packet).dst, OUTSIDE);
}

#[test]
fn a_datagram_without_checksum_keeps_none() {
    let Some(mut world) = world("zero checksum") else {
        return;
    };
    let mut frame = udp((POD, 40000), SERVICE, b"query");
    frame[40..42].fill(0);
    let ran = world.send(&frame);
    assert_eq!(ran.trace, overlay(Rule::Service));
    assert_eq!(ran.packet[40..42], [0, 0]);
}

#[test]
fn every_backend_of_a_service_is_used_and_a_flow_keeps_its_own() {
    let Some(mut world) = world("spread") else {
        return;
    };
    let backends = [
        (1, (NEIGHBOUR_POD, 1)),
        (2, (REMOTE_POD, 2)),
        (3, ("10.100.2.8", 3)),
    ];
    world.service(4, ("10.96.0.90", 53), Proto::UDP, &backends);
    let mut uses = [0; 3];
    for port in 40000..40090 {
        let mut chosen = Vec::new();
        for _ in 0..3 {
            let ran = world.send(&udp((POD, port), ("10.96.0.90", 53), b"query"));
            let Transport::Udp(_, to) = see(&ran.packet).transport else {
                panic!()
            };
            chosen.push(to);
        }
        assert!(chosen.iter().all(|to| *to == chosen[0]), "{chosen:?}");
        uses[usize::from(chosen[0]) - 1] += 1;
    }
    assert!(uses.iter().all(|uses| *uses > 10), "{uses:?}");
}

#[test]
fn a_udp_flow_chooses_again_when_its_backend_went() {
    let Some(mut world) = world("generation") else {
        return;
    };
    world.send(&udp((POD, 40000), SERVICE, b"query"));
    world.datapath.set_row("generations_v1", 5, 1u32).unwrap();
    world.service(1, SERVICE, Proto::UDP, &[(6, (NEIGHBOUR_POD, 5353))]);
    let ran = world.send(&udp((POD, 40000), SERVICE, b"query"));
    assert_eq!(ran.trace, trace(Verdict::Peer, NEIGHBOUR, Rule::Service));
    let flows = world.datapath.flows().unwrap();
    let forward = flows
        .iter()
        .find(|(key, _)| key.dst == addr(SERVICE.0))
        .unwrap()
        .1;
    assert_eq!((forward.backend, forward.generation), (6, 0));
}

#[test]
fn an_open_tcp_connection_stays_with_its_backend_and_a_new_one_does_not() {
    let Some(mut world) = world("TCP generation") else {
        return;
    };
    let service = ("10.96.0.90", 80);
    world.service(4, service, Proto::TCP, &[(9, (NEIGHBOUR_POD, 8080))]);
    world.send(&tcp((POD, 40000), service, Flags::Syn, b""));
    world.datapath.set_row("generations_v1", 9, 1u32).unwrap();
    world.service(4, service, Proto::TCP, &[(10, (REMOTE_POD, 8080))]);
    let ran = world.send(&tcp((POD, 40000), service, Flags::Ack, b"data"));
    assert_eq!(see(&ran.packet).dst, NEIGHBOUR_POD);
    let ran = world.send(&tcp((POD, 40000), service, Flags::Syn, b""));
    assert_eq!(see(&ran.packet).dst, REMOTE_POD);
}

#[test]
fn two_services_with_one_backend_are_told_apart_by_the_source_port() {
    let Some(mut world) = world("port clash") else {
        return;
    };
    world.service(4, ("10.96.0.90", 53), Proto::UDP, &[(5, BACKEND)]);
    let first = world.send(&udp((POD, 40000), SERVICE, b"query"));
    let second = world.send(&udp((POD, 40000), ("10.96.0.90", 53), b"query"));
    let port = |packet: &[u8]| match see(packet).transport {
        Transport::Udp(from, _) => from,
        other => panic!("{other:?}"),
    };
    assert_eq!(port(&first.packet), 40000);
    let other = port(&second.packet);
    assert_ne!(other, 40000);

    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    world.endpoint(REMOTE_POD, LOOPBACK, 0, POD_MAC);
    let ran = world.send(&udp(BACKEND, (POD, other), b"answer"));
    let seen = see(&ran.packet);
    assert_eq!(seen.src, "10.96.0.90");
    assert_eq!(seen.transport, Transport::Udp(53, 40000));
}

#[test]
fn a_lost_half_of_a_flow_is_rebuilt_from_the_other() {
    let Some(mut world) = world("lost half") else {
        return;
    };
    let query = udp((POD, 40000), SERVICE, b"query");
    world.send(&query);
    let flows = world.datapath.flows().unwrap();
    let half = |direction| {
        *flows
            .iter()
            .find(|(_, row)| row.direction == direction)
            .unwrap()
    };
    let ((key, forward), (reply_key, reply)) = (half(Flow::FORWARD), half(Flow::REPLY));

    world.lose(&reply_key, &key);
    world.send(&query);
    assert_eq!(world.flow(&reply_key).translated, reply.translated);

    world.lose(&key, &reply_key);
    world.run(Hook::ToContainer, &udp(BACKEND, (POD, 40000), b"answer"));
    assert_eq!(world.flow(&key).translated, forward.translated);
    assert_eq!(world.datapath.flows().unwrap().len(), 2);
}

#[test]
fn udp_to_a_service_without_endpoints_is_refused_at_once() {
    let Some(mut world) = world("UDP refusal") else {
        return;
    };
    let frame = udp(
        (POD, 40000),
        EMPTY,
        b"a query that is longer than what an error quotes",
    );
    let ran = world.send(&frame);
    assert_eq!(
        ran.trace,
        Trace {
            verdict: Verdict::Refuse,
            target: LOOPBACK,
            vtep: 0,
            reason: DropReason::NoBackend,
            rule: Rule::Service
        }
    );
    assert_eq!(ran.code, REDIRECT);
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (EMPTY.0, POD));
    assert_eq!(seen.macs, (SENDER_MAC, GATEWAY_MAC));
    assert_eq!(
        seen.transport,
        Transport::PortUnreachable(frame[14..42].to_vec())
    );
    assert_eq!(world.datapath.counted(DropReason::NoBackend).unwrap(), 1);
}

#[test]
fn tcp_to_a_service_without_endpoints_is_reset_at_once() {
    let Some(mut world) = world("TCP refusal") else {
        return;
    };
    let ran = world.send(&tcp((POD, 40000), EMPTY, Flags::Syn, b""));
    assert_eq!(ran.trace.verdict, Verdict::Refuse);
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (EMPTY.0, POD));
    let reset = Transport::Reset {
        from: 80,
        to: 40000,
        sequence: 0,
        acknowledges: Some(1001),
    };
    assert_eq!(seen.transport, reset);

    let ran = world.send(&tcp((POD, 40000), EMPTY, Flags::Ack, &[7; 1000]));
    let reset = Transport::Reset {
        from: 80,
        to: 40000,
        sequence: 2000,
        acknowledges: None,
    };
    assert_eq!(see(&ran.packet).transport, reset);
    world.must_drop(
        Hook::FromContainer,
        &tcp((POD, 40000), EMPTY, Flags::Rst, b""),
        DropReason::NoBackend,
    );
}

#[test]
fn a_port_that_a_service_does_not_have_is_refused() {
    let Some(mut world) = world("unknown port") else {
        return;
    };
    let ran = world.send(&udp((POD, 40000), (SERVICE.0, 54), b"query"));
    assert_eq!(
        (ran.trace.verdict, ran.trace.reason),
        (Verdict::Refuse, DropReason::NoService)
    );
    let ran = world.send(&tcp((POD, 40000), (SERVICE.0, 53), Flags::Syn, b""));
    assert_eq!(
        (ran.trace.verdict, ran.trace.reason),
        (Verdict::Refuse, DropReason::NoService)
    );
}

#[test]
fn the_node_sends_as_an_endpoint_and_is_refused_through_its_own_interface() {
    let Some(mut world) = world("node sends") else {
        return;
    };
    world.endpoint(GATEWAY, LOOPBACK, Endpoint::HOST, HOST_MAC);
    let ran = world.send(&udp((GATEWAY, 40000), SERVICE, b"query"));
    assert_eq!(ran.trace, overlay(Rule::Service));
    let ran = world.send(&udp((GATEWAY, 40000), EMPTY, b"query"));
    assert_eq!(
        (ran.trace.verdict, ran.trace.target),
        (Verdict::Refuse, LOOPBACK)
    );
    assert_eq!(see(&ran.packet).dst, GATEWAY);
}

#[test]
fn an_answer_reaches_the_node_from_the_service_that_it_asked() {
    let Some(mut world) = world("node answer") else {
        return;
    };
    world.endpoint(GATEWAY, LOOPBACK, Endpoint::HOST, HOST_MAC);
    world.service(1, SERVICE, Proto::UDP, &[(5, (NEIGHBOUR_POD, 5353))]);
    let ran = world.send(&udp((GATEWAY, 40000), SERVICE, b"query"));
    assert_eq!(ran.trace, trace(Verdict::Peer, NEIGHBOUR, Rule::Service));
    world.endpoint(NEIGHBOUR_POD, LOOPBACK, 0, POD_MAC);
    world.endpoint(GATEWAY, HOST, Endpoint::HOST, HOST_MAC);
    let ran = world.send(&udp((NEIGHBOUR_POD, 5353), (GATEWAY, 40000), b"answer"));
    assert_eq!(ran.trace, trace(Verdict::Node, HOST, Rule::ServiceReply));
    assert_eq!(see(&ran.packet).src, SERVICE.0);
}

#[test]
fn from_container_drops_with_its_reason() {
    let Some(mut world) = world("from_container drops") else {
        return;
    };
    let mut drops = |frame: &[u8], reason| world.must_drop(Hook::FromContainer, frame, reason);
    let whole = udp((POD, 1), (REMOTE_POD, 1), b"");
    drops(&arp(), DropReason::NotIp);
    drops(&whole[..40], DropReason::Malformed);
    drops(
        &udp(("10.100.1.9", 1), (REMOTE_POD, 1), b""),
        DropReason::SourceSpoofed,
    );
    drops(
        &udp((NEIGHBOUR_POD, 1), (REMOTE_POD, 1), b""),
        DropReason::SourceSpoofed,
    );
    drops(
        &udp((POD, 1), ("10.100.1.99", 1), b""),
        DropReason::NoEndpoint,
    );
    drops(&udp((POD, 1), ("10.100.99.1", 1), b""), DropReason::NoNode);
    drops(&udp((POD, 1), (POD, 1), b""), DropReason::Hairpin);
    drops(
        &udp((POD, 1), ("224.0.0.1", 1), b""),
        DropReason::NotUnicast,
    );
    drops(
        &udp((POD, 1), ("255.255.255.255", 67), b""),
        DropReason::NotUnicast,
    );
    drops(
        &fragment(udp((POD, 1), SERVICE, b"12345678"), 9, false),
        DropReason::Fragment,
    );
    drops(
        &echo(POD, SERVICE.0, 1, false),
        DropReason::UnsupportedProtocol,
    );
    world.datapath.set_config(&Config::default()).unwrap();
    world.must_drop(Hook::FromContainer, &whole, DropReason::NoConfig);
}

#[test]
fn an_endpoint_sends_from_its_own_link_address_only() {
    let Some(mut world) = world("foreign MAC") else {
        return;
    };
    for (from, to) in [
        (POD, REMOTE_POD),
        (POD6, REMOTE_POD6),
        (GATEWAY, REMOTE_POD),
    ] {
        let flags = if from == GATEWAY { Endpoint::HOST } else { 0 };
        world.endpoint(from, LOOPBACK, flags, SENDER_MAC);
        let own = udp((from, 40000), (to, 53), b"hello");
        assert_eq!(world.send(&own).trace, overlay(Rule::RemotePod), "{from}");
        for octet in 6..12 {
            let mut foreign = own.clone();
            foreign[octet] ^= 1;
            world.must_drop(Hook::FromContainer, &foreign, DropReason::SourceSpoofed);
        }
    }
}

#[test]
fn a_tcp_header_that_is_cut_off_is_malformed() {
    let Some(mut world) = world("short TCP") else {
        return;
    };
    for (from, to, ip) in [(POD, REMOTE_POD, 20), (POD6, REMOTE_POD6, 40)] {
        let whole = tcp((from, 40000), (to, 80), Flags::Syn, b"");
        assert_eq!(whole.len(), 14 + ip + 20);
        for short in [8, 13, 14, 19] {
            let cut = &whole[..14 + ip + short];
            world.must_drop(Hook::FromContainer, cut, DropReason::Malformed);
        }
    }
}

#[test]
fn a_service_whose_backend_rows_are_not_there_yet_refuses() {
    let Some(mut world) = world("missing backend row") else {
        return;
    };
    let key = ServiceKey::new(addr(EMPTY.0), Port::new(EMPTY.1), Proto::UDP);
    let counted_first = Service {
        id: 3,
        count: 2,
        ..Service::default()
    };
    world
        .datapath
        .put("services_v1", key, counted_first)
        .unwrap();
    let ran = world.send(&udp((POD, 40000), EMPTY, b"query"));
    assert_eq!(
        (ran.trace.verdict, ran.trace.reason),
        (Verdict::Refuse, DropReason::NoBackend)
    );
    // With the first slot in place that one is taken.
    let key = BackendKey {
        service: 3,
        slot: 0,
    };
    let backend = orchestrator_common::maps::services::Backend {
        addr: addr(REMOTE_POD),
        port: Port::new(9),
        flags: 0,
        id: 1,
    };
    world.datapath.put("backends_v1", key, backend).unwrap();
    let ran = world.send(&udp((POD, 40000), EMPTY, b"query"));
    assert_eq!(ran.trace, overlay(Rule::Service));
}

#[test]
fn what_comes_through_the_stack_is_admitted_only_for_the_interfaces_own_endpoint() {
    let Some(mut world) = world("to_container") else {
        return;
    };
    let ran = world.run(
        Hook::ToContainer,
        &udp((OUTSIDE, 53), (POD, 40000), b"hello"),
    );
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::LocalEndpoint));
    assert_eq!(ran.code, NEXT);
    assert_eq!(see(&ran.packet).macs, (SENDER_MAC, POD_GATEWAY_MAC));
    let for_another = udp((OUTSIDE, 53), (NEIGHBOUR_POD, 40000), b"");
    world.must_drop(Hook::ToContainer, &for_another, DropReason::NoEndpoint);
    let for_nobody = udp((OUTSIDE, 53), ("10.100.1.99", 40000), b"");
    world.must_drop(Hook::ToContainer, &for_nobody, DropReason::NoEndpoint);
    world.must_drop(Hook::ToContainer, &arp(), DropReason::NotIp);
}

#[test]
fn who_takes_the_addresses_of_a_pod_beside_it_is_known_by_its_interface() {
    let Some(mut world) = world("foreign addresses") else {
        return;
    };
    for (from, to) in [
        (NEIGHBOUR_POD, REMOTE_POD),
        (NEIGHBOUR_POD6, REMOTE_POD6),
        (GATEWAY, REMOTE_POD),
    ] {
        let mac = if from == GATEWAY { HOST_MAC } else { POD_MAC };
        let mut foreign = udp((from, 40000), (to, 53), b"hello");
        foreign[6..12].copy_from_slice(&mac);
        world.must_drop(Hook::FromContainer, &foreign, DropReason::SourceSpoofed);
    }
}

#[test]
fn an_address_of_no_pod_is_not_sent_into_the_overlay_with_direct_return_or_without() {
    let Some(mut world) = world("foreign source") else {
        return;
    };
    for (from, to) in [(NODE, REMOTE_POD), (NODE6, REMOTE_POD6)] {
        world.endpoint(from, LOOPBACK, Endpoint::HOST, SENDER_MAC);
        for flags in [0, Config::DSR] {
            let config = Config { flags, ..config() };
            world.datapath.set_config(&config).unwrap();
            let foreign = udp((from, 40000), (to, 53), b"hello");
            world.must_drop(Hook::FromContainer, &foreign, DropReason::SourceSpoofed);
        }
    }
}

#[test]
fn a_services_answer_through_the_stack_is_translated_as_well() {
    let Some(mut world) = world("to_container reply") else {
        return;
    };
    world.send(&udp((POD, 40000), SERVICE, b"query"));
    let ran = world.run(Hook::ToContainer, &udp(BACKEND, (POD, 40000), b"answer"));
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::ServiceReply));
    assert_eq!(see(&ran.packet).src, SERVICE.0);
}
