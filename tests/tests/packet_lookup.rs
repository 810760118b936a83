//! The model and the real programs over the same tables: every packet must meet what the model says.
//!
//! A disagreement names both; which is guilty is for a reader to say.

use std::net::Ipv4Addr;

use anyhow::Result;
use orchestrator::datapath::desired::Facts;
use orchestrator::datapath::fake::Fake;
use orchestrator::datapath::lookup::{Outcome, from_container, from_netdev};
use orchestrator::datapath::reconcile::Reconciler;
use orchestrator::datapath::table::Tables;
use orchestrator::datapath::view::{PortView, Protocol};
use orchestrator::datapath::{Change, LocalPod, NodeView, ObjectKey, ServiceView, SliceView};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Family;
use orchestrator_common::{Addr, Mac, Port, Prefix, Proto, Tuple, Verdict};
use tests::netns::ready_endpoint;
use tests::packet::{Flags, echo, tcp, udp};
use tests::prog::{Datapath, LOOPBACK, Ran, can_load};

/// Every address that means something to the tables, and some that do not.
const ADDRESSES: [&str; 20] = [
    "10.100.1.1",   // the node in the overlay
    "172.31.0.11",  // the node outside
    "10.100.1.5",   // the pod behind LOOPBACK: the sender of most packets
    "10.100.1.6",   // another pod here
    "10.100.1.99",  // nobody here
    "10.100.2.5",   // a pod there
    "10.100.2.1",   // that node
    "10.100.77.1",  // no node
    "10.96.0.10",   // a Service with pods here and there
    "10.96.0.11",   // without endpoints
    "10.96.0.12",   // whose only endpoint is the sender
    "10.96.0.13",   // whose endpoint is outside
    "10.96.0.99",   // no Service
    "172.31.0.12",  // another node
    "172.31.0.250", // a neighbour
    "192.0.2.1",    // far away
    "224.0.0.1",
    "255.255.255.255",
    "127.0.0.1",
    "0.0.0.0",
];
const PORTS: [u16; 3] = [80, 53, 8080];

#[test]
fn from_container_does_what_the_model_says() -> Result<()> {
    if !can_load("from_container_does_what_the_model_says") {
        return Ok(());
    }
    let tables = tables()?;
    let mut datapath = loaded(&tables)?;
    let mut met = 0;
    for from in [
        "10.100.1.5",
        "10.100.1.6",
        "10.100.2.5",
        "10.100.1.1",
        "192.0.2.1",
    ] {
        for to in ADDRESSES {
            for (tuple, frame) in packets(from, to) {
                let expected = from_container(&tables, LOOPBACK, &tuple);
                // Services pick by chance: often enough to meet every pick.
                for _ in 0..4 {
                    let ran = datapath.run(Hook::FromContainer, LOOPBACK, &frame)?;
                    let seen = outcome(&ran, &tuple);
                    let agreed = expected.contains(&seen);
                    assert!(agreed, "{tuple}: {seen:?}, the model says {expected:?}");
                    met += 1;
                }
            }
        }
    }
    assert!(met > 1000, "{met}");
    Ok(())
}

#[test]
fn from_netdev_does_what_the_model_says() -> Result<()> {
    if !can_load("from_netdev_does_what_the_model_says") {
        return Ok(());
    }
    let tables = tables()?;
    let mut datapath = loaded(&tables)?;
    for from in ADDRESSES {
        for to in ADDRESSES {
            for (tuple, frame) in packets(from, to) {
                let expected = from_netdev(&tables, &tuple);
                let ran = datapath.run(Hook::FromNetdev, LOOPBACK, &frame)?;
                let seen = outcome(&ran, &tuple);
                assert!(
                    expected == seen,
                    "{tuple}: {seen:?}, the model says {expected:?}"
                );
            }
        }
    }
    Ok(())
}

/// What a run did, in the model's words. The addressee is read from the bytes that left.
fn outcome(ran: &Ran, sent: &Tuple) -> Outcome {
    let trace = &ran.trace;
    let to = addressee(&ran.packet, sent);
    match trace.verdict {
        Verdict::Drop => Outcome::Drop(trace.reason),
        Verdict::Refuse => Outcome::Refuse(trace.reason),
        Verdict::Pass => Outcome::Pass,
        Verdict::Outside => Outcome::Outside { to },
        Verdict::Overlay => Outcome::Tunnel {
            vtep: Ipv4Addr::from(trace.vtep).into(),
            to,
        },
        verdict => Outcome::Local {
            verdict,
            ifindex: trace.target,
            to,
        },
    }
}

fn addressee(frame: &[u8], sent: &Tuple) -> (Addr, Port) {
    let dst = Ipv4Addr::new(frame[30], frame[31], frame[32], frame[33]);
    let port = match sent.proto {
        Proto::ICMP => sent.dst_port,
        _ => Port::new(u16::from_be_bytes([frame[36], frame[37]])),
    };
    (dst.into(), port)
}

