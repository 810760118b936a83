//! `cargo xtask fuzz`: the crate `fuzz`, with the checks of a build for development.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::command;

pub fn run(parsers: &[String], seconds: u64) -> Result<ExitCode> {
    let mut cargo = command::cargo();
    cargo.args(["run", "--package", "fuzz", "--", "--seconds"]);
    cargo.arg(seconds.to_string()).args(parsers);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
