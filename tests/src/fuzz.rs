//! Random packets through the real programs, step by step beside the model: what a program does must
//! be among what the model allows, and the model learns from it what the program will remember.

pub mod cut;
pub mod frames;
pub mod world;

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use datapath::lookup::packet::{Packet, Part};
use datapath::lookup::state::{Opened, State};
use datapath::lookup::{Arrival, Left, Outcome, outcomes};
use datapath::table::Tables;
use orchestrator_common::event::Hook;
use orchestrator_common::maps::services::ServiceKey;
use orchestrator_common::{Addr, Port, Scope, Tuple, Verdict};

use crate::prog::{Datapath, LOOPBACK, Ran};
use crate::sim::rng::Rng;
use frames::{Made, Pool};
use world::Tunnel;

/// How many packets, and where to begin: `ORCHESTRATOR_FUZZ_PACKETS` and `ORCHESTRATOR_FUZZ_SEED`.
pub fn extent(packets: u64) -> Result<(u64, u64)> {
    let number = |name: &str, default: u64| -> Result<u64> {
        let set = std::env::var(name).ok();
        set.map_or(Ok(default), |text| {
            text.parse().with_context(|| format!("{name}={text}"))
        })
    };
    let packets = number("ORCHESTRATOR_FUZZ_PACKETS", packets)?;
    Ok((packets, number("ORCHESTRATOR_FUZZ_SEED", 1)?))
}

/// A loaded datapath beside its model.
pub struct Fuzz {
    pub tables: Tables,
    pub state: State,
    pub datapath: Datapath,
    pool: Pool,
    rng: Rng,
    /// How often what happened, by hook and verdict.
    pub met: BTreeMap<(&'static str, String), u64>,
}

/// With more flows than this a world begins anew: the table must not get full.
const MOST_FLOWS: usize = 150_000;

impl Fuzz {
    pub fn start(seed: u64, tables: Tables) -> Result<Fuzz> {
        let mut fuzz = Fuzz {
            datapath: Datapath::load()?,
            state: State::default(),
            pool: world::pool(&tables),
            rng: Rng::new(seed),
            met: BTreeMap::new(),
            tables,
        };
        fuzz.datapath.fill(&fuzz.tables)?;
        Ok(fuzz)
    }

    /// Sends so many packets through every program in turn.
    pub fn run(&mut self, packets: u64) -> Result<()> {
        let hooks = Hook::TCX;
        for number in 0..packets {
            let hook = hooks[number as usize % hooks.len()];
            if self.state.flows.len() > MOST_FLOWS {
                self.anew()?;
            }
            if self.rng.chance(1) {
                self.change_tables()?;
            }
            self.step(hook)
                .with_context(|| format!("packet {number} through {}", hook.name()))?;
        }
        self.check_flows()
    }

    /// What an agent does: backends go, Services lose all and find them again.
    fn change_tables(&mut self) -> Result<()> {
        if self.rng.chance(500) {
            let number = 1 + self.rng.below(self.tables.backends.len()) as u32;
            let generation = self.state.generation(number) + 1;
            self.state.generations.insert(number, generation);
            return self.datapath.set_row("generations_v1", number, generation);
        }
        let at = self.rng.below(self.tables.services.len());
        let tables = &mut self.tables;
        let Some((key, row)) = tables.services.iter_mut().nth(at) else {
            return Ok(());
        };
        let all = tables
            .backends
            .keys()
            .filter(|slot| slot.service == row.id)
            .count() as u32;
        row.count = if row.count == 0 { all } else { 0 };
        self.datapath.put("services_v1", *key, *row)
    }

    fn anew(&mut self) -> Result<()> {
        self.check_flows()?;
        self.datapath = Datapath::load()?;
        self.datapath.fill(&self.tables)?;
        self.state = State::default();
        Ok(())
    }

