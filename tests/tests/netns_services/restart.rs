//! Agents that restart under load. Each start loads the programs anew and puts them behind the links that
//! are there, so that an upgrade is the same.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use datapath::log::Filter;
use datapath::{Datapath, attach, syscall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use orchestrator_common::{DropReason, Verdict};
use tests::netns::{Netns, Svc};
use tests::peer::{Client, PATIENCE, receive, udp_for};

use crate::pair::{BESIDE, CLIENT, FAR, Families, OTHER, Pair, TARGET, pair};

const NODE_PORT: u16 = 30080;
const RESTARTS: usize = 10;
/// How often the programs with a log come and go.
const LOGS: usize = 4;
/// TCP connections of a kind and family, and UDP ones.
const STREAMS: u16 = 150;
const DATAGRAMS: u16 = 25;
/// Who talk at once, beside a flood that leaves them little of the machine.
const TALKERS: usize = 20;

#[test]
fn nobody_notices_agents_that_restart_under_a_thousand_connections_and_a_flood_of_new_ones()
-> Result<()> {
    let mut pair = pair!("nobody_notices_agents_that_restart");
    let web = serve(&mut pair)?;
    let (unharmed, passed) = (harm(&pair)?, passed(&pair)?);
    let mut crowd = Crowd::gather(&pair, &web)?;
    crowd.talk("before")?;
    let flood = Flood::start(&pair, &web);
    for restart in 0..RESTARTS {
        let node = restart % pair.cluster.nodes.len();
        let old = programs(&pair, node)?;
        pair.cluster.nodes[node].kill();
        crowd.talk(&format!("without an agent {restart}"))?;
        flood.goes_on()?;
        crowd.talk_during(|| pair.cluster.restart(node))?;
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?.into();
        pair.cluster.nodes[node].with(|datapath| datapath.sweep(now))?;
        flood.goes_on()?;
        let new = programs(&pair, node)?;
        for (link, program) in old {
            assert_ne!(new[&link], program, "{link} still runs what it ran before");
        }
    }
    crowd.talk("after")?;
    let opened = flood.stop()?;
    println!(
        "{RESTARTS} restarts: {} messages on {} connections, {opened} new connections",
        crowd.messages,
        crowd.members.len()
    );
    assert_eq!(harm(&pair)?, unharmed, "what must not be counted");
    let passed = self::passed(&pair)? - passed;
    let least = 2 * (crowd.messages + opened);
    assert!(
        passed >= least,
        "{passed} packets passed, of {least} at least"
    );
    Ok(())
}

#[test]
fn nobody_notices_that_programs_with_a_log_come_and_go() -> Result<()> {
    let mut pair = pair!("nobody_notices_that_programs_with_a_log_come_and_go");
    let web = serve(&mut pair)?;
    let unharmed = harm(&pair)?;
    let mut crowd = Crowd::gather(&pair, &web)?;
    let flood = Flood::start(&pair, &web);
    let filter = Filter {
        packets: true,
        ..Filter::default()
    };
    for round in 0..LOGS {
        let node = round % pair.cluster.nodes.len();
        let config = pair.cluster.nodes[node].config.clone();
        let normal = programs(&pair, node)?;
        let loaded = datapath::load_log(&config.pin_root, &config.node_name, &filter);
        let (programs_with_log, records) = loaded?;
        let (mut lines, gathering) = records.split();
        let gathered = thread::spawn(move || gathering.run());
        let begin = |datapath: &mut Datapath| datapath.begin_log(programs_with_log);
        crowd.talk_during(|| Ok(pair.cluster.nodes[node].with(begin)?))?;
        lines.blocking_recv().context("nothing is logged")?;
        flood.goes_on()?;
        for (link, program) in programs(&pair, node)? {
            assert_ne!(normal[&link], program, "{link} logs nothing");
        }
        let end = Datapath::end_log;
        crowd.talk_during(|| Ok(pair.cluster.nodes[node].with(end)?))?;
        assert_eq!(programs(&pair, node)?, normal);
        drop(lines);
        gathered.join().expect("it panics at nothing")?;
        flood.goes_on()?;
    }
    crowd.talk("after")?;
    flood.stop()?;
    assert_eq!(harm(&pair)?, unharmed, "what must not be counted");
    Ok(())
}

/// A Service with a backend at each place, and room for as many sockets as the tests open.
fn serve(pair: &mut Pair) -> Result<Svc> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    for flooded in [pair.pod(CLIENT), pair.outside()] {
        // Or a port of the client's would be missing before long.
        flooded.sysctl("ipv4/tcp_tw_reuse", "1")?;
    }
    let web = Svc::new("web", 10)
        .port(80, TARGET)
        .node_port(NODE_PORT)
        .udp(80, TARGET)
        .node_port(NODE_PORT);
    let backends = [BESIDE, FAR, OTHER].map(|who| pair.ep(who));
    pair.cluster.apply(&web.clone().to(backends))?;
    Ok(web)
}

