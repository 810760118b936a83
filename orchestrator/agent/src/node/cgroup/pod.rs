//! The cgroup around a pod that has limits as a whole (`pod::whole`). The Engine makes it, as the parent of those of
//! the pod's containers; its limits are written here, before the first container of the pod starts.
//!
//! It is found as the parent of the sandbox's own cgroup, and must have the name that the Engine was told.

use std::io;
use std::path::Path;

use super::{Cgroup, Hierarchies, Place};
use crate::pod::whole::{HugePages, Whole};
use crate::runtime::Resources;

/// A file of a cgroup, what is written to it, and whether kernels may lack it.
type Line = (String, String, bool);

impl Hierarchies {
    /// Whether huge pages are limited where the Engine puts containers: in version 1, or in version 2 alone.
    pub fn limits_huge_pages(&self) -> bool {
        let controllers = |at: &Path| std::fs::read_to_string(at.join("cgroup.controllers"));
        let unified = || {
            let mount = self.unified.as_ref()?;
            let all = controllers(&mount.at).ok()?;
            Some(all.split_whitespace().any(|name| name == "hugetlb"))
        };
        self.controllers.contains_key("hugetlb")
            || (!self.controllers.contains_key("memory") && unified() == Some(true))
    }

    /// Limits the cgroup around the one of a sandbox. An error: it is not there, or has another name.
    pub fn limit_pod(&self, sandbox: u32, cgroup: &str, whole: &Whole) -> io::Result<()> {
        let text = std::fs::read_to_string(format!("/proc/{sandbox}/cgroup"))?;
        let lines = [
            ("cpu", Lines::Cpu(whole.resources)),
            ("memory", Lines::Memory(whole.resources)),
            ("hugetlb", Lines::HugePages(&whole.huge_pages)),
        ];
        for (controller, lines) in lines {
            if lines.are_none() {
                continue;
            }
            let place = self.place(&text, controller);
            let place = place
                .and_then(|place| place.around(cgroup))
                .ok_or_else(|| {
                    io::Error::other(format!(
                        "the sandbox has no {controller} cgroup in {cgroup}"
                    ))
                })?;
            place.write(&lines.of(place.is_unified))?;
        }
        Ok(())
    }

