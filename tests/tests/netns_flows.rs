//! What the underlay carries, and how long the datapath remembers.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;
use datapath::view::Protocol::{Tcp, Udp};
use nix::time::{ClockId, clock_gettime};
use tests::capture::{Capture, Packet};
use tests::netns::{Cluster, OUTSIDE, Plan, ready};
use tests::peer::{Client, Server, Sink, receive, udp};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const NODES: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 31, 0, 11), Ipv4Addr::new(172, 31, 0, 12)];

#[test]
fn the_underlay_carries_only_vxlan_between_pods() -> Result<()> {
    if !ready("only_vxlan") {
        return Ok(());
    }
    let mut cluster = Cluster::start(2)?;
    let near = cluster.nodes[0].add_pod(5)?;
    let far = cluster.nodes[1].add_pod(5)?;
    cluster.in_sync()?;
    let _tcp = Server::tcp(&cluster.nodes[1].pods[0].netns, "far", 8080)?;
    let _udp = Server::udp(&cluster.nodes[1].pods[0].netns, "far", 5353)?;
    cluster.service(SERVICE, 80, Tcp, &[(far, 8080)])?;
    cluster.service(SERVICE, 53, Udp, &[(far, 5353)])?;

    let capture = Capture::start(&cluster.underlay)?;
    let pod = &cluster.nodes[0].pods[0].netns;
    for to in [(far, 8080), (SERVICE, 80)] {
        assert_eq!(
            Client::connect(pod, to)?.ask(&"x".repeat(4000))?.len(),
            4004
        );
    }
    let socket = udp(pod)?;
    socket.send_to(b"hello", (SERVICE, 53))?;
    receive(&socket)?;

    let packets = capture.packets()?;
    let mut inner = BTreeSet::new();
    for Packet {
        from,
        to,
        inner: carried,
    } in packets
    {
        assert!(
            NODES.contains(&from) && NODES.contains(&to),
            "{from} -> {to} on the underlay"
        );
        let carried = carried.expect("nothing but VXLAN between nodes");
        inner.insert((carried.from, carried.to));
    }
    assert_eq!(inner, BTreeSet::from([(near, far), (far, near)]));
    Ok(())
}

#[test]
fn a_flow_lives_while_it_is_used_and_both_its_rows_go_together() -> Result<()> {
    if !ready("a_flow_lives") {
        return Ok(());
    }
    let mut cluster = Cluster::start(1)?;
    cluster.nodes[0].add_pod(5)?;
    let backend = cluster.nodes[0].add_pod(6)?;
    cluster.in_sync()?;
    let _server = Server::udp(&cluster.nodes[0].pods[1].netns, "pod", 5353)?;
    let _outside = Server::tcp(&cluster.outside, "outside", 7070)?;
    cluster.service(SERVICE, 53, Udp, &[(backend, 5353)])?;
    let socket = udp(&cluster.nodes[0].pods[0].netns)?;
    let ask = |question: &[u8]| -> Result<()> {
        socket.send_to(question, (SERVICE, 53))?;
        assert_eq!(receive(&socket)?.1, (SERVICE, 53).into());
        Ok(())
    };
    ask(b"one")?;
    let mut masqueraded = Client::connect(&cluster.nodes[0].pods[0].netns, (OUTSIDE, 7070))?;
    masqueraded.ask("one")?;

    let mut sweep = |later: u64| {
        cluster.nodes[0].with(|datapath| datapath.sweep(now()? + Duration::from_secs(later)))
    };
    assert_eq!(sweep(0)?, 0, "nothing is idle");
    assert_eq!(
        sweep(1000)?,
        1,
        "the UDP flow is, an open TCP connection is not"
    );
    assert_eq!(sweep(1000)?, 0, "both rows went");
    ask(b"two")?;
    assert_eq!(masqueraded.ask("two")?, "outside two");
    drop(masqueraded);
    Ok(())
}

#[test]
fn large_transfers_cross_the_overlay_and_leave_the_cluster() -> Result<()> {
    if !ready("large_transfers") {
        return Ok(());
    }
    let mut cluster = Cluster::start(2)?;
    cluster.nodes[0].add_pod(5)?;
    let near = cluster.nodes[0].add_pod(6)?;
    let far = cluster.nodes[1].add_pod(5)?;
    cluster.in_sync()?;
    let pod = &cluster.nodes[0].pods[0].netns;
    for (to, at) in [
        (near, &cluster.nodes[0].pods[1].netns),
        (far, &cluster.nodes[1].pods[0].netns),
        (OUTSIDE, &cluster.outside),
    ] {
        let sink = Sink::start(at, 9000)?;
        let begun = Instant::now();
        sink.fill_from(pod, (to, 9000), 32 << 20)?;
        println!("32 MiB to {to} in {:?}", begun.elapsed());
    }
    Ok(())
}

#[test]
fn a_namespace_that_is_not_the_nodes_is_left_alone() -> Result<()> {
    if !ready("left_alone") {
        return Ok(());
    }
    let mut cluster = Cluster::start(1)?;
    let backend = cluster.nodes[0].add_pod(5)?;
    cluster.in_sync()?;
    let server = Server::tcp(&cluster.nodes[0].pods[0].netns, "pod", 8080)?;
    cluster.service(SERVICE, 80, Tcp, &[(backend, 8080)])?;
    let refused = Client::connect(&cluster.outside, (SERVICE, 80)).err();
    assert_eq!(
        refused.map(|error| error.kind()),
        Some(ErrorKind::NetworkUnreachable)
    );
    assert!(server.heard().is_empty());
    Ok(())
}

#[test]
fn removal_leaves_nothing() -> Result<()> {
    if !ready("removal") {
        return Ok(());
    }
    let mut cluster = Plan::nodes(1).underlay_v6().start()?;
    cluster.nodes[0].add_pod(5)?;
    cluster.in_sync()?;
    let root = cluster.nodes[0].config.pin_root.clone();
    assert_eq!(datapath::nodes(&root)?, ["node-1"]);
    let links = [
        "orch-host",
        "orch-net",
        "orch-vxlan",
        "orch-cut",
        "orch-pieces",
    ];
    for link in links {
        cluster.nodes[0].netns.link(link)?;
    }
    cluster.nodes[0].remove()?;
    assert!(datapath::nodes(&root)?.is_empty());
    for link in links {
        assert!(cluster.nodes[0].netns.link(link).is_err(), "{link} is left");
    }
    // The uplink works as if we had never been there.
    let _server = Server::tcp(&cluster.outside, "outside", 7070)?;
    assert_eq!(
        Client::connect(&cluster.nodes[0].netns, (OUTSIDE, 7070))?.ask("x")?,
        "outside x"
    );
    cluster.nodes[0].open()?;
    Ok(())
}

fn now() -> Result<Duration, datapath::DatapathError> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every kernel has this clock");
    Ok(now.into())
}
