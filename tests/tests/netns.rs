//! The attached programs under real sockets: two nodes, their pods, and a client outside.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use datapath::events::describe;
use datapath::maps::Maps;
use datapath::meter::Reading;
use datapath::trace::{self, Question};
use datapath::view::Protocol::{Tcp, Udp};
use datapath::view::{ExternalView, PortView};
use datapath::{Change, ObjectKey, ServiceView};
use orchestrator_common::Proto;
use orchestrator_common::maps::flows::REPLIERS;
use tests::netns::{Cluster, Ep, Netns, OUTSIDE, Svc, ready};
use tests::peer::{Client, Server, ask_udp, receive, udp};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

#[test]
fn tcp_to_a_service_reaches_a_pod_on_another_node() -> Result<()> {
    let Some(two) = Two::start("tcp_to_a_service")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    let server = Server::tcp(&cluster.nodes[1].pods[0].netns, "far", 8080)?;
    cluster.service(SERVICE, 80, Tcp, &[(two.far, 8080)])?;
    let mut client = Client::connect(&cluster.nodes[0].pods[0].netns, at(SERVICE, 80))?;
    assert_eq!(client.ask("hello")?, "far hello");
    assert_eq!(
        client.peer()?,
        at(SERVICE, 80),
        "getpeername shows the Service"
    );
    assert_eq!(server.heard()[0].ip(), two.near, "no address is hidden");
    Ok(())
}

#[test]
fn connections_spread_over_all_endpoints() -> Result<()> {
    let Some(two) = Two::start("connections_spread")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    let _near = Server::tcp(&cluster.nodes[0].pods[1].netns, "near", 8080)?;
    let _far = Server::tcp(&cluster.nodes[1].pods[0].netns, "far", 8080)?;
    cluster.service(SERVICE, 80, Tcp, &[(two.neighbour, 8080), (two.far, 8080)])?;
    let mut counts = [0, 0];
    for _ in 0..64 {
        let mut client = Client::connect(&cluster.nodes[0].pods[0].netns, at(SERVICE, 80))?;
        counts[usize::from(client.ask("x")?.starts_with("far"))] += 1;
    }
    assert!(counts.iter().all(|count| *count > 8), "{counts:?}");
    Ok(())
}

#[test]
fn udp_replies_come_from_the_service() -> Result<()> {
    let Some(two) = Two::start("udp_replies")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    let _server = Server::udp(&cluster.nodes[1].pods[0].netns, "far", 5353)?;
    cluster.service(SERVICE, 53, Udp, &[(two.far, 5353)])?;
    for from in [&cluster.nodes[0].pods[0].netns, &cluster.nodes[0].netns] {
        let unconnected = udp(from)?;
        unconnected.send_to(b"one", at(SERVICE, 53))?;
        assert_eq!(
            receive(&unconnected)?,
            ("far one".into(), at(SERVICE, 53)),
            "{}",
            from.name
        );
        let connected = udp(from)?;
        connected.connect(at(SERVICE, 53))?;
        for question in ["two", "three"] {
            connected.send(question.as_bytes())?;
            assert_eq!(
                receive(&connected)?.0,
                format!("far {question}"),
                "{}",
                from.name
            );
        }
        assert_eq!(connected.peer_addr()?, at(SERVICE, 53));
    }
    Ok(())
}

#[test]
fn datagrams_of_a_node_to_a_load_balancers_address_are_balanced() -> Result<()> {
    let Some(two) = Two::start("datagrams_of_a_node")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    let _server = Server::udp(&cluster.nodes[1].pods[0].netns, "far", 5353)?;
    cluster.service(SERVICE, 53, Udp, &[(two.far, 5353)])?;
    let balanced = Ipv4Addr::new(203, 0, 113, 1);
    let key = ObjectKey::new("default", "s10-53-udp");
    let mut view =
        ServiceView::cluster_ip(&[SERVICE.into()], vec![PortView::new("udp-53", 53, Udp)]);
    view.external = Some(Box::new(ExternalView {
        load_balancer_ips: vec![balanced.into()],
        // A node's own address is never led through the programs.
        external_ips: vec![cluster.nodes[1].v4(), Ipv4Addr::new(203, 0, 113, 9).into()],
        ..ExternalView::default()
    }));
    cluster.change(&Change::Service(key.clone(), Some(view)))?;
    let routes = |cluster: &mut Cluster| -> Result<String> {
        let node = &mut cluster.nodes[0];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        node.with(|datapath| runtime.block_on(datapath.follow_routes()))?;
        let name = node.netns.name.clone();
        let mut ip = Command::new("ip");
        let listed = ip.args(["-n", &name, "route", "show", "dev", "orch-host"]);
        Ok(String::from_utf8(listed.output()?.stdout)?)
    };
    let led = routes(&mut cluster)?;
    assert!(
        led.contains("203.0.113.1 ") && led.contains("203.0.113.9 "),
        "{led}"
    );
    assert!(!led.contains("172.31.0."), "{led}");
    let node = udp(&cluster.nodes[0].netns)?;
    node.send_to(b"one", at(balanced, 53))?;
    assert_eq!(receive(&node)?, ("far one".into(), at(balanced, 53)));

    cluster.change(&Change::Service(key, None))?;
    let led = routes(&mut cluster)?;
    assert!(!led.contains("203.0.113."), "{led}");
    assert!(led.contains("10.96.0.0/16"), "{led}");
    Ok(())
}

