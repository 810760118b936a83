//! `cargo xtask test [level…]`: every level of tests, and one line at the end that counts them.
//!
//! A level that lacks a privilege says SKIPPED and is counted; with CI=true that is a failure. A test that
//! failed runs once more; one that passes then is FLAKY: it does not fail the run, and is named at the end.

mod output;

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, ExitStatus},
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use self::output::{Count, Output, Report};
use crate::{build_ebpf, command, guard, kubectl, machine, packages, python, setup, tidy};

/// More failures than this in one level are no accident, and are not repeated.
const MOST_REPEATED: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Source rules
    Tidy,
    /// The crates' own tests
    Unit,
    /// API objects in, map dump out
    Golden,
    /// A whole cluster on a simulated clock, and certificates that last seconds on the real one
    Sim,
    /// The real programs under BPF_PROG_TEST_RUN
    Packet,
    /// Attached programs and real sockets in namespaces
    Netns,
    /// A dev cluster and real clients
    E2e,
}

/// What the levels gave.
#[derive(Default)]
struct Summary {
    count: Count,
    /// Sentences, and what failed tests said.
    failures: Vec<String>,
    /// Tests that failed and passed when they ran once more, and what they said.
    flaky: Vec<Flaky>,
}

struct Flaky {
    level: Level,
    report: Report,
}

pub fn run(levels: &[Level]) -> Result<ExitCode> {
    let levels = if levels.is_empty() {
        Level::value_variants()
    } else {
        levels
    };
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    prepare(levels)?;
    let mut summary = Summary::default();
    for level in levels {
        let started = Instant::now();
        let before = summary.count;
        level.run(&mut summary)?;
        println!(
            "-- {level:?}: {}, {:.1} s",
            summary.count.since(before),
            started.elapsed().as_secs_f64()
        );
    }
    let total = &mut summary.count;
    if ci && total.skipped > 0 {
        println!("with CI=true every test must run: a skipped one is a failure");
        total.failed += total.skipped;
        total.skipped = 0;
    }
    print!("{summary}");
    Ok(if summary.count.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the levels need before cargo compiles them: the binary embeds the object.
fn prepare(levels: &[Level]) -> Result<()> {
    if levels.iter().all(|level| matches!(level, Level::Tidy)) {
        return Ok(());
    }
    if machine::is_root() {
        packages::ensure(packages::FOR_TESTS)?;
        let object = build_ebpf::build(&setup::ensure()?)?;
        // The verifier's word, and the caps on what each program costs it.
        print!("{}", build_ebpf::report(&object)?);
    }
    Ok(())
}

impl Level {
    fn run(self, summary: &mut Summary) -> Result<()> {
        if let Some(reason) = self.missing() {
            let skipped = self.list()?;
            println!("SKIPPED {self:?} ({skipped} tests): {reason}");
            summary.count.skipped += skipped;
            return Ok(());
        }
        match self {
            Self::Tidy => {
                let findings = tidy::check()?;
                for finding in &findings {
                    println!("{finding}");
                    summary.failures.push(finding.to_string());
                }
                let failed = usize::from(!findings.is_empty());
                summary.count.failed += failed;
                summary.count.passed += 1 - failed;
                Ok(())
            }
            Self::Unit => {
                // The tests of crate `streams` talk with it.
                kubectl::debian()?;
                // Those of crate `store` start it.
                packages::unpacked("etcd-server", "usr/bin/etcd", "etcd")?;
                self.cargo(summary)
            }
            Self::Sim | Self::E2e => {
                kubectl::debian()?;
                python::clients()?;
                // The nemesis starts it.
                packages::unpacked("etcd-server", "usr/bin/etcd", "etcd")?;
                // The tests of private registries start it.
                let registry = "docker-registry";
                packages::unpacked(registry, "usr/bin/docker-registry", registry)?;
                self.cargo(summary)
            }
            _ => self.cargo(summary),
        }
    }

    /// Why this level cannot run here.
    fn missing(self) -> Option<&'static str> {
        let privileged = matches!(self, Self::Packet | Self::Netns | Self::E2e);
        (privileged && !machine::is_root()).then_some("it loads BPF programs: run it as root")
    }

    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Tidy => &[],
            Self::Unit => &["--workspace", "--exclude", "tests", "--no-fail-fast"],
            Self::Golden => &[
                "--package",
                "tests",
                "--test",
                "golden",
                "--test",
                "oracle",
                "--no-fail-fast",
            ],
            Self::Sim => &[
                "--package",
                "tests",
                "--test",
                "sim",
                "--test",
                "linear",
                "--test",
                "namespaces",
                "--test",
                "renewal",
                "--test",
                "operator",
                "--test",
                "rights",
                "--test",
                "transcripts",
                "--no-fail-fast",
            ],
            Self::Packet => &["--package", "tests", "--test", "packet*", "--no-fail-fast"],
            Self::Netns => &["--package", "tests", "--test", "netns*", "--no-fail-fast"],
            Self::E2e => &["--package", "tests", "--test", "e2e*", "--no-fail-fast"],
        }
    }

    /// Namespaces, attachments and clusters are shared by the machine: one test at a time.
    fn threads(self) -> &'static [&'static str] {
        match self {
            Self::Netns | Self::E2e => &["--test-threads=1"],
            _ => &[],
        }
    }

    /// Runs the level's test binaries, and once more each test that failed.
    fn cargo(self, summary: &mut Summary) -> Result<()> {
        let (output, ended) = self.once(&[])?;
        summary.take(self, output, ended, |name| self.passes(name))
    }

    /// The one repetition of a failed test; a name may stand for a test of several binaries.
    fn passes(self, name: &str) -> Result<bool> {
        println!("-- {self:?}: once more: {name}");
        let (again, ended) = self.once(&["--exact", name])?;
        Ok(ended.success() && again.count.failed == 0 && again.count.passed > 0)
    }

    /// One run of cargo test below a guard; shows what it prints.
    fn once(self, arguments: &[&str]) -> Result<(Output, ExitStatus)> {
        let mut cargo = cargo();
        cargo
            .args(self.args())
            .arg("--")
            .args(self.threads())
            .args(["--color", "never"])
            .args(arguments);
        let mut child = guard::spawn(&cargo)?;
        let stdout = child.stdout.take().context("cargo test has no output")?;
        let mut output = Output::default();
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            output.read(&line);
        }
        // Waiting would close the guard's standard input first, which tells it that xtask is gone.
        let stdin = child.stdin.take();
        let ended = child.wait()?;
        drop(stdin);
        Ok((output, ended))
    }

    /// How many tests the level has; compiles them.
    fn list(self) -> Result<usize> {
        let mut cargo = cargo();
        let output = cargo.args(self.args()).args(["--", "--list"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text
            .lines()
            .filter(|line| line.ends_with(": test"))
            .count()
            .max(1))
    }
}

