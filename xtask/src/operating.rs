//! `cargo xtask operating`: the page on operating servers, step by step.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{command, packages};

pub fn run() -> Result<ExitCode> {
    packages::unpacked("etcd-server", "usr/bin/etcd", "etcd")?;
    let mut cargo = command::cargo();
    cargo.args(["test", "--package", "tests", "--test", "operating"]);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
