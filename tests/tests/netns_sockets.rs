//! What the socket programs do for real sockets beyond a pod's plain connection, and what a full flow
//! table means to them. Rows of node ports are written as the agent would, so that these tests are of
//! the datapath alone.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::network::drops;
use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};
use aya::{Pod, maps};
use datapath::events::{self, RECORD, describe};
use datapath::names::Names;
use datapath::view::Protocol::{Tcp, Udp};
use nix::time::{ClockId, clock_gettime};
use orchestrator_common::maps::affinity::{Affinity, AffinityKey};
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::services::{Service, ServiceKey};
use orchestrator_common::maps::sockets::{SOCKET_SERVICES, SocketService};
use orchestrator_common::{Addr, DropEvent, Port, Proto, Scope, Tuple};
use sys::Shutdown;
use tests::netns::{Cluster, OUTSIDE, OUTSIDE_V6, Plan, Svc, ready};
use tests::peer::{Client, Server, ask_udp, receive, refused_tcp, udp};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 11);
const NODE: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 11);
const NODE_PORT: u16 = 30_053;

/// A pinned map of the first node.
fn pinned<K: Pod, V: Pod>(cluster: &Cluster, map: &str) -> Result<HashMap<MapData, K, V>> {
    let config = &cluster.nodes[0].config;
    let path: PathBuf = [config.pin_root.as_path(), config.node_name.as_ref()]
        .iter()
        .collect();
    let data = MapData::from_pin(path.join("maps").join(map))?;
    Ok(HashMap::try_from(Map::from_map_data(data)?)?)
}

/// Gives a Service's port a node port as well, for who is inside.
fn add_node_port(cluster: &Cluster, service: Ipv4Addr, port: u16, proto: Proto) -> Result<()> {
    let mut rows: HashMap<_, ServiceKey, Service> = pinned(cluster, "services_v1")?;
    let row = rows.get(&ServiceKey::new(service.into(), Port::new(port), proto), 0)?;
    let key = ServiceKey::new(Addr::UNSPECIFIED_V4, Port::new(NODE_PORT), proto);
    Ok(rows.insert(key, row, 0)?)
}

/// A node with two pods: a client's and a server's address.
fn two_pods(plan: Plan) -> Result<(Cluster, Ipv4Addr, Ipv4Addr)> {
    let mut cluster = plan.start()?;
    let client = cluster.nodes[0].add_pod(5)?;
    let server = cluster.nodes[0].add_pod(6)?;
    cluster.in_sync()?;
    Ok((cluster, client, server))
}

#[test]
fn two_services_with_one_backend_work_from_one_client_port() -> Result<()> {
    if !ready("one client port") {
        return Ok(());
    }
    for plan in [Plan::nodes(1), Plan::nodes(1).per_packet()] {
        let (mut cluster, _, server) = two_pods(plan)?;
        let _server = Server::tcp(&cluster.nodes[0].pods[1].netns, "pod", 8080)?;
        cluster.service(SERVICE, 80, Tcp, &[(server, 8080)])?;
        cluster.service(OTHER, 80, Tcp, &[(server, 8080)])?;
        let pod = &cluster.nodes[0].pods[0].netns;
        let from = (Ipv4Addr::UNSPECIFIED, 45_000);
        let mut one = Client::connect_from(pod, from, (SERVICE, 80)).context("the first")?;
        let mut other = Client::connect_from(pod, from, (OTHER, 80)).context("the second")?;
        for question in ["a", "b"] {
            assert_eq!(one.ask(question)?, format!("pod {question}"));
            assert_eq!(other.ask(question)?, format!("pod {question}"));
        }
        assert_eq!(one.peer()?, (SERVICE, 80).into());
        assert_eq!(other.peer()?, (OTHER, 80).into());
    }
    Ok(())
}

#[test]
fn what_a_socket_asked_for_is_forgotten_when_its_last_descriptor_is_closed() -> Result<()> {
    if !ready("rows of sockets") {
        return Ok(());
    }
    let (mut cluster, _, server) = two_pods(Plan::nodes(1))?;
    let _server = Server::tcp(&cluster.nodes[0].pods[1].netns, "pod", 8080)?;
    cluster.service(SERVICE, 80, Tcp, &[(server, 8080)])?;
    let rows: HashMap<_, u64, SocketService> = pinned(&cluster, SOCKET_SERVICES.name)?;
    let pod = &cluster.nodes[0].pods[0].netns;
    let connect = || pod.enter(|| TcpStream::connect((SERVICE, 80)));
    let streams: Vec<TcpStream> = (0..50).map(|_| connect()).collect::<Result<_, _>>()?;
    assert_eq!(rows.keys().count(), 50);
    let copy = streams[0].try_clone()?;
    // Who asks a pod itself has no row.
    let direct = pod.enter(|| TcpStream::connect((server, 8080)))?;
    assert_eq!(direct.peer_addr()?, (server, 8080).into());
    drop(streams);
    assert_eq!(rows.keys().count(), 1);
    assert_eq!(copy.peer_addr()?, (SERVICE, 80).into());
    drop(copy);
    assert_eq!(rows.keys().count(), 0);
    Ok(())
}

