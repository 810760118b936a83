//! Services that are reached from outside, by themselves and by who is not a pod: who is translated
//! into whom, and back.

use std::collections::BTreeSet;
use std::time::Duration;

use datapath::gc::{CROWDED, ROOMY, sweep_flows};
use nix::time::{ClockId, clock_gettime};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::Endpoint;
use orchestrator_common::maps::flows::{FLOWS, Flow};
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};
use orchestrator_common::{DropReason, Port, Proto, Rule, Tuple, Verdict};
use tests::packet::*;
use tests::prog::LOOPBACK;

use crate::world::*;

/// The source of what must come back to this node.
const TRANSLATION: &str = "10.100.1.0";
const NODE_PORT: u16 = 30080;
const ANY: &str = "0.0.0.0";
const BALANCED: &str = "192.0.2.80";
const LOCAL: (u32, End<'static>) = (11, (NEIGHBOUR_POD, 8080));
const REMOTE: (u32, End<'static>) = (12, (REMOTE_POD, 8080));

const INSIDE: u8 = ServiceKey::INSIDE;
const OUTSIDE_ROW: u8 = ServiceKey::OUTSIDE;

/// A Service's row with its backends.
fn serve(world: &mut World, scope: u8, at: End<'_>, service: Service, to: &[(u32, End<'_>)]) {
    for (slot, (number, backend)) in to.iter().enumerate() {
        let key = BackendKey {
            service: service.id,
            slot: slot as u32,
        };
        let row = Backend {
            addr: addr(backend.0),
            port: Port::new(backend.1),
            flags: 0,
            id: *number,
        };
        world.datapath.put("backends_v1", key, row).unwrap();
    }
    let service = Service {
        count: to.len() as u32,
        ..service
    };
    for proto in [Proto::TCP, Proto::UDP] {
        let key = ServiceKey {
            addr: addr(at.0),
            port: Port::new(at.1),
            proto,
            scope,
        };
        world.datapath.put("services_v1", key, service).unwrap();
    }
}

fn withdraw(world: &mut World, scope: u8, at: End<'_>) {
    for proto in [Proto::TCP, Proto::UDP] {
        let key = ServiceKey {
            addr: addr(at.0),
            port: Port::new(at.1),
            proto,
            scope,
        };
        let gone = world.datapath.delete::<_, Service>("services_v1", &key);
        gone.unwrap();
    }
}

fn numbered(id: u32) -> Service {
    Service {
        id,
        ..Service::default()
    }
}

