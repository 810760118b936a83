//! A model of the datapath over its tables: what must happen to a connect or to a packet.
//!
//! Pure. It judges the real programs and explains the tables to people, so it shares no code with
//! `orchestrator-ebpf`. Where the datapath picks by chance, the model names everything that may be
//! picked; what earlier packets left behind is an argument.

mod direct;
mod flows;
pub mod packet;
mod services;
pub mod state;
pub mod tunnel;

use std::cell::RefCell;
use std::collections::BTreeSet;

use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::{Config, Family};
use orchestrator_common::maps::services::ServiceKey;
use orchestrator_common::{Addr, DropReason, Port, Prefix, Proto, Tuple, Verdict};

use super::table::Tables;
use packet::{Icmp, Packet, Part};
use state::{Opened, State};
use tunnel::Wrapped;

/// Source ports that translated flows are given, of the node's own address and of the translation
/// address, which no socket holds.
const PORTS: (u16, u16) = (1024, 65535);

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// To a local endpoint: a pod ([`Verdict::Peer`]) or the node.
    Local {
        verdict: Verdict,
        ifindex: u32,
        left: Left,
    },
    /// Through the overlay.
    Tunnel {
        vtep: Addr,
        left: Left,
        /// What a client outside asked, where its answer is to go there directly.
        asked: Option<(Addr, Port)>,
    },
    /// Out of the uplink; `to_netdev` masquerades it.
    Outside {
        left: Left,
    },
    /// Left to the node's own stack.
    Pass {
        left: Left,
    },
    /// Sent back as a refusal.
    Refuse(DropReason),
    /// Sent back as what this node has to say to it.
    Reply {
        reason: DropReason,
        from: Addr,
        to: Addr,
    },
    Drop(DropReason),
}

/// What a packet is when it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    pub tuple: Tuple,
    /// What an ICMP error quotes.
    pub quote: Option<Tuple>,
    /// The source port is one of these, towards that destination nobody else's.
    pub given: Option<(u16, u16)>,
    /// The flow that it opened.
    pub opened: Option<Opened>,
}

/// How a packet came to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub hook: Hook,
    pub ifindex: u32,
    /// VNI and sender, for `from_overlay`.
    pub tunnel: Option<(u32, Addr)>,
}

/// What a connect to an address becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connect {
    /// The datapath has nothing to say.
    Unchanged,
    /// One of these.
    Backend(BTreeSet<(Addr, Port)>),
    Refused,
}

/// `connect4`, `connect6`: a TCP socket in the namespace with this cookie.
pub fn connect(tables: &Tables, cookie: u64, to: (Addr, Port)) -> Connect {
    let (Some(netns), Some(config)) = (tables.netns.get(&cookie), tables.config.get(&0)) else {
        return Connect::Unchanged;
    };
    let state = &State::default();
    let world = World {
        tables,
        config,
        state,
        is_tunnelled: false,
        pieces: RefCell::default(),
    };
    let asked = Tuple {
        dst: to.0,
        dst_port: to.1,
        proto: Proto::TCP,
        ..Tuple::default()
    };
    // Each pod has a loopback of its own.
    if to.0.is_own() && !netns.is_host() {
        return Connect::Unchanged;
    }
    let Some(service) = world.row(&asked, ServiceKey::INSIDE) else {
        return Connect::Unchanged;
    };
    let client = if to.0.is_v4() { netns.v4 } else { netns.v6 };
    if service.count == 0 || !world.admits(service, client) {
        return Connect::Refused;
    }
    let slots = world.slots(service);
    Connect::Backend(slots.map(|row| (row.addr, row.port)).collect())
}

/// What a program may do with a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    pub outcomes: BTreeSet<Outcome>,
    /// First pieces of a datagram with its number, which the later ones will need.
    pub pieces: Vec<(Tuple, u32)>,
}

