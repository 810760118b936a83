//! Large packets, on every path: over a hop that takes only 1,280 bytes, larger than the overlay
//! carries, and datagrams in pieces.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use tests::cluster::wait;
use tests::netns::{Cluster, Narrow, Netns, OUTSIDE, OUTSIDE_V6, Plan, Svc, ready};
use tests::peer::{Client, Server, ask_udp, udp_for};

const HOP: u16 = 1280;
/// Pods' IPv6 takes 1,280 bytes inside, whatever they are told.
const HOP_OF_IPV6: u16 = 1400;
const NODE_PORT: u16 = 30_080;

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

    /// From the pod to the Service and to outside, and from outside to the node port, each in both
    /// families.
    fn paths(&self) -> Vec<(&'static str, &Netns, SocketAddr)> {
        let (node, outside) = (&self.cluster.nodes[0], &self.cluster.outside);
        let both = |v4: IpAddr, v6: IpAddr, port| [v4, v6].map(|ip| SocketAddr::new(ip, port));
        let services = both(self.web.v4(), self.web.v6(), 80);
        let away = both(OUTSIDE.into(), OUTSIDE_V6.into(), 8080);
        let ports = both(node.v4(), node.v6(), NODE_PORT);
        let named = |name, from, to: [SocketAddr; 2]| to.map(|to| (name, from, to));
        [
            named("Service", self.pod(), services),
            named("outside", self.pod(), away),
            named("node port", outside, ports),
        ]
        .concat()
    }

    /// Sends and gets much in one piece over every path; TCP has to find out what fits.
    fn streams_arrive(&self) -> Result<()> {
        self.streams_arrive_at(|_| true)
    }

    fn streams_arrive_at(&self, wanted: impl Fn(SocketAddr) -> bool) -> Result<()> {
        for (name, from, to) in self.paths().into_iter().filter(|(_, _, to)| wanted(*to)) {
            let question = "x".repeat(200_000);
            let mut client = Client::connect(from, to).with_context(|| format!("{name} {to}"))?;
            let answer = client.ask(&question);
            let answer = answer.with_context(|| format!("{name} {to}"))?;
            assert!(answer.ends_with(&question), "{name} {to}");
        }
        Ok(())
    }
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
fn streams_cross_a_narrow_hop_between_nodes_and_outside() -> Result<()> {
    if !ready("narrow outside") {
        return Ok(());
    }
    let mut world = World::start(Plan::nodes(2))?;
    world.cluster.narrow(Narrow::Outside, HOP)?;
    world.streams_arrive()
}

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
fn streams_that_are_answered_directly_cross_a_narrow_hop_to_outside() -> Result<()> {
    if !ready("narrow outside, direct return") {
        return Ok(());
    }
    let mut world = World::start(Plan::nodes(2))?;
    for index in 0..2 {
        world.cluster.nodes[index].config.dsr = true;
        world.cluster.restart(index)?;
    }
    world.cluster.narrow(Narrow::Outside, HOP)?;
    world.streams_arrive()
}

#[test]
fn streams_cross_a_narrow_hop_of_an_ipv6_underlay() -> Result<()> {
    if !ready("narrow IPv6 underlay") {
        return Ok(());
    }
    let mut world = World::start(Plan::nodes(2).underlay_v6())?;
    world.cluster.narrow(Narrow::Underlay, HOP_OF_IPV6)?;
    world.streams_arrive()
}

#[test]
fn on_the_narrowest_ipv6_underlay_ipv4_streams_and_ipv6_is_told_in_vain() -> Result<()> {
    if !ready("narrowest IPv6 underlay") {
        return Ok(());
    }
    let mut world = World::start(Plan::nodes(2).underlay_v6())?;
    world.cluster.narrow(Narrow::Underlay, HOP)?;
    world.streams_arrive_at(|to| to.is_ipv4())?;
    // The smallest that an IPv6 host has to be able to send is too large here. It is not lost unseen.
    let far = world.cluster.nodes[1].pods[0].v6;
    let node = &world.cluster.nodes[0];
    let before = node.counted("too_big")?;
    let socket = udp_for(world.pod(), far.into())?;
    wait("IPv6 was dropped with its reason", || {
        // Of 1,280 bytes.
        let sent = socket.send_to(&[7; 1280 - 48], (far, 8080));
        assert!(sent.is_ok(), "nobody has to send less: {sent:?}");
        Ok((node.counted("too_big")? > before + 1).then_some(()))
    });
    Ok(())
}

#[test]
fn large_datagrams_in_pieces_arrive_whole_on_every_path() -> Result<()> {
    if !ready("large datagrams") {
        return Ok(());
    }
    let world = World::start(Plan::nodes(2))?;
    for (name, from, to) in world.paths() {
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
            let answer = answer.with_context(|| format!("{name} {to} {size}"))?;
            assert!(answer.ends_with(&question), "{name} {to} {size}");
        }
    }
    Ok(())
}
