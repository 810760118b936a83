//! A kubectl for machines that have none: Debian's, unpacked beside the binary, not installed.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{cluster::dev_dir, command, packages};

/// Gives the user's shell a kubectl; says which.
pub fn ensure() -> Result<String> {
    if command::exists("kubectl") {
        return Ok("kubectl is installed".into());
    }
    let link = dev_dir().join("bin/kubectl");
    if !link.exists() {
        fs::copy(debian()?, &link).context("cannot put kubectl beside the binary")?;
    }
    Ok("kubectl 1.20 in .dev/bin".into())
}

/// Debian's kubectl (1.20), unpacked once. Tests want it also where another one is installed.
pub fn debian() -> Result<PathBuf> {
    packages::unpacked("kubernetes-client", "usr/bin/kubectl", "kubectl-1.20")
}
