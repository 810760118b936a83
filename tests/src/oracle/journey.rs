//! Follows a packet through the programs of a cluster, node by node, to who answers it, and its
//! answer back: over the model or over the real programs.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use datapath::facts::Facts;
use datapath::fake::Fake;
use datapath::lookup::state::State;
use datapath::lookup::{self, Arrival, Connect, Outcome};
use datapath::reconcile::Reconciler;
use datapath::table::Tables;
use datapath::{Change, LocalPod, NodeView, ObjectKey, ServiceView, SliceView};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::Family;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::{Addr, Mac, Port, Prefix, Proto, Scope, Tuple, Verdict};

use super::cases::Case;
use super::world::{NODES, Place, TARGET, World, share, underlay};
use super::{Answer, Asked, Client, End, reachable};
use crate::fuzz::frames;
use crate::prog::Datapath;
use crate::sim::rng::Rng;

/// Interfaces, the same on every node; a pod's is that and its address's last number.
pub const UPLINK: u32 = 90;
pub const OVERLAY: u32 = 91;
pub const HOST: u32 = 92;
pub const POD: u32 = 100;

const VNI: u32 = 1;
const VXLAN_PORT: u16 = 4789;
/// In the VXLAN identifier of what is answered directly, and where that is in a tunnel's headers.
const DIRECT: u32 = 1 << 23;
const DIRECT_AT: usize = 14 + 20 + 8 + 4;

/// More programs than any packet meets.
const LONGEST: usize = 12;

/// What a program decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To who is behind that interface.
    Local(u32),
    /// To the node with that address on the underlay: its last four bytes. With direct return it says
    /// what was asked.
    Tunnel(u32, Option<(Addr, Port)>),
    Outside,
    Pass,
    Refused,
    Dropped,
}

/// A packet on its way.
pub struct Sent {
    tuple: Tuple,
    /// A connection's first.
    first: bool,
    /// What it says that a client outside asked.
    asked: Option<(Addr, Port)>,
}

impl Sent {
    fn frame(&self) -> Vec<u8> {
        let mut frame = frames::plain(&self.tuple, self.first);
        if let Some((addr, port)) = self.asked {
            frames::ask(&mut frame, addr, port.host());
        }
        frame
    }
}

/// One node's datapath.
pub trait Node {
    fn fill(&mut self, tables: &Tables) -> Result<()>;

    /// Runs a hook over a packet.
    fn run(&mut self, arrival: Arrival, sent: &Sent) -> Result<(Decision, Tuple)>;

    /// What a connect of TCP in that namespace becomes; `None` where that cannot be asked.
    fn connect(&mut self, cookie: u64, to: (Addr, Port)) -> Option<Connect>;
}

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Server { end: End, source: IpAddr },
    Refused,
    Dropped,
}

/// Where a packet is: leaving an endpoint, in a tunnel, on the link between the nodes.
#[derive(Clone, Copy, Debug)]
enum Way {
    Leaving(usize, u32),
    Tunnelled {
        from: usize,
        to: usize,
        asked: Option<(Addr, Port)>,
    },
    /// Towards a node by its uplink, from outside or another node.
    Arriving(usize),
    /// Out of a node by its uplink.
    Departing(usize),
}

/// The first port that a node's own sockets are given.
const SOCKETS: u16 = 32_768;

/// The nodes of the oracle's world.
pub struct Journeys<N> {
    nodes: Vec<N>,
    world: World,
    next_port: u16,
}

impl<N: Node> Journeys<N> {
    pub fn start(nodes: Vec<N>) -> Journeys<N> {
        Journeys {
            nodes,
            world: World::new(),
            next_port: 1024,
        }
    }