    fn step(&mut self, hook: Hook) -> Result<()> {
        let overlay = hook == Hook::FromOverlay;
        let tunnel = overlay.then(|| Tunnel::any(&mut self.rng, &self.tables));
        let is_direct = tunnel.is_some_and(|tunnel| tunnel.is_direct());
        let mut made = self.next_frame(hook, is_direct);
        if is_direct && self.rng.chance(950) {
            let (asked, port) = world::asked(&mut self.rng, made.bytes[12..14] == [0x86, 0xdd]);
            frames::ask(&mut made.bytes, asked, port);
        }
        // The kernel runs nothing over less than an IP header.
        let least = if made.bytes[12..14] == [0x86, 0xdd] {
            54
        } else {
            34
        };
        made.bytes.resize(made.bytes.len().max(least), 0);
        let tunnel = tunnel.map(|tunnel| (tunnel.vni, tunnel.sender));
        let arrival = Arrival {
            hook,
            ifindex: LOOPBACK,
            tunnel,
        };
        let mut allowed = outcomes(&self.tables, &self.state, arrival, &made.bytes);
        let ran = match tunnel {
            None => self.datapath.run(hook, LOOPBACK, &made.bytes),
            Some((vni, sender)) if !sender.is_v4() || self.rng.chance(500) => {
                self.datapath.run_tunnelled(vni, sender, &made.bytes)
            }
            // Out of the overlay by the other way, of which the model makes the same.
            Some((vni, sender)) => {
                let frame = world::wrapped(vni, sender, &made.bytes);
                let on_uplink = Arrival {
                    hook: Hook::FromNetdev,
                    tunnel: None,
                    ..arrival
                };
                allowed = outcomes(&self.tables, &self.state, on_uplink, &frame);
                self.datapath.run(Hook::FromNetdev, LOOPBACK, &frame)
            }
        };
        let ran = ran.with_context(|| format!("{:02x?}", made.bytes))?;
        let judged = self.judge(&allowed.outcomes, &made, &ran);
        judged.with_context(|| {
            let read = Packet::read(&made.bytes);
            format!(
                "{tunnel:?} {read:?}\n{:02x?}\nout {:02x?}",
                made.bytes, ran.packet
            )
        })?;
        for (tuple, id) in allowed.pieces {
            self.state.remember(&tuple, id);
        }
        if matches!(ran.trace.verdict, Verdict::Drop | Verdict::Reply) {
            self.learn_dropped(&made.bytes)?;
        }
        let key = (
            hook.name(),
            format!("{}/{}", ran.trace.verdict, ran.trace.reason),
        );
        *self.met.entry(key).or_default() += 1;
        Ok(())
    }

    /// A random packet, or an answer to one that was let through.
    fn next_frame(&mut self, hook: Hook, is_direct: bool) -> Made {
        let from = match is_direct {
            true => world::clients(),
            false => world::senders(hook),
        };
        let mut made = self
            .pool
            .frame(&mut self.rng, &from, &world::addressees(hook));
        let flows = self.state.flows.len();
        if flows > 0 && self.rng.chance(300) && made.is_sound {
            // Some flow's own tuple, near a random one.
            let mut key = Tuple {
                src_port: self.some_port(),
                ..Tuple::default()
            };
            key.src = Addr::from(*self.rng.pick(&from).unwrap_or(&IpAddr::from([0; 4])));
            let found = self
                .state
                .flows
                .range(key..)
                .next()
                .or(self.state.flows.iter().next());
            if let Some((tuple, _)) = found {
                made = if self.rng.chance(300) {
                    let router = self.rng.pick(&from).map(|addr| Addr::from(*addr));
                    let router = router.filter(|router| router.is_v4() == tuple.src.is_v4());
                    let router = router.filter(|_| self.rng.chance(500));
                    frames::error(tuple, router, &mut self.rng)
                } else {
                    frames::with_tuple(tuple, &mut self.rng)
                };
            }
        }
        made
    }

    fn some_port(&mut self) -> Port {
        Port::new(self.rng.number() as u16)
    }

    fn judge(
        &mut self,
        allowed: &std::collections::BTreeSet<Outcome>,
        made: &Made,
        ran: &Ran,
    ) -> Result<()> {
        // On its way to another node it may have one header more than a packet may.
        let (asked, frame) = match ran.trace.verdict {
            Verdict::Overlay | Verdict::Tunnel => frames::asked(&ran.packet),
            _ => (None, ran.packet.clone()),
        };
        let out = Packet::read(&frame);
        let tuple = out.as_ref().map(|packet| packet.tuple).unwrap_or_default();
        let quote = out.as_ref().ok().and_then(|packet| Left::of(packet).quote);
        let Some(outcome) = allowed.iter().find(|outcome| {
            self.is(outcome, ran, &tuple) && quoted(outcome, quote) && says(outcome, asked)
        }) else {
            bail!("{:?} as {tuple}, the model allows {allowed:?}", ran.trace);
        };
        if let Ok(packet) = &out
            && matches!(ran.trace.verdict, Verdict::Peer | Verdict::Node)
            && packet.has_ports()
        {
            ensure!(packet.asked.is_none(), "a pod sees what a client asked");
        }
        if made.is_sound
            && ran.trace.verdict != Verdict::Drop
            && let Ok(packet) = &out
            && packet.part == Part::Whole
            && let Some(wrong) =
                frames::wrong_checksum(&frame, packet.transport, packet.tuple.proto.number)
        {
            bail!("{wrong}");
        }
        if let Some(opened) = outcome.left().and_then(|left| left.opened) {
            let translated = Tuple {
                src_port: tuple.src_port,
                ..opened.translated
            };
            ensure!(
                !self.state.is_taken(&opened.key, &translated),
                "{translated} is another's"
            );
            self.state.open(&opened, tuple.src_port);
        }
        Ok(())
    }

