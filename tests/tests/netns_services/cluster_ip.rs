//! A Service's own address, from pods and nodes.

use anyhow::{Context, Result};
use tests::netns::{Ep, Svc};
use tests::peer::{Client, ask_tcp, ask_udp, receive, refused_tcp, refused_udp, spread, udp_at};

use crate::pair::{BESIDE, CLIENT, FAR, Families, OTHER, TARGET, families, pair};

families! {
    basic_endpoints: cluster_ip_serves_basic_endpoints
        cluster_ip_serves_basic_endpoints_v6 cluster_ip_serves_basic_endpoints_dual;
    several_ports: cluster_ip_serves_several_ports
        cluster_ip_serves_several_ports_v6 cluster_ip_serves_several_ports_dual;
    same_port: same_port_number_for_tcp_and_udp
        same_port_number_for_tcp_and_udp_v6 same_port_number_for_tcp_and_udp_dual;
    source_preserved: source_pod_address_is_preserved_through_cluster_ip
        source_pod_address_is_preserved_through_cluster_ip_v6
        source_pod_address_is_preserved_through_cluster_ip_dual;
    itself: pod_reaches_itself_through_its_service
        pod_reaches_itself_through_its_service_v6 pod_reaches_itself_through_its_service_dual;
    from_pod: pod_to_service_http_and_udp
        pod_to_service_http_and_udp_v6 pod_to_service_http_and_udp_dual;
    from_node: node_to_service_http_and_udp
        node_to_service_http_and_udp_v6 node_to_service_http_and_udp_dual;
    from_endpoint: endpoint_to_its_service_http_and_udp
        endpoint_to_its_service_http_and_udp_v6 endpoint_to_its_service_http_and_udp_dual;
    large: requests_and_replies_of_64_kib_and_1_mib
        requests_and_replies_of_64_kib_and_1_mib_v6 requests_and_replies_of_64_kib_and_1_mib_dual;
}

/// Every endpoint answers, and no other; an endpoint that goes answers no more.
fn basic_endpoints(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    let web = families.svc("web", 10).port(80, TARGET);
    for (eps, names) in [
        (vec![], vec![]),
        (vec![FAR], vec!["far"]),
        (vec![FAR, BESIDE], vec!["beside", "far"]),
        (vec![BESIDE], vec!["beside"]),
        (vec![], vec![]),
    ] {
        let endpoints: Vec<Ep> = eps.iter().map(|who| pair.ep(*who)).collect();
        pair.cluster.apply(&web.clone().to(endpoints))?;
        for ip in web.each_ip() {
            if names.is_empty() {
                refused_tcp(pair.pod(CLIENT), (ip, 80))?;
                continue;
            }
            let answered = spread(pair.pod(CLIENT), (ip, 80), 24)?;
            assert!(
                answered.keys().eq(names.iter()),
                "{answered:?}, not {names:?}"
            );
        }
    }
    Ok(())
}

fn several_ports(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    pair.serve(FAR, "second", 8081)?;
    let web = families.svc("web", 10).port(80, TARGET).port(81, 8081);
    pair.cluster.apply(&web.clone().to([pair.ep(FAR)]))?;
    for ip in web.each_ip() {
        assert_eq!(ask_tcp(pair.pod(CLIENT), (ip, 80), "x")?, "far x");
        assert_eq!(ask_tcp(pair.pod(CLIENT), (ip, 81), "x")?, "second x");
        refused_tcp(pair.pod(CLIENT), (ip, 82))?;
    }
    Ok(())
}

fn same_port(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    pair.serve(FAR, "datagrams", 8081)?;
    let dns = families.svc("dns", 10).port(53, TARGET).udp(53, 8081);
    pair.cluster.apply(&dns.clone().to([pair.ep(FAR)]))?;
    for ip in dns.each_ip() {
        assert_eq!(ask_tcp(pair.pod(CLIENT), (ip, 53), "x")?, "far x");
        assert_eq!(ask_udp(pair.pod(CLIENT), (ip, 53), "x")?, "datagrams x");
    }
    Ok(())
}

fn source_preserved(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    let web = families.svc("web", 10).port(80, TARGET).udp(80, TARGET);
    for (who, name) in [(FAR, "far"), (BESIDE, "beside")] {
        pair.cluster.apply(&web.clone().to([pair.ep(who)]))?;
        for ip in web.each_ip() {
            ask_tcp(pair.pod(CLIENT), (ip, 80), "x")?;
            ask_udp(pair.pod(CLIENT), (ip, 80), "x")?;
            let client = pair.addr_like(CLIENT, ip);
            let like = |seen: &std::net::IpAddr| seen.is_ipv4() == ip.is_ipv4();
            let seen: Vec<_> = pair.seen_by(name).into_iter().filter(like).collect();
            assert_eq!(seen, [client, client], "{name}");
        }
    }
    Ok(())
}

