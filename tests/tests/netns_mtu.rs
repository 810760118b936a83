//! Large packets, on every path: over a hop that takes only 1,280 bytes, larger than the overlay
//! carries, and datagrams in pieces.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use datapath::Xdp;
use tests::capture::{Capture, Segment};
use tests::netns::{Cluster, Narrow, Netns, OUTSIDE, OUTSIDE_V6, Plan, Svc, ready};
use tests::peer::{Client, Server, ask_udp, udp_for};

const HOP: u16 = 1280;
/// Narrower than the nodes' links, wide enough for the 1,280 bytes that IPv6 has to send, and their tunnel.
const HOP_OF_IPV6: u16 = 1400;
const NODE_PORT: u16 = 30_080;
/// Outer headers of the overlay on an IPv6 underlay.
const TUNNEL_V6: u32 = 70;

/// How often any byte may be sent in segments that the path does not carry.
const TRIES: usize = 3;

/// Larger than a narrow hop carries, not larger than the overlay does; and how long nothing comes.
const DATAGRAM: usize = 1370;
/// What makes an answer of 1,280 bytes: behind the headers it begins with the server's name.
const LEAST_OF_IPV6: usize = 1280 - 40 - 8 - "far ".len();
const LOST: Duration = Duration::from_millis(300);

/// Where a path leads, of those that [`World::paths`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    FarPod,
    Service,
    Outside,
    NodePort,
}

use Way::{FarPod, NodePort, Outside, Service};

/// Two nodes with a pod each, and a Service of the second one's that is reached as `web` and on a
/// node port, over TCP and UDP. No socket program sees anybody, so every packet is translated.
struct World {
    cluster: Cluster,
    web: Svc,
    _servers: Vec<Server>,
}

impl World {
    fn start(plan: Plan) -> Result<World> {
        let mut cluster = plan.per_packet().start()?;
        cluster.nodes[0].add_pod(5)?;
        cluster.nodes[1].add_pod(7)?;
        cluster.in_sync()?;
        let far = &cluster.nodes[1].pods[0].netns;
        let servers = vec![
            Server::tcp(far, "far", 8080)?,
            Server::udp(far, "far", 8080)?,
            Server::tcp(&cluster.outside, "outside", 8080)?,
            Server::udp(&cluster.outside, "outside", 8080)?,
        ];
        let web = Svc::new("web", 10)
            .port(80, 8080)
            .node_port(NODE_PORT)
            .udp(80, 8080)
            .node_port(NODE_PORT)
            .to([cluster.nodes[1].ep(0)]);
        cluster.apply(&web)?;
        Ok(World {
            cluster,
            web,
            _servers: servers,
        })
    }

    fn pod(&self) -> &Netns {
        &self.cluster.nodes[0].pods[0].netns
    }

    /// From the pod to the other node's, to the Service and to outside, and from outside to the node
    /// port, each in both families.
    fn paths(&self) -> Vec<(Way, &Netns, SocketAddr)> {
        let (node, outside) = (&self.cluster.nodes[0], &self.cluster.outside);
        let far = &self.cluster.nodes[1].pods[0];
        let both = |v4: IpAddr, v6: IpAddr, port| [v4, v6].map(|ip| SocketAddr::new(ip, port));
        let pods = both(far.addr.into(), far.v6.into(), 8080);
        let services = both(self.web.v4(), self.web.v6(), 80);
        let away = both(OUTSIDE.into(), OUTSIDE_V6.into(), 8080);
        let ports = both(node.v4(), node.v6(), NODE_PORT);
        let named = |name, from, to: [SocketAddr; 2]| to.map(|to| (name, from, to));
        [
            named(Service, self.pod(), services),
            named(FarPod, self.pod(), pods),
            named(Outside, self.pod(), away),
            named(NodePort, outside, ports),
        ]
        .concat()
    }

    /// Sends and gets much in one piece both ways; how often either end tried more than `carried`.
    fn stream(&self, way: Way, from: &Netns, to: SocketAddr, carried: u32) -> Result<[usize; 2]> {
        let server = match way {
            Outside => &self.cluster.outside,
            _ => &self.cluster.nodes[1].pods[0].netns,
        };
        let [asked, answered] = [Capture::of_segments(from)?, Capture::of_segments(server)?];
        let question = "x".repeat(200_000);
        let mut client = Client::connect(from, to)?;
        let answer = client.ask(&question)?;
        assert!(answer.ends_with(&question), "{way:?} {to}");
        Ok([
            tries(&asked.sent()?, carried),
            tries(&answered.sent()?, carried),
        ])
    }

