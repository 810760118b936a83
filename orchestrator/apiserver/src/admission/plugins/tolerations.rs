//! Tolerations that pods are given.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::is_pod;
use crate::admission::Attributes;
use api::{ApiError, pod_resources};

const TAINTS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

/// DefaultTolerationSeconds.
pub fn give_default(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if is_pod(attributes) {
        let seconds = attributes.state.plugins.config.toleration_seconds;
        tolerate(pod, TAINTS[0], seconds.not_ready);
        tolerate(pod, TAINTS[1], seconds.unreachable);
    }
    Ok(())
}

/// How long pods stay on a node that is not ready or unreachable, unless they say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Seconds {
    pub not_ready: i64,
    pub unreachable: i64,
}

impl Default for Seconds {
    fn default() -> Self {
        Self {
            not_ready: 300,
            unreachable: 300,
        }
    }
}

fn tolerate(pod: &mut Value, key: &str, seconds: i64) {
    let tolerations = pod["spec"]["tolerations"].as_array();
    let is_tolerated = tolerations.into_iter().flatten().any(|toleration| {
        let text = |field: &str| toleration[field].as_str().unwrap_or_default();
        (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
    });
    if !is_tolerated {
        add(
            pod,
            json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": seconds}),
        );
    }
}

/// ExtendedResourceToleration: a pod that asks for devices may run where only such pods may.
pub fn give_extended(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !is_pod(attributes) {
        return Ok(());
    }
    let containers = pod_resources::containers(&pod["spec"]);
    let requests = containers.flat_map(|container| container["resources"]["requests"].as_object());
    let names = requests.flatten().map(|(name, _)| name.clone());
    let devices: BTreeSet<String> = names.filter(|name| is_extended(name)).collect();
    for key in devices {
        let toleration = json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        if let Some(list) = pod["spec"]["tolerations"].as_array_mut() {
            let same = |other: &Value| {
                ["key", "effect"]
                    .iter()
                    .all(|field| other[field] == toleration[field])
            };
            // One that is there for the same taint is put in the new form.
            list.retain(|other| !same(other) || *other == toleration);
        }
        add(pod, toleration);
    }
    Ok(())
}

/// Resources of others than Kubernetes: a domain before the name, which is not its own.
fn is_extended(name: &str) -> bool {
    let is_native = !name.contains('/') || name.contains("kubernetes.io/");
    !is_native && !name.starts_with("requests.")
}

/// Adds a toleration that is not there yet.
fn add(pod: &mut Value, toleration: Value) {
    match pod["spec"]["tolerations"].as_array_mut() {
        Some(list) if list.contains(&toleration) => {}
        Some(list) => list.push(toleration),
        None => pod["spec"]["tolerations"] = json!([toleration]),
    }
}

/// Gives a pod more tolerations; of two that one covers, the wider one stays.
pub fn merge(pod: &mut Value, more: &[Value]) {
    let own = pod["spec"]["tolerations"].as_array().cloned();
    let mut all = own.unwrap_or_default();
    all.extend_from_slice(more);
    let mut merged: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let mut later = all[index + 1..].iter();
        let is_covered = merged.iter().any(|wider| covers(wider, toleration))
            || later.any(|wider| wider != toleration && covers(wider, toleration));
        if !is_covered {
            merged.push(toleration.clone());
        }
    }
    if !merged.is_empty() {
        pod["spec"]["tolerations"] = merged.into();
    }
}

/// Whether whatever one toleration tolerates, another one does as long.
pub fn covers(wider: &Value, toleration: &Value) -> bool {
    let text = |toleration: &Value, field: &str| -> String {
        toleration[field].as_str().unwrap_or_default().to_owned()
    };
    let is_same = |field: &str| text(wider, field) == text(toleration, field);
    let exists = text(wider, "operator") == "Exists";
    let is_any_key = exists && text(wider, "key").is_empty();
    let is_any_effect = text(wider, "effect").is_empty();
    let lasts = match wider["tolerationSeconds"].as_i64() {
        Some(most) if text(wider, "effect") == "NoExecute" => {
            let asked = toleration["tolerationSeconds"].as_i64();
            asked.is_some_and(|asked| asked <= most)
        }
        _ => true,
    };
    wider == toleration
        || ((is_same("key") || is_any_key)
            && (is_same("effect") || is_any_effect)
            && lasts
            && (exists || (text(toleration, "operator") != "Exists" && is_same("value"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_stays_five_minutes_unless_it_says_otherwise() {
        let given = |tolerations: Value| {
            let mut pod = json!({"spec": {"tolerations": tolerations}});
            TAINTS.iter().for_each(|key| tolerate(&mut pod, key, 5));
            let list = pod["spec"]["tolerations"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            list.len()
        };
        assert_eq!(given(Value::Null), 2);
        assert_eq!(given(json!([{"operator": "Exists"}])), 1);
        assert_eq!(
            given(json!([{"operator": "Exists", "effect": "NoSchedule"}])),
            3
        );
        assert_eq!(
            given(json!([{"key": TAINTS[0], "tolerationSeconds": 5}])),
            2
        );
    }

    #[test]
    fn of_two_tolerations_the_wider_one_stays() {
        let equal =
            |key: &str, value: &str| json!({"key": key, "operator": "Equal", "value": value});
        let all = json!({"operator": "Exists"});
        let key = json!({"key": "a", "operator": "Exists"});
        let brief = |seconds: i64| {
            json!({"key": "a", "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": seconds})
        };
        for (wider, toleration, expected) in [
            (&all, &key, true),
            (&key, &all, false),
            (&key, &equal("a", "1"), true),
            (&equal("a", "1"), &equal("a", "1"), true),
            (&equal("a", "1"), &equal("a", "2"), false),
            (&equal("a", "1"), &key, false),
            (&brief(9), &brief(5), true),
            (&brief(5), &brief(9), false),
            (&brief(5), &key, false),
        ] {
            assert_eq!(covers(wider, toleration), expected, "{wider} {toleration}");
        }
        let mut pod = json!({"spec": {"tolerations": [equal("a", "1"), equal("b", "1")]}});
        merge(&mut pod, &[key.clone(), equal("b", "1")]);
        assert_eq!(pod["spec"]["tolerations"], json!([equal("b", "1"), key]));
    }

    #[test]
    fn devices_have_a_domain_of_others() {
        for (name, expected) in [
            ("cpu", false),
            ("hugepages-2Mi", false),
            ("example.com/gpu", true),
            ("kubernetes.io/x", false),
            ("requests.example.com/gpu", false),
        ] {
            assert_eq!(is_extended(name), expected, "{name}");
        }
    }
}
