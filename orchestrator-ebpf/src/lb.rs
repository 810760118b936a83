//! Services in packets: which flow or row a packet meets, and what it becomes. Choosing a backend
//! is `choice`; at connect the socket hooks do it once instead.

use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::services::{Service, ServiceKey};
use orchestrator_common::{DropReason, Proto, Rule, Scope, Tuple};

use crate::choice;
use crate::conntrack::{self, Opening, Ports};
use crate::dsr;
use crate::forward;
use crate::fragments;
use crate::log;
use crate::maps;
use crate::packet::{Fragment, Headers, TCP_RST, TCP_SYN};
use crate::port;
use crate::skb::Packet;

const EITHER: u16 = Flow::FORWARD | Flow::REPLY;

/// Translates what an endpoint sends: to a Service, or an answer that has to come by here.
/// What it did is the headers' rule, none if it is neither.
#[inline(always)]
pub fn from_inside(packet: &mut Packet, config: &Config) -> Result<(), DropReason> {
    let to = packet.headers.tuple.dst;
    let family = forward::family(packet, config);
    let is_answer = to.same(&family.translation);
    if is_answer || family.pods.contains(&to) {
        if is_by_node(packet, config) || is_answer && by_answer(packet) {
            return packet.rewrite();
        }
        if is_answer {
            return Err(DropReason::NoFlow);
        }
        return if is_beside(packet)? {
            packet.rewrite()
        } else {
            Ok(())
        };
    }
    if by_flow(packet, EITHER) || by_row(packet.headers, config, ServiceKey::INSIDE)? {
        return packet.rewrite();
    }
    if family.services.contains(&to) {
        return Err(not_served(packet));
    }
    Ok(())
}

/// Whether a datagram that an endpoint sends straight to another goes out with a source port of its own,
/// because a Service's flow has led the same port to the same place: the answers could not be told apart.
/// A TCP socket's Service is its pod to the kernel already, which keeps its ports apart.
#[inline(always)]
fn is_beside(packet: &mut Packet) -> Result<bool, DropReason> {
    let headers = &packet.headers;
    if !headers.is_udp() && !headers.is_icmp_error() {
        return Ok(false);
    }
    // Of errors and later fragments the ports are to be found yet.
    let tuple = &headers.tuple;
    if headers.is_udp() && headers.has_ports() && !maps::may_reply(&tuple.dst, tuple.dst_port) {
        return Ok(false);
    }
    if by_flow(packet, Flow::FORWARD) {
        return Ok(true);
    }
    open_beside(packet.headers)
}

/// Opens such a flow if there is a reason. Not inlined, for the stack.
#[inline(never)]
fn open_beside(headers: &mut Headers) -> Result<bool, DropReason> {
    if !headers.has_ports() {
        return Ok(false);
    }
    match maps::flow(&headers.tuple.reverse()) {
        Some(answers) if answers.direction == Flow::REPLY => {}
        _ => return Ok(false),
    }
    let opening = conntrack::begin(headers)?;
    conntrack::open_with_port(opening, &AllPorts)?;
    fragments::remember(headers);
    headers.becomes = opening.translated;
    headers.rule = Rule::Service;
    Ok(true)
}

/// Why a packet to the Services' range has no row.
#[inline(always)]
fn not_served(packet: &Packet) -> DropReason {
    if packet.headers.has_ports() {
        DropReason::NoService
    } else if packet.headers.is_icmp_error() {
        DropReason::NoFlow
    } else if packet.headers.fragment == Fragment::Later {
        DropReason::Fragment
    } else {
        DropReason::UnsupportedProtocol
    }
}

/// Replaces a backend's address of an answer by the Service's that was asked, if one was.
#[inline(always)]
pub fn to_service(packet: &mut Packet) -> Result<Option<Rule>, DropReason> {
    if !by_answer(packet) {
        return Ok(None);
    }
    packet.rewrite()?;
    Ok(Some(packet.headers.rule))
}

/// Translates an answer to the translation address. Its flow says who is to have it.
#[inline(always)]
pub fn to_asker(packet: &mut Packet) -> Result<(), DropReason> {
    to_service(packet)?.map(drop).ok_or(DropReason::NoFlow)
}