    /// How many datagrams of one socket it takes until one of that size is answered, neither it nor its
    /// answer being carried whole.
    fn datagrams(&self, from: &Netns, to: SocketAddr, size: usize) -> Result<usize> {
        let socket = udp_for(from, to.ip())?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(LOST))?;
        let question = "z".repeat(size);
        let mut buffer = [0; 2 * DATAGRAM];
        for sent in 1..=2 * TRIES {
            match socket.send(question.as_bytes()) {
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => continue,
                done => done?,
            };
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    ensure!(buffer[..length].ends_with(question.as_bytes()), "altered");
                    return Ok(sent);
                }
                // The sender is told; from now on its kernel cuts them.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("none of {} was answered", 2 * TRIES)
    }

    /// A stream on every path, where a handshake tells what the path carries: nobody has to try.
    fn streams_arrive(&self) -> Result<()> {
        for (way, from, to) in self.paths() {
            let tries = self.stream(way, from, to, self.overlay());
            let tries = tries.with_context(|| format!("{way:?} {to}"))?;
            assert_eq!(tries, [0, 0], "{way:?} {to}");
        }
        Ok(())
    }

    /// What the overlay says that it carries.
    fn overlay(&self) -> u32 {
        self.cluster.nodes[0].config.overlay_mtu()
    }
}

/// How often the byte that was sent most often was sent in a segment that the path does not carry.
/// All of them are of one connection, one way.
fn tries(sent: &[Segment], carried: u32) -> usize {
    let first = sent.iter().find(|segment| segment.syn);
    let first = first.expect("the capture began before the connection").seq;
    assert!(sent.iter().any(|it| it.bytes > 0), "nothing was seen");
    let too_large = sent.iter().filter(|it| it.bytes > 0 && it.size > carried);
    let span = |segment: &Segment| {
        let at = segment.seq.wrapping_sub(first);
        at..at + segment.bytes
    };
    let spans: Vec<_> = too_large.map(span).collect();
    let covered = |at: &u32| spans.iter().filter(|span| span.contains(at)).count();
    let starts = spans.iter().map(|span| span.start);
    starts.map(|at| covered(&at)).max().unwrap_or(0)
}

/// A stream on each of these ways, both families where `wanted`, in a world of its own for each, in
/// which nobody knows the path yet: either end finds out within three tries what it carries. So do two
/// that send datagrams, in a world of their own too.
fn senders_recover(
    make: impl Fn() -> Result<World>,
    ways: &[Way],
    carried: u32,
    wanted: impl Fn(SocketAddr) -> bool,
) -> Result<()> {
    for wanted_way in ways {
        let world = make()?;
        for (way, from, to) in world.paths() {
            if way != *wanted_way || !wanted(to) {
                continue;
            }
            let tries = world.stream(way, from, to, carried);
            let tries = tries.with_context(|| format!("{way:?} {to}"))?;
            for tries in tries {
                assert!(tries > 0, "{way:?} {to}: nothing was too large");
                assert!(tries <= TRIES, "{way:?} {to}: {tries} tries");
            }
        }
        let world = make()?;
        for (way, from, to) in world.paths() {
            if way != *wanted_way || !wanted(to) {
                continue;
            }
            let sent = world.datagrams(from, to, DATAGRAM);
            let sent = sent.with_context(|| format!("datagrams, {way:?} {to}"))?;
            assert!(sent > 1, "{way:?} {to}: nothing was too large");
        }
    }
    Ok(())
}

#[test]
fn streams_find_out_what_the_overlay_carries() -> Result<()> {
    if !ready("overlay MTU") {
        return Ok(());
    }
    World::start(Plan::nodes(2))?.streams_arrive()?;
    World::start(Plan::nodes(2).underlay_v6())?.streams_arrive()
}

#[test]
fn senders_recover_within_three_tries_at_a_narrow_hop_to_outside() -> Result<()> {
    if !ready("narrow outside") {
        return Ok(());
    }
    let make = || {
        let mut world = World::start(Plan::nodes(2))?;
        world.cluster.narrow(Narrow::Outside, HOP)?;
        Ok(world)
    };
    senders_recover(make, &[Outside, NodePort], HOP.into(), |_| true)
}

/// The nodes' packets are cut on the way.
#[test]
fn streams_cross_a_narrow_hop_between_nodes() -> Result<()> {
    if !ready("narrow underlay") {
        return Ok(());
    }
    let mut world = World::start(Plan::nodes(2))?;
    world.cluster.narrow(Narrow::Underlay, HOP)?;
    world.streams_arrive()
}

