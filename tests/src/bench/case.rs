//! The cases: what is measured, between which sides, at which sizes, against which mark.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use serde::Serialize;

use super::load::{self, Job, Kind, Measured};
use super::rival;
use super::side::{Position, Side, Size, server_addr, service_addr, target};
use super::statistics::{Median, median};

/// One comparison: our figure against another side's, or against our own pod without a Service.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub kind: Kind,
    pub flows: u32,
    /// A Service and its size, or the pod itself.
    pub service: Option<(Size, Position)>,
    pub versus: Versus,
    /// The ratio that is aimed at.
    pub mark: Option<f64>,
}

/// What our figure is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versus {
    /// The same on a rival's side.
    Rival(rival::Kind),
    /// The pod itself on our side.
    Direct,
}

/// What a case gave; one element of `datapath.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub case: String,
    pub services: u32,
    pub endpoints: u8,
    /// Median rates: transactions or bytes a second.
    pub ours: f64,
    pub versus: String,
    pub theirs: f64,
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
    pub mark: Option<f64>,
    pub met: Option<bool>,
    /// connect() of ours at the median and the 99th percentile, nanoseconds; 0 where there is none.
    pub connect_p50_ns: f64,
    pub connect_p99_ns: f64,
    pub versus_connect_p50_ns: f64,
    pub versus_connect_p99_ns: f64,
}

/// The sizes that every Service case runs at.
pub const SIZES: [Size; 6] = [
    Size {
        services: 1,
        endpoints: 1,
    },
    Size {
        services: 1,
        endpoints: 10,
    },
    Size {
        services: 1000,
        endpoints: 1,
    },
    Size {
        services: 1000,
        endpoints: 10,
    },
    Size {
        services: 10_000,
        endpoints: 1,
    },
    Size {
        services: 10_000,
        endpoints: 10,
    },
];

impl Versus {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rival(kind) => kind.name(),
            Self::Direct => "direct",
        }
    }
}

/// The comparisons of the overlay: pod to pod on another node.
pub fn overlay() -> Vec<Case> {
    use rival::Kind::{Flannel, Routed};
    let case = |name, kind, flows, against, mark| Case {
        name,
        kind,
        flows,
        service: None,
        versus: Versus::Rival(against),
        mark: Some(mark),
    };
    vec![
        case("overlay TCP_RR", Kind::TcpRr, 1, Flannel, 1.25),
        case("overlay UDP_RR", Kind::UdpRr, 1, Flannel, 1.25),
        case("overlay TCP_RR, 32 flows", Kind::TcpRr, 32, Flannel, 1.2),
        case("overlay UDP_RR, 32 flows", Kind::UdpRr, 32, Flannel, 1.2),
        case("overlay TCP_STREAM", Kind::TcpStream, 1, Flannel, 1.12),
        case("overlay UDP_STREAM", Kind::UdpStream, 1, Flannel, 1.2),
        case("overlay TCP_RR", Kind::TcpRr, 1, Routed, 0.95),
        case("overlay UDP_RR", Kind::UdpRr, 1, Routed, 0.95),
        case("overlay TCP_STREAM", Kind::TcpStream, 1, Routed, 0.95),
    ]
}

/// The comparisons of a ClusterIP at one size.
pub fn services(size: Size) -> Vec<Case> {
    use rival::Kind::{IptablesLegacy, IptablesNft, Nftables};
    let case = |name, kind, versus, position, mark| Case {
        name,
        kind,
        flows: 1,
        service: Some((size, position)),
        versus,
        mark,
    };
    let mut cases = Vec::new();
    for kind in [IptablesLegacy, IptablesNft] {
        for position in Position::ALL {
            let name = match position {
                Position::First => "ClusterIP TCP_CRR, first",
                Position::Middle => "ClusterIP TCP_CRR, middle",
                Position::Last => "ClusterIP TCP_CRR, last",
            };
            let mark = match (size.services, position) {
                (1, Position::Last) => Some(1.15),
                (10_000, Position::Last) => Some(1.5),
                _ => None,
            };
            // One Service is first, middle and last at once.
            if size.services > 1 || position == Position::Last {
                cases.push(case(
                    name,
                    Kind::TcpCrr,
                    Versus::Rival(kind),
                    position,
                    mark,
                ));
            }
        }
    }
    let mark = [1, 10_000].contains(&size.services).then_some(1.15);
    let last = Position::Last;
    cases.push(case(
        "ClusterIP TCP_CRR, last",
        Kind::TcpCrr,
        Versus::Rival(Nftables),
        last,
        mark,
    ));
    for (name, kind) in [
        ("ClusterIP TCP_CRR", Kind::TcpCrr),
        ("ClusterIP TCP_RR", Kind::TcpRr),
        ("ClusterIP UDP_RR", Kind::UdpRr),
        ("ClusterIP TCP_STREAM", Kind::TcpStream),
    ] {
        let mark = (kind != Kind::UdpRr).then_some(0.97);
        cases.push(case(name, kind, Versus::Direct, last, mark));
    }
    cases
}