#[test]
fn udp_follows_when_its_backend_goes() -> Result<()> {
    let Some(two) = Two::start("udp_follows")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    let _near = Server::udp(&cluster.nodes[0].pods[1].netns, "near", 5353)?;
    let _far = Server::udp(&cluster.nodes[1].pods[0].netns, "far", 5353)?;
    cluster.service(SERVICE, 53, Udp, &[(two.far, 5353)])?;
    let connected = udp(&cluster.nodes[0].pods[0].netns)?;
    connected.connect(at(SERVICE, 53))?;
    connected.send(b"one")?;
    assert_eq!(receive(&connected)?.0, "far one");
    cluster.service(SERVICE, 53, Udp, &[(two.neighbour, 5353)])?;
    connected.send(b"two")?;
    assert_eq!(receive(&connected)?.0, "near two");
    Ok(())
}

#[test]
fn a_service_without_endpoints_refuses_at_once() -> Result<()> {
    let Some(two) = Two::start("refuses_at_once")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    cluster.service(SERVICE, 80, Tcp, &[])?;
    cluster.service(SERVICE, 53, Udp, &[])?;
    for from in [&cluster.nodes[0].pods[0].netns, &cluster.nodes[0].netns] {
        let begun = Instant::now();
        let refused = Client::connect(from, at(SERVICE, 80))
            .err()
            .map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "{}", from.name);
        assert!(begun.elapsed().as_millis() < 500, "{:?}", begun.elapsed());
        let socket = udp(from)?;
        let refused = socket.connect(at(SERVICE, 53)).and_then(|()| {
            socket.send(b"x")?;
            receive(&socket).map(drop)
        });
        let refused = refused.err().map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "{}", from.name);
    }
    Ok(())
}

#[test]
fn pods_and_nodes_reach_each_other() -> Result<()> {
    let Some(two) = Two::start("reach_each_other")? else {
        return Ok(());
    };
    let cluster = &two.cluster;
    let _servers = [
        Server::tcp(&cluster.nodes[0].pods[1].netns, "neighbour", 8080)?,
        Server::tcp(&cluster.nodes[1].pods[0].netns, "far", 8080)?,
        Server::tcp(&cluster.nodes[0].netns, "node", 9090)?,
        Server::tcp(&cluster.nodes[1].netns, "far-node", 9090)?,
    ];
    let (pod, node) = (&cluster.nodes[0].pods[0].netns, &cluster.nodes[0].netns);
    let gateway = Ipv4Addr::new(10, 100, 1, 1);
    let far_gateway = Ipv4Addr::new(10, 100, 2, 1);
    for (from, to, port, who) in [
        (pod, two.neighbour, 8080, "neighbour"),
        (pod, two.far, 8080, "far"),
        (node, two.neighbour, 8080, "neighbour"),
        (node, two.far, 8080, "far"),
        (pod, Ipv4Addr::new(172, 31, 0, 11), 9090, "node"),
        (pod, gateway, 9090, "node"),
        (pod, far_gateway, 9090, "far-node"),
        (pod, Ipv4Addr::new(172, 31, 0, 12), 9090, "far-node"),
        (node, far_gateway, 9090, "far-node"),
    ] {
        let case = format!("{} to {to}:{port}", from.name);
        let mut client = Client::connect(from, at(to, port))
            .map_err(|error| anyhow::anyhow!("{case}: {error}"))?;
        assert_eq!(client.ask("hello")?, format!("{who} hello"), "{case}");
    }
    Ok(())
}

