//! Runs comparisons in rounds: the sides in turn, each load once a round for all that look at it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::case::{Case, Load, Outcome};
use super::load::{self, Job, Kind, Measured};
use super::side::{Side, Who};

/// How often and how long.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    pub count: u32,
    pub millis: u64,
}

/// The sides that cases need.
pub fn sides(cases: &[Case]) -> BTreeSet<Who> {
    loads(cases).into_iter().map(|load| load.who).collect()
}

/// Runs all cases. One whose load fails is left out, and what went wrong is in the second list.
pub fn run(
    cases: &[Case],
    sides: &BTreeMap<Who, Side>,
    rounds: Rounds,
    mut progress: impl FnMut(u32),
) -> (Vec<Outcome>, Vec<String>) {
    let loads = loads(cases);
    let mut measured: BTreeMap<Load, Vec<Measured>> = BTreeMap::new();
    let mut failed: BTreeMap<Load, String> = BTreeMap::new();
    for round in 0..rounds.count {
        progress(round);
        let one = |load: &Load| match once(load, sides, rounds.millis) {
            Ok(mut got) => {
                if let Some((other, beside)) = load.other().zip(got.beside.take()) {
                    measured.entry(other).or_default().push(*beside);
                }
                measured.entry(*load).or_default().push(got);
            }
            Err(error) => drop(failed.insert(*load, format!("{error:#}"))),
        };
        // Every other round in reverse, so that no side is always the one after another.
        let (forward, backward) = (loads.iter(), loads.iter().rev());
        match round % 2 {
            0 => forward.for_each(one),
            _ => backward.for_each(one),
        }
    }
    let complete = |load: &Load| measured.get(load).filter(|_| !failed.contains_key(load));
    let outcomes = cases
        .iter()
        .filter_map(|case| Some(case.outcome(complete(&case.ours)?, complete(&case.theirs)?)))
        .collect();
    (outcomes, failed.into_values().collect())
}

fn once(load: &Load, sides: &BTreeMap<Who, Side>, millis: u64) -> Result<Measured> {
    let side = sides.get(&load.who).context("a side was not started")?;
    let job = Job {
        kind: load.kind,
        to: load.to,
        beside: load.beside,
        flows: load.flows,
        millis: millis * turns(load),
    };
    let got = load::run(&side.client(load.from), &job)
        .with_context(|| format!("on the side {}", load.who.name()))?;
    let name = load.who.name();
    let beside = load.beside.zip(got.beside.as_deref());
    for (to, got) in [Some((load.to, &got)), beside].into_iter().flatten() {
        ensure!(
            got.failed == 0,
            "{} connections to {to} failed on the side {name}",
            got.failed,
        );
        ensure!(
            got.rate > 0.0,
            "nothing came back from {to} on the side {name}"
        );
    }
    Ok(got)
}

/// How many loads' time a load has: two in turn have as much each as one alone, and four times as much
/// where the slowest of a hundred connections count.
fn turns(load: &Load) -> u64 {
    match (load.beside, load.kind) {
        (None, _) => 1,
        (Some(_), Kind::TcpCrr) => 8,
        (Some(_), _) => 2,
    }
}

/// In the order in which the cases name them, each once. Two in turn are one.
fn loads(cases: &[Case]) -> Vec<Load> {
    let mut all: Vec<Load> = Vec::new();
    for load in cases.iter().flat_map(|case| [case.ours, case.theirs]) {
        let there = |one: &Load| *one == load || one.other() == Some(load);
        if !all.iter().any(there) {
            all.push(load);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases;
    use crate::bench::service::{Size, service_addr};

    #[test]
    fn a_load_that_two_cases_share_runs_once_a_round() {
        let cases = cases::services(Size::new(10_000, 1));
        let loads = loads(&cases);
        let ours_last = |in_turn| {
            let is_it = |load: &&Load| {
                load.who == Who::Ours
                    && load.kind == Kind::TcpCrr
                    && *load.to.ip() == service_addr(9999)
                    && load.beside.is_some() == in_turn
            };
            loads.iter().filter(is_it).count()
        };
        assert_eq!([false, true].map(ours_last), [1, 1]);
        let others = loads.iter().filter_map(|load| load.other());
        assert!(others.clone().count() > 0);
        assert!(others.into_iter().all(|other| !loads.contains(&other)));
        assert!(loads.len() < 2 * cases.len());
    }
}
