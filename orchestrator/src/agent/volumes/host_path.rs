//! Paths of the node as volumes.

use std::fs;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::{failed, make_dir};
use crate::agent::container_spec::SpecError;

/// Finds the path of the node, or makes it where the volume's type says so.
pub fn find_or_make(wanted: &HostPathVolumeSource) -> Result<PathBuf, SpecError> {
    let path = PathBuf::from(&wanted.path);
    let kind = wanted.type_.as_deref().unwrap_or_default();
    match kind {
        // What is not there is made a directory, as the container engines do.
        "" if !path.exists() => make_dir(&path, 0o755).map_err(failed(&wanted.path))?,
        "DirectoryOrCreate" if !path.exists() => {
            make_dir(&path, 0o755).map_err(failed(&wanted.path))?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::write(&path, b"").map_err(failed(&wanted.path))?;
        }
        _ => {}
    }
    let found = fs::metadata(&path);
    let fits = match (kind, &found) {
        ("", _) => true,
        ("Directory" | "DirectoryOrCreate", Ok(found)) => found.is_dir(),
        ("File" | "FileOrCreate", Ok(found)) => found.is_file(),
        (_, Ok(_)) => true,
        (_, Err(_)) => false,
    };
    if fits {
        return Ok(path);
    }
    let message = format!(
        "hostPath type check failed: {} is not a {kind}",
        wanted.path
    );
    Err(SpecError {
        reason: "FailedMount",
        message,
    })
}
