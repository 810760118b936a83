//! The oracle's cases with real sockets: one cluster of namespaces for all of them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use datapath::{Change, NodeView, ObjectKey, ServiceView, SliceView};
use tests::netns::{Cluster, Netns};
use tests::oracle::cases::{Asker, Case, Setting, generated, named};
use tests::oracle::run::{Executor, run};
use tests::oracle::world::{NODES, TARGET, World, outside, share, underlay};
use tests::oracle::{Answer, Asked, Client, End, reachable};
use tests::peer;

/// How long silence must last to be one.
const SILENCE: Duration = Duration::from_millis(150);

fn main() -> ExitCode {
    let skipped = if !nix::unistd::geteuid().is_root() {
        Some("it needs root")
    } else if !datapath::object::is_embedded() {
        Some("no datapath is built in: run `cargo xtask build-ebpf` and build again")
    } else {
        None
    };
    let mut cases = named();
    cases.extend(generated(0..1));
    run::<Live>(cases, skipped)
}

/// The cluster, the servers of every endpoint, and which world it was told of last.
struct Live {
    // Before the cluster: servers go before their namespaces.
    servers: BTreeMap<(End, bool), peer::Server>,
    cluster: Cluster,
    setting: Option<Setting>,
    via: Option<(u8, bool)>,
}

impl Executor for Live {
    fn start() -> Result<Self> {
        let mut cluster = Cluster::start(NODES.len() as u8)?;
        for node in &mut cluster.nodes {
            for octet in [5, 6] {
                node.add_pod(octet)?;
            }
        }
        let world = World::new();
        for node in &world.nodes {
            let name = node.metadata.name.clone().context("nodes have names")?;
            cluster.change(&Change::Node(name, NodeView::from_object(node)))?;
        }
        cluster.in_sync()?;
        let mut live = Live {
            servers: BTreeMap::new(),
            cluster,
            setting: None,
            via: None,
        };
        live.serve()?;
        Ok(live)
    }

    fn judge(&mut self, case: &Case) -> Result<()> {
        let world = case.setting.world();
        if self.setting.as_ref() != Some(&case.setting) {
            self.tell(&world)?;
            self.setting = Some(case.setting.clone());
        }
        if let Asker::OutsideHere | Asker::OutsideThere = case.asker {
            let node = if case.asker == Asker::OutsideHere {
                1
            } else {
                2
            };
            self.lead(node, case.setting.v4)?;
        }
        // Both transports at once: silence takes its time.
        let [tcp, udp] = case
            .asked()
            .map(|asked| (asked, reachable(&world, case.client(), asked)));
        let compare = |(asked, expected): &(Asked, Answer)| {
            self.compare(case.client(), *asked, expected)
                .with_context(|| format!("{asked:?} from {:?}", case.client()))
        };
        let (tcp, udp) = thread::scope(|scope| {
            let tcp = scope.spawn(|| compare(&tcp));
            {
                let udp = compare(&udp);
                (tcp.join().expect("a comparison panics at nothing"), udp)
            }
        });
        tcp.and(udp)
    }
}

