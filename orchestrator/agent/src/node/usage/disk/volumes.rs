//! What each volume of a pod holds. A pod's own volumes are counted; of a claim's the filesystem is asked, by the
//! node's own mount of it: no path that a container could change is followed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container as Template, Volume};

use super::{Taken, VolumeDisk, unescaped};
use crate::node::running::RunningPod;
use crate::node::usage::Filesystem;
use crate::volumes::{MEMORY, VOLUMES};

/// Filesystems that answer at once. What is on the network may never answer, and would stop all measuring.
const LOCAL: [&[u8]; 5] = [b"ext4", b"xfs", b"btrfs", b"tmpfs", b"overlay"];

/// A line of proc_pid_mountinfo(5).
struct Mount<'a> {
    /// Major and minor number.
    device: &'a [u8],
    point: Vec<u8>,
    kind: &'a [u8],
}

/// By volume name; what could not be measured is not there.
pub fn measure(root: &Path, pod: &RunningPod) -> BTreeMap<String, VolumeDisk> {
    let spec = pod.pod.spec.as_ref();
    let volumes = spec.and_then(|spec| spec.volumes.as_ref());
    let mut found = BTreeMap::new();
    for volume in volumes.into_iter().flatten() {
        let disk = match is_claim(volume) {
            true => of_claim(&volume.name, pod),
            false => {
                own_place(volume).and_then(|place| of_own(&root.join(place).join(&volume.name)))
            }
        };
        found.extend(disk.map(|disk| (volume.name.clone(), disk)));
    }
    found
}

fn is_claim(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
}

/// Below which of the pod's directories a volume of its own is.
fn own_place(volume: &Volume) -> Option<&'static str> {
    let is_in_memory =
        volume.secret.is_some() || volume.downward_api.is_some() || volume.projected.is_some();
    let is_on_disk = volume.empty_dir.is_some() || volume.config_map.is_some();
    match (is_in_memory, is_on_disk) {
        (true, _) => Some(MEMORY),
        (false, true) => Some(VOLUMES),
        (false, false) => None,
    }
}

fn of_own(path: &Path) -> Option<VolumeDisk> {
    let filesystem = Filesystem::at(path)?;
    let taken = Taken::below(path);
    Some(VolumeDisk {
        used_bytes: taken.bytes,
        inodes_used: taken.inodes,
        filesystem,
    })
}

fn of_claim(name: &str, pod: &RunningPod) -> Option<VolumeDisk> {
    let spec = pod.pod.spec.as_ref()?;
    let target = |template: &Template| {
        let mut mounts = template.volume_mounts.iter().flatten();
        let mount = mounts.find(|mount| mount.name == name)?;
        Some((template.name.clone(), mount.mount_path.clone()))
    };
    let own = std::fs::read("/proc/self/mountinfo").ok()?;
    let mut targets = spec.containers.iter().filter_map(target);
    let path = targets.find_map(|(container, target)| {
        let running = pod.containers.iter().find(|it| it.name == container)?;
        let mounts = std::fs::read(format!("/proc/{}/mountinfo", running.pid)).ok()?;
        same_filesystem(&mounts, target.trim_end_matches('/'), &own)
    })?;
    let filesystem = Filesystem::at(&path)?;
    Some(VolumeDisk {
        used_bytes: filesystem.used_bytes(),
        inodes_used: filesystem.inodes.saturating_sub(filesystem.inodes_free),
        filesystem,
    })
}

/// Where the node itself has the filesystem that a container has at `target`.
fn same_filesystem(container: &[u8], target: &str, own: &[u8]) -> Option<PathBuf> {
    let of_container = lines(container).filter(|mount| mount.point == target.as_bytes());
    let device = of_container.last()?.device;
    let mut own = lines(own).filter(|mount| mount.device == device);
    let found = own.find(|mount| LOCAL.contains(&mount.kind))?;
    Some(PathBuf::from(OsString::from_vec(found.point)))
}

fn lines(mountinfo: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    lines.filter_map(|line| {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = words.iter().position(|word| *word == b"-")?;
        Some(Mount {
            device: words.get(2)?,
            point: unescaped(words.get(4)?),
            kind: words.get(dash + 1)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_asked_for_where_the_node_has_its_filesystem_and_never_over_the_network() {
        let container = b"1 2 0:50 / / rw - overlay overlay rw\n\
            3 1 7:3 /data /var/lib/db rw - ext4 /dev/loop3 rw\n\
            4 1 0:60 / /net rw - nfs4 server:/x rw\n";
        let own = b"20 1 7:3 / /srv/my\\040volume rw - ext4 /dev/loop3 rw\n\
            21 1 0:60 / /mnt/net rw - nfs4 server:/x rw\n";
        let at = |target: &str| same_filesystem(container, target, own);
        assert_eq!(at("/var/lib/db"), Some(PathBuf::from("/srv/my volume")));
        assert_eq!(at("/net"), None);
        assert_eq!(at("/elsewhere"), None);
    }

    #[test]
    fn the_volumes_of_a_pod_are_counted_one_by_one() {
        let data = tempfile::tempdir().expect("a directory");
        let root = data.path().join("pods/u1");
        let cache = root.join("volumes/cache");
        std::fs::create_dir_all(&cache).expect("made");
        std::fs::write(cache.join("file"), vec![1; 100_000]).expect("written");
        let pod = json!({"spec": {"containers": [], "volumes": [
            {"name": "cache", "emptyDir": {}},
            {"name": "node", "hostPath": {"path": "/"}},
            {"name": "absent", "configMap": {"name": "c"}},
        ]}});
        let pod = RunningPod {
            pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
            network: None,
            containers: Vec::new(),
        };
        let found = measure(&root, &pod);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["cache"]);
        let cache = found["cache"];
        assert!((100_000..200_000).contains(&cache.used_bytes), "{cache:?}");
        assert!(cache.inodes_used == 1 && cache.filesystem.capacity_bytes > 0);
    }
}
