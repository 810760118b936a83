//! Node selectors: of pods and of volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

use super::Requirement;

const NAME_FIELD: &str = "metadata.name";

/// A term of a node selector, read once and matched often: all of its rules hold, and there is at least one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Term {
    pub labels: Vec<Requirement>,
    /// Of `metadata.name`, the only field that nodes are selected by.
    pub fields: Vec<Requirement>,
}

/// Whether any term of a selector holds for the node of this name with these labels.
pub fn matches(selector: &NodeSelector, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| term_matches(term, name, labels))
}

/// Whether this one does.
pub fn term_matches(
    term: &NodeSelectorTerm,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    Term::from_object(term).matches(name, labels)
}

impl Term {
    /// A term that cannot be read has no rules, and so matches no node.
    pub fn from_object(term: &NodeSelectorTerm) -> Self {
        let read = |rules: &Option<Vec<NodeSelectorRequirement>>| {
            let rules = rules.iter().flatten();
            rules
                .map(Requirement::from_node)
                .collect::<Result<Vec<_>, _>>()
        };
        match (read(&term.match_expressions), read(&term.match_fields)) {
            (Ok(labels), Ok(fields)) => Self { labels, fields },
            _ => Self::default(),
        }
    }

    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return false;
        }
        let of_fields = || BTreeMap::from([(NAME_FIELD.to_owned(), name.to_owned())]);
        self.labels.iter().all(|rule| rule.matches(labels))
            && (self.fields.is_empty() || {
                let node = of_fields();
                self.fields.iter().all(|rule| rule.matches(&node))
            })
    }
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