/// Both transports, from a pod that is the only endpoint.
fn itself(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    let web = families.svc("web", 10).port(80, TARGET).udp(80, TARGET);
    pair.cluster.apply(&web.clone().to([pair.ep(CLIENT)]))?;
    for ip in web.each_ip() {
        assert_eq!(ask_tcp(pair.pod(CLIENT), (ip, 80), "x")?, "client x");
        assert_eq!(ask_udp(pair.pod(CLIENT), (ip, 80), "x")?, "client x");
    }
    Ok(())
}

fn from_pod(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    let web = families.svc("web", 10).port(80, TARGET).udp(80, TARGET);
    let endpoints = [BESIDE, FAR, OTHER].map(|who| pair.ep(who));
    pair.cluster.apply(&web.clone().to(endpoints))?;
    for ip in web.each_ip() {
        assert_eq!(spread(pair.pod(CLIENT), (ip, 80), 48)?.len(), 3);
        let mut answered = std::collections::BTreeSet::new();
        for _ in 0..48 {
            answered.insert(ask_udp(pair.pod(CLIENT), (ip, 80), "x")?);
        }
        assert_eq!(answered.len(), 3, "{answered:?}");
    }
    Ok(())
}

fn from_node(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    let web = families.svc("web", 10).port(80, TARGET).udp(80, TARGET);
    for (who, name) in [(FAR, "far x"), (BESIDE, "beside x")] {
        pair.cluster.apply(&web.clone().to([pair.ep(who)]))?;
        for ip in web.each_ip() {
            assert_eq!(ask_tcp(pair.node(0), (ip, 80), "x")?, name);
            assert_eq!(ask_udp(pair.node(0), (ip, 80), "x")?, name);
        }
    }
    Ok(())
}

/// An endpoint among others: it reaches all of them, itself included.
fn from_endpoint(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    let web = families.svc("web", 10).port(80, TARGET).udp(80, TARGET);
    pair.cluster
        .apply(&web.clone().to([pair.ep(CLIENT), pair.ep(FAR)]))?;
    for ip in web.each_ip() {
        assert_eq!(spread(pair.pod(CLIENT), (ip, 80), 32)?.len(), 2);
        let mut answered = std::collections::BTreeSet::new();
        for _ in 0..32 {
            answered.insert(ask_udp(pair.pod(CLIENT), (ip, 80), "x")?);
        }
        assert_eq!(answered.len(), 2, "{answered:?}");
    }
    Ok(())
}

/// A line of 1 MiB by TCP, a datagram as large as UDP allows: in pieces, through the overlay.
fn large(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    let web = families.svc("web", 10).port(80, TARGET).udp(80, TARGET);
    for (who, name) in [(FAR, "far"), (BESIDE, "beside")] {
        pair.cluster.apply(&web.clone().to([pair.ep(who)]))?;
        for ip in web.each_ip() {
            for bytes in [64 << 10, 1 << 20] {
                let line = "x".repeat(bytes);
                let answer = ask_tcp(pair.pod(CLIENT), (ip, 80), &line)?;
                assert!(answer == format!("{name} {line}"), "{bytes} bytes differ");
            }
            // The answer is longer by the name, and both must fit a datagram.
            let question = "y".repeat(65_000);
            let answer = ask_udp(pair.pod(CLIENT), (ip, 80), &question)?;
            assert!(
                answer == format!("{name} {question}"),
                "{} bytes came",
                answer.len()
            );
        }
    }
    Ok(())
}

#[test]
fn services_go_up_and_down_and_up() -> Result<()> {
    let mut pair = pair!("services_go_up_and_down_and_up");
    let first = Svc::new("first", 10).port(80, TARGET);
    let second = Svc::new("second", 11).port(80, TARGET);
    for _ in 0..2 {
        pair.cluster.apply(&first.clone().to([pair.ep(FAR)]))?;
        pair.cluster.apply(&second.clone().to([pair.ep(BESIDE)]))?;
        for (service, name) in [(&first, "far x"), (&second, "beside x")] {
            for ip in service.each_ip() {
                assert_eq!(ask_tcp(pair.pod(CLIENT), (ip, 80), "x")?, name);
            }
        }
        pair.cluster.delete(&first)?;
        for (gone, there) in first.each_ip().zip(second.each_ip()) {
            refused_tcp(pair.pod(CLIENT), (gone, 80))?;
            assert_eq!(ask_tcp(pair.pod(CLIENT), (there, 80), "x")?, "beside x");
        }
        pair.cluster.delete(&second)?;
    }
    Ok(())
}

