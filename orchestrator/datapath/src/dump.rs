//! Tables as text: one line a row, sorted as a person would. What golden tests compare and `orchestrator
//! datapath dump` prints.

use std::fmt::{self, Display, Write};
use std::net::IpAddr;

use orchestrator_common::maps::config::{Config, Family};
use orchestrator_common::maps::endpoints::{Endpoint, Netns};
use orchestrator_common::maps::nodes::Node;
use orchestrator_common::maps::services::{Backend, BackendKey, Service, ServiceKey};
use orchestrator_common::{Addr, Port, Prefix};

use super::table::{Admitted, Tables};

/// The whole of `tables`; a section is there even when it is empty.
pub fn dump(tables: &Tables) -> String {
    let mut text = String::new();
    let mut section = |name: &str, mut rows: Vec<Row>| {
        rows.sort();
        let _ = writeln!(text, "{name}"); // writing to a String cannot fail
        for row in rows {
            let _ = writeln!(text, "  {}", row.text);
        }
    };
    section(
        "config_v3",
        tables.config.values().flat_map(config).collect(),
    );
    section(
        "endpoints_v1",
        tables.endpoints.iter().map(endpoint).collect(),
    );
    section("nodes_v1", tables.nodes.iter().map(node).collect());
    section("services_v1", tables.services.iter().map(service).collect());
    section("backends_v1", tables.backends.iter().map(backend).collect());
    let maglev = tables.maglev.iter().map(|(id, table)| {
        let slots = table.iter().max().map_or(0, |slot| slot + 1);
        Row::number(
            *id,
            format!("{id} = {} positions, slots {slots}", table.len()),
        )
    });
    section("maglev_v1", maglev.collect());
    let ranges = tables.source_ranges.iter().map(admitted);
    section("source_ranges_v1", ranges.collect());
    let announced = tables.announced.iter();
    let announced = announced.map(|addr| Row::at(*addr, 0, 0, addr.to_string()));
    section("announced_v1", announced.collect());
    section("netns_v2", tables.netns.iter().map(netns).collect());
    text
}

/// A line and where it sorts.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    order: (Option<IpAddr>, u64, u64),
    text: String,
}

impl Row {
    fn at(addr: Addr, port: u16, proto: u8, text: String) -> Self {
        Self {
            order: (Some(addr.into()), port.into(), proto.into()),
            text,
        }
    }

    fn number(number: impl Into<u64>, text: String) -> Self {
        Self {
            order: (None, number.into(), 0),
            text,
        }
    }
}

fn config(row: &Config) -> Vec<Row> {
    let mut lines = Vec::new();
    for family in [&row.v4, &row.v6] {
        if *family != Family::NONE && *family != Family::default() {
            lines.extend(self::family(family));
        }
    }
    lines.push(format!(
        "interfaces: uplink {}, overlay {}, host {}",
        row.uplink, row.overlay, row.host
    ));
    if row.cut != 0 {
        lines.push(format!("packets are cut by interface {}", row.cut));
    }
    lines.push(format!("vxlan vni {}, port {}", row.vni, row.vxlan_port));
    lines.push(format!(
        "node ports {}-{}",
        row.node_port_first, row.node_port_last
    ));
    if row.flags & Config::DSR != 0 {
        lines.push("direct server return".to_owned());
    }
    let rows = (0_u64..).zip(lines);
    rows.map(|(index, text)| Row::number(index, text)).collect()
}

fn family(row: &Family) -> [String; 3] {
    [
        format!("node {}, gateway {}", row.node, row.gateway),
        format!(
            "pods {}, a node {}",
            range(&row.pods),
            bits(&row.pods.addr, &row.node_mask)
        ),
        format!("services {}", range(&row.services)),
    ]
}

fn node((key, row): (&Addr, &Node)) -> Row {
    let text = if row.flags & Node::VTEP != 0 {
        format!("{key} = node")
    } else {
        let near = row.flags & Node::NEIGHBOUR != 0;
        let place = if near { ", on the link" } else { "" };
        format!("{key} -> {}{place}", row.vtep)
    };
    Row::at(*key, 0, 0, text)
}

fn service((key, row): (&ServiceKey, &Service)) -> Row {
    let outside = key.scope == ServiceKey::OUTSIDE;
    let asked = if outside { "outside " } else { "" };
    let mut text = format!(
        "{asked}{}/{} = service {}, slots {}",
        socket(key.addr, key.port),
        key.proto,
        row.id,
        row.count
    );
    if row.maglev() != 0 {
        text += &format!(", table {}", row.maglev());
    }
    if row.affinity_s != 0 {
        text += &format!(", affinity {} s", row.affinity_s);
    }
    if row.flags & Service::SOURCE_RANGES != 0 {
        text += ", admitted ranges only";
    }
    if row.flags & Service::ELSEWHERE != 0 {
        text += ", endpoints elsewhere";
    }
    let order = u8::from(outside);
    let mut row = Row::at(key.addr, key.port.host(), key.proto.number, text);
    row.order.2 = row.order.2 * 2 + u64::from(order);
    row
}

fn backend((key, row): (&BackendKey, &Backend)) -> Row {
    let target = socket(row.addr, row.port);
    let BackendKey { service, slot } = key;
    Row {
        order: (None, u64::from(*service), u64::from(*slot)),
        text: format!("{service}[{slot}] = {target}, backend {}", row.id),
    }
}

fn admitted(row: &Admitted) -> Row {
    let bits = row
        .bits
        .saturating_sub(if row.addr.is_v4() { 96 } else { 0 });
    Row {
        order: (
            Some(row.addr.into()),
            u64::from(row.service),
            u64::from(bits),
        ),
        text: format!("{}: {}/{bits}", row.service, row.addr),
    }
}

fn endpoint((addr, row): (&Addr, &Endpoint)) -> Row {
    let kind = match (row.is_host(), row.is_queued()) {
        (true, _) => "node",
        (false, true) => "limited pod",
        (false, false) => "pod",
    };
    let Endpoint {
        ifindex,
        mac,
        gateway_mac,
        ..
    } = row;
    let text = format!("{addr} = {kind}, interface {ifindex}, mac {mac}, gateway {gateway_mac}");
    Row::at(*addr, 0, 0, text)
}

fn netns((cookie, row): (&u64, &Netns)) -> Row {
    let node = row.flags & Netns::HOST != 0;
    let mut text = format!("{cookie} = {}", if node { "node" } else { "pod" });
    for addr in [row.v4, row.v6] {
        if addr != Addr::UNSPECIFIED {
            text += &format!(" {addr}");
        }
    }
    Row::number(*cookie, text)
}

fn socket(addr: Addr, port: Port) -> impl Display {
    std::net::SocketAddr::new(addr.into(), port.host())
}

fn range(prefix: &Prefix) -> impl Display {
    struct Range(Addr, Bits);
    impl Display for Range {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}{}", self.0, self.1)
        }
    }
    Range(prefix.addr, bits(&prefix.addr, &prefix.mask))
}

/// A prefix length; IPv4's leaves out the 96 bits of its mapped form.
struct Bits(u32);

impl Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

fn bits(addr: &Addr, mask: &Addr) -> Bits {
    let ones: u32 = mask.words.iter().map(|word| word.count_ones()).sum();
    Bits(if addr.is_v4() {
        ones.saturating_sub(96)
    } else {
        ones
    })
}
