//! The overlay between nodes: both families of pods over either underlay, and nodes that come, go,
//! move and reboot.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use agent::network::pod_net::{PodLinks, Wire, uplink};
use anyhow::{Context, Result};
use datapath::{Addrs, LocalPod};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};
use sys::Shutdown;
use tests::capture::inject;
use tests::netns::{Cluster, Netns, OUTSIDE, OUTSIDE_V6, Object, Plan, Svc, pod_addr, ready};
use tests::packet;
use tests::peer::{Client, PATIENCE, Server, ask_tcp, ask_udp, udp_at, udp_for};

/// Two nodes, two pods on the first and one on the second.
fn two(test: &str, plan: impl FnOnce(Plan) -> Plan) -> Result<Option<Cluster>> {
    if !ready(test) {
        return Ok(None);
    }
    let mut cluster = plan(Plan::nodes(2)).start()?;
    for (node, number) in [(0, 5), (0, 6), (1, 5)] {
        cluster.nodes[node].add_pod(number)?;
    }
    cluster.in_sync()?;
    Ok(Some(cluster))
}

#[test]
fn pods_of_both_families_meet_over_an_ipv4_underlay() -> Result<()> {
    let Some(cluster) = two("over_ipv4", |plan| plan)? else {
        return Ok(());
    };
    everybody_meets(&cluster)
}

#[test]
fn pods_of_both_families_meet_over_an_ipv6_underlay() -> Result<()> {
    let Some(cluster) = two("over_ipv6", Plan::underlay_v6)? else {
        return Ok(());
    };
    everybody_meets(&cluster)
}

/// Pods, nodes and outside in each family; and the overlay's device has learned of nobody.
fn everybody_meets(cluster: &Cluster) -> Result<()> {
    let (near, far) = (&cluster.nodes[0], &cluster.nodes[1]);
    let places = [
        ("neighbour", &near.pods[1].netns),
        ("far", &far.pods[0].netns),
        ("node", &near.netns),
        ("far-node", &far.netns),
        ("outside", &cluster.outside),
    ];
    let mut servers = Vec::new();
    for (name, netns) in places {
        servers.push(Server::tcp(netns, name, 8080)?);
        servers.push(Server::udp(netns, name, 8081)?);
    }
    for v4 in [true, false] {
        let of = |addrs: Addrs| addrs.iter().find(|addr| addr.is_ipv4() == v4);
        let outside = if v4 {
            OUTSIDE.into()
        } else {
            OUTSIDE_V6.into()
        };
        let (pod, node) = (&near.pods[0].netns, &near.netns);
        let neighbour = of(near.pods[1].wired.addrs);
        let remote = of(far.pods[0].wired.addrs);
        for (from, to, who) in [
            (pod, neighbour, "neighbour"),
            (pod, remote, "far"),
            (node, neighbour, "neighbour"),
            (node, remote, "far"),
            (pod, of(near.gateways()), "node"),
            (pod, of(near.addrs()), "node"),
            (pod, of(far.gateways()), "far-node"),
            (pod, of(far.addrs()), "far-node"),
            (node, of(far.gateways()), "far-node"),
            (pod, Some(outside), "outside"),
        ] {
            let to = to.context("everybody has both families")?;
            let case = || format!("{} to {to}", from.name);
            let answer = ask_tcp(from, (to, 8080), "hello").with_context(case)?;
            assert_eq!(answer, format!("{who} hello"), "{}", case());
            // A node's datagrams leave with its overlay address, unless a server binds another.
            if !near.addrs().contains(to) && !far.addrs().contains(to) {
                let answer = ask_udp(from, (to, 8081), "hello").with_context(case)?;
                assert_eq!(answer, format!("{who} hello"), "{}", case());
            }
        }
        let seen = servers[8].heard().into_iter().chain(servers[9].heard());
        let seen: BTreeSet<IpAddr> = seen.map(|peer| peer.ip()).collect();
        let masqueraded = of(near.addrs()).context("both families")?;
        assert!(
            seen.contains(&masqueraded),
            "outside sees the node: {seen:?}"
        );
    }
    for node in [near, far] {
        for table in [
            ["bridge", "fdb", "show", "dev", "orch-vxlan"],
            ["ip", "neigh", "show", "dev", "orch-vxlan"],
        ] {
            let held = inside(&node.netns.name, &table)?;
            assert_eq!(held, "", "{table:?} in {}", node.netns.name);
        }
    }
    Ok(())
}

