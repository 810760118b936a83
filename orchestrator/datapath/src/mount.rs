//! The two file systems that the datapath needs: bpffs for pins, cgroup v2 for the socket hooks.

use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::DatapathError;
use sys::mounts::{self, Mounted};

const BPFFS: &str = "/sys/fs/bpf";

/// The mount of cgroup v2: on a hybrid machine it is not `/sys/fs/cgroup`.
pub fn cgroup_root() -> Result<PathBuf, DatapathError> {
    mounts()?
        .into_iter()
        .find(|mount| mount.kind == "cgroup2")
        .map(|mount| mount.point)
        .ok_or_else(|| {
            DatapathError::Invalid(
                "no cgroup v2 is mounted: run `mount -t cgroup2 none /sys/fs/cgroup/unified`"
                    .into(),
            )
        })
}

/// Mounts bpffs at its usual place unless something already holds pins at `root`.
pub fn ensure_bpffs(root: &Path) -> Result<(), DatapathError> {
    let mounted = mounts()?
        .iter()
        .any(|mount| mount.kind == "bpf" && root.starts_with(&mount.point));
    if mounted {
        return Ok(());
    }
    if !root.starts_with(BPFFS) {
        return Err(DatapathError::Invalid(format!(
            "{} is not on a bpf file system: mount one there (`mount -t bpf bpf DIR`)",
            root.display()
        )));
    }
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .map_err(|errno| DatapathError::io(format!("mount bpf at {BPFFS}"), errno.into()))
}

fn mounts() -> Result<Vec<Mounted>, DatapathError> {
    mounts::list().map_err(|error| DatapathError::io("read /proc/self/mountinfo", error))
}
