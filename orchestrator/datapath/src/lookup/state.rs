//! What earlier packets left behind, as the model remembers it.

use std::collections::BTreeMap;

use orchestrator_common::maps::services::Backend;
use orchestrator_common::{Addr, Port, Scope, Tuple};

/// One direction of a translated flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub translated: Tuple,
    pub is_reply: bool,
    pub backend: u32,
    pub generation: u32,
}

/// Everything that a packet meets besides the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub flows: BTreeMap<Tuple, Row>,
    /// Backends that went: number -> how often. The others are 0.
    pub generations: BTreeMap<u32, u32>,
    /// Client and Service number -> the backend it had last, of which generation; none too old.
    pub affinity: BTreeMap<(Addr, u32), (Backend, u32)>,
    /// Datagrams in pieces, without ports, and their numbers -> source and destination port.
    pub pieces: BTreeMap<(Tuple, u32), (Port, Port)>,
}

/// A flow that a packet opens. Its source port is the one seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opened {
    /// The packet, with the scope of its translation.
    pub key: Tuple,
    /// What it becomes, but for a source port that is given.
    pub translated: Tuple,
    pub backend: u32,
    /// The Service's number, if it remembers its clients.
    pub remembers: Option<u32>,
}

impl State {
    pub fn generation(&self, backend: u32) -> u32 {
        self.generations.get(&backend).copied().unwrap_or_default()
    }

    /// Whether the answers of `translated` would be taken for another flow's than `key`'s.
    pub fn is_taken(&self, key: &Tuple, translated: &Tuple) -> bool {
        let row = self.flows.get(&translated.reverse());
        row.is_some_and(|row| row.translated != key.reverse())
    }

    /// Takes a flow in that was seen to be opened with that source port.
    pub fn open(&mut self, opened: &Opened, src_port: Port) {
        let Opened { key, backend, .. } = *opened;
        let translated = Tuple {
            src_port,
            ..opened.translated
        };
        let generation = self.generation(backend);
        let row = |translated, is_reply| Row {
            translated,
            is_reply,
            backend,
            generation,
        };
        self.flows
            .insert(translated.reverse(), row(key.reverse(), true));
        self.flows.insert(key, row(translated, false));
        if let Some(service) = opened.remembers {
            let number = Backend {
                addr: translated.dst,
                port: translated.dst_port,
                flags: 0,
                id: backend,
            };
            self.affinity
                .insert((key.src, service), (number, generation));
        }
    }

    /// The backend that a Service remembers for a client.
    pub fn remembered(&self, client: Addr, service: u32) -> Option<Backend> {
        let (backend, generation) = self.affinity.get(&(client, service))?;
        (self.generation(backend.id) == *generation).then_some(*backend)
    }

    /// Takes a first piece in, for those that follow.
    pub fn remember(&mut self, first: &Tuple, id: u32) {
        let ports = (first.src_port, first.dst_port);
        self.pieces.insert((without_ports(first), id), ports);
    }

    /// A later piece with the ports of the first.
    pub fn recall(&self, later: &Tuple, id: u32) -> Option<Tuple> {
        let (src_port, dst_port) = *self.pieces.get(&(without_ports(later), id))?;
        Some(Tuple {
            src_port,
            dst_port,
            ..*later
        })
    }

    pub fn row(&self, tuple: &Tuple, scope: Scope) -> Option<&Row> {
        self.flows.get(&tuple.in_scope(scope))
    }
}

fn without_ports(tuple: &Tuple) -> Tuple {
    Tuple {
        src_port: Port::ZERO,
        dst_port: Port::ZERO,
        scope: Scope::PACKET,
        ..*tuple
    }
}