#[test]
fn pods_have_the_mtu_that_the_underlay_leaves() -> Result<()> {
    for (v6, mtu) in [(false, "1450"), (true, "1430")] {
        let plan = |plan: Plan| if v6 { plan.underlay_v6() } else { plan };
        let Some(cluster) = two("the_mtu", plan)? else {
            return Ok(());
        };
        for (netns, link) in [
            (&cluster.nodes[0].netns, "orch-host"),
            (&cluster.nodes[0].netns, "orch-vxlan"),
            (&cluster.nodes[0].pods[0].netns, "eth0"),
        ] {
            let held = inside(&netns.name, &["ip", "link", "show", "dev", link])?;
            assert!(held.contains(&format!(" mtu {mtu} ")), "{link}: {held}");
        }
    }
    Ok(())
}

#[test]
fn a_pod_sends_only_from_its_own_addresses_of_each_family() -> Result<()> {
    let Some(cluster) = two("own_addresses", |plan| plan)? else {
        return Ok(());
    };
    let server = Server::udp(&cluster.nodes[1].pods[0].netns, "far", 5353)?;
    let (pod, far) = (&cluster.nodes[0].pods[0], &cluster.nodes[1].pods[0]);
    let stranger = pod_addr(1, 77);
    for (own, to, other, bits) in [
        (
            IpAddr::from(pod.addr),
            IpAddr::from(far.addr),
            IpAddr::from(stranger.0),
            32,
        ),
        (pod.v6.into(), far.v6.into(), stranger.1.into(), 128),
    ] {
        let before = cluster.nodes[0].counted("source_spoofed")?;
        let nodad = if bits == 128 { "nodad" } else { "" };
        pod.netns
            .ip(&format!("addr add {other}/{bits} dev eth0 {nodad}"))?;
        let spoofed = udp_at(&pod.netns, (other, 4000))?;
        spoofed.send_to(b"spoofed", (to, 5353))?;
        // What was sent later on the same path has arrived, so the earlier one will not.
        let honest = udp_at(&pod.netns, (own, 4001))?;
        honest.connect((to, 5353))?;
        honest.send(b"honest")?;
        honest.recv(&mut [0; 64])?;
        assert!(server.heard().iter().all(|from| from.ip() != other));
        assert_eq!(cluster.nodes[0].counted("source_spoofed")?, before + 1);
    }
    Ok(())
}

#[test]
fn a_pod_sends_only_frames_of_its_own() -> Result<()> {
    let Some(cluster) = two("own_frames", |plan| plan)? else {
        return Ok(());
    };
    let server = Server::udp(&cluster.nodes[1].pods[0].netns, "far", 5353)?;
    let (pod, far) = (&cluster.nodes[0].pods[0], &cluster.nodes[1].pods[0]);
    for (from, to) in [
        (pod.addr.to_string(), far.addr.to_string()),
        (pod.v6.to_string(), far.v6.to_string()),
    ] {
        let sent = |mac: [u8; 6], port| -> Result<()> {
            let mut frame = packet::udp((&from, port), (&to, 5353), b"raw");
            frame[..6].copy_from_slice(&pod.wired.host_mac);
            frame[6..12].copy_from_slice(&mac);
            inject(&pod.netns, "eth0", &frame)
        };
        let before = cluster.nodes[0].counted("source_spoofed")?;
        let mut neighbours = cluster.nodes[0].pods[1].wired.mac;
        sent(neighbours, 4000)?;
        neighbours[5] ^= 1;
        sent(neighbours, 4001)?;
        // What was sent later on the same path has arrived, so the earlier ones will not.
        sent(pod.wired.mac, 4002)?;
        let own = SocketAddr::new(from.parse()?, 4002);
        tests::cluster::wait("the pod's own frame came", || {
            Ok(server.heard().contains(&own).then_some(()))
        });
        assert!(server.heard().iter().all(|from| from.port() == 4002));
        assert_eq!(cluster.nodes[0].counted("source_spoofed")?, before + 2);
    }
    Ok(())
}

#[test]
fn a_pod_traces_its_route_to_outside() -> Result<()> {
    let Some(cluster) = two("traced_route", |plan| plan)? else {
        return Ok(());
    };
    for to in [IpAddr::from(OUTSIDE), OUTSIDE_V6.into()] {
        let socket = udp_for(&cluster.nodes[0].pods[0].netns, to)?;
        socket.connect((to, 33_434))?;
        match to {
            IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
        // The node is the first hop; at the second somebody has no such port.
        for (hops, told) in [(1, libc::EHOSTUNREACH), (2, libc::ECONNREFUSED)] {
            match to {
                IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4Ttl, &hops)?,
                IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6Ttl, &hops)?,
            }
            socket.send(b"probe")?;
            let error = socket.recv(&mut [0; 64]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(told), "{to} {hops}");
        }
    }
    Ok(())
}

