//! Services: choosing a backend, and a Service's address in a packet (at connect the socket hooks
//! do it once instead).

use orchestrator_common::maps::flows::Flow;
use orchestrator_common::maps::services::{Backend, Service, ServiceKey};
use orchestrator_common::{DropReason, Port, Rule, Scope, Tuple};

use crate::conntrack;
use crate::maps;
use crate::packet::{Fragment, Headers, TCP_SYN};
use crate::skb::Packet;

/// Choices for one packet: a backend may be the sender itself, or its answers be another flow's.
const TRIES: u32 = 6;

/// A backend of the Service by chance. A slot can be empty only while the agent takes the last
/// backends away.
#[inline(always)]
pub fn choose(service: &Service) -> Result<&'static Backend, DropReason> {
    let count = service.count;
    if count == 0 {
        return Err(DropReason::NoBackend);
    }
    match maps::backend(service.id, maps::random() % count) {
        Some(backend) => Ok(backend),
        None => maps::backend(service.id, 0).ok_or(DropReason::NoBackend),
    }
}

/// Replaces the Service's address of a packet by a backend's: by the flow's if there is one, else a
/// new choice.
#[inline(always)]
pub fn to_backend(packet: &mut Packet) -> Result<Rule, DropReason> {
    let headers = &packet.headers;
    if headers.fragment != Fragment::Whole {
        return Err(DropReason::Fragment);
    }
    if !headers.has_ports() {
        return Err(DropReason::UnsupportedProtocol);
    }
    packet.headers.tuple.scope = Scope::SERVICE;
    let headers = &packet.headers;
    match maps::flow(&headers.tuple) {
        Some(flow) if still_right(flow, headers) => {
            conntrack::touch(flow, headers)?;
            packet.rewrite(&flow.translated)?;
        }
        _ => {
            let mut translated = headers.tuple;
            open(&headers.tuple, &mut translated)?;
            packet.rewrite(&translated)?;
        }
    }
    Ok(Rule::Service)
}

/// A flow whose backend went chooses again; an open TCP connection cannot, and ends with its
/// backend.
#[inline(always)]
fn still_right(flow: &Flow, headers: &Headers) -> bool {
    flow.direction == Flow::FORWARD
        && (maps::generation(flow.backend) == flow.generation
            || (headers.is_tcp() && headers.tcp_flags & TCP_SYN == 0))
}

/// Not inlined, for the stack: it is not where most packets come along.
#[inline(never)]
fn open(key: &Tuple, translated: &mut Tuple) -> Result<(), DropReason> {
    let service = maps::service(&ServiceKey::new(key.dst, key.dst_port, key.proto))
        .ok_or(DropReason::NoService)?;
    let mut failure = DropReason::Hairpin;
    for attempt in 0..TRIES {
        let backend = choose(service)?;
        if backend.addr.same(&key.src) {
            continue;
        }
        translated.dst = backend.addr;
        translated.dst_port = backend.port;
        if attempt >= TRIES / 2 {
            translated.src_port = Port::new(maps::random() as u16 | 0x8000);
        }
        let generation = maps::generation(backend.id);
        match conntrack::open(key, translated, backend.id, generation) {
            Err(DropReason::NoFreePort) => failure = DropReason::NoFreePort,
            ended => return ended,
        }
    }
    Err(failure)
}

/// Replaces a backend's address of an answer by the Service's that was asked, if one was.
#[inline(always)]
pub fn to_service(packet: &mut Packet) -> Result<Option<Rule>, DropReason> {
    if !packet.headers.has_ports() {
        return Ok(None);
    }
    packet.headers.tuple.scope = Scope::SERVICE;
    let Some(flow) = maps::flow(&packet.headers.tuple) else {
        return Ok(None);
    };
    if flow.direction != Flow::REPLY {
        return Ok(None);
    }
    if packet.headers.fragment != Fragment::Whole {
        return Err(DropReason::Fragment);
    }
    conntrack::touch(flow, &packet.headers)?;
    packet.rewrite(&flow.translated)?;
    Ok(Some(Rule::ServiceReply))
}