impl Summary {
    /// Adds what a level's tests said; `passes` runs one of them once more.
    fn take(
        &mut self,
        level: Level,
        output: Output,
        ended: ExitStatus,
        passes: impl Fn(&str) -> Result<bool>,
    ) -> Result<()> {
        let mut count = output.count;
        let repeated = output.failed.len() <= MOST_REPEATED;
        for report in output.failed {
            if repeated && passes(&report.name)? {
                count.failed = count.failed.saturating_sub(1);
                count.passed += 1;
                self.flaky.push(Flaky { level, report });
            } else {
                self.failures.push(format!("{level:?}: {}", report.name));
                self.failures.extend(report.lines);
            }
        }
        if !ended.success() && output.count.failed == 0 {
            count.failed += 1;
            self.failures.push(if guard::was_killed(ended) {
                format!("{level:?}: a signal ended it")
            } else {
                format!("{level:?}: it did not compile, or a test binary was killed")
            });
        }
        self.count.add(count);
        Ok(())
    }
}

impl std::fmt::Display for Summary {
    /// What failed is said again at the end: a run prints some twenty thousand lines, and its last hundred
    /// should say why it failed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.failures.is_empty() {
            writeln!(f, "What failed:")?;
        }
        for line in &self.failures {
            writeln!(f, "{line}")?;
        }
        for Flaky { level, report } in &self.flaky {
            for line in &report.lines {
                writeln!(f, "{line}")?;
            }
            let name = &report.name;
            writeln!(f, "FLAKY {level:?}: {name} failed, and passed once more")?;
        }
        write!(f, "{}", self.count)?;
        if !self.flaky.is_empty() {
            write!(f, ", {} of the passed flaky", self.flaky.len())?;
        }
        writeln!(f)
    }
}

fn cargo() -> Command {
    let mut cargo = command::cargo();
    cargo.arg("test");
    cargo
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    /// Of a run in which these tests failed and one passed.
    fn failed(names: &[&str]) -> Output {
        let mut output = Output::default();
        output.read("failures:");
        for name in names {
            output.read(&format!("---- {name} stdout ----"));
        }
        let count = names.len();
        output.read(&format!(
            "test result: FAILED. 1 passed; {count} failed; 0 ignored"
        ));
        output
    }

    const FAILURE: i32 = 101 << 8;

    #[test]
    fn a_test_that_passes_once_more_is_flaky_and_fails_nothing() {
        let mut summary = Summary::default();
        let ended = ExitStatus::from_raw(FAILURE);
        let passes = |name: &str| Ok(name == "net::drains");
        summary
            .take(Level::Netns, failed(&["net::drains"]), ended, passes)
            .unwrap();
        assert_eq!(
            summary.to_string(),
            "---- net::drains stdout ----\nFLAKY Netns: net::drains failed, and passed once more\n\
             2 passed, 0 failed, 0 skipped, 1 of the passed flaky\n"
        );
        summary
            .take(Level::Sim, failed(&["sim::heals"]), ended, passes)
            .unwrap();
        assert_eq!(summary.count.failed, 1);
        assert!(
            summary
                .to_string()
                .contains("Sim: sim::heals\n---- sim::heals stdout ----")
        );
    }

    #[test]
    fn what_fails_in_numbers_is_not_repeated() {
        let names: Vec<String> = (0..=MOST_REPEATED).map(|it| it.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut summary = Summary::default();
        let ended = ExitStatus::from_raw(FAILURE);
        summary
            .take(Level::Unit, failed(&names), ended, |_| panic!("repeated"))
            .unwrap();
        assert_eq!(summary.count.failed, names.len());
    }

    #[test]
    fn a_run_that_ends_without_a_count_has_failed() {
        let mut summary = Summary::default();
        let ended = ExitStatus::from_raw(FAILURE);
        let take = summary.take(Level::Unit, Output::default(), ended, |_| Ok(true));
        take.unwrap();
        assert_eq!(summary.count.failed, 1);
        assert!(summary.failures[0].contains("did not compile"));
    }
}
