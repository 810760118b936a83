//! Parts of volumes that are mounted by themselves (`subPath`).
//!
//! A part is opened beneath its volume, made there if it is missing, and what was opened is mounted onto a
//! place below `<pod>/sub-paths`, which no container sees; the Engine is given that place. A container that
//! renames directories or puts links in their stead at the same time gets an error, or its own directory.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use rustix::fs::{FileType, fstat};

use super::{Made, Origin, PodDir};
use crate::runtime::Propagation;
use crate::runtime::container_spec::SpecError;
use sys::beneath::Dir;
use sys::mounts::{self, Copied};

pub(super) const PLACES: &str = "sub-paths";

/// A part of a volume, and where it is to be mounted for the Engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubPath {
    pub volume: Made,
    /// Below the volume.
    pub path: PathBuf,
    pub place: PathBuf,
    pub propagation: Propagation,
}

impl PodDir {
    /// Where the parts for one attempt of a container are mounted, by the index of the mount.
    pub fn sub_paths(&self, container: &str, attempt: u32) -> PathBuf {
        self.root
            .join(PLACES)
            .join(container)
            .join(attempt.to_string())
    }

    /// Mounts the parts of volumes that a container starts with, instead of those of the container's
    /// earlier attempts and of what an agent that died has left.
    pub fn mount_sub_paths(&self, container: &str, parts: &[SubPath]) -> Result<(), SpecError> {
        let earlier = || -> io::Result<()> {
            let places = self.root.join(PLACES);
            if !places.exists() {
                return Ok(());
            }
            mounts::detach_below(&places.join(container))?;
            Dir::open(&places)?.remove(OsStr::new(container))
        };
        earlier().map_err(|error| failed(Path::new(container), &error))?;
        for part in parts {
            self.mount_part(part)
                .map_err(|error| failed(&part.path, &error))?;
        }
        Ok(())
    }

    fn mount_part(&self, part: &SubPath) -> io::Result<()> {
        let found = open(part)?;
        let is_directory = match &found {
            Some(found) => FileType::from_raw_mode(fstat(found)?.st_mode) == FileType::Directory,
            None => true,
        };
        let below = part.place.strip_prefix(&self.root).unwrap_or(&part.place);
        let (above, name) = (below.parent(), below.file_name());
        let name = name.unwrap_or_default();
        let above = Dir::open(&self.root)?.make_all(above.unwrap_or(below), 0o700)?;
        if is_directory {
            above.make(name, 0o755)?;
        } else {
            above.create(name, 0o644)?;
        }
        match found {
            Some(found) => attach(&found, part, above.place(Path::new(name))?),
            // The key is not there, and its object may be absent: the part is an empty directory.
            None => Ok(()),
        }
    }
}

/// Opens the part of the volume. `None`: the agent writes the volume, and it has no such part.
fn open(part: &SubPath) -> io::Result<Option<OwnedFd>> {
    let root = Dir::open(&part.volume.path)?;
    let (root, path) = match part.volume.origin {
        Origin::Written => (current(root)?, &part.path),
        Origin::Shared | Origin::Image => (root, &part.path),
        Origin::Device => return Err(io::Error::other("a device has no parts")),
        Origin::Host => (root.across_mounts(), &part.path),
    };
    match root.place(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        // Nothing is written to an image.
        Err(error) if part.volume.origin == Origin::Image => Err(error),
        Err(_) if part.volume.origin == Origin::Written => Ok(None),
        Err(_) => {
            let made = root.make_all(path, root.mode()?)?;
            made.place(Path::new("")).map(Some)
        }
    }
}

/// What the agent wrote last into a volume of its own.
fn current(root: Dir) -> io::Result<Dir> {
    let data = root.read_link(OsStr::new("..data"))?;
    root.enter(Path::new(&data))
}

/// Mounts what was opened at the part's place.
fn attach(found: &OwnedFd, part: &SubPath, place: OwnedFd) -> io::Result<()> {
    // What is mounted inside a directory of the node belongs to it.
    let copy = Copied::of(found, part.volume.origin == Origin::Host)?;
    copy.attach(place)?;
    match part.propagation {
        Propagation::Private => copy.propagate(MsFlags::MS_PRIVATE),
        Propagation::HostToContainer => copy.propagate(MsFlags::MS_SLAVE),
        // Mounts of the container reach the node through the part's peers.
        Propagation::Bidirectional => Ok(()),
    }
}

fn failed(what: &Path, error: &io::Error) -> SpecError {
    let hint = match error.raw_os_error() {
        Some(libc::ELOOP) => ": a part of it is a symbolic link, which subPath does not follow",
        Some(libc::EXDEV) => ": it leads out of its volume, or into a mount inside it",
        Some(libc::ENOTDIR) => ": a part of it is not a directory",
        _ => "",
    };
    SpecError::config(format!(
        "failed to prepare subPath {:?}: {error}{hint}",
        what.display().to_string()
    ))
}