/// An agent that dies and starts again: connections and flows go on, new ones are made meanwhile.
#[test]
fn service_survives_agent_restart() -> Result<()> {
    let mut pair = pair!("service_survives_agent_restart");
    let web = Svc::new("web", 10).port(80, TARGET).udp(80, TARGET);
    pair.cluster.apply(&web.clone().to([pair.ep(FAR)]))?;
    let mut open = Vec::new();
    for ip in web.each_ip() {
        open.push(Client::connect(pair.pod(CLIENT), (ip, 80))?);
    }
    for node in [0, 1] {
        pair.cluster.nodes[node].kill();
        for ip in web.each_ip() {
            assert_eq!(ask_tcp(pair.pod(CLIENT), (ip, 80), "dead")?, "far dead");
            assert_eq!(ask_udp(pair.pod(CLIENT), (ip, 80), "dead")?, "far dead");
        }
        pair.cluster.restart(node)?;
        for connection in &mut open {
            assert_eq!(connection.ask("still")?, "far still");
        }
        for ip in web.each_ip() {
            assert_eq!(ask_tcp(pair.pod(CLIENT), (ip, 80), "back")?, "far back");
            assert_eq!(ask_udp(pair.pod(CLIENT), (ip, 80), "back")?, "far back");
        }
    }
    Ok(())
}

#[test]
fn several_services_with_one_selector() -> Result<()> {
    let mut pair = pair!("several_services_with_one_selector");
    let services = [10, 11, 12].map(|number| {
        Svc::new(&format!("web-{number}"), number)
            .port(80, TARGET)
            .udp(80, TARGET)
    });
    for service in &services {
        pair.cluster.apply(&service.clone().to([pair.ep(FAR)]))?;
    }
    // One client port for all of them: each answer must come from where it was asked.
    for (ips, port) in [(0, 4004), (1, 4006)] {
        let from: std::net::IpAddr = if ips == 0 {
            pair.cluster.nodes[0].pods[0].addr.into()
        } else {
            pair.cluster.nodes[0].pods[0].v6.into()
        };
        let datagrams = udp_at(pair.pod(CLIENT), (from, port))?;
        let mut connections = Vec::new();
        for service in &services {
            let ip = service.each_ip().nth(ips).expect("both families");
            connections.push(Client::connect_from(
                pair.pod(CLIENT),
                (from, port),
                (ip, 80),
            )?);
            datagrams.send_to(b"x", (ip, 80))?;
            let answer = receive(&datagrams)?;
            assert_eq!(answer, ("far x".into(), (ip, 80).into()));
        }
        for connection in &mut connections {
            assert_eq!(connection.ask("x")?, "far x");
        }
    }
    Ok(())
}

#[test]
fn endpoint_updates_reach_http_and_udp_clients() -> Result<()> {
    let mut pair = pair!("endpoint_updates_reach_http_and_udp_clients");
    let web = Svc::new("web", 10).port(80, TARGET).udp(80, TARGET);
    for (who, name) in [
        (FAR, "far x"),
        (OTHER, "other x"),
        (BESIDE, "beside x"),
        (FAR, "far x"),
    ] {
        pair.cluster.apply(&web.clone().to([pair.ep(who)]))?;
        for ip in web.each_ip() {
            assert_eq!(ask_tcp(pair.pod(CLIENT), (ip, 80), "x")?, name);
            assert_eq!(ask_udp(pair.pod(CLIENT), (ip, 80), "x")?, name);
        }
    }
    Ok(())
}

#[test]
fn service_endpoints_on_the_host_network() -> Result<()> {
    let mut pair = pair!("service_endpoints_on_the_host_network");
    pair.serve_on_node(0, "here", TARGET)?;
    pair.serve_on_node(1, "there", TARGET)?;
    let web = Svc::new("web", 10).port(80, TARGET).udp(80, TARGET);
    for (node, name) in [(0, "here x"), (1, "there x")] {
        let endpoint = pair.cluster.nodes[node].host_ep();
        pair.cluster.apply(&web.clone().to([endpoint]))?;
        for ip in web.each_ip() {
            for asker in [pair.pod(CLIENT), pair.pod(FAR), pair.node(0), pair.node(1)] {
                assert_eq!(ask_tcp(asker, (ip, 80), "x")?, name, "{ip} {}", asker.name);
                let answer = ask_udp(asker, (ip, 80), "x");
                let answer = answer.with_context(|| format!("{ip} from {}", asker.name))?;
                assert_eq!(answer, name, "{ip} {}", asker.name);
            }
        }
    }
    Ok(())
}