#[test]
fn a_socket_that_finds_its_table_full_shows_the_service_all_the_same() -> Result<()> {
    if !ready("full table of sockets") {
        return Ok(());
    }
    let (mut cluster, _, server) = two_pods(Plan::nodes(1))?;
    let _server = Server::tcp(&cluster.nodes[0].pods[1].netns, "pod", 8080)?;
    cluster.service(SERVICE, 80, Tcp, &[(server, 8080)])?;
    let mut rows: HashMap<_, u64, SocketService> = pinned(&cluster, SOCKET_SERVICES.name)?;
    for number in 0..u64::from(SOCKET_SERVICES.max_entries) {
        rows.insert(u64::MAX - number, SocketService::default(), 0)?;
    }
    let pod = &cluster.nodes[0].pods[0].netns;
    let stream = pod.enter(|| TcpStream::connect((SERVICE, 80)))?;
    assert_eq!(stream.peer_addr()?, (SERVICE, 80).into());
    rows.remove(&u64::MAX)?;
    let next = pod.enter(|| TcpStream::connect((SERVICE, 80)))?;
    assert_eq!(next.peer_addr()?, (SERVICE, 80).into());
    assert_eq!(stream.peer_addr()?, (SERVICE, 80).into());
    Ok(())
}

#[test]
fn an_ipv6_socket_reaches_an_ipv4_service_under_its_mapped_address() -> Result<()> {
    if !ready("mapped address") {
        return Ok(());
    }
    let (mut cluster, _, server) = two_pods(Plan::nodes(1))?;
    let _server = Server::tcp(&cluster.nodes[0].pods[1].netns, "pod", 8080)?;
    cluster.service(SERVICE, 80, Tcp, &[(server, 8080)])?;
    let mapped: SocketAddr = (IpAddr::V6(SERVICE.to_ipv6_mapped()), 80).into();
    for from in [&cluster.nodes[0].pods[0].netns, &cluster.nodes[0].netns] {
        let mut client = Client::connect(from, mapped)?;
        assert_eq!(client.ask("hello")?, "pod hello");
        assert_eq!(client.peer()?, mapped);
    }
    Ok(())
}

#[test]
fn the_nodes_datagrams_to_a_node_port_are_answered_from_the_address_that_was_asked() -> Result<()> {
    if !ready("node port datagrams") {
        return Ok(());
    }
    let (mut cluster, _, server) = two_pods(Plan::nodes(1))?;
    let _server = Server::udp(&cluster.nodes[0].pods[1].netns, "pod", 5353)?;
    cluster.service(SERVICE, 53, Udp, &[(server, 5353)])?;
    add_node_port(&cluster, SERVICE, 53, Proto::UDP)?;
    let node = &cluster.nodes[0].netns;
    for to in [NODE, Ipv4Addr::LOCALHOST] {
        let at: SocketAddr = (to, NODE_PORT).into();
        let unconnected = udp(node)?;
        unconnected.send_to(b"one", at)?;
        assert_eq!(receive(&unconnected)?, ("pod one".into(), at));
        let connected = udp(node)?;
        connected.connect(at)?;
        assert_eq!(connected.peer_addr()?, at);
        connected.send(b"two")?;
        assert_eq!(receive(&connected)?, ("pod two".into(), at));
    }
    // An IPv6 socket speaks to the same address in its mapped form.
    let socket = node.enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mapped: SocketAddr = (IpAddr::V6(NODE.to_ipv6_mapped()), NODE_PORT).into();
    socket.send_to(b"three", mapped)?;
    assert_eq!(receive(&socket)?, ("pod three".into(), mapped));
    // A pod's datagrams come by without help.
    let pod = udp(&cluster.nodes[0].pods[0].netns)?;
    pod.send_to(b"four", (NODE, NODE_PORT))?;
    assert_eq!(
        receive(&pod)?,
        ("pod four".into(), (NODE, NODE_PORT).into())
    );
    Ok(())
}

