//! The node that random packets are about: rows of every kind, written here one by one.

use std::net::IpAddr;

use datapath::table::{Admitted, Tables};
use orchestrator_common::event::Hook;
use orchestrator_common::maps::config::{Config, Family};
use orchestrator_common::maps::endpoints::Endpoint;
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};
use orchestrator_common::{Addr, Mac, Port, Prefix, Proto};

use super::frames::{self, Pool};
use crate::packet;
use crate::prog::LOOPBACK;
use crate::sim::rng::Rng;

/// Interfaces besides [`LOOPBACK`], which is that of the pod that sends.
const NEIGHBOUR: u32 = 77;
const UPLINK: u32 = 90;
const OVERLAY: u32 = 91;
const HOST: u32 = 92;

/// Both families' addresses in the same places.
const PODS: [[&str; 2]; 2] = [
    ["10.100.1.5", "fd00:100:0:1::5"],
    ["10.100.1.6", "fd00:100:0:1::6"],
];
const FAR_POD: [&str; 2] = ["10.100.2.7", "fd00:100:0:2::7"];
const NODE: [&str; 2] = ["172.31.0.11", "fd00:31::b"];
const GATEWAY: [&str; 2] = ["10.100.1.1", "fd00:100:0:1::1"];
const TRANSLATION: [&str; 2] = ["10.100.1.0", "fd00:100:0:1::"];
const OTHER_NODE: [&str; 2] = ["172.31.0.12", "fd00:31::c"];
const OUTSIDE: [&str; 2] = ["172.31.0.250", "fd00:31::fa"];
const PUBLIC: [&str; 2] = ["192.0.2.10", "2001:db8::a"];
const SERVICES: [&str; 2] = ["10.96.0.0", "fd00:96::"];

/// What packets are addressed to besides: nobody, every special range, other nodes.
const OTHERS: [&str; 24] = [
    "10.100.1.99",
    "10.100.2.1",
    "10.100.2.0",
    "10.100.77.1",
    "10.96.0.99",
    "172.31.0.12",
    "198.51.100.1",
    "224.0.0.1",
    "255.255.255.255",
    "127.0.0.1",
    "0.0.0.0",
    "fd00:100:0:1::99",
    "fd00:100:0:2::1",
    "fd00:100:0:77::1",
    "fd00:96::99",
    "fd00:31::c",
    "2001:db8:1::1",
    "ff02::1",
    "fe80::1",
    "::1",
    "::",
    "2001:db8:2::1",
    // Of IPv4 hosts, as nobody may write them on the wire.
    "::ffff:10.100.1.6",
    "::ffff:10.96.0.11",
];

/// Of a Maglev table.
const LENGTH: u16 = 101;

pub const PORTS: [u16; 12] = [
    80, 53, 8080, 5353, 30080, 30081, 4789, 1024, 2000, 2001, 40000, 65535,
];

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal")
}

fn addr(text: &str) -> Addr {
    ip(text).into()
}

/// The pods' packets, other nodes', outside's, the node's: from whom a hook most often hears.
pub fn senders(hook: Hook) -> Vec<IpAddr> {
    let both = |names: &[[&str; 2]]| names.iter().flatten().map(|name| ip(name)).collect();
    match hook {
        Hook::FromContainer | Hook::FromCut | Hook::Connect => both(&[PODS[0], GATEWAY]),
        Hook::ToContainer => both(&[PODS[1], FAR_POD, OUTSIDE, GATEWAY]),
        Hook::FromOverlay => both(&[FAR_POD]),
        Hook::FromNetdev | Hook::Xdp => both(&[OUTSIDE, PUBLIC]),
        Hook::ToNetdev => both(&[PODS[0], PODS[1], NODE, TRANSLATION]),
    }
}

/// To whom a hook's packets are about half of the time.
pub fn addressees(hook: Hook) -> Vec<IpAddr> {
    let both = |names: &[[&str; 2]]| names.iter().flatten().map(|name| ip(name)).collect();
    match hook {
        Hook::FromContainer | Hook::FromCut | Hook::Connect => Vec::new(),
        Hook::ToContainer => both(&[PODS[0]]),
        Hook::FromOverlay => both(&[PODS[0], PODS[1], GATEWAY, TRANSLATION]),
        Hook::FromNetdev | Hook::Xdp => both(&[NODE, PUBLIC]),
        Hook::ToNetdev => both(&[OUTSIDE]),
    }
}

/// A frame in the tunnel that it came by, as it is on the uplink.
pub fn wrapped(vni: u32, sender: Addr, inner: &[u8]) -> Vec<u8> {
    packet::vxlan(&sender.to_string(), NODE[0], vni, inner)
}

