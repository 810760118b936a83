//! What is on this node for drivers: where their directories are, and what the agent notes of each volume before it
//! asks for it, so that the next agent can undo it.
//!
//! ```text
//! <kubelet>/plugins_registry/*.sock                            drivers register here
//! <kubelet>/plugins/kubernetes.io/csi/<driver>/<hash>/globalmount      staged
//! <kubelet>/plugins/kubernetes.io/csi/volumeDevices/…          devices: staged and published
//! <kubelet>/pods/<uid>/volumes/kubernetes.io~csi/<name>/mount  published
//! <data>/pods/<uid>/csi/<volume>                               the note
//! ```
//!
//! The directories below `<kubelet>` are a kubelet's, `/var/lib/kubelet` unless the agent is told another one:
//! they are written in the manifests of all drivers, and some drivers read the pod's uid out of the path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::{PODS, make_dir};
use super::wish::Wish;
use sys::beneath::Dir;
use sys::files;

/// Below a pod's directory.
const NOTES: &str = "csi";
/// The longest note that is read, in bytes.
const NOTE_LIMIT: usize = 64 << 10;
/// The directories that are one pod's: `<uid>/volumes/kubernetes.io~csi/<name>/mount`; of others, `<hash>/globalmount`.
const POD_LEVELS: usize = 5;
const SHARED_LEVELS: usize = 2;
/// Of directories that only root and drivers enter.
const MODE: u32 = 0o750;

/// The two roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    pub kubelet: PathBuf,
    pub data: PathBuf,
}

/// What was asked of a driver for one volume of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    pub uid: String,
    pub volume: String,
    pub driver: String,
    pub handle: String,
    pub target: PathBuf,
    /// Where it is staged, if the driver stages.
    pub staging: Option<PathBuf>,
    /// The machine's boot in which the driver was first asked for it; empty before.
    #[serde(default)]
    pub begun: String,
    /// The machine's boot in which it was published; empty while it is not.
    pub boot: String,
    /// The volume must be attached: its name in the node's status.
    pub attached: Option<String>,
}

impl Note {
    /// Whether the driver may have something of it mounted: mounts do not outlive the machine's boot.
    pub fn is_begun(&self, boot: &str) -> bool {
        self.begun == boot || self.boot == boot
    }
}

impl Places {
    pub fn registry(&self) -> PathBuf {
        self.kubelet.join("plugins_registry")
    }

    fn plugins(&self) -> PathBuf {
        self.kubelet.join("plugins")
    }

    /// Makes the directories that drivers expect.
    pub fn make(&self) -> io::Result<()> {
        make_dir(&self.registry(), MODE)?;
        make_dir(&self.plugins(), MODE)?;
        make_dir(&self.kubelet.join("pods"), MODE)
    }

    /// Where a volume is staged, once for all pods.
    pub fn staging(&self, wish: &Wish) -> PathBuf {
        let csi = self.plugins().join("kubernetes.io/csi");
        if wish.is_block {
            return csi.join("volumeDevices/staging").join(&wish.name);
        }
        let hash = hex::encode(Sha256::digest(&wish.handle));
        csi.join(&wish.driver).join(hash).join("globalmount")
    }

    /// Where the driver publishes a volume for a pod. Its parent is the agent's, itself the driver's to make.
    pub fn target(&self, wish: &Wish, uid: &str) -> PathBuf {
        if wish.is_block {
            let devices = "kubernetes.io/csi/volumeDevices/publish";
            return self.plugins().join(devices).join(&wish.name).join(uid);
        }
        let volumes = self.kubelet.join("pods").join(uid);
        let volumes = volumes.join("volumes/kubernetes.io~csi");
        volumes.join(&wish.name).join("mount")
    }

    fn notes(&self, uid: &str) -> PathBuf {
        self.data.join(PODS).join(uid).join(NOTES)
    }

    /// Notes what is about to be asked, or has been.
    pub fn write(&self, note: &Note) -> io::Result<()> {
        let dir = self.notes(&note.uid);
        make_dir(&dir, 0o700)?;
        let text = serde_json::to_vec(note)?;
        files::write_atomic(&dir.join(&note.volume), &text, 0o600)
    }

    /// Nothing of the volume is left.
    pub fn forget(&self, note: &Note) -> io::Result<()> {
        Dir::open(&self.notes(&note.uid))?.remove(note.volume.as_ref())
    }

    /// The notes of one pod.
    pub fn of_pod(&self, uid: &str) -> io::Result<Vec<Note>> {
        let dir = match Dir::open(&self.notes(uid)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            dir => dir?,
        };
        let read = |name: std::ffi::OsString| {
            let text = dir.read(Path::new(&name), NOTE_LIMIT).ok()?;
            // A file that is being written has no name of a volume.
            serde_json::from_slice(&text).ok()
        };
        Ok(dir.names()?.into_iter().filter_map(read).collect())
    }

    /// All notes of the node.
    pub fn all(&self) -> io::Result<Vec<Note>> {
        let uids = super::super::PodDir::all(&self.data)?;
        let notes: io::Result<Vec<Vec<Note>>> = uids.iter().map(|uid| self.of_pod(uid)).collect();
        Ok(notes?.into_iter().flatten().collect())
    }

    /// Removes what is left of a target, or of a directory that was staged to, with the agent's own directories
    /// around it. All are empty once the driver has unmounted; what is not is an error, and kept.
    pub fn clear(&self, path: &Path) -> io::Result<()> {
        if !path.starts_with(&self.kubelet) {
            return Ok(());
        }
        let of_pod = path.starts_with(self.kubelet.join("pods"));
        let levels = if of_pod { POD_LEVELS } else { SHARED_LEVELS };
        for (level, path) in path.ancestors().take(levels).enumerate() {
            let removed = match fs::symlink_metadata(path) {
                Ok(found) if found.is_dir() => fs::remove_dir(path),
                Ok(_) => fs::remove_file(path),
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // There are other volumes.
                Err(error) if level > 0 && error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    return Ok(());
                }
                removed => removed?,
            }
        }
        Ok(())
    }
}

/// What tells one boot of the machine from the next: mounts do not outlive it.
pub fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
