//! ICMP errors reach who sent what they are about, and quote what was sent; packets too big for the
//! overlay are answered by one.

use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::Endpoint;
use orchestrator_common::maps::services::{Service, ServiceKey};
use orchestrator_common::{DropReason, Port, Proto, Rule, Trace, Verdict};
use tests::packet::*;
use tests::prog::LOOPBACK;

use crate::world::*;

type Build = fn(End<'_>, End<'_>) -> Vec<u8>;
const BUILDS: [Build; 2] = [
    |from, to| udp(from, to, b"twelve bytes and more"),
    |from, to| tcp(from, to, Flags::Ack, b"twelve bytes and more"),
];

/// Pod, Service and backend of each family.
const FAMILIES: [(&str, End<'static>, End<'static>); 2] = [
    (POD, ("10.96.0.90", 80), (REMOTE_POD, 8080)),
    (POD6, ("fd00:96::90", 80), (REMOTE_POD6, 8080)),
];

/// Unreachable, too big, time exceeded, parameter problem.
const SAYS_V4: [(u8, u8, u32); 4] = [(3, 1, 0), (3, 4, 1280), (11, 0, 0), (12, 0, 0)];
const SAYS_V6: [(u8, u8, u32); 4] = [(1, 3, 0), (2, 0, 1280), (3, 0, 0), (4, 0, 0)];

fn says(to: &str) -> [(u8, u8, u32); 4] {
    if any_ip(to).is_ipv6() {
        SAYS_V6
    } else {
        SAYS_V4
    }
}

/// An IP header with eight bytes behind it, with a TCP header, or all that was sent.
fn quotes(to: &str) -> [usize; 3] {
    let ip = if any_ip(to).is_ipv6() { 40 } else { 20 };
    [ip + 8, ip + 20, 1500]
}

fn quote(packet: &[u8]) -> Vec<u8> {
    match see(packet).transport {
        Transport::PortUnreachable(quote)
        | Transport::TooBig { quote, .. }
        | Transport::Error(_, _, quote) => quote,
        other => panic!("no error: {other:?}"),
    }
}

fn both_services(world: &mut World, service: End<'_>, backend: End<'_>) {
    world.service(4, service, Proto::UDP, &[(9, backend)]);
    world.service(5, service, Proto::TCP, &[(10, backend)]);
}

#[test]
fn an_error_about_a_packet_to_a_service_quotes_what_the_client_sent() {
    let Some(mut world) = world("error to client") else {
        return;
    };
    for (pod, service, backend) in FAMILIES {
        both_services(&mut world, service, backend);
        for build in BUILDS {
            world.swap(backend.0, pod);
            let sent = build((pod, 40000), service);
            let translated = world.send(&sent).packet;
            assert_eq!(see(&translated).dst, backend.0);
            world.swap(pod, backend.0);
            for (quoted, says) in quotes(pod)
                .into_iter()
                .flat_map(|q| says(pod).map(|s| (q, s)))
            {
                let error = icmp_error(backend.0, pod, says, &translated, quoted);
                let ran = world.send(&error);
                let expected = trace(Verdict::Peer, NEIGHBOUR, Rule::IcmpError);
                assert_eq!(ran.trace, expected, "{says:?}");
                let seen = see(&ran.packet);
                assert_eq!((seen.src.as_str(), seen.dst.as_str()), (service.0, pod));
                let length = sent.len().min(14 + quoted);
                assert_eq!(quote(&ran.packet), sent[14..length], "{says:?} {quoted}");
            }
        }
    }
}

