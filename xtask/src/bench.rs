//! `cargo xtask bench NAME`: each is a program of the crate `tests`; results are a table on the
//! screen and JSON in `target/bench/`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{build_ebpf, command, machine, setup};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// From exec to the first pod; idle memory; a connection to a Service and to the pod itself
    Start,
    /// The datapath beside its rivals
    Datapath,
    /// What clients that attack the API server cost those that use it
    Strangers,
}

pub fn run(bench: Bench, arguments: &[String]) -> Result<ExitCode> {
    machine::check_root("cargo xtask bench")?;
    build_ebpf::build(&setup::ensure()?)?;
    let program = match bench {
        Bench::Start => "start-bench",
        Bench::Datapath => "datapath-bench",
        Bench::Strangers => "strangers-bench",
    };
    let mut cargo = command::cargo();
    cargo
        .args(["run", "--quiet", "--release", "--package", "tests"])
        .args(["--bin", program, "--"])
        .args(arguments);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
