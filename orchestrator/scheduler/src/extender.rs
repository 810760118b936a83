//! What extenders are asked and what they say, in the words of k8s.io/kube-scheduler/extender/v1. Pure.
//!
//! ```text
//! decide ─▶ Consult: nodes that would do ─▶ shell asks each extender ─▶ Said ─▶ decide again, among these nodes
//!    └────▶ ConsultPreemption: a node and its victims ─▶ agreed | refused ─▶ stop them | the next node
//! ```
//!
//! A decision is made anew with what was said, so that what has changed meanwhile counts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::plugins::{Plugin, Refusal};
use super::profile::extenders::Extender;
use super::resources::Resources;

/// What all extenders together say of the nodes for a pod, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The nodes that will do, with what is added to their scores.
    pub nodes: BTreeMap<String, i64>,
    /// Why others will not.
    pub failed: BTreeMap<String, Refusal>,
}

/// What is known of a pod from extenders when it is decided about.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// None: they were not asked about nodes.
    pub said: Option<Said>,
    /// Nodes on which no pod is to be stopped for it.
    pub spared: BTreeSet<String>,
}

/// Extenders rate from 0 to this.
const MOST: i64 = 10;
/// To the scale of other scores.
const SCALE: i64 = 100 / MOST;

impl Extender {
    /// Whether it has a say about pods that ask for so much.
    pub fn concerns(&self, requests: &Resources) -> bool {
        let wants = |name: &String| requests.amount(name) > 0;
        self.resources.is_empty() || self.resources.iter().any(wants)
    }
}

impl Said {
    /// Nothing was said yet: all these nodes will do.
    pub fn all(nodes: Vec<String>) -> Self {
        Self {
            nodes: nodes.into_iter().map(|name| (name, 0)).collect(),
            failed: BTreeMap::new(),
        }
    }

    /// Takes in the answer of a filter. No node becomes one that will do.
    pub fn filter(&mut self, answer: &Value) -> Result<(), String> {
        if let Some(error) = field(answer, "Error").as_str().filter(|it| !it.is_empty()) {
            return Err(error.to_owned());
        }
        let kept = kept(answer)?;
        for (list, lasting) in [("FailedNodes", false), ("FailedAndUnresolvableNodes", true)] {
            for (name, why) in field(answer, list).as_object().into_iter().flatten() {
                if self.nodes.contains_key(name) {
                    let why = why.as_str().unwrap_or_default();
                    let refusal = Refusal::new(Plugin::Extender, &shortened(why), lasting);
                    self.failed.insert(name.clone(), refusal);
                }
            }
        }
        let dropped = self.nodes.keys().filter(|name| !kept.contains(*name));
        let dropped: Vec<String> = dropped.cloned().collect();
        for name in dropped {
            self.nodes.remove(&name);
            let unsaid = || {
                Refusal::new(
                    Plugin::Extender,
                    "node(s) were refused by an extender",
                    false,
                )
            };
            self.failed.entry(name).or_insert_with(unsaid);
        }
        Ok(())
    }

    /// Adds an extender's priorities.
    pub fn prioritize(&mut self, answer: &Value, weight: i64) -> Result<(), String> {
        let list = answer
            .as_array()
            .ok_or("a list of priorities was expected")?;
        for priority in list {
            let host = field(priority, "Host").as_str().unwrap_or_default();
            let score = field(priority, "Score").as_i64().unwrap_or(0);
            if let Some(sum) = self.nodes.get_mut(host) {
                *sum = sum.saturating_add(score.clamp(0, MOST) * weight.saturating_mul(SCALE));
            }
        }
        Ok(())
    }
}

/// The body of a filter or of a prioritize.
pub fn arguments(pod: &Value, nodes: Vec<&str>, full: Option<&BTreeMap<String, Value>>) -> Value {
    match full {
        None => json!({"Pod": pod, "Nodes": null, "NodeNames": nodes}),
        Some(full) => {
            let items = nodes.into_iter().filter_map(|name| full.get(name));
            let items: Vec<&Value> = items.collect();
            let list =
                json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": items});
            json!({"Pod": pod, "Nodes": list, "NodeNames": null})
        }
    }
}

/// The body of a preempt: pods in full, or their uids for who caches nodes.
pub fn preemption(
    pod: &Value,
    node: &str,
    victims: &[Value],
    (violations, by_uid): (usize, bool),
) -> Value {
    let pods: Vec<Value> = victims
        .iter()
        .map(|victim| match by_uid {
            true => json!({"UID": victim["metadata"]["uid"]}),
            false => victim.clone(),
        })
        .collect();
    let victims = json!({node: {"Pods": pods, "NumPDBViolations": violations}});
    let (full, meta) = match by_uid {
        true => (Value::Null, victims),
        false => (victims, Value::Null),
    };
    json!({"Pod": pod, "NodeNameToVictims": full, "NodeNameToMetaVictims": meta})
}

