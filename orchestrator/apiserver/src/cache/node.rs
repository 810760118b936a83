//! A node as other nodes see it: where it is, which pods' addresses lead there, and whether it is
//! Ready. Nothing else of it concerns them.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use api::{Behaviour, Resource, annotations};

/// Labels that decide which endpoints and addresses a node's datapath takes.
const LABELS: [&str; 4] = [
    "kubernetes.io/hostname",
    "node.kubernetes.io/exclude-from-external-load-balancers",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// What is read out of a node's bytes once for all who ask.
#[derive(Debug, Default)]
pub(super) struct NodeParts {
    /// The trimmed object, without a resourceVersion.
    pub trimmed: Bytes,
    /// The fingerprint of the key that the node's certificates are for.
    pub key: Option<Box<str>>,
    /// Its condition Ready is True.
    pub is_ready: bool,
}

impl NodeParts {
    pub fn of(object: &[u8]) -> Self {
        // Stored bytes are JSON: of what has been damaged nothing is shown.
        let node: Value = serde_json::from_slice(object).unwrap_or_default();
        let key = node["metadata"]["annotations"][annotations::NODE_KEY].as_str();
        Self {
            trimmed: trim(&node),
            key: key.map(Into::into),
            is_ready: is_ready(&node),
        }
    }
}

/// Whether a node's condition Ready is True.
fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Whether other nodes see only a part of such objects.
pub fn is_trimmed(resource: &Resource) -> bool {
    resource.behaviour == Behaviour::Node
}

/// The part of a node that other nodes see.
fn trim(node: &Value) -> Bytes {
    let (meta, spec, status) = (&node["metadata"], &node["spec"], &node["status"]);
    let mut metadata = part(
        meta,
        &["name", "uid", "creationTimestamp", "deletionTimestamp"],
    );
    metadata.insert("labels".into(), part(&meta["labels"], &LABELS).into());
    let spec = part(spec, &["podCIDR", "podCIDRs"]);
    let of_type = |list: &str, wanted: &str| -> Vec<&Value> {
        let items = status[list].as_array().into_iter().flatten();
        items.filter(|item| item["type"] == wanted).collect()
    };
    let ready = of_type("conditions", "Ready").into_iter();
    let ready: Vec<_> = ready
        .map(|it| Value::Object(part(it, &["type", "status"])))
        .collect();
    let status = json!({"addresses": of_type("addresses", "InternalIP"), "conditions": ready});
    let (metadata, spec) = (Value::Object(metadata), Value::Object(spec));
    // Metadata first, as in all bytes of the cache: the resourceVersion is put there.
    let head = format!(r#"{{"kind":"Node","apiVersion":"v1","metadata":{metadata}"#);
    Bytes::from(format!(r#"{head},"spec":{spec},"status":{status}}}"#))
}

fn part(object: &Value, fields: &[&str]) -> Map<String, Value> {
    let kept = fields.iter().filter_map(|field| {
        let value = object.get(*field)?;
        Some(((*field).to_owned(), value.clone()))
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_nodes_see_where_a_node_is_and_nothing_that_it_is_for() {
        let node = json!({
            "kind": "Node", "apiVersion": "v1",
            "metadata": {"name": "one", "uid": "u", "resourceVersion": "7",
                "labels": {"topology.kubernetes.io/zone": "a", "for": "payments"},
                "annotations": {annotations::NODE_KEY: "ab", "secret": "s"}},
            "spec": {"podCIDR": "10.100.1.0/24", "podCIDRs": ["10.100.1.0/24"],
                "taints": [{"key": "k", "effect": "NoSchedule"}], "providerID": "p"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "172.31.0.11"},
                    {"type": "Hostname", "address": "one"}],
                "conditions": [{"type": "DiskPressure", "status": "False"},
                    {"type": "Ready", "status": "True", "message": "m"}],
                "nodeInfo": {"kernelVersion": "6"}, "images": [{"names": ["i"]}]},
        });
        let parts = NodeParts::of(node.to_string().as_bytes());
        assert_eq!(parts.key.as_deref(), Some("ab"));
        assert!(parts.is_ready);
        let trimmed: Value = serde_json::from_slice(&parts.trimmed).expect("JSON");
        let expected = json!({
            "kind": "Node", "apiVersion": "v1",
            "metadata": {"name": "one", "uid": "u",
                "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"podCIDR": "10.100.1.0/24", "podCIDRs": ["10.100.1.0/24"]},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "172.31.0.11"}],
                "conditions": [{"type": "Ready", "status": "True"}]},
        });
        assert_eq!(trimmed, expected);
    }
}
