//! `cargo xtask nemesis`: rounds of load and faults on each store, judged by the checker (`tests/src/nemesis`), in
//! runs that go on where the last one ended. What passed on which commit is in the repository, `tests/nemesis.txt`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::cluster::workspace;
use crate::{command, packages, simulate};

/// What the command can be told.
#[derive(Args)]
pub struct Arguments {
    /// Which store: redb, etcd (with one member and two servers, then with three and three) or memory, where
    /// nothing is killed; all if not given
    #[arg(long, value_enum)]
    store: Option<Store>,
    /// A whole cluster instead: agents, server, containers and pods are killed while users work
    #[arg(long, conflicts_with = "store")]
    cluster: bool,
    /// How many rounds of each store there are to be in the record
    #[arg(long, default_value_t = 200)]
    rounds: u64,
    /// No part is begun after this
    #[arg(long, default_value_t = 50)]
    minutes: u64,
    /// A test binary that is built already, of the commit that is checked out
    #[arg(long)]
    program: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Store {
    Memory,
    Redb,
    Etcd,
}

/// Rounds of one store on one commit: from the first seed, up to and without the second.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    store: String,
    from: u64,
    to: u64,
    commit: String,
    date: String,
    /// What they had together; empty if one failed.
    numbers: Vec<u64>,
}

/// Rounds on one site: what is lost when a run is interrupted.
const PART: u64 = 5;
/// The whole cluster's name in the record.
const CLUSTER: &str = "cluster";
/// What cuts connections, slows fsync and makes small disks.
const NEEDS: &[packages::Need] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("strace", "strace"),
    ("mkfs.ext4", "e2fsprogs"),
    ("curl", "curl"),
];
/// The variant for programs with threads.
const FAKETIME: &str = "usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const RECORD: &str = "tests/nemesis.txt";
const HEAD: &str = "# Rounds of `cargo xtask nemesis`, which goes on where this ends: store, seeds from, up to and \
                    without, commit, date, then operations,\n# those without an answer, events of watches and faults, \
                    or \"failed\". In a round that passed no acknowledged write was lost, and no read was stale.\n\
                    # cluster: requests through a Service, those that failed, containers started and kills; what was \
                    there after a round was what is\n# there without kills, and no pod and no writer of a volume ran \
                    twice.\n";

impl Store {
    fn sites(self) -> &'static [&'static str] {
        match self {
            Self::Memory => &["memory"],
            Self::Redb => &["redb"],
            Self::Etcd => &["etcd1", "etcd3"],
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    packages::unpacked("etcd-server", "usr/bin/etcd", "etcd")?;
    packages::unpacked("libfaketime", FAKETIME, "libfaketime.so")?;
    packages::ensure(NEEDS)?;
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => simulate::build("linear")?,
    };
    let path = workspace().join(RECORD);
    let mut runs = read(&std::fs::read_to_string(&path).unwrap_or_default())?;
    let date = command::run("date", ["+%F"])?.trim().to_owned();
    let commit = simulate::commit(RECORD)?;
    let end = Instant::now() + Duration::from_secs(arguments.minutes * 60);
    for store in sites(arguments) {
        let mut from = next(&runs, store);
        while from < arguments.rounds && Instant::now() < end {
            let to = (from + PART).min(arguments.rounds);
            let output = Command::new(&program)
                .env("NEMESIS_ROUNDS", format!("{store} {from} {to}"))
                .current_dir(workspace())
                .output()
                .context("cannot start the nemesis")?;
            let said = String::from_utf8_lossy(&output.stdout);
            let numbers = numbers(&said).filter(|_| output.status.success());
            runs.push(Run {
                store: store.to_owned(),
                from,
                to,
                commit: commit.clone(),
                date: date.clone(),
                numbers: numbers.clone().unwrap_or_default(),
            });
            runs = joined(runs);
            std::fs::write(&path, write(&runs)).with_context(|| path.display().to_string())?;
            if numbers.is_none() {
                bail!("{store}: {}", String::from_utf8_lossy(&output.stderr));
            }
            println!("{store} {from}..{to} passed, {}", said.trim());
            from = to;
        }
        println!("{store}: {from} of {} rounds", arguments.rounds);
    }
    Ok(ExitCode::SUCCESS)
}

fn sites(arguments: &Arguments) -> Vec<&'static str> {
    if arguments.cluster {
        return vec![CLUSTER];
    }
    let stores = [Store::Memory, Store::Redb, Store::Etcd];
    let wanted = |it: &&Store| arguments.store.is_none_or(|only| only == **it);
    let stores = stores.iter().filter(wanted);
    stores.flat_map(|it| it.sites()).copied().collect()
}

/// Of the line that the rounds end with.
fn numbers(said: &str) -> Option<Vec<u64>> {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("rounds: "))?;
    let words = line.split_whitespace();
    Some(words.filter_map(|word| word.parse().ok()).collect())
}

/// The first round of a store that has not passed, on whatever commit.
fn next(runs: &[Run], store: &str) -> u64 {
    let passed = |run: &&Run| run.store == store && !run.numbers.is_empty();
    let passed = runs.iter().filter(passed);
    passed.map(|run| run.to).max().unwrap_or_default()
}

/// Runs that follow each other on one commit are one; a failure goes when its rounds have passed.
fn joined(runs: Vec<Run>) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::new();
    for run in runs {
        all.retain(|old| {
            !(old.numbers.is_empty() && old.store == run.store && old.from == run.from)
        });
        let before = all.iter_mut().find(|old| {
            let (old, new) = (
                (&old.store, &old.commit, &old.date),
                (&run.store, &run.commit, &run.date),
            );
            old == new
        });
        match before {
            Some(old) if old.to == run.from && old.numbers.len() == run.numbers.len() => {
                old.to = run.to;
                for (sum, more) in old.numbers.iter_mut().zip(&run.numbers) {
                    *sum += more;
                }
            }
            _ => all.push(run),
        }
    }
    all
}

fn read(text: &str) -> Result<Vec<Run>> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let run = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [store, from, to, commit, date, ref numbers @ ..] = words[..] else {
            bail!("{RECORD}: {line:?} is no run");
        };
        Ok(Run {
            store: store.to_owned(),
            from: from.parse()?,
            to: to.parse()?,
            commit: commit.to_owned(),
            date: date.to_owned(),
            numbers: numbers
                .iter()
                .filter_map(|word| word.parse().ok())
                .collect(),
        })
    };
    lines.map(run).collect()
}

fn write(runs: &[Run]) -> String {
    let mut text = HEAD.to_owned();
    for Run {
        store,
        from,
        to,
        commit,
        date,
        numbers,
    } in runs
    {
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let result = match &numbers[..] {
            [] => "failed".to_owned(),
            all => all.join(" "),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{store} {from} {to} {commit} {date} {result}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_goes_on_where_it_ended_and_forgets_a_failure_that_passed() {
        let text = "redb 0 5 abc 2026-11-30 10 1 20 3\nredb 5 10 abc 2026-11-30 failed\n";
        let mut runs = read(text).expect("a record");
        assert_eq!((next(&runs, "redb"), next(&runs, "etcd1")), (5, 0));
        runs.push(Run {
            numbers: vec![1, 1, 1, 1],
            ..runs[1].clone()
        });
        let runs = joined(runs);
        assert_eq!(
            write(&runs),
            format!("{HEAD}redb 0 10 abc 2026-11-30 11 2 21 4\n")
        );
    }
}