#[test]
fn an_error_about_a_services_answer_quotes_what_the_backend_sent() {
    let Some(mut world) = world("error to backend") else {
        return;
    };
    for (pod, service, backend) in FAMILIES {
        both_services(&mut world, service, backend);
        for build in BUILDS {
            world.swap(backend.0, pod);
            world.send(&build((pod, 40000), service));
            world.swap(pod, backend.0);
            let answer = build(backend, (pod, 40000));
            let translated = world.send(&answer).packet;
            assert_eq!(see(&translated).src, service.0);
            world.swap(backend.0, pod);
            for (quoted, says) in quotes(pod)
                .into_iter()
                .flat_map(|q| says(pod).map(|s| (q, s)))
            {
                let error = icmp_error(pod, service.0, says, &translated, quoted);
                let ran = world.send(&error);
                assert_eq!(ran.trace, overlay(Rule::IcmpError), "{says:?}");
                let seen = see(&ran.packet);
                assert_eq!((seen.src.as_str(), seen.dst.as_str()), (pod, backend.0));
                let length = answer.len().min(14 + quoted);
                assert_eq!(quote(&ran.packet), answer[14..length], "{says:?} {quoted}");
            }
        }
    }
}

#[test]
fn a_routers_error_about_a_masqueraded_packet_reaches_the_pod() {
    let Some(mut world) = world("error to masqueraded pod") else {
        return;
    };
    for (pod, node, outside, router) in [
        (POD, NODE, OUTSIDE, "192.0.2.9"),
        (POD6, NODE6, OUTSIDE6, "2001:db8::9"),
    ] {
        world.endpoint(pod, NEIGHBOUR, 0, POD_MAC);
        let sent = [
            udp((pod, 40000), (outside, 53), b"hello"),
            tcp((pod, 40000), (outside, 80), Flags::Ack, b"hello"),
            echo(pod, outside, 77, false),
        ];
        for sent in sent {
            let ran = world.run(Hook::ToNetdev, &sent);
            assert_eq!(ran.trace.rule, Rule::Masquerade);
            for says in says(pod) {
                let quoted = quotes(pod)[0];
                let error = icmp_error(router, node, says, &ran.packet, quoted);
                let ran = world.run(Hook::FromNetdev, &error);
                let expected = trace(Verdict::Peer, NEIGHBOUR, Rule::IcmpError);
                assert_eq!(ran.trace, expected, "{says:?}");
                let seen = see(&ran.packet);
                assert_eq!((seen.src.as_str(), seen.dst.as_str()), (router, pod));
                assert_eq!(quote(&ran.packet), sent[14..14 + quoted]);
            }
        }
    }
}

#[test]
fn a_pods_error_about_an_answer_leaves_as_the_nodes() {
    let Some(mut world) = world("error from masqueraded pod") else {
        return;
    };
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    let ran = world.run(Hook::ToNetdev, &udp((POD, 40000), (OUTSIDE, 53), b"query"));
    let Transport::Udp(port, _) = see(&ran.packet).transport else {
        panic!()
    };
    let answer = udp((OUTSIDE, 53), (NODE, port), b"answer");
    let delivered = world.run(Hook::FromNetdev, &answer).packet;
    let error = icmp_error(POD, OUTSIDE, (3, 3, 0), &delivered, 28);
    let ran = world.run(Hook::ToNetdev, &error);
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::IcmpError));
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (NODE, OUTSIDE));
    assert_eq!(quote(&ran.packet), answer[14..42]);
}

#[test]
fn an_error_about_a_packet_translated_twice_is_translated_twice() {
    let Some(mut world) = world("error twice") else {
        return;
    };
    let service = ("10.96.0.90", 53);
    world.service(4, service, Proto::UDP, &[(9, (OUTSIDE, 5300))]);
    let sent = udp((POD, 40000), service, b"query");
    let once = world.send(&sent).packet;
    let twice = world.run(Hook::ToNetdev, &once).packet;
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    let error = icmp_error(OUTSIDE, NODE, (3, 3, 0), &twice, 28);
    let ran = world.run(Hook::FromNetdev, &error);
    assert_eq!(ran.trace, trace(Verdict::Peer, NEIGHBOUR, Rule::IcmpError));
    let seen = see(&ran.packet);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (service.0, POD));
    // One hop nearer to its end than it was sent.
    let mut sent = with_ttl(sent, 63);
    sent.truncate(42);
    assert_eq!(quote(&ran.packet), sent[14..]);
}

