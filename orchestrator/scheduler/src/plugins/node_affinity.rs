//! Node selectors and node affinity, required and preferred.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::normalize;
use crate::pod::PodRow;
use crate::snapshot::{NodeRow, NodeView};
use api::selector::{Operator, Requirement};

pub fn filter(pod: &PodRow, view: NodeView) -> Vec<String> {
    let labels = &view.node.labels;
    let selected = pod
        .node_selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    let affinity = pod.affinity.as_ref();
    let required = affinity.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let admitted = required.is_none_or(|selector| {
        selector
            .node_selector_terms
            .iter()
            .any(|term| matches(term, view.node))
    });
    if selected && admitted {
        return Vec::new();
    }
    vec!["node(s) didn't match Pod's node affinity/selector".to_owned()]
}

/// The heavier the preferences that a node meets, the better.
pub fn score(pod: &PodRow, views: &[NodeView]) -> Vec<i64> {
    let affinity = pod.affinity.as_ref();
    let preferred = affinity.and_then(|a| {
        a.preferred_during_scheduling_ignored_during_execution
            .as_deref()
    });
    let preferred = preferred.unwrap_or_default();
    let weight = |view: &NodeView| {
        let met = preferred
            .iter()
            .filter(|term| matches(&term.preference, view.node));
        met.map(|term| i64::from(term.weight)).sum()
    };
    normalize(views.iter().map(weight).collect())
}

/// All of a term's expressions hold. A term without any matches no node.
fn matches(term: &NodeSelectorTerm, node: &NodeRow) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = BTreeMap::from([("metadata.name".to_owned(), node.name.clone())]);
    expressions
        .iter()
        .all(|expression| holds(expression, &node.labels))
        && fields.iter().all(|field| holds(field, &name))
}

/// An operator that is not known holds for nothing.
fn holds(expression: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let operator = match expression.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => return false,
    };
    let mut values = expression.values.clone().unwrap_or_default();
    values.sort();
    values.dedup();
    Requirement {
        key: expression.key.clone(),
        operator,
        values,
    }
    .matches(labels)
}