/// The world with one node port, for who is outside.
fn node_port(test: &str, to: &[(u32, End<'_>)]) -> Option<World> {
    let mut world = world(test)?;
    let at = (ANY, NODE_PORT);
    serve(&mut world, OUTSIDE_ROW, at, numbered(7), to);
    Some(world)
}

/// Has another endpoint send: test runs come in by loopback, so that is where it is now.
fn answers(world: &mut World, from: &str, flags: u32, frame: &[u8]) -> tests::prog::Ran {
    world.endpoint(from, LOOPBACK, flags, POD_MAC);
    world.send(frame)
}

fn ports(packet: &[u8]) -> (u16, u16) {
    match see(packet).transport {
        Transport::Udp(from, to) | Transport::Tcp(from, to) => (from, to),
        other => panic!("{other:?}"),
    }
}

fn ends(packet: &[u8]) -> (String, String) {
    let seen = see(packet);
    (seen.src, seen.dst)
}

fn pair(from: &str, to: &str) -> (String, String) {
    (from.into(), to.into())
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let Some(mut world) = world("hairpin") else {
        return;
    };
    let service = ("10.96.0.90", 53);
    serve(&mut world, INSIDE, service, numbered(4), &[(9, (POD, 53))]);
    type Build = fn(End<'_>, End<'_>) -> Vec<u8>;
    let builds: [Build; 2] = [
        |from, to| udp(from, to, b"hello"),
        |from, to| tcp(from, to, Flags::Syn, b""),
    ];
    for build in builds {
        let ran = world.send(&build((POD, 40000), service));
        assert_eq!(ran.trace, trace(Verdict::Peer, LOOPBACK, Rule::Service));
        assert_eq!(ends(&ran.packet), pair(TRANSLATION, POD));
        let (from, to) = ports(&ran.packet);
        assert_eq!(to, 53);
        let ran = world.send(&build((POD, 53), (TRANSLATION, from)));
        assert_eq!(
            ran.trace,
            trace(Verdict::Peer, LOOPBACK, Rule::ServiceReply)
        );
        assert_eq!(ends(&ran.packet), pair(service.0, POD));
        assert_eq!(ports(&ran.packet), (53, 40000));
    }
}

#[test]
fn the_node_reaches_its_own_host_network_through_a_service() {
    let Some(mut world) = world("node hairpin") else {
        return;
    };
    let service = ("10.96.0.90", 53);
    serve(&mut world, INSIDE, service, numbered(4), &[(9, (NODE, 53))]);
    world.endpoint(GATEWAY, LOOPBACK, Endpoint::HOST, HOST_MAC);
    let ran = world.send(&udp((GATEWAY, 40000), service, b"query"));
    assert_eq!(ran.trace, trace(Verdict::Node, HOST, Rule::Service));
    assert_eq!(ends(&ran.packet), pair(TRANSLATION, NODE));
    let (from, _) = ports(&ran.packet);
    let answer = udp((NODE, 53), (TRANSLATION, from), b"answer");
    let ran = answers(&mut world, NODE, Endpoint::HOST, &answer);
    assert_eq!(ran.trace.rule, Rule::ServiceReply);
    assert_eq!(ran.trace.verdict, Verdict::Node);
    assert_eq!(ends(&ran.packet), pair(service.0, GATEWAY));
    assert_eq!(ports(&ran.packet), (53, 40000));
}

#[test]
fn a_server_on_the_host_network_may_answer_from_the_nodes_other_address() {
    let Some(mut world) = world("wildcard server") else {
        return;
    };
    let service = ("10.96.0.90", 53);
    serve(
        &mut world,
        INSIDE,
        service,
        numbered(4),
        &[(9, (NODE, 5353))],
    );
    let ran = world.send(&udp((POD, 40000), service, b"query"));
    assert_eq!(ran.trace, trace(Verdict::Node, HOST, Rule::Service));
    assert_eq!(ends(&ran.packet), pair(POD, NODE));
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    let answer = udp((GATEWAY, 5353), (POD, 40000), b"answer");
    let ran = answers(&mut world, GATEWAY, Endpoint::HOST, &answer);
    assert_eq!(
        ran.trace,
        trace(Verdict::Peer, NEIGHBOUR, Rule::ServiceReply)
    );
    assert_eq!(ends(&ran.packet), pair(service.0, POD));
    assert_eq!(ports(&ran.packet), (53, 40000));
    // What the node says of itself from there is not altered.
    let own = udp((GATEWAY, 7), (POD, 40000), b"hello");
    let ran = answers(&mut world, GATEWAY, Endpoint::HOST, &own);
    assert_eq!(ends(&ran.packet), pair(GATEWAY, POD));
}

#[test]
fn the_nodes_own_address_reaches_a_remote_backend() {
    let Some(mut world) = world("node address") else {
        return;
    };
    world.endpoint(NODE, LOOPBACK, Endpoint::HOST, HOST_MAC);
    let ran = world.send(&udp((NODE, 40000), SERVICE, b"query"));
    assert_eq!(ran.trace, overlay(Rule::Service));
    assert_eq!(ends(&ran.packet), pair(TRANSLATION, BACKEND.0));
}

#[test]
fn a_local_backend_sees_the_client_outside_and_answers_it_as_the_node_port() {
    let Some(mut world) = node_port("local backend", &[LOCAL]) else {
        return;
    };
    let syn = tcp((OUTSIDE, 50000), (NODE, NODE_PORT), Flags::Syn, b"");
    let ran = world.run(Hook::FromNetdev, &syn);
    assert_eq!(ran.trace, trace(Verdict::Peer, NEIGHBOUR, Rule::Service));
    assert_eq!(ends(&ran.packet), pair(OUTSIDE, NEIGHBOUR_POD));
    assert_eq!(ports(&ran.packet), (50000, 8080));
    let answer = tcp((NEIGHBOUR_POD, 8080), (OUTSIDE, 50000), Flags::Ack, b"x");
    let ran = answers(&mut world, NEIGHBOUR_POD, 0, &answer);
    assert_eq!(
        ran.trace,
        trace(Verdict::Outside, UPLINK, Rule::ServiceReply)
    );
    assert_eq!(ends(&ran.packet), pair(NODE, OUTSIDE));
    assert_eq!(ports(&ran.packet), (NODE_PORT, 50000));
    // It has the node's address by now, and is not masqueraded.
    let left = world.run(Hook::ToNetdev, &ran.packet);
    assert_eq!(left.trace, trace(Verdict::Pass, 0, Rule::NotOurs));
    assert_eq!(left.packet, ran.packet);
}

#[test]
fn a_remote_backend_is_asked_in_the_nodes_name_and_its_answer_goes_to_the_client() {
    let Some(mut world) = node_port("remote backend", &[REMOTE]) else {
        return;
    };
    let query = udp((OUTSIDE, 50000), (NODE, NODE_PORT), b"query");
    let ran = world.run(Hook::FromNetdev, &query);
    assert_eq!(ran.trace, overlay(Rule::Service));
    assert_eq!(ends(&ran.packet), pair(TRANSLATION, REMOTE_POD));
    let (from, to) = ports(&ran.packet);
    assert_eq!(to, 8080);
    let answer = udp((REMOTE_POD, 8080), (TRANSLATION, from), b"answer");
    let ran = answers(&mut world, REMOTE_POD, 0, &answer);
    assert_eq!(
        ran.trace,
        trace(Verdict::Outside, UPLINK, Rule::ServiceReply)
    );
    let seen = see(&ran.packet);
    assert_eq!(
        (seen.src.as_str(), seen.dst.as_str(), seen.ttl),
        (NODE, OUTSIDE, 63)
    );
    assert_eq!(ports(&ran.packet), (NODE_PORT, 50000));
}

#[test]
fn a_backend_on_the_host_network_gets_it_by_the_nodes_stack_and_answers_through_the_uplink() {
    let backend = (13, (NODE, 8080));
    let Some(mut world) = node_port("host backend", &[backend]) else {
        return;
    };
    let syn = tcp((OUTSIDE, 50000), (NODE, NODE_PORT), Flags::Syn, b"");
    let ran = world.run(Hook::FromNetdev, &syn);
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::Service));
    assert_eq!(ends(&ran.packet), pair(OUTSIDE, NODE));
    assert_eq!(ports(&ran.packet), (50000, 8080));
    let answer = tcp((NODE, 8080), (OUTSIDE, 50000), Flags::Ack, b"x");
    let ran = world.run(Hook::ToNetdev, &answer);
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::ServiceReply));
    assert_eq!(ports(&ran.packet), (NODE_PORT, 50000));
}

