//! `sessionAffinity: ClientIP`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use tests::netns::{Netns, Plan, Svc};
use tests::peer::{ask_tcp, ask_udp, spread};

use crate::pair::{BESIDE, CLIENT, FAR, Families, OTHER, Pair, TARGET, families, pair};

const NODE_PORT: u16 = 30080;
const HOURS: u32 = 10_800;
/// So many connections meet all of three endpoints, if nothing holds them: a miss is one in 10⁸.
const MANY: usize = 48;

families! {
    on_cluster_ip: session_affinity_on_cluster_ip
        session_affinity_on_cluster_ip_v6 session_affinity_on_cluster_ip_dual;
}

/// From pods and nodes, through the socket programs and packet by packet.
fn on_cluster_ip(test: &str, families: Families) -> Result<()> {
    for plan in [Plan::nodes(2), Plan::nodes(2).per_packet()] {
        let Some(mut pair) = Pair::start_as(test, plan)? else {
            return Ok(());
        };
        let web = three(
            &pair,
            families.svc("web", 10).port(80, TARGET).affinity(HOURS),
        );
        pair.cluster.apply(&web)?;
        for ip in web.each_ip() {
            for asker in [pair.pod(CLIENT), pair.pod(FAR), pair.node(1)] {
                assert_eq!(kept(asker, ip, 80)?, 1, "{ip} {}", asker.name);
            }
        }
    }
    Ok(())
}

#[test]
fn session_affinity_timeout_on_cluster_ip() -> Result<()> {
    let mut pair = pair!("session_affinity_timeout_on_cluster_ip");
    let web = three(&pair, Svc::new("web", 10).port(80, TARGET).affinity(1));
    pair.cluster.apply(&web)?;
    for ip in web.each_ip() {
        forgets(pair.pod(CLIENT), ip, 80)?;
    }
    Ok(())
}

#[test]
fn session_affinity_can_be_switched_on_cluster_ip() -> Result<()> {
    let mut pair = pair!("session_affinity_can_be_switched_on_cluster_ip");
    let web = three(&pair, Svc::new("web", 10).port(80, TARGET));
    switched(
        &mut pair,
        &web,
        &[(CLIENT, web.v4(), 80), (CLIENT, web.v6(), 80)],
    )
}

#[test]
fn session_affinity_on_node_port() -> Result<()> {
    let mut pair = pair!("session_affinity_on_node_port");
    let web = Svc::new("web", 10).port(80, TARGET).node_port(NODE_PORT);
    pair.cluster.apply(&three(&pair, web.affinity(HOURS)))?;
    for node in [0, 1] {
        for addr in pair.node_addrs(node, Families::Dual) {
            for asker in [pair.outside(), pair.pod(CLIENT)] {
                assert_eq!(kept(asker, addr, NODE_PORT)?, 1, "{addr} {}", asker.name);
            }
        }
    }
    Ok(())
}

#[test]
fn session_affinity_timeout_on_node_port() -> Result<()> {
    let mut pair = pair!("session_affinity_timeout_on_node_port");
    let web = Svc::new("web", 10).port(80, TARGET).node_port(NODE_PORT);
    pair.cluster.apply(&three(&pair, web.affinity(1)))?;
    for addr in pair.node_addrs(0, Families::Dual) {
        forgets(pair.outside(), addr, NODE_PORT)?;
    }
    Ok(())
}

#[test]
fn session_affinity_can_be_switched_on_node_port() -> Result<()> {
    let mut pair = pair!("session_affinity_can_be_switched_on_node_port");
    let web = three(
        &pair,
        Svc::new("web", 10).port(80, TARGET).node_port(NODE_PORT),
    );
    let addrs = pair.node_addrs(0, Families::Dual);
    let places: Vec<_> = addrs
        .iter()
        .map(|addr| (CLIENT, *addr, NODE_PORT))
        .collect();
    switched(&mut pair, &web, &places)
}

