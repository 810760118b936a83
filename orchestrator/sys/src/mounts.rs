//! What is mounted, as the kernel lists it to this process, and how it is taken away.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{FileType, StatVfsMountFlags, fstat, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::beneath::Dir;

/// Rounds of detaching: each takes the mounts that the one before it uncovered.
const ROUNDS: usize = 16;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub point: PathBuf,
    /// Of its file system: `cgroup2`.
    pub kind: String,
}

/// What a remount would take away unless it says it again.
const KEPT: [(StatVfsMountFlags, MsFlags); 6] = [
    (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
    (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
    (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
    (StatVfsMountFlags::NOATIME, MsFlags::MS_NOATIME),
    (StatVfsMountFlags::NODIRATIME, MsFlags::MS_NODIRATIME),
    (StatVfsMountFlags::RELATIME, MsFlags::MS_RELATIME),
];

/// A mount that is reached by descriptor, whatever paths lead to by now (Linux 5.2). It ends with this value
/// unless it was attached.
#[derive(Debug)]
pub struct Copied(OwnedFd);

impl Copied {
    /// Mounts what was opened once more, attached nowhere; `whole`: with what is mounted inside it. A symbolic
    /// link is an error. The copy shares later mounts with its original until [`Copied::propagate`] says
    /// otherwise.
    pub fn of(opened: impl AsFd, whole: bool) -> io::Result<Copied> {
        // The kernel mounts one, and whoever opens its path follows it.
        if FileType::from_raw_mode(fstat(&opened)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP.into());
        }
        let mut flags = OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        flags.set(OpenTreeFlags::AT_RECURSIVE, whole);
        Ok(Copied(open_tree(opened, "", flags)?))
    }

    /// Attaches it at what was opened. A directory goes onto a directory only.
    pub fn attach(&self, onto: impl AsFd) -> io::Result<()> {
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(&self.0, "", onto, "", flags)?)
    }

    /// Sets which later mounts are seen across an attached mount and those inside it: `MS_PRIVATE`,
    /// `MS_SLAVE` or `MS_SHARED`.
    pub fn propagate(&self, how: MsFlags) -> io::Result<()> {
        self.change(how | MsFlags::MS_REC)
    }

    /// Makes an attached mount read-only, but not those inside it.
    pub fn make_read_only(&self) -> io::Result<()> {
        let has = fstatvfs(&self.0)?.f_flag;
        let kept = KEPT.iter().filter(|(flag, _)| has.contains(*flag));
        let kept = kept.fold(MsFlags::empty(), |flags, (_, flag)| flags | *flag);
        self.change(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | kept)
    }

    fn change(&self, flags: MsFlags) -> io::Result<()> {
        let place = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let none = None::<&str>;
        Ok(mount(none, place.as_str(), none, flags, none)?)
    }
}

impl AsFd for Copied {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Every mount of this process, in the order of mounting.
pub fn list() -> io::Result<Vec<Mounted>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(row).collect())
}

/// Detaches everything that is mounted at `root` or below it, whatever mounted it. No link below `root`
/// is followed. Processes that use such a mount keep it until they end.
pub fn detach_below(root: &Path) -> io::Result<()> {
    let root = match root.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let mut why = None;
    for _ in 0..ROUNDS {
        let mut mounts = list()?;
        mounts.retain(|mount| mount.point.starts_with(&root));
        if mounts.is_empty() {
            return Ok(());
        }
        for mount in mounts.iter().rev() {
            // One that went with another is found gone in the next round.
            if let Err(error) = detach(&root, &mount.point) {
                why = Some(format!("{}: {error}", mount.point.display()));
            }
        }
    }
    let why = why.unwrap_or_else(|| format!("{}: new mounts keep coming", root.display()));
    Err(io::Error::other(format!("detach mounts: {why}")))
}

fn detach(root: &Path, point: &Path) -> io::Result<()> {
    let base = Dir::open(root)?.across_mounts();
    let place = base.place(point.strip_prefix(root).unwrap_or(point))?;
    // The mount that was opened, whatever its path leads to by now.
    let place = format!("/proc/self/fd/{}", place.as_raw_fd());
    Ok(umount2(place.as_str(), MntFlags::MNT_DETACH)?)
}

/// `36 35 98:0 /of/the/file/system /mount/point rw,noatime master:1 - ext4 /dev/vda rw`
fn row(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(4)?)));
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    let kind = String::from_utf8_lossy(kind).into_owned();
    Some(Mounted { point, kind })
}

/// Blanks, newlines and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_where_and_of_which_type() {
        let text = br"36 35 98:0 / /a\040b\134\012c rw,noatime master:1 shared:2 - tmpfs none rw";
        let found = row(text).unwrap();
        assert_eq!(found.point, Path::new("/a b\\\nc"));
        assert_eq!(found.kind, "tmpfs");
        assert_eq!(row(b""), None);
    }
}
