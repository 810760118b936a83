//! A model of the datapath over its tables: what must happen to a connect or to a packet.
//!
//! Pure. It judges the real programs and explains the tables to people, so it shares no code with
//! `orchestrator-ebpf`. It knows no flows: it speaks of the first packet. Where the datapath picks by
//! chance, the model names everything that may be picked.

use std::collections::BTreeSet;

use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::services::{BackendKey, Service, ServiceKey};
use orchestrator_common::{Addr, DropReason, Port, Proto, Tuple, Verdict};

use super::table::Tables;

/// Where a packet may go; `to` is who it is addressed to then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// To a local endpoint: a pod ([`Verdict::Peer`]) or the node.
    Local {
        verdict: Verdict,
        ifindex: u32,
        to: (Addr, Port),
    },
    /// Through the overlay.
    Tunnel {
        vtep: Addr,
        to: (Addr, Port),
    },
    /// Out of the uplink; `to_netdev` masquerades it.
    Outside {
        to: (Addr, Port),
    },
    /// Left to the node's own stack.
    Pass,
    /// Sent back as a refusal.
    Refuse(DropReason),
    Drop(DropReason),
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

/// `connect4`: a TCP socket in the namespace with this cookie.
pub fn connect(tables: &Tables, cookie: u64, to: (Addr, Port)) -> Connect {
    let known = tables.netns.contains_key(&cookie);
    let key = ServiceKey::new(to.0, to.1, Proto::TCP);
    match tables.services.get(&key).filter(|_| known) {
        None => Connect::Unchanged,
        Some(service) if service.count == 0 => Connect::Refused,
        Some(service) => Connect::Backend(backends(tables, service)),
    }
}

/// `from_container`: a packet from an endpoint's interface. A set, for a Service picks by chance.
pub fn from_container(tables: &Tables, ifindex: u32, packet: &Tuple) -> BTreeSet<Outcome> {
    let Some(config) = tables.config.get(&0) else {
        return drop_for(DropReason::NoConfig);
    };
    let held = tables.endpoints.get(&packet.src);
    if held.is_none_or(|endpoint| endpoint.ifindex != ifindex) {
        return drop_for(DropReason::SourceSpoofed);
    }
    let asked = (packet.dst, packet.dst_port);
    if !within(packet.dst, config.v4.services.addr, config.v4.services.mask) {
        let from = Some((ifindex, packet.src));
        return BTreeSet::from([route(tables, config, from, asked)]);
    }
    if packet.proto != Proto::TCP && packet.proto != Proto::UDP {
        return drop_for(DropReason::UnsupportedProtocol);
    }
    let key = ServiceKey::new(packet.dst, packet.dst_port, packet.proto);
    let Some(service) = tables.services.get(&key) else {
        return BTreeSet::from([Outcome::Refuse(DropReason::NoService)]);
    };
    if service.count == 0 {
        return BTreeSet::from([Outcome::Refuse(DropReason::NoBackend)]);
    }
    let outcomes = backends(tables, service).into_iter();
    outcomes
        .map(|backend| route(tables, config, None, backend))
        .collect()
}

/// `from_overlay`: a decapsulated packet that came with `vni` from the tunnel's other end.
pub fn from_overlay(tables: &Tables, vni: u32, sender: Addr, packet: &Tuple) -> Outcome {
    let Some(config) = tables.config.get(&0) else {
        return Outcome::Drop(DropReason::NoConfig);
    };
    if vni != config.vni {
        return Outcome::Drop(DropReason::NotOurTunnel);
    }
    let owner = tables.nodes.get(&share(config, packet.src));
    if owner.is_none_or(|node| node.vtep != sender) {
        return Outcome::Drop(DropReason::TunnelSpoofed);
    }
    local(tables, None, (packet.dst, packet.dst_port))
        .unwrap_or(Outcome::Drop(DropReason::NoEndpoint))
}

/// `from_netdev`: the first packet of somebody on the underlay.
pub fn from_netdev(tables: &Tables, packet: &Tuple) -> Outcome {
    let Some(config) = tables.config.get(&0) else {
        return Outcome::Pass;
    };
    let outer = packet.proto == Proto::UDP && packet.dst_port == config.vxlan_port;
    let pod = |addr| within(addr, config.v4.pods.addr, config.v4.pods.mask);
    if !outer && (pod(packet.src) || pod(packet.dst)) {
        return Outcome::Drop(DropReason::PodRangeOutside);
    }
    Outcome::Pass
}

/// Beyond translation: what an endpoint's packet to `to` meets. `from` is its interface and address,
/// none behind a Service: what cannot come back to that address is given one to which it can.
fn route(tables: &Tables, config: &Config, from: Option<(u32, Addr)>, to: (Addr, Port)) -> Outcome {
    let pod = |addr| within(addr, config.v4.pods.addr, config.v4.pods.mask);
    let here = local(tables, from.map(|(ifindex, _)| ifindex), to);
    if !pod(to.0) {
        return here.unwrap_or_else(|| outside(to));
    }
    if share(config, to.0) == share(config, config.v4.gateway) {
        return here.unwrap_or(Outcome::Drop(DropReason::NoEndpoint));
    }
    match tables.nodes.get(&share(config, to.0)) {
        None => Outcome::Drop(DropReason::NoNode),
        Some(_) if from.is_some_and(|(_, from)| !pod(from)) => {
            Outcome::Drop(DropReason::SourceSpoofed)
        }
        Some(node) => Outcome::Tunnel {
            vtep: node.vtep,
            to,
        },
    }
}

fn outside(to: (Addr, Port)) -> Outcome {
    let first = to.0.octets()[12];
    match first {
        0 | 127 | 224.. => Outcome::Drop(DropReason::NotUnicast),
        _ => Outcome::Outside { to },
    }
}

fn local(tables: &Tables, from: Option<u32>, to: (Addr, Port)) -> Option<Outcome> {
    let endpoint = tables.endpoints.get(&to.0)?;
    if from == Some(endpoint.ifindex) {
        return Some(Outcome::Drop(DropReason::Hairpin));
    }
    let verdict = if endpoint.is_host() {
        Verdict::Node
    } else {
        Verdict::Peer
    };
    Some(Outcome::Local {
        verdict,
        ifindex: endpoint.ifindex,
        to,
    })
}

fn backends(tables: &Tables, service: &Service) -> BTreeSet<(Addr, Port)> {
    let slots = (0..service.count).filter_map(|slot| {
        tables.backends.get(&BackendKey {
            service: service.id,
            slot,
        })
    });
    slots.map(|row| (row.addr, row.port)).collect()
}

fn share(config: &Config, addr: Addr) -> Addr {
    and(addr, config.v4.node_mask)
}

fn within(addr: Addr, range: Addr, mask: Addr) -> bool {
    and(addr, mask) == range
}

fn and(addr: Addr, mask: Addr) -> Addr {
    let mut octets = addr.octets();
    for (octet, mask) in octets.iter_mut().zip(mask.octets()) {
        *octet &= mask;
    }
    Addr::from_octets(octets)
}

fn drop_for(reason: DropReason) -> BTreeSet<Outcome> {
    BTreeSet::from([Outcome::Drop(reason)])
}
