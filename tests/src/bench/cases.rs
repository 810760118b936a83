//! The comparisons as tables: what is asked of which sides at which size, against which mark. Pure.

use std::net::SocketAddrV4;

use super::case::{Case, Figure, Load, Mark, Relation};
use super::load::Kind;
use super::rival::Kind::{Flannel, IptablesLegacy, IptablesNft, Nftables, Routed};
use super::service::{NODE_PORT, Position, Size, node_addr, server_addr, service_addr, target};
use super::side::{From, Who};

/// The sizes that every Service case runs at.
pub const SIZES: [Size; 6] = [
    Size::new(1, 1),
    Size::new(1, 10),
    Size::new(1000, 1),
    Size::new(1000, 10),
    Size::new(10_000, 1),
    Size::new(10_000, 10),
];

/// Other nodes in the tables of a large cluster.
pub const PEERS: u16 = 1000;

const DIRECT: &str = "direct";

/// Pod to pod on another node.
pub fn overlay() -> Vec<Case> {
    [
        ("overlay TCP_RR", Kind::TcpRr, Flannel, Some(1.25)),
        ("overlay UDP_RR", Kind::UdpRr, Flannel, Some(1.25)),
        ("overlay TCP_STREAM", Kind::TcpStream, Flannel, Some(1.12)),
        ("overlay UDP_STREAM", Kind::UdpStream, Flannel, Some(1.2)),
        ("overlay TCP_RR", Kind::TcpRr, Routed, Some(0.95)),
        ("overlay UDP_RR", Kind::UdpRr, Routed, Some(0.95)),
        // Only to know what a tunnel takes of a stream.
        ("overlay TCP_STREAM", Kind::TcpStream, Routed, None),
    ]
    .map(|(name, kind, rival, mark)| pod_to_pod(name, kind, 1, rival, mark))
    .into()
}

/// The same with [`PEERS`] in the tables.
pub fn crowded_overlay() -> Vec<Case> {
    [
        ("overlay TCP_RR, 32 flows", Kind::TcpRr, 32, 1.2),
        ("overlay UDP_RR, 32 flows", Kind::UdpRr, 32, 1.2),
        ("overlay TCP_RR, 1,000 peers", Kind::TcpRr, 1, 1.2),
    ]
    .map(|(name, kind, flows, mark)| pod_to_pod(name, kind, flows, Flannel, Some(mark)))
    .into()
}

fn pod_to_pod(
    name: &'static str,
    kind: Kind,
    flows: u32,
    rival: super::rival::Kind,
    mark: Option<f64>,
) -> Case {
    let ours = Load {
        who: Who::Ours,
        from: From::Pod,
        kind,
        flows,
        to: target(server_addr(0), kind),
        beside: None,
    };
    Case {
        name,
        size: Size::new(0, 1),
        figure: Figure::Rate,
        relation: Relation::Ratio,
        ours,
        theirs: on(ours, Who::Rival(rival)),
        versus: rival.name(),
        mark: mark.map(Mark::AtLeast),
    }
}

/// ClusterIP and node port at one size.
pub fn services(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for rival in [IptablesLegacy, IptablesNft] {
        // One Service is first, middle and last at once.
        let positions = if size.services > 1 {
            &Position::ALL[..]
        } else {
            &[Position::Last]
        };
        cases.extend(
            positions
                .iter()
                .map(|at| cluster_ip_to_rival(size, *at, rival)),
        );
    }
    cases.push(cluster_ip_to_rival(size, Position::Last, Nftables));
    cases.extend(
        [
            ("ClusterIP TCP_CRR", Kind::TcpCrr),
            ("ClusterIP TCP_RR", Kind::TcpRr),
            ("ClusterIP UDP_RR", Kind::UdpRr),
            ("ClusterIP TCP_STREAM", Kind::TcpStream),
        ]
        .map(|(name, kind)| Case {
            name,
            mark: Some(Mark::AtLeast(0.97)),
            ..cluster_ip_to_direct(size, kind)
        }),
    );
    cases.extend(
        [
            ("connect() p50 over direct", Figure::ConnectP50),
            ("connect() p99 over direct", Figure::ConnectP99),
        ]
        .map(|(name, figure)| Case {
            name,
            figure,
            relation: Relation::Difference,
            mark: Some(Mark::AtMost(2.0)),
            ..cluster_ip_to_direct(size, Kind::TcpCrr)
        }),
    );
    cases.extend([IptablesLegacy, IptablesNft, Nftables].map(|rival| node_port(size, rival)));
    cases.push(node_port_xdp(size));
    cases
}

