//! Directories that a pod's containers share.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use nix::mount::{MsFlags, mount};

use crate::agent::quantity;

/// Fills a directory that was made for the volume.
pub fn make(path: &Path, wanted: &EmptyDirVolumeSource) -> io::Result<()> {
    if wanted.medium.as_deref() == Some("Memory") {
        let bytes = wanted
            .size_limit
            .as_ref()
            .and_then(quantity::milli)
            .map(|it| it / 1000);
        let options = bytes
            .map(|bytes| format!("size={bytes}"))
            .unwrap_or_default();
        mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}
