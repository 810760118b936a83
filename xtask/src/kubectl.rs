//! A kubectl for machines that have none: Debian's, unpacked beside the binary, not installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

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

/// Debian's and those that stand beside the installed one as `kubectl.1.NN`, by name.
pub fn all() -> Result<Vec<(String, PathBuf)>> {
    let mut found = vec![("kubectl 1.20".to_owned(), debian()?)];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|dir| dir.join("kubectl"));
    // The installed one may be a link to where the others are.
    let real = installed
        .filter_map(|path| fs::canonicalize(path).ok())
        .next();
    let beside = real.as_deref().and_then(Path::parent);
    for entry in beside
        .and_then(|dir| fs::read_dir(dir).ok())
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(version) = name.strip_prefix("kubectl.") {
            found.push((format!("kubectl {version}"), entry.path()));
        }
    }
    found.sort();
    found.dedup_by(|a, b| a.0 == b.0);
    Ok(found)
}
