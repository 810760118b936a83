//! What the machine says of itself: capacity and system, read from the kernel. Reads only.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Pods that a node runs, unless it is told otherwise.
pub const MAX_PODS: u32 = 110;
const CAP_SYS_RESOURCE: u32 = 24;

/// The version that the node claims to be compatible with.
pub const KUBELET_VERSION: &str = concat!("v1.33.0+orchestrator-", env!("CARGO_PKG_VERSION"));

/// What the node can give to pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    pub cpus: usize,
    pub memory_bytes: i64,
    pub disk_bytes: u64,
}

/// Reads the node's size; `data` lies on the disk that pods write to.
pub fn capacity(data: &Path) -> io::Result<Capacity> {
    let cpus = std::thread::available_parallelism()?.get();
    let memory_bytes = memory_bytes(&std::fs::read_to_string("/proc/meminfo")?).unwrap_or(0);
    let disk = nix::sys::statvfs::statvfs(data).map_err(io::Error::from)?;
    let disk_bytes = disk.blocks() * disk.fragment_size();
    Ok(Capacity {
        cpus,
        memory_bytes,
        disk_bytes,
    })
}

impl Capacity {
    /// As a node's status has it.
    pub fn quantities(&self) -> BTreeMap<String, Quantity> {
        let entries = [
            ("cpu", self.cpus.to_string()),
            ("memory", format!("{}Ki", self.memory_bytes / 1024)),
            ("ephemeral-storage", format!("{}Ki", self.disk_bytes / 1024)),
            ("pods", MAX_PODS.to_string()),
        ];
        entries
            .into_iter()
            .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
            .collect()
    }
}

/// `status.nodeInfo`.
pub fn system(runtime_version: &str) -> NodeSystemInfo {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let os = read("/etc/os-release");
    let name = os
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime_version.to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".to_owned(),
        os_image: name.unwrap_or("Linux").trim_matches('"').to_owned(),
        system_uuid: read("/sys/class/dmi/id/product_uuid"),
        ..Default::default()
    }
}

/// The architecture in Go's words, which labels and images use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The lowest OOM score that a child may be given: below one's own only with CAP_SYS_RESOURCE.
pub fn lowest_oom_score() -> i64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    if has_sys_resource(&read("/proc/self/status")) {
        return -1000;
    }
    read("/proc/self/oom_score_adj").trim().parse().unwrap_or(0)
}

/// Whether the kernel enforces AppArmor profiles.
pub fn app_armor() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.trim() == "Y")
}

/// Whether the kernel enforces SELinux labels.
pub fn selinux() -> bool {
    std::path::Path::new("/sys/fs/selinux/enforce").exists()
}

fn has_sys_resource(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << CAP_SYS_RESOURCE) != 0)
}

fn memory_bytes(meminfo: &str) -> Option<i64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_to_lower_scores_is_read_from_the_effective_set() {
        assert!(has_sys_resource("CapPrm:\t0\nCapEff:\t000001ffffffffff\n"));
        assert!(!has_sys_resource("CapEff:\t000001fffeffffff\n"));
    }

    #[test]
    fn the_memory_of_a_node_is_its_total() {
        let meminfo = "MemTotal:       24599868 kB\nMemFree:        19870244 kB\n";
        assert_eq!(memory_bytes(meminfo), Some(24_599_868 * 1024));
    }
}
