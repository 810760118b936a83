//! Files that are whole or absent, whenever the machine stops.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// For everybody on the machine (a CA certificate).
pub const PUBLIC: u32 = 0o644;
/// For the owner alone (keys, tokens, kubeconfigs).
pub const PRIVATE: u32 = 0o600;

/// Replaces the file in one step: a temporary file beside it is written, synced and renamed, then
/// the directory is synced. The file has `mode` from the first byte on.
pub fn write_atomic(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_beside(path);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        // The umask may have taken bits that a public file needs.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(contents)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    if let Err(error) = written {
        // Best effort: the error that matters is the first one.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_directory_of(path)
}

/// Makes the directory and its parents, for the owner alone.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    create_dir(path, 0o700)
}

/// Makes the directory and its parents with `mode`, whatever the umask says. Those that are there stay as they are.
pub fn create_dir(path: &Path, mode: u32) -> io::Result<()> {
    match create_one_dir(path, mode) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        made => return made,
    }
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => create_dir(above, mode)?,
        _ => return Err(io::ErrorKind::NotFound.into()),
    }
    create_one_dir(path, mode)
}

fn create_one_dir(path: &Path, mode: u32) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            // Who may write above it may have put a link in its place: that link's target keeps its mode.
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let made = OpenOptions::new()
                .read(true)
                .custom_flags(flags.bits().cast_signed())
                .open(path)?;
            made.set_permissions(std::fs::Permissions::from_mode(mode))
        }
    }
}

/// Writes the file where it lies, since what is mounted elsewhere is this file; it has `mode`, whatever the
/// umask says. Not for files that must be whole whenever the machine stops.
pub fn overwrite(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(contents)
}

/// The file's text, or `None` if there is no such file.
pub fn read_if_present(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes a directory for this process, until the file is dropped or the process ends, however it does.
///
/// # Errors
/// `WouldBlock`: another process has it.
pub fn lock_directory(path: &Path) -> io::Result<File> {
    let directory = File::open(path)?;
    directory.try_lock()?;
    Ok(directory)
}

/// Makes renames within a directory last.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
    parent(path).join(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_directory_is_one_process_s_until_it_lets_go() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock_directory(directory.path()).unwrap();
        let refused = lock_directory(directory.path()).err().map(|it| it.kind());
        assert_eq!(refused, Some(io::ErrorKind::WouldBlock));
        drop(held);
        lock_directory(directory.path()).unwrap();
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        write_atomic(&path, b"one", PRIVATE).unwrap();
        write_atomic(&path, b"two", PRIVATE).unwrap();
        assert_eq!(read_if_present(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
    }

    #[test]
    fn what_is_made_has_its_mode_whatever_the_umask_says() {
        crate::privileges::with_private_files(|| {
            let directory = tempfile::tempdir().unwrap();
            let at = |path: &str| directory.path().join(path);
            let mode = |path: &str| {
                let found = std::fs::metadata(at(path)).unwrap();
                found.permissions().mode() & 0o7777
            };
            create_dir(&at("a/b"), 0o755).unwrap();
            create_dir(&at("a/b"), 0o700).unwrap();
            assert_eq!((mode("a"), mode("a/b")), (0o755, 0o755));
            create_private_dir(&at("a/c/d")).unwrap();
            assert_eq!((mode("a/c"), mode("a/c/d")), (0o700, 0o700));
            overwrite(&at("a/f"), b"one", PUBLIC).unwrap();
            let inode = |path: &str| std::fs::metadata(at(path)).unwrap().ino();
            let first = inode("a/f");
            overwrite(&at("a/f"), b"2", PUBLIC).unwrap();
            assert_eq!((mode("a/f"), inode("a/f")), (PUBLIC, first));
            assert_eq!(std::fs::read(at("a/f")).unwrap(), b"2");
            std::fs::write(at("plain"), "").unwrap();
            assert_eq!(mode("plain"), PRIVATE, "the umask is in force");
        });
    }

    #[test]
    fn no_directory_is_made_through_a_file_or_a_link_to_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink(at("nothing"), at("link")).unwrap();
        for path in ["file", "file/a", "link", "link/a/b"] {
            assert!(create_dir(&at(path), 0o755).is_err(), "{path}");
        }
        assert!(!at("nothing").exists());
    }

    #[test]
    fn an_absent_file_is_none_and_an_absent_directory_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none/here");
        assert_eq!(read_if_present(&path).unwrap(), None);
        assert!(write_atomic(&path, b"", PUBLIC).is_err());
    }
}
