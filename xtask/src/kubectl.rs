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
    let dir = dev_dir().join("cache/kubectl");
    let program = dir.join("kubectl-1.20");
    if program.exists() {
        return Ok(program);
    }
    let unpacked = dir.join("unpacked");
    fs::create_dir_all(&unpacked)?;
    let archives = packages::download(&["kubernetes-client"])?;
    let package = archives
        .iter()
        .find(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("kubernetes-client_"))
        })
        .context("apt-get did not download kubernetes-client")?;
    command::run(
        "dpkg-deb",
        ["-x".as_ref(), package.as_os_str(), unpacked.as_os_str()],
    )?;
    fs::rename(unpacked.join("usr/bin/kubectl"), &program)
        .context("kubernetes-client holds no usr/bin/kubectl")?;
    fs::remove_dir_all(&unpacked)?;
    Ok(program)
}
