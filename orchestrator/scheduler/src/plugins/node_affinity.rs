//! Node selectors and node affinity, required and preferred.

use super::{Plugin, Refusal};
use crate::demand::Local;
use crate::node::NodeRow;
use crate::snapshot::NodeView;

pub fn filter(pod: &Local, view: NodeView) -> Option<Refusal> {
    let admitted = pod.nodes.admits(&view.node.name, &view.node.labels);
    let text = "node(s) didn't match Pod's node affinity/selector";
    (!admitted).then(|| Refusal::new(Plugin::NodeAffinity, text, true))
}

/// The weights of the preferences that a node meets.
pub fn score(pod: &Local, node: &NodeRow) -> i64 {
    let met = pod
        .wishes
        .iter()
        .filter(|(_, term)| term.matches(&node.name, &node.labels));
    met.map(|(weight, _)| weight).sum()
}