/// Everything that may become of a frame.
pub fn outcomes(tables: &Tables, state: &State, arrival: Arrival, frame: &[u8]) -> Allowed {
    let only = |outcome| Allowed {
        outcomes: BTreeSet::from([outcome]),
        pieces: Vec::new(),
    };
    if let Some((arrival, inner)) = unwrapped(tables, arrival, frame) {
        return outcomes(tables, state, arrival, inner);
    }
    let on_uplink = matches!(arrival.hook, Hook::FromNetdev | Hook::ToNetdev);
    let unread = |reason| match on_uplink {
        // Not for us to say.
        true => only(Outcome::Pass {
            left: Left::as_it_came(Tuple::default()),
        }),
        false => only(Outcome::Drop(reason)),
    };
    let packet = Packet::read(frame);
    let Some(config) = tables.config.get(&0) else {
        // The delivery through the node's stack asks only who is there.
        return match packet {
            Err(reason) if arrival.hook == Hook::ToContainer => only(Outcome::Drop(reason)),
            Ok(_) if arrival.hook == Hook::ToContainer => {
                only(Outcome::Drop(DropReason::NoEndpoint))
            }
            _ => unread(DropReason::NoConfig),
        };
    };
    let packet = match packet {
        Ok(packet) => packet,
        Err(reason) => return unread(reason),
    };
    let world = World {
        tables,
        config,
        state,
        is_tunnelled: arrival.hook == Hook::FromOverlay,
        pieces: RefCell::default(),
    };
    let decided = match arrival.hook {
        // What a socket sends comes by there.
        Hook::FromContainer | Hook::Connect => world.from_container(arrival.ifindex, &packet),
        Hook::ToContainer => world.to_container(arrival.ifindex, &packet),
        Hook::FromOverlay => world.from_overlay(arrival, &packet),
        Hook::FromNetdev | Hook::Xdp => world.from_netdev(arrival.ifindex, &packet),
        Hook::ToNetdev => world.to_netdev(&packet),
        // Decided before it came there.
        Hook::FromCut => world.route(arrival.ifindex, &packet, Left::of(&packet), By::Nothing),
    };
    Allowed {
        outcomes: decided.unwrap_or_else(|reason| BTreeSet::from([Outcome::Drop(reason)])),
        pieces: world.pieces.into_inner(),
    }
}

/// The frame inside one that the uplink's program itself takes out of the overlay: it then is as if the
/// VXLAN device had.
fn unwrapped<'a>(
    tables: &Tables,
    arrival: Arrival,
    frame: &'a [u8],
) -> Option<(Arrival, &'a [u8])> {
    let config = tables.config.get(&0)?;
    let wrapped = (arrival.hook == Hook::FromNetdev).then(|| Wrapped::read(frame))??;
    let is_ours = wrapped.port == config.vxlan_port.host()
        && wrapped.vni == config.vni
        && wrapped.to == config.underlay;
    let by_overlay = Arrival {
        hook: Hook::FromOverlay,
        tunnel: Some((wrapped.vni, wrapped.from)),
        ..arrival
    };
    is_ours.then_some((by_overlay, wrapped.inner))
}

type Decided = Result<BTreeSet<Outcome>, DropReason>;

/// In whose name a packet goes on: one that is a Service's already is not translated again, and may
/// go back to where it came from; so may an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Nothing,
    Service,
    Error,
}

impl By {
    /// Of a packet that a flow of a Service translated.
    fn of(packet: &Packet) -> By {
        let is_error = packet.icmp == Some(Icmp::Error);
        if is_error { By::Error } else { By::Service }
    }
}

/// What a Service or a flow makes of a packet.
enum Met {
    /// The packet is for neither.
    Nothing,
    /// It becomes one of these.
    Service(Vec<Left>),
    Reply(Left),
    Refused(DropReason),
}

struct World<'a> {
    tables: &'a Tables,
    config: &'a Config,
    state: &'a State,
    /// The packet came through the overlay.
    is_tunnelled: bool,
    pieces: RefCell<Vec<(Tuple, u32)>>,
}

