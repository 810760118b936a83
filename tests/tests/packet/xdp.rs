//! `xdp_uplink`: what it sends and drops is what `from_netdev` and `from_overlay` would, and all else
//! goes on to them as it came. It asks the kernel for routes, so these tests have real links.

use std::process::Command;

use datapath::lookup::packet::Packet;
use datapath::table::Tables;
use nix::net::if_::if_nametoindex;
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};
use orchestrator_common::maps::statistics::XDP;
use orchestrator_common::{Addr, DropReason, Mac, Port, Proto, Scope, Tuple, Verdict};
use tests::fuzz::frames::{self, Made};
use tests::fuzz::world::{self as random, Tunnel};
use tests::packet::*;
use tests::prog::{Datapath, LOOPBACK};
use tests::sim::rng::Rng;

use crate::world::*;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

const NODE_PORT: u16 = 30_080;
const BALANCED: [&str; 2] = ["192.0.2.80", "2001:db8::80"];
const OTHER_NODE_MAC: [u8; 6] = [2, 0, 0, 0, 7, 12];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 7, 250];
/// What every inner frame begins with.
const OVERLAY_MACS: ([u8; 6], [u8; 6]) = (
    [2, 0x6f, 0x72, 0x63, 0x68, 1],
    [2, 0x6f, 0x72, 0x63, 0x68, 2],
);

/// One family's ends: a client, the addresses that it asks, the backend and who stands for the client
/// towards it.
struct Family {
    client: &'static str,
    node: &'static str,
    balanced: &'static str,
    backend: &'static str,
    here: &'static str,
    translation: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        client: OUTSIDE,
        node: NODE,
        balanced: BALANCED[0],
        backend: REMOTE_POD,
        here: NEIGHBOUR_POD,
        translation: "10.100.1.0",
    },
    Family {
        client: OUTSIDE6,
        node: NODE6,
        balanced: BALANCED[1],
        backend: REMOTE_POD6,
        here: NEIGHBOUR_POD6,
        translation: "fd00:100:0:1::",
    },
];

type Build = fn(End<'_>, End<'_>, &[u8]) -> Vec<u8>;
const BUILDS: [Build; 2] = [
    |from, to, payload| udp(from, to, payload),
    |from, to, payload| tcp(from, to, Flags::Syn, payload),
];

fn ip(arguments: &str) {
    let done = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {arguments}: {complaint}");
}

/// An uplink in this thread's namespace, with neighbours, and what stands for `orch-net`; writes them
/// into the node's config.
fn wire(config: &mut Config) {
    ip("link add uplink type veth peer name wire");
    ip("link add lookup type veth peer name nobody");
    std::fs::write("/proc/sys/net/ipv6/conf/lookup/disable_ipv6", "1").unwrap();
    ip("link set lookup up");
    ip("link set nobody up");
    for (link, mac) in [("uplink", GATEWAY_MAC), ("wire", SENDER_MAC)] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_dad"), "0").unwrap();
        ip(&format!("link set {link} address {} up", Mac::new(mac)));
    }
    ip("addr add 172.31.0.11/24 dev uplink");
    ip("addr add fd31::11/64 dev uplink nodad");
    for (neighbours, mac) in [
        ([OTHER_NODE, OTHER_NODE6], OTHER_NODE_MAC),
        ([OUTSIDE, OUTSIDE6], CLIENT_MAC),
    ] {
        for neighbour in neighbours {
            ip(&format!(
                "neigh add {neighbour} lladdr {} dev uplink",
                Mac::new(mac)
            ));
        }
    }
    ip(&format!("route add default via {OUTSIDE}"));
    ip(&format!("-6 route add default via {OUTSIDE6}"));
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/conf/lookup/forwarding");
        std::fs::write(path, "1").unwrap();
    }
    config.uplink = if_nametoindex("uplink").unwrap();
    config.host = if_nametoindex("lookup").unwrap();
    config.uplink_mac = Mac::new(GATEWAY_MAC);
}

