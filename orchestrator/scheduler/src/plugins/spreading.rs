//! Pods of one family on different nodes.

use super::normalize_reverse;
use crate::pod::PodRow;
use crate::snapshot::NodeView;

/// The fewer of the pod's family are on a node, the better.
pub fn score(pod: &PodRow, views: &[NodeView]) -> Vec<i64> {
    let count = |view: &NodeView| view.usage.families.get(&pod.family).copied().unwrap_or(0);
    normalize_reverse(views.iter().map(count).collect())
}