#[test]
fn an_error_about_nothing_that_was_translated_is_left_as_it_is() {
    let Some(mut world) = world("errors without flow") else {
        return;
    };
    let stranger = udp((NEIGHBOUR_POD, 53), (POD, 40000), b"answer");
    let error = icmp_error(POD, NEIGHBOUR_POD, (3, 3, 0), &stranger, 28);
    let ran = world.send(&error);
    assert_eq!(
        ran.trace,
        trace(Verdict::Peer, NEIGHBOUR, Rule::LocalEndpoint)
    );
    assert_eq!(ran.packet[14..], error[14..]);

    let own = udp((NODE, 2000), (OUTSIDE, 53), b"query");
    let for_node = icmp_error(OUTSIDE, NODE, (3, 3, 0), &own, 28);
    let ran = world.run(Hook::FromNetdev, &for_node);
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::NotOurs));
    assert_eq!(ran.packet, for_node);

    let unasked = udp((SERVICE.0, 53), (POD, 40000), b"answer");
    let to_service = icmp_error(POD, SERVICE.0, (3, 3, 0), &unasked, 28);
    world.must_drop(Hook::FromContainer, &to_service, DropReason::NoFlow);
    let cut = icmp_error(POD, SERVICE.0, (3, 3, 0), &unasked, 21);
    world.must_drop(Hook::FromContainer, &cut, DropReason::NoFlow);
    let outside = icmp_error(POD, OUTSIDE, (3, 3, 0), &unasked, 28);
    world.must_drop(Hook::ToNetdev, &outside, DropReason::NoFlow);
}

#[test]
fn a_pod_tells_errors_only_about_what_it_was_sent() {
    let Some(mut world) = world("foreign errors") else {
        return;
    };
    for ((pod, service, backend), (other, gateway)) in FAMILIES
        .into_iter()
        .zip([(NEIGHBOUR_POD, GATEWAY), (NEIGHBOUR_POD6, GATEWAY6)])
    {
        both_services(&mut world, service, backend);
        for build in BUILDS {
            // The pod beside has a flow to the Service.
            world.swap(pod, other);
            world.send(&build((other, 40000), service));
            world.swap(other, pod);
            // As if the answer had come here.
            let answer = build(service, (other, 40000));
            for says in says(pod) {
                for to in [service.0, backend.0, other] {
                    let error = icmp_error(pod, to, says, &answer, quotes(pod)[0]);
                    world.must_drop(Hook::FromContainer, &error, DropReason::SourceSpoofed);
                }
            }
            let ip = if any_ip(pod).is_ipv6() { 40 } else { 20 };
            let cut = icmp_error(pod, service.0, says(pod)[0], &answer, ip - 1);
            world.must_drop(Hook::FromContainer, &cut, DropReason::SourceSpoofed);
            // The node forwarded it, and may say so.
            world.endpoint(gateway, LOOPBACK, Endpoint::HOST, SENDER_MAC);
            let error = icmp_error(gateway, service.0, says(pod)[0], &answer, quotes(pod)[0]);
            assert_eq!(world.send(&error).trace, overlay(Rule::IcmpError));
        }
    }
}

#[test]
fn nobody_outside_tells_of_what_pods_sent_each_other() {
    let Some(mut world) = world("errors about pods") else {
        return;
    };
    for ((pod, service, backend), (node, router)) in FAMILIES
        .into_iter()
        .zip([(NODE, "192.0.2.9"), (NODE6, "2001:db8::9")])
    {
        both_services(&mut world, service, backend);
        for build in BUILDS {
            let translated = world.send(&build((pod, 40000), service)).packet;
            let answer = build(service, (pod, 40000));
            for about in [translated, answer] {
                let error = icmp_error(router, node, says(pod)[1], &about, quotes(pod)[0]);
                world.must_drop(Hook::FromNetdev, &error, DropReason::PodRangeOutside);
            }
        }
    }
}

