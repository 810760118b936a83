//! Volumes that are mounted inside others.
//!
//! The Engine mounts them one after the other and resolves each place inside the container, through links
//! of the volumes that are there by then. A link that another container leaves in an emptyDir would put the
//! inner volume anywhere in the container, over `/dev` for example: a runc before 1.2.8 and 1.3.3 then gives
//! files of the node to it (CVE-2025-31133). So the Engine is given the outermost volumes only, each with what
//! belongs inside it mounted already: by descriptor, in a copy of the mount that no container sees.
//!
//! ```text
//! sub-paths/<container>/<attempt>/bench/0    a private copy of the outer mount, in which the inner are put
//!                                 joined/0   a copy of that with all that is in it, for the Engine
//! ```
//!
//! What cannot be taken from the Engine are its own three files in `/etc`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;

use super::{PodDir, make_dir};
use crate::runtime::container_spec::SpecError;
use crate::runtime::{Mount, Propagation};
use sys::beneath::Dir;
use sys::mounts::Copied;

/// The Engine mounts a file at each of these, after all volumes; what it is told to mount there is the file.
const ENGINE_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// Of what is made for a mount, as runc makes it.
const PLACE_MODE: u32 = 0o755;

/// A mount of the Engine's, and what the agent mounts inside it, outer before inner.
#[derive(Debug, PartialEq, Eq)]
struct Tree<'a> {
    outer: &'a Mount,
    inner: Vec<&'a Mount>,
}

impl PodDir {
    /// Mounts those that belong inside others there, and gives what is left to the Engine. `places` is the
    /// directory of the container's attempt, emptied by [`PodDir::mount_sub_paths`].
    pub fn join_nested(&self, places: &Path, mounts: &[Mount]) -> Result<Vec<Mount>, SpecError> {
        let trees = plan(mounts);
        self.check_engine_files(mounts)?;
        if trees.iter().all(|tree| tree.inner.is_empty()) {
            return Ok(mounts.to_vec());
        }
        let bench = Bench::new(places.join("bench")).map_err(|error| {
            SpecError::config(format!("failed to prepare nested mounts: {error}"))
        })?;
        let given = trees.iter().enumerate().map(|(index, tree)| {
            if tree.inner.is_empty() {
                return Ok(tree.outer.clone());
            }
            let name = index.to_string();
            join(
                tree,
                &bench.0.join(&name),
                &places.join("joined").join(&name),
            )
        });
        given.collect()
    }

    /// Whether no link leads the Engine's own files out of a volume at `/etc`. It may be one by the time that
    /// they are mounted; what is mounted is a plain file of the pod's own then.
    fn check_engine_files(&self, mounts: &[Mount]) -> Result<(), SpecError> {
        let etc = Path::new("/etc");
        let Some(outer) = mounts.iter().find(|mount| Path::new(&mount.target) == etc) else {
            return Ok(());
        };
        let not_ours =
            |mount: &&Mount| is_engine_file(&mount.target) && !mount.source.starts_with(self.etc());
        if let Some(inner) = mounts.iter().find(not_ours) {
            let why = "the Engine mounts a file of its own there";
            return Err(failed(inner, outer, why));
        }
        for name in ENGINE_FILES.map(|file| file.trim_start_matches("/etc/")) {
            let found = fs::symlink_metadata(outer.source.join(name));
            if found.is_ok_and(|found| found.is_symlink()) {
                let why = hint(&Errno::LOOP.into());
                return Err(SpecError::config(format!(
                    "failed to prepare the mount at {:?}: {name}{why}",
                    outer.target
                )));
            }
        }
        Ok(())
    }
}

/// Which mounts the Engine is given, and what lies inside each. Mounts at the same path stay in their order.
fn plan(mounts: &[Mount]) -> Vec<Tree<'_>> {
    let mut by_depth: Vec<&Mount> = mounts.iter().collect();
    by_depth.sort_by_key(|mount| Path::new(&mount.target).components().count());
    let mut trees: Vec<Tree> = Vec::new();
    for mount in by_depth {
        let mut around = trees.iter_mut();
        let around = around.find(|tree| is_inside(&mount.target, &tree.outer.target));
        match around.filter(|_| !is_engine_file(&mount.target)) {
            Some(tree) => tree.inner.push(mount),
            None => trees.push(Tree {
                outer: mount,
                inner: Vec::new(),
            }),
        }
    }
    trees
}

/// Whether a path of a container lies below another.
pub fn is_inside(inner: &str, outer: &str) -> bool {
    let (inner, outer) = (Path::new(inner), Path::new(outer));
    inner != outer && inner.starts_with(outer)
}