#[test]
fn a_node_port_is_reached_from_its_node_and_cannot_be_bound_there() -> Result<()> {
    if !ready("node port of the node") {
        return Ok(());
    }
    let (mut cluster, _, server) = two_pods(Plan::nodes(1))?;
    let _server = Server::tcp(&cluster.nodes[0].pods[1].netns, "pod", 8080)?;
    cluster.service(SERVICE, 80, Tcp, &[(server, 8080)])?;
    let (node, pod) = (&cluster.nodes[0].netns, &cluster.nodes[0].pods[0].netns);
    let bind = |address: IpAddr, port: u16| move || TcpListener::bind((address, port));
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    drop(node.enter(bind(any, NODE_PORT)).context("nobody's yet")?);
    add_node_port(&cluster, SERVICE, 80, Proto::TCP)?;
    for address in [
        any,
        Ipv4Addr::LOCALHOST.into(),
        Ipv6Addr::UNSPECIFIED.into(),
    ] {
        let refused = node.enter(bind(address, NODE_PORT)).err();
        let refused = refused.map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::AddrInUse), "{address}");
    }
    drop(
        node.enter(bind(any, NODE_PORT + 1))
            .context("another port")?,
    );
    drop(
        pod.enter(bind(any, NODE_PORT))
            .context("a pod has its own")?,
    );
    let socket = node.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, NODE_PORT)));
    drop(socket.context("of another protocol")?);

    for (from, to) in [(node, NODE), (node, Ipv4Addr::LOCALHOST), (pod, NODE)] {
        let mut client = Client::connect(from, (to, NODE_PORT))?;
        assert_eq!(client.ask("hello")?, "pod hello");
        assert_eq!(client.peer()?, (to, NODE_PORT).into());
    }
    // The port is a pod's own affair on its loopback.
    let refused = Client::connect(pod, (Ipv4Addr::LOCALHOST, NODE_PORT)).err();
    let refused = refused.map(|error| error.kind());
    assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
    Ok(())
}

#[test]
fn a_flood_fills_the_table_open_connections_stay_and_new_ones_get_in_within_a_second() -> Result<()>
{
    if !ready("flood") {
        return Ok(());
    }
    let (mut cluster, _, server) = two_pods(Plan::nodes(1).per_packet())?;
    let _server = Server::tcp(&cluster.nodes[0].pods[1].netns, "pod", 8080)?;
    cluster.service(SERVICE, 80, Tcp, &[(server, 8080)])?;
    let pod = cluster.nodes[0].pods[0].netns.name.clone();
    let mut open = Client::connect(&cluster.nodes[0].pods[0].netns, (SERVICE, 80))?;
    assert_eq!(open.ask("before")?, "pod before");

    let mut rows: HashMap<_, Tuple, Flow> = pinned(&cluster, "flows_v1")?;
    let now = now_ns()?;
    for number in 0.. {
        let (key, asked) = half_open(number, server, now);
        let full = rows
            .insert(asked.other_key(), asked.other(&key), 0)
            .is_err()
            || rows.insert(key, asked, 0).is_err();
        if full {
            break;
        }
        assert!(number < 200_000, "the table of {pod} has no end");
    }
    let client = &cluster.nodes[0].pods[0].netns;
    let wait = Duration::from_millis(300);
    let kept_out = Client::connect_within(client, (SERVICE, 80), wait);
    assert!(kept_out.is_err(), "there was room");
    assert_eq!(open.ask("full")?, "pod full");

    let later = Duration::from_nanos(now) + Duration::from_secs(3);
    let gone = cluster.nodes[0].with(|datapath| datapath.relieve(later))?;
    assert!(gone > 100_000, "{gone} flows went");
    let again = cluster.nodes[0].with(|datapath| datapath.relieve(later))?;
    assert_eq!(again, 0, "there was room");
    let client = &cluster.nodes[0].pods[0].netns;
    let mut anew = Client::connect(client, (SERVICE, 80))?;
    assert_eq!(anew.ask("new")?, "pod new");
    assert_eq!(open.ask("after")?, "pod after");
    let rows: HashMap<_, Tuple, Flow> = pinned(&cluster, "flows_v1")?;
    let left: Vec<(Tuple, Flow)> = rows.iter().collect::<Result<_, maps::MapError>>()?;
    assert!(left.len() < 10, "{} rows are left", left.len());
    for (_, flow) in &left {
        assert!(
            left.iter().any(|(key, _)| *key == flow.other_key()),
            "half a flow"
        );
    }
    Ok(())
}