/// What the sender is told of a packet that came no further.
fn expired(vtep: u32, rule: Rule) -> Trace {
    Trace {
        vtep,
        reason: DropReason::TtlExceeded,
        rule,
        ..too_big()
    }
}

#[test]
fn who_traces_a_route_hears_from_the_nodes_address_on_its_side() {
    let Some(mut world) = world("traced routes") else {
        return;
    };
    for (pod, gateway, outside, service, ip) in [
        (POD, GATEWAY, OUTSIDE, "10.96.0.91", 20),
        (POD6, GATEWAY6, OUTSIDE6, "fd00:96::91", 40),
    ] {
        both_services(&mut world, (service, 80), (outside, 8080));
        let sent = [
            (udp((pod, 40000), (outside, 33434), b""), 8, Rule::None),
            (
                tcp((pod, 40000), (outside, 80), Flags::Syn, b""),
                20,
                Rule::None,
            ),
            (echo(pod, outside, 77, false), 8, Rule::None),
            (udp((pod, 40000), (service, 80), b"hello"), 8, Rule::Service),
            (
                tcp((pod, 40000), (service, 80), Flags::Syn, b""),
                20,
                Rule::Service,
            ),
        ];
        for (sent, quoted, rule) in sent {
            for ttl in [0, 1] {
                let sent = with_ttl(sent.clone(), ttl);
                let ran = world.send(&sent);
                assert_eq!(ran.trace, expired(0, rule));
                let seen = see(&ran.packet);
                assert_eq!((seen.src.as_str(), seen.dst.as_str()), (gateway, pod));
                assert_eq!(seen.macs, (SENDER_MAC, GATEWAY_MAC));
                let quote = sent[14..14 + ip + quoted].to_vec();
                let (kind, code) = if ip == 20 { (11, 0) } else { (3, 0) };
                assert_eq!(seen.transport, Transport::Error(kind, code, quote));
            }
            let ran = world.send(&with_ttl(sent, 2));
            assert_eq!(ran.trace.verdict, Verdict::Outside);
            assert_eq!(see(&ran.packet).ttl, 1);
        }
    }
}

#[test]
fn a_client_outside_traces_a_route_through_a_service() {
    let Some(mut world) = world("traced from outside") else {
        return;
    };
    let uplink = Config {
        uplink: LOOPBACK,
        ..config()
    };
    world.datapath.set_config(&uplink).unwrap();
    for (node, outside, backend) in [
        (NODE, OUTSIDE, "192.0.2.8"),
        (NODE6, OUTSIDE6, "2001:db8::8"),
    ] {
        world.service(7, (backend, 1), Proto::UDP, &[(20, (backend, 8080))]);
        let key = ServiceKey::outside(addr(node), Port::new(NODE_PORT), Proto::UDP);
        let service = Service {
            id: 7,
            count: 1,
            ..Service::default()
        };
        let row = world.datapath.put("services_v1", key.node_port(), service);
        row.unwrap();
        let sent = with_ttl(udp((outside, 50000), (node, NODE_PORT), b"hello"), 1);
        let ran = world.run(Hook::FromNetdev, &sent);
        assert_eq!(ran.trace, expired(1, Rule::Service));
        let seen = see(&ran.packet);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (node, outside));
        assert!(matches!(seen.transport, Transport::Error(11 | 3, 0, _)));
    }
}

