//! A pod as the scheduler sees it. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::demand::{self, Demand};

/// Namespace and name.
pub type PodKey = (String, String);

/// One pod.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PodRow {
    pub key: PodKey,
    pub uid: String,
    pub revision: u64,
    /// Empty while it has no node.
    pub node: String,
    /// The node on which others were stopped for it; empty without one.
    pub nominated: String,
    /// Without a node, not held by a gate, not on its way out: one of the profiles places it.
    pub wants_node: bool,
    /// It holds nothing on its node any more.
    pub finished: bool,
    pub terminating: bool,
    /// When it started, in nanoseconds since 1970; the greatest number if it did not.
    pub started: i64,
    /// The message of the condition PodScheduled, if it is false.
    pub told: Option<String>,
    pub demand: Arc<Demand>,
}

impl PodRow {
    pub fn priority(&self) -> i32 {
        self.demand.local.priority
    }

    /// It has a node, or wants none now.
    pub fn is_settled(&self) -> bool {
        !self.node.is_empty() || !self.wants_node
    }

    /// Whether a decision for `other` may differ from one for this.
    pub fn asks_the_same(&self, other: &PodRow) -> bool {
        self.wants_node == other.wants_node && self.demand == other.demand
    }

    /// Whether it counts on a node as `other` does.
    pub fn holds_the_same(&self, other: &PodRow) -> bool {
        self.node == other.node
            && self.finished == other.finished
            && self.terminating == other.terminating
            && self.demand == other.demand
    }
}

impl From<Pod> for PodRow {
    fn from(pod: Pod) -> Self {
        let metadata = pod.metadata;
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let gated = spec
            .scheduling_gates
            .as_ref()
            .is_some_and(|gates| !gates.is_empty());
        let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let terminating = metadata.deletion_timestamp.is_some();
        let namespace = metadata.namespace.unwrap_or_default();
        let name = metadata.name.unwrap_or_default();
        let mut owners = metadata.owner_references.into_iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true));
        let labels = metadata.labels.unwrap_or_default();
        let owner = owner.map(|owner| owner.uid).unwrap_or_default();
        let demand = demand::read(&namespace, labels, owner, &name, (&spec, &status));
        let mut conditions = status.conditions.into_iter().flatten();
        let refused = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False");
        let revision = metadata.resource_version.and_then(|r| r.parse().ok());
        Self {
            uid: metadata.uid.unwrap_or_default(),
            revision: revision.unwrap_or(0),
            wants_node: !gated && !finished && !terminating,
            finished,
            terminating,
            node: spec.node_name.unwrap_or_default(),
            nominated: status.nominated_node_name.unwrap_or_default(),
            started: status.start_time.map_or(i64::MAX, |at| nanoseconds(at.0)),
            told: refused.map(|c| c.message.unwrap_or_default()),
            key: (namespace, name),
            demand: Arc::new(demand),
        }
    }
}

fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}
