//! A sweep of sizes: writes from one byte to 64 KiB and around each multiple of the segment size,
//! TCP and UDP, both families, with segmentation offload: nothing is lost, nothing altered, and no
//! more is resent than without the datapath; nor does the kernel complain.

use std::collections::BTreeSet;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use tests::kernel_log::KernelLog;
use tests::netns::{Cluster, Netns, OUTSIDE, OUTSIDE_V6, Plan, Svc, ready};
use tests::peer::PATIENCE;

const PORT: u16 = 9000;
const LARGEST: usize = 64 << 10;

/// What a loaded machine resends of itself, in a sweep of some hundred writes.
const SPURIOUS: u64 = 3;

/// Where the packets go: a name, who sends, who receives, and the addresses to send to.
struct Route<'a> {
    name: &'static str,
    from: &'a Netns,
    to: &'a Netns,
    addrs: [IpAddr; 2],
    port: u16,
}

fn cluster(test: &str, plan: Plan) -> Result<Option<(Cluster, Svc)>> {
    if !ready(test) {
        return Ok(None);
    }
    let mut cluster = plan.start()?;
    for (node, number) in [(0, 5), (0, 6), (1, 5)] {
        cluster.nodes[node].add_pod(number)?;
    }
    cluster.in_sync()?;
    let service = Svc::new("sizes", 10).port(80, PORT).udp(80, PORT);
    let service = service.to([cluster.nodes[1].ep(0)]);
    cluster.apply(&service)?;
    Ok(Some((cluster, service)))
}

fn routes<'a>(cluster: &'a Cluster, service: &Svc) -> Vec<Route<'a>> {
    let (near, far) = (&cluster.nodes[0], &cluster.nodes[1]);
    let pod = |pod: &tests::netns::Pod| [pod.addr.into(), pod.v6.into()];
    let route = |name, from, to, addrs, port| Route {
        name,
        from,
        to,
        addrs,
        port,
    };
    let outside = [OUTSIDE.into(), OUTSIDE_V6.into()];
    let asked = [service.v4(), service.v6()];
    let (own, neighbour) = (&near.pods[0].netns, &near.pods[1]);
    let remote = &far.pods[0];
    vec![
        route("to far pod", own, &remote.netns, pod(remote), PORT),
        route("to neighbour", own, &neighbour.netns, pod(neighbour), PORT),
        route("to Service", own, &remote.netns, asked, 80),
        route("to outside", own, &cluster.outside, outside, PORT),
        route(
            "node to far pod",
            &near.netns,
            &remote.netns,
            pod(remote),
            PORT,
        ),
    ]
}

#[test]
fn tcp_writes_of_every_size_arrive_whole_and_once() -> Result<()> {
    // Without socket programs the Service is translated packet by packet.
    let Some((cluster, service)) = cluster("tcp sizes", Plan::nodes(2).per_packet())? else {
        return Ok(());
    };
    no_more_is_resent(&cluster, &routes(&cluster, &service))
}

#[test]
fn tcp_writes_of_every_size_cross_an_ipv6_underlay() -> Result<()> {
    let plan = Plan::nodes(2).underlay_v6().per_packet();
    let Some((cluster, service)) = cluster("tcp sizes, v6 underlay", plan)? else {
        return Ok(());
    };
    no_more_is_resent(&cluster, &routes(&cluster, &service))
}

#[test]
fn datagrams_of_every_size_arrive_whole() -> Result<()> {
    datagrams("udp sizes", Plan::nodes(2), Taken::OneByOne)
}

#[test]
fn datagrams_of_every_size_are_taken_many_at_once() -> Result<()> {
    datagrams("udp sizes, many at once", Plan::nodes(2), Taken::ManyAtOnce)
}

#[test]
fn datagrams_of_every_size_cross_an_ipv6_underlay() -> Result<()> {
    for taken in [Taken::OneByOne, Taken::ManyAtOnce] {
        let plan = Plan::nodes(2).underlay_v6();
        datagrams("udp sizes, v6 underlay", plan, taken)?;
    }
    Ok(())
}

fn datagrams(test: &str, plan: Plan, taken: Taken) -> Result<()> {
    let Some((cluster, service)) = cluster(test, plan)? else {
        return Ok(());
    };
    let mtu = cluster.nodes[0].config.overlay_mtu() as usize;
    let mut log = KernelLog::from_now();
    for route in routes(&cluster, &service) {
        udp(&route, mtu, taken)?;
    }
    no_warning(&mut log)
}