#[test]
fn of_what_nobody_may_be_told_an_end_is_a_drop() {
    let Some(mut world) = world("untold ends") else {
        return;
    };
    let mut drops = |frame: Vec<u8>| {
        let frame = with_ttl(frame, 1);
        world.must_drop(Hook::FromContainer, &frame, DropReason::TtlExceeded);
    };
    for (pod, outside) in [(POD, OUTSIDE), (POD6, OUTSIDE6)] {
        let asked = udp((outside, 53), (pod, 40000), b"hello");
        drops(icmp_error(
            pod,
            outside,
            says(pod)[0],
            &asked,
            quotes(pod)[0],
        ));
        drops(fragment(udp((pod, 1), (outside, 1), b"12345678"), 9, false));
    }
}

/// What the pod is told of a packet that the overlay does not carry.
fn too_big() -> Trace {
    Trace {
        verdict: Verdict::Reply,
        target: LOOPBACK,
        vtep: 0,
        reason: DropReason::TooBig,
        rule: Rule::RemotePod,
    }
}

#[test]
fn a_packet_too_big_for_the_overlay_is_answered_with_the_size_that_is_not() {
    let Some(mut world) = world("too big") else {
        return;
    };
    for (pod, service, backend) in FAMILIES {
        both_services(&mut world, service, backend);
        let ip = if any_ip(pod).is_ipv6() { 40 } else { 20 };
        for to in [backend, service] {
            let datagram = |length| udp((pod, 40000), to, &vec![7; length - ip - 8]);
            let fits = world.send(&datagram(1450));
            assert_eq!(fits.trace.verdict, Verdict::Tunnel, "{to:?}");
            let segment = tcp((pod, 40000), to, Flags::Ack, &vec![7; 1451 - ip - 20]);
            for frame in [datagram(1451), segment] {
                let ran = world.send(&frame);
                let rule = if to == service {
                    Rule::Service
                } else {
                    Rule::None
                };
                assert_eq!(ran.trace, Trace { rule, ..too_big() }, "{to:?}");
                let seen = see(&ran.packet);
                assert_eq!((seen.src.as_str(), seen.dst.as_str()), (to.0, pod));
                assert_eq!(seen.macs, (SENDER_MAC, GATEWAY_MAC));
                let quote = frame[14..14 + ip + 20].to_vec();
                assert_eq!(seen.transport, Transport::TooBig { mtu: MTU, quote });
            }
        }
    }
    let told = world.datapath.counted(DropReason::TooBig).unwrap();
    assert_eq!(told, 8);
}

#[test]
fn only_what_may_not_be_cut_is_too_big_and_only_for_the_overlay() {
    let Some(mut world) = world("not too big") else {
        return;
    };
    let large = |to| udp((POD, 40000), (to, 53), &[7; 1450]);
    assert_eq!(
        world.send(&large(NEIGHBOUR_POD)).trace.verdict,
        Verdict::Peer
    );
    assert_eq!(world.send(&large(OUTSIDE)).trace.verdict, Verdict::Outside);
    let may_be_cut = fragment(large(REMOTE_POD), 0, false);
    let ran = world.send(&may_be_cut);
    assert_eq!(ran.trace, by_device(Rule::RemotePod));
    // An error about an error would go round in circles.
    let error = icmp_error(POD, REMOTE_POD, (3, 3, 0), &large(POD), 1500);
    world.must_drop(Hook::FromContainer, &error, DropReason::TooBig);
}

#[test]
fn of_a_packet_that_is_still_to_be_cut_a_segment_counts() {
    let Some(mut world) = world("segments") else {
        return;
    };
    for (pod, remote, ip) in [(POD, REMOTE_POD, 20), (POD6, REMOTE_POD6, 40)] {
        let frame = tcp((pod, 40000), (remote, 80), Flags::Ack, &[7; 2800]);
        let most = MTU - ip - 20;
        let mut segmented = |size| {
            let ran = world
                .datapath
                .run_segmented(Hook::FromContainer, LOOPBACK, &frame, size);
            ran.unwrap()
        };
        assert_eq!(segmented(most).trace, by_device(Rule::RemotePod));
        let ran = segmented(most + 1);
        let rule = Rule::None;
        assert_eq!(ran.trace, Trace { rule, ..too_big() });
        let quote = frame[14..34 + ip as usize].to_vec();
        let expected = Transport::TooBig { mtu: MTU, quote };
        assert_eq!(see(&ran.packet).transport, expected);
    }
}