/// The world with an uplink, and a Service for outside in each family.
fn wired(test: &str, underlay_v6: bool) -> Option<World> {
    let mut world = world(test)?;
    let mut config = config();
    wire(&mut config);
    if underlay_v6 {
        config.underlay = addr(NODE6);
    }
    world.datapath.set_config(&config).unwrap();
    if underlay_v6 {
        world.node("10.100.2.0", OTHER_NODE6);
        world.node("fd00:100:0:2::", OTHER_NODE6);
    }
    for (number, family) in FAMILIES.iter().enumerate() {
        let id = 40 + number as u32;
        let port = addr(family.node).any_of_family();
        for at in [(port, NODE_PORT), (addr(family.balanced), 80)] {
            serve(&mut world, id, at, &[family.backend]);
        }
    }
    Some(world)
}

/// A Service's rows for outside; its backends listen on 8080.
fn serve(world: &mut World, id: u32, (at, port): (Addr, u16), to: &[&str]) {
    serve_as(
        world,
        Service {
            id,
            ..Service::default()
        },
        (at, port),
        to,
    );
}

fn serve_as(world: &mut World, service: Service, (at, port): (Addr, u16), to: &[&str]) {
    for (slot, backend) in to.iter().enumerate() {
        let key = BackendKey {
            service: service.id,
            slot: slot as u32,
        };
        let row = Backend {
            addr: addr(backend),
            port: Port::new(8080),
            flags: 0,
            id: 100 * service.id + slot as u32,
        };
        world.datapath.put("backends_v1", key, row).unwrap();
    }
    let service = Service {
        count: to.len() as u32,
        ..service
    };
    for proto in [Proto::TCP, Proto::UDP] {
        let key = ServiceKey::outside(at, Port::new(port), proto);
        world.datapath.put("services_v1", key, service).unwrap();
    }
}

/// Runs XDP over a frame that it must send, and returns that; counted once.
fn sent(world: &mut World, verdict: Verdict, frame: &[u8]) -> Vec<u8> {
    let datapath = &mut world.datapath;
    let before = (
        datapath.counter(XDP).unwrap(),
        datapath.decided(verdict).unwrap(),
    );
    let (action, out) = datapath.run_xdp(frame).unwrap();
    assert_eq!(action, XDP_TX, "{frame:02x?}");
    let after = (
        datapath.counter(XDP).unwrap(),
        datapath.decided(verdict).unwrap(),
    );
    assert_eq!(after, (before.0 + 1, before.1 + 1));
    out
}

/// Runs XDP over a frame that it must leave to others as it came.
#[track_caller]
fn left(world: &mut World, frame: &[u8]) {
    let before = world.datapath.counter(XDP).unwrap();
    let (action, out) = world.datapath.run_xdp(frame).unwrap();
    assert_eq!(action, XDP_PASS, "{frame:02x?}");
    assert_eq!(out, frame);
    assert_eq!(world.datapath.counter(XDP).unwrap(), before);
}

fn ports(seen: &Seen) -> (u16, u16) {
    match seen.transport {
        Transport::Udp(from, to) | Transport::Tcp(from, to) => (from, to),
        ref other => panic!("{other:?}"),
    }
}

fn with_macs(mut frame: Vec<u8>, macs: ([u8; 6], [u8; 6])) -> Vec<u8> {
    frame[..6].copy_from_slice(&macs.0);
    frame[6..12].copy_from_slice(&macs.1);
    frame
}

#[test]
fn xdp_sends_a_client_to_another_nodes_pod_and_the_answer_back() {
    for underlay_v6 in [false, true] {
        let Some(mut world) = wired("xdp there and back", underlay_v6) else {
            return;
        };
        for family in &FAMILIES {
            for build in BUILDS {
                for asked in [(family.node, NODE_PORT), (family.balanced, 80)] {
                    there_and_back(&mut world, family, build, asked, underlay_v6);
                }
            }
        }
    }
}

