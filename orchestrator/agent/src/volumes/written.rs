//! Volumes that the agent writes and no container may: configMap, secret, downwardAPI, projected.
//!
//! What may be secret lies in memory: one small file system of the pod's own holds all of it.

use std::io;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, Volume};
use nix::mount::{MsFlags, mount};

use super::{MEMORY, PodDir, fs_group, io_failed, is_mounted, make_dir, projected, write};
use crate::api::sources::Sources;
use crate::pod::downward::Facts;
use crate::runtime::container_spec::SpecError;
use sys::beneath::Dir;

/// Options of one pod's file system: its size has room for the files of an update beside those that they
/// replace.
const MEMORY_OPTIONS: &str = "mode=0755,size=64m,nr_inodes=64k";

impl PodDir {
    /// Writes the files of a volume, if they are not what is there; gives where it lies.
    pub(super) fn write_volume(
        &self,
        pod: &Pod,
        volume: &Volume,
        sources: &Sources,
        facts: &Facts,
    ) -> Result<PathBuf, SpecError> {
        let files = projected::files(pod, volume, sources, facts)?;
        let group = fs_group(pod)?;
        let written = (|| {
            let above = match volume.config_map {
                Some(_) => self.volumes(),
                None => self.memory()?,
            };
            make_dir(&above, 0o755)?;
            let dir = Dir::open(&above)?.make(volume.name.as_ref(), 0o755)?;
            write::write(&dir, &files, group)?;
            Ok(above.join(&volume.name))
        })();
        written.map_err(io_failed)
    }

    /// Where volumes lie that may not be on a disk.
    fn memory(&self) -> io::Result<PathBuf> {
        let path = self.root.join(MEMORY);
        make_dir(&path, 0o755)?;
        if !is_mounted(&path)? {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            let options = Some(MEMORY_OPTIONS);
            mount(Some("tmpfs"), &path, Some("tmpfs"), flags, options)?;
        }
        Ok(path)
    }
}

/// Whether the agent writes the volume, and no container.
pub fn is_written(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}