#[test]
fn a_node_reaches_services_like_a_pod() -> Result<()> {
    let Some(two) = Two::start("node_reaches_services")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    for (backend, node, pod) in [(two.far, 1, 0), (two.neighbour, 0, 1)] {
        let server = Server::tcp(&cluster.nodes[node].pods[pod].netns, "pod", 8080)?;
        cluster.service(SERVICE, 80, Tcp, &[(backend, 8080)])?;
        let mut client = Client::connect(&cluster.nodes[0].netns, at(SERVICE, 80))?;
        assert_eq!(client.ask("hello")?, "pod hello");
        assert_eq!(client.peer()?, at(SERVICE, 80));
        assert_eq!(server.heard()[0].ip(), Ipv4Addr::new(10, 100, 1, 1));
    }
    Ok(())
}

#[test]
fn outside_sees_the_node_and_answers_the_pod() -> Result<()> {
    let Some(two) = Two::start("outside_sees_the_node")? else {
        return Ok(());
    };
    let cluster = &two.cluster;
    let tcp = Server::tcp(&cluster.outside, "outside", 7070)?;
    let datagrams = Server::udp(&cluster.outside, "outside", 7071)?;
    let pod = &cluster.nodes[0].pods[0].netns;
    let mut client = Client::connect(pod, at(OUTSIDE, 7070))?;
    assert_eq!(client.ask("hello")?, "outside hello");
    let socket = udp(pod)?;
    socket.send_to(b"hello", at(OUTSIDE, 7071))?;
    assert_eq!(
        receive(&socket)?,
        ("outside hello".into(), at(OUTSIDE, 7071))
    );
    for heard in [tcp.heard(), datagrams.heard()] {
        assert_eq!(heard[0].ip(), Ipv4Addr::new(172, 31, 0, 11));
    }
    Ok(())
}

/// By the filters that guard it at once, and by the link that takes over later.
#[test]
fn a_pod_cannot_use_another_address() -> Result<()> {
    let Some(two) = Two::start("cannot_use_another_address")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    let server = Server::udp(&cluster.nodes[1].pods[0].netns, "far", 5353)?;
    let pod = &cluster.nodes[0].pods[0].netns;
    pod.ip("addr add 10.100.1.77/32 dev eth0")?;
    let spoofed = pod.enter(|| std::net::UdpSocket::bind(("10.100.1.77", 4000)))?;
    let honest = udp(pod)?;
    for round in 1..=2 {
        spoofed.send_to(b"spoofed", at(two.far, 5353))?;
        // What was sent later on the same path has arrived, so the earlier one will not.
        honest.send_to(b"honest", at(two.far, 5353))?;
        assert_eq!(receive(&honest)?.0, "far honest");
        assert!(
            server.heard().iter().all(|from| from.ip() == two.near),
            "{:?}",
            server.heard()
        );
        assert_eq!(cluster.nodes[0].counted("source_spoofed")?, round);
        assert_eq!(
            cluster.nodes[0].counted("tunnel")?,
            round,
            "each counts once"
        );
        let config = &cluster.nodes[0].config;
        let mut drops = datapath::drops_pinned(&config.pin_root, &config.node_name)?;
        let told = std::iter::from_fn(|| drops.next_event()).map(|event| describe(&event, None));
        let told: Vec<String> = told
            .filter(|line| line.contains("source_spoofed"))
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("udp 10.100.1.77:4000 -> 10.100.2.5:5353"),
            "{told:?}"
        );
        cluster.nodes[0].quicken()?;
    }
    Ok(())
}

/// No route of the node leads to a pod's link; one that somebody else makes leads no further.
#[test]
fn a_pods_link_takes_from_the_node_only_what_is_for_the_pod() -> Result<()> {
    let Some(two) = Two::start("takes_only_what_is_for_the_pod")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    let far = &cluster.nodes[1];
    let wired = far.pods[0].wired.clone();
    far.netns.ip("addr add 192.0.2.1/32 dev lo")?;
    let link = &wired.ifname;
    far.netns
        .ip(&format!("route add 192.0.2.9/32 dev {link}"))?;
    let mac = wired.mac.map(|octet| format!("{octet:02x}")).join(":");
    far.netns
        .ip(&format!("neigh add 192.0.2.9 lladdr {mac} dev {link}"))?;
    let socket = far
        .netns
        .enter(|| std::net::UdpSocket::bind(("192.0.2.1", 0)))?;
    for round in 1..=2 {
        let _ = socket.send_to(b"not for the pod", at(Ipv4Addr::new(192, 0, 2, 9), 5353));
        assert_eq!(cluster.nodes[1].counted("no_endpoint")?, round);
        cluster.nodes[1].quicken()?;
    }
    Ok(())
}

