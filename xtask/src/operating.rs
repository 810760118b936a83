//! `cargo xtask operating`: the page on operating servers, step by step. What passed on which commit is in the
//! repository, `tests/operating.txt`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::cluster::workspace;
use crate::{command, kubectl, packages, simulate};

/// What the page takes for granted.
const NEEDS: &[packages::Need] = &[("haproxy", "haproxy"), ("setpriv", "util-linux")];
const RECORD: &str = "tests/operating.txt";
const HEAD: &str =
    "# The last run of `cargo xtask operating`: every command of orchestrator/OPERATING.md.\n";
/// What the test says at its end.
const PASSED: &str = " steps of the page were run";

/// Names the program of before to the test.
const FORMER: &str = "ORCHESTRATOR_FORMER";

/// `former`: the program that all machines begin with, before some are upgraded.
pub fn run(former: Option<&Path>) -> Result<ExitCode> {
    packages::unpacked("etcd-server", "usr/bin/etcd", "etcd")?;
    packages::ensure(NEEDS)?;
    kubectl::ensure()?;
    let (date, commit) = (command::run("date", ["+%F"])?, simulate::commit(RECORD)?);
    let started = Instant::now();
    let mut cargo = command::cargo();
    cargo.args(["test", "--package", "tests", "--test", "operating"]);
    if let Some(former) = former {
        let found = former.canonicalize();
        cargo.env(FORMER, found.with_context(|| former.display().to_string())?);
    }
    let test = cargo.stdout(Stdio::piped()).spawn();
    let mut test = test.context("cannot start cargo")?;
    let mut steps = None;
    for line in BufReader::new(test.stdout.take().context("no output")?).lines() {
        let line = line?;
        println!("{line}");
        steps = line.strip_suffix(PASSED).map(str::to_owned).or(steps);
    }
    let passed = test.wait()?.success();
    let Some(steps) = steps.filter(|_| passed) else {
        return Ok(ExitCode::FAILURE);
    };
    let (date, seconds) = (date.trim(), started.elapsed().as_secs());
    let since = former.map_or("", |_| " (machines began with the version of before)");
    let text =
        format!("{HEAD}{steps} steps passed in {seconds} s, {date}, commit {commit}{since}\n");
    std::fs::write(workspace().join(RECORD), text).context(RECORD)?;
    Ok(ExitCode::SUCCESS)
}