fn is_engine_file(target: &str) -> bool {
    ENGINE_FILES.map(Path::new).contains(&Path::new(target))
}

/// Puts a tree together on the bench, and copies it to where the Engine finds it.
fn join(tree: &Tree, on_bench: &Path, place: &Path) -> Result<Mount, SpecError> {
    let outer = tree.outer;
    let of_outer = |error: io::Error| {
        SpecError::config(format!(
            "failed to prepare the mount at {:?}: {error}",
            outer.target
        ))
    };
    let all = || tree.inner.iter().copied().chain([outer]);
    if all().any(|mount| mount.propagation == Propagation::Bidirectional) {
        let why =
            "mountPropagation: Bidirectional is not supported where volumes lie in each other";
        return Err(failed(tree.inner[0], outer, why));
    }
    let root = put_outer(outer, on_bench).map_err(of_outer)?;
    for inner in &tree.inner {
        put_inner(&root, inner, outer)
            .map_err(|error| failed(inner, outer, &format!("{error}{}", hint(&error))))?;
    }
    let finish = || -> io::Result<()> {
        let whole = Copied::of(&root, true)?;
        whole.attach(make_place(place, is_directory(&root)?)?)?;
        // Its parent has given it peers. What had a master keeps it, the rest has none.
        whole.propagate(MsFlags::MS_SLAVE)
    };
    finish().map_err(of_outer)?;
    let follows = all().any(|mount| mount.propagation == Propagation::HostToContainer);
    Ok(Mount {
        source: place.to_owned(),
        propagation: match follows {
            true => Propagation::HostToContainer,
            false => Propagation::Private,
        },
        joined: true,
        ..outer.clone()
    })
}

fn put_outer(outer: &Mount, on_bench: &Path) -> io::Result<Copied> {
    let source = open(&outer.source)?;
    let place = make_place(on_bench, is_directory(&source)?)?;
    put(&source, outer, place)
}

/// Opens the place of a mount inside the outer one, which containers may change meanwhile, and mounts it at
/// what was opened.
fn put_inner(root: &Copied, inner: &Mount, outer: &Mount) -> io::Result<()> {
    let source = open(&inner.source)?;
    let below = Path::new(&inner.target).strip_prefix(&outer.target);
    let below = below.map_err(io::Error::other)?;
    // A volume between the two is mounted already.
    let dir = Dir::of(root)?.across_mounts();
    let place = match dir.place(below) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_below(&dir, below, is_directory(&source)?)?;
            dir.place(below)?
        }
        found => found?,
    };
    match (file_type(&source)?, file_type(&place)?) {
        // A link at the end of a path is a place itself.
        (_, FileType::Symlink) => Err(Errno::LOOP.into()),
        (FileType::Directory, FileType::Directory) => put(&source, inner, place).map(drop),
        (FileType::Directory, _) | (_, FileType::Directory) => Err(Errno::NOTDIR.into()),
        _ => put(&source, inner, place).map(drop),
    }
}

/// Mounts what was opened at a place, with what is mounted inside it, as the Engine does.
fn put(source: &OwnedFd, how: &Mount, place: OwnedFd) -> io::Result<Copied> {
    let copy = Copied::of(source, true)?;
    copy.attach(place)?;
    // Until here it is a peer of its original, which nothing must be mounted into.
    copy.propagate(match how.propagation {
        Propagation::HostToContainer => MsFlags::MS_SLAVE,
        Propagation::Private | Propagation::Bidirectional => MsFlags::MS_PRIVATE,
    })?;
    if how.read_only {
        copy.make_read_only()?;
    }
    Ok(copy)
}

fn make_below(dir: &Dir, below: &Path, is_directory: bool) -> io::Result<()> {
    let above = dir.make_all(below.parent().unwrap_or(Path::new("")), PLACE_MODE)?;
    let name = below.file_name().unwrap_or_default();
    match is_directory {
        true => above.make(name, PLACE_MODE).map(drop),
        false => above.create(name, PLACE_MODE).map(drop),
    }
}

/// Makes a place of the agent's own.
fn make_place(path: &Path, is_directory: bool) -> io::Result<OwnedFd> {
    let (above, name) = (path.parent().unwrap_or(path), path.file_name());
    make_dir(above, 0o700)?;
    let above = Dir::open(above)?;
    let name = Path::new(name.unwrap_or_default());
    make_below(&above, name, is_directory)?;
    above.place(name)
}

/// Opens a volume as a place. Its path is the agent's own or the node's: links in it are followed.
fn open(source: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::open(source, flags, Mode::empty())?)
}

fn is_directory(opened: impl AsFd) -> io::Result<bool> {
    Ok(file_type(opened)? == FileType::Directory)
}

