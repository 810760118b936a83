//! A pod's files on the node: its directory, its volumes, its `/etc`.
//!
//! Owns `<data>/pods/<uid>`, made when the pod starts, gone when it is released, and the local volumes in
//! `<data>/images`, which outlive pods.

pub mod claimed;
pub mod csi;
mod empty_dir;
mod etc;
mod host_path;
pub mod image_trees;
pub mod images;
pub mod keeper;
pub mod nested;
mod nfs;
mod projected;
mod sub_path;
mod write;
mod written;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::api::sources::Sources;
use crate::dns::node_resolv_conf;
use crate::pod::downward::Facts;
use crate::runtime::container_spec::SpecError;
use claimed::{Backing, Found};
use image_trees::ImageTrees;
use images::Images;
use sys::beneath::Dir;
use sys::{files, mounts, ownership};

pub use empty_dir::{Limited, limited};
use etc::NodeFiles;

pub use etc::Dns;
pub use sub_path::SubPath;

const PODS: &str = "pods";

// Below a pod's directory.
/// Which emptyDirs are complete.
const MADE: &str = "made";
pub const VOLUMES: &str = "volumes";
/// Where the pod's own file system in memory is mounted.
pub const MEMORY: &str = "memory";

/// Where a pod's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodDir {
    root: PathBuf,
    images: Images,
    trees: ImageTrees,
}

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub path: PathBuf,
    pub origin: Origin,
    /// No container writes it, whatever its mount says.
    pub read_only: bool,
}

/// What writes a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The agent alone: no container may.
    Written,
    /// The pod's containers.
    Shared,
    /// The volume is a path of the node.
    Host,
    /// An image: nothing writes it.
    Image,
    /// It has no files: the path is a block device.
    Device,
}

impl PodDir {
    pub fn new(data_dir: &Path, uid: &str) -> PodDir {
        PodDir {
            root: data_dir.join(PODS).join(uid),
            images: Images::new(data_dir),
            trees: ImageTrees::new(data_dir),
        }
    }

    /// Holds all of the pod's files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Holds the pod's `hosts` and `resolv.conf`.
    pub fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// The file to which one attempt of a container may write its termination message.
    pub fn termination_message(&self, container: &str, attempt: u32) -> PathBuf {
        self.root
            .join("termination-messages")
            .join(format!("{container}-{attempt}"))
    }

    /// Makes that file anew: any user of the container may write it.
    pub fn make_termination_message(&self, container: &str, attempt: u32) -> io::Result<()> {
        let path = self.termination_message(container, attempt);
        let (above, name) = (path.parent(), path.file_name().unwrap_or_default());
        let above = above.unwrap_or(&self.root);
        make_dir(above, 0o755)?;
        let above = Dir::open(above)?;
        above.remove(name)?;
        above.create(name, 0o666).map(drop)
    }

    /// What is in that file, at most the first `limit` bytes.
    pub fn read_termination_message(
        &self,
        container: &str,
        attempt: u32,
        limit: usize,
    ) -> io::Result<Vec<u8>> {
        let path = self.termination_message(container, attempt);
        let above = Dir::open(path.parent().unwrap_or(&self.root))?;
        above.read(Path::new(path.file_name().unwrap_or_default()), limit)
    }

    /// Writes what every container of the pod sees under `/etc`.
    pub fn write_etc(&self, pod: &Pod, facts: &Facts, dns: &Dns) -> io::Result<()> {
        make_dir(&self.etc(), 0o755)?;
        let node = NodeFiles {
            resolv_conf: node_resolv_conf(),
            hosts: fs::read_to_string("/etc/hosts").unwrap_or_default(),
        };
        // Every user of the containers reads them.
        let write = |name: &str, text: String| {
            files::overwrite(&self.etc().join(name), text.as_bytes(), files::PUBLIC)
        };
        write("hosts", etc::hosts(pod, facts, dns, &node))?;
        write("resolv.conf", etc::resolv_conf(pod, facts, dns, &node))
    }

    /// Makes the pod's volumes; gives where each lies.
    pub fn make_volumes(
        &self,
        pod: &Pod,
        sources: &Sources,
        facts: &Facts,
    ) -> Result<BTreeMap<String, Made>, SpecError> {
        let mut made = BTreeMap::new();
        for volume in volumes_of(pod) {
            let one = self.make_volume(pod, volume, sources, facts);
            let one = one.map_err(unmounted(&volume.name))?;
            made.insert(volume.name.clone(), one);
        }
        Ok(made)
    }