/// The forward row of a connection that a backend accepted and its client never took up.
fn half_open(number: u32, server: Ipv4Addr, now_ns: u64) -> (Tuple, Flow) {
    let client = Ipv4Addr::from(0xc633_0000 + (number >> 10));
    let key = Tuple {
        src: client.into(),
        dst: Ipv4Addr::new(172, 31, 0, 11).into(),
        src_port: Port::new(1024 + (number & 0x3ff) as u16),
        dst_port: Port::new(30_080),
        proto: Proto::TCP,
        scope: Scope::SERVICE,
        reserved: [0; 2],
    };
    let flow = Flow {
        translated: Tuple {
            dst: server.into(),
            dst_port: Port::new(8080),
            ..key
        },
        last_seen_ns: now_ns,
        direction: Flow::FORWARD,
        seen: Flow::USED | Flow::SYN,
        ..Flow::default()
    };
    (key, flow)
}

fn now_ns() -> Result<u64> {
    let now: Duration = clock_gettime(ClockId::CLOCK_MONOTONIC)?.into();
    Ok(u64::try_from(now.as_nanos())?)
}

#[test]
fn with_direct_return_a_remote_backend_sees_the_client_and_answers_it_itself() -> Result<()> {
    if !ready("direct return") {
        return Ok(());
    }
    let mut cluster = Plan::nodes(2).start()?;
    cluster.nodes[1].add_pod(5)?;
    cluster.in_sync()?;
    for index in 0..2 {
        cluster.nodes[index].config.dsr = true;
        cluster.restart(index)?;
    }
    let pod = &cluster.nodes[1].pods[0].netns;
    let tcp = Server::tcp(pod, "far", 8080)?;
    let datagrams = Server::udp(pod, "far", 8080)?;
    let backend = [cluster.nodes[1].ep(0)];
    let service = Svc::new("direct", 20).port(80, 8080).node_port(30_080);
    cluster.apply(&service.to(backend.clone()))?;
    let service = Svc::new("datagrams", 21).udp(80, 8080).node_port(30_081);
    cluster.apply(&service.to(backend))?;

    let node = &cluster.nodes[0];
    for (client, at) in [
        (IpAddr::from(OUTSIDE), node.v4()),
        (OUTSIDE_V6.into(), node.v6()),
    ] {
        let mut stream = Client::connect(&cluster.outside, (at, 30_080))?;
        // Both sides send segments of the largest size.
        let long = "x".repeat(1_000_000);
        assert_eq!(stream.ask(&long)?.len(), 1_000_004, "{at}");
        for size in [5, 4_000, 30_000] {
            let question = "y".repeat(size);
            // One larger than the path carries is cut once its sender has been told.
            let answer = match ask_udp(&cluster.outside, (at, 30_081), &question) {
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    ask_udp(&cluster.outside, (at, 30_081), &question)
                }
                answer => answer,
            };
            let answer = answer.with_context(|| format!("{size} bytes to {at}"))?;
            assert_eq!(answer, format!("far {question}"), "{at}");
        }
        for heard in [tcp.heard(), datagrams.heard()] {
            let last = heard.last().context("somebody")?;
            assert_eq!(last.ip(), client);
        }
    }
    // An address that reads as a group's MAC where the inner frame's source is.
    let balanced = Ipv4Addr::new(203, 0, 113, 5);
    let service = Svc::new("balanced", 22).port(80, 8080);
    cluster.apply(
        &service
            .load_balancer(balanced.into())
            .to([cluster.nodes[1].ep(0)]),
    )?;
    cluster.route_outside("203.0.113.0/24", 0)?;
    let mut client = Client::connect(&cluster.outside, (balanced, 80))?;
    assert_eq!(client.ask("hello")?, "far hello");
    let last = tcp.heard().pop().context("somebody")?;
    assert_eq!(last.ip(), IpAddr::from(OUTSIDE));
    Ok(())
}