    /// Every node hears of a world, as from an API server, and computes its rows.
    pub fn tell(&mut self, world: &World) -> Result<()> {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.fill(&tables(world, at)?)?;
        }
        self.world = world.clone();
        Ok(())
    }

    pub fn judge(&mut self, case: &Case) -> Result<()> {
        let world = self.world.clone();
        for asked in case.asked() {
            let expected = reachable(&world, case.client(), asked);
            // Enough to meet every backend that may be picked.
            let times = if matches!(&expected, Answer::From(ends) if ends.len() > 1) {
                8
            } else {
                1
            };
            for _ in 0..times {
                let met = self
                    .ask(case.client(), asked)
                    .with_context(|| format!("{asked:?}"))?;
                let agreed = match (&expected, met) {
                    (_, None) | (Answer::Refused, Some(Met::Refused)) => true,
                    (Answer::Dropped | Answer::Denied, Some(Met::Dropped)) => true,
                    (Answer::Denied, Some(Met::Refused)) => true,
                    (Answer::From(ends), Some(Met::Server { end, source })) => ends
                        .get(&end)
                        .is_some_and(|sources| sources.contains(&source)),
                    _ => false,
                };
                ensure!(
                    agreed,
                    "{asked:?} from {:?}: {met:?}, not {expected:?}",
                    case.client()
                );
            }
        }
        Ok(())
    }

    /// `None`: what happens there is not for packets to say.
    fn ask(&mut self, client: Client<'_>, asked: Asked) -> Result<Option<Met>> {
        self.next_port = if self.next_port >= 29_000 {
            1024
        } else {
            self.next_port + 1
        };
        let here = self.number(self.world.node_of(client));
        let v4 = asked.addr.is_ipv4();
        let mut to: (Addr, Port) = (asked.addr.into(), Port::new(asked.port));
        let source = match client {
            Client::Node(_) => share(1 + here as u8, v4, 1),
            _ => self.world.client_addr(client, v4),
        };
        let mut sent = Tuple {
            src: source.into(),
            dst: to.0,
            // A node's own sockets have ports that no masqueraded flow is given.
            src_port: Port::new(match client {
                Client::Node(_) => SOCKETS + self.next_port,
                _ => self.next_port,
            }),
            dst_port: to.1,
            proto: if asked.udp { Proto::UDP } else { Proto::TCP },
            ..Tuple::default()
        };
        let Client::Node(_) = client else {
            let at = match client {
                Client::Pod(name) => Way::Leaving(here, POD + last_number(name)),
                _ => Way::Arriving(here),
            };
            return self.question(at, sent).map(Some);
        };
        if !asked.udp {
            // The node's own TCP is balanced at connect.
            match self.nodes[here].connect(cookie(here), to) {
                None => return Ok(None),
                Some(Connect::Refused) => return Ok(Some(Met::Refused)),
                Some(Connect::Unchanged) => {}
                Some(Connect::Backend(ends)) => {
                    let picked = usize::from(self.next_port) % ends.len();
                    to = *ends.iter().nth(picked).context("a backend")?;
                }
            }
            (sent.dst, sent.dst_port) = to;
        } else if self.world.node_addr(NODES[here], v4) == asked.addr {
            // The socket hooks send datagrams for a node port by the overlay's devices.
            sent.dst = super::world::cluster_ip(v4, 0).into();
        }
        let dst = IpAddr::from(sent.dst);
        let at = match self.world.place(dst) {
            Place::Node(name) if name == NODES[here] => {
                sent.src = sent.dst;
                return Ok(Some(self.served(&sent)));
            }
            Place::Pod(_) | Place::NoPod | Place::Service => Way::Leaving(here, HOST),
            Place::Outside if dst == super::world::public(v4, 10) => Way::Leaving(here, HOST),
            Place::Node(_) | Place::Outside => {
                sent.src = underlay(v4, 11 + here as u8).into();
                Way::Departing(here)
            }
        };
        self.question(at, sent).map(Some)
    }

    /// The way there, and the way back of the answer.
    fn question(&mut self, at: Way, sent: Tuple) -> Result<Met> {
        let (met, arrived, end) = self.follow(at, sent, true)?;
        if let Met::Server { .. } = met {
            let answer = arrived.reverse();
            let (met, answered, _) = self.follow(self.answering(end, &answer), answer, false)?;
            ensure!(
                answered.same_packet(&sent.reverse()),
                "{sent} came as {arrived}, its answer {answer} came as {answered} ({met:?})"
            );
        }
        Ok(met)
    }

    /// Where a packet ends, as what, and whose it is there.
    fn follow(&mut self, start: Way, sent: Tuple, first: bool) -> Result<(Met, Tuple, Way)> {
        let (mut at, mut tuple) = (start, sent);
        for _ in 0..LONGEST {
            let (node, arrival) = arrival(at);
            let asked = match at {
                Way::Tunnelled { asked, .. } => asked,
                _ => None,
            };
            let sent = Sent {
                tuple,
                first,
                asked,
            };
            let (decision, left) = self.nodes[node].run(arrival, &sent)?;
            tuple = left;
            at = match decision {
                Decision::Dropped => return Ok((Met::Dropped, tuple, at)),
                Decision::Refused => return Ok((Met::Refused, tuple, at)),
                Decision::Local(ifindex) => {
                    return Ok((self.served(&tuple), tuple, Way::Leaving(node, ifindex)));
                }
                Decision::Tunnel(low, asked) => {
                    let numbers = 0..self.nodes.len();
                    let to = numbers.into_iter().find(|number| low_word(*number) == low);
                    Way::Tunnelled {
                        from: node,
                        to: to.context("a tunnel to no node")?,
                        asked,
                    }
                }
                Decision::Outside => Way::Departing(node),
                Decision::Pass if matches!(at, Way::Departing(_)) => {
                    match self.world.place(tuple.dst.into()) {
                        Place::Node(name) => Way::Arriving(self.number(name)),
                        Place::Outside => return Ok((self.served(&tuple), tuple, at)),
                        _ => return Ok((Met::Dropped, tuple, at)),
                    }
                }
                // The node's own stack has it.
                Decision::Pass => {
                    return Ok((self.served(&tuple), tuple, Way::Leaving(node, HOST)));
                }
            };
        }
        bail!("{sent} goes in circles")
    }

    /// What whoever has that address does with a packet.
    fn served(&self, tuple: &Tuple) -> Met {
        let end = (IpAddr::from(tuple.dst), tuple.dst_port.host());
        let source = IpAddr::from(tuple.src);
        let outside = super::world::outside(end.0.is_ipv4());
        match self.world.place(end.0) {
            _ if end.1 == TARGET && (self.world.listens(end, false) || end.0 == outside) => {
                Met::Server { end, source }
            }
            Place::Pod(_) | Place::Node(_) => Met::Refused,
            // Nobody has it: a node's stack does not know the way either.
            _ => Met::Dropped,
        }
    }

    /// Where an answer leaves, the question having come to `end`.
    fn answering(&self, end: Way, answer: &Tuple) -> Way {
        let Way::Leaving(node, HOST) = end else {
            return match end {
                // Outside answers whom it saw, a node.
                Way::Departing(node) => Way::Arriving(node),
                other => other,
            };
        };
        match self.world.place(answer.dst.into()) {
            Place::Pod(_) | Place::NoPod | Place::Service => Way::Leaving(node, HOST),
            Place::Node(name) if self.share_holds(name, answer.dst) => Way::Leaving(node, HOST),
            _ => Way::Departing(node),
        }
    }

    fn share_holds(&self, name: &str, addr: Addr) -> bool {
        IpAddr::from(addr) == self.world.share(name, addr.is_v4(), 1)
    }

    fn number(&self, name: &str) -> usize {
        NODES
            .iter()
            .position(|node| *node == name)
            .expect("a node of the world")
    }
}

