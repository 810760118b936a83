//! What Services make of packets: whose row one meets, and which flows it may open.

use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};
use orchestrator_common::{Addr, DropReason, Proto, Scope, Tuple};

use super::packet::Packet;
use super::state::Opened;
use super::{Left, Met, PORTS, World, and, holds};

impl World<'_> {
    /// Opens a flow for a packet to a Service.
    pub(super) fn service(&self, packet: &Packet, scope: u8) -> Result<Met, DropReason> {
        let Some(service) = self
            .row(&packet.tuple, scope)
            .filter(|_| packet.has_ports())
        else {
            return Ok(Met::Nothing);
        };
        let client = packet.tuple.src;
        if packet.tcp_flags & Packet::RST != 0 {
            // Nobody remembers what it ends.
            let empty = service.count == 0;
            return Err(if empty {
                DropReason::NoBackend
            } else {
                DropReason::NoFlow
            });
        }
        if !self.admits(service, client) {
            return Err(DropReason::SourceRange);
        }
        if service.count == 0 {
            return match service.flags & Service::ELSEWHERE {
                0 => Ok(Met::Refused(DropReason::NoBackend)),
                _ => Err(DropReason::NoLocalEndpoint),
            };
        }
        let had = self.state.remembered(client, service.id);
        let backends: Vec<Backend> = match had.filter(|_| service.affinity_s != 0) {
            Some(had) => vec![had],
            None => self.slots(service).copied().collect(),
        };
        let open = |backend| self.opened(packet, service, &backend, scope);
        let opened: Result<Vec<Left>, DropReason> = backends.into_iter().map(open).collect();
        if opened.is_ok() {
            self.keep_piece(packet, &Left::of(packet));
        }
        opened.map(Met::Service)
    }

    pub(super) fn opened(
        &self,
        packet: &Packet,
        service: &Service,
        backend: &Backend,
        scope: u8,
    ) -> Result<Left, DropReason> {
        let key = packet.tuple.in_scope(Scope::SERVICE);
        let mut translated = Tuple {
            dst: backend.addr,
            dst_port: backend.port,
            ..key
        };
        let comes_back = self.comes_back(key.src, backend.addr, scope)
            && !(scope == ServiceKey::OUTSIDE
                && self.answers_directly(backend.addr, &translated, &key));
        if comes_back {
            translated.src = self.family(key.src).translation;
        }
        let taken = self.state.is_taken(&key, &translated);
        // SCTP's checksum covers its ports.
        let is_sctp = key.proto == Proto::SCTP;
        if is_sctp && (taken || key.dst_port != backend.port) {
            let other = key.dst_port != backend.port;
            return Err(if other {
                DropReason::SctpPort
            } else {
                DropReason::NoFreePort
            });
        }
        let remembers = (service.affinity_s != 0).then_some(service.id);
        Ok(Left {
            tuple: translated.in_scope(Scope::PACKET),
            quote: None,
            given: (!is_sctp && (comes_back || taken)).then_some(PORTS),
            opened: Some(Opened {
                key,
                translated,
                backend: backend.id,
                remembers,
            }),
        })
    }

    /// Whether the backend would answer somebody who does not know what was translated: its answers
    /// must come to this node.
    pub(super) fn comes_back(&self, client: Addr, backend: Addr, scope: u8) -> bool {
        if self.is_host(backend) {
            return self.is_host(client);
        }
        if self.tables.endpoints.contains_key(&backend) {
            return backend == client;
        }
        scope == ServiceKey::OUTSIDE || !holds(self.family(client).pods, client)
    }

    pub(super) fn is_host(&self, addr: Addr) -> bool {
        self.tables
            .endpoints
            .get(&addr)
            .is_some_and(|here| here.is_host())
    }

    /// The row of the address that is asked: its own, or that of every address of the node.
    pub(super) fn row(&self, asked: &Tuple, scope: u8) -> Option<&Service> {
        let key = |addr| ServiceKey {
            addr,
            port: asked.dst_port,
            proto: asked.proto,
            scope,
        };
        if let Some(service) = self.tables.services.get(&key(asked.dst)) {
            return Some(service);
        }
        let stands_for_node = self.family(asked.dst).services.addr == asked.dst;
        let here = self.tables.endpoints.get(&asked.dst);
        if !stands_for_node && here.is_none_or(|endpoint| !endpoint.is_host()) {
            return None;
        }
        self.tables.services.get(&key(asked.dst.any_of_family()))
    }

    pub(super) fn admits(&self, service: &Service, client: Addr) -> bool {
        let mut ranges = self.tables.source_ranges.iter();
        service.flags & Service::SOURCE_RANGES == 0
            || ranges.any(|range| {
                let mask = Addr::v6_mask(range.bits.min(128) as u8);
                range.service == service.id && and(client, mask) == range.addr
            })
    }

    pub(super) fn slots(&self, service: &Service) -> impl Iterator<Item = &Backend> {
        let id = service.id;
        let keys = (0..service.count).map(move |slot| BackendKey { service: id, slot });
        keys.filter_map(|key| self.tables.backends.get(&key))
    }
}
