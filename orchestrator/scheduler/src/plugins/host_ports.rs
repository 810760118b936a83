//! Ports of the node, each held by one pod.

use super::{Plugin, Refusal};
use crate::demand::Local;
use crate::snapshot::NodeView;

pub fn filter(pod: &Local, view: NodeView) -> Option<Refusal> {
    let held = &view.usage.ports;
    let taken = |port| held.iter().any(|other| other.conflicts(port));
    let text = "node(s) didn't have free ports for the requested pod ports";
    let refused = pod.ports.iter().any(taken);
    refused.then(|| Refusal::new(Plugin::NodePorts, text, false))
}