fn arrival(at: Way) -> (usize, Arrival) {
    let (node, hook, ifindex, tunnel) = match at {
        Way::Leaving(node, ifindex) => (node, Hook::FromContainer, ifindex, None),
        Way::Tunnelled { from, to, asked } => {
            let sender = underlay(true, 11 + from as u8).into();
            let vni = if asked.is_some() { VNI | DIRECT } else { VNI };
            (to, Hook::FromOverlay, OVERLAY, Some((vni, sender)))
        }
        Way::Arriving(node) => (node, Hook::FromNetdev, UPLINK, None),
        Way::Departing(node) => (node, Hook::ToNetdev, UPLINK, None),
    };
    (
        node,
        Arrival {
            hook,
            ifindex,
            tunnel,
        },
    )
}

fn low_word(node: usize) -> u32 {
    u32::from_be(Addr::from(underlay(true, 11 + node as u8)).words[3])
}

/// `pod-1-5` has 5.
fn last_number(name: &str) -> u32 {
    name.rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a name of ours")
}

fn cookie(node: usize) -> u64 {
    1 + node as u64
}

/// What a node computes of a world.
fn tables(world: &World, node: usize) -> Result<Tables> {
    let mut reconciler = Reconciler::start(Fake::default(), facts(world, node))?;
    for object in &world.nodes {
        let name = object.metadata.name.clone().unwrap_or_default();
        reconciler.change(Change::Node(name, NodeView::from_object(object)))?;
    }
    for octet in [5u8, 6] {
        let number = 1 + node as u8;
        let addrs = [share(number, true, octet), share(number, false, octet)];
        let pod = LocalPod {
            addrs: addrs.into_iter().collect(),
            ifindex: POD + u32::from(octet),
            ifname: format!("orch{octet}"),
            mac: frames::SENDER.octets,
            host_mac: [2, 0, 0, number, 2, octet],
            netns_cookie: 100 + u64::from(octet),
            host_network: false,
            is_queued: false,
        };
        reconciler.change(Change::Pod(format!("pod-{octet}"), Some(pod)))?;
    }
    for service in &world.services {
        let name = service.metadata.name.clone().unwrap_or_default();
        let view = ServiceView::from_object(service);
        reconciler.change(Change::Service(ObjectKey::new("default", name), view))?;
    }
    for slice in &world.slices {
        let name = slice.metadata.name.clone().unwrap_or_default();
        let view = SliceView::from_object(slice, NODES[node]);
        reconciler.change(Change::Slice(ObjectKey::new("default", name), view))?;
    }
    reconciler.in_sync()?;
    Ok(reconciler.actual().clone())
}