#[test]
fn senders_that_are_answered_directly_recover_at_a_narrow_hop_to_outside() -> Result<()> {
    if !ready("narrow outside, direct return") {
        return Ok(());
    }
    let make = || {
        let mut world = World::start(Plan::nodes(2))?;
        for index in 0..2 {
            world.cluster.nodes[index].config.dsr = true;
            world.cluster.restart(index)?;
        }
        world.cluster.narrow(Narrow::Outside, HOP)?;
        Ok(world)
    };
    senders_recover(make, &[NodePort], HOP.into(), |_| true)
}

#[test]
fn senders_recover_within_three_tries_at_a_narrow_hop_of_an_ipv6_underlay() -> Result<()> {
    if !ready("narrow IPv6 underlay") {
        return Ok(());
    }
    let make = || {
        let mut world = World::start(Plan::nodes(2).underlay_v6())?;
        world.cluster.narrow(Narrow::Underlay, HOP_OF_IPV6)?;
        Ok(world)
    };
    let carried = u32::from(HOP_OF_IPV6) - TUNNEL_V6;
    senders_recover(make, &[Service, FarPod, NodePort], carried, |_| true)
}

#[test]
fn senders_recover_within_three_tries_at_the_narrowest_hop_of_an_ipv6_underlay() -> Result<()> {
    if !ready("narrowest IPv6 underlay") {
        return Ok(());
    }
    let make = || narrowest(Plan::nodes(2).underlay_v6());
    let ways = [Service, FarPod, NodePort];
    let carried = u32::from(HOP) - TUNNEL_V6;
    senders_recover(make, &ways, carried, |to| to.is_ipv4())?;
    // IPv6 hosts send 1,280 bytes whatever they are told: those cross the hop in pieces.
    senders_recover(make, &ways, HOP.into(), |to| to.is_ipv6())
}

/// Nobody can send less, so nobody is told: the first datagram each way is lost for what the nodes learn.
#[test]
fn the_least_of_ipv6_crosses_the_narrowest_hop_of_an_ipv6_underlay() -> Result<()> {
    if !ready("the least of IPv6") {
        return Ok(());
    }
    for (dsr, xdp) in [(false, Xdp::Off), (true, Xdp::Off), (false, Xdp::Generic)] {
        for wanted in [Service, FarPod, NodePort] {
            let mut world = narrowest(Plan::nodes(2).underlay_v6())?;
            for index in 0..2 {
                let config = &mut world.cluster.nodes[index].config;
                (config.dsr, config.xdp) = (dsr, xdp);
                world.cluster.restart(index)?;
            }
            let paths = world.paths();
            let mut ours = paths
                .iter()
                .filter(|(way, _, to)| *way == wanted && to.is_ipv6());
            let (_, from, to) = ours.next().context("a path")?;
            let sent = world.datagrams(from, *to, LEAST_OF_IPV6);
            let sent =
                sent.with_context(|| format!("{wanted:?}, direct return {dsr}, XDP {xdp:?}"))?;
            assert!(
                (2..=TRIES).contains(&sent),
                "{wanted:?} {dsr} {xdp:?}: {sent} tries"
            );
            for _ in 0..50 {
                let sent = world.datagrams(from, *to, LEAST_OF_IPV6)?;
                assert_eq!(
                    sent, 1,
                    "{wanted:?} {dsr} {xdp:?}: lost once the path is known"
                );
            }
        }
    }
    Ok(())
}

fn narrowest(plan: Plan) -> Result<World> {
    let mut world = World::start(plan)?;
    world.cluster.narrow(Narrow::Underlay, HOP)?;
    Ok(world)
}

#[test]
fn large_datagrams_in_pieces_arrive_whole_on_every_path() -> Result<()> {
    if !ready("large datagrams") {
        return Ok(());
    }
    let world = World::start(Plan::nodes(2))?;
    for (way, from, to) in world.paths() {
        for size in [1400, 1460, 4000, 30_000, 60_000] {
            let question = "y".repeat(size);
            // Who sends a datagram of more than the path carries whole is told once, as on any other
            // path; from then on its own kernel cuts them.
            let answer = match ask_udp(from, to, &question) {
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    ask_udp(from, to, &question)
                }
                answer => answer,
            };
            let answer = answer.with_context(|| format!("{way:?} {to} {size}"))?;
            assert!(answer.ends_with(&question), "{way:?} {to} {size}");
        }
    }
    Ok(())
}
