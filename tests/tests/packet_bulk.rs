//! Packets that are larger than the wire: what segmentation offload hands to the programs, with
//! checksums that nobody has computed yet, arrives whole on every path.

use std::io::{IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use datapath::view::Protocol;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use tests::netns::{Cluster, Netns, OUTSIDE, Plan, Svc, ready};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
const BYTES: usize = 32 << 20;

/// Two nodes with a pod each, and a second one beside the first.
struct World {
    cluster: Cluster,
    neighbour: Ipv4Addr,
    far: Ipv4Addr,
    /// Without processes: the socket programs see nobody, and TCP is translated packet by packet.
    cgroup: Option<tempfile::TempDir>,
}

impl World {
    fn start(test: &str, with_sockets: bool) -> Result<Option<World>> {
        if !ready(test) {
            return Ok(None);
        }
        let root = datapath::mount::cgroup_root()?;
        let cgroup = if with_sockets {
            None
        } else {
            Some(tempfile::tempdir_in(&root)?)
        };
        let at = cgroup
            .as_ref()
            .map_or(root.as_path(), |cgroup| cgroup.path());
        let mut cluster = Cluster::start_in(2, at)?;
        cluster.nodes[0].add_pod(5)?;
        let neighbour = cluster.nodes[0].add_pod(6)?;
        let far = cluster.nodes[1].add_pod(5)?;
        cluster.in_sync()?;
        Ok(Some(World {
            cluster,
            neighbour,
            far,
            cgroup,
        }))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The kernel's files in it cannot be removed one by one, as a temporary directory would.
        if let Some(cgroup) = self.cgroup.take() {
            let _ = std::fs::remove_dir(cgroup.keep());
        }
    }
}

#[test]
fn a_tcp_stream_arrives_whole_on_every_path() -> Result<()> {
    let Some(mut world) = World::start("tcp streams", true)? else {
        return Ok(());
    };
    world
        .cluster
        .service(SERVICE, 80, Protocol::Tcp, &[(world.far, 9000)])?;
    let nodes = &world.cluster.nodes;
    let pod = &nodes[0].pods[0].netns;
    let far = &nodes[1].pods[0].netns;
    stream("pod to far pod", pod, far, 9000, world.far, 9000)?;
    stream(
        "far pod to pod",
        far,
        &nodes[0].pods[1].netns,
        9001,
        world.neighbour,
        9001,
    )?;
    stream(
        "pod to pod beside",
        pod,
        &nodes[0].pods[1].netns,
        9002,
        world.neighbour,
        9002,
    )?;
    stream(
        "node to far pod",
        &nodes[0].netns,
        far,
        9003,
        world.far,
        9003,
    )?;
    stream(
        "pod to outside",
        pod,
        &world.cluster.outside,
        9004,
        OUTSIDE,
        9004,
    )?;
    stream("pod to Service", pod, far, 9000, SERVICE, 80)?;
    Ok(())
}

#[test]
fn a_tcp_stream_that_is_translated_packet_by_packet_arrives_whole() -> Result<()> {
    let Some(mut world) = World::start("translated streams", false)? else {
        return Ok(());
    };
    world
        .cluster
        .service(SERVICE, 80, Protocol::Tcp, &[(world.far, 9000)])?;
    world
        .cluster
        .service(SERVICE, 81, Protocol::Tcp, &[(world.neighbour, 9001)])?;
    world
        .cluster
        .service(SERVICE, 82, Protocol::Tcp, &[(OUTSIDE, 9002)])?;
    let nodes = &world.cluster.nodes;
    let pod = &nodes[0].pods[0].netns;
    stream(
        "to far pod",
        pod,
        &nodes[1].pods[0].netns,
        9000,
        SERVICE,
        80,
    )?;
    stream(
        "to pod beside",
        pod,
        &nodes[0].pods[1].netns,
        9001,
        SERVICE,
        81,
    )?;
    stream("to outside", pod, &world.cluster.outside, 9002, SERVICE, 82)?;
    stream(
        "node to far pod",
        &nodes[0].netns,
        &nodes[1].pods[0].netns,
        9000,
        SERVICE,
        80,
    )?;
    Ok(())
}

#[test]
fn datagrams_sent_in_one_call_arrive_apart_and_whole() -> Result<()> {
    let Some(mut world) = World::start("segmented datagrams", true)? else {
        return Ok(());
    };
    world
        .cluster
        .service(SERVICE, 53, Protocol::Udp, &[(world.far, 9000)])?;
    let nodes = &world.cluster.nodes;
    let (pod, far) = (&nodes[0].pods[0].netns, &nodes[1].pods[0].netns);
    datagrams("pod to far pod", pod, far, 9000, (world.far.into(), 9000))?;
    datagrams("pod to Service", pod, far, 9000, (SERVICE.into(), 53))?;
    datagrams(
        "pod to outside",
        pod,
        &world.cluster.outside,
        9000,
        (OUTSIDE.into(), 9000),
    )?;
    Ok(())
}

#[test]
fn datagrams_sent_in_one_call_arrive_apart_and_whole_where_the_backend_answers_directly()
-> Result<()> {
    if !ready("segmented datagrams, direct return") {
        return Ok(());
    }
    let mut cluster = Plan::nodes(2).start()?;
    cluster.nodes[1].add_pod(5)?;
    cluster.in_sync()?;
    for index in 0..2 {
        cluster.nodes[index].config.dsr = true;
        cluster.restart(index)?;
    }
    let service = Svc::new("datagrams", 21).udp(80, 9000).node_port(30_081);
    cluster.apply(&service.to([cluster.nodes[1].ep(0)]))?;
    let far = &cluster.nodes[1].pods[0].netns;
    let node = &cluster.nodes[0];
    for at in [node.v4(), node.v6()] {
        let path = format!("outside to {at}");
        let before = node.counted("overlay")?;
        datagrams(&path, &cluster.outside, far, 9000, (at, 30_081))?;
        assert_eq!(node.counted("overlay")?, before + 1, "nobody cut it before");
    }
    Ok(())
}

/// Sends a known stream, which the other end compares; prints how fast, for who reads the output.
fn stream(
    path: &str,
    from: &Netns,
    to: &Netns,
    listen: u16,
    addr: Ipv4Addr,
    port: u16,
) -> Result<()> {
    let listener = to.enter(|| TcpListener::bind(("0.0.0.0", listen)))?;
    let data: Arc<Vec<u8>> = Arc::new((0..BYTES).map(|at| (at * 7 + at / 251) as u8).collect());
    let expected = data.clone();
    let server = thread::spawn(move || -> std::io::Result<()> {
        let (mut peer, _) = listener.accept()?;
        let (mut buffer, mut total) = (vec![0; 1 << 16], 0);
        while total < BYTES {
            let got = peer.read(&mut buffer)?;
            assert!(got > 0, "the stream ended after {total} bytes");
            assert!(
                buffer[..got] == expected[total..total + got],
                "altered after {total} bytes"
            );
            total += got;
        }
        peer.write_all(b"!")
    });
    let to = SocketAddr::from((addr, port));
    let mut client = from.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))?;
    client.set_read_timeout(Some(Duration::from_secs(30)))?;
    let start = Instant::now();
    client.write_all(&data)?;
    client.read_exact(&mut [0])?;
    let speed = BYTES as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("{path}: {speed:.0} MB/s");
    server.join().expect("the server found the stream whole")?;
    Ok(())
}