fn there_and_back(
    world: &mut World,
    family: &Family,
    build: Build,
    asked: End<'_>,
    underlay_v6: bool,
) {
    let (node, other) = if underlay_v6 {
        (NODE6, OTHER_NODE6)
    } else {
        (NODE, OTHER_NODE)
    };
    let client = (family.client, 50_000);
    let out = sent(world, Verdict::Tunnel, &build(client, asked, b"hello"));
    let outer = see_outer(&out);
    assert_eq!(outer.macs, (OTHER_NODE_MAC, GATEWAY_MAC));
    assert_eq!((outer.src, outer.dst), (any_ip(node), any_ip(other)));
    assert_eq!(
        (outer.ttl, outer.class, outer.vni, outer.dst_port),
        (64, 0, 1, 4789)
    );
    assert!(outer.src_port >= 0xc000, "{}", outer.src_port);
    let inner = see(&outer.inner);
    assert_eq!(inner.macs, OVERLAY_MACS);
    assert_eq!(
        (inner.src.as_str(), inner.dst.as_str()),
        (family.translation, family.backend)
    );
    assert_eq!(inner.ttl, 64, "the overlay is no hop");
    let (port, target) = ports(&inner);
    assert_eq!(target, 8080);

    let answer = build((family.backend, 8080), (family.translation, port), b"world");
    let answer = with_macs(answer, OVERLAY_MACS);
    let out = sent(world, Verdict::Outside, &vxlan(other, node, 1, &answer));
    let seen = see(&out);
    assert_eq!(seen.macs, (CLIENT_MAC, GATEWAY_MAC));
    assert_eq!((seen.src.as_str(), seen.dst.as_str()), (asked.0, client.0));
    assert_eq!(seen.ttl, 63, "the node is one");
    assert_eq!(ports(&seen), (asked.1, client.1));
    assert_eq!(out.len(), answer.len());
}

#[test]
fn a_flow_is_one_whoever_of_xdp_and_the_stack_sees_its_packets() {
    let Some(mut world) = wired("xdp and tcx", false) else {
        return;
    };
    for (number, family) in FAMILIES.iter().enumerate() {
        let client = (family.client, 51_000);
        let asked = (family.node, NODE_PORT);
        let syn = tcp(client, asked, Flags::Syn, b"");
        // The stack opens it, for XDP knows no way.
        let out = world.run(Hook::FromNetdev, &syn);
        assert_eq!(out.trace.verdict, Verdict::Tunnel);
        let again = sent(&mut world, Verdict::Tunnel, &syn);
        assert_eq!(see_outer(&again).inner, out.packet);
        let (port, _) = ports(&see(&out.packet));
        assert_eq!(world.datapath.flows().unwrap().len(), 2 * (number + 1));

        let answer = tcp(
            (family.backend, 8080),
            (family.translation, port),
            Flags::Ack,
            b"x",
        );
        let answer = with_macs(answer, OVERLAY_MACS);
        let here = sent(
            &mut world,
            Verdict::Outside,
            &vxlan(OTHER_NODE, NODE, 1, &answer),
        );
        let there = world
            .datapath
            .run_tunnelled(1, addr(OTHER_NODE), &answer)
            .unwrap();
        assert_eq!(there.trace.verdict, Verdict::Outside);
        // The stack finds the next hop later.
        assert_eq!(here[12..], there.packet[12..]);
        let opened = world
            .datapath
            .connections("service_counters_v1", 40 + number as u32);
        assert_eq!(opened.unwrap().opened, 1);
    }
}

#[test]
fn the_outer_packet_says_what_the_inner_one_does_of_congestion() {
    let Some(mut world) = wired("xdp and congestion", false) else {
        return;
    };
    for family in &FAMILIES {
        let plain = udp((family.client, 50_000), (family.node, NODE_PORT), b"");
        for (inner, outer) in [(0, 0), (1, 1), (2, 2), (3, 2)] {
            let out = sent(
                &mut world,
                Verdict::Tunnel,
                &with_congestion(plain.clone(), inner),
            );
            assert_eq!(see_outer(&out).class, outer, "for {inner}");
        }
    }
}

