//! Direct server return: what a node sends on for a client outside, and what it is sent.

use std::collections::BTreeSet;

use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::{Addr, DropReason, Port, Proto, Scope, Tuple, Verdict};

use super::packet::{Icmp, Packet, Part};
use super::state::Opened;
use super::{By, Decided, Left, Outcome, World, holds};

/// Set in the VXLAN identifier of what is answered directly.
pub(super) const VNI: u32 = 1 << 23;

impl World<'_> {
    pub(super) fn is_direct(&self) -> bool {
        self.config.flags & Config::DSR != 0
    }

    /// What a packet that keeps its source from outside has to say to its backend's node.
    pub(super) fn asked(
        &self,
        packet: &Packet,
        left: &Left,
        by: By,
    ) -> Result<Option<(Addr, Port)>, DropReason> {
        let is_clients = match by {
            By::Nothing => false,
            By::Service => left.tuple.src == packet.tuple.src,
            By::Error => true,
        };
        if !self.is_direct() || !is_clients {
            return Err(DropReason::SourceSpoofed);
        }
        let tuple = packet.tuple;
        Ok(packet.has_ports().then_some((tuple.dst, tuple.dst_port)))
    }

    /// Out of the overlay, for a pod of this node that is to answer the client itself.
    pub(super) fn from_direct(&self, sender: Addr, packet: &Packet) -> Decided {
        let backend = packet.tuple;
        let node = self.tables.nodes.get(&sender);
        let may = node.is_some_and(|node| node.flags & Node::VTEP != 0 && node.vtep == sender);
        if !self.is_direct() || !may || holds(self.family(backend.dst).pods, backend.src) {
            return Err(DropReason::TunnelSpoofed);
        }
        let endpoint = self.tables.endpoints.get(&backend.dst);
        let endpoint = endpoint.ok_or(DropReason::NoEndpoint)?;
        let mut left = Left::of(packet);
        let needs_none = packet.part == Part::Later || packet.icmp == Some(Icmp::Error);
        if !needs_none {
            left.opened = self.answerer(packet)?;
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

    /// The flow that will have the answers come from what was asked, if there is none yet.
    fn answerer(&self, packet: &Packet) -> Result<Option<Opened>, DropReason> {
        if !packet.has_ports() {
            return Err(DropReason::UnsupportedProtocol);
        }
        let (dst, dst_port) = match packet.v6 {
            true => packet.asked.ok_or(DropReason::Malformed)?,
            false => packet.asked_by_mac(),
        };
        let translated = packet.tuple.in_scope(Scope::SERVICE);
        if translated.proto == Proto::SCTP && dst_port != translated.dst_port {
            return Err(DropReason::SctpPort);
        }
        let key = Tuple {
            dst,
            dst_port,
            ..translated
        };
        let row = self.state.row(&key, Scope::SERVICE);
        let to = |tuple: &Tuple| (tuple.dst, tuple.dst_port);
        if row.is_some_and(|row| !row.is_reply && to(&row.translated) == to(&translated)) {
            return Ok(None);
        }
        if self.state.is_taken(&key, &translated) {
            return Err(DropReason::NoFreePort);
        }
        Ok(Some(Opened {
            key,
            translated,
            backend: 0,
            remembers: None,
        }))
    }

    /// Whether a Service's flow leaves its answers to the backend's node.
    pub(super) fn answers_directly(&self, backend: Addr, translated: &Tuple, key: &Tuple) -> bool {
        let sctp_clash = key.proto == Proto::SCTP && key.dst_port != translated.dst_port;
        self.is_direct()
            && holds(self.family(backend).pods, backend)
            && !self.tables.nodes.contains_key(&key.src)
            && !sctp_clash
            && !self.state.is_taken(key, translated)
    }
}