#[test]
fn nothing_enters_the_overlay_as_if_from_a_node_that_does_not_exist() -> Result<()> {
    let Some(cluster) = two("does_not_exist", |plan| plan)? else {
        return Ok(());
    };
    let (node, pod) = (&cluster.nodes[0], &cluster.nodes[0].pods[0]);
    let server = Server::udp(&pod.netns, "pod", 5353)?;
    // A tunnel's end that is no node's, with addresses of a node's pods and of nobody's.
    cluster.outside.batch(&format!(
        "link add vx type vxlan id 1 remote {} dstport 4789 dev eth0\n\
         addr add 10.100.2.5/32 dev vx\naddr add 10.100.9.5/32 dev vx\n\
         addr add fd00:100:0:2::5/128 dev vx nodad\nlink set vx up\n\
         route add 10.100.0.0/16 dev vx\nroute add fd00:100::/48 dev vx\n\
         neigh add {} lladdr 02:6f:72:63:68:01 dev vx nud permanent\n\
         neigh add {} lladdr 02:6f:72:63:68:01 dev vx nud permanent\n",
        node.v4(),
        pod.addr,
        pod.v6
    ))?;
    for (from, to) in [
        ("10.100.2.5", IpAddr::from(pod.addr)),
        ("10.100.9.5", pod.addr.into()),
        ("fd00:100:0:2::5", pod.v6.into()),
    ] {
        let before = node.counted("tunnel_spoofed")?;
        let from: IpAddr = from.parse()?;
        udp_at(&cluster.outside, (from, 4000))?.send_to(b"spoofed", (to, 5353))?;
        tests::cluster::wait("the packet came", || {
            Ok((node.counted("tunnel_spoofed")? > before).then_some(()))
        });
    }
    let far = &cluster.nodes[1].pods[0].netns;
    assert_eq!(ask_udp(far, (pod.addr, 5353), "honest")?, "pod honest");
    assert_eq!(server.heard().len(), 1, "{:?}", server.heard());
    Ok(())
}

#[test]
fn a_pod_cannot_speak_for_its_neighbours_through_a_tunnel_of_its_own() -> Result<()> {
    let Some(cluster) = two("own_tunnel", |plan| plan)? else {
        return Ok(());
    };
    let (node, pod) = (&cluster.nodes[0], &cluster.nodes[0].pods[0]);
    let (far_node, far) = (&cluster.nodes[1], &cluster.nodes[1].pods[0]);
    let server = Server::udp(&far.netns, "pod", 5353)?;
    // With a checksum, which the kernel's VXLAN leaves out unless it is told otherwise, and without.
    for (at, checksum) in ["udpcsum", "noudpcsum"].into_iter().enumerate() {
        pod.netns.batch(&format!(
            "link add vx type vxlan id 1 remote {} dstport 4789 dev eth0 {checksum}\n\
             addr add 10.100.1.200/32 dev vx\nlink set vx address 02:6f:72:63:68:02 up\n\
             neigh add {} lladdr 02:6f:72:63:68:01 dev vx nud permanent\n\
             route add {}/32 dev vx src 10.100.1.200\n",
            far_node.v4(),
            far.addr,
            far.addr,
        ))?;
        let before = node.counted("tunnel_spoofed")?;
        udp_at(&pod.netns, (IpAddr::from([10, 100, 1, 200]), 4000))?
            .send_to(b"spoofed", (far.addr, 5353))?;
        tests::cluster::wait("the packet left", || {
            Ok((node.counted("tunnel_spoofed")? > before).then_some(()))
        });
        pod.netns.batch("link del vx\n")?;
        assert_eq!(
            ask_udp(&pod.netns, (far.addr, 5353), "honest")?,
            "pod honest"
        );
        assert_eq!(server.heard().len(), at + 1, "{:?}", server.heard());
    }
    Ok(())
}

