//! What the processes of a cgroup use, as the kernel counts it, and the limits that the Engine does not set: cgroup
//! v1, v2, and both side by side.

mod pod;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the machine's cgroups are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Of version 1, by controller.
    controllers: BTreeMap<String, Mount>,
    /// Of version 2.
    unified: Option<Mount>,
}

/// A mount of a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    at: PathBuf,
    /// Which cgroup is seen there.
    root: PathBuf,
}

/// The directories of one cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    cpu: Place,
    memory: Place,
    pids: Place,
    /// None: the kernel does not limit disks by cgroup.
    disks: Option<Place>,
    /// None: the kernel does not limit huge pages where the Engine puts containers.
    huge_pages: Option<Place>,
}

/// One of them, and whether its files are those of version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    dir: PathBuf,
    is_unified: bool,
}

/// What a cgroup has used since it was made, and holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub cpu_ns: u64,
    /// All of its memory.
    pub memory_bytes: u64,
    /// Without the file cache that the kernel can take back at once.
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
}

impl Hierarchies {
    /// Those of this machine.
    pub fn read() -> io::Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self::of(&mounts))
    }

    /// From the lines of `mountinfo` (proc_pid_mountinfo(5)).
    fn of(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((place, kind)) = line.split_once(" - ") else {
                continue;
            };
            let mut place = place.split(' ').skip(3);
            let (Some(root), Some(at)) = (place.next(), place.next()) else {
                continue;
            };
            let mount = Mount {
                at: at.into(),
                root: root.into(),
            };
            let mut kind = kind.split(' ');
            match (kind.next(), kind.nth(1)) {
                (Some("cgroup2"), _) => drop(found.unified.get_or_insert(mount)),
                (Some("cgroup"), Some(options)) => {
                    for option in options.split(',') {
                        let of = found.controllers.entry(option.to_owned());
                        of.or_insert_with(|| mount.clone());
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The cgroup of a process.
    pub fn of_process(&self, pid: u32) -> io::Result<Cgroup> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let missing = || io::Error::other(format!("process {pid} is in no cgroup that is mounted"));
        self.cgroup(&text).ok_or_else(missing)
    }

    /// From the lines of `/proc/PID/cgroup` (cgroups(7)).
    fn cgroup(&self, text: &str) -> Option<Cgroup> {
        Some(Cgroup {
            cpu: self.place(text, "cpuacct")?,
            memory: self.place(text, "memory")?,
            pids: self.place(text, "pids")?,
            disks: self.place(text, "blkio"),
            huge_pages: match self.limits_huge_pages() {
                true => self.place(text, "hugetlb"),
                false => None,
            },
        })
    }

    fn place(&self, text: &str, controller: &str) -> Option<Place> {
        let lines = text.lines().map(|line| line.splitn(3, ':'));
        let lines = lines.filter_map(|mut words| Some((words.nth(1)?, words.next()?)));
        let path = |of: &dyn Fn(&str) -> bool| lines.clone().find(|(names, _)| of(names));
        let (mount, (_, path), is_unified) = match self.controllers.get(controller) {
            Some(mount) => {
                let has = |names: &str| names.split(',').any(|name| name == controller);
                (mount, path(&has)?, false)
            }
            None => (self.unified.as_ref()?, path(&str::is_empty)?, true),
        };
        let below = Path::new(path).strip_prefix(&mount.root).ok()?;
        Some(Place {
            dir: mount.at.join(below),
            is_unified,
        })
    }
}

impl Counters {
    pub fn plus(self, more: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_add(more.cpu_ns),
            memory_bytes: self.memory_bytes.saturating_add(more.memory_bytes),
            working_set_bytes: self
                .working_set_bytes
                .saturating_add(more.working_set_bytes),
            rss_bytes: self.rss_bytes.saturating_add(more.rss_bytes),
            page_faults: self.page_faults.saturating_add(more.page_faults),
            major_page_faults: self
                .major_page_faults
                .saturating_add(more.major_page_faults),
            processes: self.processes.saturating_add(more.processes),
        }
    }
}

impl Cgroup {
    /// Reads what it uses. An error: its processes have ended.
    pub fn read(&self) -> io::Result<Counters> {
        let memory = self.memory.usage()?;
        let stat = self.memory.text("memory.stat")?;
        let names = self.memory.stat_names();
        let [inactive, rss, faults, major] = names.map(|name| field(&stat, name).unwrap_or(0));
        Ok(Counters {
            cpu_ns: self.cpu.cpu_ns()?,
            memory_bytes: memory,
            working_set_bytes: memory.saturating_sub(inactive),
            rss_bytes: rss,
            page_faults: faults,
            major_page_faults: major,
            processes: self.pids.number("pids.current").unwrap_or(0),
        })
    }
}

impl Cgroup {
    /// Holds what it reads from a disk, and what it writes to it, to so many bytes a second each. Version 1 counts
    /// direct I/O alone: what is written from the page cache is nobody's there.
    pub fn throttle(&self, disk: Disk, bytes: u64) -> io::Result<()> {
        let missing = || io::Error::other("this kernel does not limit disks by cgroup");
        let place = self.disks.as_ref().ok_or_else(missing)?;
        let Disk { major, minor } = disk;
        let write = |file: &str, text: String| std::fs::write(place.dir.join(file), text);
        if place.is_unified {
            return write(
                "io.max",
                format!("{major}:{minor} rbps={bytes} wbps={bytes}"),
            );
        }
        let text = format!("{major}:{minor} {bytes}");
        write("blkio.throttle.read_bps_device", text.clone())?;
        write("blkio.throttle.write_bps_device", text)
    }
}

/// A whole disk, by the numbers of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk {
    pub major: u32,
    pub minor: u32,
}

