//! Where in a container a volume may be mounted. Pure.
//!
//! The Engine puts `/proc`, `/sys` and `/dev` into a container first, then the volumes, and hides the
//! masked paths (`agent/defaults`) last, with `/dev/null` of the container. A volume over one of these
//! would have them hidden somewhere else, or by a link that its pod has written (CVE-2025-31133).
//!
//! Paths are judged as they are written, and once more where links of the image lead them (`image_root`). No
//! link of a volume leads a mount anywhere (`volumes::nested`).

use serde_json::Value;

use super::Walk;
use super::checks::{Finding, text, unsupported};
use crate::runtime::container_spec::in_container;

/// What a path of a container is to be covered with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cover {
    /// A path of the node, which is the node's own path of the same name.
    SamePath,
    /// Another path of the node.
    HostPath,
    /// A volume that belongs to the pod.
    Volume,
}

/// How much of the tree a row is about.
#[derive(Clone, Copy)]
enum Reach {
    Only,
    /// And everything below.
    Tree,
}

use Cover::{HostPath, SamePath, Volume};
use Reach::{Only, Tree};

/// The first row that fits decides: the path may be covered with that and what is listed before it in
/// [`Cover`], or with nothing. Paths without a row may be covered with anything: `/dev/shm`,
/// `/dev/termination-log`, `/dev/net/tun`.
const ROWS: &[(&str, Reach, Option<Cover>)] = &[
    // The Engine refuses it as well.
    ("/", Only, None),
    // What runc lets through, for lxcfs.
    ("/proc/cpuinfo", Only, Some(HostPath)),
    ("/proc/diskstats", Only, Some(HostPath)),
    ("/proc/loadavg", Only, Some(HostPath)),
    ("/proc/meminfo", Only, Some(HostPath)),
    ("/proc/slabinfo", Only, Some(HostPath)),
    ("/proc/stat", Only, Some(HostPath)),
    ("/proc/swaps", Only, Some(HostPath)),
    ("/proc/uptime", Only, Some(HostPath)),
    ("/proc", Tree, None),
    // Agents of monitoring and networks mount the node's own: `/sys`, `/sys/fs/bpf`, `/sys/fs/cgroup`.
    ("/sys", Tree, Some(SamePath)),
    ("/dev", Only, Some(SamePath)),
    // What the Engine makes or uses itself.
    ("/dev/console", Tree, Some(SamePath)),
    ("/dev/core", Tree, Some(SamePath)),
    ("/dev/fd", Tree, Some(SamePath)),
    ("/dev/full", Tree, Some(SamePath)),
    ("/dev/null", Tree, Some(SamePath)),
    ("/dev/ptmx", Tree, Some(SamePath)),
    ("/dev/pts", Tree, Some(SamePath)),
    ("/dev/random", Tree, Some(SamePath)),
    ("/dev/stderr", Tree, Some(SamePath)),
    ("/dev/stdin", Tree, Some(SamePath)),
    ("/dev/stdout", Tree, Some(SamePath)),
    ("/dev/tty", Tree, Some(SamePath)),
    ("/dev/urandom", Tree, Some(SamePath)),
    ("/dev/zero", Tree, Some(SamePath)),
];

/// Where no process of a container starts.
const NO_WORKING_DIRS: &[(&str, Reach)] = &[("/proc", Tree)];

/// `mountPath` of a container's mount.
pub fn mount_path(mount: &Value, walk: &Walk) -> Finding {
    let target = in_container(text(&mount["mountPath"]));
    let node_path = walk.host_paths.get(text(&mount["name"]));
    let cover = match node_path {
        None => Volume,
        // What an expression leads to is not known yet.
        Some(_) if !text(&mount["subPathExpr"]).is_empty() => HostPath,
        Some(path) => {
            let source = in_container(&format!("{path}/{}", text(&mount["subPath"])));
            if source == target { SamePath } else { HostPath }
        }
    };
    judge(&target, cover)
}

/// `terminationMessagePath`: the agent mounts a file there, which the container writes.
pub fn message_path(path: &Value, _: &Walk) -> Finding {
    match text(path) {
        "" => Finding::Fine,
        path => judge(&in_container(path), Volume),
    }
}

/// `workingDir`: what is open in runc while it starts a container lies below `/proc` (CVE-2024-21626).
pub fn working_dir(path: &Value, _: &Walk) -> Finding {
    match works_in(&in_container(text(path))) {
        true => Finding::Fine,
        false => unsupported(&format!(
            "no process starts in {}",
            in_container(text(path))
        )),
    }
}

/// Whether a process may start there.
pub fn works_in(place: &str) -> bool {
    !NO_WORKING_DIRS
        .iter()
        .any(|(path, reach)| fits(place, path, *reach))
}

/// Why a volume cannot be mounted at a place that links of an image lead it to. `node_path` is the path of
/// the node that is mounted, if it is one.
pub fn led_to(place: &str, node_path: Option<&str>) -> Option<String> {
    let cover = match node_path {
        None => Volume,
        Some(path) if path == place => SamePath,
        Some(_) => HostPath,
    };
    match judge(place, cover) {
        Finding::Refused { why, .. } => Some(why),
        Finding::Fine | Finding::Unmet(_) => None,
    }
}

fn fits(target: &str, path: &str, reach: Reach) -> bool {
    match reach {
        Only => target == path,
        Tree => target
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

fn judge(target: &str, cover: Cover) -> Finding {
    match ROWS
        .iter()
        .find(|(path, reach, _)| fits(target, path, *reach))
    {
        None => Finding::Fine,
        Some((_, _, most)) if Some(cover) <= *most => Finding::Fine,
        Some((_, _, None)) => unsupported(&format!("nothing can be mounted at {target}")),
        Some((_, _, Some(HostPath | Volume))) => {
            unsupported(&format!("only a hostPath can be mounted at {target}"))
        }
        Some((_, _, Some(SamePath))) => unsupported(&format!(
            "only the hostPath {target} can be mounted at {target}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(target: &str, cover: Cover) -> bool {
        judge(target, cover) == Finding::Fine
    }

    #[test]
    fn every_row_is_reached_and_takes_what_it_says_and_no_more() {
        for (path, reach, most) in ROWS {
            for cover in [SamePath, HostPath, Volume] {
                let expected = Some(cover) <= *most;
                assert_eq!(taken(path, cover), expected, "{path}");
                if matches!(reach, Tree) {
                    assert_eq!(taken(&format!("{path}/below"), cover), expected, "{path}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_row_takes_any_volume() {
        for path in [
            "/data",
            "/dev/shm",
            "/dev/termination-log",
            "/dev/net/tun",
            "/dev/nullify",
            "/PROC",
            "/process",
            "/sysroot",
            "/a/proc/sys",
        ] {
            assert!(taken(path, Volume), "{path}");
        }
    }
}
