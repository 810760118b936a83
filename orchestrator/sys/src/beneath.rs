//! Files below a directory that other processes can write, a container's above all.
//!
//! Every step is taken from a descriptor with `openat2` (Linux 5.6): no symbolic link is followed, `..` leads
//! nowhere and no mount is crossed. A container that renames, links or mounts below the directory at the same
//! time leads a step to an error and never to another place: there is no check that a use follows.
//! Calls block: not for async threads.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid, fchmod, fchown,
    fstat, mkdirat, openat, openat2, readlinkat, renameat, renameat_with, statat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;

/// A tree is measured this many levels deep.
const DEPTH_LIMIT: usize = 256;
/// Rounds of a removal while another process keeps making entries.
const REMOVAL_ROUNDS: usize = 16;
/// Directories that a removal remembers to come back to.
const WAITING_LIMIT: usize = 1024;

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    across_mounts: bool,
}

/// What lies below a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// On disk, a file with several names counted once.
    pub bytes: u64,
    pub entries: u64,
    /// False: there is more, which was too deep or too much to be counted.
    pub complete: bool,
}

impl Dir {
    /// Opens a directory of which the whole path is the caller's own: links in it are followed.
    pub fn open(path: &Path) -> io::Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let across_mounts = false;
        Ok(Dir { fd, across_mounts })
    }

    /// Opens a directory that was opened as a place.
    pub fn of(place: impl AsFd) -> io::Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(place, ".", flags, Mode::empty())?;
        let across_mounts = false;
        Ok(Dir { fd, across_mounts })
    }

    /// The same directory for steps that may cross mounts: a part of the node's own tree.
    pub fn across_mounts(self) -> Dir {
        let across_mounts = true;
        Dir {
            across_mounts,
            ..self
        }
    }

    /// Opens a directory below this one; the empty path is the directory itself.
    pub fn enter(&self, relative: &Path) -> io::Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = self.resolve(relative, flags, Mode::empty())?;
        let across_mounts = self.across_mounts;
        Ok(Dir { fd, across_mounts })
    }

    /// Opens whatever is there as a place, without reading or writing it: a device is not touched.
    pub fn place(&self, relative: &Path) -> io::Result<OwnedFd> {
        self.resolve(relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }

    /// Enters a directory of this name, which is made with `mode` if there is none.
    pub fn make(&self, name: &OsStr, mode: u32) -> io::Result<Dir> {
        let made = match mkdirat(&self.fd, one(name)?, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let dir = self.enter(Path::new(name))?;
        if made {
            // mkdir's mode is subject to the umask.
            dir.set_mode(mode)?;
        }
        Ok(dir)
    }

    /// Enters a directory below this one; what is missing on the way is made with `mode`.
    pub fn make_all(&self, relative: &Path, mode: u32) -> io::Result<Dir> {
        let mut dir = self.enter(Path::new(""))?;
        for part in parts(relative)? {
            dir = dir.make(part, mode)?;
        }
        Ok(dir)
    }

    /// Makes a file that is not there yet.
    pub fn create(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = self.resolve(Path::new(one(name)?), flags, Mode::from_raw_mode(0o600))?;
        fchmod(&fd, Mode::from_raw_mode(mode))?;
        Ok(File::from(fd))
    }

    /// The first `limit` bytes of a regular file; anything else is an error, and is not opened.
    pub fn read(&self, relative: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let place = self.place(relative)?;
        if kind(&fstat(&place)?) != FileType::RegularFile {
            let message = format!("{} is not a regular file", relative.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        // The same file, whatever its name leads to by now.
        let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
        let mut bytes = Vec::new();
        file.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Makes a symbolic link.
    pub fn link(&self, target: &Path, name: &OsStr) -> io::Result<()> {
        Ok(symlinkat(target, &self.fd, one(name)?)?)
    }

    /// Where a symbolic link leads.
    pub fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        let target = readlinkat(&self.fd, one(name)?, Vec::new())?;
        Ok(OsStr::from_bytes(target.as_bytes()).to_owned())
    }

    /// Gives an entry another name; one that had it is replaced.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.fd, one(from)?, &self.fd, one(to)?)?)
    }

    /// The names in this directory, sorted.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = listing(&self.fd)?.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// Removes an entry and what is below it; an absent one is a success. A mount is an error: nothing
    /// of it is touched.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        if unlink(&self.fd, one(name)?)? {
            return Ok(());
        }
        self.enter(Path::new(name))?.clear()?;
        if unlink(&self.fd, name)? {
            Ok(())
        } else {
            Err(Errno::NOTEMPTY.into())
        }
    }

    /// Removes everything in this directory. Directories that hold something are brought up here before
    /// they are emptied, so that a tree costs four descriptors, no stack and a bounded number of names in
    /// memory, however deep and wide its maker made it.
    pub fn clear(&self) -> io::Result<()> {
        self.clear_with(WAITING_LIMIT)
    }

    /// `limit`: how many names of directories that were brought up are remembered. The others are found
    /// again in the next round.
    fn clear_with(&self, limit: usize) -> io::Result<()> {
        let mut upper = Upper {
            dir: self,
            prefix: uuid::Uuid::new_v4().simple().to_string(),
            number: 0,
            waiting: VecDeque::new(),
            limit,
        };
        let mut rounds = 0;
        while rounds < REMOVAL_ROUNDS {
            let brought_up = upper.number;
            let mut is_empty = true;
            for name in listing(&self.fd)? {
                is_empty = false;
                upper.take(&name?)?;
                while let Some(name) = upper.waiting.pop_front() {
                    upper.take(&name)?;
                }
            }
            if is_empty {
                return Ok(());
            }
            // A round that brought something up has made the tree flatter, and may leave work.
            if upper.number == brought_up {
                rounds += 1;
            }
        }
        Err(Errno::NOTEMPTY.into())
    }

    /// Counts what is below this directory, at most `entries` of them. Mounts are not part of it. It costs
    /// a descriptor a level, and no memory that grows with what others put there but for files that have
    /// several names.
    pub fn usage(&self, entries: u64) -> io::Result<Usage> {
        let mut usage = Usage {
            complete: true,
            ..Usage::default()
        };
        let device = fstat(&self.fd)?.st_dev;
        let mut several_names = BTreeSet::new();
        let mut stack = vec![rustix::fs::Dir::read_from(&self.fd)?];
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
            if usage.entries == entries {
                usage.complete = false;
                break;
            }
            // What went meanwhile, or is a mount, does not count.
            let found = statat(listing.fd()?, name, AtFlags::SYMLINK_NOFOLLOW);
            let Some(stat) = found.ok().filter(|stat| stat.st_dev == device) else {
                continue;
            };
            usage.entries += 1;
            let is_directory = kind(&stat) == FileType::Directory;
            if is_directory || stat.st_nlink == 1 || several_names.insert(stat.st_ino) {
                usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            }
            if !is_directory {
                continue;
            }
            if levels == DEPTH_LIMIT {
                usage.complete = false;
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            if let Ok(fd) = openat2(listing.fd()?, name, flags, Mode::empty(), how) {
                stack.push(rustix::fs::Dir::new(fd)?);
            }
        }
        Ok(usage)
    }

    /// The permission bits of this directory.
    pub fn mode(&self) -> io::Result<u32> {
        Ok(fstat(&self.fd)?.st_mode & 0o7777)
    }

    /// Sets them.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(&self.fd, Mode::from_raw_mode(mode))?)
    }

    /// Gives the directory to a user, a group, or both.
    pub fn set_owner(&self, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
        Ok(fchown(
            &self.fd,
            user.map(Uid::from_raw),
            group.map(Gid::from_raw),
        )?)
    }

    fn resolve(&self, relative: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = if relative.as_os_str().is_empty() {
            Path::new(".")
        } else {
            relative
        };
        let mut how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        how.set(ResolveFlags::NO_XDEV, !self.across_mounts);
        Ok(openat2(
            &self.fd,
            path,
            flags | OFlags::NOFOLLOW,
            mode,
            how,
        )?)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A directory that is being cleared.
struct Upper<'a> {
    dir: &'a Dir,
    /// What the names of directories that were brought up begin with.
    prefix: String,
    /// How many were brought up.
    number: u64,
    /// Some of those that are still there.
    waiting: VecDeque<OsString>,
    limit: usize,
}

