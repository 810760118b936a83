//! Pods that name their node.

use crate::pod::PodRow;
use crate::snapshot::NodeView;

pub fn filter(pod: &PodRow, view: NodeView) -> Vec<String> {
    if pod.node.is_empty() || pod.node == view.node.name {
        return Vec::new();
    }
    vec!["node(s) didn't match the requested node name".to_owned()]
}