/// What a connect costs at ten thousand Services beside one at one.
pub fn growth() -> Vec<Case> {
    let size = Size::new(10_000, 10);
    [
        ("connect() p50, at 10,000 / at 1", Figure::ConnectP50),
        ("connect() p99, at 10,000 / at 1", Figure::ConnectP99),
    ]
    .map(|(name, figure)| {
        let ours = ask(size, Position::Last, Kind::TcpCrr);
        let first = ask(Size::new(1, 10), Position::Last, Kind::TcpCrr);
        Case {
            name,
            size,
            figure,
            relation: Relation::Ratio,
            ours,
            theirs: on(first, Who::OursSmall),
            versus: "at 1",
            mark: Some(Mark::AtMost(1.05)),
        }
    })
    .into()
}

fn cluster_ip_to_rival(size: Size, at: Position, rival: super::rival::Kind) -> Case {
    let name = match at {
        Position::First => "ClusterIP TCP_CRR, first",
        Position::Middle => "ClusterIP TCP_CRR, middle",
        Position::Last => "ClusterIP TCP_CRR, last",
    };
    let mark = match (size.services, at, rival) {
        (1 | 10_000, Position::Last, Nftables) => Some(1.15),
        (1, Position::Last, _) => Some(1.15),
        (10_000, Position::Last, _) => Some(1.5),
        _ => None,
    };
    let ours = ask(size, at, Kind::TcpCrr);
    Case {
        name,
        size,
        figure: Figure::Rate,
        relation: Relation::Ratio,
        ours,
        theirs: on(ours, Who::Rival(rival)),
        versus: rival.name(),
        mark: mark.map(Mark::AtLeast),
    }
}

fn cluster_ip_to_direct(size: Size, kind: Kind) -> Case {
    let direct = target(server_addr(0), kind);
    let ours = Load {
        beside: Some(direct),
        ..ask(size, Position::Last, kind)
    };
    Case {
        name: "",
        size,
        figure: Figure::Rate,
        relation: Relation::Ratio,
        ours,
        theirs: ours.other().unwrap_or(ours),
        versus: DIRECT,
        mark: None,
    }
}

/// By the node that has no backend itself.
fn node_port(size: Size, rival: super::rival::Kind) -> Case {
    let mark = match (size.services, rival) {
        (_, Nftables) => None,
        (1, _) => Some(1.5),
        (10_000, _) => Some(2.0),
        _ => None,
    };
    let ours = Load {
        from: From::Outside,
        to: SocketAddrV4::new(node_addr(1), NODE_PORT),
        ..ask(size, Position::Last, Kind::TcpCrr)
    };
    Case {
        name: "NodePort TCP_CRR from outside",
        size,
        figure: Figure::Rate,
        relation: Relation::Ratio,
        ours,
        theirs: on(ours, Who::Rival(rival)),
        versus: rival.name(),
        mark: mark.map(Mark::AtLeast),
    }
}

/// The same with XDP, beside the stack's hooks. Here it runs in the stack, which is its slowest place.
fn node_port_xdp(size: Size) -> Case {
    let tcx = node_port(size, Nftables).ours;
    Case {
        name: "NodePort TCP_CRR, generic XDP",
        size,
        figure: Figure::Rate,
        relation: Relation::Ratio,
        ours: on(tcx, Who::OursXdp),
        theirs: tcx,
        versus: "tcx",
        mark: None,
    }
}

fn ask(size: Size, at: Position, kind: Kind) -> Load {
    Load {
        who: Who::Ours,
        from: From::Pod,
        kind,
        flows: 1,
        to: target(service_addr(at.index(size.services)), kind),
        beside: None,
    }
}

fn on(load: Load, who: Who) -> Load {
    Load { who, ..load }
}
