//! Writes the files of a volume.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::make_dir;
use super::projected::ProjectedFile;

/// Writes a volume's files.
pub fn write_files(root: &Path, files: &[ProjectedFile]) -> io::Result<()> {
    for (name, bytes, mode) in files {
        let relative = Path::new(name);
        let stays = relative
            .components()
            .all(|it| matches!(it, std::path::Component::Normal(_)));
        if !stays {
            let message = format!("path {name:?} leaves its volume");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let path = root.join(relative);
        if let Some(parent) = path.parent() {
            make_dir(parent, 0o755)?;
        }
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode as u32))?;
    }
    Ok(())
}

/// Gives a volume to the pod's group: new files in it belong to the group, too.
pub fn own_by_group(path: &Path, group: i64) -> io::Result<()> {
    let group = u32::try_from(group).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    std::os::unix::fs::chown(path, None, Some(group))?;
    let metadata = fs::metadata(path)?;
    let extra = if metadata.is_dir() { 0o2070 } else { 0o060 };
    let mode = metadata.permissions().mode() | extra;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if !entry.file_type()?.is_symlink() {
                own_by_group(&entry.path(), group.into())?;
            }
        }
    }
    Ok(())
}
