//! Where in a container a volume may be mounted. Pure.
//!
//! The Engine puts `/proc`, `/sys` and `/dev` into a container first, then the volumes, and hides the
//! masked paths (`agent/defaults`) last, with `/dev/null` of the container. A volume over one of these
//! would have them hidden somewhere else, or by a link that its pod has written (CVE-2025-31133).
//!
//! Paths are judged as they are written. Links in other volumes of the pod are looked at when the container
//! is made (`volumes::nested`). Those in its image are runc's: it resolves the place inside the container's
//! root, refuses it in `/proc`, and hides paths only with what it has found to be the null device, since
//! 1.2.8 and 1.3.3.

use serde_json::Value;

use super::Walk;
use super::checks::{Finding, text, unsupported};
use crate::container_spec::in_container;

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

fn judge(target: &str, cover: Cover) -> Finding {
    let fits = |&&(path, reach, _): &&(&str, Reach, _)| match reach {
        Only => target == path,
        Tree => target
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    };
    match ROWS.iter().find(fits) {
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