impl World<'_> {
    fn from_container(&self, ifindex: u32, packet: &Packet) -> Decided {
        let Tuple { src, dst, .. } = packet.tuple;
        // Pods have permanent neighbours: what IPv6 says on a link only is noise.
        let for_link = is_link_local(src) || src == Addr::UNSPECIFIED || !is_unicast_v6(dst);
        if packet.v6 && for_link {
            return Err(DropReason::NotUnicast);
        }
        let Some(sender) = self.tables.endpoints.get(&src) else {
            return Err(DropReason::SourceSpoofed);
        };
        // A pod can only have been sent what was for it.
        let is_error = packet.icmp == Some(Icmp::Error);
        let may_tell = sender.is_host() || packet.about.is_some_and(|(_, to)| to == src);
        if sender.ifindex != ifindex || sender.mac != packet.mac || is_error && !may_tell {
            return Err(DropReason::SourceSpoofed);
        }
        match self.from_inside(packet)? {
            Met::Refused(reason) => self.refuse(packet, reason),
            Met::Nothing => self.route(ifindex, packet, Left::of(packet), By::Nothing),
            Met::Service(lefts) => self.route_each(ifindex, packet, lefts),
            Met::Reply(left) => self.route(ifindex, packet, left, By::of(packet)),
        }
    }

    /// What an endpoint sends: a Service's, an answer that has to come by here, or neither.
    fn from_inside(&self, packet: &Packet) -> Result<Met, DropReason> {
        let to = packet.tuple.dst;
        let family = self.family(to);
        let came = Left::of(packet);
        if holds(family.pods, to) {
            // A server on the node's network that does not choose answers from the overlay's side.
            let mut by_node = came;
            if packet.tuple.proto == Proto::UDP && packet.tuple.src == family.gateway {
                by_node.tuple.src = family.node;
            }
            let is_answer = to == family.translation;
            if (is_answer || by_node != came)
                && let Some(left) = self.flow(packet, &by_node, true)?
            {
                return Ok(Met::Reply(left));
            }
            return match is_answer {
                false => self.beside(packet),
                true => {
                    let left = self.flow(packet, &came, true)?;
                    left.map(Met::Reply).ok_or(DropReason::NoFlow)
                }
            };
        }
        for is_reply in [false, true] {
            if let Some(left) = self.flow(packet, &came, is_reply)? {
                return Ok(Met::Reply(left));
            }
        }
        match self.service(packet, ServiceKey::INSIDE)? {
            Met::Nothing if holds(family.services, to) => match packet.part {
                _ if packet.has_ports() => Ok(Met::Refused(DropReason::NoService)),
                _ if packet.icmp == Some(Icmp::Error) => Err(DropReason::NoFlow),
                Part::Later => Err(DropReason::Fragment),
                _ => Err(DropReason::UnsupportedProtocol),
            },
            met => Ok(met),
        }
    }

    fn to_container(&self, ifindex: u32, packet: &Packet) -> Decided {
        let endpoint = self.tables.endpoints.get(&packet.tuple.dst);
        if endpoint.is_none_or(|endpoint| endpoint.ifindex != ifindex) {
            return Err(DropReason::NoEndpoint);
        }
        let came = Left::of(packet);
        let left = self.flow(packet, &came, true)?.unwrap_or(came);
        Ok(BTreeSet::from([Outcome::Pass { left }]))
    }

    fn from_overlay(&self, arrival: Arrival, packet: &Packet) -> Decided {
        let Tuple { src, dst, .. } = packet.tuple;
        let (vni, sender) = arrival.tunnel.ok_or(DropReason::NotOurTunnel)?;
        if vni == self.config.vni | direct::VNI {
            return self.from_direct(sender, packet);
        }
        if vni != self.config.vni {
            return Err(DropReason::NotOurTunnel);
        }
        let owner = self.tables.nodes.get(&and(src, self.family(src).node_mask));
        if owner.is_none_or(|node| node.vtep != sender) {
            return Err(DropReason::TunnelSpoofed);
        }
        let came = Left::of(packet);
        if dst == self.family(dst).translation {
            let left = self.flow(packet, &came, true)?.ok_or(DropReason::NoFlow)?;
            return self.route(arrival.ifindex, packet, left, By::of(packet));
        }
        if !self.tables.endpoints.contains_key(&dst) {
            return Err(DropReason::NoEndpoint);
        }
        self.deliver(arrival.ifindex, packet, came, By::Nothing)
    }

    fn from_netdev(&self, ifindex: u32, packet: &Packet) -> Decided {
        let tuple = packet.tuple;
        let pass = |left| Ok(BTreeSet::from([Outcome::Pass { left }]));
        if self.is_outer(packet) {
            return pass(Left::as_it_came(tuple));
        }
        let family = self.family(tuple.dst);
        if holds(family.pods, tuple.src) || holds(family.pods, tuple.dst) {
            return Err(DropReason::PodRangeOutside);
        }
        // Nor can anybody have seen one there.
        let is_pod = |(from, to)| holds(family.pods, from) || holds(family.pods, to);
        if packet.about.is_some_and(is_pod) {
            return Err(DropReason::PodRangeOutside);
        }
        let came = Left::of(packet);
        let is_error = packet.icmp == Some(Icmp::Error);
        let met = match self.flow(packet, &came, false)? {
            Some(left) if is_error => Met::Reply(left),
            Some(left) => Met::Service(vec![left]),
            None => match self.unmasqueraded(packet)? {
                Some(left) => Met::Reply(left),
                None => self.service(packet, ServiceKey::OUTSIDE)?,
            },
        };
        match met {
            Met::Nothing => pass(came),
            Met::Refused(reason) => self.refuse(packet, reason),
            Met::Service(lefts) => {
                let (own, others): (Vec<Left>, Vec<Left>) = lefts
                    .into_iter()
                    .partition(|left| self.is_host(left.tuple.dst));
                let mut outcomes = self.route_each(ifindex, packet, others)?;
                outcomes.extend(own.into_iter().map(|left| Outcome::Pass { left }));
                Ok(outcomes)
            }
            Met::Reply(left) if left.tuple.dst == self.family(left.tuple.dst).translation => {
                // A masqueraded flow of a client that was itself given the translation address.
                let again = self.flow(packet, &left, true)?.ok_or(DropReason::NoFlow)?;
                self.route(ifindex, packet, again, By::of(packet))
            }
            // As a question for the node itself: from where the client's route leads to.
            Met::Reply(left) if is_error && self.is_host(left.tuple.dst) => pass(left),
            Met::Reply(left) if is_error => self.route(ifindex, packet, left, By::Error),
            Met::Reply(left) => self.route(ifindex, packet, left, By::Nothing),
        }
    }

    fn to_netdev(&self, packet: &Packet) -> Decided {
        let tuple = packet.tuple;
        let family = self.family(tuple.src);
        if holds(family.pods, tuple.src) {
            if holds(family.pods, tuple.dst) {
                return Err(DropReason::PodRangeOutside);
            }
            // Pods do not speak for the overlay.
            if self.is_outer(packet) {
                return Err(DropReason::TunnelSpoofed);
            }
            return Ok(BTreeSet::from([Outcome::Pass {
                left: self.masqueraded(packet)?,
            }]));
        }
        let mut left = Left::of(packet);
        if !self.is_outer(packet) && tuple.src == family.node {
            left = self.flow(packet, &left, true)?.unwrap_or(left);
        }
        Ok(BTreeSet::from([Outcome::Pass { left }]))
    }

    fn is_outer(&self, packet: &Packet) -> bool {
        packet.tuple.proto == Proto::UDP && packet.tuple.dst_port == self.config.vxlan_port
    }

    fn route_each(&self, ifindex: u32, packet: &Packet, lefts: Vec<Left>) -> Decided {
        let mut outcomes = BTreeSet::new();
        for left in lefts {
            match self.route(ifindex, packet, left, By::Service) {
                Ok(routed) => outcomes.extend(routed),
                Err(reason) => drop(outcomes.insert(Outcome::Drop(reason))),
            }
        }
        Ok(outcomes)
    }

    /// Where a packet goes that is `left` by now. One that is translated as a Service's is not
    /// translated again, and may go back to where it came from.
    fn route(&self, ifindex: u32, packet: &Packet, left: Left, by: By) -> Decided {
        let Tuple { src, dst, .. } = left.tuple;
        let family = self.family(dst);
        if holds(family.pods, dst) {
            let share = and(dst, family.node_mask);
            if share == and(family.gateway, family.node_mask) {
                self.tables
                    .endpoints
                    .get(&dst)
                    .ok_or(DropReason::NoEndpoint)?;
                return self.deliver(ifindex, packet, left, by);
            }
            let node = self.tables.nodes.get(&share).ok_or(DropReason::NoNode)?;
            let asked = match holds(family.pods, src) {
                true => None,
                false => self.asked(packet, &left, by)?,
            };
            return Ok(BTreeSet::from([Outcome::Tunnel {
                vtep: node.vtep,
                left,
                asked,
            }]));
        }
        if self.tables.endpoints.contains_key(&dst) {
            return self.deliver(ifindex, packet, left, by);
        }
        if !is_unicast(dst) {
            return Err(DropReason::NotUnicast);
        }
        if packet.ttl <= 1 {
            return self.expired(ifindex, packet);
        }
        Ok(BTreeSet::from([Outcome::Outside { left }]))
    }

    fn deliver(&self, ifindex: u32, packet: &Packet, left: Left, by: By) -> Decided {
        let endpoint = &self.tables.endpoints[&left.tuple.dst];
        let mut left = left;
        if by == By::Nothing && endpoint.ifindex == ifindex {
            return Err(DropReason::Hairpin);
        }
        if by != By::Service {
            left = self.flow(packet, &left, true)?.unwrap_or(left);
        }
        let verdict = if endpoint.is_redirected() {
            Verdict::Node
        } else {
            Verdict::Peer
        };
        let ifindex = endpoint.ifindex;
        Ok(BTreeSet::from([Outcome::Local {
            verdict,
            ifindex,
            left,
        }]))
    }

    /// What has no answer is refused, where a refusal can be made of it.
    fn refuse(&self, packet: &Packet, reason: DropReason) -> Decided {
        if packet.has_options || packet.tcp_flags & Packet::RST != 0 {
            return Err(reason);
        }
        let header = if packet.tuple.proto == Proto::TCP {
            20
        } else {
            8
        };
        if packet.length < packet.transport + header {
            return Err(DropReason::Malformed);
        }
        Ok(BTreeSet::from([Outcome::Refuse(reason)]))
    }

    /// Who sent a packet that comes no further is told by the node's address on that side, where a
    /// host would tell (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
    fn expired(&self, ifindex: u32, packet: &Packet) -> Decided {
        let untold = packet.icmp == Some(Icmp::Error) || packet.part == Part::Later;
        let options = packet.has_options && !packet.v6;
        if untold || options || self.is_tunnelled {
            return Err(DropReason::TtlExceeded);
        }
        let header = if packet.v6 { 40 } else { 20 };
        let quoted = if packet.tuple.proto == Proto::TCP {
            20
        } else {
            8
        };
        if packet.length < 14 + header + quoted {
            return Err(DropReason::Malformed);
        }
        let family = self.family(packet.tuple.src);
        let from = if ifindex == self.config.uplink {
            family.node
        } else {
            family.gateway
        };
        Ok(BTreeSet::from([Outcome::Reply {
            reason: DropReason::TtlExceeded,
            from,
            to: packet.tuple.src,
        }]))
    }

    fn family(&self, addr: Addr) -> &Family {
        if addr.is_v4() {
            &self.config.v4
        } else {
            &self.config.v6
        }
    }
}

