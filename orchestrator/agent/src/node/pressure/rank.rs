//! Which pod leaves. Pure.

use std::cmp::Reverse;

use super::{Level, Signal, Threshold};
use api::quantity::Quantity;

/// A pod that could leave, with what it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    pub uid: String,
    pub name: String,
    pub priority: i64,
    /// Static, or of the highest priorities: it never leaves.
    pub is_critical: bool,
    pub containers: Vec<ContainerUse>,
    pub inodes: u64,
    pub processes: u64,
    /// What its volumes and logs take besides the containers.
    pub volume_bytes: u64,
}

/// What one of its containers uses and has asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUse {
    pub name: String,
    pub memory_bytes: u64,
    pub memory_request: u64,
    pub disk_bytes: u64,
    pub disk_request: u64,
}

impl ContainerUse {
    fn used(&self, signal: Signal) -> (u64, u64) {
        match signal {
            Signal::MemoryAvailable => (self.memory_bytes, self.memory_request),
            _ => (self.disk_bytes, self.disk_request),
        }
    }
}

impl Candidate {
    /// What the whole pod uses of what runs out, and how much of that it has asked for.
    fn used(&self, signal: Signal) -> (u64, u64) {
        let all = self.containers.iter().map(|it| it.used(signal));
        let (used, wanted) = all.fold((0u64, 0u64), |sum, (used, wanted)| {
            (sum.0.saturating_add(used), sum.1.saturating_add(wanted))
        });
        match signal {
            Signal::MemoryAvailable => (used, wanted),
            Signal::NodefsAvailable | Signal::ImagefsAvailable => {
                (used.saturating_add(self.volume_bytes), wanted)
            }
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => (self.inodes, 0),
            Signal::PidAvailable => (self.processes, 0),
        }
    }
}

/// Who uses more than it asked for goes first, then the lowest priority, then who uses the most beyond it.
pub fn victim(pods: &[Candidate], signal: Signal) -> Option<&Candidate> {
    let may_leave = pods.iter().filter(|pod| !pod.is_critical);
    may_leave.min_by_key(|pod| {
        let (used, wanted) = pod.used(signal);
        let within = used <= wanted && signal != Signal::PidAvailable;
        let beyond = i128::from(used) - i128::from(wanted);
        (within, pod.priority, Reverse(beyond), pod.uid.clone())
    })
}

/// What the pod's status says.
pub fn message(pod: &Candidate, threshold: &Threshold, level: Level) -> String {
    let signal = threshold.signal;
    let resource = signal.resource();
    let shown = |count: u64| match signal {
        Signal::NodefsInodesFree | Signal::ImagefsInodesFree | Signal::PidAvailable => {
            count.to_string()
        }
        _ => bytes_text(count),
    };
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        shown(threshold.at.of(level.capacity)),
        shown(level.available),
    );
    if matches!(resource, "memory" | "ephemeral-storage") {
        for container in &pod.containers {
            let (used, wanted) = container.used(signal);
            if used > wanted {
                text += &format!(
                    "Container {} was using {}, request is {}, has larger consumption of \
                     {resource}. ",
                    container.name,
                    bytes_text(used),
                    bytes_text(wanted),
                );
            }
        }
    }
    text
}

/// As the API writes bytes: `100Mi`, `1234Ki`.
fn bytes_text(bytes: u64) -> String {
    for (unit, word) in [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")] {
        if bytes > 0 && bytes.is_multiple_of(unit) {
            return format!("{}{word}", bytes / unit);
        }
    }
    let whole = i64::try_from(bytes).unwrap_or(i64::MAX);
    Quantity::from_units(whole).to_string()
}