/// The uids that are to be stopped on the node; None: it may not be used.
pub fn agreed(answer: &Value, node: &str) -> Option<Vec<String>> {
    let victims = field(answer, "NodeNameToMetaVictims").get(node)?;
    let pods = field(victims, "Pods").as_array()?;
    let uids = pods.iter().filter_map(|pod| field(pod, "UID").as_str());
    let uids: Vec<String> = uids.map(str::to_owned).collect();
    Some(uids).filter(|uids| !uids.is_empty())
}

/// The body of a bind.
pub fn binding((namespace, name): (&str, &str), uid: &str, node: &str) -> Value {
    json!({"PodName": name, "PodNamespace": namespace, "PodUID": uid, "Node": node})
}

/// Why it did not bind.
pub fn bind_error(answer: &Value) -> Option<String> {
    let error = field(answer, "Error").as_str()?;
    (!error.is_empty()).then(|| shortened(error))
}

/// The names of the nodes that a filter leaves: said, or those of the nodes that it sends back.
fn kept(answer: &Value) -> Result<BTreeSet<String>, String> {
    if let Some(names) = field(answer, "NodeNames").as_array() {
        let names = names.iter().filter_map(Value::as_str);
        return Ok(names.map(str::to_owned).collect());
    }
    let items = field(field(answer, "Nodes"), "items").as_array();
    let items = items.ok_or("the answer has neither NodeNames nor Nodes")?;
    let names = items
        .iter()
        .filter_map(|it| it["metadata"]["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// Go reads the names of fields in any case, and so extenders write them as they like.
fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    let fields = object.as_object().into_iter().flatten();
    let mut found = fields.filter(|(own, _)| own.eq_ignore_ascii_case(name));
    found.next().map_or(&Value::Null, |(_, value)| value)
}

/// What a stranger says becomes part of events.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 256;
    text.chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Said {
        Said::all(["a", "b", "c"].map(str::to_owned).to_vec())
    }

    #[test]
    fn a_filter_keeps_what_it_names_and_says_why_not() {
        let mut said = three();
        let answer = json!({"nodenames": ["a", "stranger"], "FailedNodes": {"b": "busy", "x": "?"},
            "FailedAndUnresolvableNodes": {"c": "too small"}});
        said.filter(&answer).unwrap();
        assert_eq!(said.nodes.keys().collect::<Vec<_>>(), ["a"]);
        let why = |name: &str| {
            (
                said.failed[name].texts[0].as_str(),
                said.failed[name].lasting,
            )
        };
        assert_eq!((why("b"), why("c")), (("busy", false), ("too small", true)));
        assert_eq!(
            said.failed.len(),
            2,
            "of nodes that nobody asked about nothing is kept"
        );
    }

    #[test]
    fn a_filter_may_send_nodes_back_and_an_error_is_one() {
        let mut said = three();
        said.filter(&json!({"Nodes": {"items": [{"metadata": {"name": "b"}}]}}))
            .unwrap();
        assert_eq!(said.nodes.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(
            said.failed["a"].texts,
            ["node(s) were refused by an extender"]
        );
        assert!(
            three()
                .filter(&json!({"Error": "out of order", "NodeNames": []}))
                .is_err()
        );
        assert!(three().filter(&json!({})).is_err());
    }

    #[test]
    fn priorities_are_of_ten_and_count_by_weight() {
        let mut said = three();
        let answer = json!([{"Host": "a", "Score": 10}, {"host": "b", "score": 400}, {"Host": "?", "Score": 1}]);
        said.prioritize(&answer, 2).unwrap();
        assert_eq!(
            said.nodes.values().copied().collect::<Vec<_>>(),
            [200, 200, 0]
        );
        assert!(said.prioritize(&json!({}), 1).is_err());
    }

    #[test]
    fn a_preemption_is_agreed_to_with_some_pods_or_refused() {
        let victims = [
            json!({"metadata": {"uid": "u1"}}),
            json!({"metadata": {"uid": "u2"}}),
        ];
        let body = preemption(&json!({}), "n", &victims, (1, true));
        let expected =
            json!({"n": {"Pods": [{"UID": "u1"}, {"UID": "u2"}], "NumPDBViolations": 1}});
        assert_eq!(body["NodeNameToMetaVictims"], expected);
        let one = json!({"nodeNameToMetaVictims": {"n": {"Pods": [{"UID": "u2"}]}}});
        assert_eq!(agreed(&one, "n"), Some(vec!["u2".to_owned()]));
        assert_eq!(agreed(&one, "other"), None);
        assert_eq!(
            agreed(&json!({"NodeNameToMetaVictims": {"n": {"Pods": []}}}), "n"),
            None
        );
    }
}
