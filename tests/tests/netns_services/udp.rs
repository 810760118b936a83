//! Clients that speak for long while servers come and go; TCP that a connection tracker would cut.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::netns::Svc;
use tests::peer::{Client, Server, udp_for};

use crate::pair::{CLIENT, FAR, Families, Pair, TARGET, pair};

const NODE_PORT: u16 = 30053;

#[test]
fn udp_client_survives_its_server_pod_cycling_behind_cluster_ip() -> Result<()> {
    let mut pair = pair!("udp_client_survives_its_server_pod_cycling_behind_cluster_ip");
    let dns = Svc::new("dns", 10).udp(53, TARGET);
    let clients: Vec<_> = dns.each_ip().map(|ip| (CLIENT_NODE, ip, 53)).collect();
    cycle(&mut pair, &dns, &clients)
}

#[test]
fn udp_client_survives_its_server_pod_cycling_behind_node_port() -> Result<()> {
    let mut pair = pair!("udp_client_survives_its_server_pod_cycling_behind_node_port");
    let dns = Svc::new("dns", 10).udp(53, TARGET).node_port(NODE_PORT);
    let addrs = pair.node_addrs(0, Families::Dual);
    let clients: Vec<_> = addrs
        .iter()
        .map(|addr| (OUTSIDE, *addr, NODE_PORT))
        .collect();
    cycle(&mut pair, &dns, &clients)
}

const CLIENT_NODE: bool = true;
const OUTSIDE: bool = false;

/// One socket a client for all of it. Its server's pod ends, and another one starts under an address of
/// its own, here and there in turn: once the endpoints have changed at most one datagram is lost.
fn cycle(pair: &mut Pair, dns: &Svc, clients: &[(bool, IpAddr, u16)]) -> Result<()> {
    let mut sockets = Vec::new();
    for (inside, addr, port) in clients {
        let asker = if *inside {
            pair.pod(CLIENT)
        } else {
            pair.outside()
        };
        let socket = udp_for(asker, *addr)?;
        socket.connect((*addr, *port))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        sockets.push(socket);
    }
    let mut serving: Option<(usize, Server)> = None;
    for (number, node) in [(20, 1), (21, 0), (22, 0), (23, 1), (24, 1), (25, 0)] {
        if let Some((node, server)) = serving.take() {
            drop(server); // its socket holds the pod's network
            pair.cluster.nodes[node].end_last_pod()?;
            for socket in &sockets {
                let _ = socket.send(b"to nobody"); // may be told of one that was sent before
            }
        }
        pair.cluster.nodes[node].add_pod(number)?;
        let last = pair.cluster.nodes[node].pods.len() - 1;
        let name = format!("pod-{number}");
        let server = Server::udp(pair.pod((node, last)), &name, TARGET)?;
        serving = Some((node, server));
        pair.cluster
            .apply(&dns.clone().to([pair.ep((node, last))]))?;
        for socket in &sockets {
            socket.take_error()?; // of before
            let answers: Vec<_> = (0..10).map(|_| heard(socket)).collect();
            let lost = answers.iter().filter(|answer| answer.is_none()).count();
            ensure!(lost <= 1, "{socket:?}: {lost} datagrams to {name} are lost");
            let others = answers.iter().flatten().find(|answer| **answer != name);
            ensure!(others.is_none(), "{socket:?}: {others:?}, not {name}");
        }
    }
    Ok(())
}

/// The name that answers; refusals and answers of before the change are passed over.
fn heard(socket: &UdpSocket) -> Option<String> {
    let question = format!("{:?}", Instant::now());
    socket.send(question.as_bytes()).ok()?;
    let mut buffer = [0; 256];
    loop {
        let length = socket.recv(&mut buffer).ok()?;
        let answer = String::from_utf8_lossy(&buffer[..length]);
        if let Some((name, asked)) = answer.split_once(' ')
            && asked == question
        {
            return Some(name.to_owned());
        }
    }
}

