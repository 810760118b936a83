//! `from_overlay`. A test run has no tunnel, so packets come through a real VXLAN device: a socket
//! sends what another node would.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use aya::programs::TcAttachType;
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::{DropEvent, DropReason, Rule, Trace, Verdict};
use tests::packet::*;
use tests::prog::LOOPBACK;

use crate::world::*;

#[test]
fn what_came_through_no_tunnel_is_dropped() {
    let Some(mut world) = world("no tunnel") else {
        return;
    };
    let frame = udp((REMOTE_POD, 1), (POD, 1), b"");
    world.must_drop(Hook::FromOverlay, &frame, DropReason::NotOurTunnel);
    world.must_drop(Hook::FromOverlay, &arp(), DropReason::NotIp);
    world.must_drop(Hook::FromOverlay, &frame[..40], DropReason::Malformed);
}

#[test]
fn what_the_owner_of_the_source_sends_is_delivered() {
    let Some(mut tunnel) = Tunnel::open("delivered") else {
        return;
    };
    tunnel.send(
        OTHER_NODE,
        1,
        &udp((REMOTE_POD, 53), (POD, 40000), b"hello"),
    );
    tunnel.wait(|world| world.datapath.decided(Verdict::Peer).unwrap() == 1);
    tunnel.send(
        OTHER_NODE,
        1,
        &tcp((REMOTE_POD, 80), (GATEWAY, 40000), Flags::Ack, b"hello"),
    );
    tunnel.wait(|world| world.datapath.decided(Verdict::Node).unwrap() == 1);
    assert_eq!(tunnel.world.datapath.decided(Verdict::Drop).unwrap(), 0);
}

#[test]
fn a_tunnel_packet_is_dropped_with_its_reason() {
    let Some(mut tunnel) = Tunnel::open("tunnel drops") else {
        return;
    };
    let good = udp((REMOTE_POD, 53), (POD, 40000), b"hello");
    tunnel.must_drop(OTHER_NODE, 2, &good, DropReason::NotOurTunnel);
    tunnel.must_drop(OUTSIDE, 1, &good, DropReason::TunnelSpoofed);
    let of_no_node = udp(("10.100.99.1", 53), (POD, 40000), b"hello");
    tunnel.must_drop(OTHER_NODE, 1, &of_no_node, DropReason::TunnelSpoofed);
    let own = udp((NEIGHBOUR_POD, 53), (POD, 40000), b"hello");
    tunnel.must_drop(OTHER_NODE, 1, &own, DropReason::TunnelSpoofed);
    let for_nobody = udp((REMOTE_POD, 53), ("10.100.1.99", 40000), b"hello");
    tunnel.must_drop(OTHER_NODE, 1, &for_nobody, DropReason::NoEndpoint);
    let through = udp((REMOTE_POD, 53), (OUTSIDE, 40000), b"hello");
    tunnel.must_drop(OTHER_NODE, 1, &through, DropReason::NoEndpoint);
    assert_eq!(tunnel.world.datapath.decided(Verdict::Peer).unwrap(), 0);
}

const DIRECT: [u8; 3] = [0x80, 0, 1];
/// What the client asked, as the other node says it: its own node port.
const ASKED: [u8; 6] = [172, 31, 0, 12, 0x75, 0x80];

#[test]
fn a_client_that_another_node_sent_on_is_answered_from_here_in_that_nodes_name() {
    let Some(mut tunnel) = Tunnel::open("direct return received") else {
        return;
    };
    let syn = tcp((OUTSIDE, 50000), (POD, 8080), Flags::Syn, b"");
    let drops = |tunnel: &mut Tunnel, from: &str, frame: &[u8]| {
        let mut events = Vec::<DropEvent>::new();
        tunnel.send_by(from, DIRECT, ASKED, frame);
        tunnel.wait(|world| {
            events.extend(world.datapath.events().unwrap());
            !events.is_empty()
        });
        let reason = DropReason::from_number(events[0].reason);
        assert_eq!(reason, Some(DropReason::TunnelSpoofed));
    };
    // Without the option, and from who is no node of the cluster.
    drops(&mut tunnel, OTHER_NODE, &syn);
    let direct = Config {
        flags: Config::DSR,
        ..config()
    };
    tunnel.world.datapath.set_config(&direct).unwrap();
    drops(&mut tunnel, OTHER_NODE, &syn);
    let node = Node {
        vtep: addr(OTHER_NODE),
        flags: Node::VTEP,
        reserved: 0,
    };
    let nodes = &mut tunnel.world.datapath;
    nodes.put("nodes_v1", addr(OTHER_NODE), node).unwrap();
    drops(&mut tunnel, OUTSIDE, &syn);
    let of_a_pod = tcp((NEIGHBOUR_POD, 50000), (POD, 8080), Flags::Syn, b"");
    drops(&mut tunnel, OTHER_NODE, &of_a_pod);

    for flags in [Flags::Syn, Flags::Ack] {
        let before = tunnel.world.datapath.decided(Verdict::Peer).unwrap();
        let segment = tcp((OUTSIDE, 50000), (POD, 8080), flags, b"");
        tunnel.send_by(OTHER_NODE, DIRECT, ASKED, &segment);
        tunnel.wait(|world| world.datapath.decided(Verdict::Peer).unwrap() == before + 1);
    }
    let world = &mut tunnel.world;
    assert_eq!(world.datapath.flows().unwrap().len(), 2);
    world.endpoint(POD, LOOPBACK, 0, POD_MAC);
    let ran = world.send(&tcp((POD, 8080), (OUTSIDE, 50000), Flags::Ack, b"hello"));
    assert_eq!(
        ran.trace,
        trace(Verdict::Outside, UPLINK, Rule::ServiceReply)
    );
    let seen = see(&ran.packet);
    assert_eq!(
        (seen.src.as_str(), seen.dst.as_str()),
        (OTHER_NODE, OUTSIDE)
    );
    assert_eq!(seen.transport, Transport::Tcp(30080, 50000));
}

