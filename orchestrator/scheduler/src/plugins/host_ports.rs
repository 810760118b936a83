//! Ports of the node, each held by one pod.

use crate::pod::PodRow;
use crate::snapshot::NodeView;

pub fn filter(pod: &PodRow, view: NodeView) -> Vec<String> {
    let held = &view.usage.ports;
    if pod
        .ports
        .iter()
        .any(|port| held.iter().any(|other| port.conflicts(other)))
    {
        return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
    }
    Vec::new()
}
