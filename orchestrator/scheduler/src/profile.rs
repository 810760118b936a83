//! Profiles: how pods of one `schedulerName` are placed. Pure.

pub mod extenders;
pub mod file;

use super::demand::Spread;
use super::plugins::Plugin;
use extenders::Extender;

/// The scheduler's settings.
#[derive(Clone, Debug)]
pub struct Config {
    pub profiles: Vec<Profile>,
    /// The first pause of a pod that has no place, in milliseconds.
    pub first_pause_ms: i64,
    /// The longest, in milliseconds.
    pub longest_pause_ms: i64,
    /// Servers that have a say as well.
    pub extenders: Vec<Extender>,
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
    /// Of the nodes that will do, at most this share of all nodes is rated, in percent; zero: all are.
    pub rated_percent: usize,
    pub candidates: Candidates,
    /// How long volumes may take, in seconds.
    pub volumes_timeout_seconds: i64,
    pub uncounted: Uncounted,
    /// Of pods that have no constraints of their own; their selectors are not used.
    pub constraints: Vec<Spread>,
}

/// Where stopping pods is tried, if each trial costs much: on so many nodes at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Of all nodes.
    pub percent: usize,
    pub least: usize,
}

/// Resources that a node need not have: others count them.
#[derive(Clone, Debug, Default)]
pub struct Uncounted {
    pub names: Vec<String>,
    /// What names begin with, before the slash.
    pub groups: Vec<String>,
}

impl Uncounted {
    pub fn has(&self, name: &str) -> bool {
        let group = name.split_once('/').map(|(group, _)| group);
        self.names.iter().any(|it| it == name)
            || group.is_some_and(|group| self.groups.iter().any(|it| it == group))
    }
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
            extenders: Vec::new(),
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
            rated_percent: 0,
            candidates: Candidates {
                percent: 10,
                least: 100,
            },
            volumes_timeout_seconds: 600,
            uncounted: Uncounted::default(),
            constraints: Vec::new(),
        }
    }

    pub fn filters(&self, plugin: Plugin) -> bool {
        !self.unfiltered.contains(&plugin)
    }
}