#[test]
fn a_restarted_agent_breaks_no_connection_and_keeps_every_number() -> Result<()> {
    let Some(two) = Two::start("restarted_agent")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    let _server = Server::tcp(&cluster.nodes[1].pods[0].netns, "far", 8080)?;
    let _datagrams = Server::udp(&cluster.nodes[1].pods[0].netns, "far", 5353)?;
    cluster.service(SERVICE, 80, Tcp, &[(two.far, 8080)])?;
    cluster.service(SERVICE, 53, Udp, &[(two.far, 5353)])?;
    // One pod's link is adopted, the other one's comes after the restart.
    assert!(cluster.nodes[0].with(|datapath| datapath.quicken())?);
    let before = cluster.nodes[0].with(|datapath| datapath.dump())?;
    let mut client = Client::connect(&cluster.nodes[0].pods[0].netns, at(SERVICE, 80))?;
    let connected = udp(&cluster.nodes[0].pods[0].netns)?;
    connected.connect(at(SERVICE, 53))?;
    let mut ask = |question: &str| -> Result<()> {
        assert_eq!(client.ask(question)?, format!("far {question}"));
        connected.send(question.as_bytes())?;
        assert_eq!(receive(&connected)?.0, format!("far {question}"));
        Ok(())
    };
    ask("before")?;
    cluster.nodes[0].kill();
    ask("without an agent")?;
    cluster.nodes[0].open()?;
    ask("before it knows anything")?;
    assert_eq!(cluster.nodes[0].with(|datapath| datapath.dump())?, before);
    (0..cluster.nodes[0].pods.len()).try_for_each(|pod| cluster.nodes[0].tell_pod(pod))?;
    cluster.announce_nodes()?;
    cluster.service(SERVICE, 80, Tcp, &[(two.far, 8080)])?;
    cluster.service(SERVICE, 53, Udp, &[(two.far, 5353)])?;
    cluster.in_sync()?;
    assert_eq!(cluster.nodes[0].with(|datapath| datapath.dump())?, before);
    ask("after")?;
    cluster.nodes[0].quicken()?;
    ask("by the links of both pods")?;
    let mut anew = Client::connect(&cluster.nodes[0].pods[0].netns, at(SERVICE, 80))?;
    assert_eq!(anew.ask("anew")?, "far anew");
    Ok(())
}

#[test]
fn answers_are_found_for_flows_and_programs_older_than_their_filter() -> Result<()> {
    let Some(two) = Two::start("older than the filter")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    let _server = Server::udp(&cluster.nodes[1].pods[0].netns, "far", 5353)?;
    cluster.service(SERVICE, 53, Udp, &[(two.far, 5353)])?;
    let ask = |pod: &Netns| -> Result<UdpSocket> {
        let socket = udp(pod)?;
        socket.connect(at(SERVICE, 53))?;
        socket.send(b"hello")?;
        assert_eq!(receive(&socket)?.0, "far hello");
        Ok(socket)
    };
    let older = ask(&cluster.nodes[0].pods[0].netns)?;
    cluster.nodes[0].kill();
    let config = &cluster.nodes[0].config;
    let maps = config.pin_root.join(&config.node_name).join("maps");
    fs::remove_file(maps.join(REPLIERS.name))?;
    cluster.nodes[0].open()?;
    older.send(b"again")?;
    assert_eq!(receive(&older)?.0, "far again");
    // The pods' programs are still those that note where nobody looks.
    ask(&cluster.nodes[0].pods[1].netns)?;
    Ok(())
}

/// Two nodes; two pods on the first, one on the second.
struct Two {
    cluster: Cluster,
    near: Ipv4Addr,
    neighbour: Ipv4Addr,
    far: Ipv4Addr,
}

impl Two {
    fn start(test: &str) -> Result<Option<Self>> {
        if !ready(test) {
            return Ok(None);
        }
        let mut cluster = Cluster::start(2)?;
        let near = cluster.nodes[0].add_pod(5)?;
        let neighbour = cluster.nodes[0].add_pod(6)?;
        let far = cluster.nodes[1].add_pod(5)?;
        cluster.in_sync()?;
        Ok(Some(Self {
            cluster,
            near,
            neighbour,
            far,
        }))
    }
}

fn at(addr: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddrV4::new(addr, port).into()
}