#[test]
fn a_datagram_without_checksum_stays_one() {
    let Some(mut world) = wired("xdp without checksum", false) else {
        return;
    };
    let mut frame = udp((OUTSIDE, 50_000), (NODE, NODE_PORT), b"hello");
    frame[40..42].fill(0);
    let out = sent(&mut world, Verdict::Tunnel, &frame);
    assert_eq!(see_outer(&out).inner[40..42], [0, 0]);
}

#[test]
fn a_datagrams_sum_of_zero_is_not_taken_for_none() {
    let Some(mut world) = wired("xdp and a sum of zero", false) else {
        return;
    };
    let payload = |word: u16| udp((OUTSIDE, 50_000), (NODE, NODE_PORT), &word.to_be_bytes());
    let out = sent(&mut world, Verdict::Tunnel, &payload(0));
    let inner = see_outer(&out).inner;
    // What is missing to a sum of all ones, whose complement is written.
    let missing = u16::from_be_bytes([inner[40], inner[41]]);
    let out = sent(&mut world, Verdict::Tunnel, &payload(missing));
    assert_eq!(see_outer(&out).inner[40..42], [0xff, 0xff]);
}

#[test]
fn the_answer_to_a_masqueraded_flow_is_left_to_the_stack() {
    let Some(mut world) = wired("xdp and masquerade", false) else {
        return;
    };
    let ran = world.run(Hook::ToNetdev, &udp((POD, 40_000), (OUTSIDE, 53), b""));
    let (port, _) = ports(&see(&ran.packet));
    let answer = udp((OUTSIDE, 53), (NODE, port), b"");
    // A Service has the node's own address, and since then that port.
    serve(&mut world, 90, (addr(NODE), port), &[REMOTE_POD]);
    left(&mut world, &answer);
    let flows = world.datapath.flows().unwrap().len();
    assert_eq!(flows, 2, "only the masqueraded one");
}

#[test]
fn xdp_drops_what_must_not_come_in_and_says_why() {
    let Some(mut world) = wired("xdp drops", false) else {
        return;
    };
    for (number, family) in FAMILIES.iter().enumerate() {
        let id = 50 + number as u32;
        let service = Service {
            id,
            flags: Service::SOURCE_RANGES,
            ..Service::default()
        };
        let at = (addr(family.balanced), 90);
        serve_as(&mut world, service, at, &[family.backend]);
        let client = (family.client, 50_000);
        for (frame, reason, service) in [
            (
                udp((family.backend, 1), (family.node, 1), b""),
                DropReason::PodRangeOutside,
                0,
            ),
            (
                udp(client, (family.here, 1), b""),
                DropReason::PodRangeOutside,
                0,
            ),
            (
                udp(client, (family.balanced, 90), b""),
                DropReason::SourceRange,
                id,
            ),
        ] {
            must_drop(&mut world, &frame, reason, service);
        }
        let refused = world
            .datapath
            .connections("service_counters_v1", id)
            .unwrap();
        assert_eq!((refused.opened, refused.refused), (0, 1));
        let bits = if number == 0 { 128 } else { 32 };
        let [a, b, c, d] = addr(family.client).words;
        let all = world
            .datapath
            .put_prefix("source_ranges_v1", 32 + bits, [id, a, b, c, d]);
        all.unwrap();
        sent(
            &mut world,
            Verdict::Tunnel,
            &udp(client, (family.balanced, 90), b""),
        );
    }
}

fn must_drop(world: &mut World, frame: &[u8], reason: DropReason, service: u32) {
    let datapath = &mut world.datapath;
    datapath.events().unwrap();
    let before = datapath.counted(reason).unwrap();
    let (action, _) = datapath.run_xdp(frame).unwrap();
    assert_eq!(action, XDP_DROP, "{reason}");
    assert_eq!(datapath.counted(reason).unwrap(), before + 1);
    let events = datapath.events().unwrap();
    let [event] = events[..] else {
        panic!("one event, not {events:?}")
    };
    assert_eq!(
        (event.reason, event.hook),
        (reason.number(), Hook::Xdp as u32)
    );
    assert_eq!((event.length, event.service), (frame.len() as u32, service));
}