/// Set in the VXLAN identifier of what is answered directly.
const DIRECT: u32 = 1 << 23;

/// How a packet comes out of the overlay.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    pub vni: u32,
    pub sender: Addr,
}

impl Tunnel {
    /// Most often from the other node, in one of the ways that it sends.
    pub fn any(rng: &mut Rng, tables: &Tables) -> Tunnel {
        let config = &tables.config[&0];
        let family = usize::from(!config.underlay.is_v4());
        let direct = rng.chance(if config.flags & Config::DSR != 0 {
            500
        } else {
            20
        });
        let vni = if rng.chance(950) { 1 } else { 2 };
        let sender = match rng.chance(950) {
            true => OTHER_NODE[family],
            false => OUTSIDE[family],
        };
        Tunnel {
            vni: if direct { vni | DIRECT } else { vni },
            sender: addr(sender),
        }
    }

    pub fn is_direct(&self) -> bool {
        self.vni & DIRECT != 0
    }
}

/// What a client asked, who is answered by another node than the one it asked.
pub fn asked(rng: &mut Rng, v6: bool) -> (Addr, u16) {
    let family = usize::from(v6);
    let other = addr(OTHER_NODE[family]);
    match rng.below(3) {
        0 => (addr(PUBLIC[family]), 80),
        1 => (addr(PUBLIC[family]), 53),
        _ => (other, 30080),
    }
}

/// Those whom the uplink brings.
pub fn clients() -> Vec<IpAddr> {
    senders(Hook::FromNetdev)
}

pub fn pool(tables: &Tables) -> Pool {
    let mut addrs: Vec<&str> = OTHERS.to_vec();
    for names in [
        PODS[0],
        PODS[1],
        FAR_POD,
        NODE,
        GATEWAY,
        TRANSLATION,
        OUTSIDE,
        PUBLIC,
        SERVICES,
    ] {
        addrs.extend(names);
    }
    let mut texts: Vec<String> = addrs.into_iter().map(str::to_owned).collect();
    // Services are most of what there is to go wrong.
    for _ in 0..2 {
        texts.extend(tables.services.keys().map(|key| key.addr.to_string()));
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Pool::of(&texts, &PORTS)
}

/// Which parts of the datapath a world is about.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub v6: bool,
    /// Node ports and addresses for outside.
    pub outside: bool,
    pub affinity: bool,
    /// Services for outside admit few, and have Maglev tables.
    pub ranges: bool,
    pub maglev: bool,
    pub underlay_v6: bool,
    /// Direct server return.
    pub direct: bool,
}

impl Parts {
    pub const ALL: Parts = Parts {
        v6: true,
        outside: true,
        affinity: true,
        ranges: true,
        maglev: true,
        underlay_v6: false,
        direct: false,
    };
}

pub fn tables(parts: Parts) -> Tables {
    let mut tables = Tables::default();
    tables.config.insert(0, config(parts));
    let families = if parts.v6 { 0..2 } else { 0..1 };
    for family in families {
        for (names, ifindex, flags) in [
            (PODS[0], LOOPBACK, 0),
            (PODS[1], NEIGHBOUR, 0),
            (NODE, HOST, Endpoint::HOST),
            // The gateway sends by the interface that test packets come from.
            (
                GATEWAY,
                if family == 0 { HOST } else { LOOPBACK },
                Endpoint::HOST,
            ),
        ] {
            let mac = match ifindex {
                LOOPBACK => frames::SENDER,
                _ => Mac::new([2, 0, 0, 0, 1, ifindex as u8]),
            };
            let row = Endpoint {
                ifindex,
                flags,
                mac,
                gateway_mac: mac,
                identity: 0,
            };
            tables.endpoints.insert(addr(names[family]), row);
        }
        let share = addr(FAR_POD[family]).masked(&mask(family == 0));
        let vtep = addr(OTHER_NODE[usize::from(parts.underlay_v6)]);
        let node = Node {
            vtep,
            ..Node::default()
        };
        tables.nodes.insert(share, node);
        if parts.direct {
            let flags = Node::VTEP;
            tables.nodes.insert(vtep, Node { flags, ..node });
        }
        services(&mut tables, family, parts);
    }
    tables
}

fn mask(v4: bool) -> Addr {
    if v4 {
        Addr::v4_mask(24)
    } else {
        Addr::v6_mask(64)
    }
}