impl Live {
    fn serve(&mut self) -> Result<()> {
        for v4 in [true, false] {
            for number in [1, 2] {
                let node = &self.cluster.nodes[usize::from(number) - 1];
                let mut places = vec![(underlay(v4, 10 + number), &node.netns)];
                for (pod, octet) in node.pods.iter().zip([5, 6]) {
                    places.push((share(number, v4, octet), &pod.netns));
                }
                if number == 1 {
                    places.push((outside(v4), &self.cluster.outside));
                }
                for (addr, netns) in places {
                    let (end, name) = ((addr, TARGET), addr.to_string());
                    let tcp = peer::Server::tcp_at(netns, &name, end.into());
                    let udp = peer::Server::udp_at(netns, &name, end.into());
                    self.servers
                        .insert((end, false), tcp.with_context(|| name.clone())?);
                    self.servers
                        .insert((end, true), udp.with_context(|| name.clone())?);
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, world: &World) -> Result<()> {
        for service in &world.services {
            let name = service.metadata.name.clone().unwrap_or_default();
            let view = ServiceView::from_object(service);
            self.cluster
                .change(&Change::Service(ObjectKey::new("default", name), view))?;
        }
        for node in &mut self.cluster.nodes {
            for slice in &world.slices {
                let name = slice.metadata.name.clone().unwrap_or_default();
                let view = SliceView::from_object(slice, &node.config.node_name);
                let change = Change::Slice(ObjectKey::new("default", name), view);
                node.with(|datapath| datapath.change(change))?;
            }
        }
        // As the agent does after changes.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        for node in &mut self.cluster.nodes {
            node.with(|datapath| runtime.block_on(datapath.follow_routes()))?;
        }
        Ok(())
    }

    /// Sends what outside has for Services to that node.
    fn lead(&mut self, node: u8, v4: bool) -> Result<()> {
        if self.via == Some((node, v4)) {
            return Ok(());
        }
        let ranges = if v4 {
            ["10.96.0.0/16", "192.0.2.0/24"]
        } else {
            ["fd00:96::/112", "2001:db8::/64"]
        };
        for range in ranges {
            let via = underlay(v4, 10 + node);
            self.cluster
                .outside
                .ip(&format!("route replace {range} via {via}"))?;
        }
        self.via = Some((node, v4));
        Ok(())
    }

    fn compare(&self, client: Client<'_>, asked: Asked, expected: &Answer) -> Result<()> {
        let netns = self.netns(client);
        let at = SocketAddr::from((asked.addr, asked.port));
        let wait = if matches!(expected, Answer::Dropped | Answer::Denied) {
            SILENCE
        } else {
            peer::PATIENCE
        };
        let times = if matches!(expected, Answer::From(ends) if ends.len() > 1) {
            4
        } else {
            1
        };
        for _ in 0..times {
            let heard = if asked.udp {
                ask_udp(netns, at, wait)
            } else {
                ask_tcp(netns, at, wait)
            };
            match (expected, heard) {
                (Answer::From(ends), Ok(name)) => {
                    let end = (name.parse::<IpAddr>().context(name)?, TARGET);
                    let Some(sources) = ends.get(&end) else {
                        bail!("{} answered, not one of {ends:?}", end.0);
                    };
                    let server = &self.servers[&(end, asked.udp)];
                    let seen = server
                        .heard()
                        .last()
                        .context("nobody was heard")?
                        .ip()
                        .to_canonical();
                    ensure!(
                        sources.contains(&seen),
                        "{} saw {seen}, not one of {sources:?}",
                        end.0
                    );
                }
                (Answer::Refused, Err(ErrorKind::ConnectionRefused)) => {}
                (Answer::Denied, Err(ErrorKind::ConnectionRefused)) => {}
                (
                    Answer::Dropped | Answer::Denied,
                    Err(ErrorKind::TimedOut | ErrorKind::WouldBlock),
                ) => {}
                (expected, heard) => bail!("{heard:?}, not {expected:?}"),
            }
        }
        Ok(())
    }

    fn netns(&self, client: Client<'_>) -> &Netns {
        let node = |name: &str| {
            let mut nodes = self.cluster.nodes.iter();
            nodes
                .find(|node| node.config.node_name == name)
                .expect("a node of the world")
        };
        match client {
            Client::Outside { .. } => &self.cluster.outside,
            Client::Node(name) => &node(name).netns,
            Client::Pod(name) => {
                // `pod-1-5` is the first pod of the first node.
                let (of, octet) = name["pod-".len()..]
                    .split_once('-')
                    .expect("a name of ours");
                &node(&format!("node-{of}")).pods[usize::from(octet == "6")].netns
            }
        }
    }
}

/// Who answered, or how nobody did.
fn ask_tcp(netns: &Netns, to: SocketAddr, wait: Duration) -> Result<String, ErrorKind> {
    let mut client = peer::Client::connect_within(netns, to, wait).map_err(|error| error.kind())?;
    let answer = client.ask("x").map_err(|error| error.kind())?;
    Ok(answer.split(' ').next().unwrap_or_default().to_owned())
}

fn ask_udp(netns: &Netns, to: SocketAddr, wait: Duration) -> Result<String, ErrorKind> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let ask = || -> std::io::Result<String> {
        let socket = netns.enter(|| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            std::io::Result::Ok(socket)
        })?;
        socket.set_read_timeout(Some(wait))?;
        socket.send(b"x")?;
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer)?;
        let answer = String::from_utf8_lossy(&buffer[..length]);
        Ok(answer.split(' ').next().unwrap_or_default().to_owned())
    };
    ask().map_err(|error| error.kind())
}
