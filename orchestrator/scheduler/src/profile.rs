//! Profiles: how pods of one `schedulerName` are placed. Pure.

pub mod file;

use super::plugins::Plugin;

/// The scheduler's settings.
#[derive(Clone, Debug)]
pub struct Config {
    pub profiles: Vec<Profile>,
    /// The first pause of a pod that has no place, in milliseconds.
    pub first_pause_ms: i64,
    /// The longest, in milliseconds.
    pub longest_pause_ms: i64,
}

/// One profile.
#[derive(Clone, Debug)]
pub struct Profile {
    pub name: String,
    /// Plugins whose filters are off.
    pub unfiltered: Vec<Plugin>,
    pub preempts: bool,
    pub weights: Weights,
    pub fit: Fit,
    /// The resources of the balanced allocation.
    pub balanced: Vec<String>,
    /// What a pod's required affinity is worth to those that it needs.
    pub hard_affinity_weight: i64,
    /// Wishes of pods that are placed do not count for those that come.
    pub ignores_wishes_of_placed: bool,
}

/// How much each score counts; 0 is off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weights {
    pub taints: i64,
    pub node_affinity: i64,
    pub fit: i64,
    pub balanced: i64,
    pub images: i64,
    pub spread: i64,
    /// Spreading of pods of one controller that ask for none. It outweighs what one pod more or less
    /// changes elsewhere.
    pub default_spread: i64,
    pub pod_affinity: i64,
}

/// How use of resources is rated.
#[derive(Clone, Debug)]
pub struct Fit {
    pub strategy: Strategy,
    /// Names with weights.
    pub resources: Vec<(String, i64)>,
}

/// Kubernetes' strategies.
#[derive(Clone, Debug)]
pub enum Strategy {
    LeastAllocated,
    MostAllocated,
    /// Points of use in percent and rating of 0 to 100, by use.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

impl Default for Config {
    fn default() -> Self {
        Self {
            profiles: vec![Profile::named(DEFAULT_SCHEDULER)],
            first_pause_ms: 10,
            longest_pause_ms: 10_000,
        }
    }
}

impl Profile {
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            unfiltered: Vec::new(),
            preempts: true,
            weights: Weights {
                taints: 3,
                node_affinity: 2,
                fit: 1,
                balanced: 1,
                images: 1,
                spread: 2,
                default_spread: 5,
                pod_affinity: 2,
            },
            fit: Fit {
                strategy: Strategy::LeastAllocated,
                resources: vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)],
            },
            balanced: vec!["cpu".to_owned(), "memory".to_owned()],
            hard_affinity_weight: 1,
            ignores_wishes_of_placed: false,
        }
    }

    pub fn filters(&self, plugin: Plugin) -> bool {
        !self.unfiltered.contains(&plugin)
    }
}
