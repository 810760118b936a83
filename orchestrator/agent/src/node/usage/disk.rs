//! What pods take of the node's disk: their files, the writable layers of their containers and their logs. Measured
//! one pod at a time, with pauses, since it is work for the disk; a pod over its limit is evicted.

mod volumes;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container as Template, Pod};

use super::Filesystem;
use crate::node::running::{Eviction, Running, RunningContainer, RunningPod};
use crate::pod::quantity;
use crate::volumes::PodDir;
use sys::Shutdown;
use sys::beneath::Dir;

/// From one round of measuring to the next, at least.
const INTERVAL: Duration = Duration::from_secs(10);
/// How much longer than the measuring of a pod the pause after it is.
const PAUSE_FACTOR: u32 = 9;
/// A measure counts no more entries than this. What has more is more than it may be.
const ENTRIES: u64 = 1_000_000;

/// The newest measures, by uid. Clones share them.
#[derive(Clone, Default)]
pub struct Disks(Arc<Mutex<BTreeMap<String, PodDisk>>>);

/// What a pod takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDisk {
    /// Its directory: volumes that are no mounts, and what the agent writes for it.
    pub volumes: Taken,
    /// By container name.
    pub containers: BTreeMap<String, ContainerDisk>,
    /// By volume name.
    pub by_volume: BTreeMap<String, VolumeDisk>,
}

/// What a volume holds, and the filesystem that it is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeDisk {
    pub used_bytes: u64,
    pub inodes_used: u64,
    pub filesystem: Filesystem,
}

/// What a container takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerDisk {
    pub layer: Taken,
    pub log_bytes: u64,
}

/// Bytes and entries on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub bytes: u64,
    pub inodes: u64,
    /// There is more than is counted.
    pub is_partial: bool,
}

impl Disks {
    pub fn of(&self, uid: &str) -> Option<PodDisk> {
        self.all(|all| all.get(uid).cloned())
    }

    fn all<T>(&self, with: impl FnOnce(&mut BTreeMap<String, PodDisk>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ContainerDisk {
    pub fn bytes(&self) -> u64 {
        self.layer.bytes.saturating_add(self.log_bytes)
    }
}

impl PodDisk {
    pub fn bytes(&self) -> u64 {
        let containers = self.containers.values().map(ContainerDisk::bytes);
        containers.fold(self.volumes.bytes, u64::saturating_add)
    }

    pub fn inodes(&self) -> u64 {
        let layers = self.containers.values().map(|it| it.layer.inodes);
        layers.fold(self.volumes.inodes, u64::saturating_add)
    }

    fn is_partial(&self) -> bool {
        let mut layers = self.containers.values().map(|it| it.layer);
        self.volumes.is_partial || layers.any(|layer| layer.is_partial)
    }
}

/// Measures all pods again and again until shutdown.
pub async fn run(running: Arc<Running>, disks: Disks, data_dir: PathBuf, shutdown: Shutdown) {
    loop {
        let round = tokio::time::Instant::now();
        let pods = running.pods();
        disks.all(|all| all.retain(|uid, _| pods.contains_key(uid)));
        for (uid, pod) in pods {
            if pod.containers.is_empty() {
                continue;
            }
            let dir = PodDir::new(&data_dir, &uid);
            let measured = pod.clone();
            let work = move || {
                let started = Instant::now();
                (measure(dir.root(), &measured), started.elapsed())
            };
            let Ok((disk, took)) = tokio::task::spawn_blocking(work).await else {
                continue;
            };
            if let Some(message) = over_limit(&pod.pod, &disk) {
                running.evict(&uid, Eviction::over_limit(message));
            }
            disks.all(|all| all.insert(uid, disk));
            let pause = tokio::time::sleep(took * PAUSE_FACTOR);
            if shutdown.unless(pause).await.is_none() {
                return;
            }
        }
        let pause = tokio::time::sleep_until(round + INTERVAL);
        if shutdown.unless(pause).await.is_none() {
            return;
        }
    }
}

fn measure(root: &Path, pod: &RunningPod) -> PodDisk {
    let container = |it: &RunningContainer| (it.name.clone(), ContainerDisk::of(it));
    PodDisk {
        volumes: Taken::below(root),
        containers: pod.containers.iter().map(container).collect(),
        by_volume: volumes::measure(root, pod),
    }
}

impl Taken {
    /// What cannot be measured takes nothing.
    fn below(path: &Path) -> Self {
        let usage = Dir::open(path).and_then(|dir| dir.usage(ENTRIES));
        usage.map_or_else(
            |_| Self::default(),
            |usage| Self {
                bytes: usage.bytes,
                inodes: usage.entries,
                is_partial: !usage.complete,
            },
        )
    }
}

impl ContainerDisk {
    fn of(container: &RunningContainer) -> Self {
        let mounts = std::fs::read(format!("/proc/{}/mountinfo", container.pid));
        let upper = mounts.ok().and_then(|mounts| upper_dir(&mounts));
        let Some(upper) = upper else {
            return Self::default();
        };
        Self {
            layer: Taken::below(&upper),
            log_bytes: log_bytes(&upper, &container.id),
        }
    }
}

/// The size of a container's logs, as the Engine keeps them beside its layers.
fn log_bytes(upper: &Path, id: &str) -> u64 {
    let data = upper.ancestors().find(|path| path.ends_with("overlay2"));
    let Some(data) = data.and_then(Path::parent) else {
        return 0;
    };
    let entries = std::fs::read_dir(data.join("containers").join(id));
    let entries = entries.into_iter().flatten().flatten();
    let logs = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().contains("-json.log")
    });
    let sizes = logs.filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512));
    sizes.fold(0, u64::saturating_add)
}

