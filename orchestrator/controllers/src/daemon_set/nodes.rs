//! On which nodes a DaemonSet's pods are. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NodeSelectorTerm;

use super::row::Placement;
use crate::object::Object;
use crate::taint_eviction::tolerates;
use api::selector::Requirement;

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

pub fn fit(placement: &Placement, node: &Object) -> Fit {
    let Some(row) = node.as_node() else {
        return Fit::Never;
    };
    let (name, labels) = (&node.key.name, &node.meta.labels);
    let named = placement.node.is_empty() || placement.node == *name;
    let selected = placement
        .selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    let required = placement.required.as_ref();
    let admitted = required.is_none_or(|selector| {
        let mut terms = selector.node_selector_terms.iter();
        terms.any(|term| matches(term, name, labels))
    });
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

/// All of a term's expressions hold. A term without any matches no node.
fn matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let of_name = BTreeMap::from([("metadata.name".to_owned(), name.to_owned())]);
    let holds = |of: &BTreeMap<String, String>, term| {
        Requirement::from_node(term).is_ok_and(|requirement| requirement.matches(of))
    };
    expressions.iter().all(|term| holds(labels, term))
        && fields.iter().all(|term| holds(&of_name, term))
}