/// Whether the flow of a packet, of a wanted direction, says what it becomes: that is in the headers
/// then, so that the verifier need not follow where it came from. A flow lives as long as it is used,
/// also without its Service.
#[inline(always)]
pub fn by_flow(packet: &mut Packet, wanted: u16) -> bool {
    let Some(key) = packet.key(Scope::SERVICE) else {
        return false;
    };
    let Some(flow) = maps::flow(key) else {
        return false;
    };
    follow(packet.headers, flow, wanted)
}

/// The same for an answer, which few packets are: most are not looked up. Not inlined, for the verifier.
#[inline(never)]
fn by_answer(packet: &mut Packet) -> bool {
    let Some(key) = packet.key(Scope::SERVICE) else {
        return false;
    };
    let Some(flow) = maps::answer(key) else {
        return false;
    };
    follow(packet.headers, flow, Flow::REPLY)
}

/// The same once the flow is found.
#[inline(always)]
pub fn follow(headers: &mut Headers, flow: &mut Flow, wanted: u16) -> bool {
    if flow.direction & wanted == 0 {
        return false;
    }
    let is_reply = flow.direction == Flow::REPLY;
    if !is_reply && !still_right(flow, headers) {
        return false;
    }
    let rule = if is_reply {
        Rule::ServiceReply
    } else {
        Rule::Service
    };
    conntrack::take(headers, flow, rule);
    true
}

/// Whether a packet is the answer of a server on the node's own network that did not say from which
/// of the node's addresses: the kernel takes the one of the route to who asked. Only with datagrams.
#[inline(always)]
fn is_by_node(packet: &mut Packet, config: &Config) -> bool {
    let family = forward::family(packet, config);
    if !packet.headers.is_udp() || !packet.headers.tuple.src.same(&family.gateway) {
        return false;
    }
    // The flow was opened to the other address; what is in the packet is this one.
    packet.headers.tuple.src = family.node;
    let found = by_answer(packet);
    packet.headers.tuple.src = family.gateway;
    found
}

/// A flow whose backend went chooses again; an open TCP connection cannot, and ends with its
/// backend.
#[inline(always)]
fn still_right(flow: &Flow, headers: &Headers) -> bool {
    headers.is_icmp_error()
        || maps::generation(flow.backend) == flow.generation
        || (headers.is_tcp() && headers.tcp_flags & TCP_SYN == 0)
}

/// Opens a flow for a packet to a Service, of those for `scope`; `false` if it is to none.
#[inline(always)]
pub fn by_row(headers: &mut Headers, config: &Config, scope: u8) -> Result<bool, DropReason> {
    if !headers.has_ports() || !choose(headers, config, scope)? {
        return Ok(false);
    }
    open(headers, config, scope)?;
    log::opened(headers);
    Ok(true)
}

// The two steps are not inlined, for the stack: it is not where most packets come along. What the
// first found out is in `maps::opening`.

#[inline(never)]
fn choose(headers: &mut Headers, config: &Config, scope: u8) -> Result<bool, DropReason> {
    let Some(service) = find(config, &headers.tuple, scope) else {
        return Ok(false);
    };
    headers.service = service.id;
    // The end of what nobody remembers: no backend would know it either.
    if headers.tcp_flags & TCP_RST != 0 {
        return Err(if service.count == 0 {
            DropReason::NoBackend
        } else {
            DropReason::NoFlow
        });
    }
    headers.tuple.scope = Scope::SERVICE;
    let opening = conntrack::begin(headers)?;
    if let Err(reason) = give(&service, opening) {
        maps::count_refused(service.id);
        return Err(reason);
    }
    Ok(true)
}

#[inline(always)]
fn give(service: &Service, opening: &mut Opening) -> Result<(), DropReason> {
    let key = &opening.key;
    if service.flags & Service::SOURCE_RANGES != 0 && !maps::is_admitted(service.id, &key.src) {
        return Err(DropReason::SourceRange);
    }
    let (backend, generation) = choice::for_flow(service, key)?;
    opening.translated.dst = backend.addr;
    opening.translated.dst_port = backend.port;
    opening.backend = backend.id;
    opening.generation = generation;
    Ok(())
}