#[test]
fn a_trace_names_every_row_that_decides_and_leaves_no_flow_behind() -> Result<()> {
    let Some(two) = Two::start("trace_names_every_row")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    cluster.service(SERVICE, 80, Tcp, &[(two.far, 8080)])?;
    cluster.service(SERVICE, 53, Udp, &[(two.far, 5353)])?;
    let config = cluster.nodes[0].config.clone();
    let before = cluster.nodes[0].with(|datapath| datapath.dump())?;
    let ask = |to: &str, proto| -> Result<String> {
        let node = trace::node_of(&config.pin_root, two.near.into())?;
        assert_eq!(node.as_deref(), Some(config.node_name.as_str()));
        let asked = Question {
            from: two.near.into(),
            to: to.parse()?,
            proto,
            source_port: 40_000,
        };
        let steps = trace::trace(&config.pin_root, &config.node_name, asked)?;
        Ok(steps.iter().map(|step| format!("{step}\n")).collect())
    };
    let (tcp, udp) = (
        ask("10.96.0.10:80", Proto::TCP)?,
        ask("10.96.0.10:53", Proto::UDP)?,
    );
    let far = "becomes udp 10.100.1.5:40000 -> 10.100.2.5:5353";
    for (story, lines) in [
        (
            &tcp,
            [
                "connect ",
                "service 10.96.0.10:80/tcp",
                "-> 10.100.2.5:8080",
            ],
        ),
        (
            &udp,
            ["service 10.96.0.10:53/udp", "[0] = 10.100.2.5:5353", far],
        ),
    ] {
        for line in lines
            .iter()
            .chain(&["through the overlay", "node 10.100.2.0 = 172.31.0.12"])
        {
            assert!(story.contains(line), "no {line:?} in\n{story}");
        }
    }
    let outside = ask("172.31.0.250:80", Proto::TCP)?;
    assert!(outside.contains("to_netdev"), "{outside}");
    assert!(outside.contains("becomes tcp 172.31.0.11:"), "{outside}");
    let nobody = ask("10.100.9.9:80", Proto::TCP)?;
    assert!(nobody.contains("dropped: no_node"), "{nobody}");
    assert_eq!(cluster.nodes[0].with(|datapath| datapath.dump())?, before);
    assert_eq!(
        cluster.nodes[0].with(|datapath| datapath.sweep(Duration::MAX))?,
        0
    );
    Ok(())
}

/// A Service with affinity whose load balancer is for others, and where it has pods.
const BALANCER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

fn remembering(two: &mut Two) -> Result<()> {
    let ends = [two.far, two.neighbour].map(|addr| Ep::at([addr.into()]));
    let web = Svc::new("web", 10)
        .ips([SERVICE.into()])
        .port(80, 8080)
        .udp(80, 8080)
        .affinity(600)
        .load_balancer(BALANCER.into())
        .source_range("192.0.2.0/24");
    two.cluster.apply(&web.to(ends))
}

/// What a trace of the near pod to port 80 tells, and where its first step sends.
fn traced(two: &Two, to: Ipv4Addr, proto: Proto) -> Result<(String, String)> {
    let config = &two.cluster.nodes[0].config;
    let asked = Question {
        from: two.near.into(),
        to: at(to, 80),
        proto,
        source_port: 40_000,
    };
    let steps = trace::trace(&config.pin_root, &config.node_name, asked)?;
    let story = steps.iter().map(|step| format!("{step}\n")).collect();
    let to = steps.first().map(|step| step.after.dst.to_string());
    Ok((story, to.unwrap_or_default()))
}

#[test]
fn a_trace_ends_where_source_ranges_shut_the_client_out_and_is_no_client_itself() -> Result<()> {
    let Some(mut two) = Two::start("trace_ends_at_source_ranges")? else {
        return Ok(());
    };
    remembering(&mut two)?;
    for proto in [Proto::UDP, Proto::TCP, Proto::UDP] {
        let (story, _) = traced(&two, SERVICE, proto)?;
        assert!(!story.contains("affinity "), "{story}");
        let (story, _) = traced(&two, BALANCER, proto)?;
        assert!(story.contains("no source range"), "{story}");
        assert!(!story.contains("=> to the pod"), "{story}");
        assert!(!story.contains("overlay"), "{story}");
    }
    let (refused, _) = traced(&two, BALANCER, Proto::TCP)?;
    assert!(refused.contains("=> connection refused: the client is in no source range"));
    let live = Client::connect(&two.cluster.nodes[0].pods[0].netns, at(BALANCER, 80));
    assert!(live.is_err(), "the trace says what is");
    Ok(())
}

