//! Python programs that tests drive the product with, each set in an environment of its own below `.dev/cache`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::cluster::dev_dir;
use crate::packages::{self, Need};
use crate::{command, progress::Step};

const NEEDS: &[Need] = &[("python3", "python3"), ("pip3", "python3-venv")];

/// Helm 4 as a library, and the Python client with its tests' runner.
const CLIENTS: &[&str] = &[
    "helm-python-sdk==0.2.2",
    "kubernetes==37.0.2",
    "pytest==8.4.2",
];

/// Makes the environment of the clients that the tests call by `tests::clients`.
pub fn clients() -> Result<PathBuf> {
    environment("clients", CLIENTS, |command| command::output(command))
}

/// The same for another set, shown as a step.
pub fn shown(step: &Step, name: &str, packages: &[&str]) -> Result<PathBuf> {
    environment(name, packages, |command| step.run(command))
}

/// The directory of an environment that holds these packages, made at the first call.
fn environment(
    name: &str,
    packages: &[&str],
    run: impl Fn(&mut Command) -> Result<String>,
) -> Result<PathBuf> {
    let dir = dev_dir().join("cache").join(name);
    // Written last: an environment that was not finished is made anew.
    let mark = dir.join("packages");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&mark).is_ok_and(|made| made == wanted) {
        return Ok(dir);
    }
    packages::ensure(NEEDS)?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
    let mut pip = Command::new(dir.join("bin/pip"));
    run(pip.args(["install", "--quiet"]).args(packages))?;
    std::fs::write(mark, wanted)?;
    Ok(dir)
}