/// Connections that last, and who answers on each.
struct Crowd {
    members: Vec<Member>,
    messages: u64,
}

struct Member {
    what: String,
    by: String,
    line: Line,
}

enum Line {
    Stream(Client),
    Datagrams(UdpSocket),
}

impl Crowd {
    /// A thousand: translated at connect, packet by packet, and from outside; of both families.
    fn gather(pair: &Pair, web: &Svc) -> Result<Self> {
        let mut members = Vec::new();
        let mut join = |what: &dyn Debug, line: io::Result<Line>| -> Result<()> {
            let what = format!("{what:?}");
            let line = line.with_context(|| what.clone())?;
            members.push(Member::new(what, line)?);
            Ok(())
        };
        let (pod, outside) = (pair.pod(CLIENT), pair.outside());
        for ip in web.each_ip() {
            let own = pair.addr_like(CLIENT, ip);
            let node = node_addr(pair, ip)?;
            for nth in 0..STREAMS {
                let at_connect = Client::connect(pod, (ip, 80));
                join(&("at connect", ip, nth), at_connect.map(Line::Stream))?;
                let by_packet = Client::connect_from(pod, (own, 20_000 + nth), (ip, 80));
                join(&("by packet", ip, nth), by_packet.map(Line::Stream))?;
                let from_outside = Client::connect(outside, (node, NODE_PORT));
                join(&("from outside", node, nth), from_outside.map(Line::Stream))?;
            }
            for nth in 0..DATAGRAMS {
                let inside = datagrams(pod, (ip, 80).into());
                join(&("datagrams", ip, nth), inside.map(Line::Datagrams))?;
                let from_outside = datagrams(outside, (node, NODE_PORT).into());
                let from_outside = from_outside.map(Line::Datagrams);
                join(&("datagrams from outside", node, nth), from_outside)?;
            }
        }
        assert_eq!(members.len(), 1000);
        let messages = 0;
        Ok(Self { members, messages })
    }

    /// One message on each connection, answered by who has answered before.
    fn talk(&mut self, question: &str) -> Result<()> {
        let share = self.members.len().div_ceil(TALKERS);
        let talk = |members: &mut [Member]| members.iter_mut().try_for_each(|it| it.talk(question));
        thread::scope(|scope| {
            let shares = self.members.chunks_mut(share);
            let talkers: Vec<_> = shares.map(|share| scope.spawn(|| talk(share))).collect();
            let ends = talkers.into_iter();
            ends.map(|it| it.join().expect("it panics at nothing"))
                .collect::<Result<()>>()
        })?;
        self.messages += self.members.len() as u64;
        Ok(())
    }

    /// Goes on talking for as long as the work takes.
    fn talk_during(&mut self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let talking = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    self.talk("meanwhile")?;
                }
                Ok(())
            });
            let worked = work();
            done.store(true, Ordering::Relaxed);
            let talked = talking.join().expect("it panics at nothing");
            worked.and(talked)
        })
    }
}

impl Member {
    fn new(what: String, mut line: Line) -> Result<Self> {
        let answer = line.ask("x").with_context(|| what.clone())?;
        let by = answer
            .strip_suffix(" x")
            .context(answer.clone())?
            .to_owned();
        Ok(Self { what, by, line })
    }

    fn talk(&mut self, question: &str) -> Result<()> {
        let Self { what, by, line } = self;
        let answer = line.ask(question);
        let answer = answer.with_context(|| format!("{what}, {question}"))?;
        ensure!(answer == format!("{by} {question}"), "{what}: {answer}");
        Ok(())
    }
}

impl Line {
    fn ask(&mut self, question: &str) -> io::Result<String> {
        match self {
            Self::Stream(client) => client.ask(question),
            Self::Datagrams(socket) => {
                socket.send(question.as_bytes())?;
                Ok(receive(socket)?.0)
            }
        }
    }
}