#[test]
fn a_backend_on_another_nodes_host_network_is_translated_twice_and_back() {
    let backend = (14, (OTHER_NODE, 8080));
    let Some(mut world) = node_port("other host backend", &[backend]) else {
        return;
    };
    let query = udp((OUTSIDE, 50000), (NODE, NODE_PORT), b"query");
    let ran = world.run(Hook::FromNetdev, &query);
    assert_eq!(ran.trace, trace(Verdict::Outside, UPLINK, Rule::Service));
    assert_eq!(ends(&ran.packet), pair(TRANSLATION, OTHER_NODE));
    let ran = world.run(Hook::ToNetdev, &ran.packet);
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::Masquerade));
    assert_eq!(ends(&ran.packet), pair(NODE, OTHER_NODE));
    let (from, _) = ports(&ran.packet);
    let answer = udp((OTHER_NODE, 8080), (NODE, from), b"answer");
    let ran = world.run(Hook::FromNetdev, &answer);
    assert_eq!(
        ran.trace,
        trace(Verdict::Outside, UPLINK, Rule::ServiceReply)
    );
    assert_eq!(ends(&ran.packet), pair(NODE, OUTSIDE));
    assert_eq!(ports(&ran.packet), (NODE_PORT, 50000));
}

#[test]
fn a_load_balancers_address_is_served_outside_and_inside() {
    let Some(mut world) = world("load balancer") else {
        return;
    };
    serve(
        &mut world,
        OUTSIDE_ROW,
        (BALANCED, 80),
        numbered(7),
        &[LOCAL],
    );
    serve(&mut world, INSIDE, (BALANCED, 80), numbered(8), &[REMOTE]);
    let outside = udp((OUTSIDE, 50000), (BALANCED, 80), b"");
    let ran = world.run(Hook::FromNetdev, &outside);
    assert_eq!(ran.trace, trace(Verdict::Peer, NEIGHBOUR, Rule::Service));
    let ran = world.send(&udp((POD, 50000), (BALANCED, 80), b""));
    assert_eq!(ran.trace, overlay(Rule::Service));
    assert_eq!(ends(&ran.packet), pair(POD, REMOTE_POD));
    // Another port of it is nobody's.
    let other = udp((OUTSIDE, 50000), (BALANCED, 81), b"");
    let ran = world.run(Hook::FromNetdev, &other);
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::NotOurs));
}

