//! `from_overlay`. A test run has no tunnel, so packets come through a real VXLAN device: a socket
//! sends what another node would.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use aya::programs::TcAttachType;
use orchestrator_common::event::Hook;
use orchestrator_common::{DropEvent, DropReason, Verdict};
use tests::packet::*;

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
        let mut datagram = vec![0x08, 0, 0, 0, 0, 0, vni, 0];
        datagram.extend([0x02, 0x6f, 0x72, 0x63, 0x68, 0x01]);
        datagram.extend([0x02, 0x6f, 0x72, 0x63, 0x68, 0x02]);
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
