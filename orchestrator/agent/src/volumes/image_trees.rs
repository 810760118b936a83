//! The files of images that pods have as volumes (KEP-4639): one tree an image, which no pod writes.
//!
//! ```text
//! <data>/image-trees/<image>/
//!   root/    what is in the image
//!   users/   a file for each pod that has it
//! ```
//!
//! The Engine exports an image as an archive, which is unpacked once for all pods of the node; the tree goes with
//! the last of them. An archive is an image's and so an attacker's: nothing is written outside the tree, and no
//! device and no set-user-id bit is made. Containers get the tree read-only.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::images::{lock, one_name, users};
use super::make_dir;
use sys::beneath::Dir;

const TREES: &str = "image-trees";

// Below an image's directory.
const ROOT: &str = "root";
/// A tree that is not complete.
const NEXT: &str = "root.new";
const USERS: &str = "users";

/// Empty files that the Engine adds to what it exports, if the image has none of the name.
const ADDED_FILES: [&str; 6] = [
    ".dockerenv",
    "dev/console",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
];
/// Directories that it adds, those below others first.
const ADDED_DIRECTORIES: [&str; 6] = ["dev/pts", "dev/shm", "dev", "etc", "proc", "sys"];

/// Set-user-id, set-group-id.
const SPECIAL_BITS: u32 = 0o6000;

/// All trees of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTrees {
    root: PathBuf,
}

impl ImageTrees {
    pub fn new(data_dir: &Path) -> ImageTrees {
        ImageTrees {
            root: data_dir.join(TREES),
        }
    }

    /// Notes that the pod has an image, which is named by its id; gives where its files lie, if they do.
    pub fn take(&self, image: &str, pod: &str) -> io::Result<Option<PathBuf>> {
        let dir = self.dir(image)?;
        make_dir(&self.root, 0o700)?;
        make_dir(&dir, 0o700)?;
        let _lock = lock(&dir)?;
        let users = dir.join(USERS);
        make_dir(&users, 0o700)?;
        File::create(users.join(one_name(pod)?))?;
        let root = dir.join(ROOT);
        Ok(root.exists().then_some(root))
    }

    /// Unpacks an image's archive, whose making began at `since` (Unix seconds), unless that is done.
    pub fn fill(&self, image: &str, since: u64, archive: impl Read) -> io::Result<()> {
        let dir = self.dir(image)?;
        let _lock = lock(&dir)?;
        if dir.join(ROOT).exists() {
            return Ok(());
        }
        Dir::open(&dir)?.remove(NEXT.as_ref())?;
        let next = dir.join(NEXT);
        make_dir(&next, 0o755)?;
        unpack(archive, &next, since)?;
        fs::rename(next, dir.join(ROOT))
    }

    /// Notes that a pod has no image any more, and removes the trees that no other pod has.
    pub fn release(&self, pod: &str) -> io::Result<()> {
        let root = match Dir::open(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            root => root?,
        };
        for name in root.names()? {
            let dir = self.root.join(&name);
            let user = dir.join(USERS).join(one_name(pod)?);
            if !user.exists() {
                continue;
            }
            let _lock = lock(&dir)?;
            if users(&dir)? <= 1 {
                root.remove(&name)?;
            } else {
                fs::remove_file(&user)?;
            }
        }
        Ok(())
    }

    /// Removes all trees, whoever has them. No container of theirs may run.
    pub fn remove_all(&self) -> io::Result<()> {
        super::remove_with_mounts(&self.root)
    }

    /// An image's id is the digest of its configuration, `sha256:…`.
    fn dir(&self, image: &str) -> io::Result<PathBuf> {
        let (_, digest) = image.split_once(':').unwrap_or(("", image));
        Ok(self.root.join(one_name(digest)?))
    }
}