#[test]
fn pods_and_the_node_reach_a_node_port_under_the_nodes_addresses() {
    let Some(mut world) = world("node port inside") else {
        return;
    };
    serve(&mut world, INSIDE, (ANY, NODE_PORT), numbered(8), &[REMOTE]);
    let ran = world.send(&udp((POD, 50000), (NODE, NODE_PORT), b""));
    assert_eq!(ran.trace, overlay(Rule::Service));
    assert_eq!(ends(&ran.packet), pair(POD, REMOTE_POD));
    // How the node's own datagrams to one of its addresses come by.
    world.endpoint(GATEWAY, LOOPBACK, Endpoint::HOST, HOST_MAC);
    let ran = world.send(&udp((GATEWAY, 50000), ("10.96.0.0", NODE_PORT), b""));
    assert_eq!(ran.trace, overlay(Rule::Service));
    assert_eq!(ends(&ran.packet), pair(GATEWAY, REMOTE_POD));
    // Another node's address is no affair of this one.
    world.endpoint(POD, LOOPBACK, 0, POD_MAC);
    let ran = world.send(&udp((POD, 50000), (OTHER_NODE, NODE_PORT), b""));
    assert_eq!(ran.trace, trace(Verdict::Outside, UPLINK, Rule::Default));
}

#[test]
fn nothing_from_outside_enters_what_has_no_row_for_outside() {
    let Some(mut world) = world("no row for outside") else {
        return;
    };
    serve(&mut world, INSIDE, (ANY, NODE_PORT), numbered(8), &[LOCAL]);
    for to in [SERVICE, EMPTY, (NODE, NODE_PORT), (OTHER_NODE, NODE_PORT)] {
        let ran = world.run(Hook::FromNetdev, &udp((OUTSIDE, 50000), to, b""));
        assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::NotOurs), "{to:?}");
    }
    assert!(world.datapath.flows().unwrap().is_empty());
}

#[test]
fn a_client_outside_is_refused_at_once_or_left_to_try_another_node() {
    let Some(mut world) = node_port("outside refusal", &[]) else {
        return;
    };
    let syn = tcp((OUTSIDE, 50000), (NODE, NODE_PORT), Flags::Syn, b"");
    let ran = world.run(Hook::FromNetdev, &syn);
    assert_eq!(
        (ran.trace.verdict, ran.trace.reason),
        (Verdict::Refuse, DropReason::NoBackend)
    );
    assert_eq!(ran.trace.target, LOOPBACK, "back where it came from");
    assert_eq!(ran.trace.vtep, 1, "as a frame, not into a pod");
    assert_eq!(ends(&ran.packet), pair(NODE, OUTSIDE));
    assert!(matches!(
        see(&ran.packet).transport,
        Transport::Reset {
            from: NODE_PORT,
            to: 50000,
            ..
        }
    ));
    let query = udp((OUTSIDE, 50000), (NODE, NODE_PORT), b"query");
    let ran = world.run(Hook::FromNetdev, &query);
    assert_eq!(ran.trace.verdict, Verdict::Refuse);

    let elsewhere = Service {
        flags: Service::ELSEWHERE,
        ..numbered(7)
    };
    serve(&mut world, OUTSIDE_ROW, (ANY, NODE_PORT), elsewhere, &[]);
    world.must_drop(Hook::FromNetdev, &syn, DropReason::NoLocalEndpoint);
    let refused = world.datapath.connections("service_counters_v1", 7);
    assert_eq!(refused.unwrap().refused, 3);
}

#[test]
fn datagrams_from_one_port_to_a_service_and_to_its_pod_are_answered_each_in_its_own_name() {
    let Some(mut world) = world("Service and pod from one port") else {
        return;
    };
    let (service, backend, from) = (("10.96.0.53", 53), (REMOTE_POD, 5353), (POD, 40000));
    world.service(4, service, Proto::UDP, &[(9, backend)]);
    let answered = |world: &mut World, port| {
        world.swap(POD, REMOTE_POD);
        let ran = world.send(&udp(backend, (POD, port), b"answer"));
        world.swap(REMOTE_POD, POD);
        let to = u16::from_be_bytes([ran.packet[36], ran.packet[37]]);
        (see(&ran.packet).src, to)
    };
    world.swap(REMOTE_POD, POD);
    let sent = |world: &mut World| {
        let packet = world.send(&udp(from, backend, b"straight")).packet;
        u16::from_be_bytes([packet[34], packet[35]])
    };
    assert_eq!(sent(&mut world), 40000);
    world.send(&udp(from, service, b"question"));
    let port = sent(&mut world);
    assert_ne!(port, 40000);
    assert_eq!(sent(&mut world), port);
    assert_eq!(answered(&mut world, port), (REMOTE_POD.to_owned(), 40000));
    assert_eq!(answered(&mut world, 40000), (service.0.to_owned(), 40000));
}

