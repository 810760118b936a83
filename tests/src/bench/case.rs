//! One comparison: two loads whose figures are held against each other within a round.

use std::net::SocketAddrV4;

use serde::Serialize;

use super::load::{Kind, Measured};
use super::service::Size;
use super::side::{From, Who};
use super::statistics::{Median, median};

#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub size: Size,
    pub figure: Figure,
    pub relation: Relation,
    pub ours: Load,
    pub theirs: Load,
    /// The other side's name; `direct` for the pod itself on our own side.
    pub versus: &'static str,
    pub mark: Option<Mark>,
}

/// One thing that a client does in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    pub who: Who,
    pub from: From,
    pub kind: Kind,
    pub flows: u32,
    pub to: SocketAddrV4,
    /// The address that the same client asks in turn with it.
    pub beside: Option<SocketAddrV4>,
}

impl Load {
    /// The other half of a run in turns.
    pub fn other(self) -> Option<Load> {
        let to = self.beside?;
        Some(Load {
            to,
            beside: Some(self.to),
            ..self
        })
    }
}

/// What of a load is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    Rate,
    ConnectP50,
    ConnectP99,
}

/// How two figures are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Relation {
    /// Ours divided by theirs.
    Ratio,
    /// Ours less theirs.
    Difference,
    /// Ours alone.
    Alone,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mark {
    AtLeast(f64),
    AtMost(f64),
}

/// What a case gave; one element of `datapath.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub case: String,
    pub services: u32,
    pub endpoints: u8,
    pub unit: &'static str,
    /// Medians of the two sides in `unit`.
    pub ours: f64,
    pub versus: String,
    pub theirs: Option<f64>,
    pub relation: Relation,
    /// What the mark is held against: the median over the rounds of the ratio, of the difference, or of
    /// our figure; with its 95 % interval.
    pub value: f64,
    pub ratio: Option<f64>,
    pub low: f64,
    pub high: f64,
    pub mark: Option<f64>,
    /// Whether `mark` is a ceiling.
    pub at_most: bool,
    pub met: Option<bool>,
}

impl Figure {
    fn of(self, measured: &Measured) -> f64 {
        match self {
            Self::Rate => measured.rate,
            Self::ConnectP50 => measured.connect_p50_ns / 1e3,
            Self::ConnectP99 => measured.connect_p99_ns / 1e3,
        }
    }

    fn unit(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Rate, Kind::TcpStream | Kind::UdpStream) => "B/s",
            (Self::Rate, _) => "/s",
            _ => "us",
        }
    }
}

impl Mark {
    pub fn limit(self) -> f64 {
        match self {
            Self::AtLeast(limit) | Self::AtMost(limit) => limit,
        }
    }

    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

impl Case {
    pub fn outcome(&self, ours: &[Measured], theirs: &[Measured]) -> Outcome {
        let of = |list: &[Measured]| -> Vec<f64> {
            list.iter().map(|one| self.figure.of(one)).collect()
        };
        let (ours, theirs) = (of(ours), of(theirs));
        let relate = |(a, b): (&f64, &f64)| match self.relation {
            Relation::Ratio => a / b,
            Relation::Difference => a - b,
            Relation::Alone => *a,
        };
        let values: Vec<f64> = ours.iter().zip(&theirs).map(relate).collect();
        Outcome {
            ours: median(&ours).middle,
            versus: self.versus.into(),
            theirs: Some(median(&theirs).middle),
            relation: self.relation,
            ..Outcome::alone(
                self.name,
                self.size,
                self.figure.unit(self.ours.kind),
                &values,
                self.mark,
            )
        }
        .with_ratio()
    }
}

impl Outcome {
    /// A figure that stands by itself.
    pub fn alone(
        case: &str,
        size: Size,
        unit: &'static str,
        values: &[f64],
        mark: Option<Mark>,
    ) -> Self {
        let Median { middle, low, high } = median(values);
        Self {
            case: case.into(),
            services: size.services,
            endpoints: size.endpoints,
            unit,
            ours: middle,
            versus: "-".into(),
            theirs: None,
            relation: Relation::Alone,
            value: middle,
            ratio: None,
            low,
            high,
            mark: mark.map(Mark::limit),
            at_most: matches!(mark, Some(Mark::AtMost(_))),
            met: mark.map(|mark| mark.is_met(middle)),
        }
    }

    /// Two figures that were measured in turn: what is related is of the same round.
    pub fn ratio(
        case: &str,
        size: Size,
        unit: &'static str,
        (ours, theirs): (&[f64], &[f64]),
        versus: &str,
        mark: Option<Mark>,
    ) -> Self {
        let values: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        Self {
            ours: median(ours).middle,
            versus: versus.into(),
            theirs: Some(median(theirs).middle),
            relation: Relation::Ratio,
            ..Self::alone(case, size, unit, &values, mark)
        }
        .with_ratio()
    }

    fn with_ratio(self) -> Self {
        let ratio = (self.relation == Relation::Ratio).then_some(self.value);
        Self { ratio, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases;

    fn rates(list: &[f64]) -> Vec<Measured> {
        let measured = |&rate| Measured {
            rate,
            connect_p50_ns: rate * 1e3,
            ..Measured::default()
        };
        list.iter().map(measured).collect()
    }

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let case = &cases::overlay()[0];
        // The machine slows down threefold; the ratio stays.
        let (ours, theirs) = (rates(&[30.0, 20.0, 10.0]), rates(&[15.0, 10.0, 5.0]));
        let found = case.outcome(&ours, &theirs);
        assert_eq!((found.value, found.low, found.high), (2.0, 2.0, 2.0));
        assert_eq!((found.ratio, found.met), (Some(2.0), Some(true)));
    }

    #[test]
    fn a_difference_has_the_unit_of_its_figures_and_a_ceiling() {
        let cases = cases::services(Size::new(1, 1));
        let case = cases
            .iter()
            .find(|case| case.relation == Relation::Difference)
            .expect("connect against direct");
        let found = case.outcome(&rates(&[33.0; 3]), &rates(&[30.0; 3]));
        assert_eq!((found.value, found.unit, found.ratio), (3.0, "us", None));
        assert_eq!((found.met, found.at_most), (Some(false), true));
    }
}