/// Segments that are sent again, compared with a path that has nothing of ours on it.
fn no_more_is_resent(cluster: &Cluster, routes: &[Route<'_>]) -> Result<()> {
    let direct = Route {
        name: "outside to node",
        from: &cluster.outside,
        to: &cluster.nodes[1].netns,
        addrs: [cluster.nodes[1].v4(), cluster.nodes[1].v6()],
        port: PORT,
    };
    let mut log = KernelLog::from_now();
    let baseline = fewest_resent(&direct)?;
    for route in routes {
        let resent = fewest_resent(route)?;
        ensure!(
            resent <= baseline + SPURIOUS,
            "{}: {resent} segments were resent, {baseline} on a direct path",
            route.name
        );
    }
    no_warning(&mut log)
}

/// Of what a device was left to do and could not, the kernel says so.
fn no_warning(log: &mut Option<KernelLog>) -> Result<()> {
    let Some(log) = log else {
        return Ok(()); // not shown here
    };
    let warnings = log.warnings()?;
    let of_packets = ["WARNING", "BUG", "caps=", "csum", "skb", "offload", "gso"];
    let is = |warning: &&String| of_packets.iter().any(|word| warning.contains(word));
    let found: Vec<_> = warnings.iter().filter(is).collect();
    ensure!(found.is_empty(), "the kernel complains: {warnings:#?}");
    Ok(())
}

/// The best of three sweeps: a machine that is busy resends in some of them, whatever the path.
fn fewest_resent(route: &Route<'_>) -> Result<u64> {
    let mut fewest = u64::MAX;
    for _ in 0..3 {
        fewest = fewest.min(tcp(route)?);
        if fewest == 0 {
            break;
        }
    }
    Ok(fewest)
}

/// One connection a family; every write comes back as it was. How many segments were sent twice, for
/// they were lost or overtaken.
fn tcp(route: &Route<'_>) -> Result<u64> {
    let listener = route
        .to
        .enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)))?;
    let families = route.addrs.len();
    let server = thread::spawn(move || -> io::Result<()> {
        for _ in 0..families {
            let (mut peer, _) = listener.accept()?;
            peer.set_nodelay(true)?;
            let mut buffer = vec![0; LARGEST];
            loop {
                match peer.read(&mut buffer)? {
                    0 => break,
                    came => peer.write_all(&buffer[..came])?,
                }
            }
        }
        Ok(())
    });
    let before = resent(route)?;
    for addr in route.addrs {
        let to = SocketAddr::new(addr, route.port);
        let case = || format!("{} at {to}", route.name);
        let connect = || TcpStream::connect_timeout(&to, PATIENCE);
        let mut stream = route.from.enter(connect).with_context(case)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let segment = nix::sys::socket::getsockopt(&stream, sockopt::TcpMaxSeg)?;
        for size in sizes(segment as usize) {
            let data = pattern(size);
            stream.write_all(&data).with_context(case)?;
            let mut back = vec![0; size];
            let came = stream.read_exact(&mut back);
            came.with_context(|| format!("{}: {size} bytes", case()))?;
            ensure!(back == data, "{}: {size} bytes were altered", case());
        }
    }
    server.join().expect("it panics at nothing")?;
    let after = resent(route)?;
    let [again, needless, overtaken] = [0, 1, 2].map(|at| after[at] - before[at]);
    // What only a timer sends again, on a busy machine and for nothing, tells nothing of the path.
    Ok(again.saturating_sub(needless).max(overtaken))
}

/// How a server reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    OneByOne,
    /// As the kernel has them: those that came as one packet in one piece.
    ManyAtOnce,
}

