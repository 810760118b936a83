//! Local volumes: disk images on this node, whose capacity is enforced by their size.
//!
//! ```text
//! <data>/images/<volume>/
//!   image        the disk, sparse unless the class asks for `thick`
//!   size         how many bytes of it the file system has been given
//!   users/       a file for each pod that has the volume
//!   mount/       where the file system is mounted
//!   mount/data   what pods see: nothing but their own files
//!   block        there, and neither `mount`: pods get the disk itself, as a loop device
//! ```
//!
//! The image is above what pods can see of it. A volume is mounted for its first pod and unmounted after its
//! last; an agent that starts anew, also after a reboot, finds the image and its users and goes on. One step at
//! a time is taken on a volume: a lock on its directory keeps other steps away.
//!
//! INVARIANT: a loop device that a pod has is held open by a second one on top of it. A pod that may write its loop
//! device may also tell the kernel to let go of its image (`LOOP_CLR_FD` asks for no right); the number would then be
//! given to the next volume, whose disk the pod could read. The kernel waits with that for the last who has it open.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, umount2};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use tokio::sync::Notify;

use super::{is_mounted, make_dir};
use sys::beneath::Dir;

const IMAGES: &str = "images";

// Below a volume's directory.
const IMAGE: &str = "image";
/// An image that is not complete.
const NEXT: &str = "image.new";
const SIZE: &str = "size";
const USERS: &str = "users";
const MOUNT: &str = "mount";
/// Below the mount: beside what the file system has of its own.
const DATA: &str = "data";
/// The volume is a device and has no file system of ours.
const BLOCK: &str = "block";

/// The directory that pods get, before one of them has changed it.
const DATA_MODE: u32 = 0o755;

/// Where the node's own programs are.
const PROGRAMS: &str = "/usr/sbin:/sbin:/usr/bin:/bin";
/// How much of what a program says is told, in bytes.
const SAID_LIMIT: usize = 512;

/// Notified when the size of a file system has changed.
pub static GROWN: Notify = Notify::const_new();

/// All images of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    root: PathBuf,
}

/// A volume as its object describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    pub bytes: u64,
    /// All of it is set aside at once.
    pub thick: bool,
    /// Options of the mount that the class asks for.
    pub options: Vec<String>,
    /// Pods get the disk itself.
    pub is_block: bool,
}

impl Images {
    pub fn new(data_dir: &Path) -> Images {
        Images {
            root: data_dir.join(IMAGES),
        }
    }

    /// Makes and mounts a volume, as far as that is not done, and notes that the pod has it; gives where its
    /// files lie, or its device.
    pub fn take(&self, wanted: &Wanted, pod: &str) -> io::Result<PathBuf> {
        let dir = self.dir(&wanted.name)?;
        make_dir(&self.root, 0o700)?;
        make_dir(&dir, 0o700)?;
        let _lock = lock(&dir)?;
        let users = dir.join(USERS);
        make_dir(&users, 0o700)?;
        File::create(users.join(one_name(pod)?))?;
        if !dir.join(IMAGE).exists() {
            make_image(&dir, wanted)?;
        }
        enlarge(&dir, wanted.bytes)?;
        if is_block(&dir) {
            grow_block(&dir)?;
            return attach(&dir);
        }
        let mount = dir.join(MOUNT);
        make_dir(&mount, 0o700)?;
        if !is_mounted(&mount)? {
            grow_unmounted(&dir)?;
            mount_image(&dir, &wanted.options)?;
        }
        Dir::open(&mount)?.make(DATA.as_ref(), DATA_MODE)?;
        Ok(mount.join(DATA))
    }

    /// Notes that a pod has no volume any more, and unmounts those that no other pod has.
    pub fn release(&self, pod: &str) -> io::Result<()> {
        for name in self.all()? {
            let dir = self.dir(&name)?;
            let user = dir.join(USERS).join(one_name(pod)?);
            if !user.exists() {
                continue;
            }
            let _lock = lock(&dir)?;
            if users(&dir)? <= 1 {
                unmount(&dir)?;
            }
            fs::remove_file(&user)?;
        }
        Ok(())
    }

    /// Gives a volume this size, if it is larger; whether its file system has it already. One that is in use
    /// may have to wait for its next mount. A volume that no pod has had yet is none.
    pub fn grow(&self, name: &str, bytes: u64) -> io::Result<bool> {
        let dir = self.dir(name)?;
        if !dir.join(IMAGE).exists() {
            return Ok(true);
        }
        let _lock = lock(&dir)?;
        enlarge(&dir, bytes)?;
        if size(&dir)? >= bytes {
            return Ok(true);
        }
        if is_block(&dir) {
            return grow_block(&dir).map(|()| true);
        }
        let mount = dir.join(MOUNT);
        if !mount.exists() || !is_mounted(&mount)? {
            grow_unmounted(&dir)?;
            return Ok(true);
        }
        match grow_mounted(&dir) {
            Ok(()) => Ok(true),
            Err(error) => {
                tracing::info!(%error, name, "a volume grows when it is mounted the next time");
                Ok(false)
            }
        }
    }

