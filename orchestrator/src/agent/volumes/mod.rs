//! A pod's files on the node: its directory, its volumes, its `/etc`.
//!
//! Owns `<data>/pods/<uid>`. Made when the pod starts, gone when it is released.

mod empty_dir;
mod etc;
mod host_path;
mod projected;
mod sub_path;
mod write;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::container_spec::SpecError;
use super::downward::Facts;
use super::sources::Sources;
use crate::sys::beneath::Dir;
use crate::sys::mounts;

pub use etc::Dns;
pub use sub_path::SubPath;

const PODS: &str = "pods";

/// Where a pod's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodDir {
    root: PathBuf,
}

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub path: PathBuf,
    pub origin: Origin,
}

/// Who writes a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The agent alone: no container may.
    Written,
    /// The pod's containers.
    Shared,
    /// The volume is a path of the node.
    Host,
}

impl PodDir {
    pub fn new(data_dir: &Path, uid: &str) -> PodDir {
        PodDir {
            root: data_dir.join(PODS).join(uid),
        }
    }

    /// Holds the pod's `hosts` and `resolv.conf`.
    pub fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// The file in which one attempt of a container may leave its last words.
    pub fn last_words(&self, container: &str, attempt: u32) -> PathBuf {
        self.root
            .join("last-words")
            .join(format!("{container}-{attempt}"))
    }

    /// Makes that file anew: any user of the container may write it.
    pub fn make_last_words(&self, container: &str, attempt: u32) -> io::Result<()> {
        let path = self.last_words(container, attempt);
        let (above, name) = (path.parent(), path.file_name().unwrap_or_default());
        let above = above.unwrap_or(&self.root);
        make_dir(above, 0o755)?;
        let above = Dir::open(above)?;
        above.remove(name)?;
        above.create(name, 0o666).map(drop)
    }

    /// What is in that file, at most the first `limit` bytes.
    pub fn read_last_words(
        &self,
        container: &str,
        attempt: u32,
        limit: usize,
    ) -> io::Result<Vec<u8>> {
        let path = self.last_words(container, attempt);
        let above = Dir::open(path.parent().unwrap_or(&self.root))?;
        above.read(Path::new(path.file_name().unwrap_or_default()), limit)
    }

    /// Writes what every container of the pod sees under `/etc`.
    pub fn write_etc(&self, pod: &Pod, facts: &Facts, dns: &Dns) -> io::Result<()> {
        make_dir(&self.etc(), 0o755)?;
        fs::write(self.etc().join("hosts"), etc::hosts(pod, facts))?;
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        fs::write(
            self.etc().join("resolv.conf"),
            etc::resolv_conf(pod, &host, dns),
        )
    }

    /// Makes the pod's volumes; gives where each lies.
    pub fn make_volumes(
        &self,
        pod: &Pod,
        sources: &Sources,
        facts: &Facts,
    ) -> Result<BTreeMap<String, Made>, SpecError> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        let mut made = BTreeMap::new();
        for volume in volumes.into_iter().flatten() {
            let one = self.make_volume(pod, volume, sources, facts)?;
            made.insert(volume.name.clone(), one);
        }
        Ok(made)
    }

    /// The pods that have a directory here.
    pub fn all(data_dir: &Path) -> io::Result<Vec<String>> {
        let names = match Dir::open(&data_dir.join(PODS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            found => found?.names()?,
        };
        let text = |name: OsString| name.into_string().ok();
        Ok(names.into_iter().filter_map(text).collect())
    }

    /// Removes everything of the pod; an absent directory is a success. What containers mounted inside is
    /// detached first, and what stays mounted is not touched.
    pub fn remove(&self) -> io::Result<()> {
        let (Some(pods), Some(uid)) = (self.root.parent(), self.root.file_name()) else {
            return Ok(());
        };
        mounts::detach_below(&self.root)?;
        match Dir::open(pods) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            pods => pods?.remove(uid),
        }
    }

    fn make_volume(
        &self,
        pod: &Pod,
        volume: &Volume,
        sources: &Sources,
        facts: &Facts,
    ) -> Result<Made, SpecError> {
        if let Some(wanted) = &volume.host_path {
            let path = host_path::find_or_make(wanted)?;
            return Ok(Made {
                path,
                origin: Origin::Host,
            });
        }
        let path = self.root.join("volumes").join(&volume.name);
        let fresh = !path.exists();
        make_dir(&path, 0o755).map_err(failed(&volume.name))?;
        let origin = if let Some(wanted) = &volume.empty_dir {
            if fresh {
                empty_dir::make(&path, wanted).map_err(failed(&volume.name))?;
            }
            Origin::Shared
        } else {
            let files = projected::files(pod, volume, sources, facts)?;
            write::write_files(&path, &files).map_err(failed(&volume.name))?;
            Origin::Written
        };
        let context = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.as_ref());
        if let Some(group) = context.and_then(|context| context.fs_group) {
            write::own_by_group(&path, group).map_err(failed(&volume.name))?;
        }
        Ok(Made { path, origin })
    }
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> SpecError {
    let what = what.to_owned();
    move |e| SpecError {
        reason: "FailedMount",
        message: format!("volume {what:?}: {e}"),
    }
}
