//! `cargo xtask simulate`: the simulation over many seeds, in runs that go on where the last one ended. Which seeds
//! passed on which commit is in the repository, `tests/simulation.txt`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::cluster::workspace;
use crate::command;

/// What the command can be told.
#[derive(Args)]
pub struct Arguments {
    /// Up to which seed
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// No part is begun after this
    #[arg(long, default_value_t = 50)]
    minutes: u64,
    /// The first seed; where earlier runs ended, if not given
    #[arg(long)]
    from: Option<u64>,
    /// A test binary that is built already, of the commit that is checked out
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Seeds that were run on one commit: from the first, up to and without the second.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    from: u64,
    to: u64,
    commit: String,
    date: String,
    passed: bool,
}

/// Seeds of one part: what is lost when a run is interrupted.
const PART: u64 = 10;
const RECORD: &str = "tests/simulation.txt";
const HEAD: &str = "# Seeds of the simulation (tests/tests/sim.rs), each with all of its tests: from, up to and without, \
                    commit, date, result.\n# Written by `cargo xtask simulate`, which goes on where this ends.\n";

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let path = workspace().join(RECORD);
    let mut runs = read(&std::fs::read_to_string(&path).unwrap_or_default())?;
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => build("sim")?,
    };
    let (commit, date) = (
        commit(RECORD)?,
        command::run("date", ["+%F"])?.trim().to_owned(),
    );
    let end = Instant::now() + Duration::from_secs(arguments.minutes * 60);
    let mut from = arguments.from.unwrap_or_else(|| next(&runs));
    while from < arguments.seeds && Instant::now() < end {
        let to = (from + PART).min(arguments.seeds);
        let output = Command::new(&program)
            .env("SIM_SEEDS", format!("{from}..{to}"))
            .current_dir(workspace().join("tests"))
            .output()
            .context("cannot start the simulation")?;
        let passed = output.status.success();
        let one = Run {
            from,
            to,
            commit: commit.clone(),
            date: date.clone(),
            passed,
        };
        note(&mut runs, one);
        std::fs::write(&path, write(&runs)).with_context(|| path.display().to_string())?;
        if !passed {
            println!("{}", String::from_utf8_lossy(&output.stdout));
            println!("{}", String::from_utf8_lossy(&output.stderr));
            bail!("an invariant is violated by one of the seeds {from}..{to}");
        }
        println!("{from}..{to} passed");
        from = to;
    }
    println!("{from} of {} seeds", arguments.seeds);
    Ok(ExitCode::SUCCESS)
}

/// Builds a test binary of the crate `tests` and gives its path.
pub fn build(name: &str) -> Result<PathBuf> {
    let mut cargo = command::cargo();
    cargo.args(["test", "--package", "tests", "--test", name, "--no-run"]);
    cargo.args(["--profile", "sim", "--message-format=json"]);
    let messages = command::output(&mut cargo)?;
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built = messages.filter(|it| it["target"]["name"] == name);
    let program = built.find_map(|it| it["executable"].as_str().map(PathBuf::from));
    program.with_context(|| format!("cargo has built no {name}"))
}

/// The commit; with a `+` if files differ from it, but for the record that the caller writes.
pub fn commit(record: &str) -> Result<String> {
    let commit = command::run("git", ["rev-parse", "--short=10", "HEAD"])?;
    let others = format!(":!{record}");
    let changed = command::run(
        "git",
        [
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            ".",
            &others,
        ],
    )?;
    let mark = if changed.trim().is_empty() { "" } else { "+" };
    Ok(format!("{}{mark}", commit.trim()))
}

fn read(text: &str) -> Result<Vec<Run>> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let runs = lines.map(
        |line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [from, to, commit, date, result] => Ok(Run {
                from: from.parse()?,
                to: to.parse()?,
                commit: commit.to_owned(),
                date: date.to_owned(),
                passed: result == "passed",
            }),
            _ => bail!("{RECORD}: {line:?} is no run"),
        },
    );
    runs.collect()
}

fn write(runs: &[Run]) -> String {
    let mut text = HEAD.to_owned();
    for run in runs {
        let result = if run.passed { "passed" } else { "failed" };
        let Run {
            from,
            to,
            commit,
            date,
            ..
        } = run;
        // Writing to a string does not fail.
        let _ = writeln!(text, "{from} {to} {commit} {date} {result}");
    }
    text
}

/// The first seed that has not passed, on whatever commit.
fn next(runs: &[Run]) -> u64 {
    let mut passed: Vec<&Run> = runs.iter().filter(|run| run.passed).collect();
    passed.sort_by_key(|run| run.from);
    passed
        .into_iter()
        .fold(0, |next, run| match run.from <= next {
            true => next.max(run.to),
            false => next,
        })
}

/// Adds a part to the run that it goes on with.
fn note(runs: &mut Vec<Run>, part: Run) {
    let last = runs.last_mut().filter(|last| {
        let same = last.commit == part.commit && last.date == part.date;
        same && last.passed && part.passed && last.to == part.from
    });
    match last {
        Some(last) => last.to = part.to,
        None => runs.push(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(from: u64, to: u64, commit: &str, passed: bool) -> Run {
        Run {
            from,
            to,
            commit: commit.to_owned(),
            date: "2026-01-01".to_owned(),
            passed,
        }
    }

    #[test]
    fn parts_of_one_commit_are_one_run_and_what_failed_stands_alone() {
        let mut runs = Vec::new();
        let parts = [
            part(0, 10, "a", true),
            part(10, 20, "a", true),
            part(20, 30, "a", false),
            part(20, 30, "b", true),
        ];
        parts.into_iter().for_each(|it| note(&mut runs, it));
        assert_eq!((runs.len(), runs[0].to), (3, 20));
        assert_eq!(read(&write(&runs)).unwrap(), runs);
        assert_eq!(next(&runs), 30);
        assert!(read("1 2 3\n").is_err());
    }

    #[test]
    fn a_run_goes_on_where_the_first_gap_is() {
        assert_eq!(next(&[]), 0);
        assert_eq!(next(&[part(20, 30, "a", true)]), 0);
        let runs = [
            part(5, 30, "b", true),
            part(0, 10, "a", true),
            part(40, 50, "a", true),
        ];
        assert_eq!(next(&runs), 30);
    }
}
