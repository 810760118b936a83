//! Paths of the node as volumes.
//!
//! A path of the node is the node's: links in it are followed, as Kubernetes does. What is missing is made
//! in one step that fails where something, a link too, has the name.

use std::fs::{self, FileType, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::{failed, make_dir};
use crate::runtime::container_spec::SpecError;

/// What each type of `hostPath` must find, and what is made where nothing is.
const TYPES: &[(&str, fn(&FileType) -> bool, fn(&Path) -> io::Result<()>)] = &[
    // What is not there is made a directory, as the container engines do.
    ("", |_| true, new_directory),
    ("DirectoryOrCreate", FileType::is_dir, new_directory),
    ("Directory", FileType::is_dir, nothing),
    ("FileOrCreate", FileType::is_file, new_file),
    ("File", FileType::is_file, nothing),
    ("Socket", FileType::is_socket, nothing),
    ("CharDevice", FileType::is_char_device, nothing),
    ("BlockDevice", FileType::is_block_device, nothing),
];

/// Finds the path of the node, or makes it where the volume's type says so.
pub fn find_or_make(wanted: &HostPathVolumeSource) -> Result<PathBuf, SpecError> {
    let path = PathBuf::from(&wanted.path);
    let kind = wanted.type_.as_deref().unwrap_or_default();
    let row = TYPES.iter().find(|(name, ..)| *name == kind);
    let Some((_, fits, make)) = row else {
        return Err(mismatch(&wanted.path, kind));
    };
    let found = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(&path).map_err(failed(&wanted.path))?;
            fs::metadata(&path)
        }
        found => found,
    };
    match found {
        Ok(found) if fits(&found.file_type()) => Ok(path),
        _ => Err(mismatch(&wanted.path, kind)),
    }
}

fn nothing(_: &Path) -> io::Result<()> {
    Ok(())
}

fn new_directory(path: &Path) -> io::Result<()> {
    make_dir(path, 0o755)
}

/// Its directory must be there.
fn new_file(path: &Path) -> io::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).open(path)?;
    // The umask may have taken bits.
    made.set_permissions(Permissions::from_mode(0o644))
}

fn mismatch(path: &str, kind: &str) -> SpecError {
    SpecError {
        reason: "FailedMount",
        message: format!("hostPath type check failed: {path} is not a {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn find(path: &Path, kind: &str) -> Result<PathBuf, SpecError> {
        find_or_make(&HostPathVolumeSource {
            path: path.display().to_string(),
            type_: Some(kind.to_owned()),
        })
    }

    #[test]
    fn a_type_says_what_must_be_there_and_what_is_made() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for (name, kind) in [
            ("a/b", ""),
            ("d", "DirectoryOrCreate"),
            ("f", "FileOrCreate"),
        ] {
            assert_eq!(find(&at(name), kind), Ok(at(name)), "{kind}");
        }
        for (name, kind) in [("d", "Directory"), ("f", "File"), ("socket", "Socket")] {
            assert!(find(&at(name), kind).is_ok(), "{kind}");
        }
        for kind in [
            "File",
            "Socket",
            "CharDevice",
            "BlockDevice",
            "FileOrCreate",
            "Unknown",
        ] {
            let error = find(&at("d"), kind).unwrap_err();
            assert!(
                error.message.contains(&format!("is not a {kind}")),
                "{error}"
            );
            assert!(
                kind == "FileOrCreate" || find(&at("absent"), kind).is_err(),
                "{kind}"
            );
        }
        assert!(!at("absent").exists());
        assert!(find(Path::new("/dev/null"), "CharDevice").is_ok());
    }

    #[test]
    fn nothing_is_made_where_a_link_leads() {
        let temp = tempfile::tempdir().unwrap();
        let link = temp.path().join("link");
        symlink(temp.path().join("elsewhere"), &link).unwrap();
        assert!(find(&link, "FileOrCreate").is_err());
        assert!(find(&link, "DirectoryOrCreate").is_err());
        assert!(!temp.path().join("elsewhere").exists());
    }
}
