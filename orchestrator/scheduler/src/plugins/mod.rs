//! Filters and scores, one file each. A filter gives the reasons against a node, in Kubernetes'
//! words; a score rates all feasible nodes at once, 0 to 100 each. Pure.

mod host_ports;
mod node_affinity;
mod node_name;
mod resources_fit;
mod spreading;
mod taints;
mod unschedulable;

use super::pod::PodRow;
use super::snapshot::NodeView;

/// The reasons against the node; none if it will do.
pub type Filter = fn(&PodRow, NodeView) -> Vec<String>;
/// The rating of each node.
pub type Score = fn(&PodRow, &[NodeView]) -> Vec<i64>;

/// In this order; the first that refuses a node speaks for it.
pub const FILTERS: [Filter; 6] = [
    unschedulable::filter,
    node_name::filter,
    taints::filter,
    node_affinity::filter,
    host_ports::filter,
    resources_fit::filter,
];

/// With their weights. Spreading outweighs what one pod more or less changes elsewhere.
pub const SCORES: [(i64, Score); 5] = [
    (5, spreading::score),
    (3, taints::score),
    (2, node_affinity::score),
    (1, resources_fit::least_allocated),
    (1, resources_fit::balanced),
];

/// Brings ratings of any height to 0..=100, the highest to 100.
fn normalize(ratings: Vec<i64>) -> Vec<i64> {
    let highest = ratings.iter().copied().max().unwrap_or(0);
    if highest <= 0 {
        return vec![0; ratings.len()];
    }
    ratings
        .into_iter()
        .map(|rating| rating.max(0) * 100 / highest)
        .collect()
}

/// The same for counts of what is unwanted: the highest to 0.
fn normalize_reverse(counts: Vec<i64>) -> Vec<i64> {
    normalize(counts)
        .into_iter()
        .map(|rating| 100 - rating)
        .collect()
}