/// Where the root of a container is written to: the `upperdir` of its overlay (proc_pid_mountinfo(5)).
fn upper_dir(mountinfo: &[u8]) -> Option<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let root = lines
        .filter(|line| line.split(|byte| *byte == b' ').nth(4) == Some(b"/"))
        .last()?;
    let words: Vec<&[u8]> = root.split(|byte| *byte == b' ').collect();
    let dash = words.iter().position(|word| *word == b"-")?;
    if *words.get(dash + 1)? != b"overlay" {
        return None;
    }
    let options = words.get(dash + 3)?.split(|byte| *byte == b',');
    let upper = options
        .filter_map(|option| option.strip_prefix(b"upperdir="))
        .next()?;
    Some(PathBuf::from(OsString::from_vec(unescaped(upper))))
}

/// The kernel writes blanks and the like as `\040`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|_| *first == b'\\');
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &more[3..];
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out
}

/// Why a pod has to leave for what it takes, in a kubelet's words.
fn over_limit(pod: &Pod, disk: &PodDisk) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let limits = || spec.containers.iter().filter_map(limit);
    let all: u64 = limits()
        .map(|(_, bytes, _)| bytes)
        .fold(0, u64::saturating_add);
    if limits().next().is_some() && (disk.bytes() > all || disk.is_partial()) {
        let text = match limits().collect::<Vec<_>>().as_slice() {
            [(_, _, one)] => one.clone(),
            _ => api::quantity::Quantity::from_units(i64::try_from(all).unwrap_or(i64::MAX))
                .to_string(),
        };
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {text}. "
        ));
    }
    limits().find_map(|(name, bytes, text)| {
        let taken = disk.containers.get(&name)?.bytes();
        (taken > bytes).then(|| {
            format!("Container {name} exceeded its local ephemeral storage limit {text:?}. ")
        })
    })
}