#[test]
fn what_is_dropped_after_its_translation_is_reported_as_it_came() {
    let nobody = (11, ("10.100.1.77", 8080));
    let Some(mut world) = node_port("reported", &[nobody]) else {
        return;
    };
    // The first opens the flow, and the second finds it.
    for flags in [Flags::Syn, Flags::Ack] {
        let frame = tcp((OUTSIDE, 50000), (NODE, NODE_PORT), flags, b"");
        let ran = world.run(Hook::FromNetdev, &frame);
        assert_eq!(ran.trace.reason, DropReason::NoEndpoint);
        let events = world.datapath.events().unwrap();
        let told: Vec<_> = events.iter().map(|event| event.tuple.to_string()).collect();
        assert_eq!(told, ["tcp 172.31.0.250:50000 -> 172.31.0.11:30080"]);
    }
}

#[test]
fn an_open_connection_goes_on_when_its_service_is_deleted() {
    let Some(mut world) = node_port("deleted Service", &[REMOTE]) else {
        return;
    };
    let syn = tcp((OUTSIDE, 50000), (NODE, NODE_PORT), Flags::Syn, b"");
    let opened = world.run(Hook::FromNetdev, &syn);
    withdraw(&mut world, OUTSIDE_ROW, (ANY, NODE_PORT));
    world.datapath.set_row("generations_v1", 12, 1u32).unwrap();
    let data = tcp((OUTSIDE, 50000), (NODE, NODE_PORT), Flags::Ack, b"data");
    let ran = world.run(Hook::FromNetdev, &data);
    assert_eq!(ran.trace, overlay(Rule::Service));
    assert_eq!(ports(&ran.packet), ports(&opened.packet));
    let anew = tcp((OUTSIDE, 50000), (NODE, NODE_PORT), Flags::Syn, b"");
    let ran = world.run(Hook::FromNetdev, &anew);
    assert_eq!(ran.trace, trace(Verdict::Pass, 0, Rule::NotOurs));
}

#[test]
fn a_reset_of_a_connection_that_nobody_knows_opens_no_flow() {
    let Some(mut world) = node_port("stray reset", &[REMOTE]) else {
        return;
    };
    let reset = tcp((OUTSIDE, 50000), (NODE, NODE_PORT), Flags::Rst, b"");
    world.must_drop(Hook::FromNetdev, &reset, DropReason::NoFlow);
    assert!(world.datapath.flows().unwrap().is_empty());
    let stray = udp((REMOTE_POD, 8080), (TRANSLATION, 2000), b"");
    world.endpoint(REMOTE_POD, LOOPBACK, 0, POD_MAC);
    world.must_drop(Hook::FromContainer, &stray, DropReason::NoFlow);
}

#[test]
fn sixty_thousand_connections_from_one_node_to_one_backend_are_kept_apart() {
    let Some(mut world) = node_port("60,000 connections", &[REMOTE]) else {
        return;
    };
    let mut given = BTreeSet::new();
    for client in 0..60u8 {
        for port in 20_000..21_000u16 {
            let from = format!("192.0.2.{client}");
            let syn = tcp((&from, port), (NODE, NODE_PORT), Flags::Syn, b"");
            let ran = world.run(Hook::FromNetdev, &syn);
            assert_eq!(ran.trace, overlay(Rule::Service), "{from}:{port}");
            let from = u16::from_be_bytes([ran.packet[34], ran.packet[35]]);
            assert!(from >= 1024, "{from}");
            assert!(given.insert(from), "{from} was given twice");
        }
    }
    assert_eq!(world.datapath.flows().unwrap().len(), 120_000);
}

