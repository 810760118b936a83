//! Node ports: on every node, from outside, from pods and from the nodes themselves.

use std::net::IpAddr;

use anyhow::Result;
use tests::netns::Svc;
use tests::peer::{Client, ask_tcp, ask_udp, refused_tcp, spread};

use crate::pair::{BESIDE, CLIENT, FAR, Families, TARGET, families, outside_like, pair};

const NODE_PORT: u16 = 30080;

families! {
    every_node: node_port_serves_on_every_node
        node_port_serves_on_every_node_v6 node_port_serves_on_every_node_dual;
    datagrams: node_port_serves_udp node_port_serves_udp_v6 node_port_serves_udp_dual;
}

fn every_node(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    let web = families
        .svc("web", 10)
        .port(80, TARGET)
        .node_port(NODE_PORT);
    pair.cluster
        .apply(&web.clone().to([pair.ep(BESIDE), pair.ep(FAR)]))?;
    for node in [0, 1] {
        for addr in pair.node_addrs(node, families) {
            for asker in [pair.outside(), pair.pod(CLIENT), pair.node(0), pair.node(1)] {
                let answered = spread(asker, (addr, NODE_PORT), 24)?;
                let all = answered.keys().eq(["beside", "far"]);
                assert!(all, "{addr} asked by {}: {answered:?}", asker.name);
            }
        }
    }
    Ok(())
}

fn datagrams(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    let dns = families.svc("dns", 10).udp(53, TARGET).node_port(NODE_PORT);
    for (who, name) in [(FAR, "far x"), (BESIDE, "beside x")] {
        pair.cluster.apply(&dns.clone().to([pair.ep(who)]))?;
        for node in [0, 1] {
            for addr in pair.node_addrs(node, families) {
                for asker in [pair.outside(), pair.pod(CLIENT), pair.node(0), pair.node(1)] {
                    let answer = ask_udp(asker, (addr, NODE_PORT), "x");
                    assert_eq!(answer?, name, "{addr} asked by {}", asker.name);
                }
            }
        }
    }
    Ok(())
}

/// The node asks itself under its loopback addresses.
#[test]
fn node_port_serves_the_node_itself_on_loopback() -> Result<()> {
    let mut pair = pair!("node_port_serves_the_node_itself_on_loopback");
    let web = Svc::new("web", 10)
        .port(80, TARGET)
        .node_port(NODE_PORT)
        .udp(80, TARGET)
        .node_port(NODE_PORT);
    pair.cluster.apply(&web.clone().to([pair.ep(FAR)]))?;
    for addr in ["127.0.0.1", "::1"] {
        let addr: IpAddr = addr.parse()?;
        assert_eq!(ask_tcp(pair.node(0), (addr, NODE_PORT), "x")?, "far x");
        assert_eq!(ask_udp(pair.node(0), (addr, NODE_PORT), "x")?, "far x");
    }
    Ok(())
}

#[test]
fn node_port_updates_when_the_service_changes() -> Result<()> {
    let mut pair = pair!("node_port_updates_when_the_service_changes");
    let far = [pair.ep(FAR)];
    let web = |port| {
        Svc::new("web", 10)
            .port(80, TARGET)
            .node_port(port)
            .to(far.clone())
    };
    let addrs = pair.node_addrs(1, Families::Dual);
    for (port, before) in [(30080, 30081), (30081, 30080)] {
        pair.cluster.apply(&web(port))?;
        for addr in &addrs {
            assert_eq!(ask_tcp(pair.outside(), (*addr, port), "x")?, "far x");
            refused_tcp(pair.outside(), (*addr, before))?;
        }
    }
    pair.cluster
        .apply(&Svc::new("web", 10).port(80, TARGET).to(far.clone()))?;
    for addr in &addrs {
        refused_tcp(pair.outside(), (*addr, 30081))?;
    }
    Ok(())
}

/// No socket of the node can take a port away from a Service that has it.
#[test]
fn a_node_port_cannot_be_bound_by_a_process_of_the_node() -> Result<()> {
    let mut pair = pair!("a_node_port_cannot_be_bound_by_a_process_of_the_node");
    let web = Svc::new("web", 10)
        .port(80, TARGET)
        .node_port(NODE_PORT)
        .to([pair.ep(FAR)]);
    let bind = |pair: &crate::pair::Pair, addr: &str, port: u16| {
        let addr: IpAddr = addr.parse().expect("an address");
        pair.node(0)
            .enter(|| std::net::TcpListener::bind((addr, port)).map(drop))
    };
    bind(&pair, "0.0.0.0", NODE_PORT)?;
    pair.cluster.apply(&web)?;
    for addr in ["0.0.0.0", "::", "172.31.0.11"] {
        let refused = bind(&pair, addr, NODE_PORT).expect_err("the port is a Service's");
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse, "{addr}");
        bind(&pair, addr, NODE_PORT + 1)?;
    }
    pair.cluster.delete(&web)?;
    bind(&pair, "0.0.0.0", NODE_PORT)?;
    Ok(())
}