fn file_type(opened: impl AsFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(opened)?.st_mode))
}

/// A directory of which nothing that is mounted there is seen anywhere else; what is left there is detached.
struct Bench(PathBuf);

impl Bench {
    fn new(path: PathBuf) -> io::Result<Bench> {
        make_dir(&path, 0o700)?;
        let none = None::<&str>;
        mount(Some(&path), &path, none, MsFlags::MS_BIND, none)?;
        let bench = Bench(path);
        mount(none, &bench.0, none, MsFlags::MS_PRIVATE, none)?;
        Ok(bench)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            tracing::warn!(place = %self.0.display(), %error, "nested mounts were left behind");
        }
    }
}

fn failed(inner: &Mount, outer: &Mount, why: &str) -> SpecError {
    SpecError::config(format!(
        "failed to prepare the mount at {:?} inside the volume at {:?}: {why}",
        inner.target, outer.target
    ))
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ELOOP) => ": a part of the path is a symbolic link, which is not followed",
        Some(libc::EROFS) => ": the volume is mounted read-only and has nothing at that path",
        Some(libc::ENOTDIR) => {
            ": a part of the path is not a directory, or a directory and a file would cover each other"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(target: &str) -> Mount {
        Mount {
            source: PathBuf::from("/v"),
            target: target.to_owned(),
            read_only: false,
            propagation: Propagation::Private,
            joined: false,
        }
    }

    /// Each tree's paths, the outer one first.
    fn planned(targets: &[&str]) -> Vec<Vec<String>> {
        let mounts: Vec<Mount> = targets.iter().map(|target| mount(target)).collect();
        let trees = plan(&mounts);
        let paths = |tree: &Tree| {
            let all = [tree.outer].into_iter().chain(tree.inner.iter().copied());
            all.map(|mount| mount.target.clone()).collect()
        };
        trees.iter().map(paths).collect()
    }

    #[test]
    fn only_what_lies_below_a_mount_is_joined_with_it() {
        assert_eq!(planned(&["/a", "/ab"]), [vec!["/a"], vec!["/ab"]]);
        assert_eq!(planned(&["/a/b", "/a/c"]), [vec!["/a/b"], vec!["/a/c"]]);
        assert_eq!(planned(&["/a/b", "/a"]), [vec!["/a", "/a/b"]]);
    }

    #[test]
    fn mounts_at_any_depth_are_joined_with_the_outermost_one_in_the_order_of_depth() {
        let planned = planned(&["/a/b/c/d", "/b", "/a/x/y/z", "/a/b", "/a"]);
        assert_eq!(planned[0], ["/b"]);
        assert_eq!(planned[1], ["/a", "/a/b", "/a/b/c/d", "/a/x/y/z"]);
    }

    #[test]
    fn a_path_that_is_given_twice_is_not_inside_itself() {
        assert_eq!(planned(&["/a", "/a/"]), [vec!["/a"], vec!["/a/"]]);
        assert_eq!(planned(&["/a/", "/a/b/"]), [vec!["/a/", "/a/b/"]]);
        let twice = planned(&["/a", "/a/b", "/a/b"]);
        assert_eq!(twice, [vec!["/a", "/a/b", "/a/b"]]);
    }

    #[test]
    fn the_engines_own_files_stay_with_the_engine() {
        let planned = planned(&["/etc", "/etc/hosts", "/etc/resolv.conf", "/etc/nginx"]);
        assert_eq!(planned[0], ["/etc", "/etc/nginx"]);
        assert_eq!(planned[1..], [["/etc/hosts"], ["/etc/resolv.conf"]]);
    }

    #[test]
    fn a_volume_at_etc_takes_the_place_of_no_file_of_the_engine() {
        let temp = tempfile::tempdir().unwrap();
        let dir = PodDir::new(temp.path(), "uid");
        let volume = temp.path().join("v");
        fs::create_dir(&volume).unwrap();
        let etc = Mount {
            source: volume.clone(),
            ..mount("/etc")
        };
        let ours = Mount {
            source: dir.etc().join("hosts"),
            ..mount("/etc/hosts")
        };
        assert_eq!(dir.check_engine_files(&[etc.clone(), ours]), Ok(()));
        let theirs = [etc.clone(), mount("/etc/hosts")];
        assert!(dir.check_engine_files(&theirs).is_err());
        assert_eq!(dir.check_engine_files(&[mount("/etc/hosts")]), Ok(()));
        std::os::unix::fs::symlink("/dev", volume.join("hostname")).unwrap();
        let said = dir.check_engine_files(&[etc]).unwrap_err();
        assert!(said.message.contains("symbolic link"), "{said}");
    }
}
