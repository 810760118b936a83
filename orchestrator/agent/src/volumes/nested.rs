//! Volumes that are mounted inside others.
//!
//! The Engine mounts them one after the other and resolves each place inside the container, through links
//! of the volumes that are there by then. A link that an earlier container left in an emptyDir would put the
//! inner volume anywhere in the container, over `/dev` for example: a runc before 1.2.8 and 1.3.3 then gives
//! files of the node to it (CVE-2025-31133). So a link on the way is refused before the container is made.
//!
//! A container of the same pod that makes the link after this look is runc's to stop.

use std::io;
use std::path::Path;

use rustix::fs::{FileType, fstat};

use super::PodDir;
use crate::container_spec::SpecError;
use crate::runtime::Mount;
use sys::beneath::Dir;

impl PodDir {
    /// Whether no link leads a mount away that lies inside a volume of the pod.
    pub fn check_nested(&self, mounts: &[Mount]) -> Result<(), SpecError> {
        for inner in mounts {
            // The innermost volume around it; what leads there is looked at for that one.
            let around = mounts.iter().filter_map(|outer| {
                let below = Path::new(&inner.target).strip_prefix(&outer.target).ok()?;
                let is_inside = inner.target != outer.target && outer.source.is_dir();
                is_inside.then_some((outer, below))
            });
            let nearest = around.min_by_key(|(_, below)| below.components().count());
            let Some((outer, below)) = nearest.filter(|(outer, _)| self.holds(outer)) else {
                continue;
            };
            leads_straight(&outer.source, below).map_err(|error| {
                SpecError::config(format!(
                    "failed to prepare the mount at {:?} inside the volume at {:?}: {error}",
                    inner.target, outer.target
                ))
            })?;
        }
        Ok(())
    }

    /// Whether what is mounted is the pod's. What lies in a directory of the node is the node's matter.
    fn holds(&self, mount: &Mount) -> bool {
        mount.source.starts_with(&self.root)
    }
}

/// Success: there are only directories on the way, or nothing yet.
fn leads_straight(volume: &Path, below: &Path) -> io::Result<()> {
    let is_link = match Dir::open(volume)?.across_mounts().place(below) {
        // A link at the end is a place itself.
        Ok(found) => FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Symlink,
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => false,
            Some(libc::ELOOP) => true,
            _ => return Err(error),
        },
    };
    if is_link {
        let why = "a part of the path is a symbolic link, which is not followed";
        return Err(io::Error::other(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;
    use crate::runtime::Propagation;

    fn mount(source: &Path, target: &str) -> Mount {
        Mount {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only: false,
            propagation: Propagation::Private,
        }
    }

    /// What is said of a volume at `target`, beside one at `/e` that holds `link`, `dir` and `file`.
    fn said(target: &str, outer: &str) -> Option<String> {
        let temp = tempfile::tempdir().unwrap();
        let dir = PodDir::new(temp.path(), "uid");
        let [e, f, node] =
            ["pods/uid/volumes/e", "pods/uid/volumes/f", "node"].map(|path| temp.path().join(path));
        for path in [&e, &f, &node] {
            fs::create_dir_all(path.join("dir")).unwrap();
            symlink("/dev", path.join("link")).unwrap();
            symlink("/dev", path.join("dir/link")).unwrap();
            fs::write(path.join("file"), "x").unwrap();
        }
        let outer: PathBuf = if outer == "e" { e } else { node };
        let mounts = [mount(&f, target), mount(&outer, "/e")];
        dir.check_nested(&mounts).err().map(|error| error.message)
    }

    #[test]
    fn a_link_in_a_volume_leads_no_other_volume_away() {
        for target in ["/e/link", "/e/link/shm", "/e/dir/link", "/e/dir/link/a/b"] {
            let said = said(target, "e").expect(target);
            assert!(said.contains("symbolic link"), "{target}: {said}");
        }
        for target in [
            "/e",
            "/e/new",
            "/e/dir",
            "/e/dir/new/deep",
            "/e/file",
            "/elink",
            "/f",
        ] {
            assert_eq!(said(target, "e"), None, "{target}");
        }
    }

    #[test]
    fn links_of_a_directory_of_the_node_are_the_nodes_matter() {
        assert_eq!(said("/e/link", "node"), None);
    }

    #[test]
    fn only_the_innermost_volume_around_a_mount_is_looked_at_for_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = PodDir::new(temp.path(), "uid");
        let volumes = temp.path().join("pods/uid/volumes");
        for path in ["e/a", "f/b", "g"] {
            fs::create_dir_all(volumes.join(path)).unwrap();
        }
        symlink("/dev", volumes.join("e/a/b")).unwrap();
        let mounts = [
            mount(&volumes.join("e"), "/e"),
            mount(&volumes.join("f"), "/e/a"),
            mount(&volumes.join("g"), "/e/a/b"),
        ];
        assert_eq!(dir.check_nested(&mounts), Ok(()));
        fs::remove_dir(volumes.join("f/b")).unwrap();
        symlink("/dev", volumes.join("f/b")).unwrap();
        assert!(dir.check_nested(&mounts).is_err());
    }
}