#[test]
fn everything_else_goes_on_to_the_stack_as_it_came() {
    let Some(mut world) = wired("xdp leaves", false) else {
        return;
    };
    for (number, family) in FAMILIES.iter().enumerate() {
        let id = 60 + number as u32;
        for (port, backend) in [(81, family.here), (82, family.node), (83, family.client)] {
            let at = (addr(family.balanced), port);
            serve(&mut world, id + 2 * u32::from(port), at, &[backend]);
        }
        serve(&mut world, id, (addr(family.balanced), 84), &[]);
        let client = (family.client, 50_000);
        let asked = (family.node, NODE_PORT);
        let good = udp(client, asked, b"hello");
        let foreign = with_macs(good.clone(), ([2, 9, 9, 9, 9, 9], SENDER_MAC));
        let group = with_macs(good.clone(), ([0xff; 6], SENDER_MAC));
        let mut frames = vec![
            arp(),
            foreign,
            group,
            good[..good.len() - 10].to_vec(),
            fragment(good.clone(), 0, true),
            fragment(good.clone(), 4, false),
            sctp(client, asked),
            echo(family.client, family.node, 7, false),
            udp(client, (family.node, NODE_PORT + 1), b""),
            tcp(client, asked, Flags::Rst, b""),
            udp(client, asked, &[0; 1450]),
        ];
        for port in 81..=84 {
            frames.push(udp(client, (family.balanced, port), b""));
        }
        if number == 1 {
            frames.push(extend(good.clone(), 60, &[0; 8]));
        }
        for frame in frames {
            left(&mut world, &frame);
        }
        sent(&mut world, Verdict::Tunnel, &good);
    }
}

#[test]
fn only_a_reply_that_a_vxlan_device_would_take_from_its_node_comes_out_of_the_tunnel() {
    let Some(mut world) = wired("xdp and tunnels", false) else {
        return;
    };
    for family in &FAMILIES {
        let out = sent(
            &mut world,
            Verdict::Tunnel,
            &udp((family.client, 50_000), (family.node, NODE_PORT), b""),
        );
        let (port, _) = ports(&see(&see_outer(&out).inner));
        let answer = |from: End<'_>, port| {
            with_macs(udp(from, (family.translation, port), b"x"), OVERLAY_MACS)
        };
        let good = answer((family.backend, 8080), port);
        let tunnel = |inner: &[u8]| vxlan(OTHER_NODE, NODE, 1, inner);
        let whole = tunnel(&good);
        let altered = |at: usize, value: u8| {
            let mut frame = whole.clone();
            frame[at] = value;
            frame
        };
        for frame in [
            vxlan(OTHER_NODE, NODE, 2, &good),
            vxlan(OUTSIDE, NODE, 1, &good),
            vxlan(OTHER_NODE, "172.31.0.13", 1, &good),
            tunnel(&answer((family.backend, 8081), port)),
            tunnel(&answer((family.here, 8080), port)),
            tunnel(&with_macs(good.clone(), (GATEWAY_MAC, SENDER_MAC))),
            tunnel(&with_ttl(good.clone(), 1)),
            tunnel(&fragment(good.clone(), 0, true)),
            tunnel(&with_macs(
                udp((family.backend, 8080), (family.here, 1), b""),
                OVERLAY_MACS,
            )),
            with_congestion(whole.clone(), 3),
            // The IPv4 checksum, the UDP length, a UDP checksum, VXLAN's flags and reserved bytes.
            altered(24, !whole[24]),
            altered(39, !whole[39]),
            altered(41, 1),
            altered(42, 0x88),
            altered(43, 1),
            altered(49, 1),
            whole[..whole.len() - 1].to_vec(),
        ] {
            left(&mut world, &frame);
        }
        let back = sent(&mut world, Verdict::Outside, &whole);
        assert_eq!(see(&back).dst, family.client);
    }
}

