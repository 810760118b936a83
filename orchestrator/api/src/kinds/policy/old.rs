//! policy/v1beta1 PodDisruptionBudget. There an empty selector selects no pod, today it selects every
//! pod of the namespace; a label that no pod has tells the two apart (Kubernetes 1.21,
//! `pkg/apis/policy/v1beta1/conversion.go`).

use serde_json::{Value, json};

use super::pod_disruption_budget;
use crate::kinds::old::{Face, Version};
use crate::served::{Conversion, Served};

/// The label of selectors that say in one version what the empty selector says in the other.
const EMPTY: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";

const POLICY: Version = Version {
    group: "policy",
    version: "v1beta1",
    package: "policy",
    life: Some(("1.21", "1.25")),
};

pub fn views() -> Vec<Served> {
    vec![POLICY.serves(Face {
        conversion: Conversion::Pure { up, down },
        ..Face::of(pod_disruption_budget::resource)
    })]
}

/// Selects no pod: none has the label.
fn none() -> Value {
    json!({"matchExpressions": [{"key": EMPTY, "operator": "Exists"}]})
}

/// Selects every pod.
fn all() -> Value {
    json!({"matchExpressions": [{"key": EMPTY, "operator": "DoesNotExist"}]})
}

fn up(object: &mut Value) {
    exchange(object, all(), none());
}

fn down(object: &mut Value) {
    exchange(object, none(), all());
}

/// `written_out` becomes the empty selector, and the empty one `empty`. Any other loses the label.
fn exchange(object: &mut Value, written_out: Value, empty: Value) {
    let Some(selector) = object.pointer_mut("/spec/selector") else {
        return;
    };
    if *selector == written_out {
        *selector = json!({});
    } else if *selector == json!({}) {
        *selector = empty;
    } else {
        strip(selector);
    }
}

fn strip(selector: &mut Value) {
    if let Some(labels) = selector["matchLabels"].as_object_mut() {
        labels.remove(EMPTY);
    }
    if let Some(requirements) = selector["matchExpressions"].as_array_mut() {
        requirements.retain(|requirement| requirement["key"] != EMPTY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::old::testing::{assert_same, stored, view};

    fn budget(selector: Value) -> Value {
        json!({
            "metadata": {"name": "db"},
            "spec": {"minAvailable": 1, "selector": selector},
        })
    }

    #[test]
    fn an_empty_selector_of_the_old_version_selects_nothing() {
        let view = view("policy", "v1beta1", "poddisruptionbudgets");
        assert_same(view, budget(json!({})), budget(none()));
        assert_same(view, budget(all()), budget(json!({})));
        let some = json!({"matchLabels": {"app": "db"}});
        assert_same(view, budget(some.clone()), budget(some));
    }

    #[test]
    fn the_label_for_the_empty_selector_is_nobody_elses() {
        let view = view("policy", "v1beta1", "poddisruptionbudgets");
        let marked = json!({"matchLabels": {"app": "db", EMPTY: "x"}});
        let expected = json!({"matchLabels": {"app": "db"}});
        assert_eq!(stored(view, budget(marked)), budget(expected));
    }
}
