//! The two file systems that the datapath needs: bpffs for pins, cgroup v2 for the socket hooks.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::DatapathError;

const BPFFS: &str = "/sys/fs/bpf";

/// The mount of cgroup v2: on a hybrid machine it is not `/sys/fs/cgroup`.
pub fn cgroup_root() -> Result<PathBuf, DatapathError> {
    mounts()?
        .into_iter()
        .find(|(_, kind)| kind == "cgroup2")
        .map(|(path, _)| path)
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
        .any(|(path, kind)| kind == "bpf" && root.starts_with(path));
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

/// (mount point, type) of every mount of this process.
fn mounts() -> Result<Vec<(PathBuf, String)>, DatapathError> {
    let text = fs::read_to_string("/proc/self/mounts")
        .map_err(|error| DatapathError::io("read /proc/self/mounts", error))?;
    let row = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        Some((PathBuf::from(fields.next()?), fields.next()?.to_owned()))
    };
    Ok(text.lines().filter_map(row).collect())
}