fn packets(from: &str, to: &str) -> Vec<(Tuple, Vec<u8>)> {
    let tuple = |proto, src_port, dst_port| Tuple {
        src: ip(from).into(),
        dst: ip(to).into(),
        src_port: Port::new(src_port),
        dst_port: Port::new(dst_port),
        proto,
        ..Tuple::default()
    };
    let mut packets = vec![(tuple(Proto::ICMP, 7, 0), echo(from, to, 7, false))];
    for port in PORTS {
        let syn = tcp((from, 40000), (to, port), Flags::Syn, b"");
        packets.push((tuple(Proto::TCP, 40000, port), syn));
        packets.push((
            tuple(Proto::UDP, 40001, port),
            udp((from, 40001), (to, port), b"x"),
        ));
    }
    packets
}

fn loaded(tables: &Tables) -> Result<Datapath> {
    let mut datapath = Datapath::load()?;
    for config in tables.config.values() {
        datapath.set_config(config)?;
    }
    tables
        .endpoints
        .iter()
        .try_for_each(|(k, v)| datapath.put("endpoints_v1", *k, *v))?;
    tables
        .nodes
        .iter()
        .try_for_each(|(k, v)| datapath.put("nodes_v1", *k, *v))?;
    tables
        .backends
        .iter()
        .try_for_each(|(k, v)| datapath.put("backends_v1", *k, *v))?;
    tables
        .services
        .iter()
        .try_for_each(|(k, v)| datapath.put("services_v1", *k, *v))?;
    Ok(datapath)
}

/// A node with two pods, the first behind LOOPBACK, another node, and Services of every kind.
fn tables() -> Result<Tables> {
    let mut world = Reconciler::start(Fake::default(), facts())?;
    for (serial, ifindex, addr) in [(1, LOOPBACK, "10.100.1.5"), (2, 12, "10.100.1.6")] {
        let pod = LocalPod {
            addrs: ip(addr).into(),
            ifindex,
            ifname: format!("orch{serial}"),
            mac: [2, 0, 0, 0, 1, serial],
            host_mac: [2, 0, 0, 0, 2, serial],
            netns_cookie: 100 + u64::from(serial),
            host_network: false,
        };
        world.change(Change::Pod(format!("pod-{serial}"), Some(pod)))?;
    }
    let pod_cidrs = vec!["10.100.2.0/24".parse()?];
    let node = NodeView::new(pod_cidrs, ip("172.31.0.12"));
    world.change(Change::Node("node-2".into(), Some(node)))?;
    for (octet, endpoints) in [
        (10, vec!["10.100.1.6", "10.100.2.5"]),
        (11, vec![]),
        (12, vec!["10.100.1.5"]),
        (13, vec!["192.0.2.1"]),
    ] {
        service(octet, &endpoints)
            .into_iter()
            .try_for_each(|change| world.change(change))?;
    }
    world.in_sync()?;
    Ok(world.actual().clone())
}

fn service(octet: u8, endpoints: &[&str]) -> [Change; 2] {
    let key = ObjectKey::new("default", format!("service-{octet}"));
    let listed = |http, dns| {
        vec![
            PortView::new("http", http, Protocol::Tcp),
            PortView::new("dns", dns, Protocol::Udp),
        ]
    };
    let addr = Ipv4Addr::new(10, 96, 0, octet).into();
    let view = ServiceView::cluster_ip(&[addr], listed(80, 53));
    let ready = endpoints.iter().map(|addr| ready_endpoint(ip(addr)));
    let slice = SliceView::new(key.name.clone(), listed(8080, 5353), ready.collect());
    [
        Change::Service(key.clone(), Some(view)),
        Change::Slice(key, Some(slice)),
    ]
}

fn facts() -> Facts {
    Facts {
        name: "node-1".into(),
        v4: Family {
            node: ip("172.31.0.11").into(),
            gateway: ip("10.100.1.1").into(),
            translation: ip("10.100.1.0").into(),
            pods: Prefix::new(ip("10.100.0.0").into(), 16),
            services: Prefix::new(ip("10.96.0.0").into(), 16),
            node_mask: Addr::v4_mask(24),
        },
        v6: Family::NONE,
        underlay: ip("172.31.0.11").into(),
        uplink: 1,
        overlay: 1,
        host: 5,
        host_mac: Mac::new([2, 0, 0, 0, 0, 1]),
        net_mac: Mac::new([2, 0, 0, 0, 0, 2]),
        uplink_mac: Mac::new([2, 0, 0, 0, 0, 3]),
        vni: 1,
        vxlan_port: Port::new(4789),
        mtu: 1450,
        netns_cookie: 1,
        dsr: false,
    }
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("a literal")
}