const NODE_PORT: u16 = 30080;

/// Node, its translation address, who is outside, and a backend on another node.
const NODE_PORTS: [(&str, &str, &str, End<'static>); 2] = [
    (NODE, "10.100.1.0", OUTSIDE, (REMOTE_POD, 8080)),
    (NODE6, "fd00:100:0:1::", OUTSIDE6, (REMOTE_POD6, 8080)),
];

/// A node port of both families, for who is outside.
fn node_ports(test: &str) -> Option<World> {
    let mut world = world(test)?;
    for (id, (node, _, _, backend)) in (7..).zip(NODE_PORTS) {
        world.service(id, (backend.0, 1), Proto::UDP, &[(20 + id, backend)]);
        let key = ServiceKey::outside(addr(node), Port::new(NODE_PORT), Proto::UDP);
        let service = Service {
            id,
            count: 1,
            ..Service::default()
        };
        let row = world.datapath.put("services_v1", key.node_port(), service);
        row.unwrap();
    }
    Some(world)
}

#[test]
fn errors_about_a_node_ports_packets_go_both_ways_with_what_each_side_knows() {
    let Some(mut world) = node_ports("node port errors") else {
        return;
    };
    for (node, translation, outside, backend) in NODE_PORTS {
        let sent = udp((outside, 50000), (node, NODE_PORT), b"a question to a node");
        let ran = world.run(Hook::FromNetdev, &sent);
        assert_eq!(ran.trace, overlay(Rule::Service));
        let Transport::Udp(port, 8080) = see(&ran.packet).transport else {
            panic!()
        };
        let quoted = quotes(node)[0];

        // Somebody on the way to the client has a narrow link.
        let answered = udp((node, NODE_PORT), (outside, 50000), b"the answer");
        let answer = udp(backend, (translation, port), b"the answer");
        let router = if node == NODE {
            "192.0.2.9"
        } else {
            "2001:db8::9"
        };
        for says in says(node) {
            let error = icmp_error(router, node, says, &answered, quoted);
            let ran = world.run(Hook::FromNetdev, &error);
            assert_eq!(ran.trace, overlay(Rule::IcmpError), "{says:?}");
            let seen = see(&ran.packet);
            let ends = (seen.src.as_str(), seen.dst.as_str());
            assert_eq!(ends, (translation, backend.0));
            assert_eq!(quote(&ran.packet), answer[14..14 + quoted]);
        }

        // The backend does not want it.
        let says = says(node)[0];
        let error = icmp_error(backend.0, translation, says, &ran.packet, quoted);
        world.endpoint(backend.0, LOOPBACK, 0, POD_MAC);
        let ran = world.send(&error);
        let expected = trace(Verdict::Outside, UPLINK, Rule::IcmpError);
        assert_eq!(ran.trace, expected);
        let seen = see(&ran.packet);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (node, outside));
        assert_eq!(quote(&ran.packet), sent[14..14 + quoted]);
    }
}

#[test]
fn a_client_outside_hears_of_a_packet_too_big_for_the_overlay() {
    let Some(mut world) = node_ports("too big from outside") else {
        return;
    };
    for (node, _, outside, _) in NODE_PORTS {
        let sent = udp((outside, 50000), (node, NODE_PORT), &[7; 1440]);
        let ran = world.run(Hook::FromNetdev, &sent);
        let expected = Trace {
            vtep: 1,
            rule: Rule::Service,
            ..too_big()
        };
        assert_eq!(ran.trace, expected);
        let seen = see(&ran.packet);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (node, outside));
        let quote = sent[14..14 + quotes(node)[1]].to_vec();
        assert_eq!(seen.transport, Transport::TooBig { mtu: MTU, quote });
    }
}