#[inline(never)]
fn open(headers: &mut Headers, config: &Config, scope: u8) -> Result<(), DropReason> {
    let opening = maps::opening()?;
    if let Err(reason) = enter(config, scope, opening) {
        maps::count_refused(headers.service);
        return Err(reason);
    }
    maps::count_opened(headers.service, opening.backend);
    fragments::remember(headers);
    headers.becomes = opening.translated;
    headers.rule = Rule::Service;
    Ok(())
}

/// The flow's way into the table, in the name that its answers can come back to.
#[inline(always)]
fn enter(config: &Config, scope: u8, opening: &mut Opening) -> Result<(), DropReason> {
    // The checksum of SCTP covers its ports.
    let is_sctp = opening.key.proto.number == Proto::SCTP.number;
    if is_sctp && opening.translated.dst_port.wire != opening.key.dst_port.wire {
        return Err(DropReason::SctpPort);
    }
    let must_come_back = must_come_back(config, opening, scope);
    if must_come_back && is_direct(config, opening, scope) && open_direct(opening).is_ok() {
        return Ok(());
    }
    if must_come_back {
        opening.translated.src = config.family(&opening.key.src).translation;
    }
    if is_sctp {
        return conntrack::open(opening);
    }
    if must_come_back {
        return conntrack::open_with_port(opening, &AllPorts);
    }
    // Two Services may have one backend, and a client one port for both.
    match conntrack::open(opening) {
        Err(DropReason::NoFreePort) => conntrack::open_with_port(opening, &AllPorts),
        ended => ended,
    }
}

/// The row of the address that was asked; a node's own address also has those of node ports.
#[inline(always)]
pub fn find(config: &Config, asked: &Tuple, scope: u8) -> Option<Service> {
    let key = ServiceKey {
        addr: asked.dst,
        port: asked.dst_port,
        proto: asked.proto,
        scope,
    };
    if let Some(service) = maps::service(&key) {
        return Some(service);
    }
    // The node's datagrams to a node port of its own come under the Services' first address.
    let is_node = asked.dst.same(&config.family(&asked.dst).services.addr)
        || maps::endpoint(&asked.dst).is_some_and(|endpoint| endpoint.is_host());
    if !is_node {
        return None;
    }
    maps::service(&key.node_port())
}

/// Whether the backend's answers would not come back by this node if they went to the client's own
/// address: then the client is given this node's translation address.
#[inline(always)]
fn must_come_back(config: &Config, opening: &Opening, scope: u8) -> bool {
    let (client, backend) = (&opening.key.src, &opening.translated.dst);
    match maps::endpoint(backend) {
        // A remote backend answers pods through the overlay.
        None => scope == ServiceKey::OUTSIDE || !config.family(client).pods.contains(client),
        // Whoever gets a packet from itself answers itself.
        Some(here) if here.is_host() => {
            maps::endpoint(client).is_some_and(|client| client.is_host())
        }
        Some(_) => backend.same(client),
    }
}

/// Whether the backend's node answers the client itself. Not a node of this cluster, which may be the
/// backend's own: what it has masqueraded it expects by its uplink.
#[inline(always)]
fn is_direct(config: &Config, opening: &Opening, scope: u8) -> bool {
    let backend = &opening.translated.dst;
    dsr::is_on(config)
        && scope == ServiceKey::OUTSIDE
        && config.family(backend).pods.contains(backend)
        && maps::node(&opening.key.src).is_none()
}

/// Opens a flow that keeps its client's address. Its answers never come by, which must not make it
/// half-open.
#[inline(always)]
fn open_direct(opening: &mut Opening) -> Result<(), DropReason> {
    conntrack::open(opening)?;
    if let Some(reply) = maps::flow(&opening.translated.reverse()) {
        reply.seen = Flow::USED;
    }
    Ok(())
}

/// Every port, of an address without sockets.
struct AllPorts;

impl Ports for AllPorts {
    #[inline(always)]
    fn last(attempt: u32) -> u16 {
        port::last_of_translation(attempt)
    }

    #[inline(always)]
    fn may_be_given(&self, _translated: &Tuple) -> bool {
        true
    }
}