/// Its first datagrams go nowhere, for no endpoint is ready; when one is, the same socket is served.
#[test]
fn udp_client_recovers_when_unready_endpoints_become_ready() -> Result<()> {
    let mut pair = pair!("udp_client_recovers_when_unready_endpoints_become_ready");
    let dns = Svc::new("dns", 10).udp(53, TARGET).node_port(NODE_PORT);
    let node = pair.node_addrs(0, Families::Dual);
    pair.cluster
        .apply(&dns.clone().to([pair.ep(FAR).unready()]))?;
    let mut sockets = Vec::new();
    for (asker, addr, port) in dns
        .each_ip()
        .map(|ip| (pair.pod(CLIENT), ip, 53))
        .chain(node.iter().map(|addr| (pair.outside(), *addr, NODE_PORT)))
    {
        let socket = udp_for(asker, addr)?;
        socket.connect((addr, port))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        assert_eq!(heard(&socket), None, "{addr}");
        sockets.push(socket);
    }
    pair.cluster.apply(&dns.clone().to([pair.ep(FAR)]))?;
    for socket in &sockets {
        // A refusal of before may still be waiting in the socket: one question is for that.
        let answer = heard(socket).or_else(|| heard(socket));
        assert_eq!(answer.as_deref(), Some("far"), "{socket:?}");
    }
    Ok(())
}

/// Half closed, then an hour goes by for the sweeper: the other half still carries data.
#[test]
fn half_closed_connection_stays_open_for_an_hour_of_simulated_time() -> Result<()> {
    let test = "half_closed_connection_stays_open_for_an_hour_of_simulated_time";
    let Some(mut pair) = Pair::start_as(test, tests::netns::Plan::nodes(2).per_packet())? else {
        return Ok(());
    };
    let web = Svc::new("web", 10).port(80, 9090);
    pair.cluster.apply(&web.clone().to([pair.ep(FAR)]))?;
    for ip in web.each_ip() {
        let listener = pair
            .pod(FAR)
            .enter(|| std::net::TcpListener::bind(("::", 9090)))?;
        let mut client = pair
            .pod(CLIENT)
            .enter(|| std::net::TcpStream::connect((ip, 80)))?;
        let (mut server, _) = listener.accept()?;
        client.shutdown(std::net::Shutdown::Write)?;
        let mut end = [0; 1];
        assert_eq!(
            std::io::Read::read(&mut server, &mut end)?,
            0,
            "the server saw the end"
        );
        for node in &mut pair.cluster.nodes {
            let later = now()? + Duration::from_secs(3600);
            node.with(|datapath| datapath.sweep(later))?;
        }
        std::io::Write::write_all(&mut server, b"late")?;
        drop(server);
        let mut came = String::new();
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        std::io::Read::read_to_string(&mut client, &mut came)?;
        assert_eq!(came, "late", "{ip}");
    }
    Ok(())
}

/// Segments outside the window, as a tracker would drop or answer with a reset, harm no connection.
#[test]
fn tcp_connection_survives_packets_that_conntrack_calls_invalid() -> Result<()> {
    let test = "tcp_connection_survives_packets_that_conntrack_calls_invalid";
    for plan in [
        tests::netns::Plan::nodes(2),
        tests::netns::Plan::nodes(2).per_packet(),
    ] {
        let Some(mut pair) = Pair::start_as(test, plan)? else {
            return Ok(());
        };
        let web = Svc::new("web", 10).port(80, TARGET);
        pair.cluster.apply(&web.clone().to([pair.ep(FAR)]))?;
        for ip in web.each_ip() {
            let mut connection = Client::connect(pair.pod(CLIENT), (ip, 80))?;
            assert_eq!(connection.ask("before")?, "far before");
            // An old acknowledgement far outside the window, from the server's side.
            pair.invalid_segment(FAR, CLIENT, &connection)?;
            assert_eq!(connection.ask("after")?, "far after");
        }
    }
    Ok(())
}

fn now() -> Result<Duration> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(now.into())
}
