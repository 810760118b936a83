//! What the machine says of itself: capacity and system, read from the kernel. Reads only.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use api::amounts::Amounts;

use super::cgroup::Hierarchies;

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
    pub fn quantities(&self, max_pods: u32) -> BTreeMap<String, Quantity> {
        let entries = [
            ("cpu", self.cpus.to_string()),
            ("memory", format!("{}Ki", self.memory_bytes / 1024)),
            ("ephemeral-storage", format!("{}Ki", self.disk_bytes / 1024)),
            ("pods", max_pods.to_string()),
        ];
        entries
            .into_iter()
            .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
            .collect()
    }
}

/// What of a node is not for pods.
#[derive(Debug, Clone, PartialEq)]
pub struct Reserved {
    /// For the system, the agent and what evictions keep free.
    pub amounts: Amounts,
    pub max_pods: u32,
}

impl Default for Reserved {
    fn default() -> Self {
        Self {
            amounts: Amounts::new(),
            max_pods: MAX_PODS,
        }
    }
}

impl Reserved {
    /// Reads `cpu=200m,memory=500Mi`; other resources are not reserved.
    pub fn parse(text: &str) -> Result<Amounts, String> {
        const KNOWN: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
        let parts = text.split(',').filter(|part| !part.is_empty());
        let read = parts.map(|part| {
            let (name, amount) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not RESOURCE=AMOUNT"))?;
            if !KNOWN.contains(&name) {
                return Err(format!("{name:?} is none of {}", KNOWN.join(", ")));
            }
            let amount = api::quantity::Quantity::parse(amount);
            let amount = amount.map_err(|error| format!("{part:?}: {error}"))?;
            match amount.is_negative() {
                true => Err(format!("{part:?} is negative")),
                false => Ok((name.to_owned(), amount)),
            }
        });
        read.collect()
    }

    /// What is left of a capacity; never less than nothing.
    pub fn left(&self, capacity: &BTreeMap<String, Quantity>) -> BTreeMap<String, Quantity> {
        let left = |(name, all): (&String, &Quantity)| {
            let reserved = self.amounts.get(name);
            let whole = api::quantity::Quantity::parse(&all.0).ok();
            let text = match (whole, reserved) {
                (Some(whole), Some(reserved)) if *reserved < whole => {
                    (whole - *reserved).to_string()
                }
                (_, None) => all.0.clone(),
                _ => "0".to_owned(),
            };
            (name.clone(), Quantity(text))
        };
        capacity.iter().map(left).collect()
    }
}

/// Whether the kernel limits huge pages by cgroup.
pub fn limits_huge_pages() -> bool {
    Hierarchies::read().is_ok_and(|found| found.limits_huge_pages())
}

/// The machine's huge pages, by size: `hugepages-2Mi`.
pub fn huge_pages(root: &Path) -> BTreeMap<String, Quantity> {
    let sizes = std::fs::read_dir(root).into_iter().flatten().flatten();
    let pages = sizes.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let kib: u64 = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
        let count: u64 = count.trim().parse().ok()?;
        let text = |kib: u64| {
            let bytes = i64::try_from(kib.checked_mul(1024)?).ok()?;
            Some(match kib {
                0 => "0".to_owned(),
                kib if kib.is_multiple_of(1 << 20) => format!("{}Gi", kib >> 20),
                kib if kib.is_multiple_of(1 << 10) => format!("{}Mi", kib >> 10),
                _ => api::quantity::Quantity::from_units(bytes).to_string(),
            })
        };
        let all = text(kib.checked_mul(count)?)?;
        Some((format!("hugepages-{}", text(kib)?), Quantity(all)))
    });
    pages.collect()
}

/// Where the kernel says how many huge pages there are.
pub const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

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
    fn what_is_reserved_is_not_for_pods() {
        let capacity = Capacity {
            cpus: 2,
            memory_bytes: 1 << 30,
            disk_bytes: 1 << 30,
        };
        let reserved = Reserved {
            amounts: Reserved::parse("cpu=200m,memory=24Mi,ephemeral-storage=2Gi")
                .expect("amounts"),
            max_pods: 250,
        };
        let all = capacity.quantities(reserved.max_pods);
        let left = reserved.left(&all);
        let of = |name: &str| left[name].0.as_str();
        assert_eq!((of("cpu"), of("memory")), ("1800m", "1000Mi"));
        assert_eq!((of("ephemeral-storage"), of("pods")), ("0", "250"));
        for wrong in ["cpu", "gpu=1", "cpu=x", "cpu=-1"] {
            assert!(Reserved::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn huge_pages_are_counted_by_their_size() {
        let root = tempfile::tempdir().expect("a directory");
        for (name, count) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "0\n")] {
            let dir = root.path().join(name);
            std::fs::create_dir(&dir).expect("made");
            std::fs::write(dir.join("nr_hugepages"), count).expect("written");
        }
        let pages = huge_pages(root.path());
        let of = |name: &str| pages[name].0.as_str();
        assert_eq!((of("hugepages-2Mi"), of("hugepages-1Gi")), ("6Mi", "0"));
        assert!(huge_pages(Path::new("/absent")).is_empty());
    }

    #[test]
    fn the_memory_of_a_node_is_its_total() {
        let meminfo = "MemTotal:       24599868 kB\nMemFree:        19870244 kB\n";
        assert_eq!(memory_bytes(meminfo), Some(24_599_868 * 1024));
    }
}
