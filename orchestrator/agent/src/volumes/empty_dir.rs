//! Directories that a pod's containers share and write.
//!
//! The agent gives one its size, its group and its mode before any container has seen it, and never
//! looks at what containers put there but to measure it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use nix::mount::{MsFlags, mount};

use super::{MADE, PodDir, fs_group, is_label, is_mounted, make_dir, volumes_of};
use crate::pod::downward::Facts;
use crate::pod::quantity;
use crate::pod::shape;
use sys::beneath::Dir;

/// A measure counts no more entries of one volume than this. A volume with more, or one that is
/// too deep, is over its limit: what it holds cannot be known.
const ENTRIES: u64 = 1_000_000;

/// A volume that may not grow beyond its `sizeLimit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    volume: String,
    bytes: u64,
    /// The limit as it is written in the pod.
    limit: String,
}

impl Limited {
    /// The message that a kubelet gives for a pod that is evicted for it.
    pub fn message(&self) -> String {
        let Limited { volume, limit, .. } = self;
        format!("Usage of EmptyDir volume {volume:?} exceeds the limit {limit:?}. ")
    }
}

/// The volumes that have to be measured. One in memory cannot outgrow its size.
pub fn limited(pod: &Pod) -> Vec<Limited> {
    let limited = volumes_of(pod).filter_map(|volume| {
        let wanted = volume.empty_dir.as_ref().filter(|it| !in_memory(it))?;
        Some(Limited {
            volume: volume.name.clone(),
            bytes: limit_bytes(wanted)?,
            limit: wanted.size_limit.as_ref()?.0.clone(),
        })
    });
    limited.collect()
}

impl PodDir {
    /// Makes an emptyDir that is not there yet; gives where it lies.
    pub(super) fn make_empty_dir(
        &self,
        pod: &Pod,
        name: &str,
        wanted: &EmptyDirVolumeSource,
        facts: &Facts,
    ) -> io::Result<PathBuf> {
        let path = self.volumes().join(name);
        // Says that everything below was done.
        let made = self.root.join(MADE).join(name);
        let complete = made.exists() && path.exists();
        make_dir(&path, 0o755)?;
        let memory = in_memory(wanted);
        let mounted = is_mounted(&path)?;
        if complete && (mounted || !memory) {
            return Ok(path);
        }
        if memory && !mounted {
            let options = format!("mode=0755,size={}", memory_bytes(pod, wanted, facts));
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            let options = Some(options.as_str());
            mount(Some("tmpfs"), &path, Some("tmpfs"), flags, options)?;
        }
        open_to_all(&path, fs_group(pod).map_err(io::Error::other)?)?;
        make_dir(&self.root.join(MADE), 0o755)?;
        File::create(made)?;
        Ok(path)
    }

    /// Whether the volume holds more than it may. What cannot be measured is within its limit.
    pub fn outgrows(&self, limited: &Limited) -> bool {
        if !is_label(&limited.volume) {
            return false;
        }
        let measured =
            Dir::open(&self.volumes().join(&limited.volume)).and_then(|dir| dir.usage(ENTRIES));
        match measured {
            Ok(usage) => usage.bytes > limited.bytes || !usage.complete,
            Err(error) => {
                tracing::debug!(%error, ?limited, "a volume was not measured");
                false
            }
        }
    }
}

/// Only the directory itself: it is empty.
fn open_to_all(path: &Path, group: Option<u32>) -> io::Result<()> {
    let dir = File::open(path)?;
    let setgid = match group {
        Some(_) => 0o2000,
        None => 0,
    };
    if group.is_some() {
        fchown(&dir, None, group)?;
    }
    dir.set_permissions(fs::Permissions::from_mode(0o777 | setgid))
}

fn in_memory(wanted: &EmptyDirVolumeSource) -> bool {
    wanted.medium.as_deref() == Some("Memory")
}

/// The written limit; none means none.
fn limit_bytes(wanted: &EmptyDirVolumeSource) -> Option<u64> {
    let limit = quantity::milli(wanted.size_limit.as_ref()?)?;
    let bytes = u64::try_from(limit / 1000).unwrap_or(u64::MAX);
    (limit > 0).then_some(bytes)
}

/// The size of an emptyDir in memory: what the volume, the pod and the node allow.
fn memory_bytes(pod: &Pod, wanted: &EmptyDirVolumeSource, facts: &Facts) -> u64 {
    let node = u64::try_from(facts.node_memory_bytes).unwrap_or(0);
    let allowed = [limit_bytes(wanted), pod_memory_bytes(pod)];
    allowed.into_iter().flatten().fold(node, u64::min)
}

/// The memory that the pod's containers can have together; none where one of them has no limit.
fn pod_memory_bytes(pod: &Pod) -> Option<u64> {
    let limit = |template: &k8s_openapi::api::core::v1::Container| {
        let limits = template.resources.as_ref()?.limits.as_ref()?;
        let milli = quantity::milli(limits.get("memory")?)?;
        u64::try_from(milli / 1000).ok().filter(|bytes| *bytes > 0)
    };
    let mains: Option<Vec<u64>> = shape::main_templates(pod).iter().map(limit).collect();
    let inits: Option<Vec<u64>> = shape::init_templates(pod).iter().map(limit).collect();
    let together = mains?.into_iter().fold(0, u64::saturating_add);
    let together = inits?.into_iter().fold(together, u64::max);
    (together > 0).then_some(together)
}

#[cfg(test)]
#[path = "empty_dir_tests.rs"]
mod tests;