#[test]
fn without_a_known_way_over_the_uplink_the_stack_finds_one() {
    let Some(mut world) = wired("xdp without a way", false) else {
        return;
    };
    let frame = udp((OUTSIDE, 50_000), (NODE, NODE_PORT), b"");
    sent(&mut world, Verdict::Tunnel, &frame);
    ip(&format!("neigh del {OTHER_NODE} dev uplink"));
    left(&mut world, &frame);
    ip(&format!(
        "neigh add {OTHER_NODE} lladdr {} dev uplink",
        Mac::new(OTHER_NODE_MAC)
    ));
    sent(&mut world, Verdict::Tunnel, &frame);
    ip(&format!("route add {OTHER_NODE} via {OUTSIDE} mtu lock 80"));
    left(
        &mut world,
        &udp((OUTSIDE, 50_000), (NODE, NODE_PORT), &[0; 40]),
    );
    // By another link, where the neighbour is known as well.
    ip(&format!("route replace {OTHER_NODE} dev lookup"));
    ip(&format!(
        "neigh add {OTHER_NODE} lladdr {} dev lookup",
        Mac::new(OTHER_NODE_MAC)
    ));
    left(&mut world, &frame);
}

#[test]
fn once_a_second_the_stack_sees_a_packet_of_each_row() {
    let Some(mut world) = wired("xdp leaves rows that are due", false) else {
        return;
    };
    let frame = udp((OUTSIDE, 50_000), (NODE, NODE_PORT), b"");
    sent(&mut world, Verdict::Tunnel, &frame);
    let key = Tuple {
        src: addr(OUTSIDE),
        dst: addr(NODE),
        src_port: Port::new(50_000),
        dst_port: Port::new(NODE_PORT),
        proto: Proto::UDP,
        scope: Scope::SERVICE,
        reserved: [0; 2],
    };
    let old = Flow {
        last_seen_ns: 0,
        ..world.flow(&key)
    };
    world.datapath.put("flows_v1", key, old).unwrap();
    left(&mut world, &frame);
    assert_eq!(
        world.run(Hook::FromNetdev, &frame).trace.verdict,
        Verdict::Tunnel
    );
    sent(&mut world, Verdict::Tunnel, &frame);
}

#[test]
fn a_client_that_its_backend_answers_itself_is_left_to_the_stack() {
    let Some(mut world) = wired("xdp and direct return", false) else {
        return;
    };
    let mut direct = config();
    wire_again(&mut direct);
    direct.flags = Config::DSR;
    world.datapath.set_config(&direct).unwrap();
    let frame = udp((OUTSIDE, 50_000), (NODE, NODE_PORT), b"");
    left(&mut world, &frame);
    let ran = world.run(Hook::FromNetdev, &frame);
    assert_eq!(
        (ran.trace.verdict, see(&ran.packet).src.as_str()),
        (Verdict::Tunnel, OUTSIDE)
    );
}

/// The links that are there already.
fn wire_again(config: &mut Config) {
    config.uplink = if_nametoindex("uplink").unwrap();
    config.host = if_nametoindex("lookup").unwrap();
    config.uplink_mac = Mac::new(GATEWAY_MAC);
}

#[test]
fn whatever_comes_xdp_does_nothing_that_the_stack_would_not() {
    if world("xdp fuzz").is_none() {
        return;
    }
    let (packets, seed) = tests::fuzz::extent(20_000).unwrap();
    // Many worlds, as the table of flows must not get full.
    let worlds = packets.div_ceil(MOST_IN_ONE);
    let mut met = [0; 4];
    for world in 0..worlds {
        let mut beside = Beside::new(Rng::new(seed + world));
        let pool = random::pool(&beside.tables);
        for _ in 0..packets.min(MOST_IN_ONE) {
            let Made { bytes, .. } = beside.next(&pool);
            beside.step(bytes);
        }
        (0..met.len()).for_each(|at| met[at] += beside.met[at]);
    }
    assert!(
        met.iter().all(|times| *times > 50),
        "left, overlay, outside, dropped: {met:?}"
    );
}

/// Packets for one world.
const MOST_IN_ONE: u64 = 200_000;

