//! Filters and scores of one node at a time, one file each, and their names in Kubernetes. A filter says why
//! a node will not do, in Kubernetes' words. Pure.

pub mod host_ports;
pub mod image_locality;
pub mod node_affinity;
pub mod resources_fit;
pub mod taints;
pub mod unschedulable;

use super::demand::Local;
use super::snapshot::NodeView;

/// Who refuses nodes, in the order in which they are asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Plugin {
    NodeUnschedulable,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    /// No plugin of a profile: servers outside.
    Extender,
}

/// Why a node will not do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Refusal {
    pub plugin: Plugin,
    pub texts: Vec<String>,
    /// No pod that is stopped would change it.
    pub lasting: bool,
}

impl Plugin {
    pub const ALL: [Plugin; 11] = [
        Plugin::NodeUnschedulable,
        Plugin::TaintToleration,
        Plugin::NodeAffinity,
        Plugin::NodePorts,
        Plugin::NodeResourcesFit,
        Plugin::VolumeRestrictions,
        Plugin::NodeVolumeLimits,
        Plugin::VolumeBinding,
        Plugin::VolumeZone,
        Plugin::PodTopologySpread,
        Plugin::InterPodAffinity,
    ];

    /// Its name in Kubernetes.
    pub fn name(self) -> &'static str {
        match self {
            Plugin::NodeUnschedulable => "NodeUnschedulable",
            Plugin::TaintToleration => "TaintToleration",
            Plugin::NodeAffinity => "NodeAffinity",
            Plugin::NodePorts => "NodePorts",
            Plugin::NodeResourcesFit => "NodeResourcesFit",
            Plugin::VolumeRestrictions => "VolumeRestrictions",
            Plugin::NodeVolumeLimits => "NodeVolumeLimits",
            Plugin::VolumeBinding => "VolumeBinding",
            Plugin::VolumeZone => "VolumeZone",
            Plugin::PodTopologySpread => "PodTopologySpread",
            Plugin::InterPodAffinity => "InterPodAffinity",
            Plugin::Extender => "extender",
        }
    }

    /// Its bit in a set of plugins.
    pub fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

impl Refusal {
    pub fn new(plugin: Plugin, text: &str, lasting: bool) -> Self {
        Self {
            plugin,
            texts: vec![text.to_owned()],
            lasting,
        }
    }
}

/// None if the node will do.
pub type Filter = fn(&Local, NodeView) -> Option<Refusal>;

/// In this order; the first that refuses a node speaks for it.
pub const FILTERS: [(Plugin, Filter); 5] = [
    (Plugin::NodeUnschedulable, unschedulable::filter),
    (Plugin::TaintToleration, taints::filter),
    (Plugin::NodeAffinity, node_affinity::filter),
    (Plugin::NodePorts, host_ports::filter),
    (Plugin::NodeResourcesFit, resources_fit::filter),
];
