//! Nodes that were cordoned.

use super::{Plugin, Refusal};
use crate::demand::Local;
use crate::snapshot::NodeView;

const KEY: &str = "node.kubernetes.io/unschedulable";

pub fn filter(pod: &Local, view: NodeView) -> Option<Refusal> {
    if !view.node.unschedulable {
        return None;
    }
    let tolerated = pod
        .tolerations
        .iter()
        .any(|it| it.tolerates(KEY, "", "NoSchedule"));
    let text = "node(s) were unschedulable";
    (!tolerated).then(|| Refusal::new(Plugin::NodeUnschedulable, text, true))
}
