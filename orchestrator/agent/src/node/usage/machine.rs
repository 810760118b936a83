//! What the whole machine uses, and what a network namespace has carried. Reads only.

use std::path::Path;

use crate::node::cgroup::field;

/// Of one clock tick of `/proc/stat`: USER_HZ is 100 on every architecture that Linux runs containers on.
const TICK_NS: u64 = 10_000_000;

/// The machine at one moment. What could not be read is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// CPU time of all processes since the machine started.
    pub cpu_ns: u64,
    pub memory_total_bytes: u64,
    pub memory_free_bytes: u64,
    /// The file cache that the kernel can take back at once.
    pub inactive_file_bytes: u64,
    pub anonymous_bytes: u64,
    /// That of the node's data.
    pub filesystem: Filesystem,
    /// That of images and containers.
    pub images: Filesystem,
    /// Processes and threads, now and at most.
    pub processes: u64,
    pub most_processes: u64,
}

/// A filesystem's room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    pub capacity_bytes: u64,
    /// What somebody without privileges can still write.
    pub available_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// What a pod's interface has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
}

/// The interface of every pod.
pub const INTERFACE: &str = "eth0";

impl Machine {
    /// The Engine may keep its data elsewhere than where it is looked for; then the node's own disk is said.
    pub fn read(data: &Path, images: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let memory = read("/proc/meminfo");
        let bytes = |name: &str| field(&memory, name).unwrap_or_default() * 1024;
        let filesystem = Filesystem::at(data).unwrap_or_default();
        Self {
            cpu_ns: cpu_ns(&read("/proc/stat")).unwrap_or_default(),
            memory_total_bytes: bytes("MemTotal:"),
            memory_free_bytes: bytes("MemFree:"),
            inactive_file_bytes: bytes("Inactive(file):"),
            anonymous_bytes: bytes("AnonPages:"),
            filesystem,
            images: Filesystem::at(images).unwrap_or(filesystem),
            processes: processes(&read("/proc/loadavg")).unwrap_or_default(),
            most_processes: read("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(0),
        }
    }

    /// What is in use and cannot be taken back at once.
    pub fn working_set_bytes(&self) -> u64 {
        let used = self.usage_bytes();
        used.saturating_sub(self.inactive_file_bytes)
    }

    pub fn usage_bytes(&self) -> u64 {
        self.memory_total_bytes
            .saturating_sub(self.memory_free_bytes)
    }

    pub fn available_bytes(&self) -> u64 {
        self.memory_total_bytes
            .saturating_sub(self.working_set_bytes())
    }
}

impl Filesystem {
    pub fn at(path: &Path) -> Option<Self> {
        let found = nix::sys::statvfs::statvfs(path).ok()?;
        Some(Self {
            capacity_bytes: found.blocks() * found.fragment_size(),
            available_bytes: found.blocks_available() * found.fragment_size(),
            inodes: found.files(),
            inodes_free: found.files_free(),
        })
    }

    pub fn used_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.available_bytes)
    }
}

impl Interface {
    /// That of the network namespace in which a process lives.
    pub fn of_process(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
        Self::parse(&text, INTERFACE)
    }

    /// From the lines of `/proc/net/dev` (proc_pid_net(5)).
    fn parse(text: &str, name: &str) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let (_, counters) = lines.find(|(found, _)| found.trim() == name)?;
        let counters: Vec<u64> = counters
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        Some(Self {
            rx_bytes: *counters.first()?,
            rx_errors: *counters.get(2)?,
            tx_bytes: *counters.get(8)?,
            tx_errors: *counters.get(10)?,
        })
    }
}

/// All but idle time and waiting for disks; a guest's time is in the user's.
fn cpu_ns(stat: &str) -> Option<u64> {
    let mut words = stat.lines().next()?.split_whitespace().skip(1);
    let mut ticks = 0u64;
    for place in 0..8 {
        let word: u64 = words.next()?.parse().ok()?;
        if !matches!(place, 3 | 4) {
            ticks += word;
        }
    }
    Some(ticks.saturating_mul(TICK_NS))
}

/// The second number of `2/345`.
fn processes(loadavg: &str) -> Option<u64> {
    let word = loadavg.split_whitespace().nth(3)?;
    word.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_and_waiting_for_disks_are_no_use_of_a_cpu() {
        let stat = "cpu  10 20 30 4000 500 6 7 8 9 0\ncpu0 1 1 1 1\n";
        assert_eq!(cpu_ns(stat), Some(81 * TICK_NS));
        assert_eq!(cpu_ns("cpu 1 2"), None);
        assert_eq!(processes("0.00 0.01 0.05 1/456 12345\n"), Some(456));
    }

    #[test]
    fn the_interface_of_a_pod_is_found_among_others() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12\n  \
                    eth0: 100 2 3 0 0 0 0 0 900 10 11 0 0 0 0 0\n";
        let expected = Interface {
            rx_bytes: 100,
            rx_errors: 3,
            tx_bytes: 900,
            tx_errors: 11,
        };
        assert_eq!(Interface::parse(text, "eth0"), Some(expected));
        assert_eq!(Interface::parse("", "eth0"), None);
    }
}