fn facts(world: &World, node: usize) -> Facts {
    let number = 1 + node as u8;
    let family = |v4: bool, bits: u8, range: u8, services: u8| Family {
        node: underlay(v4, 10 + number).into(),
        gateway: share(number, v4, 1).into(),
        translation: share(number, v4, 0).into(),
        pods: Prefix::new(share(0, v4, 0), range),
        services: Prefix::new(super::world::cluster_ip(v4, 0), services),
        node_mask: Prefix::new(share(0, v4, 0), bits).mask,
    };
    Facts {
        name: NODES[node].into(),
        v4: family(true, 24, 16, 16),
        v6: family(false, 64, 48, 112),
        underlay: underlay(true, 10 + number).into(),
        uplink: UPLINK,
        overlay: OVERLAY,
        host: HOST,
        cut: 0,
        host_mac: frames::SENDER,
        net_mac: Mac::new([2, 0, 0, number, 0, 2]),
        uplink_mac: Mac::new([2, 0, 0, number, 0, 3]),
        vni: VNI,
        vxlan_port: Port::new(VXLAN_PORT),
        mtu: 1450,
        netns_cookie: cookie(node),
        dsr: world.direct,
        neighbourhood: Prefix::new(underlay(true, 0), 24),
        servers: Vec::new(),
    }
}

/// A node as the model knows it.
pub struct Modelled {
    tables: Tables,
    state: State,
    rng: Rng,
}

impl Modelled {
    pub fn new(seed: u64) -> Modelled {
        Modelled {
            tables: Tables::default(),
            state: State::default(),
            rng: Rng::new(seed),
        }
    }
}

impl Node for Modelled {
    fn fill(&mut self, tables: &Tables) -> Result<()> {
        (self.tables, self.state) = (tables.clone(), State::default());
        Ok(())
    }

