//! A node as the scheduler sees it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;

use super::resources::Resources;

/// What a node offers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeRow {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub max_pods: i64,
    /// The sizes of the images that it has, in bytes, by each of their names.
    pub images: BTreeMap<String, i64>,
}

/// A taint.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// For a node that does not say.
const DEFAULT_PODS: i64 = 110;

impl From<Node> for NodeRow {
    fn from(node: Node) -> Self {
        let spec = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let mut conditions = status.conditions.iter().flatten();
        let ready = conditions.find(|c| c.type_ == "Ready");
        let given = spec.taints.unwrap_or_default().into_iter();
        let mut taints: Vec<Taint> = given
            .map(|taint| Taint {
                key: taint.key,
                value: taint.value.unwrap_or_default(),
                effect: taint.effect,
            })
            .collect();
        let tainted = taints
            .iter()
            .any(|it| it.key == NOT_READY || it.key == UNREACHABLE);
        if ready.is_none_or(|c| c.status != "True") && !tainted {
            // The controller's taint may come a moment later; nothing is placed in between.
            taints.push(Taint {
                key: NOT_READY.to_owned(),
                effect: "NoSchedule".to_owned(),
                ..Taint::default()
            });
        }
        let capacity = status.capacity.unwrap_or_default();
        let mut amounts = status.allocatable.unwrap_or_else(|| capacity.clone());
        // A kubelet copies extended resources, which others put in the capacity, with its next status.
        for (name, amount) in capacity {
            if name.contains('/') {
                amounts.entry(name).or_insert(amount);
            }
        }
        let mut allocatable = Resources::from_quantities(&amounts);
        let max_pods = allocatable.other.remove("pods").unwrap_or(DEFAULT_PODS);
        let mut images = BTreeMap::new();
        for image in status.images.into_iter().flatten() {
            let size = image.size_bytes.unwrap_or(0);
            images.extend(image.names.into_iter().flatten().map(|name| (name, size)));
        }
        Self {
            name: node.metadata.name.unwrap_or_default(),
            labels: node.metadata.labels.unwrap_or_default(),
            taints,
            unschedulable: spec.unschedulable == Some(true),
            allocatable,
            max_pods,
            images,
        }
    }
}
