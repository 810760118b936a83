//! Gives a tree that other processes write to a group, as a volume's `fsGroup` asks for.
//!
//! Each entry is opened beneath its directory, and what was opened is changed: a link that takes its place
//! leads nowhere, and no mount is crossed.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, chownat, fstat, openat2};

use super::beneath::Dir;

/// Directories deeper than this are an error: the tree's maker chooses the depth.
const DEPTH_LIMIT: usize = 256;

const GROUP_WRITES: u32 = 0o660;
const GROUP_ENTERS: u32 = 0o2770;

/// Gives everything to the group: files can be read and written by it, directories hand it on. What goes
/// meanwhile is passed over.
pub fn give(root: &Dir, group: u32) -> io::Result<()> {
    let mut stack = vec![rustix::fs::Dir::read_from(root)?];
    loop {
        let levels = stack.len();
        let Some(listing) = stack.last_mut() else {
            break;
        };
        let Some(Ok(entry)) = listing.next() else {
            stack.pop();
            continue;
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // It went, is a link that cannot be opened as a place, or a mount.
        let Ok(place) = openat2(listing.fd()?, name, place, Mode::empty(), how) else {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let _ = chownat(listing.fd()?, name, None, Some(Gid::from_raw(group)), flags);
            continue;
        };
        if one(&place, group)? != FileType::Directory {
            continue;
        }
        if levels == DEPTH_LIMIT {
            return Err(io::Error::other(format!(
                "deeper than {DEPTH_LIMIT} directories"
            )));
        }
        stack.push(rustix::fs::Dir::read_from(Dir::of(&place)?)?);
    }
    // Last: a root that has the group says that all below it has.
    let place = root.place(std::path::Path::new(""))?;
    one(&place, group).map(drop)
}

/// Whether a root that is given need not be given again.
pub fn is_given(root: &Dir, group: u32) -> io::Result<bool> {
    let stat = fstat(root)?;
    Ok(stat.st_gid == group && stat.st_mode & GROUP_ENTERS == GROUP_ENTERS)
}

/// Changes what was opened as a place.
fn one(place: &OwnedFd, group: u32) -> io::Result<FileType> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    chownat(place, "", None, Some(Gid::from_raw(group)), flags)?;
    let stat = fstat(place)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let bits = match kind {
        FileType::Directory => GROUP_ENTERS,
        FileType::RegularFile => GROUP_WRITES,
        _ => return Ok(kind),
    };
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    fs::set_permissions(
        path,
        fs::Permissions::from_mode(stat.st_mode & 0o7777 | bits),
    )?;
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_tree_is_given_with_what_is_in_it_and_nothing_that_a_link_leads_to() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let mode = |name: &str| fs::symlink_metadata(at(name)).unwrap().mode() & 0o7777;
        fs::create_dir_all(at("v/a/b")).unwrap();
        fs::write(at("v/a/b/file"), "x").unwrap();
        fs::write(at("outside"), "x").unwrap();
        for (name, bits) in [("v/a/b/file", 0o600), ("outside", 0o600), ("v/a/b", 0o700)] {
            fs::set_permissions(at(name), fs::Permissions::from_mode(bits)).unwrap();
        }
        symlink(at("outside"), at("v/link")).unwrap();
        let root = Dir::open(&at("v")).unwrap();
        let group = nix::unistd::getgid().as_raw();
        assert!(!is_given(&root, group).unwrap());
        give(&root, group).unwrap();
        assert!(is_given(&root, group).unwrap());
        assert_eq!(mode("v/a/b/file"), 0o660);
        assert_eq!(mode("v/a/b"), 0o2770);
        assert_eq!(mode("outside"), 0o600);
    }
}
