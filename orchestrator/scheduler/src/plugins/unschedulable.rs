//! Nodes that were cordoned.

use crate::pod::PodRow;
use crate::snapshot::NodeView;

const KEY: &str = "node.kubernetes.io/unschedulable";

pub fn filter(pod: &PodRow, view: NodeView) -> Vec<String> {
    let tolerated = pod.tolerations.iter().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == "NoSchedule")
            && (key == KEY
                && (exists || toleration.value.as_deref().unwrap_or_default().is_empty())
                || key.is_empty() && exists)
    });
    if view.node.unschedulable && !tolerated {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    Vec::new()
}
