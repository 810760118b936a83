//! Tables as text: one line a row, sorted as a person would. What golden tests compare and `orchestrator
//! datapath dump` prints.

use std::fmt::{self, Display, Write};
use std::net::IpAddr;

use orchestrator_common::maps::config::Config;
use orchestrator_common::maps::endpoints::{Endpoint, Netns};
use orchestrator_common::{Addr, Port, Prefix};

use super::table::Tables;

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
        "config_v2",
        tables.config.values().flat_map(config).collect(),
    );
    section(
        "endpoints_v1",
        tables.endpoints.iter().map(endpoint).collect(),
    );
    section(
        "nodes_v1",
        tables
            .nodes
            .iter()
            .map(|(range, node)| Row::at(*range, 0, 0, format!("{range} -> {}", node.vtep)))
            .collect(),
    );
    section(
        "services_v1",
        tables
            .services
            .iter()
            .map(|(key, row)| {
                let target = socket(key.addr, key.port);
                let text = format!(
                    "{target}/{} = service {}, slots {}",
                    key.proto, row.id, row.count
                );
                Row::at(key.addr, key.port.host(), key.proto.number, text)
            })
            .collect(),
    );
    section(
        "backends_v1",
        tables
            .backends
            .iter()
            .map(|(key, row)| {
                let target = socket(row.addr, row.port);
                let text = format!(
                    "{}[{}] = {target}, backend {}",
                    key.service, key.slot, row.id
                );
                Row {
                    order: (None, u64::from(key.service), u64::from(key.slot)),
                    text,
                }
            })
            .collect(),
    );
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
}

fn config(row: &Config) -> Vec<Row> {
    let lines = [
        format!("node {}, gateway {}", row.v4.node, row.v4.gateway),
        format!(
            "pods {}, a node {}",
            range(&row.v4.pods),
            bits(&row.v4.pods.addr, &row.v4.node_mask)
        ),
        format!("services {}", range(&row.v4.services)),
        format!(
            "interfaces: uplink {}, overlay {}, host {}",
            row.uplink, row.overlay, row.host
        ),
        format!("vxlan vni {}, port {}", row.vni, row.vxlan_port),
        format!("node ports {}-{}", row.node_port_first, row.node_port_last),
    ];
    let rows = lines.into_iter().enumerate();
    rows.map(|(index, text)| Row {
        order: (None, index as u64, 0),
        text,
    })
    .collect()
}

fn endpoint((addr, row): (&Addr, &Endpoint)) -> Row {
    let kind = if row.is_host() { "node" } else { "pod" };
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
    let kind = if row.flags & Netns::HOST != 0 {
        "node"
    } else {
        "pod"
    };
    Row {
        order: (None, *cookie, 0),
        text: format!("{cookie} = {kind} {}", row.v4),
    }
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
