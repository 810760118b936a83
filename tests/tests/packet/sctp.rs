//! SCTP's checksum covers its ports but no address: addresses are translated, ports are kept.

use orchestrator_common::event::Hook;
use orchestrator_common::{DropReason, Proto, Rule, Verdict};
use tests::packet::*;

use crate::world::*;

#[test]
fn an_sctp_service_has_its_address_translated_and_nothing_else() {
    let Some(mut world) = world("SCTP Service") else {
        return;
    };
    for (pod, service, backend) in [
        (POD, ("10.96.0.90", 9000), (REMOTE_POD, 9000)),
        (POD6, ("fd00:96::90", 9000), (REMOTE_POD6, 9000)),
    ] {
        world.service(4, service, Proto::SCTP, &[(9, backend)]);
        let sent = sctp((pod, 40000), service);
        let ran = world.send(&sent);
        assert_eq!(ran.trace, overlay(Rule::Service));
        let seen = see(&ran.packet);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (pod, backend.0));
        let l4 = sent.len() - 12;
        assert_eq!(ran.packet[l4..], sent[l4..]);

        world.swap(pod, backend.0);
        let ran = world.send(&sctp(backend, (pod, 40000)));
        let expected = trace(Verdict::Peer, NEIGHBOUR, Rule::ServiceReply);
        assert_eq!(ran.trace, expected);
        assert_eq!(see(&ran.packet).src, service.0);
    }
}

#[test]
fn an_sctp_service_with_another_target_port_is_dropped() {
    let Some(mut world) = world("SCTP port") else {
        return;
    };
    let service = ("10.96.0.90", 9000);
    world.service(4, service, Proto::SCTP, &[(9, (REMOTE_POD, 9001))]);
    let sent = sctp((POD, 40000), service);
    world.must_drop(Hook::FromContainer, &sent, DropReason::SctpPort);
    assert!(world.datapath.flows().unwrap().is_empty());
}

#[test]
fn an_error_about_masqueraded_sctp_reaches_the_pod_whatever_its_port() {
    let Some(mut world) = world("SCTP error") else {
        return;
    };
    for (pod, node, outside) in [(POD, NODE, OUTSIDE), (POD6, NODE6, OUTSIDE6)] {
        world.endpoint(pod, NEIGHBOUR, 0, POD_MAC);
        for port in [2000, 40000] {
            let sent = sctp((pod, port), (outside, 9000));
            let ran = world.run(Hook::ToNetdev, &sent);
            assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::Masquerade));
            let says = if pod == POD { (3, 1, 0) } else { (1, 3, 0) };
            let error = icmp_error(outside, node, says, &ran.packet, 60);
            let ran = world.run(Hook::FromNetdev, &error);
            let expected = trace(Verdict::Peer, NEIGHBOUR, Rule::IcmpError);
            assert_eq!(ran.trace, expected, "{pod} {port}");
            let Transport::Error(_, _, quote) = see(&ran.packet).transport else {
                panic!()
            };
            assert_eq!(quote, sent[14..]);
        }
    }
}

#[test]
fn sctp_without_endpoints_is_refused_as_an_unreachable_port() {
    let Some(mut world) = world("SCTP refusal") else {
        return;
    };
    let service = ("10.96.0.90", 9000);
    world.service(4, service, Proto::SCTP, &[]);
    let sent = sctp((POD, 40000), service);
    let ran = world.send(&sent);
    assert_eq!(ran.trace.verdict, Verdict::Refuse);
    let quote = sent[14..42].to_vec();
    assert_eq!(
        see(&ran.packet).transport,
        Transport::PortUnreachable(quote)
    );
}

#[test]
fn sctp_to_outside_keeps_its_port_and_comes_back() {
    let Some(mut world) = world("masqueraded SCTP") else {
        return;
    };
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    let sent = sctp((POD, 40000), (OUTSIDE, 9000));
    let ran = world.run(Hook::ToNetdev, &sent);
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::Masquerade));
    assert_eq!(see(&ran.packet).src, NODE);
    assert_eq!(ran.packet[34..], sent[34..]);
    let ran = world.run(Hook::FromNetdev, &sctp((OUTSIDE, 9000), (NODE, 40000)));
    let expected = trace(Verdict::Peer, NEIGHBOUR, Rule::MasqueradeReply);
    assert_eq!(ran.trace, expected);
    assert_eq!(see(&ran.packet).dst, POD);
    let again = sctp(("10.100.1.99", 40000), (OUTSIDE, 9000));
    world.must_drop(Hook::ToNetdev, &again, DropReason::NoFreePort);
}