impl Left {
    fn as_it_came(tuple: Tuple) -> Left {
        Left {
            tuple,
            quote: None,
            given: None,
            opened: None,
        }
    }

    /// Not translated. A quote counts if it is of a packet that a flow could have.
    pub fn of(packet: &Packet) -> Left {
        let quoted = packet.quoted.as_ref().filter(|quoted| {
            let is_echo = matches!(quoted.icmp, Some(Icmp::Echo | Icmp::EchoReply));
            quoted.part != Part::Later && (is_echo || quoted.has_port_protocol())
        });
        Left {
            quote: quoted.map(|quoted| quoted.tuple),
            ..Left::as_it_came(packet.tuple)
        }
    }
}

impl Outcome {
    pub fn left(&self) -> Option<&Left> {
        match self {
            Outcome::Local { left, .. }
            | Outcome::Tunnel { left, .. }
            | Outcome::Outside { left }
            | Outcome::Pass { left } => Some(left),
            Outcome::Refuse(_) | Outcome::Reply { .. } | Outcome::Drop(_) => None,
        }
    }
}

fn is_link_local(addr: Addr) -> bool {
    let [a, b, ..] = addr.octets();
    a == 0xfe && b & 0xc0 == 0x80
}

fn is_unicast_v6(addr: Addr) -> bool {
    addr.octets()[0] != 0xff && !is_link_local(addr)
}

/// Whether an address may be somebody's elsewhere.
fn is_unicast(addr: Addr) -> bool {
    let octets = addr.octets();
    if addr.is_v4() {
        return !matches!(octets[12], 0 | 127 | 224..);
    }
    let host_only = octets[..15].iter().all(|octet| *octet == 0) && octets[15] <= 1;
    is_unicast_v6(addr) && !host_only
}

fn holds(range: Prefix, addr: Addr) -> bool {
    and(addr, range.mask) == range.addr
}

fn and(addr: Addr, mask: Addr) -> Addr {
    let mut octets = addr.octets();
    for (octet, mask) in octets.iter_mut().zip(mask.octets()) {
        *octet &= mask;
    }
    Addr::from_octets(octets)
}