    /// How many bytes the file system of a volume has; none where there is no image.
    pub fn size(&self, name: &str) -> Option<u64> {
        size(&self.dir(name).ok()?).ok()
    }

    /// Removes a volume and what is on it; an absent one is a success. A volume that a pod has is an error.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let dir = self.dir(name)?;
        if !dir.exists() {
            return Ok(());
        }
        let _lock = lock(&dir)?;
        if users(&dir)? > 0 {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "a pod has the volume",
            ));
        }
        unmount(&dir)?;
        Dir::open(&self.root)?.remove(name.as_ref())
    }

    /// The volumes that have a directory here.
    pub fn all(&self) -> io::Result<Vec<String>> {
        let names = match Dir::open(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            root => root?.names()?,
        };
        Ok(names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect())
    }

    /// Unmounts all volumes, whoever has them. No container of theirs may run. Their images stay.
    pub fn unmount_all(&self) -> io::Result<()> {
        for name in self.all()? {
            unmount(&self.dir(&name)?)?;
        }
        Ok(())
    }

    fn dir(&self, name: &str) -> io::Result<PathBuf> {
        Ok(self.root.join(one_name(name)?))
    }
}

/// One step of a path, as names of volumes and uids are.
pub(super) fn one_name(name: &str) -> io::Result<&str> {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let ok = name.len() <= 253 && name.bytes().all(fits);
    if ok
        && name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
    {
        Ok(name)
    } else {
        let message = format!("{name:?} is not a name of a volume");
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}

/// Held until it is dropped.
pub(super) fn lock(dir: &Path) -> io::Result<File> {
    let dir = File::open(dir)?;
    flock(&dir, FlockOperation::LockExclusive)?;
    Ok(dir)
}

pub(super) fn users(dir: &Path) -> io::Result<usize> {
    match Dir::open(&dir.join(USERS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        users => Ok(users?.names()?.len()),
    }
}

fn size(dir: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(dir.join(SIZE))?;
    text.trim().parse().map_err(io::Error::other)
}

fn note_size(dir: &Path, bytes: u64) -> io::Result<()> {
    sys::files::write_atomic(&dir.join(SIZE), bytes.to_string().as_bytes(), 0o600)?;
    GROWN.notify_one();
    Ok(())
}

/// An image has its name when it is complete.
fn make_image(dir: &Path, wanted: &Wanted) -> io::Result<()> {
    let next = dir.join(NEXT);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&next)?;
    if wanted.thick {
        fallocate(&file, FallocateFlags::empty(), 0, wanted.bytes)?;
    } else {
        file.set_len(wanted.bytes)?;
    }
    if wanted.is_block {
        File::create(dir.join(BLOCK))?;
    } else {
        // The whole volume is the pod's: nothing is kept for root.
        run(
            "mkfs.ext4",
            &["-q", "-F", "-m", "0", "-E", "nodiscard"],
            &[&next],
        )?;
    }
    file.sync_all()?;
    note_size(dir, wanted.bytes)?;
    fs::rename(&next, dir.join(IMAGE))
}

fn enlarge(dir: &Path, bytes: u64) -> io::Result<()> {
    let image = OpenOptions::new().write(true).open(dir.join(IMAGE))?;
    if image.metadata()?.len() < bytes {
        image.set_len(bytes)?;
        image.sync_all()?;
    }
    Ok(())
}

fn grow_unmounted(dir: &Path) -> io::Result<()> {
    let image = dir.join(IMAGE);
    let bytes = fs::metadata(&image)?.len();
    if size(dir)? >= bytes {
        return Ok(());
    }
    // Repairs what is safe to repair; resize2fs wants it done.
    run("e2fsck", &["-f", "-p"], &[&image])?;
    run("resize2fs", &[], &[&image])?;
    note_size(dir, bytes)
}

/// The kernel asks for CAP_SYS_RESOURCE.
fn grow_mounted(dir: &Path) -> io::Result<()> {
    let image = dir.join(IMAGE);
    let bytes = fs::metadata(&image)?.len();
    let device = loop_device(&image)?;
    let device = device.ok_or_else(|| io::Error::other("its loop device was not found"))?;
    run("losetup", &["--set-capacity"], &[&device])?;
    run("resize2fs", &[], &[&device])?;
    note_size(dir, bytes)
}

fn is_block(dir: &Path) -> bool {
    dir.join(BLOCK).exists()
}

/// Gives a device the size of its image.
fn grow_block(dir: &Path) -> io::Result<()> {
    let image = dir.join(IMAGE);
    let bytes = fs::metadata(&image)?.len();
    if size(dir)? >= bytes {
        return Ok(());
    }
    if let Some(device) = loop_device(&image)? {
        run("losetup", &["--set-capacity"], &[&device])?;
    }
    note_size(dir, bytes)
}

/// The loop device of a file or of another device, if it has one.
fn loop_device(of: &Path) -> io::Result<Option<PathBuf>> {
    let words = ["--noheadings", "--output", "NAME", "--associated"];
    let said = run("losetup", &words, &[of])?;
    let first = said.lines().next().map(str::trim);
    Ok(first.filter(|name| !name.is_empty()).map(PathBuf::from))
}

/// Makes an image a device, if it is none, and holds that.
fn attach(dir: &Path) -> io::Result<PathBuf> {
    let made = |of: &Path| -> io::Result<PathBuf> {
        if let Some(device) = loop_device(of)? {
            return Ok(device);
        }
        let said = run("losetup", &["--find", "--show"], &[of])?;
        Ok(PathBuf::from(said.trim()))
    };
    let device = made(&dir.join(IMAGE))?;
    made(&device)?;
    Ok(device)
}

/// Lets go of a device. If its pod has told the kernel to let go too, it goes with what holds it.
fn detach(dir: &Path) -> io::Result<()> {
    let image = dir.join(IMAGE);
    let Some(device) = loop_device(&image)? else {
        return Ok(());
    };
    if let Some(holder) = loop_device(&device)? {
        run("losetup", &["--detach"], &[&holder])?;
    }
    match run("losetup", &["--detach"], &[&device]) {
        Err(error) if loop_device(&image)?.is_some() => Err(error),
        _ => Ok(()),
    }
}

/// By mount(8), which finds a free loop device and has the kernel let go of it with the last mount.
fn mount_image(dir: &Path, options: &[String]) -> io::Result<()> {
    let all = ["loop", "nodev", "nosuid", "discard"].into_iter();
    let all: Vec<&str> = all.chain(options.iter().map(String::as_str)).collect();
    let options = all.join(",");
    let (image, place) = (dir.join(IMAGE), dir.join(MOUNT));
    run("mount", &["-t", "ext4", "-o", &options], &[&image, &place]).map(drop)
}

/// Not lazily: the image may be mounted again, or removed, as soon as this is done.
fn unmount(dir: &Path) -> io::Result<()> {
    if is_block(dir) {
        return detach(dir);
    }
    let place = dir.join(MOUNT);
    if place.exists() && is_mounted(&place)? {
        umount2(&place, MntFlags::empty())?;
    }
    Ok(())
}

/// Runs a program of the node to its end; gives what it printed.
fn run(program: &str, words: &[&str], paths: &[&Path]) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(words).args(paths).stdin(Stdio::null());
    command.env_clear().env("PATH", PROGRAMS).env("LC_ALL", "C");
    let output = command.output().map_err(|error| {
        let hint = "local volumes need e2fsprogs and util-linux on the node";
        io::Error::new(error.kind(), format!("{program}: {error} ({hint})"))
    })?;
    // e2fsck ends with 1 when it has repaired something.
    let repaired = program == "e2fsck" && output.status.code() == Some(1);
    if output.status.success() || repaired {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = &output.stderr[..output.stderr.len().min(SAID_LIMIT)];
    let said = String::from_utf8_lossy(said);
    Err(io::Error::other(format!(
        "{program}: {}: {}",
        output.status,
        said.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_name_is_one_step_of_a_path() {
        let images = Images::new(Path::new("/data"));
        assert_eq!(
            images.dir("pvc-1.a").unwrap(),
            Path::new("/data/images/pvc-1.a")
        );
        for name in ["", ".", "..", "a/b", "-a", "A", "a\0", &"a".repeat(254)] {
            assert!(images.dir(name).is_err(), "{name:?}");
            assert!(images.remove(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_volume_that_a_pod_has_is_not_removed() {
        let temp = tempfile::tempdir().unwrap();
        let images = Images::new(temp.path());
        assert!(images.remove("v").is_ok());
        let users = images.dir("v").unwrap().join(USERS);
        make_dir(&users, 0o700).unwrap();
        File::create(users.join("u1")).unwrap();
        assert!(images.remove("v").is_err());
        images.release("u2").unwrap();
        assert!(images.remove("v").is_err());
        images.release("u1").unwrap();
        images.remove("v").unwrap();
        assert!(images.all().unwrap().is_empty());
    }

    #[test]
    fn a_program_that_fails_is_named_with_what_it_said() {
        let error = run("ls", &["/absent"], &[]).unwrap_err().to_string();
        assert!(error.starts_with("ls: exit status: 2: ls: "), "{error}");
        let error = run("no-such-program", &[], &[]).unwrap_err().to_string();
        assert!(error.contains("e2fsprogs"), "{error}");
    }
}