    /// Writes those of the pod's volumes anew that the agent writes. Each is written as far as the
    /// others allow; the first error is given.
    pub fn update_volumes(
        &self,
        pod: &Pod,
        sources: &Sources,
        facts: &Facts,
    ) -> Result<(), SpecError> {
        let written = volumes_of(pod).filter(|volume| written::is_written(volume));
        let outcomes: Vec<_> = written
            .map(|volume| {
                let written = self.write_volume(pod, volume, sources, facts);
                written.map(drop).map_err(unmounted(&volume.name))
            })
            .collect();
        outcomes.into_iter().collect()
    }

    /// The pods that have a directory here.
    pub fn all(data_dir: &Path) -> io::Result<Vec<String>> {
        let names = match Dir::open(&data_dir.join(PODS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            found => found?.names()?,
        };
        let text = |name: OsString| name.into_string().ok();
        Ok(names.into_iter().filter_map(text).collect())
    }

    /// Removes the files of all pods, with what is mounted among them; gives how many pods had any. No agent
    /// and no container of theirs may run.
    pub fn remove_all(data_dir: &Path) -> io::Result<usize> {
        let pods = PodDir::all(data_dir)?.len();
        csi::detach_all(data_dir)?;
        remove_with_mounts(&data_dir.join(PODS))?;
        ImageTrees::new(data_dir).remove_all()?;
        Images::new(data_dir).unmount_all()?;
        Ok(pods)
    }

    /// Removes the volumes of a pod that has ended; its termination messages and its claims' volumes stay.
    pub fn remove_volumes(&self) -> io::Result<()> {
        mounts::detach_below(&self.root)?;
        self.images.release(self.uid())?;
        self.trees.release(self.uid())?;
        let root = match Dir::open(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            root => root?,
        };
        for name in [MADE, sub_path::PLACES, MEMORY, VOLUMES] {
            root.remove(name.as_ref())?;
        }
        Ok(())
    }

    /// Removes everything of the pod; an absent directory is a success. What containers mounted inside is
    /// detached first, and what stays mounted is not touched.
    pub fn remove(&self) -> io::Result<()> {
        mounts::detach_below(&self.root)?;
        self.images.release(self.uid())?;
        self.trees.release(self.uid())?;
        remove_with_mounts(&self.root)
    }

    fn uid(&self) -> &str {
        let name = self.root.file_name().and_then(|name| name.to_str());
        name.unwrap_or_default()
    }

    fn make_volume(
        &self,
        pod: &Pod,
        volume: &Volume,
        sources: &Sources,
        facts: &Facts,
    ) -> Result<Made, SpecError> {
        if !is_label(&volume.name) {
            let message = format!("{:?} is not a name of a volume", volume.name);
            return Err(failed_mount(message));
        }
        if let Some(found) = claimed::find(volume, sources, &facts.node_name)? {
            claimed::check_use(pod, &volume.name, found.is_block())?;
            return self.make_backing(pod, &volume.name, found);
        }
        claimed::check_use(pod, &volume.name, false)?;
        let (path, origin) = match &volume.empty_dir {
            _ if volume.image.is_some() => {
                let laid = sources.images.get(&volume.name).cloned();
                let laid = laid.ok_or_else(|| failed_mount("its image was not pulled".to_owned()));
                (laid?, Origin::Image)
            }
            Some(wanted) => {
                let path = self.make_empty_dir(pod, &volume.name, wanted, facts);
                (path.map_err(io_failed)?, Origin::Shared)
            }
            None => {
                let path = self.write_volume(pod, volume, sources, facts)?;
                (path, Origin::Written)
            }
        };
        Ok(Made {
            path,
            origin,
            read_only: origin == Origin::Image,
        })
    }

    /// Mounts what is not the pod's own.
    fn make_backing(&self, pod: &Pod, name: &str, found: Found) -> Result<Made, SpecError> {
        let (path, origin) = match &found.backing {
            Backing::HostPath(wanted) => (host_path::find_or_make(wanted)?, Origin::Host),
            Backing::Directory(path) => {
                if !path.is_dir() {
                    let why = format!("path {:?} is not a directory of this node", path.display());
                    return Err(failed_mount(why));
                }
                (path.clone(), Origin::Shared)
            }
            Backing::Device(path) => {
                let real = fs::canonicalize(path).map_err(io_failed)?;
                let kind = fs::metadata(&real).map_err(io_failed)?.file_type();
                if !kind.is_block_device() {
                    let why = format!("path {:?} is not a block device", path.display());
                    return Err(failed_mount(why));
                }
                (real, Origin::Device)
            }
            Backing::Image(wanted) => {
                let path = self.images.take(wanted, self.uid()).map_err(io_failed)?;
                let origin = match wanted.is_block {
                    true => Origin::Device,
                    false => Origin::Shared,
                };
                (path, origin)
            }
            Backing::Driver(mounted) if mounted.is_block => (mounted.path.clone(), Origin::Device),
            Backing::Driver(mounted) => {
                if mounted.is_given {
                    self.give_to_group(pod, name, &mounted.path)?;
                }
                (mounted.path.clone(), Origin::Shared)
            }
            Backing::Nfs(export) => {
                let path = self.volumes().join(name);
                make_dir(&path, 0o755).map_err(io_failed)?;
                if !is_mounted(&path).map_err(io_failed)? {
                    nfs::mount_at(export, &path).map_err(io_failed)?;
                }
                (path, Origin::Shared)
            }
        };
        let owned = matches!(found.backing, Backing::Directory(_) | Backing::Image(_));
        if owned && !found.read_only && origin != Origin::Device {
            self.give_to_group(pod, name, &path)?;
        }
        Ok(Made {
            path,
            origin,
            read_only: found.read_only,
        })
    }

    /// Gives a volume's files to the pod's group, once for the pod.
    fn give_to_group(&self, pod: &Pod, name: &str, path: &Path) -> Result<(), SpecError> {
        let Some(group) = fs_group(pod)? else {
            return Ok(());
        };
        let marks = self.root.join(MADE);
        let given = marks.join(name);
        if given.exists() {
            return Ok(());
        }
        let give = || -> io::Result<()> {
            let root = Dir::open(path)?;
            if !(on_root_mismatch(pod) && ownership::is_given(&root, group)?) {
                ownership::give(&root, group)?;
            }
            make_dir(&marks, 0o755)?;
            fs::File::create(&given).map(drop)
        };
        give().map_err(|error| failed_mount(format!("applyFSGroup failed for vol {name}: {error}")))
    }

    /// Where volumes lie that may be on a disk.
    fn volumes(&self) -> PathBuf {
        self.root.join(VOLUMES)
    }
}

/// Whether the agent writes a volume of the pod.
pub fn writes_any(pod: &Pod) -> bool {
    volumes_of(pod).any(written::is_written)
}

fn volumes_of(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.into_iter().flatten()
}

/// The group that a pod's volumes belong to.
fn fs_group(pod: &Pod) -> Result<Option<u32>, SpecError> {
    let context = pod
        .spec
        .as_ref()
        .and_then(|it| it.security_context.as_ref());
    let group = context.and_then(|context| context.fs_group);
    let number = group.map(u32::try_from).transpose();
    number.map_err(|_| failed_mount(format!("invalid fsGroup {}", group.unwrap_or_default())))
}

/// Whether a volume whose root has the group is taken to have it everywhere (KEP-695).
fn on_root_mismatch(pod: &Pod) -> bool {
    let context = pod
        .spec
        .as_ref()
        .and_then(|it| it.security_context.as_ref());
    let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
    policy == Some("OnRootMismatch")
}

/// A DNS label, as validation wants it: it is one name of a path.
fn is_label(name: &str) -> bool {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !name.is_empty() && name.len() <= 63 && name.bytes().all(fits)
}

fn remove_with_mounts(path: &Path) -> io::Result<()> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    mounts::detach_below(path)?;
    match Dir::open(above) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        above => above?.remove(name),
    }
}

/// Whether something is mounted at a directory of the agent's.
fn is_mounted(path: &Path) -> io::Result<bool> {
    let above = path.parent().unwrap_or(path);
    Ok(fs::metadata(path)?.dev() != fs::metadata(above)?.dev())
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    files::create_dir(path, mode)
}

fn failed_mount(message: String) -> SpecError {
    SpecError {
        reason: "FailedMount",
        message,
    }
}

fn io_failed(error: io::Error) -> SpecError {
    failed_mount(error.to_string())
}

/// The error that a kubelet gives for it.
fn unmounted(volume: &str) -> impl FnOnce(SpecError) -> SpecError {
    let volume = volume.to_owned();
    move |error| {
        failed_mount(format!(
            "MountVolume.SetUp failed for volume {volume:?} : {error}"
        ))
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> SpecError {
    let what = what.to_owned();
    move |e| SpecError {
        reason: "FailedMount",
        message: format!("volume {what:?}: {e}"),
    }
}
