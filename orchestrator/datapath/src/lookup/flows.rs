//! What flows make of packets: those that are there, and masquerade's, which it opens.

use orchestrator_common::{DropReason, Proto, Scope, Tuple};

use super::packet::{Icmp, Packet, Part};
use super::state::Opened;
use super::{Left, Met, PORTS, World};

impl World<'_> {
    pub(super) fn masqueraded(&self, packet: &Packet) -> Result<Left, DropReason> {
        let came = Left::of(packet);
        let is_error = packet.icmp == Some(Icmp::Error);
        let Some(key) = self.key(packet, &came, Scope::MASQUERADE) else {
            return Err(match packet.part {
                _ if is_error => DropReason::NoFlow,
                Part::Later => DropReason::Fragment,
                _ => DropReason::UnsupportedProtocol,
            });
        };
        let node = self.family(packet.tuple.src).node;
        match self.state.row(&key, Scope::MASQUERADE) {
            Some(row) if is_error || row.translated.src == node => {
                return self.translated(packet, &came, &row.translated);
            }
            _ if packet.part == Part::Later => return Err(DropReason::Fragment),
            _ if is_error => return Err(DropReason::NoFlow),
            // Who answers an echo was asked for it, and that had a flow.
            _ if packet.icmp == Some(Icmp::EchoReply) => {
                return Err(DropReason::UnsupportedProtocol);
            }
            _ => {}
        }
        let translated = Tuple { src: node, ..key };
        let keeps_port = key.proto == Proto::SCTP;
        if keeps_port && self.state.is_taken(&key, &translated) {
            return Err(DropReason::NoFreePort);
        }
        self.keep_piece(packet, &came);
        let opened = Opened {
            key,
            translated,
            backend: 0,
            remembers: None,
        };
        Ok(Left {
            tuple: translated.in_scope(Scope::PACKET),
            quote: None,
            given: (!keeps_port).then_some(PORTS),
            opened: Some(opened),
        })
    }

    pub(super) fn unmasqueraded(&self, packet: &Packet) -> Result<Option<Left>, DropReason> {
        let came = Left::of(packet);
        let Some(key) = self.key(packet, &came, Scope::MASQUERADE) else {
            return Ok(None);
        };
        let (first, last) = PORTS;
        // SCTP keeps its ports.
        let given = key.proto == Proto::SCTP || (first..=last).contains(&key.dst_port.host());
        let fits = given && packet.tuple.dst == self.family(packet.tuple.dst).node;
        match self
            .state
            .row(&key, Scope::MASQUERADE)
            .filter(|row| row.is_reply && fits)
        {
            None => Ok(None),
            Some(row) => self.translated(packet, &came, &row.translated).map(Some),
        }
    }

    /// What the flow of a packet that is `now` by now makes of it, in one direction.
    pub(super) fn flow(
        &self,
        packet: &Packet,
        now: &Left,
        reply: bool,
    ) -> Result<Option<Left>, DropReason> {
        let Some(key) = self.key(packet, now, Scope::SERVICE) else {
            return Ok(None);
        };
        let row = self
            .state
            .row(&key, Scope::SERVICE)
            .filter(|row| row.is_reply == reply);
        let Some(row) = row else {
            return Ok(None);
        };
        // An open TCP connection ends with its backend; whatever else goes on with another.
        let open = packet.tuple.proto == Proto::TCP && packet.tcp_flags & Packet::SYN == 0;
        let is_error = packet.icmp == Some(Icmp::Error);
        let current = self.state.generation(row.backend) == row.generation;
        if !reply && !open && !is_error && !current {
            return Ok(None);
        }
        self.translated(packet, now, &row.translated).map(Some)
    }

    /// What becomes of a packet straight to a pod: a datagram from a port whose answers from there are a
    /// Service's has another port.
    pub(super) fn beside(&self, packet: &Packet) -> Result<Met, DropReason> {
        let came = Left::of(packet);
        let is_udp = packet.tuple.proto == Proto::UDP;
        if !is_udp && packet.icmp != Some(Icmp::Error) {
            return Ok(Met::Nothing);
        }
        if let Some(left) = self.flow(packet, &came, false)? {
            return Ok(Met::Reply(left));
        }
        let key = packet.tuple.in_scope(Scope::SERVICE);
        let answers = self.state.row(&key.reverse(), Scope::SERVICE);
        if !packet.has_ports() || !answers.is_some_and(|row| row.is_reply) {
            return Ok(Met::Nothing);
        }
        self.keep_piece(packet, &came);
        Ok(Met::Service(vec![Left {
            given: Some(PORTS),
            opened: Some(Opened {
                key,
                translated: key,
                backend: 0,
                remembers: None,
            }),
            ..came
        }]))
    }

    /// Under which key a packet's flow would be: a later piece's with the ports of the first, an
    /// ICMP error's as the answer to what it quotes.
    pub(super) fn key(&self, packet: &Packet, now: &Left, scope: Scope) -> Option<Tuple> {
        if packet.icmp == Some(Icmp::Error) {
            return now.quote.map(|quote| quote.reverse().in_scope(scope));
        }
        let tuple = match packet.part {
            Part::Later => self.state.recall(&now.tuple, packet.fragment_id)?,
            _ => now.tuple,
        };
        // A later piece of an echo, too, whose identifier the first one left.
        let is_echo = match packet.part {
            Part::Later => packet.has_icmp_protocol(),
            _ => matches!(packet.icmp, Some(Icmp::Echo | Icmp::EchoReply)),
        };
        let has_identity = packet.has_port_protocol() || (scope == Scope::MASQUERADE && is_echo);
        has_identity.then(|| tuple.in_scope(scope))
    }

    /// A packet that is `now` by now as its flow's row says.
    pub(super) fn translated(
        &self,
        packet: &Packet,
        now: &Left,
        to: &Tuple,
    ) -> Result<Left, DropReason> {
        let mut left = Left {
            tuple: to.in_scope(Scope::PACKET),
            quote: None,
            ..*now
        };
        if packet.icmp == Some(Icmp::Error) {
            let quote = now.quote.unwrap_or_default();
            let answered = to.reverse();
            let ports = |of: &Tuple| (of.src_port, of.dst_port);
            if quote.proto == Proto::SCTP && ports(&quote) != ports(&answered) {
                return Err(DropReason::SctpPort);
            }
            // A router's on the way outside stays that router's, for who traces a route.
            let is_routers = to.scope == Scope::MASQUERADE && to.src == quote.dst;
            let src = if is_routers { now.tuple.src } else { to.src };
            left.tuple = Tuple {
                src,
                dst: to.dst,
                ..now.tuple
            };
            left.quote = Some(answered.in_scope(Scope::PACKET));
        } else if packet.part == Part::Later {
            left.tuple = Tuple {
                src: to.src,
                dst: to.dst,
                ..now.tuple
            };
        } else {
            self.keep_piece(packet, now);
        }
        Ok(left)
    }

    pub(super) fn keep_piece(&self, packet: &Packet, now: &Left) {
        if packet.part == Part::First {
            self.pieces
                .borrow_mut()
                .push((now.tuple, packet.fragment_id));
        }
    }
}