#[test]
fn a_flood_of_ten_times_the_table_breaks_none_of_a_thousand_connections() {
    let Some(mut world) = node_port("SYN flood", &[LOCAL]) else {
        return;
    };
    let segment = |client: u32, flags: Flags| -> Vec<u8> {
        let from = format!("198.51.{}.1", client >> 8);
        let at = (from.as_str(), 1024 + (client & 0xff) as u16);
        tcp(at, (NODE, NODE_PORT), flags, b"")
    };
    for client in 0..1000 {
        for flags in [Flags::Syn, Flags::Ack] {
            let ran = world.run(Hook::FromNetdev, &segment(client, flags));
            assert_eq!(ran.trace.verdict, Verdict::Peer);
        }
    }
    // The flood changes its source address in place: building frames would take longer than it does.
    let mut syn = tcp(("203.0.0.0", 5), (NODE, NODE_PORT), Flags::Syn, b"");
    let (mut taken, mut dropped) = (0u32, 0u32);
    for number in 0..10 * FLOWS.max_entries / 2 {
        syn[27..30].copy_from_slice(&number.to_be_bytes()[1..]);
        match world.run(Hook::FromNetdev, &syn).trace.verdict {
            Verdict::Peer => taken += 1,
            _ => dropped += 1,
        }
    }
    assert!(
        taken < FLOWS.max_entries / 2 && taken > FLOWS.max_entries / 4,
        "{taken}"
    );
    let full = world.datapath.counted(DropReason::FlowTableFull).unwrap();
    assert_eq!(full, u64::from(dropped));
    let flows = world.datapath.flows().unwrap();
    let halves: BTreeSet<Tuple> = flows.iter().map(|(key, _)| *key).collect();
    for (_, flow) in &flows {
        assert!(halves.contains(&flow.other_key()), "half a flow");
    }
    let is_known = |flow: &Flow| flow.direction == Flow::FORWARD && flow.seen & Flow::SYN == 0;
    let known = flows.iter().filter(|(_, flow)| is_known(flow)).count();
    assert_eq!(known, 1000, "who spoke twice is told from who never will");
    for client in 0..1000 {
        let ran = world.run(Hook::FromNetdev, &segment(client, Flags::Ack));
        assert_eq!(ran.trace.verdict, Verdict::Peer, "{client}");
    }
}

/// What an agent does every second meanwhile: it makes room, and the flood fills it again.
#[test]
fn a_flood_of_ten_times_the_table_breaks_no_connection_while_the_agent_makes_room() {
    const ROWS: u32 = 1 << 14;
    let Some(mut world) = world_with_flows("SYN flood and sweeper", ROWS) else {
        return;
    };
    let at = (ANY, NODE_PORT);
    serve(&mut world, OUTSIDE_ROW, at, numbered(7), &[LOCAL]);
    let mut pinned = world.datapath.pinned().unwrap();
    // Who sends comes in by loopback, whoever it is.
    world.endpoint(NEIGHBOUR_POD, LOOPBACK, 0, POD_MAC);
    let both_speak = |world: &mut World, client: u32| {
        let from = format!("198.51.{}.1", client >> 8);
        let at = (from.as_str(), 1024 + (client & 0xff) as u16);
        let asked = tcp(at, (NODE, NODE_PORT), Flags::Ack, b"question");
        let asked = world.run(Hook::FromNetdev, &asked);
        assert_eq!(asked.trace.verdict, Verdict::Peer, "{client}");
        assert_eq!(ends(&asked.packet), pair(&from, NEIGHBOUR_POD));
        let answer = world.send(&tcp(LOCAL.1, at, Flags::Ack, b"answer"));
        assert_eq!(ends(&answer.packet), pair(NODE, &from), "{client}");
        assert_eq!(ports(&answer.packet), (NODE_PORT, at.1), "{client}");
    };
    for client in 0..1000 {
        let from = format!("198.51.{}.1", client >> 8);
        let at = (from.as_str(), 1024 + (client & 0xff) as u16);
        let syn = tcp(at, (NODE, NODE_PORT), Flags::Syn, b"");
        world.run(Hook::FromNetdev, &syn);
        both_speak(&mut world, client);
    }
    let known: BTreeSet<Tuple> = keys(&world.datapath.flows().unwrap());
    assert_eq!(known.len(), 2000);

    let mut syn = tcp(("203.0.0.0", 5), (NODE, NODE_PORT), Flags::Syn, b"");
    let mut accepted = tcp(LOCAL.1, ("203.0.0.0", 5), Flags::Ack, b"");
    accepted[47] |= 2; // a SYN as well
    let (mut full, mut relieved) = (0, 0);
    for number in 0..10 * ROWS / 2 {
        syn[27..30].copy_from_slice(&number.to_be_bytes()[1..]);
        let ran = world.run(Hook::FromNetdev, &syn);
        if ran.trace.verdict == Verdict::Peer {
            // Every other one has the server's answer, which nobody takes up.
            if number % 2 == 0 {
                accepted[31..34].copy_from_slice(&number.to_be_bytes()[1..]);
                world.send(&accepted);
            }
            continue;
        }
        full += 1;
        // The flood has given up by then, the connections are silent for no shorter.
        let later = monotonic() + Duration::from_secs(3);
        relieved += sweep_flows(&mut pinned.maps, later, &CROWDED).unwrap();
    }
    assert!(full >= 9, "{full}");
    let counted = world.datapath.counted(DropReason::FlowTableFull).unwrap();
    assert_eq!(counted, u64::from(full));
    let flood = (10 * ROWS / 2 - full) as usize;
    let left = keys(&world.datapath.flows().unwrap());
    assert_eq!(relieved + (left.len() - 2000) / 2, flood);
    assert!(left.is_superset(&known), "rows of connections are gone");
    for client in 0..1000 {
        both_speak(&mut world, client);
    }
    // A quiet hour later, too.
    let later = monotonic() + Duration::from_secs(3600);
    sweep_flows(&mut pinned.maps, later, &ROOMY).unwrap();
    assert_eq!(keys(&world.datapath.flows().unwrap()), known);
}

