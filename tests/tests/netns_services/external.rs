//! Load balancer addresses, external addresses, and who may use them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::netns::Svc;
use tests::peer::{Client, ask_tcp, ask_udp, refused_tcp};

use crate::pair::{BESIDE, CLIENT, FAR, TARGET, outside_like, pair};

/// Long enough for an answer that comes at all.
const SILENCE: Duration = Duration::from_millis(500);

fn addresses() -> [IpAddr; 2] {
    ["192.0.2.10", "2001:db8::10"].map(|addr| addr.parse().expect("an address"))
}

fn route_outside(pair: &crate::pair::Pair, node: usize) -> Result<()> {
    pair.cluster.route_outside("192.0.2.0/24", node)?;
    pair.cluster.route_outside("2001:db8::/64", node)
}

#[test]
fn load_balancer_addresses_serve_outside_pods_and_nodes() -> Result<()> {
    let mut pair = pair!("load_balancer_addresses_serve_outside_pods_and_nodes");
    let mut web = Svc::new("web", 10).port(80, TARGET).udp(80, TARGET);
    for addr in addresses() {
        web = web.load_balancer(addr);
    }
    for (who, name) in [(FAR, "far x"), (BESIDE, "beside x")] {
        pair.cluster.apply(&web.clone().to([pair.ep(who)]))?;
        for via in [0, 1] {
            route_outside(&pair, via)?;
            for addr in addresses() {
                for asker in [pair.outside(), pair.pod(CLIENT), pair.node(0), pair.node(1)] {
                    let asked = || format!("{name}: {addr} from {}", asker.name);
                    let answer = ask_tcp(asker, (addr, 80), "x").with_context(asked)?;
                    assert_eq!(answer, name, "{}", asked());
                    let answer = ask_udp(asker, (addr, 80), "x").with_context(asked)?;
                    assert_eq!(answer, name, "{}", asked());
                }
            }
        }
    }
    Ok(())
}

#[test]
fn external_addresses_serve_outside_and_pods() -> Result<()> {
    let mut pair = pair!("external_addresses_serve_outside_and_pods");
    route_outside(&pair, 0)?;
    let mut web = Svc::new("web", 10).port(80, TARGET);
    for addr in addresses() {
        web = web.external_ip(addr);
    }
    pair.cluster.apply(&web.to([pair.ep(FAR)]))?;
    for addr in addresses() {
        assert_eq!(ask_tcp(pair.outside(), (addr, 80), "x")?, "far x");
        assert_eq!(ask_tcp(pair.pod(CLIENT), (addr, 80), "x")?, "far x");
    }
    Ok(())
}

/// A client on the nodes' own link finds the node that answers for the address by ARP and neighbour
/// solicitation: no route leads there.
#[test]
fn one_node_answers_for_a_load_balancer_address_on_its_link() -> Result<()> {
    let mut pair = pair!("one_node_answers_for_a_load_balancer_address_on_its_link");
    let addrs: [IpAddr; 2] = ["172.31.0.200".parse()?, "fd00:31::200".parse()?];
    let mut web = Svc::new("web", 10).port(80, TARGET);
    for addr in addrs {
        web = web.load_balancer(addr);
    }
    pair.cluster.apply(&web.to([pair.ep(FAR)]))?;
    for addr in addrs {
        assert_eq!(ask_tcp(pair.outside(), (addr, 80), "x")?, "far x", "{addr}");
    }
    Ok(())
}

/// A client that has asked before would go on to send to the node that answered then, for as long as its
/// table says: nobody asks who has an address that is known to be reachable.
#[test]
fn an_address_that_moves_is_told_to_neighbours_that_know_where_it_was() -> Result<()> {
    let mut pair = pair!("an_address_that_moves_is_told_to_neighbours_that_know_where_it_was");
    for family in ["ipv4", "ipv6"] {
        let lasts = format!("{family}/neigh/eth0/base_reachable_time_ms");
        pair.outside().sysctl(&lasts, "3600000")?;
    }
    let addrs: [IpAddr; 2] = ["172.31.0.200".parse()?, "fd00:31::200".parse()?];
    let mut web = Svc::new("web", 10).port(80, TARGET).external_local();
    for addr in addrs {
        web = web.load_balancer(addr);
    }
    let homes = [(FAR, "far x"), (BESIDE, "beside x"), (FAR, "far x")];
    for (home, answer) in homes {
        pair.cluster.apply(&web.clone().to([pair.ep(home)]))?;
        for addr in addrs {
            let mut client = Client::connect_within(pair.outside(), (addr, 80), SILENCE)
                .with_context(|| format!("{addr} at {home:?}"))?;
            assert_eq!(client.ask("x")?, answer, "{addr}");
            let (_, mac) = pair.node(home.0).link("eth0")?;
            let known = pair.outside().neighbour(addr)?;
            assert_eq!(known, Some(mac), "{addr} at {home:?}");
        }
    }
    Ok(())
}

#[test]
fn load_balancer_source_ranges_admit_only_those() -> Result<()> {
    let mut pair = pair!("load_balancer_source_ranges_admit_only_those");
    route_outside(&pair, 0)?;
    for addr in addresses() {
        let plain = Svc::new("web", 10)
            .port(80, TARGET)
            .load_balancer(addr)
            .to([pair.ep(FAR)]);
        let outside = outside_like(addr);
        let whole = if addr.is_ipv4() { 32 } else { 128 };
        let admitted = plain.clone().source_range(&format!("{outside}/{whole}"));
        let other = if addr.is_ipv4() {
            "198.51.100.0/24"
        } else {
            "2001:db8:1::/48"
        };
        let barred = plain.clone().source_range(other);
        for (service, serves) in [(&plain, true), (&barred, false), (&admitted, true)] {
            pair.cluster.apply(service)?;
            let answer = Client::connect_within(pair.outside(), (addr, 80), SILENCE);
            assert_eq!(answer.is_ok(), serves, "{addr}");
            // The ranges are about the load balancer's address only.
            assert_eq!(ask_tcp(pair.pod(CLIENT), (plain.v4(), 80), "x")?, "far x");
        }
    }
    Ok(())
}

/// Nothing from outside gets into a ClusterIP, however it is routed.
#[test]
fn cluster_ips_are_not_served_to_outside() -> Result<()> {
    let mut pair = pair!("cluster_ips_are_not_served_to_outside");
    pair.cluster.route_outside("10.96.0.0/16", 0)?;
    pair.cluster.route_outside("fd00:96::/112", 0)?;
    let web = Svc::new("web", 10).port(80, TARGET).to([pair.ep(BESIDE)]);
    pair.cluster.apply(&web)?;
    for ip in web.each_ip() {
        assert!(Client::connect_within(pair.outside(), (ip, 80), SILENCE).is_err());
    }
    Ok(())
}

#[test]
fn a_load_balancer_without_endpoints_refuses_outside() -> Result<()> {
    let mut pair = pair!("a_load_balancer_without_endpoints_refuses_outside");
    route_outside(&pair, 0)?;
    let mut web = Svc::new("web", 10).port(80, TARGET);
    for addr in addresses() {
        web = web.load_balancer(addr);
    }
    pair.cluster.apply(&web)?;
    for addr in addresses() {
        refused_tcp(pair.outside(), (addr, 80))?;
        refused_tcp(pair.pod(CLIENT), (addr, 80))?;
    }
    Ok(())
}
