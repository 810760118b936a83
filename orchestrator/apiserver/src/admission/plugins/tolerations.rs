//! Tolerations that pods are given.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::is_pod;
use crate::admission::Attributes;
use api::{ApiError, pod_resources};

/// How long a pod stays on a node that is not ready or unreachable, unless it says otherwise.
const SECONDS: i64 = 300;

const TAINTS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

/// DefaultTolerationSeconds.
pub fn give_default(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if is_pod(attributes) {
        TAINTS.iter().for_each(|key| tolerate(pod, key));
    }
    Ok(())
}

fn tolerate(pod: &mut Value, key: &str) {
    let tolerations = pod["spec"]["tolerations"].as_array();
    let is_tolerated = tolerations.into_iter().flatten().any(|toleration| {
        let text = |field: &str| toleration[field].as_str().unwrap_or_default();
        (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
    });
    if !is_tolerated {
        add(
            pod,
            json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": SECONDS}),
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
pub fn add(pod: &mut Value, toleration: Value) {
    match pod["spec"]["tolerations"].as_array_mut() {
        Some(list) if list.contains(&toleration) => {}
        Some(list) => list.push(toleration),
        None => pod["spec"]["tolerations"] = json!([toleration]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_stays_five_minutes_unless_it_says_otherwise() {
        let given = |tolerations: Value| {
            let mut pod = json!({"spec": {"tolerations": tolerations}});
            TAINTS.iter().for_each(|key| tolerate(&mut pod, key));
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
