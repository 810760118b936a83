//! Datagrams in pieces go where their first piece goes.

use orchestrator_common::event::Hook;
use orchestrator_common::{DropReason, Rule, Verdict};
use tests::packet::*;
use tests::prog::Ran;

use crate::world::*;

const FAMILIES: [(&str, End<'static>, End<'static>); 2] =
    [(POD, SERVICE, BACKEND), (POD6, SERVICE6, BACKEND6)];

fn payload() -> Vec<u8> {
    (0..5000).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Runs every piece, and puts what came out together.
fn run_all(world: &mut World, hook: Hook, pieces: &[Vec<u8>]) -> (Vec<Ran>, Vec<u8>) {
    let ran: Vec<Ran> = pieces.iter().map(|piece| world.run(hook, piece)).collect();
    let packets: Vec<_> = ran.iter().map(|ran| ran.packet.clone()).collect();
    let whole = reassembled(&packets);
    (ran, whole)
}

#[test]
fn a_datagram_in_pieces_reaches_its_services_backend_whole_and_so_does_the_answer() {
    let Some(mut world) = world("pieces to a Service") else {
        return;
    };
    let payload = payload();
    for (pod, service, backend) in FAMILIES {
        let sent = pieces(&udp((pod, 40000), service, &payload), 1400);
        assert_eq!(sent.len(), 4);
        let (ran, whole) = run_all(&mut world, Hook::FromContainer, &sent);
        for ran in ran {
            assert_eq!(ran.trace, overlay(Rule::Service));
        }
        let seen = see(&whole);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (pod, backend.0));
        assert_eq!(seen.transport, Transport::Udp(40000, backend.1));
        assert!(whole.ends_with(&payload));

        world.swap(pod, backend.0);
        let answer = pieces(&udp(backend, (pod, 40000), &payload), 1400);
        let (ran, whole) = run_all(&mut world, Hook::FromContainer, &answer);
        for ran in ran {
            let expected = trace(Verdict::Peer, NEIGHBOUR, Rule::ServiceReply);
            assert_eq!(ran.trace, expected);
        }
        let seen = see(&whole);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (service.0, pod));
        assert_eq!(seen.transport, Transport::Udp(service.1, 40000));
    }
}

#[test]
fn a_datagram_in_pieces_is_masqueraded_whole_and_so_is_the_answer() {
    let Some(mut world) = world("masqueraded pieces") else {
        return;
    };
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    let payload = payload();
    let sent = pieces(&udp((POD, 40000), (OUTSIDE, 53), &payload), 1400);
    let (ran, whole) = run_all(&mut world, Hook::ToNetdev, &sent);
    for ran in ran {
        assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::Masquerade));
    }
    let seen = see(&whole);
    assert_eq!(seen.src, NODE);
    let Transport::Udp(port, 53) = seen.transport else {
        panic!("{:?}", seen.transport)
    };
    let answer = pieces(&udp((OUTSIDE, 53), (NODE, port), &payload), 1400);
    let (ran, whole) = run_all(&mut world, Hook::FromNetdev, &answer);
    for ran in ran {
        let expected = trace(Verdict::Peer, NEIGHBOUR, Rule::MasqueradeReply);
        assert_eq!(ran.trace, expected);
    }
    let seen = see(&whole);
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (OUTSIDE, POD));
    assert_eq!(seen.transport, Transport::Udp(53, 40000));
}

#[test]
fn an_echo_in_pieces_is_masqueraded_whole_and_so_is_its_reply() {
    let Some(mut world) = world("echo in pieces") else {
        return;
    };
    for (pod, node, outside) in [(POD, NODE, OUTSIDE), (POD6, NODE6, OUTSIDE6)] {
        world.endpoint(pod, NEIGHBOUR, 0, POD_MAC);
        let sent = pieces(&long_echo(pod, outside, 77, false), 1400);
        assert_eq!(sent.len(), 4);
        let (ran, whole) = run_all(&mut world, Hook::ToNetdev, &sent);
        for ran in ran {
            assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::Masquerade));
        }
        let seen = see(&whole);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (node, outside));
        let Transport::Echo { id, reply: false } = seen.transport else {
            panic!("{:?}", seen.transport)
        };
        let reply = pieces(&long_echo(outside, node, id, true), 1400);
        let (ran, whole) = run_all(&mut world, Hook::FromNetdev, &reply);
        for ran in ran {
            let expected = trace(Verdict::Peer, NEIGHBOUR, Rule::MasqueradeReply);
            assert_eq!(ran.trace, expected);
        }
        let seen = see(&whole);
        assert_eq!((seen.src.as_str(), seen.dst.as_str()), (outside, pod));
        let expected = Transport::Echo {
            id: 77,
            reply: true,
        };
        assert_eq!(seen.transport, expected);
    }
    let unseen = pieces(&long_echo(POD, "192.0.2.1", 78, false), 1400);
    world.must_drop(Hook::ToNetdev, &unseen[1], DropReason::Fragment);
}

#[test]
fn a_piece_whose_first_was_not_seen_is_dropped_where_ports_decide() {
    let Some(mut world) = world("pieces without first") else {
        return;
    };
    let payload = payload();
    for (pod, service, _) in FAMILIES {
        let sent = pieces(&udp((pod, 40000), service, &payload), 1400);
        for later in &sent[1..] {
            world.must_drop(Hook::FromContainer, later, DropReason::Fragment);
        }
    }
    let out = pieces(&udp((POD, 40000), (OUTSIDE, 53), &payload), 1400);
    world.must_drop(Hook::ToNetdev, &out[1], DropReason::Fragment);
}

#[test]
fn pieces_that_no_flow_has_are_delivered_as_they_are() {
    let Some(mut world) = world("untranslated pieces") else {
        return;
    };
    for (pod, to) in [(POD, NEIGHBOUR_POD), (POD6, NEIGHBOUR_POD6)] {
        for piece in pieces(&udp((pod, 40000), (to, 53), &payload()), 1400) {
            let ran = world.send(&piece);
            let expected = trace(Verdict::Peer, NEIGHBOUR, Rule::LocalEndpoint);
            assert_eq!(ran.trace, expected);
            assert_eq!(ran.packet[14..], piece[14..]);
        }
    }
}