    /// A packet may open its flow and then come no further than here: which backend it was for, only
    /// the row says.
    fn learn_dropped(&mut self, frame: &[u8]) -> Result<()> {
        let Ok(packet) = Packet::read(frame) else {
            return Ok(());
        };
        let key = packet.tuple.in_scope(Scope::SERVICE);
        let scopes = [ServiceKey::INSIDE, ServiceKey::OUTSIDE];
        let row = |scope| ServiceKey {
            addr: key.dst,
            port: key.dst_port,
            proto: key.proto,
            scope,
        };
        let keys = scopes
            .into_iter()
            .flat_map(|scope| [row(scope), row(scope).node_port()]);
        let asked = keys
            .filter_map(|key| self.tables.services.get(&key))
            .next()
            .copied();
        let Some(service) = asked else {
            return Ok(());
        };
        let Some(flow) = self.datapath.flow(&key)? else {
            return Ok(());
        };
        let known = self.state.flows.get(&key);
        if known.is_some_and(|known| {
            known.translated == flow.translated && known.generation == flow.generation
        }) {
            return Ok(());
        }
        let remembers = (service.affinity_s != 0).then_some(service.id);
        let opened = Opened {
            key,
            translated: flow.translated,
            backend: flow.backend,
            remembers,
        };
        ensure!(
            !self.state.is_taken(&key, &flow.translated),
            "{} is another's",
            flow.translated
        );
        self.state.open(&opened, flow.translated.src_port);
        Ok(())
    }

    fn is(&self, outcome: &Outcome, ran: &Ran, tuple: &Tuple) -> bool {
        let trace = &ran.trace;
        let left = |left: &Left| self.left_as(left, tuple);
        match outcome {
            Outcome::Drop(reason) => trace.verdict == Verdict::Drop && trace.reason == *reason,
            Outcome::Refuse(reason) => trace.verdict == Verdict::Refuse && trace.reason == *reason,
            Outcome::Reply { reason, from, to } => {
                let ends = tuple.src == *from && tuple.dst == *to;
                trace.verdict == Verdict::Reply && trace.reason == *reason && ends
            }
            Outcome::Pass { left: of } => {
                let unread = of.tuple == Tuple::default();
                trace.verdict == Verdict::Pass && (unread || left(of))
            }
            Outcome::Outside { left: of } => trace.verdict == Verdict::Outside && left(of),
            Outcome::Tunnel { vtep, left: of, .. } => {
                let low = u32::from_be(vtep.words[3]);
                let tunnelled = matches!(trace.verdict, Verdict::Overlay | Verdict::Tunnel);
                tunnelled && trace.vtep == low && left(of)
            }
            Outcome::Local {
                verdict,
                ifindex,
                left: of,
            } => trace.verdict == *verdict && trace.target == *ifindex && left(of),
        }
    }

    fn left_as(&self, left: &Left, seen: &Tuple) -> bool {
        let Some((first, last)) = left.given else {
            return left.tuple == *seen;
        };
        let config = &self.tables.config[&0];
        let masqueraded = left
            .opened
            .is_some_and(|opened| opened.key.scope == Scope::MASQUERADE);
        let port = seen.src_port;
        Tuple {
            src_port: port,
            ..left.tuple
        } == *seen
            && (first..=last).contains(&port.host())
            && !(masqueraded && config.is_node_port(port) && seen.proto.number != 1)
    }

    /// The rows in the kernel are those that the model remembers.
    pub fn check_flows(&mut self) -> Result<()> {
        let rows = self.datapath.flows()?;
        ensure!(
            rows.len() == self.state.flows.len(),
            "{} rows of flows, the model has {}",
            rows.len(),
            self.state.flows.len()
        );
        for (key, row) in rows {
            let known = self
                .state
                .flows
                .get(&key)
                .with_context(|| format!("a row {key} of no flow"))?;
            let is_reply = row.direction == orchestrator_common::maps::flows::Flow::REPLY;
            ensure!(
                known.translated == row.translated
                    && known.is_reply == is_reply
                    && known.backend == row.backend,
                "{key}: {row:?}, the model has {known:?}"
            );
        }
        Ok(())
    }
}

/// A packet to a client's backend says what the client asked.
fn says(outcome: &Outcome, seen: Option<(Addr, Port)>) -> bool {
    match outcome {
        Outcome::Tunnel { asked, .. } => asked.is_none() || *asked == seen,
        _ => true,
    }
}

/// An error quotes what its receiver sent.
fn quoted(outcome: &Outcome, seen: Option<Tuple>) -> bool {
    outcome
        .left()
        .and_then(|left| left.quote)
        .is_none_or(|quote| seen == Some(quote))
}
