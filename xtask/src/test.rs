//! `cargo xtask test [level…]`: every level of tests, and one line at the end that counts them.
//!
//! A level that lacks a privilege says SKIPPED and is counted; with CI=true that is a failure.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{build_ebpf, command, kubectl, machine, packages, setup, tidy};

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

#[derive(Clone, Copy, Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

pub fn run(levels: &[Level]) -> Result<ExitCode> {
    let levels = if levels.is_empty() {
        Level::value_variants()
    } else {
        levels
    };
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    prepare(levels)?;
    let mut total = Count::default();
    let mut failures = Failures::default();
    for level in levels {
        let started = Instant::now();
        let count = level.run(&mut failures)?;
        println!(
            "-- {level:?}: {count}, {:.1} s",
            started.elapsed().as_secs_f64()
        );
        total.add(count);
    }
    if ci && total.skipped > 0 {
        println!("with CI=true every test must run: a skipped one is a failure");
        total.failed += total.skipped;
        total.skipped = 0;
    }
    print!("{failures}");
    println!("{total}");
    Ok(if total.failed == 0 {
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
    fn run(self, failures: &mut Failures) -> Result<Count> {
        if let Some(reason) = self.missing() {
            let skipped = self.list()?;
            println!("SKIPPED {self:?} ({skipped} tests): {reason}");
            return Ok(Count {
                skipped,
                ..Count::default()
            });
        }
        match self {
            Self::Tidy => {
                let findings = tidy::check()?;
                for finding in &findings {
                    println!("{finding}");
                    failures.lines.push(finding.to_string());
                }
                let failed = usize::from(!findings.is_empty());
                Ok(Count {
                    passed: 1 - failed,
                    failed,
                    skipped: 0,
                })
            }
            Self::E2e => {
                kubectl::debian()?;
                self.cargo(failures)
            }
            _ => self.cargo(failures),
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
                "namespaces",
                "--test",
                "renewal",
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

    /// Runs the level's test binaries, shows what they print, and adds up their results.
    fn cargo(self, failures: &mut Failures) -> Result<Count> {
        let mut cargo = cargo();
        cargo
            .args(self.args())
            .arg("--")
            .args(self.threads())
            .args(["--color", "never"]);
        let mut child = cargo
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start cargo test")?;
        let output = child.stdout.take().context("cargo test has no output")?;
        let mut count = Count::default();
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            count.add(Count::parse(&line).unwrap_or_default());
            failures.read(&line);
        }
        if !child.wait()?.success() && count.failed == 0 {
            count.failed = 1;
            failures.lines.push(format!(
                "{self:?}: it did not compile, or a test binary was killed"
            ));
        }
        Ok(count)
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

/// What failed, said again at the end: a run prints some twenty thousand lines, and who reads its
/// last hundred should see why.
#[derive(Default)]
struct Failures {
    lines: Vec<String>,
    /// Lines of the present test that were kept; none outside of a failure's output.
    inside: Option<usize>,
}

impl Failures {
    /// Lines kept of each test.
    const EACH: usize = 40;

    /// A test binary prints `---- NAME stdout ----` and what the test said for each that failed,
    /// then `failures:` and the names.
    fn read(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.inside = Some(0);
        } else if line == "failures:" {
            self.inside = None;
        }
        if let Some(kept) = self.inside.as_mut().filter(|kept| **kept < Self::EACH) {
            *kept += 1;
            self.lines.push(line.to_owned());
        }
    }
}

impl std::fmt::Display for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.lines.is_empty() {
            writeln!(f, "What failed:")?;
        }
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn cargo() -> Command {
    let mut cargo = command::cargo();
    cargo.arg("test");
    cargo
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Of `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
    fn parse(line: &str) -> Option<Self> {
        let rest = line.trim().strip_prefix("test result: ")?;
        let number = |what: &str| -> Option<usize> {
            rest.split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
        };
        Some(Self {
            passed: number("passed")?,
            failed: number("failed")?,
            skipped: number("ignored")?,
        })
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_a_test_binary_are_read_from_its_last_line() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out";
        let count = Count::parse(line).unwrap();
        assert_eq!(count.to_string(), "12 passed, 3 failed, 1 skipped");
        assert!(Count::parse("test a ... ok").is_none());
    }

    #[test]
    fn what_a_failed_test_said_is_kept_for_the_end() {
        let mut failures = Failures::default();
        for line in [
            "test good ... ok",
            "test bad ... FAILED",
            "",
            "failures:",
            "",
            "---- bad stdout ----",
            "thread 'bad' panicked at a.rs:1:2:",
            "failures:",
            "    bad",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored",
        ] {
            failures.read(line);
        }
        assert_eq!(
            failures.to_string(),
            "What failed:\n---- bad stdout ----\nthread 'bad' panicked at a.rs:1:2:\n"
        );
    }
}