/// Sends twenty datagrams as one packet for the kernel to cut.
fn datagrams(
    path: &str,
    from: &Netns,
    to: &Netns,
    listen: u16,
    (addr, port): (IpAddr, u16),
) -> Result<()> {
    const SIZE: usize = 1000;
    const COUNT: usize = 20;
    let server = to.enter(|| UdpSocket::bind(("::", listen)))?;
    server.set_read_timeout(Some(Duration::from_secs(5)))?;
    let any = if addr.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let client = from.enter(|| UdpSocket::bind(any))?;
    let data: Vec<u8> = (0..SIZE * COUNT)
        .map(|at| (at / SIZE + at * 3) as u8)
        .collect();
    let size = SIZE as u16;
    let to = SockaddrStorage::from(SocketAddr::from((addr, port)));
    let (slices, cut) = (
        [IoSlice::new(&data)],
        [ControlMessage::UdpGsoSegments(&size)],
    );
    sendmsg(
        client.as_raw_fd(),
        &slices,
        &cut,
        MsgFlags::empty(),
        Some(&to),
    )?;
    for expected in data.chunks(SIZE) {
        let mut buffer = [0; 2 * SIZE];
        let got = server.recv(&mut buffer).with_context(|| path.to_owned())?;
        assert!(buffer[..got] == *expected, "{path}: a datagram was altered");
    }
    Ok(())
}