impl Upper<'_> {
    /// Removes an entry. Of a directory, the directories inside that hold something are brought up first.
    fn take(&mut self, name: &OsStr) -> io::Result<()> {
        if unlink(&self.dir.fd, name)? {
            return Ok(());
        }
        let inner = self.dir.enter(Path::new(name))?;
        for child in listing(&inner.fd)? {
            let child = child?;
            if unlink(&inner.fd, &child)? {
                continue;
            }
            self.number += 1;
            let up = OsString::from(format!("{}-{}", self.prefix, self.number));
            renameat_with(&inner.fd, &child, &self.dir.fd, &up, RenameFlags::NOREPLACE)?;
            if self.waiting.len() < self.limit {
                self.waiting.push_back(up);
            }
        }
        // One that is not empty got an entry meanwhile: the next round takes it.
        unlink(&self.dir.fd, name).map(drop)
    }
}

/// Removes a file or an empty directory. False: it is a directory that is not empty.
fn unlink(dir: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The names in a directory in the kernel's order. It reads some at a time: memory does not grow with them.
fn listing(dir: &OwnedFd) -> io::Result<impl Iterator<Item = io::Result<OsString>>> {
    let entries = rustix::fs::Dir::read_from(dir)?;
    let name = |entry: Result<rustix::fs::DirEntry, Errno>| match entry {
        Ok(entry) => match entry.file_name().to_bytes() {
            b"." | b".." => None,
            name => Some(Ok(OsStr::from_bytes(name).to_owned())),
        },
        Err(error) => Some(Err(error.into())),
    };
    Ok(entries.filter_map(name))
}

/// A name that is one step.
fn one(name: &OsStr) -> io::Result<&OsStr> {
    match parts(Path::new(name))?.as_slice() {
        [part] if *part == name => Ok(name),
        _ => Err(astray(Path::new(name))),
    }
}

/// The steps of a path that only leads down.
fn parts(relative: &Path) -> io::Result<Vec<&OsStr>> {
    let part = |it| match it {
        Component::Normal(part) => Ok(part),
        _ => Err(astray(relative)),
    };
    relative.components().map(part).collect()
}

fn astray(path: &Path) -> io::Error {
    let message = format!("the path {path:?} does not only lead down");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    /// A directory with a link `out` to a directory beside it, in which is the file `secret`.
    fn trap() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("in")).unwrap();
        fs::create_dir(temp.path().join("outside")).unwrap();
        fs::write(temp.path().join("outside/secret"), "s").unwrap();
        symlink("../outside", temp.path().join("in/out")).unwrap();
        symlink("../outside/secret", temp.path().join("in/file")).unwrap();
        let dir = Dir::open(&temp.path().join("in")).unwrap();
        (temp, dir)
    }

    #[test]
    fn no_step_follows_a_link_or_leads_up() {
        let (temp, dir) = trap();
        assert!(dir.enter(Path::new("out")).is_err());
        assert!(dir.enter(Path::new("..")).is_err());
        assert!(dir.enter(Path::new("/")).is_err());
        assert!(dir.make(name("out"), 0o755).is_err());
        assert!(dir.make_all(Path::new("out/new"), 0o755).is_err());
        assert!(dir.make_all(Path::new("../new"), 0o755).is_err());
        assert!(dir.create(name("file"), 0o644).is_err());
        assert!(dir.create(name("../new"), 0o644).is_err());
        assert!(dir.read(Path::new("file"), 10).is_err());
        assert!(dir.read(Path::new("out/secret"), 10).is_err());
        let outside = fs::read_dir(temp.path().join("outside")).unwrap();
        assert_eq!(outside.count(), 1);
    }

    #[test]
    fn what_is_made_has_its_mode_whatever_the_umask_says() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        dir.make_all(Path::new("a/b"), 0o777).unwrap();
        let mut file = dir.create(name("f"), 0o666).unwrap();
        file.write_all(b"text").unwrap();
        let mode = |path: &str| {
            let found = fs::metadata(temp.path().join(path)).unwrap();
            found.permissions().mode() & 0o7777
        };
        assert_eq!((mode("a"), mode("a/b"), mode("f")), (0o777, 0o777, 0o666));
        assert_eq!(dir.read(Path::new("f"), 2).unwrap(), b"te");
    }

    #[test]
    fn only_regular_files_are_read() {
        let temp = tempfile::tempdir().unwrap();
        let fifo = temp.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        // It would wait for a writer.
        assert!(dir.read(Path::new("fifo"), 1).is_err());
        assert!(dir.read(Path::new(""), 1).is_err());
        let dev = Dir::open(Path::new("/dev")).unwrap();
        assert!(dev.read(Path::new("zero"), 1).is_err());
    }

    #[test]
    fn a_tree_goes_whole_and_what_its_links_lead_to_stays() {
        let (temp, dir) = trap();
        let deep = temp.path().join("in/a/b/c");
        fs::create_dir_all(&deep).unwrap();
        symlink("/etc", deep.join("etc")).unwrap();
        fs::write(deep.join("f"), "x").unwrap();
        dir.clear().unwrap();
        assert_eq!(dir.names().unwrap(), Vec::<OsString>::new());
        assert!(temp.path().join("outside/secret").exists());
        assert!(Path::new("/etc").exists());
        dir.remove(name("absent")).unwrap();
    }

    #[test]
    fn a_tree_that_is_deeper_than_any_path_is_measured_and_goes() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut at = dir.make(name("deep"), 0o700).unwrap();
        for _ in 0..5000 {
            at = at.make(name("directory"), 0o700).unwrap();
        }
        let usage = dir.usage(1_000_000).unwrap();
        assert!(!usage.complete && usage.entries >= 255, "{usage:?}");
        dir.remove(name("deep")).unwrap();
        assert_eq!(dir.names().unwrap(), Vec::<OsString>::new());
    }

    #[test]
    fn a_tree_with_more_directories_than_are_remembered_goes_whole() {
        for limit in [0, 1, 7] {
            let temp = tempfile::tempdir().unwrap();
            let dir = Dir::open(temp.path()).unwrap();
            for (a, b) in (0..20).flat_map(|a| (0..20).map(move |b| (a, b))) {
                let inner = temp.path().join(format!("wide/{a}/{b}/deep/deeper"));
                fs::create_dir_all(&inner).unwrap();
                fs::write(inner.join("f"), "x").unwrap();
            }
            dir.clear_with(limit).unwrap();
            assert_eq!(dir.names().unwrap(), Vec::<OsString>::new(), "{limit}");
        }
    }

    /// Memory is the process's: the removal has one of its own, this test once more.
    #[test]
    fn a_directory_with_very_many_names_goes_without_memory_for_them() {
        const OF_THE_OTHER: &str = "ORCHESTRATOR_TEST_CLEAR";
        const NAMES: usize = 50_000;
        const LIMIT_KIB: u64 = 2048;
        if let Some(path) = std::env::var_os(OF_THE_OTHER) {
            // The code's own pages come in with the first removal.
            let first = tempfile::tempdir().unwrap();
            fs::create_dir_all(first.path().join("a/b")).unwrap();
            Dir::open(first.path()).unwrap().clear().unwrap();
            let before = peak_memory_kib();
            Dir::open(Path::new(&path)).unwrap().clear().unwrap();
            let grown = peak_memory_kib() - before;
            assert!(grown < LIMIT_KIB, "it took {grown} KiB");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let many = temp.path().join("many");
        fs::create_dir(&many).unwrap();
        for number in 0..NAMES {
            fs::write(many.join(format!("{number:0>200}")), "").unwrap();
        }
        let this = std::env::current_exe().unwrap();
        let name = "beneath::tests::\
            a_directory_with_very_many_names_goes_without_memory_for_them";
        let mut other = std::process::Command::new(this);
        other.args(["--exact", name, "--nocapture"]);
        let done = other.env(OF_THE_OTHER, temp.path()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "it ran");
    }

    fn peak_memory_kib() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.unwrap().parse().unwrap()
    }

    #[test]
    fn usage_counts_a_file_with_two_names_once_and_stops_at_its_limit() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("a");
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        fs::hard_link(&file, temp.path().join("b")).unwrap();
        symlink("/usr", temp.path().join("c")).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let usage = dir.usage(100).unwrap();
        assert!(usage.complete && usage.entries == 3, "{usage:?}");
        assert!((1 << 20..1 << 21).contains(&usage.bytes), "{usage:?}");
        let cut = dir.usage(1).unwrap();
        assert!(!cut.complete && cut.entries == 1, "{cut:?}");
    }
}