    fn run(&mut self, arrival: Arrival, sent: &Sent) -> Result<(Decision, Tuple)> {
        let (frame, tuple) = (sent.frame(), &sent.tuple);
        let allowed = lookup::outcomes(&self.tables, &self.state, arrival, &frame).outcomes;
        let outcome = allowed
            .iter()
            .nth(self.rng.below(allowed.len()))
            .context("an outcome")?;
        let mut left = *tuple;
        if let Some(found) = outcome.left() {
            left = found.tuple;
            if let Some((lowest, last)) = found.given {
                // From where the nodes' sockets have theirs, only what none of them holds is given.
                let last = last.min(SOCKETS - 1);
                let from = lowest + self.rng.below(usize::from(last - lowest)) as u16;
                let ports = from..=last;
                let opened = found.opened.context("who is given a port opens a flow")?;
                let of = |port| Tuple {
                    src_port: Port::new(port),
                    ..opened.translated
                };
                // The VXLAN device holds its own, which the model's tables do not say.
                let mut ports = ports.into_iter().filter(|port| *port != VXLAN_PORT);
                let free = ports.find(|port| !self.state.is_taken(&opened.key, &of(*port)));
                left.src_port = Port::new(free.context("a free port")?);
            }
            if let Some(opened) = found.opened {
                self.state.open(&opened, left.src_port);
            }
        }
        let decision = match *outcome {
            Outcome::Local { ifindex, .. } => Decision::Local(ifindex),
            Outcome::Tunnel { vtep, asked, .. } => {
                Decision::Tunnel(u32::from_be(vtep.words[3]), asked)
            }
            Outcome::Outside { .. } => Decision::Outside,
            Outcome::Pass { .. } => Decision::Pass,
            Outcome::Refuse(_) => Decision::Refused,
            Outcome::Reply { .. } => bail!("{tuple} is answered"),
            Outcome::Drop(_) => Decision::Dropped,
        };
        Ok((decision, left))
    }

    fn connect(&mut self, cookie: u64, to: (Addr, Port)) -> Option<Connect> {
        Some(lookup::connect(&self.tables, cookie, to))
    }
}

/// A node as the kernel has it: the real programs, under test run.
pub struct Loaded {
    datapath: Datapath,
    filled: Tables,
}

impl Loaded {
    pub fn new() -> Result<Loaded> {
        Ok(Loaded {
            datapath: Datapath::load()?,
            filled: Tables::default(),
        })
    }
}

impl Node for Loaded {
    fn fill(&mut self, tables: &Tables) -> Result<()> {
        self.datapath.clear(&self.filled)?;
        // One world's flows are none of the next one's.
        for (key, _) in self.datapath.flows()? {
            self.datapath.delete::<_, Flow>("flows_v1", &key)?;
        }
        self.filled = tables.clone();
        self.datapath.fill(tables)
    }

    fn run(&mut self, arrival: Arrival, sent: &Sent) -> Result<(Decision, Tuple)> {
        let (frame, tuple) = (sent.frame(), &sent.tuple);
        let ran = match arrival.tunnel {
            Some((vni, sender)) => self.datapath.run_tunnelled(vni, sender, &frame),
            None => self.datapath.run(arrival.hook, arrival.ifindex, &frame),
        }?;
        let is_direct = ran.outer.get(DIRECT_AT).is_some_and(|byte| byte >> 7 != 0);
        let (asked, packet) = if is_direct {
            frames::asked(&ran.packet)
        } else {
            (None, ran.packet)
        };
        let decision = match ran.trace.verdict {
            Verdict::Peer | Verdict::Node => Decision::Local(ran.trace.target),
            Verdict::Overlay | Verdict::Tunnel => Decision::Tunnel(ran.trace.vtep, asked),
            Verdict::Outside => Decision::Outside,
            Verdict::Pass => Decision::Pass,
            Verdict::Refuse => Decision::Refused,
            Verdict::Drop => Decision::Dropped,
            Verdict::Reply => bail!("{tuple} is answered"),
        };
        let left = match decision {
            Decision::Refused | Decision::Dropped => *tuple,
            _ => lookup::packet::Packet::read(&packet)
                .map(|packet| packet.tuple)
                .unwrap_or_default(),
        };
        Ok((decision, left.in_scope(Scope::PACKET)))
    }

    fn connect(&mut self, _cookie: u64, _to: (Addr, Port)) -> Option<Connect> {
        None
    }
}