impl Disk {
    /// On which a directory lies; None for what is no disk of its own, such as btrfs or memory.
    pub fn of(path: &Path) -> Option<Self> {
        let device = std::fs::metadata(path).ok()?.dev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let place = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let is_part = place.join("partition").exists();
        let whole = if is_part {
            place.join("../dev")
        } else {
            place.join("dev")
        };
        let text = std::fs::read_to_string(whole).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl Place {
    fn text(&self, file: &str) -> io::Result<String> {
        std::fs::read_to_string(self.dir.join(file))
    }

    fn number(&self, file: &str) -> io::Result<u64> {
        let text = self.text(file)?;
        text.trim().parse().map_err(io::Error::other)
    }

    fn usage(&self) -> io::Result<u64> {
        self.number(match self.is_unified {
            true => "memory.current",
            false => "memory.usage_in_bytes",
        })
    }

    fn cpu_ns(&self) -> io::Result<u64> {
        if !self.is_unified {
            return self.number("cpuacct.usage");
        }
        let stat = self.text("cpu.stat")?;
        let micros = field(&stat, "usage_usec");
        let micros = micros.ok_or_else(|| io::Error::other("cpu.stat has no usage_usec"))?;
        Ok(micros.saturating_mul(1000))
    }

    /// Of the inactive file cache, anonymous memory, faults and major faults.
    fn stat_names(&self) -> [&'static str; 4] {
        match self.is_unified {
            true => ["inactive_file", "anon", "pgfault", "pgmajfault"],
            false => [
                "total_inactive_file",
                "total_rss",
                "total_pgfault",
                "total_pgmajfault",
            ],
        }
    }
}

/// A line `name number`.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    let mut line = lines.find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    line.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 25 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpuacct
32 30 0:28 /docker/outer /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const PROCESS: &str = "\
4:memory:/docker/outer/docker/abc
2:cpu,cpuacct:/docker/abc
0::/system.slice/abc.scope
";

    #[test]
    fn a_controller_is_looked_for_in_version_1_first() {
        let cgroup = Hierarchies::of(MOUNTS).cgroup(PROCESS).expect("found");
        assert_eq!(
            cgroup.cpu.dir,
            Path::new("/sys/fs/cgroup/cpuacct/docker/abc")
        );
        let pids = "/sys/fs/cgroup/unified/system.slice/abc.scope";
        assert_eq!(
            (cgroup.pids.dir.as_path(), cgroup.pids.is_unified),
            (Path::new(pids), true)
        );
        // What is mounted there is a part of the hierarchy.
        assert_eq!(
            cgroup.memory.dir,
            Path::new("/sys/fs/cgroup/memory/docker/abc")
        );
    }

    #[test]
    fn a_cgroup_outside_of_what_is_mounted_is_not_found() {
        let outside = PROCESS.replace("/docker/outer/docker/abc", "/docker/other");
        assert_eq!(Hierarchies::of(MOUNTS).cgroup(&outside), None);
        assert_eq!(Hierarchies::default().cgroup(PROCESS), None);
    }

    #[test]
    fn the_working_set_leaves_out_the_inactive_file_cache_in_both_versions() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("written");
        };
        write("cpuacct.usage", "7000\n");
        write("memory.usage_in_bytes", "5000\n");
        write(
            "memory.stat",
            "inactive_file 9\ntotal_inactive_file 1000\ntotal_rss 3\nanon 4\n",
        );
        write("memory.current", "5001\n");
        write("cpu.stat", "usage_usec 7\nuser_usec 1\n");
        let read = |is_unified: bool| {
            let place = Place {
                dir: dir.path().to_owned(),
                is_unified,
            };
            let (cpu, memory, pids) = (place.clone(), place.clone(), place);
            let disks = None;
            Cgroup {
                cpu,
                memory,
                pids,
                disks,
                huge_pages: None,
            }
            .read()
            .expect("read")
        };
        let (first, second) = (read(false), read(true));
        assert_eq!(
            (first.cpu_ns, first.working_set_bytes, first.rss_bytes),
            (7000, 4000, 3)
        );
        assert_eq!(
            (second.cpu_ns, second.working_set_bytes, second.rss_bytes),
            (7000, 4992, 4)
        );
    }

    #[test]
    fn a_disk_is_throttled_in_the_words_of_each_version() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = |is_unified: bool| Place {
            dir: dir.path().to_owned(),
            is_unified,
        };
        let disk = Disk {
            major: 254,
            minor: 0,
        };
        for is_unified in [false, true] {
            let (cpu, memory, pids) = (place(is_unified), place(is_unified), place(is_unified));
            let disks = Some(place(is_unified));
            let cgroup = Cgroup {
                cpu,
                memory,
                pids,
                disks,
                huge_pages: None,
            };
            cgroup.throttle(disk, 1000).expect("written");
        }
        let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).expect("written");
        assert_eq!(read("io.max"), "254:0 rbps=1000 wbps=1000");
        assert_eq!(read("blkio.throttle.read_bps_device"), "254:0 1000");
        assert_eq!(read("blkio.throttle.write_bps_device"), "254:0 1000");
    }

    #[test]
    fn this_process_is_in_a_cgroup_that_can_be_read() {
        let hierarchies = Hierarchies::read().expect("mounts");
        let own = hierarchies
            .of_process(std::process::id())
            .expect("a cgroup");
        let counters = own.read().expect("read");
        assert!(counters.cpu_ns > 0 && counters.working_set_bytes > 0);
    }
}