fn keys(flows: &[(Tuple, Flow)]) -> BTreeSet<Tuple> {
    flows.iter().map(|(key, _)| *key).collect()
}

fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

#[test]
fn a_client_comes_back_to_the_backend_that_it_had_until_that_goes() {
    let Some(mut world) = world("affinity") else {
        return;
    };
    let service = ("10.96.0.90", 53);
    let sticky = Service {
        affinity_s: 10_800,
        ..numbered(4)
    };
    let backends: Vec<(u32, End<'_>)> = (0..8)
        .map(|number| (20 + number, (REMOTE_POD, 5000 + number as u16)))
        .collect();
    serve(&mut world, INSIDE, service, sticky, &backends);
    let ask = |world: &mut World, from: u16| {
        let ran = world.send(&udp((POD, from), service, b"query"));
        ports(&ran.packet).1
    };
    let had = ask(&mut world, 40000);
    for from in 40001..40050 {
        assert_eq!(ask(&mut world, from), had);
    }
    let gone = u32::from(had) - 5000 + 20;
    world
        .datapath
        .set_row("generations_v1", gone, 1u32)
        .unwrap();
    let left: Vec<_> = backends
        .into_iter()
        .filter(|(number, _)| *number != gone)
        .collect();
    serve(&mut world, INSIDE, service, sticky, &left);
    let has = ask(&mut world, 41000);
    assert_ne!(has, had);
    for from in 41001..41050 {
        assert_eq!(ask(&mut world, from), has);
    }
}

#[test]
fn only_clients_in_the_source_ranges_are_served() {
    let Some(mut world) = world("source ranges") else {
        return;
    };
    let picky = Service {
        flags: Service::SOURCE_RANGES,
        ..numbered(7)
    };
    serve(
        &mut world,
        OUTSIDE_ROW,
        (BALANCED, 80),
        picky,
        &[LOCAL, REMOTE],
    );
    let admit = |world: &mut World, service: u32, range: &str, bits: u32| {
        let range = addr(range).words;
        let data = [service, range[0], range[1], range[2], range[3]];
        let admitted = world
            .datapath
            .put_prefix("source_ranges_v1", 32 + 96 + bits, data);
        admitted.unwrap();
    };
    admit(&mut world, 7, "192.0.2.0", 24);
    admit(&mut world, 7, "198.51.100.7", 32);
    admit(&mut world, 8, "203.0.113.0", 24);
    // A number that begins with the same bytes is another Service's.
    admit(&mut world, 0x0100_0007, "203.0.113.0", 24);
    for from in ["192.0.2.1", "192.0.2.255", "198.51.100.7"] {
        let syn = tcp((from, 50000), (BALANCED, 80), Flags::Syn, b"");
        let ran = world.run(Hook::FromNetdev, &syn);
        assert_eq!(ran.trace.rule, Rule::Service, "{from}");
    }
    for from in ["192.0.3.1", "198.51.100.8", "203.0.113.9"] {
        let syn = tcp((from, 50000), (BALANCED, 80), Flags::Syn, b"");
        world.must_drop(Hook::FromNetdev, &syn, DropReason::SourceRange);
    }
    let events = {
        let syn = tcp((OUTSIDE, 50000), (BALANCED, 80), Flags::Syn, b"");
        world.run(Hook::FromNetdev, &syn);
        world.datapath.events().unwrap()
    };
    assert_eq!(events[0].service, 7, "the event names the Service");
}

#[test]
fn maglev_sends_a_client_to_one_backend_whatever_node_it_meets() {
    let Some(mut world) = world("maglev") else {
        return;
    };
    let length = 101;
    let backends = [(1, (NEIGHBOUR_POD, 1)), (2, (NEIGHBOUR_POD, 2))];
    let table: Vec<u32> = (0..length)
        .map(|position| u32::from(position >= 50))
        .collect();
    world.datapath.put_inner("maglev_v1", 7, &table).unwrap();
    let service = numbered(7).with_maglev(length as u16);
    serve(&mut world, OUTSIDE_ROW, (BALANCED, 80), service, &backends);
    let ask = |world: &mut World, from: u16| {
        let syn = tcp((OUTSIDE, from), (BALANCED, 80), Flags::Syn, b"");
        ports(&world.run(Hook::FromNetdev, &syn).packet).1
    };
    let first: Vec<u16> = (40000..40200).map(|from| ask(&mut world, from)).collect();
    let many = first.iter().filter(|port| **port == 2).count();
    assert!((50..150).contains(&many), "{many} of 200 on one of two");
    // Another node has the same table and no flows.
    for (key, _) in world.datapath.flows().unwrap() {
        world.datapath.delete::<_, Flow>("flows_v1", &key).unwrap();
    }
    let again: Vec<u16> = (40000..40200).map(|from| ask(&mut world, from)).collect();
    assert_eq!(first, again);
    // A table that names a slot which is not there is no reason to fail.
    world
        .datapath
        .put_inner("maglev_v1", 7, &vec![9; length as usize])
        .unwrap();
    ask(&mut world, 50000);
}

#[test]
fn connections_are_counted_under_their_service_and_backend() {
    let Some(mut world) = node_port("counters", &[LOCAL]) else {
        return;
    };
    for port in 50000..50010 {
        for _ in 0..3 {
            let syn = tcp((OUTSIDE, port), (NODE, NODE_PORT), Flags::Syn, b"");
            world.run(Hook::FromNetdev, &syn);
        }
    }
    for (map, number) in [("service_counters_v1", 7), ("backend_counters_v1", 11)] {
        let counted = world.datapath.connections(map, number).unwrap();
        assert_eq!((counted.opened, counted.refused), (10, 0), "{map}");
    }
}

/// Kubernetes' "should drop INVALID conntrack entries": a server sends a segment that is out of its
/// window, and the client must not see it come from the server's own address.
#[test]
fn a_segment_out_of_every_window_is_translated_like_any_other() {
    let Some(mut world) = world("invalid segment") else {
        return;
    };
    let service = ("10.96.0.90", 80);
    serve(&mut world, INSIDE, service, numbered(4), &[LOCAL]);
    world.send(&tcp((POD, 40000), service, Flags::Syn, b""));
    let mut strange = Vec::new();
    etherparse::PacketBuilder::ethernet2(SENDER_MAC, GATEWAY_MAC)
        .ipv4(ip(NEIGHBOUR_POD).octets(), ip(POD).octets(), 64)
        .tcp(8080, 40000, 4_000_000_000, 1)
        .ack(3_000_000_000)
        .write(&mut strange, b"surprise")
        .unwrap();
    world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
    let ran = answers(&mut world, NEIGHBOUR_POD, 0, &strange);
    assert_eq!(ran.trace.rule, Rule::ServiceReply);
    assert_eq!(ends(&ran.packet), pair(service.0, POD));
}

#[test]
fn with_direct_return_a_remote_backend_is_told_what_the_client_asked() {
    let Some(mut world) = node_port("direct return", &[REMOTE]) else {
        return;
    };
    let direct = Config {
        flags: Config::DSR,
        ..config()
    };
    world.datapath.set_config(&direct).unwrap();
    for flags in [Flags::Syn, Flags::Ack] {
        let segment = tcp((OUTSIDE, 50000), (NODE, NODE_PORT), flags, b"");
        let ran = world.run(Hook::FromNetdev, &segment);
        assert_eq!(ran.trace, overlay(Rule::Service));
        assert_eq!(ends(&ran.packet), pair(OUTSIDE, REMOTE_POD));
        assert_eq!(ports(&ran.packet), (50000, 8080));
        let asked = [172, 31, 0, 11, (NODE_PORT >> 8) as u8, NODE_PORT as u8];
        assert_eq!(ran.packet[6..12], asked);
    }
    for (_, flow) in world.datapath.flows().unwrap() {
        let both = flow.seen & Flow::USED != 0 && flow.seen & Flow::SYN == 0;
        assert!(both, "no half of it looks half-open: {flow:?}");
    }
    // The same client and port by another address of the node: the answers would look alike.
    serve(
        &mut world,
        OUTSIDE_ROW,
        (BALANCED, 80),
        numbered(8),
        &[REMOTE],
    );
    let other = tcp((OUTSIDE, 50000), (BALANCED, 80), Flags::Syn, b"");
    let ran = world.run(Hook::FromNetdev, &other);
    assert_eq!(ran.trace, overlay(Rule::Service));
    assert_eq!(ends(&ran.packet), pair(TRANSLATION, REMOTE_POD));
}
