//! Node selectors: of pods and of volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

use super::{Operator, Requirement};

/// Whether any term of a selector holds for the node of this name with these labels.
pub fn matches(selector: &NodeSelector, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| term_matches(term, name, labels))
}

/// All of a term's expressions hold. A term without any matches no node.
pub fn term_matches(
    term: &NodeSelectorTerm,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let of_node = BTreeMap::from([("metadata.name".to_owned(), name.to_owned())]);
    expressions.iter().all(|it| holds(it, labels)) && fields.iter().all(|it| holds(it, &of_node))
}

/// An operator that is not known holds for nothing.
fn holds(expression: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let Some(operator) = Operator::named(&expression.operator) else {
        return false;
    };
    let mut values = expression.values.clone().unwrap_or_default();
    values.sort();
    values.dedup();
    let key = expression.key.clone();
    let requirement = Requirement {
        key,
        operator,
        values,
    };
    requirement.matches(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(expressions: serde_json::Value, name: &str, zone: &str) -> bool {
        let term: NodeSelectorTerm = serde_json::from_value(expressions).unwrap();
        let labels = BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
        let selector = NodeSelector {
            node_selector_terms: vec![term],
        };
        matches(&selector, name, &labels)
    }

    #[test]
    fn a_term_holds_by_labels_and_by_the_name_together() {
        let term = serde_json::json!({
            "matchExpressions": [{"key": "zone", "operator": "In", "values": ["b", "a"]}],
            "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["two"]}],
        });
        assert!(on(term.clone(), "one", "a"));
        assert!(!on(term.clone(), "one", "c"));
        assert!(!on(term, "two", "a"));
    }

    #[test]
    fn a_term_without_expressions_or_with_an_unknown_operator_matches_nothing() {
        assert!(!on(serde_json::json!({}), "one", "a"));
        let odd = serde_json::json!({"matchExpressions": [{"key": "zone", "operator": "Like"}]});
        assert!(!on(odd, "one", "a"));
    }
}