/// The datapath whose stack's programs judge XDP.
struct Beside {
    datapath: Datapath,
    tables: Tables,
    rng: Rng,
    /// What was sent on, as it was in the tunnel.
    flows: Vec<Tuple>,
    /// Left, sent to a node, sent outside, dropped.
    met: [usize; 4],
}

impl Beside {
    fn new(rng: Rng) -> Beside {
        let mut tables = random::tables(random::Parts::ALL);
        let config = tables.config.get_mut(&0).unwrap();
        if if_nametoindex("uplink").is_ok() {
            wire_again(config);
        } else {
            wire(config);
        }
        // All random frames have the overlay's addresses.
        config.uplink_mac = Mac::new(OVERLAY_MACS.0);
        let mut beside = Beside {
            datapath: Datapath::load().unwrap(),
            tables,
            rng,
            flows: Vec::new(),
            met: [0; 4],
        };
        beside.datapath.fill(&beside.tables).unwrap();
        beside
    }

    /// An answer, a question, or anything that may come by.
    fn next(&mut self, pool: &frames::Pool) -> Made {
        let rng = &mut self.rng;
        let flows = &self.flows;
        let hook = match rng.below(4) {
            0 if !flows.is_empty() => {
                let tuple = flows[rng.below(flows.len())];
                return frames::with_tuple(&tuple.reverse(), rng);
            }
            1 => {
                let clients = random::senders(Hook::Xdp);
                let client = clients[rng.below(clients.len())];
                let is_tcp = rng.chance(500);
                let asked = Tuple {
                    src: client.into(),
                    dst: addr(if client.is_ipv4() { NODE } else { "fd00:31::b" }),
                    src_port: Port::new(rng.number() as u16),
                    dst_port: Port::new(if is_tcp { 30_080 } else { 30_081 }),
                    proto: if is_tcp { Proto::TCP } else { Proto::UDP },
                    ..Tuple::default()
                };
                return frames::with_tuple(&asked, rng);
            }
            2 => Hook::FromOverlay,
            _ => Hook::Xdp,
        };
        pool.frame(rng, &random::senders(hook), &random::addressees(hook))
    }

    fn step(&mut self, mut bytes: Vec<u8>) {
        // The kernel runs nothing over less than an IP header.
        bytes.resize(bytes.len().max(54), 0);
        let tunnel = self
            .rng
            .chance(500)
            .then(|| Tunnel::any(&mut self.rng, &self.tables));
        let frame = match &tunnel {
            Some(Tunnel { vni, sender }) => {
                let whole = vxlan(&sender.to_string(), NODE, *vni, &bytes);
                with_macs(whole, OVERLAY_MACS)
            }
            None => bytes.clone(),
        };
        let (action, out) = self.datapath.run_xdp(&frame).unwrap();
        if action == XDP_PASS {
            assert_eq!(out, frame);
            self.met[0] += 1;
            return;
        }
        let told = match action {
            XDP_DROP => self.datapath.events().unwrap().pop(),
            _ => None,
        };
        let ran = match tunnel {
            Some(Tunnel { vni, sender }) => self.datapath.run_tunnelled(vni, sender, &bytes),
            None => self.datapath.run(Hook::FromNetdev, LOOPBACK, &bytes),
        };
        let ran = ran.unwrap();
        let trace = ran.trace;
        match (action, trace.verdict) {
            (XDP_TX, Verdict::Tunnel) if tunnel.is_none() => {
                let outer = see_outer(&out);
                assert_eq!(outer.inner, ran.packet, "{frame:02x?}");
                self.flows
                    .extend(Packet::read(&ran.packet).map(|packet| packet.tuple));
                self.met[1] += 1;
            }
            (XDP_TX, Verdict::Outside) if tunnel.is_some() => {
                assert_eq!(out[12..], ran.packet[12..], "{frame:02x?}");
                self.met[2] += 1;
            }
            (XDP_DROP, Verdict::Drop) => {
                let told = told.map(|event| event.reason);
                assert_eq!(told, Some(trace.reason.number()), "{frame:02x?}");
                self.met[3] += 1;
            }
            _ => panic!("{action} against {trace:?}: {frame:02x?}"),
        }
    }
}