fn datagrams(netns: &Netns, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = udp_for(netns, to.ip())?;
    socket.connect(to)?;
    Ok(socket)
}

/// Clients that open connections as fast as they can, one message each.
struct Flood {
    stop: Arc<AtomicBool>,
    clients: Vec<(Arc<AtomicU64>, JoinHandle<Result<()>>)>,
}

impl Flood {
    fn start(pair: &Pair, web: &Svc) -> Self {
        let mut flood = Self {
            stop: Arc::default(),
            clients: Vec::new(),
        };
        flood.client(pair.pod(CLIENT), (web.v4(), 80).into());
        let node = node_addr(pair, web.v6()).expect("both families");
        flood.client(pair.outside(), (node, NODE_PORT).into());
        flood
    }

    fn client(&mut self, netns: &Netns, to: SocketAddr) {
        let opened = Arc::new(AtomicU64::new(0));
        let (stop, count) = (Arc::clone(&self.stop), Arc::clone(&opened));
        let open = move || {
            while !stop.load(Ordering::Relaxed) {
                let answer = Client::connect_here(to, PATIENCE)
                    .and_then(|mut client| client.ask("x"))
                    .with_context(|| format!("new connection to {to}"))?;
                ensure!(answer.ends_with(" x"), "{to}: {answer:?}");
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        self.clients.push((opened, netns.spawn(open)));
    }

    /// Every client opens at least one more connection.
    fn goes_on(&self) -> Result<()> {
        let begun = Instant::now();
        for (opened, client) in &self.clients {
            let before = opened.load(Ordering::Relaxed);
            // One may have been on its way before.
            while opened.load(Ordering::Relaxed) < before + 2 && !client.is_finished() {
                ensure!(begun.elapsed() < PATIENCE, "new connections do not come");
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// How many connections there were.
    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = 0;
        for (opened, client) in self.clients {
            client.join().expect("it panics at nothing")?;
            all += opened.load(Ordering::Relaxed);
        }
        Ok(all)
    }
}

/// What counts resets, failed connects and drops, wherever the load comes by.
fn harm(pair: &Pair) -> Result<BTreeMap<String, u64>> {
    let mut harm = BTreeMap::new();
    let pods = [CLIENT, BESIDE, FAR, OTHER].map(|who| pair.pod(who));
    for netns in pods.into_iter().chain([pair.outside()]) {
        let counted = netns.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
        let mut lines = counted
            .lines()
            .filter_map(|line| line.strip_prefix("Tcp: "));
        let names = lines.next().context("no names")?.split(' ');
        let values = lines.next().context("no values")?.split(' ');
        for (name, value) in names.zip(values) {
            if ["AttemptFails", "EstabResets", "OutRsts"].contains(&name) {
                harm.insert(format!("{} {name}", netns.name), value.parse()?);
            }
        }
    }
    for node in &pair.cluster.nodes {
        for (name, count) in node.counters()? {
            // Pods' kernels send some of their own.
            let multicast = DropReason::NotUnicast.name();
            let is_reason = DropReason::ALL.iter().any(|reason| reason.name() == name);
            if is_reason && name != multicast {
                harm.insert(format!("{} {name}", node.netns.name), count);
            }
        }
    }
    Ok(harm)
}

/// Packets that the programs have sent on.
fn passed(pair: &Pair) -> Result<u64> {
    let mut passed = 0;
    for node in &pair.cluster.nodes {
        for verdict in [Verdict::Peer, Verdict::Overlay, Verdict::Outside] {
            passed += node.counted(verdict.name())?;
        }
    }
    Ok(passed)
}

/// The program behind each link of a node.
fn programs(pair: &Pair, node: usize) -> Result<BTreeMap<String, u32>> {
    let config = &pair.cluster.nodes[node].config;
    let links = config.pin_root.join(&config.node_name).join("links");
    let mut programs = BTreeMap::new();
    for name in attach::names(&links)? {
        let link = syscall::pinned(&links.join(&name))?;
        programs.insert(name, syscall::link_info(link.as_fd())?.program_id);
    }
    ensure!(!programs.is_empty(), "nothing is attached");
    Ok(programs)
}

/// The first node's address of a family.
fn node_addr(pair: &Pair, like: IpAddr) -> Result<IpAddr> {
    let addrs = pair.node_addrs(0, Families::Dual);
    let mut alike = addrs
        .into_iter()
        .filter(|it| it.is_ipv4() == like.is_ipv4());
    alike.next().context("nodes have both families")
}