#[test]
fn session_affinity_on_load_balancer_local_and_cluster() -> Result<()> {
    let mut pair = pair!("session_affinity_on_load_balancer_local_and_cluster");
    let addr: IpAddr = "192.0.2.10".parse()?;
    pair.cluster.route_outside("192.0.2.0/24", 1)?;
    let web = Svc::new("web", 10)
        .port(80, TARGET)
        .load_balancer(addr)
        .affinity(HOURS);
    let web = three(&pair, web);
    for (service, free) in [(web.clone(), 3), (web.external_local(), 2)] {
        pair.cluster.apply(&service)?;
        assert_eq!(kept(pair.outside(), addr, 80)?, 1);
        // Without affinity it would not be one: what the policy leaves answers.
        let spec = serde_json::json!("None");
        pair.cluster.apply(&service.spec("sessionAffinity", spec))?;
        assert_eq!(kept(pair.outside(), addr, 80)?, free);
    }
    Ok(())
}

#[test]
fn session_affinity_for_udp() -> Result<()> {
    let mut pair = pair!("session_affinity_for_udp");
    let dns = three(&pair, Svc::new("dns", 10).udp(53, TARGET).affinity(HOURS));
    pair.cluster.apply(&dns)?;
    for ip in dns.each_ip() {
        for asker in [pair.pod(CLIENT), pair.node(0)] {
            let first = ask_udp(asker, (ip, 53), "x")?;
            for _ in 0..MANY {
                assert_eq!(ask_udp(asker, (ip, 53), "x")?, first, "{ip} {}", asker.name);
            }
        }
    }
    Ok(())
}

#[test]
fn session_affinity_skips_terminating_backends() -> Result<()> {
    let mut pair = pair!("session_affinity_skips_terminating_backends");
    let web = Svc::new("web", 10).port(80, TARGET).affinity(HOURS);
    for ip in web.each_ip() {
        pair.cluster.apply(&web.clone().to([pair.ep(FAR)]))?;
        assert_eq!(ask_tcp(pair.pod(CLIENT), (ip, 80), "x")?, "far x");
        let leaving = pair.ep(FAR).terminating();
        pair.cluster
            .apply(&web.clone().to([leaving, pair.ep(BESIDE)]))?;
        for _ in 0..16 {
            assert_eq!(ask_tcp(pair.pod(CLIENT), (ip, 80), "x")?, "beside x");
        }
    }
    Ok(())
}

fn three(pair: &Pair, service: Svc) -> Svc {
    service.to([BESIDE, FAR, OTHER].map(|who| pair.ep(who)))
}

/// How many endpoints answer many connections.
fn kept(asker: &Netns, addr: IpAddr, port: u16) -> Result<usize> {
    Ok(spread(asker, (addr, port), MANY)?.len())
}

/// With a timeout of a second: held at first, and free after a pause of more than that.
fn forgets(asker: &Netns, addr: IpAddr, port: u16) -> Result<()> {
    let first = ask_tcp(asker, (addr, port), "x")?;
    let begun = Instant::now();
    let again = ask_tcp(asker, (addr, port), "x")?;
    assert!(
        again == first || begun.elapsed() > Duration::from_millis(900),
        "{addr}"
    );
    // The clock itself is the condition: the timeout must pass without a connection.
    let mut others = 0;
    for _ in 0..24 {
        let quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(1100) {
            std::thread::park_timeout(Duration::from_millis(1100));
        }
        others += usize::from(ask_tcp(asker, (addr, port), "x")? != first);
        if others > 0 {
            return Ok(());
        }
    }
    anyhow::bail!("{addr}: always {first}")
}

/// Free, held, and free again.
fn switched(pair: &mut Pair, web: &Svc, places: &[(crate::pair::Who, IpAddr, u16)]) -> Result<()> {
    for (affinity, wanted) in [(false, 3), (true, 1), (false, 3)] {
        let web = if affinity {
            web.clone().affinity(HOURS)
        } else {
            web.clone()
        };
        pair.cluster.apply(&web)?;
        for (who, addr, port) in places {
            assert_eq!(kept(pair.pod(*who), *addr, *port)?, wanted, "{addr}");
        }
    }
    Ok(())
}