#[test]
fn nodes_join_and_leave() -> Result<()> {
    let Some(mut cluster) = two("join_and_leave", |plan| plan)? else {
        return Ok(());
    };
    cluster.join()?;
    let late = cluster.nodes[2].add_pod(5)?;
    let server = Server::tcp(&cluster.nodes[2].pods[0].netns, "late", 8080)?;
    let to = [IpAddr::from(late), cluster.nodes[2].pods[0].v6.into()];
    for from in [0, 1] {
        for addr in to {
            let netns = &cluster.nodes[from].pods[0].netns;
            assert_eq!(ask_tcp(netns, (addr, 8080), "hello")?, "late hello");
        }
    }
    drop(server);
    cluster.leave()?;
    assert!(
        !rows(&mut cluster, 0)?
            .iter()
            .any(|row| row.contains("10.100.3.0"))
    );
    let before = cluster.nodes[0].counted("no_node")?;
    let asker = udp_at(
        &cluster.nodes[0].pods[0].netns,
        ("0.0.0.0".parse::<IpAddr>()?, 0),
    )?;
    asker.send_to(b"x", (late, 8080))?;
    assert_eq!(cluster.nodes[0].counted("no_node")?, before + 1);
    Ok(())
}

#[test]
fn a_rebooted_node_is_reached_again_and_no_other_was_touched() -> Result<()> {
    for v6 in [false, true] {
        let plan = |plan: Plan| if v6 { plan.underlay_v6() } else { plan };
        let Some(mut cluster) = two("a_rebooted_node", plan)? else {
            return Ok(());
        };
        let web = Svc::new("web", 10).port(80, 8080);
        cluster.apply(&web.clone().to([cluster.nodes[1].ep(0)]))?;
        let macs = |cluster: &Cluster| cluster.nodes[1].netns.link("eth0");
        let server = Server::tcp(&cluster.nodes[1].pods[0].netns, "far", 8080)?;
        let ask = |cluster: &Cluster| -> Result<()> {
            let pod = &cluster.nodes[0].pods[0].netns;
            for ip in web
                .each_ip()
                .chain(cluster.nodes[1].pods[0].wired.addrs.iter())
            {
                let port = if web.each_ip().any(|own| own == ip) {
                    80
                } else {
                    8080
                };
                let answer = ask_tcp(pod, (ip, port), "hello")?;
                assert_eq!(answer, "far hello", "{ip}");
            }
            Ok(())
        };
        ask(&cluster)?;
        let (before, old) = (rows(&mut cluster, 0)?, macs(&cluster)?);
        drop(server);
        cluster.reboot(1)?;
        assert_ne!(macs(&cluster)?.1, old.1, "its links are others");
        let _server = Server::tcp(&cluster.nodes[1].pods[0].netns, "far", 8080)?;
        ask(&cluster)?;
        assert_eq!(rows(&mut cluster, 0)?, before, "the other node's maps");
    }
    Ok(())
}

#[test]
fn a_nodes_new_address_is_one_write_a_range_on_the_others() -> Result<()> {
    let Some(mut cluster) = two("new_address", |plan| plan)? else {
        return Ok(());
    };
    let _server = Server::tcp(&cluster.nodes[1].pods[0].netns, "far", 8080)?;
    let to: SocketAddr = (cluster.nodes[1].pods[0].addr, 8080).into();
    let mut client = Client::connect(&cluster.nodes[0].pods[0].netns, to)?;
    client.ask("before")?;
    let before = rows(&mut cluster, 0)?;

    let new: Addrs = "172.31.0.99,fd00:31::63".parse()?;
    let old = cluster.nodes[1].addrs();
    let mut script = String::new();
    for (new, old) in new.iter().zip(old.iter()) {
        let (bits, nodad) = if new.is_ipv4() {
            (24, "")
        } else {
            (64, "nodad")
        };
        // In this order: a second address of a range goes with the first.
        script += &format!("addr del {old}/{bits} dev eth0\n");
        script += &format!("addr add {new}/{bits} dev eth0 {nodad}\n");
    }
    script +=
        &format!("route replace default via {OUTSIDE}\nroute replace default via {OUTSIDE_V6}\n");
    let seen = followed(&cluster.nodes[1].netns, old, || {
        cluster.nodes[1].netns.batch(&script)
    })?;
    assert_eq!(seen, new, "the agent notices");
    cluster.nodes[1].with(|datapath| datapath.readdress(seen))?;
    let mut object = cluster.nodes[1].object()?;
    let addresses = object.status.as_mut().and_then(|it| it.addresses.as_mut());
    for (address, new) in addresses.into_iter().flatten().zip(new.iter()) {
        address.address = new.to_string();
    }
    cluster.tell(Object::Node(Box::new(object)))?;

    assert_eq!(client.ask("after")?, "far after");
    let after = rows(&mut cluster, 0)?;
    let changed: Vec<&String> = after.iter().filter(|row| !before.contains(row)).collect();
    assert!(
        changed.iter().all(|row| row.contains("172.31.0.99")),
        "{changed:?}"
    );
    assert!(
        changed.len() <= 3,
        "a row a range, and one of the address: {changed:?}"
    );
    let pod = &cluster.nodes[1].pods[0].netns;
    let _outside = Server::tcp(&cluster.outside, "outside", 7070)?;
    for ip in [IpAddr::from(OUTSIDE), OUTSIDE_V6.into()] {
        assert_eq!(
            ask_tcp(pod, (ip, 7070), "x")?,
            "outside x",
            "masqueraded anew"
        );
    }
    Ok(())
}

