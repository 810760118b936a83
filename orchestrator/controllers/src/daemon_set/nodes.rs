//! On which nodes a DaemonSet's pods are. Pure.

use super::row::Placement;
use crate::object::Object;
use crate::taint_eviction::tolerates;
use api::selector::node;

/// What a node is to a DaemonSet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// There is to be a pod.
    Runs,
    /// A pod that is there stays, none is made: a taint keeps only new pods away.
    Stays,
    /// There is to be none.
    Never,
}

pub fn fit(placement: &Placement, object: &Object) -> Fit {
    let Some(row) = object.as_node() else {
        return Fit::Never;
    };
    let (name, labels) = (&object.key.name, &object.meta.labels);
    let named = placement.node.is_empty() || placement.node == *name;
    let selected = placement
        .selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    let required = placement.required.as_ref();
    let admitted = required.is_none_or(|selector| node::matches(selector, name, labels));
    if !(named && selected && admitted) {
        return Fit::Never;
    }
    let untolerated = |effect: &str| {
        let mut taints = row.taints.iter().filter(|taint| taint.effect == effect);
        taints.any(|taint| !placement.tolerations.iter().any(|it| tolerates(it, taint)))
    };
    match (untolerated("NoExecute"), untolerated("NoSchedule")) {
        (true, _) => Fit::Never,
        (false, true) => Fit::Stays,
        (false, false) => Fit::Runs,
    }
}
