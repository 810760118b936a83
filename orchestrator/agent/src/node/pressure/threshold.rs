//! Thresholds as flags write them: `memory.available<100Mi,nodefs.available<10%`. Pure.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{Level, Signal};
use api::quantity::Quantity;

/// A kubelet's own (Kubernetes 1.33).
pub const HARD_DEFAULT: &str = "memory.available<100Mi,nodefs.available<10%,\
    nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%";

/// A level below which the node acts.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub at: Amount,
    /// For how long it has to be met; None: it is a hard one.
    pub grace: Option<SignedDuration>,
    /// How much more than the threshold is to be freed once it was met.
    pub reclaim: Option<Amount>,
}

/// An amount, or a part of the capacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Count(u64),
    /// Of a million.
    Part(u64),
}

/// How long soft thresholds have to be met, by signal.
pub type Grace = BTreeMap<Signal, SignedDuration>;

impl Amount {
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Part(part) => {
                let part = u128::from(capacity) * u128::from(part) / 1_000_000;
                u64::try_from(part).unwrap_or(u64::MAX)
            }
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither an amount (100Mi) nor a part (5%)");
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| wrong())?;
            if !(0.0..=100.0).contains(&percent) {
                return Err(wrong());
            }
            // In range: at most a million.
            return Ok(Self::Part((percent * 10_000.0).round() as u64));
        }
        let amount = Quantity::parse(text).map_err(|_| wrong())?;
        u64::try_from(amount.units())
            .map(Self::Count)
            .map_err(|_| wrong())
    }
}

impl Threshold {
    /// Whether a level is below it. One that was met is left only with what is to be reclaimed beyond it.
    pub fn is_met(&self, level: Level, was_met: bool) -> bool {
        let mut at = self.at.of(level.capacity);
        if let Some(more) = self.reclaim.filter(|_| was_met) {
            at = at.saturating_add(more.of(level.capacity));
        }
        level.available < at
    }
}

/// `SIGNAL<AMOUNT,…`; soft ones are given their grace, all what is to be reclaimed.
pub fn parse_thresholds(text: &str) -> Result<Vec<Threshold>, String> {
    parts(text)
        .map(|part| {
            let (signal, at) = part
                .split_once('<')
                .ok_or_else(|| format!("{part:?} is not SIGNAL<AMOUNT"))?;
            Ok(Threshold {
                signal: signal_of(signal)?,
                at: Amount::parse(at)?,
                grace: None,
                reclaim: None,
            })
        })
        .collect()
}

/// `SIGNAL=1m30s,…`
pub fn parse_graces(text: &str) -> Result<Grace, String> {
    pairs(text)?
        .into_iter()
        .map(|(signal, time)| {
            let time: jiff::Span = time.parse().map_err(|_| format!("{time:?} is no time"))?;
            let time = SignedDuration::try_from(time).map_err(|error| error.to_string())?;
            Ok((signal, time))
        })
        .collect()
}

/// `SIGNAL=500Mi,…`
pub fn parse_amounts(text: &str) -> Result<BTreeMap<Signal, Amount>, String> {
    let pairs = pairs(text)?.into_iter();
    pairs
        .map(|(signal, amount)| Ok((signal, Amount::parse(amount)?)))
        .collect()
}

/// The thresholds of all four flags.
pub fn thresholds(
    hard: &str,
    soft: &str,
    graces: &str,
    reclaims: &str,
) -> Result<Vec<Threshold>, String> {
    let (graces, reclaims) = (parse_graces(graces)?, parse_amounts(reclaims)?);
    let mut all = parse_thresholds(hard)?;
    for mut threshold in parse_thresholds(soft)? {
        let name = threshold.signal.name();
        let grace = graces.get(&threshold.signal);
        let grace = grace.ok_or_else(|| format!("the soft threshold of {name} has no grace"))?;
        threshold.grace = Some(*grace);
        all.push(threshold);
    }
    for threshold in &mut all {
        threshold.reclaim = reclaims.get(&threshold.signal).copied();
    }
    Ok(all)
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn pairs(text: &str) -> Result<Vec<(Signal, &str)>, String> {
    parts(text)
        .map(|part| {
            let (signal, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not SIGNAL=VALUE"))?;
            Ok((signal_of(signal)?, value))
        })
        .collect()
}

fn signal_of(name: &str) -> Result<Signal, String> {
    let found = Signal::ALL.into_iter().find(|signal| signal.name() == name);
    found.ok_or_else(|| {
        let known = Signal::ALL.map(Signal::name).join(", ");
        format!("{name:?} is no signal; there are {known}")
    })
}