/// Name, bytes and text of a container's limit.
fn limit(template: &Template) -> Option<(String, u64, String)> {
    let limits = template.resources.as_ref()?.limits.as_ref()?;
    let text = limits.get("ephemeral-storage")?;
    let bytes = u64::try_from(quantity::milli(text)? / 1000).ok()?;
    Some((template.name.clone(), bytes, text.0.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(limits: &[Option<&str>]) -> Pod {
        let containers = limits.iter().enumerate().map(|(number, limit)| {
            let mut container = json!({"name": format!("c{number}")});
            if let Some(limit) = limit {
                container["resources"]["limits"]["ephemeral-storage"] = (*limit).into();
            }
            container
        });
        let pod = json!({"spec": {"containers": containers.collect::<Vec<_>>()}});
        serde_json::from_value(pod).expect("a pod")
    }

    /// Volumes, and by container what its layer and its log take.
    fn disk(volumes: u64, containers: &[(u64, u64)]) -> PodDisk {
        let taken = |bytes: u64| Taken {
            bytes,
            ..Taken::default()
        };
        let containers = containers.iter().enumerate().map(|(number, (layer, log))| {
            let disk = ContainerDisk {
                layer: taken(*layer),
                log_bytes: *log,
            };
            (format!("c{number}"), disk)
        });
        PodDisk {
            volumes: taken(volumes),
            containers: containers.collect(),
            by_volume: BTreeMap::new(),
        }
    }

    #[test]
    fn a_pod_over_its_limit_leaves_and_one_without_a_limit_stays() {
        let cases = [
            (pod(&[None]), disk(1 << 40, &[(1, 1)]), None),
            (pod(&[Some("1Ki")]), disk(512, &[(256, 256)]), None),
            (
                pod(&[Some("1Ki")]),
                disk(512, &[(256, 257)]),
                Some(
                    "Pod ephemeral local storage usage exceeds the total limit of containers 1Ki. ",
                ),
            ),
            (
                pod(&[Some("1Ki"), Some("3Ki")]),
                disk(0, &[(1025, 0), (0, 0)]),
                Some("Container c0 exceeded its local ephemeral storage limit \"1Ki\". "),
            ),
        ];
        for (pod, disk, why) in cases {
            assert_eq!(over_limit(&pod, &disk).as_deref(), why, "{disk:?}");
        }
        let mut endless = disk(0, &[(0, 0)]);
        endless.volumes.is_partial = true;
        assert!(
            over_limit(&pod(&[Some("1Ki")]), &endless).is_some(),
            "nobody can count it"
        );
    }

    #[test]
    fn the_writable_layer_is_found_in_the_mounts_of_a_process() {
        let mounts = b"22 1 0:5 / /proc rw - proc proc rw\n\
            20 1 0:40 / / rw,relatime - overlay overlay \
            rw,lowerdir=/var/a:/b,upperdir=/var/lib/my\\040docker/overlay2/x/diff,workdir=/w\n";
        let upper = upper_dir(mounts).expect("found");
        assert_eq!(upper, Path::new("/var/lib/my docker/overlay2/x/diff"));
        assert_eq!(upper_dir(b"20 1 0:40 / / rw - ext4 /dev/vda rw\n"), None);
        assert_eq!(upper_dir(b""), None);
        assert_eq!(unescaped(b"a\\04"), b"a\\04");
    }

    #[test]
    fn logs_lie_beside_the_layers() {
        let data = tempfile::tempdir().expect("a directory");
        let container = data.path().join("containers/abc");
        let upper = data.path().join("overlay2/x/diff");
        std::fs::create_dir_all(&container).expect("made");
        std::fs::create_dir_all(&upper).expect("made");
        for (name, bytes) in [
            ("abc-json.log", 5000),
            ("abc-json.log.1", 5000),
            ("config.json", 9000),
        ] {
            std::fs::write(container.join(name), vec![b'x'; bytes]).expect("written");
        }
        let bytes = log_bytes(&upper, "abc");
        assert!((10_000..=20_000).contains(&bytes), "{bytes}");
        assert_eq!(log_bytes(Path::new("/elsewhere"), "abc"), 0);
    }
}