#[test]
fn only_what_is_too_large_for_the_narrowest_link_goes_in_pieces() {
    let Some(mut world) = world("pieces") else {
        return;
    };
    ip_link("link set lo up");
    world.node("fd00:100:0:2::", OTHER_NODE6);
    let config = |cut| Config {
        underlay: addr(NODE6),
        cut,
        ..config()
    };
    world.datapath.set_config(&config(HOST)).unwrap();
    let of = |to, length: usize| udp((POD6, 40000), (to, 53), &vec![7; length - 48]);
    let back = Trace {
        vtep: addr(OTHER_NODE6).low_word(),
        ..trace(Verdict::Overlay, LOOPBACK, Rule::RemotePod)
    };
    for length in [1211, 1280, 1304] {
        let frame = of(REMOTE_POD6, length);
        let ran = world.run(Hook::FromCut, &frame);
        assert_eq!(ran.trace, back);
        let (headers, rest) = ran.packet.split_at(14 + 40 + 8);
        assert_eq!(rest, &frame[640..]);
        // From byte 656 on, and nothing follows.
        assert_eq!(headers[54..58], [17, 0, 2, 0x90]);
    }
    // The last segment of many need not be large.
    for length in [60, 700, 1210] {
        let frame = of(REMOTE_POD6, length);
        let ran = world.run(Hook::FromCut, &frame);
        assert_eq!(ran.trace, back);
        assert_eq!(ran.packet[14 + 40 + 16..], frame);
    }
    let mut drops = |frame: &[u8], reason| world.must_drop(Hook::FromCut, frame, reason);
    drops(&of(NEIGHBOUR_POD6, 1280), DropReason::NoNode);
    drops(&of(REMOTE_POD6, 1651), DropReason::TooBig);
    // They come back as they are.
    world.datapath.set_config(&config(LOOPBACK)).unwrap();
    let piece = fragment(udp((NODE6, 50000), (OTHER_NODE6, 4789), &[7; 64]), 82, true);
    let ran = world.run(Hook::FromCut, &piece);
    let on = trace(Verdict::Tunnel, UPLINK, Rule::RemotePod);
    assert_eq!((ran.trace, ran.packet), (on, piece));
}

/// A VXLAN device with the program on it, and the addresses of the nodes on loopback.
struct Tunnel {
    world: World,
}

impl Tunnel {
    fn open(test: &str) -> Option<Tunnel> {
        let mut world = world(test)?;
        // The namespace is the test's own, so nothing has to be taken away again.
        ip_link("link set lo up");
        for node in [NODE, OTHER_NODE, OUTSIDE] {
            ip_link(&format!("address add {node}/32 dev lo"));
        }
        ip_link("link add tunnel type vxlan external dstport 4789 nolearning");
        ip_link("link set tunnel address 02:6f:72:63:68:01 up");
        let program = world.datapath.classifier(Hook::FromOverlay).unwrap();
        program.attach("tunnel", TcAttachType::Ingress).unwrap();
        world.endpoint(POD, NEIGHBOUR, 0, POD_MAC);
        Some(Tunnel { world })
    }

    fn send(&mut self, from: &str, vni: u8, frame: &[u8]) {
        self.send_by(
            from,
            [0, 0, vni],
            [0x02, 0x6f, 0x72, 0x63, 0x68, 0x02],
            frame,
        );
    }

    /// The same with the whole VXLAN identifier and the inner frame's source.
    fn send_by(&mut self, from: &str, [a, b, c]: [u8; 3], source: [u8; 6], frame: &[u8]) {
        let mut datagram = vec![0x08, 0, 0, 0, a, b, c, 0];
        datagram.extend([0x02, 0x6f, 0x72, 0x63, 0x68, 0x01]);
        datagram.extend(source);
        datagram.extend(&frame[12..]);
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.send_to(&datagram, (NODE, 4789)).unwrap();
    }

    fn must_drop(&mut self, from: &str, vni: u8, frame: &[u8], reason: DropReason) {
        let mut events = Vec::<DropEvent>::new();
        self.send(from, vni, frame);
        self.wait(|world| {
            events.extend(world.datapath.events().unwrap());
            !events.is_empty()
        });
        assert_eq!(events.len(), 1);
        assert_eq!(DropReason::from_number(events[0].reason), Some(reason));
        let seen = see(frame);
        assert_eq!(events[0].tuple.src.to_string(), seen.src);
        assert_eq!(events[0].tuple.dst.to_string(), seen.dst);
    }

    /// The kernel hands a packet over after `send` at its own time.
    fn wait(&mut self, mut condition: impl FnMut(&mut World) -> bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while !condition(&mut self.world) {
            assert!(Instant::now() < end, "the packet was not seen");
            std::thread::yield_now();
        }
    }
}

fn ip_link(arguments: &str) {
    let ran = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
}