/// Runs cases that share a size, their sides in turn within each round. Equal loads of one round
/// are run once and serve every case that asks for them.
pub fn run(
    cases: &[Case],
    sides: &[Side],
    rounds: u32,
    millis: u64,
    mut progress: impl FnMut(u32),
) -> Result<Vec<Outcome>> {
    let loads = loads(cases);
    let mut measured: BTreeMap<usize, Vec<Measured>> = BTreeMap::new();
    for round in 0..rounds {
        progress(round);
        // Every other round in reverse, so that no side is always the one after another.
        let order: Vec<usize> = match round % 2 {
            0 => (0..loads.len()).collect(),
            _ => (0..loads.len()).rev().collect(),
        };
        for index in order {
            let load = &loads[index];
            let side = sides.iter().find(|side| side.name() == load.side);
            let side = side.with_context(|| format!("there is no side {}", load.side))?;
            let job = Job {
                kind: load.kind,
                to: target(load.to, load.kind),
                flows: load.flows,
                millis,
            };
            measured
                .entry(index)
                .or_default()
                .push(load::run(&side.client(), &job)?);
        }
    }
    let rates = |load: &Load| -> &[Measured] {
        let index = loads.iter().position(|other| other == load);
        index
            .and_then(|index| measured.get(&index))
            .map_or(&[], Vec::as_slice)
    };
    Ok(cases
        .iter()
        .map(|case| outcome(case, rates(&ours(case)), rates(&theirs(case))))
        .collect())
}

/// One thing that a client does in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Load {
    side: &'static str,
    kind: Kind,
    flows: u32,
    to: Ipv4Addr,
}

fn loads(cases: &[Case]) -> Vec<Load> {
    let mut all = Vec::new();
    for load in cases.iter().flat_map(|case| [ours(case), theirs(case)]) {
        if !all.contains(&load) {
            all.push(load);
        }
    }
    all
}

fn ours(case: &Case) -> Load {
    Load {
        side: "ours",
        kind: case.kind,
        flows: case.flows,
        to: addr(case),
    }
}

fn theirs(case: &Case) -> Load {
    match case.versus {
        Versus::Rival(kind) => Load {
            side: kind.name(),
            ..ours(case)
        },
        Versus::Direct => Load {
            to: server_addr(0),
            ..ours(case)
        },
    }
}

fn addr(case: &Case) -> Ipv4Addr {
    match case.service {
        Some((size, position)) => service_addr(position.index(size.services)),
        None => server_addr(0),
    }
}

fn outcome(case: &Case, ours: &[Measured], theirs: &[Measured]) -> Outcome {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .map(|(a, b)| a.rate / b.rate)
        .collect();
    let Median { middle, low, high } = median(&ratios);
    let of = |list: &[Measured], figure: fn(&Measured) -> f64| {
        median(&list.iter().map(figure).collect::<Vec<_>>()).middle
    };
    let size = case.service.map_or(
        Size {
            services: 0,
            endpoints: 1,
        },
        |(size, _)| size,
    );
    Outcome {
        case: case.name.into(),
        services: size.services,
        endpoints: size.endpoints,
        ours: of(ours, |m| m.rate),
        versus: case.versus.name().into(),
        theirs: of(theirs, |m| m.rate),
        ratio: middle,
        low,
        high,
        mark: case.mark,
        met: case.mark.map(|mark| middle >= mark),
        connect_p50_ns: of(ours, |m| m.connect_p50_ns),
        connect_p99_ns: of(ours, |m| m.connect_p99_ns),
        versus_connect_p50_ns: of(theirs, |m| m.connect_p50_ns),
        versus_connect_p99_ns: of(theirs, |m| m.connect_p99_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_two_cases_share_runs_once_a_round() {
        let size = SIZES[4];
        let cases = services(size);
        let loads = loads(&cases);
        let ours_last = loads.iter().filter(|load| {
            load.side == "ours" && load.kind == Kind::TcpCrr && load.to == service_addr(9999)
        });
        assert_eq!(ours_last.count(), 1);
        assert!(loads.len() < 2 * cases.len());
    }

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let case = &overlay()[0];
        let rates = |list: &[f64]| -> Vec<Measured> {
            list.iter()
                .map(|&rate| Measured {
                    rate,
                    ..Measured::default()
                })
                .collect()
        };
        // The machine slows down threefold; the ratio stays.
        let found = outcome(
            case,
            &rates(&[30.0, 20.0, 10.0]),
            &rates(&[15.0, 10.0, 5.0]),
        );
        assert_eq!((found.ratio, found.low, found.high), (2.0, 2.0, 2.0));
        assert_eq!(found.met, Some(true));
    }
}