/// 10.96.0.10 → NodePort → LoadBalancer → NodePort → ClusterIP: each serves its addresses and no more.
#[test]
fn type_changes_cluster_ip_to_node_port_to_load_balancer_and_back() -> Result<()> {
    let mut pair = pair!("type_changes_cluster_ip_to_node_port_to_load_balancer_and_back");
    let balanced: IpAddr = "192.0.2.10".parse()?;
    pair.cluster.route_outside("192.0.2.0/24", 0)?;
    let plain = Svc::new("web", 10).port(80, TARGET).to([pair.ep(FAR)]);
    let ported = plain.clone().node_port(NODE_PORT);
    let loaded = ported.clone().load_balancer(balanced);
    let node = pair.node_addrs(0, Families::V4)[0];
    for (service, has_port, has_address) in [
        (&plain, false, false),
        (&ported, true, false),
        (&loaded, true, true),
        (&ported, true, false),
        (&plain, false, false),
    ] {
        pair.cluster.apply(service)?;
        assert_eq!(ask_tcp(pair.pod(CLIENT), (plain.v4(), 80), "x")?, "far x");
        let port = ask_tcp(pair.outside(), (node, NODE_PORT), "x");
        assert_eq!(port.is_ok(), has_port, "{port:?}");
        let wait = std::time::Duration::from_millis(500);
        let address = Client::connect_within(pair.outside(), (balanced, 80), wait);
        assert_eq!(address.is_ok(), has_address);
    }
    Ok(())
}

/// More connections than a node has ephemeral ports of one kind, to one backend on another node: each
/// gets a source port of its own.
#[test]
fn node_port_carries_many_clients_with_equal_ports() -> Result<()> {
    let mut pair = pair!("node_port_carries_many_clients_with_equal_ports");
    let dns = Svc::new("dns", 10).udp(53, TARGET).node_port(NODE_PORT);
    pair.cluster.apply(&dns.clone().to([pair.ep(FAR)]))?;
    let node = pair.node_addrs(0, Families::V4)[0];
    let outside = outside_like(node);
    // The same client port through two node ports and two nodes.
    let other = Svc::new("dns-2", 11)
        .udp(53, TARGET)
        .node_port(NODE_PORT + 1);
    pair.cluster.apply(&other.clone().to([pair.ep(FAR)]))?;
    let socket = tests::peer::udp_at(pair.outside(), (outside, 5000))?;
    for node in [0, 1] {
        let node = pair.node_addrs(node, Families::V4)[0];
        for port in [NODE_PORT, NODE_PORT + 1] {
            socket.send_to(b"x", (node, port))?;
            let answer = tests::peer::receive(&socket)?;
            assert_eq!(answer, ("far x".into(), (node, port).into()));
        }
    }
    Ok(())
}
/// hostPort: the node's address leads to the pod, and each of protocol, port and host address counts.
#[test]
fn host_ports_with_the_same_port_on_different_host_addresses_and_protocols() -> Result<()> {
    let mut pair = pair!("host_ports_with_the_same_port_on_different_host_addresses_and_protocols");
    let addrs = pair.node_addrs(0, Families::Dual);
    let [v4, v6] = [addrs[0], addrs[1]];
    pair.host_port(BESIDE, v4, 4040, false)?;
    pair.host_port(CLIENT, v6, 4040, false)?;
    pair.host_port(CLIENT, v4, 4040, true)?;
    for asker in [pair.outside(), pair.pod(FAR), pair.node(1)] {
        assert_eq!(
            ask_tcp(asker, (v4, 4040), "x")?,
            "beside x",
            "{}",
            asker.name
        );
        assert_eq!(
            ask_tcp(asker, (v6, 4040), "x")?,
            "client x",
            "{}",
            asker.name
        );
        assert_eq!(
            ask_udp(asker, (v4, 4040), "x")?,
            "client x",
            "{}",
            asker.name
        );
    }
    // The node itself: its datagrams pass no device.
    let own = pair.node(0);
    assert_eq!(ask_tcp(own, (v4, 4040), "x")?, "beside x");
    assert_eq!(ask_tcp(own, (v6, 4040), "x")?, "client x");
    assert_eq!(ask_udp(own, (v4, 4040), "x")?, "client x");
    pair.host_port(BESIDE, v6, 4040, true)?;
    assert_eq!(ask_udp(pair.node(0), (v6, 4040), "x")?, "beside x");
    assert_eq!(ask_udp(pair.node(0), (v4, 4040), "x")?, "client x");
    refused_tcp(pair.outside(), (v4, 4041))?;
    Ok(())
}

/// hostPort with the hostIP 127.0.0.1: the node's own sockets reach it, and the loopback of each pod stays its own.
#[test]
fn a_host_port_on_loopback_is_for_the_nodes_own_sockets() -> Result<()> {
    let mut pair = pair!("a_host_port_on_loopback_is_for_the_nodes_own_sockets");
    let loopback = IpAddr::from([127, 0, 0, 1]);
    pair.host_port(BESIDE, loopback, 4042, false)?;
    pair.host_port(BESIDE, loopback, 4042, true)?;
    assert_eq!(ask_tcp(pair.node(0), (loopback, 4042), "x")?, "beside x");
    assert_eq!(ask_udp(pair.node(0), (loopback, 4042), "x")?, "beside x");
    refused_tcp(pair.pod(CLIENT), (loopback, 4042))?;
    refused_tcp(pair.outside(), (pair.node_addrs(0, Families::V4)[0], 4042))?;
    Ok(())
}