#[test]
fn a_connection_that_is_refused_at_connect_is_counted_by_its_reason_and_told_of() -> Result<()> {
    if !ready("refused at connect") {
        return Ok(());
    }
    let (mut cluster, client, _) = two_pods(Plan::nodes(1))?;
    let web = Svc::new("web", 10).port(80, 8080);
    cluster.apply(&web)?;
    let [node] = &*cluster.nodes else {
        anyhow::bail!("one node")
    };
    let pod = &node.pods[0];
    for ip in web.each_ip() {
        refused_tcp(&pod.netns, (ip, 80))?;
    }
    assert_eq!(node.counted("no_backend")?, 2);
    let mut drops = datapath::drops_pinned(&node.config.pin_root, &node.config.node_name)?;
    let told = std::iter::from_fn(|| drops.next_event()).map(|event| describe(&event, None));
    let told: Vec<String> = told.filter(|it| it.contains("no_backend")).collect();
    let v6 = pod.v6;
    let why = "refused at connect: no_backend";
    assert_eq!(
        told,
        [
            format!("tcp {client}:0 -> {SERVICE}:80 {why}"),
            format!("tcp [{v6}]:0 -> [{}]:80 {why}", web.v6()),
        ]
    );
    Ok(())
}

/// What the agent hands out at once.
fn handed_out(socket: &Path) -> Result<Vec<DropEvent>> {
    let mut agent = UnixStream::connect(socket)?;
    agent.write_all(&[drops::ONCE])?;
    let mut bytes = Vec::new();
    agent.read_to_end(&mut bytes)?;
    let records = bytes.chunks_exact(RECORD);
    let event = |record: &[u8]| events::parse(record.try_into().ok()?);
    Ok(records.filter_map(event).collect())
}

#[test]
fn the_agent_hands_out_the_newest_drops_however_many_there_were_before() -> Result<()> {
    const BURST: u16 = 2000;
    if !ready("the newest drops") {
        return Ok(());
    }
    let (cluster, _, _) = two_pods(Plan::nodes(1))?;
    let node = &cluster.nodes[0];
    let nowhere = Ipv4Addr::new(10, 100, 9, 9);
    let (dir, shutdown) = (tempfile::tempdir()?, Shutdown::new());
    let socket = dir.path().join("drops");
    let drops = datapath::drops_pinned(&node.config.pin_root, &node.config.node_name)?;
    let run = drops::run(drops, socket.clone(), shutdown.clone());
    let agent = std::thread::spawn(move || -> Result<()> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build()?.block_on(run);
        Ok(())
    });
    let client = udp(&node.pods[0].netns)?;
    // The buffer holds fewer than two bursts.
    for burst in 1..=4 {
        let ports = burst * 10_000..burst * 10_000 + BURST;
        for port in ports.clone() {
            client.send_to(b"x", (nowhere, port))?;
        }
        let last = Some(ports.end - 1);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let newest = handed_out(&socket).ok().and_then(|all| all.last().copied());
            if newest.map(|event| event.tuple.dst_port.host()) == last {
                break;
            }
            anyhow::ensure!(Instant::now() < deadline, "burst {burst}: {newest:?}");
            std::thread::yield_now();
        }
    }
    assert_eq!(node.counted("lost_records")?, 0);
    assert!(handed_out(&socket)?.len() >= usize::from(4 * BURST));
    shutdown.trigger();
    agent.join().expect("no panic")?;
    assert!(!socket.exists());
    Ok(())
}

#[test]
fn a_client_that_finds_no_room_to_be_remembered_is_served_and_counted() -> Result<()> {
    if !ready("no room to be remembered") {
        return Ok(());
    }
    let (mut cluster, _, _) = two_pods(Plan::nodes(1))?;
    let _server = Server::udp(&cluster.nodes[0].pods[1].netns, "pod", 8080)?;
    let web = Svc::new("web", 10).udp(80, 8080).affinity(600);
    cluster.apply(&web.to([cluster.nodes[0].ep(1)]))?;
    let meter = cluster.nodes[0].with(|datapath| datapath.meter(false))?;
    let unremembered = || {
        meter
            .read(|_, _| Names::default())
            .map(|it| it.unremembered)
    };
    let ask = || ask_udp(&cluster.nodes[0].pods[0].netns, (SERVICE, 80), "x");
    let mut rows: HashMap<_, AffinityKey, Affinity> = pinned(&cluster, "affinity_v1")?;
    let mut other = AffinityKey {
        service: u32::MAX,
        ..AffinityKey::default()
    };
    while rows.insert(other, Affinity::default(), 0).is_ok() {
        other.client.words[3] += 1;
    }
    assert_eq!(ask()?, "pod x");
    assert_eq!(unremembered()?, 1);
    other.client.words[3] -= 1;
    rows.remove(&other)?;
    assert_eq!(ask()?, "pod x");
    assert_eq!(unremembered()?, 1);
    Ok(())
}