/// A pod on the host network is the node: its datagrams are balanced packet by packet.
#[test]
fn host_network_pod_to_service_udp() -> Result<()> {
    let mut pair = pair!("host_network_pod_to_service_udp");
    let dns = Svc::new("dns", 10).udp(53, TARGET);
    pair.cluster.apply(&dns.clone().to([pair.ep(FAR)]))?;
    for ip in dns.each_ip() {
        let any: std::net::SocketAddr = if ip.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0_u16; 8], 0).into()
        };
        let socket = udp_at(pair.node(0), any)?;
        socket.send_to(b"first", (ip, 53))?;
        assert_eq!(receive(&socket)?, ("far first".into(), (ip, 53).into()));
        pair.cluster.apply(&dns.clone().to([pair.ep(BESIDE)]))?;
        socket.send_to(b"second", (ip, 53))?;
        assert_eq!(receive(&socket)?, ("beside second".into(), (ip, 53).into()));
        pair.cluster.apply(&dns.clone().to([pair.ep(FAR)]))?;
    }
    Ok(())
}

#[test]
fn unready_endpoints_are_not_served_otherwise() -> Result<()> {
    let mut pair = pair!("unready_endpoints_are_not_served_otherwise");
    let web = Svc::new("web", 10).port(80, TARGET).udp(80, TARGET);
    pair.cluster
        .apply(&web.clone().to([pair.ep(FAR).unready()]))?;
    for ip in web.each_ip() {
        refused_tcp(pair.pod(CLIENT), (ip, 80))?;
        refused_udp(pair.pod(CLIENT), (ip, 80))?;
    }
    pair.cluster
        .apply(&web.clone().to([pair.ep(FAR).unready(), pair.ep(BESIDE)]))?;
    for ip in web.each_ip() {
        let answered = spread(pair.pod(CLIENT), (ip, 80), 24)?;
        assert!(answered.keys().eq(["beside"]), "{answered:?}");
    }
    Ok(())
}

/// `publishNotReadyAddresses`: the controller marks such endpoints ready, also terminating ones.
#[test]
fn unready_endpoints_are_served_when_published() -> Result<()> {
    let mut pair = pair!("unready_endpoints_are_served_when_published");
    let web = Svc::new("web", 10)
        .port(80, TARGET)
        .spec("publishNotReadyAddresses", serde_json::json!(true));
    let unready = [pair.ep(FAR).unready(), pair.ep(BESIDE).leaving()];
    pair.cluster.apply(&web.clone().to(unready.clone()))?;
    for ip in web.each_ip() {
        refused_tcp(pair.pod(CLIENT), (ip, 80))?;
    }
    pair.cluster
        .apply(&web.clone().to(unready.map(Ep::published)))?;
    for ip in web.each_ip() {
        assert_eq!(spread(pair.pod(CLIENT), (ip, 80), 24)?.len(), 2);
    }
    Ok(())
}

#[test]
fn service_proxy_name_label_hides_the_service() -> Result<()> {
    hidden_by("service_proxy_name_label_hides_the_service", |web| {
        web.label("service.kubernetes.io/service-proxy-name", "another")
    })
}

#[test]
fn headless_label_hides_the_service() -> Result<()> {
    hidden_by("headless_label_hides_the_service", |web| {
        web.label("service.kubernetes.io/headless", "")
    })
}

/// Served, hidden by a label, served again.
fn hidden_by(test: &str, hide: impl Fn(Svc) -> Svc) -> Result<()> {
    let mut pair = pair!(test);
    let web = Svc::new("web", 10).port(80, TARGET).to([pair.ep(FAR)]);
    for hidden in [false, true, false] {
        let now = if hidden {
            hide(web.clone())
        } else {
            web.clone()
        };
        pair.cluster.apply(&now)?;
        for ip in web.each_ip() {
            let answer = ask_tcp(pair.pod(CLIENT), (ip, 80), "x");
            assert_eq!(answer.is_err(), hidden, "{answer:?}");
        }
    }
    Ok(())
}

#[test]
fn endpoints_over_many_slices_and_ports_all_serve() -> Result<()> {
    let mut pair = pair!("endpoints_over_many_slices_and_ports_all_serve");
    pair.serve(FAR, "far-2", 8081)?;
    pair.serve(BESIDE, "beside-2", 8081)?;
    let web = Svc::new("web", 10).port(80, TARGET).port(81, 8081);
    let endpoints = [FAR, BESIDE, OTHER].map(|who| pair.ep(who));
    pair.cluster
        .apply(&web.clone().to(endpoints).per_slice(1))?;
    pair.serve(OTHER, "other-2", 8081)?;
    for ip in web.each_ip() {
        let first = spread(pair.pod(CLIENT), (ip, 80), 48)?;
        assert!(first.keys().eq(["beside", "far", "other"]), "{first:?}");
        let second = spread(pair.pod(CLIENT), (ip, 81), 48)?;
        assert!(
            second.keys().eq(["beside-2", "far-2", "other-2"]),
            "{second:?}"
        );
    }
    Ok(())
}