fn unpack(archive: impl Read, into: &Path, since: u64) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.set_mask(SPECIAL_BITS);
    let mut added = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let header = entry.header();
        let (kind, is_new) = (header.entry_type(), header.mtime()? >= since);
        let is_empty = header.size()? == 0;
        let name = entry.path()?.to_string_lossy().trim_matches('/').to_owned();
        let is_kept = kind.is_dir() || kind.is_file() || kind.is_symlink() || kind.is_hard_link();
        let is_added = is_new && is_empty && ADDED_FILES.contains(&name.as_str());
        if !(is_kept || kind.is_gnu_sparse() || kind.is_contiguous()) || is_added {
            continue;
        }
        if !entry.unpack_in(into)? {
            let why = format!("{name:?} in an image's archive leaves it");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if kind.is_dir() && is_new {
            added.push(name);
        }
    }
    for name in ADDED_DIRECTORIES {
        if added.iter().any(|it| it == name) {
            // One that is not empty is the image's.
            let _ = fs::remove_dir(into.join(name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use tar::{Builder, EntryType, Header};

    use super::*;

    const SINCE: u64 = 1000;

    /// Type, name, mode, time, and content or where it leads.
    type Entry<'a> = (EntryType, &'a str, u32, u64, &'a str);

    fn archive(entries: &[Entry]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (kind, name, mode, time, text) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_mtime(*time);
            // The user who runs the tests: only root can give files away.
            header.set_uid(u64::from(nix::unistd::getuid().as_raw()));
            header.set_gid(u64::from(nix::unistd::getgid().as_raw()));
            let bytes = match kind.is_file() {
                true => text.as_bytes(),
                false => &[],
            };
            header.set_size(bytes.len() as u64);
            // Not by `set_path`: it refuses what an attacker writes.
            let field = &mut header.as_old_mut().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            if kind.is_symlink() || kind.is_hard_link() {
                let field = &mut header.as_old_mut().linkname;
                field[..text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_cksum();
            builder.append(&header, bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    const IMAGE: &str = "sha256:0123abcd";

    fn filled(entries: &[Entry]) -> (tempfile::TempDir, io::Result<PathBuf>) {
        let temp = tempfile::tempdir().unwrap();
        let trees = ImageTrees::new(temp.path());
        assert_eq!(trees.take(IMAGE, "u1").unwrap(), None);
        let filled = trees.fill(IMAGE, SINCE, &archive(entries)[..]);
        let root = filled.map(|()| trees.take(IMAGE, "u1").unwrap().unwrap());
        (temp, root)
    }

    #[test]
    fn an_images_files_are_there_without_what_the_engine_adds_and_without_rights() {
        use EntryType as T;
        let (_temp, root) = filled(&[
            (T::Directory, "etc/", 0o755, SINCE, ""),
            (T::Regular, "etc/hosts", 0o644, SINCE, ""),
            (T::Regular, "etc/passwd", 0o644, 1, "root"),
            (T::Regular, ".dockerenv", 0o755, SINCE, ""),
            (T::Directory, "proc/", 0o755, SINCE, ""),
            (T::Directory, "sys/", 0o755, 1, ""),
            (T::Directory, "dev/", 0o755, SINCE, ""),
            (T::Directory, "dev/shm/", 0o755, SINCE, ""),
            (T::Char, "dev/mem", 0o666, 1, ""),
            (T::Regular, "su", 0o4755, 1, "#!"),
            (T::Symlink, "link", 0o777, 1, "/etc/passwd"),
            (T::Link, "twin", 0o644, 1, "etc/passwd"),
        ]);
        let root = root.unwrap();
        let has = |name: &str| root.join(name).symlink_metadata().is_ok();
        for name in ["etc/passwd", "sys", "su", "link", "twin"] {
            assert!(has(name), "{name}");
        }
        for name in ["etc/hosts", ".dockerenv", "proc", "dev"] {
            assert!(!has(name), "{name}");
        }
        let mode = fs::metadata(root.join("su")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
        assert_eq!(inode("twin"), inode("etc/passwd"));
    }

    #[test]
    fn an_archive_writes_nothing_outside_its_tree() {
        use EntryType as T;
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().to_str().unwrap();
        for entries in [
            vec![(T::Regular, "../../escaped", 0o644, 1, "x")],
            vec![
                (T::Symlink, "a", 0o777, 1, path),
                (T::Regular, "a/escaped", 0o644, 1, "x"),
            ],
            vec![(T::Link, "a", 0o644, 1, "../../../../../../etc/passwd")],
        ] {
            let (temp, root) = filled(&entries);
            assert!(root.is_err(), "{entries:?}");
            assert!(!temp.path().join("escaped").exists());
            assert!(!outside.path().join("escaped").exists());
        }
    }

    #[test]
    fn a_tree_goes_with_the_last_pod_that_has_it() {
        let file = (EntryType::Regular, "a", 0o644, 1, "x");
        let (temp, root) = filled(&[file]);
        let (root, trees) = (root.unwrap(), ImageTrees::new(temp.path()));
        assert_eq!(trees.take(IMAGE, "u2").unwrap(), Some(root.clone()));
        trees.release("u1").unwrap();
        trees.release("u3").unwrap();
        assert!(root.join("a").exists());
        trees.release("u2").unwrap();
        assert!(!root.exists());
        for image in ["", "sha256:", "sha256:..", "sha256:a/b"] {
            assert!(trees.take(image, "u1").is_err(), "{image}");
        }
    }
}