#[test]
fn a_trace_goes_where_the_client_is_remembered_and_leaves_that_as_it_was() -> Result<()> {
    let Some(mut two) = Two::start("trace_goes_where_the_client_goes")? else {
        return Ok(());
    };
    remembering(&mut two)?;
    let [near, far] = &*two.cluster.nodes else {
        anyhow::bail!("two nodes")
    };
    let (here, beside) = (&near.pods[0].netns, &near.pods[1].netns);
    let _tcp = [
        Server::tcp(&far.pods[0].netns, "far", 8080)?,
        Server::tcp(beside, "beside", 8080)?,
    ];
    let _udp = [
        Server::udp(&far.pods[0].netns, "far", 8080)?,
        Server::udp(beside, "beside", 8080)?,
    ];
    let tcp = Client::connect(here, at(SERVICE, 80))?.ask("x")?;
    let udp = ask_udp(here, at(SERVICE, 80), "x")?;
    let pins = near
        .config
        .pin_root
        .join(datapath::pin_name(&near.config.node_name));
    let remembered = || -> Result<String> {
        let maps = Maps::open(&pins.join("maps"))?;
        let mut rows: Vec<_> = maps.affinities().collect::<Result<_, _>>()?;
        rows.sort_by_key(|(key, _)| key.service);
        Ok(format!("{rows:?}"))
    };
    let before = remembered()?;
    for (proto, answered) in [(Proto::TCP, tcp), (Proto::UDP, udp)] {
        for _ in 0..8 {
            let (story, to) = traced(&two, SERVICE, proto)?;
            assert_eq!(to == two.far.to_string(), answered == "far x", "{story}");
            let row = format!("affinity {} ", two.near);
            assert!(story.contains(&row), "{story}");
            let by_socket = story.contains("=> the backend that the client had last");
            assert_eq!(by_socket, proto == Proto::TCP, "{story}");
        }
    }
    assert_eq!(remembered()?, before);
    Ok(())
}

#[test]
fn the_numbers_of_a_node_tell_what_its_programs_did() -> Result<()> {
    let Some(two) = Two::start("numbers")? else {
        return Ok(());
    };
    let mut cluster = two.cluster;
    let _server = Server::udp(&cluster.nodes[1].pods[0].netns, "far", 5353)?;
    cluster.service(SERVICE, 53, Udp, &[(two.far, 5353)])?;
    let client = udp(&cluster.nodes[0].pods[0].netns)?;
    let meter = cluster.nodes[0].with(|datapath| datapath.meter(true))?;
    let mut read = || {
        let node = &mut cluster.nodes[0];
        meter.read(|services, backends| node.with(|it| it.names(&services, &backends)))
    };
    let before = read()?;
    client.connect(at(SERVICE, 53))?;
    for question in ["one", "two", "three"] {
        client.send(question.as_bytes())?;
        assert_eq!(receive(&client)?.0, format!("far {question}"));
    }
    let after = read()?;
    let overlay = |reading: &Reading| {
        let found = reading.verdicts.iter().find(|(name, _)| *name == "tunnel");
        found.map(|(_, count)| *count)
    };
    assert_eq!(overlay(&after), overlay(&before).map(|count| count + 3));
    assert_eq!(
        (before.flow_rows, after.flow_rows),
        (0, 2),
        "there and back"
    );
    let rows = |name: &str| after.maps.iter().find(|map| map.name == name);
    assert_eq!(rows("services_v1").map(|map| map.rows), Some(1));
    let [port] = &*after.services else {
        panic!("one port of one Service: {:?}", after.services);
    };
    assert_eq!((port.opened, port.refused), (1, 0), "one flow was opened");
    let [backend] = &*after.backends else {
        panic!("one backend: {:?}", after.backends);
    };
    assert_eq!(
        (&*backend.backend, backend.opened),
        (&*format!("{}:5353", two.far), 1)
    );
    let runs = |reading: &Reading, name: &str| {
        let found = reading.programs.iter().find(|program| program.name == name);
        found.map(|program| (program.runs, program.time))
    };
    let (ran, time) = runs(&after, "from_container").expect("it is loaded");
    let (had_run, _) = runs(&before, "from_container").expect("it is loaded");
    assert!(ran >= had_run + 3, "{had_run} runs before, {ran} after");
    assert!(!time.is_zero(), "{time:?}");
    assert!(after.programs.iter().all(|program| program.verified > 0));
    Ok(())
}