/// What an agent that runs in `netns` takes for the node's addresses once `change` was made.
fn followed(netns: &Netns, old: Addrs, change: impl Fn() -> Result<()> + Sync) -> Result<Addrs> {
    let agent = async || -> Result<Addrs> {
        let index = PodLinks::new()?.uplink(old).await?.index;
        let (sender, mut addrs) = tokio::sync::watch::channel(old);
        let shutdown = Shutdown::new();
        let following = tokio::spawn(uplink::follow(index, sender, shutdown.clone()));
        change()?;
        let both = |now: &Addrs| now.iter().all(|ip| !old.contains(ip));
        let seen = tokio::time::timeout(PATIENCE, addrs.wait_for(both)).await;
        let seen = *seen.context("nothing was noticed")??;
        shutdown.trigger();
        following.await??;
        Ok(seen)
    };
    netns.enter(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build()?.block_on(agent())
    })
}

#[test]
fn an_agent_wires_a_pod_in_both_families_and_finds_it_wired_again() -> Result<()> {
    let Some(mut cluster) = two("an_agent_wires", Plan::underlay_v6)? else {
        return Ok(());
    };
    let _server = Server::tcp(&cluster.nodes[1].pods[0].netns, "far", 8080)?;
    let far = cluster.nodes[1].pods[0].wired.addrs;
    let node = &mut cluster.nodes[0];
    // A namespace of the test's, held by a process as a sandbox does.
    let sandbox = node.netns.enter(|| Sandbox::start())?;
    let (v4, v6) = pod_addr(1, 20);
    let wire = Wire {
        uid: "a-pod".into(),
        pid: sandbox.0.id(),
        addrs: [v4.into(), v6.into()].into_iter().collect(),
        gateways: node.gateways(),
        mtu: node.config.overlay_mtu(),
    };
    let guard = node.with(|datapath| datapath.guard().clone());
    let attach = || -> Result<LocalPod> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let wire = async { Ok(PodLinks::new()?.attach(&wire, &guard).await?) };
        runtime.enable_all().build()?.block_on(wire)
    };
    let wired = node.netns.enter(attach)?;
    assert_eq!(node.netns.enter(attach)?, wired, "found as it was made");
    node.with(|datapath| datapath.wired("a-pod".into(), wired, &guard))?;
    for ip in far.iter() {
        let answer = sandbox.inside(|| {
            let mut stream = TcpStream::connect_timeout(&(ip, 8080).into(), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"hello\n")?;
            let mut answer = [0; 10];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        })?;
        assert_eq!(&answer, b"far hello\n", "{ip}");
    }
    Ok(())
}

/// A process in a network namespace of its own.
struct Sandbox(Child);

impl Sandbox {
    fn start() -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo; exec sleep 600"]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut out = child.stdout.take().context("no output")?;
        let sandbox = Self(child);
        out.read_exact(&mut [0])?;
        Ok(sandbox)
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.0.id()))?;
        let run = || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        };
        thread::scope(|scope| scope.spawn(run).join().expect("it panics at nothing"))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rows(cluster: &mut Cluster, node: usize) -> Result<Vec<String>> {
    let dump = cluster.nodes[node].with(|datapath| datapath.dump())?;
    // Flows come and go with whoever asks; what is compared is what agents write.
    let agents = dump.split("flows_v1").next().unwrap_or_default();
    Ok(agents.lines().map(str::to_owned).collect())
}

fn inside(netns: &str, command: &[&str]) -> Result<String> {
    let mut all = Command::new("nsenter");
    all.arg(format!("--net=/run/netns/{netns}")).args(command);
    tests::cluster::output(&mut all)
}
