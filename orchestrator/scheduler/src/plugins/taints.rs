//! Taints that keep pods off, or only discourage them.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::normalize_reverse;
use crate::pod::PodRow;
use crate::snapshot::NodeView;

pub fn filter(pod: &PodRow, view: NodeView) -> Vec<String> {
    let hard = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
    let mut untolerated = view
        .node
        .taints
        .iter()
        .filter(hard)
        .filter(|taint| !tolerated(pod, taint));
    let Some(taint) = untolerated.next() else {
        return Vec::new();
    };
    let value = taint.value.as_deref().unwrap_or_default();
    vec![format!(
        "node(s) had untolerated taint {{{}: {value}}}",
        taint.key
    )]
}

/// The fewer discouraging taints it does not tolerate, the better.
pub fn score(pod: &PodRow, views: &[NodeView]) -> Vec<i64> {
    let count = |view: &NodeView| {
        let soft = view
            .node
            .taints
            .iter()
            .filter(|taint| taint.effect == "PreferNoSchedule");
        i64::try_from(soft.filter(|taint| !tolerated(pod, taint)).count()).unwrap_or(i64::MAX)
    };
    normalize_reverse(views.iter().map(count).collect())
}

fn tolerated(pod: &PodRow, taint: &Taint) -> bool {
    pod.tolerations
        .iter()
        .any(|toleration| tolerates(toleration, taint))
}

/// Kubernetes' rule: an empty key with `Exists` is every taint, an empty effect every effect.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    if toleration.operator.as_deref() == Some("Exists") {
        return true;
    }
    !key.is_empty() && text(&toleration.value) == text(&taint.value)
}
