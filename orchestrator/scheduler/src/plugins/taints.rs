//! Taints that keep pods off, or only discourage them.

use super::{Plugin, Refusal};
use crate::demand::{Local, Toleration};
use crate::node::{NodeRow, Taint};
use crate::snapshot::NodeView;

pub fn filter(pod: &Local, view: NodeView) -> Option<Refusal> {
    let taint = untolerated(&pod.tolerations, view.node)?;
    let text = format!(
        "node(s) had untolerated taint {{{}: {}}}",
        taint.key, taint.value
    );
    Some(Refusal::new(Plugin::TaintToleration, &text, true))
}

/// The first taint that keeps a pod off.
pub fn untolerated<'a>(tolerations: &[Toleration], node: &'a NodeRow) -> Option<&'a Taint> {
    let hard = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
    node.taints
        .iter()
        .filter(hard)
        .find(|taint| !tolerated(tolerations, taint))
}

/// How many discouraging taints the pod does not tolerate.
pub fn score(pod: &Local, node: &NodeRow) -> i64 {
    let soft = node
        .taints
        .iter()
        .filter(|taint| taint.effect == "PreferNoSchedule");
    let unwanted = soft.filter(|taint| !tolerated(&pod.tolerations, taint));
    i64::try_from(unwanted.count()).unwrap_or(i64::MAX)
}

fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations
        .iter()
        .any(|it| it.tolerates(&taint.key, &taint.value, &taint.effect))
}