    /// Removes the cgroup of a pod whose containers are gone; one that is not there is a success.
    pub fn remove_pod(&self, cgroup: &str) -> io::Result<()> {
        for mount in self.controllers.values().chain(&self.unified) {
            let Ok(below) = Path::new(cgroup).strip_prefix(&mount.root) else {
                continue;
            };
            match std::fs::remove_dir(mount.at.join(below)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Cgroup {
    /// Limits the huge pages of a container: of a size without an amount it gets none.
    pub fn limit_huge_pages(&self, sizes: &HugePages) -> io::Result<()> {
        let place = self.huge_pages.as_ref();
        place.map_or(Ok(()), |place| {
            place.write(&Lines::HugePages(sizes).of(place.is_unified))
        })
    }
}

impl Place {
    /// The place of the cgroup of that path, if this one is right inside it.
    fn around(&self, cgroup: &str) -> Option<Place> {
        let dir = self.dir.parent()?;
        let name = Path::new(cgroup).file_name();
        (dir.file_name() == name && name.is_some()).then(|| Place {
            dir: dir.to_owned(),
            is_unified: self.is_unified,
        })
    }

    fn write(&self, lines: &[Line]) -> io::Result<()> {
        for (file, text, may_lack) in lines {
            let path = self.dir.join(file);
            if *may_lack && !path.exists() {
                continue;
            }
            std::fs::write(&path, text)?;
        }
        Ok(())
    }
}

/// What a controller is told, before it is put in the words of a version.
enum Lines<'a> {
    Cpu(Resources),
    Memory(Resources),
    HugePages(&'a HugePages),
}

impl Lines<'_> {
    /// What is not limited is left as the kernel made it: a cgroup is limited only once.
    fn are_none(&self) -> bool {
        match self {
            Lines::Cpu(_) => false,
            Lines::Memory(own) => own.memory_bytes == 0,
            Lines::HugePages(sizes) => sizes.is_empty(),
        }
    }

    /// Swap would make a memory limit mean something else.
    fn of(&self, is_unified: bool) -> Vec<Line> {
        let line = |file: &str, text: String| (file.to_owned(), text, false);
        let rare = |file: &str, text: String| (file.to_owned(), text, true);
        match (self, is_unified) {
            (Lines::Cpu(own), false) => {
                let mut lines = vec![line("cpu.shares", own.cpu_shares.to_string())];
                if own.cpu_quota_us > 0 {
                    lines.push(line("cpu.cfs_period_us", own.cpu_period_us.to_string()));
                    lines.push(line("cpu.cfs_quota_us", own.cpu_quota_us.to_string()));
                }
                lines
            }
            (Lines::Cpu(own), true) => {
                let mut lines = vec![line("cpu.weight", weight(own.cpu_shares).to_string())];
                if own.cpu_quota_us > 0 {
                    let text = format!("{} {}", own.cpu_quota_us, own.cpu_period_us);
                    lines.push(line("cpu.max", text));
                }
                lines
            }
            (Lines::Memory(own), false) => vec![
                line("memory.limit_in_bytes", own.memory_bytes.to_string()),
                rare("memory.memsw.limit_in_bytes", own.memory_bytes.to_string()),
            ],
            (Lines::Memory(own), true) => vec![
                line("memory.max", own.memory_bytes.to_string()),
                rare("memory.swap.max", "0".to_owned()),
            ],
            (Lines::HugePages(sizes), _) => {
                let end = if is_unified { "max" } else { "limit_in_bytes" };
                let lines = sizes.iter().flat_map(|(size, bytes)| {
                    [
                        line(&format!("hugetlb.{size}.{end}"), bytes.to_string()),
                        rare(&format!("hugetlb.{size}.rsvd.{end}"), bytes.to_string()),
                    ]
                });
                lines.collect()
            }
        }
    }
}

/// Shares of version 1 (2 to 262,144) as a weight of version 2 (1 to 10,000), as runc converts them.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Whole {
        Whole {
            resources: Resources {
                cpu_shares: 1024,
                cpu_quota_us: 50_000,
                cpu_period_us: 100_000,
                memory_bytes: 4096,
                oom_score_adj: 0,
            },
            huge_pages: [("2MB".to_owned(), 8)].into(),
        }
    }

    /// Writes all lines of a version below an empty directory, and gives what the files hold.
    fn written(is_unified: bool) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Place {
            dir: dir.path().to_owned(),
            is_unified,
        };
        let whole = whole();
        for lines in [
            Lines::Cpu(whole.resources),
            Lines::Memory(whole.resources),
            Lines::HugePages(&whole.huge_pages),
        ] {
            place.write(&lines.of(is_unified)).expect("written");
        }
        let files = std::fs::read_dir(dir.path()).expect("files");
        let mut found: Vec<(String, String)> = files
            .map(|file| {
                let file = file.expect("a file");
                let text = std::fs::read_to_string(file.path()).expect("text");
                (file.file_name().into_string().expect("a name"), text)
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn a_pods_limits_are_said_in_the_words_of_each_version() {
        let owned = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            let all = all.iter();
            all.map(|(file, text)| ((*file).to_owned(), (*text).to_owned()))
                .collect()
        };
        let first = owned(&[
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.shares", "1024"),
            ("hugetlb.2MB.limit_in_bytes", "8"),
            ("memory.limit_in_bytes", "4096"),
        ]);
        assert_eq!(written(false), first);
        let second = owned(&[
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "39"),
            ("hugetlb.2MB.max", "8"),
            ("memory.max", "4096"),
        ]);
        assert_eq!(written(true), second);
    }

    #[test]
    fn only_the_cgroup_that_the_engine_was_told_is_limited() {
        let place = Place {
            dir: "/sys/fs/cgroup/memory/orchestrator/podu1/abc".into(),
            is_unified: false,
        };
        let around = place.around("/orchestrator/podu1").map(|it| it.dir);
        let wanted = Path::new("/sys/fs/cgroup/memory/orchestrator/podu1");
        assert_eq!(around.as_deref(), Some(wanted));
        for other in ["/orchestrator/podu2", "/"] {
            assert_eq!(place.around(other), None, "{other}");
        }
        // A sandbox that the Engine has put elsewhere: the limits would be another's.
        let hierarchies = Hierarchies::read().expect("mounts");
        let own = std::process::id();
        let error = hierarchies.limit_pod(own, "/orchestrator/podu1", &whole());
        error.expect_err("this process is in no such cgroup");
    }

    #[test]
    fn a_pods_cgroup_goes_with_it_and_may_be_gone_already() {
        let dir = tempfile::tempdir().expect("a directory");
        let mounts = format!(
            "30 25 0:26 / {}/memory rw - cgroup cgroup rw,memory\n\
             31 25 0:26 / {}/cpu rw - cgroup cgroup rw,cpu\n",
            dir.path().display(),
            dir.path().display()
        );
        let pod = dir.path().join("memory/orchestrator/podu1");
        std::fs::create_dir_all(&pod).expect("made");
        let hierarchies = Hierarchies::of(&mounts);
        hierarchies
            .remove_pod("/orchestrator/podu1")
            .expect("removed");
        assert!(!pod.exists());
        hierarchies
            .remove_pod("/orchestrator/podu1")
            .expect("gone already");
    }
}