/// Each size as one datagram, and as many of it as fit in one call, cut by the kernel.
fn udp(route: &Route<'_>, mtu: usize, taken: Taken) -> Result<()> {
    let server = route
        .to
        .enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)))?;
    server.set_read_timeout(Some(PATIENCE))?;
    setsockopt(&server, sockopt::RcvBufForce, &(8 << 20))?;
    setsockopt(
        &server,
        sockopt::UdpGroSegment,
        &(taken == Taken::ManyAtOnce),
    )?;
    for addr in route.addrs {
        let to = SocketAddr::new(addr, route.port);
        let any: IpAddr = match addr {
            IpAddr::V4(_) => [0; 4].into(),
            IpAddr::V6(_) => [0; 16].into(),
        };
        let client = route.from.enter(|| UdpSocket::bind((any, 0)))?;
        setsockopt(&client, sockopt::SndBuf, &(4 << 20))?;
        // IP and UDP headers: what a packet of the overlay holds beside them.
        let headers = if addr.is_ipv4() { 28 } else { 48 };
        let whole = mtu - headers;
        let mut reads = 0;
        let mut came = 0;
        for size in sizes(whole).into_iter().filter(|size| *size <= 65_000) {
            let case = || format!("{} at {to}: {size} bytes", route.name);
            client.send_to(&pattern(size), to).with_context(case)?;
            expect(&server, size, 1).with_context(case)?;
            if size > whole {
                continue; // a datagram cannot be both cut and fragmented
            }
            let count = (65_000 / size).clamp(1, 60);
            let data: Vec<u8> = (0..count).flat_map(|_| pattern(size)).collect();
            let cut = [ControlMessage::UdpGsoSegments(&(size as u16))];
            let (slices, peer) = ([IoSlice::new(&data)], SockaddrStorage::from(to));
            let sent = sendmsg(
                client.as_raw_fd(),
                &slices,
                &cut,
                MsgFlags::empty(),
                Some(&peer),
            );
            sent.with_context(case)?;
            reads += expect(&server, size, count).with_context(case)?;
            came += count;
        }
        match taken {
            Taken::OneByOne => ensure!(reads == came, "{to}: {came} came in {reads} reads"),
            Taken::ManyAtOnce => ensure!(reads < came, "{to}: each came on its own"),
        }
    }
    Ok(())
}

/// So many datagrams of that size, as they were sent, and no others. Returns in how many reads.
fn expect(server: &UdpSocket, size: usize, count: usize) -> Result<usize> {
    let expected = pattern(size);
    let (mut came, mut reads) = (0, 0);
    while came < count {
        let got = read(server).with_context(|| format!("datagram {came} of {count}"))?;
        for datagram in got {
            ensure!(datagram == expected, "datagram {came} was altered");
            came += 1;
        }
        reads += 1;
    }
    ensure!(came == count, "{came} datagrams of {count}");
    Ok(reads)
}

/// One datagram, or several that the kernel gives in one piece with the length of each.
fn read(server: &UdpSocket) -> Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0; LARGEST];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!(i32);
    let flags = MsgFlags::empty();
    let got = recvmsg::<()>(server.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let length = got.bytes;
    let mut each = length;
    for message in got.cmsgs()? {
        if let ControlMessageOwned::UdpGroSegments(size) = message {
            each = usize::try_from(size)?;
        }
    }
    let datagrams = buffer[..length].chunks(each.max(1));
    Ok(datagrams.map(<[u8]>::to_vec).collect())
}

/// Small ones, all within 64 bytes of a segment, those beside its multiples, and large ones.
fn sizes(segment: usize) -> BTreeSet<usize> {
    let around = (segment - 64)..=(segment + 64);
    let multiples = (2..).map(|n| n * segment).take_while(|n| *n < LARGEST);
    let beside = multiples.flat_map(|n| [n - 1, n, n + 1]);
    let others = [
        1,
        2,
        3,
        7,
        64,
        511,
        1000,
        4096,
        9000,
        16_384,
        32_767,
        LARGEST - 1,
        LARGEST,
    ];
    around
        .chain(beside)
        .chain(others)
        .filter(|size| *size <= LARGEST)
        .collect()
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| (at * 7 + at / 251 + size) as u8)
        .collect()
}

/// What both ends count: segments sent again, those of them that the receiver says it had, and those
/// that were sent again because later ones had come before them.
fn resent(route: &Route<'_>) -> Result<[u64; 3]> {
    let both = |table, group, name| -> Result<u64> {
        let [from, to] = [route.from, route.to].map(|end| counted(end, table, group, name));
        Ok(from? + to?)
    };
    Ok([
        both("snmp", "Tcp:", "RetransSegs")?,
        both("netstat", "TcpExt:", "TCPDSACKRecvSegs")?,
        both("netstat", "TcpExt:", "TCPFastRetrans")?,
    ])
}

/// A number of the kernel's, of a table whose first row names its columns.
fn counted(netns: &Netns, table: &str, group: &str, name: &str) -> Result<u64> {
    let path = format!("/proc/thread-self/net/{table}");
    let text = netns.enter(|| std::fs::read_to_string(path))?;
    let mut rows = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (rows.next().unwrap_or(""), rows.next().unwrap_or(""));
    let mut columns = names.split(' ').zip(values.split(' '));
    let found = columns.find(|(column, _)| *column == name);
    let (_, count) = found.with_context(|| format!("the kernel counts no {name}"))?;
    Ok(count.parse()?)
}
