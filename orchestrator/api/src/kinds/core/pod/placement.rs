//! What a pod says of the nodes that it wants: tolerations, affinity, spreading, gates.

use std::collections::BTreeSet;

use crate::validation::selector::{label_selector, requirement};
use crate::validation::{At, Errors, names, object};

pub fn placement(spec: &At<'_>, errors: &mut Errors) {
    object::labels(&spec.field("nodeSelector"), errors);
    tolerations(&spec.field("tolerations"), errors);
    let affinity = spec.field("affinity");
    node_affinity(&affinity.field("nodeAffinity"), errors);
    for kind in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(&affinity.field(kind), errors);
    }
    topology_spread(&spec.field("topologySpreadConstraints"), errors);
    gates(spec, errors);
}

/// A pod without a node may be held back by gates; an agent knows none.
fn gates(spec: &At<'_>, errors: &mut Errors) {
    let gates = spec.field("schedulingGates");
    let mut seen = BTreeSet::new();
    for gate in gates.items() {
        let name = gate.field("name");
        errors.check(&name, names::label_key(name.text()));
        if !seen.insert(name.text().to_owned()) {
            errors.duplicate_value(&gate, name.value);
        }
    }
    let node = spec.field("nodeName");
    if !gates.is_empty() && !node.is_empty() {
        errors.forbidden(
            &node,
            "cannot be set until all schedulingGates have been cleared",
        );
    }
}

fn pod_affinity(affinity: &At<'_>, errors: &mut Errors) {
    let required = affinity.field("requiredDuringSchedulingIgnoredDuringExecution");
    required.items().for_each(|term| pod_term(&term, errors));
    let preferred = affinity.field("preferredDuringSchedulingIgnoredDuringExecution");
    for wish in preferred.items() {
        weight(&wish, errors);
        pod_term(&wish.field("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &At<'_>, errors: &mut Errors) {
    label_selector(&term.field("labelSelector"), errors);
    let namespaces = term.field("namespaces");
    for namespace in namespaces.items() {
        errors.check(&namespace, names::label(namespace.text()));
    }
    topology_key(term, errors);
}

fn topology_key(at: &At<'_>, errors: &mut Errors) {
    let key = at.field("topologyKey");
    if key.is_empty() {
        errors.required(&key, "can not be empty");
    } else {
        errors.check(&key, names::label_key(key.text()));
    }
}

fn topology_spread(constraints: &At<'_>, errors: &mut Errors) {
    for constraint in constraints.items() {
        let skew = constraint.field("maxSkew");
        if skew.number() <= 0 {
            errors.invalid(&skew, "must be greater than zero");
        }
        topology_key(&constraint, errors);
        errors.one_of(
            &constraint.field("whenUnsatisfiable"),
            &["DoNotSchedule", "ScheduleAnyway"],
        );
        label_selector(&constraint.field("labelSelector"), errors);
    }
}

pub fn tolerations(tolerations: &At<'_>, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let [key, operator, value, effect] =
            ["key", "operator", "value", "effect"].map(|name| toleration.value[name].as_str());
        let key_at = toleration.field("key");
        let operator_at = toleration.field("operator");
        if let Some(text) = key.filter(|key| !key.is_empty()) {
            errors.check(&key_at, names::label_key(text));
        } else if operator != Some("Exists") {
            errors.invalid(
                &operator_at,
                "operator must be Exists when `key` is empty, which means \"match all values and \
                 all keys\"",
            );
        }
        let seconds = toleration.field("tolerationSeconds");
        let effect_at = toleration.field("effect");
        if !seconds.is_null() && effect != Some("NoExecute") {
            errors.invalid(
                &effect_at,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator.unwrap_or_default() {
            "" | "Equal" => errors.check(&toleration.field("value"), {
                names::label_value(value.unwrap_or_default())
            }),
            "Exists" if value.is_some_and(|value| !value.is_empty()) => {
                errors.invalid(
                    &operator_at,
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" => {}
            _ => errors.not_supported(&operator_at, &["Equal", "Exists"]),
        }
        errors.one_of_if_any(&effect_at, &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
    }
}

fn node_affinity(node: &At<'_>, errors: &mut Errors) {
    let required = node.field("requiredDuringSchedulingIgnoredDuringExecution");
    if !required.is_null() {
        node_selector(&required, errors);
    }
    let preferred = node.field("preferredDuringSchedulingIgnoredDuringExecution");
    for term in preferred.items() {
        weight(&term, errors);
        node_term(&term.field("preference"), errors);
    }
}

/// Which nodes fit: those of any of the terms.
pub fn node_selector(selector: &At<'_>, errors: &mut Errors) {
    let terms = selector.field("nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&terms, "must have at least one node selector term");
    }
    terms.items().for_each(|term| node_term(&term, errors));
}

fn weight(wish: &At<'_>, errors: &mut Errors) {
    let weight = wish.field("weight");
    if !(1..=100).contains(&weight.number()) {
        errors.invalid(&weight, "must be in the range 1-100");
    }
}

fn node_term(term: &At<'_>, errors: &mut Errors) {
    const OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
    let expressions = term.field("matchExpressions");
    for expression in expressions.items() {
        requirement(&expression, &OPERATORS, errors);
    }
}
