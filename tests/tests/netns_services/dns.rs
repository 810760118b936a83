//! The cluster's DNS: a Service of which every node is its own only endpoint.

use anyhow::Result;
use datapath::view::{EndpointView, PortView, Protocol};
use datapath::{Change, ObjectKey, SliceView};
use tests::netns::{Node, Svc};
use tests::peer::{Server, ask_tcp, ask_udp};

use crate::pair::{CLIENT, FAR, pair};

const PORT: u16 = 53;

/// What the agent says of itself, and a resolver on the node that says whose it is.
fn resolve(node: &mut Node) -> Result<Vec<Server>> {
    let name = node.config.node_name.clone();
    let mut servers = Vec::new();
    for gateway in node.gateways().iter() {
        let key = ObjectKey::new("default", format!("dns (this node), {gateway}"));
        let ports = vec![
            PortView::new("udp-53", PORT, Protocol::Udp),
            PortView::new("tcp-53", PORT, Protocol::Tcp),
        ];
        let endpoint = EndpointView::new(gateway, true, true, false, true);
        let slice = SliceView::new(ObjectKey::new("default", "dns"), ports, vec![endpoint]);
        node.with(|datapath| datapath.change(Change::Slice(key, Some(slice))))?;
        servers.push(Server::udp_at(&node.netns, &name, (gateway, PORT).into())?);
        servers.push(Server::tcp_at(&node.netns, &name, (gateway, PORT).into())?);
    }
    Ok(servers)
}

#[test]
fn a_pod_asks_its_own_nodes_resolver_and_no_other() -> Result<()> {
    let mut pair = pair!("a_pod_asks_its_own_nodes_resolver_and_no_other");
    let dns = Svc::new("dns", 10).udp(53, PORT).port(53, PORT);
    pair.cluster.apply(&dns)?;
    let mut servers = Vec::new();
    for node in &mut pair.cluster.nodes {
        servers.extend(resolve(node)?);
    }
    for addr in dns.each_ip() {
        for (asker, node) in [
            (pair.pod(CLIENT), "node-1 x"),
            (pair.pod(FAR), "node-2 x"),
            (pair.node(0), "node-1 x"),
            (pair.node(1), "node-2 x"),
        ] {
            for _ in 0..8 {
                assert_eq!(ask_udp(asker, (addr, 53), "x")?, node, "{}", asker.name);
                assert_eq!(ask_tcp(asker, (addr, 53), "x")?, node, "{}", asker.name);
            }
        }
    }
    // Each has heard of addresses of its own node only: that is how a resolver knows whom to answer.
    for (servers, node) in servers.chunks(4).zip(&pair.cluster.nodes) {
        let ranges = [node.config.v4, node.config.v6];
        for from in servers.iter().flat_map(Server::heard) {
            let mut ranges = ranges.iter().flatten();
            assert!(
                ranges.any(|range| range.pod_cidr.contains(from.ip())),
                "{from}"
            );
        }
    }
    Ok(())
}
