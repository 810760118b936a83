//! Whether the node runs out of memory, disk, inodes or processes, and which pod leaves it for that. Pure: what is
//! observed and the time are arguments; `pressure/keeper` observes and acts.
//!
//! ```text
//!  signals ─▶ thresholds met? ─▶ conditions (kept for the transition period) ─▶ taints, admission
//!                    └─ hard, or soft for its grace ─▶ images first (disk) ─▶ else one pod: over its request,
//!                                                                            lowest priority, most above it
//! ```
//!
//! Order, texts and defaults are those of a kubelet 1.33 (pkg/kubelet/eviction).

pub mod keeper;
mod rank;
#[cfg(test)]
mod tests;
mod threshold;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

pub use rank::{Candidate, ContainerUse};
pub use threshold::{Amount, HARD_DEFAULT, Threshold, parse_thresholds, thresholds};

/// What of the node may run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    MemoryAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
    PidAvailable,
}

/// What the node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    Memory,
    Disk,
    Pid,
}

/// How much of something there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    pub available: u64,
    pub capacity: u64,
}

/// How the node is to behave under pressure.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub thresholds: Vec<Threshold>,
    /// How long a condition stays after its last threshold was met: nodes do not swing.
    pub transition: SignedDuration,
}

/// What was observed at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    pub levels: BTreeMap<Signal, Level>,
    pub pods: Vec<Candidate>,
}

/// What is remembered from one decision to the next.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// By place in the policy: since when the threshold is met.
    met_since: BTreeMap<usize, Timestamp>,
    /// By condition: when a threshold of it was last met.
    last_met: BTreeMap<Pressure, Timestamp>,
    /// When unused images were removed last.
    images_removed: Option<Timestamp>,
    /// The pod that was told to leave, and when.
    leaving: Option<(String, Timestamp)>,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub conditions: BTreeSet<Pressure>,
    pub action: Option<Action>,
    /// The resource that is being reclaimed: `memory`.
    pub reclaiming: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// What no pod misses.
    RemoveImages,
    Evict {
        uid: String,
        message: String,
    },
}

/// A pod that was told to leave is waited for no longer than this before the next one is.
const LEAVING_TIMEOUT: SignedDuration = SignedDuration::from_secs(30);
/// Removing images again sooner would find nothing.
const IMAGES_PAUSE: SignedDuration = SignedDuration::from_secs(60);

impl Signal {
    pub const ALL: [Signal; 6] = [
        Self::MemoryAvailable,
        Self::NodefsAvailable,
        Self::NodefsInodesFree,
        Self::ImagefsAvailable,
        Self::ImagefsInodesFree,
        Self::PidAvailable,
    ];

    /// The word of flags and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::NodefsAvailable => "nodefs.available",
            Self::NodefsInodesFree => "nodefs.inodesFree",
            Self::ImagefsAvailable => "imagefs.available",
            Self::ImagefsInodesFree => "imagefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    /// What is reclaimed, as messages name it.
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory",
            Self::NodefsAvailable | Self::ImagefsAvailable => "ephemeral-storage",
            Self::NodefsInodesFree | Self::ImagefsInodesFree => "inodes",
            Self::PidAvailable => "pids",
        }
    }

    pub fn pressure(self) -> Pressure {
        match self {
            Self::MemoryAvailable => Pressure::Memory,
            Self::PidAvailable => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }
}

impl Pressure {
    pub const ALL: [Pressure; 3] = [Self::Memory, Self::Disk, Self::Pid];

    /// The node's condition.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }
}

/// Decides what is to be done now.
pub fn decide(
    policy: &Policy,
    observed: &Observation,
    memory: &mut Memory,
    now: Timestamp,
) -> Decision {
    let met = met(policy, observed, memory, now);
    for threshold in &met.all {
        memory.last_met.insert(threshold.signal.pressure(), now);
    }
    memory
        .last_met
        .retain(|_, last| *last + policy.transition > now || *last == now);
    let mut decision = Decision {
        conditions: memory.last_met.keys().copied().collect(),
        ..Decision::default()
    };
    // Memory first: the kernel's own killer is the next to act.
    let Some(worst) = met.due.first() else {
        return decision;
    };
    decision.reclaiming = Some(worst.signal.resource());
    if is_leaving(observed, memory, now) {
        return decision;
    }
    let is_disk = worst.signal.pressure() == Pressure::Disk;
    let paused = memory
        .images_removed
        .is_some_and(|at| now.duration_since(at) < IMAGES_PAUSE);
    if is_disk && !paused {
        memory.images_removed = Some(now);
        decision.action = Some(Action::RemoveImages);
        return decision;
    }
    let level = observed.levels.get(&worst.signal).copied();
    if let Some(victim) = rank::victim(&observed.pods, worst.signal) {
        memory.leaving = Some((victim.uid.clone(), now));
        decision.action = Some(Action::Evict {
            uid: victim.uid.clone(),
            message: rank::message(victim, worst, level.unwrap_or_default()),
        });
    }
    decision
}

/// The reason why a pod may not begin on a node with these conditions; None: it may.
pub fn refusal(conditions: &BTreeSet<Pressure>, pod: &Newcomer) -> Option<String> {
    if conditions.is_empty() || pod.is_critical {
        return None;
    }
    let only_memory = conditions.iter().all(|it| *it == Pressure::Memory);
    if only_memory && (!pod.is_best_effort || pod.tolerates_memory_pressure) {
        return None;
    }
    let names: Vec<&str> = conditions.iter().map(|it| it.condition()).collect();
    Some(format!("The node had condition: [{}]. ", names.join(" ")))
}

/// A pod that wants to begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Newcomer {
    pub is_critical: bool,
    pub is_best_effort: bool,
    pub tolerates_memory_pressure: bool,
}

/// Thresholds that are met.
struct Met<'a> {
    all: Vec<&'a Threshold>,
    /// Those that something must be done about, the most urgent first.
    due: Vec<&'a Threshold>,
}

fn met<'a>(
    policy: &'a Policy,
    observed: &Observation,
    memory: &mut Memory,
    now: Timestamp,
) -> Met<'a> {
    let mut met = Met {
        all: Vec::new(),
        due: Vec::new(),
    };
    for (place, threshold) in policy.thresholds.iter().enumerate() {
        // What was not observed says nothing.
        let level = observed.levels.get(&threshold.signal);
        let was_met = memory.met_since.contains_key(&place);
        if !level.is_some_and(|level| threshold.is_met(*level, was_met)) {
            memory.met_since.remove(&place);
            continue;
        }
        let since = *memory.met_since.entry(place).or_insert(now);
        met.all.push(threshold);
        if now.duration_since(since) >= threshold.grace.unwrap_or_default() {
            met.due.push(threshold);
        }
    }
    met.due.sort_by_key(|threshold| threshold.signal);
    met
}

/// Whether a pod is on its way out: what it frees is waited for.
fn is_leaving(observed: &Observation, memory: &mut Memory, now: Timestamp) -> bool {
    let Some((uid, since)) = &memory.leaving else {
        return false;
    };
    let is_there = observed.pods.iter().any(|pod| pod.uid == *uid);
    let waits = is_there && now.duration_since(*since) < LEAVING_TIMEOUT;
    if !waits {
        memory.leaving = None;
    }
    waits
}