fn services(tables: &mut Tables, family: usize, parts: Parts) {
    let at = |last: u8| match family {
        0 => addr(&format!("10.96.0.{last}")),
        _ => addr(&format!("fd00:96::{last:x}")),
    };
    let all = all_backends(family);
    let [near, own, far, node, outside] = all;
    let backends: [&[Addr]; 9] = [
        &[],
        &[near],
        &[own],
        &[far],
        &[node],
        &[outside],
        &[near, far],
        &[own, far],
        &all,
    ];
    for (number, backends) in backends.iter().enumerate() {
        service(
            tables,
            ServiceKey::INSIDE,
            at(10 + number as u8),
            (80, 53),
            backends,
            (0, 0),
        );
    }
    // The same port for another target, and two Services with one backend.
    service(
        tables,
        ServiceKey::INSIDE,
        at(30),
        (80, 53),
        &[near],
        (0, 0),
    );
    if parts.affinity {
        service(
            tables,
            ServiceKey::INSIDE,
            at(31),
            (80, 53),
            &all,
            (0, 10_800),
        );
    }
    if parts.outside {
        services_outside(tables, family, parts);
    }
}

/// The pod beside, the one that sends, one on another node, the node and who is outside.
fn all_backends(family: usize) -> [Addr; 5] {
    let names = [PODS[1], PODS[0], FAR_POD, NODE, OUTSIDE];
    names.map(|name| addr(name[family]))
}

fn services_outside(tables: &mut Tables, family: usize, parts: Parts) {
    let all = all_backends(family);
    let public = addr(PUBLIC[family]);
    let any = public.any_of_family();
    let before = tables.services.len() as u32;
    for scope in [ServiceKey::INSIDE, ServiceKey::OUTSIDE] {
        service(tables, scope, public, (80, 53), &all, (0, 0));
        service(tables, scope, public, (2000, 2001), &[], (0, 0));
        service(tables, scope, any, (30080, 30081), &all, (0, 0));
    }
    for (ports, backends, flags) in [
        ((8080, 5353), &[][..], Service::ELSEWHERE),
        ((1024, 40000), &all, Service::SOURCE_RANGES),
    ] {
        let scope = ServiceKey::OUTSIDE;
        service(tables, scope, public, ports, backends, (flags, 0));
    }
    let share = if family == 0 { 120 } else { 64 };
    for row in tables.services.values_mut().filter(|row| row.id > before) {
        if parts.maglev && row.count > 1 {
            // One position leads to no slot.
            let slots = (0..LENGTH).map(|at| if at == 7 { 99 } else { at % 5 });
            tables.maglev.insert(row.id, slots.collect());
            *row = row.with_maglev(LENGTH);
        }
        if parts.ranges && row.flags & Service::SOURCE_RANGES != 0 {
            for (name, bits) in [(OUTSIDE[family], 128), (PODS[0][family], share)] {
                let mask = Addr::v6_mask(bits as u8);
                tables.source_ranges.insert(Admitted {
                    service: row.id,
                    bits,
                    addr: addr(name).masked(&mask),
                });
            }
        }
    }
}

fn service(
    tables: &mut Tables,
    scope: u8,
    at: Addr,
    (tcp, udp): (u16, u16),
    to: &[Addr],
    (flags, affinity_s): (u32, u32),
) {
    for (port, proto, target) in [(tcp, Proto::TCP, 8080), (udp, Proto::UDP, 5353)] {
        let id = tables.services.len() as u32 + 1;
        let count = to.len() as u32;
        let key = ServiceKey {
            addr: at,
            port: Port::new(port),
            proto,
            scope,
        };
        tables.services.insert(
            key,
            Service {
                id,
                count,
                flags,
                affinity_s,
            },
        );
        for (slot, addr) in to.iter().enumerate() {
            let number = tables.backends.len() as u32 + 1;
            let row = Backend {
                addr: *addr,
                port: Port::new(target),
                flags: 0,
                id: number,
            };
            tables.backends.insert(
                BackendKey {
                    service: id,
                    slot: slot as u32,
                },
                row,
            );
        }
    }
}

fn config(parts: Parts) -> Config {
    let family = |at: usize, pods: u8, services: u8| Family {
        node: addr(NODE[at]),
        gateway: addr(GATEWAY[at]),
        translation: addr(TRANSLATION[at]),
        pods: Prefix::new(ip(if at == 0 { "10.100.0.0" } else { "fd00:100::" }), pods),
        services: Prefix::new(ip(SERVICES[at]), services),
        node_mask: mask(at == 0),
    };
    Config {
        v4: family(0, 16, 16),
        v6: if parts.v6 {
            family(1, 48, 112)
        } else {
            Family::NONE
        },
        underlay: addr(NODE[usize::from(parts.underlay_v6)]),
        uplink: UPLINK,
        overlay: OVERLAY,
        host: HOST,
        vni: 1,
        vxlan_port: Port::new(4789),
        node_port_first: Port::new(30000),
        node_port_last: Port::new(32767),
        mtu: 1450,
        flags: if parts.direct { Config::DSR } else { 0 },
        ..Config::default()
    }
}
