//! Nodes with what their pods hold, kept up to date change by change. Pods that were given a node
//! count from the moment of the decision. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Taint};

use super::pod::{HostPort, PodKey, PodRow};
use super::resources::Resources;

/// All nodes and pods.
#[derive(Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeRow>,
    pods: BTreeMap<PodKey, PodRow>,
    /// Decided but not yet seen bound: the node, by the pod's key and uid.
    assumed: BTreeMap<(PodKey, String), String>,
    usage: BTreeMap<String, Usage>,
}

/// What a node offers.
#[derive(Clone, Debug, Default)]
pub struct NodeRow {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub max_pods: i64,
}

/// What the pods of a node hold.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub requested: Resources,
    /// With a small amount for pods that ask for nothing, so that they count in scores.
    pub load: Resources,
    pub ports: Vec<HostPort>,
    pub pods: BTreeSet<PodKey>,
    /// Pods by family.
    pub families: BTreeMap<String, i64>,
}

/// A node and what its pods hold.
#[derive(Clone, Copy)]
pub struct NodeView<'a> {
    pub node: &'a NodeRow,
    pub usage: &'a Usage,
}

/// What a pod that asks for nothing counts as in scores.
const NOMINAL_CPU: i64 = 100;
const NOMINAL_MEMORY: i64 = 200 << 20;

impl Snapshot {
    /// Takes in a node; true if pods that had no place may have one now.
    pub fn upsert_node(&mut self, node: NodeRow) -> bool {
        let old = self.nodes.insert(node.name.clone(), node.clone());
        old.is_none_or(|old| {
            old.labels != node.labels
                || old.taints != node.taints
                || old.unschedulable != node.unschedulable
                || old.allocatable != node.allocatable
                || old.max_pods != node.max_pods
        })
    }

    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    pub fn node_names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// Takes in a pod unless a newer state of it is known; gives back whether it was taken.
    pub fn upsert_pod(&mut self, pod: PodRow) -> bool {
        let known = self.pods.get(&pod.key);
        if known.is_some_and(|known| known.uid == pod.uid && known.revision >= pod.revision) {
            return false;
        }
        let replaced = known
            .filter(|known| known.uid != pod.uid)
            .map(|known| known.uid.clone());
        self.release(&pod.key);
        if let Some(uid) = replaced {
            self.assumed.remove(&(pod.key.clone(), uid));
        }
        if !pod.node.is_empty() || !pod.wants_node {
            self.assumed.remove(&(pod.key.clone(), pod.uid.clone()));
        }
        let key = pod.key.clone();
        self.pods.insert(key.clone(), pod);
        self.occupy(&key);
        true
    }

    /// Forgets a pod; true if that makes room on a node.
    pub fn remove_pod(&mut self, key: &PodKey) -> bool {
        let held = self.release(key);
        if let Some(pod) = self.pods.remove(key) {
            self.assumed.remove(&(pod.key, pod.uid));
        }
        held
    }

    pub fn pod(&self, key: &PodKey) -> Option<&PodRow> {
        self.pods.get(key)
    }

    pub fn pod_keys(&self) -> Vec<PodKey> {
        self.pods.keys().cloned().collect()
    }

    /// From now on the pod counts on `node`.
    pub fn assume(&mut self, key: &PodKey, node: &str) {
        self.release(key);
        if let Some(pod) = self.pods.get(key) {
            self.assumed
                .insert((key.clone(), pod.uid.clone()), node.to_owned());
        }
        self.occupy(key);
    }

    /// The decision came to nothing. True if that makes room.
    pub fn forget(&mut self, key: &PodKey, uid: &str) -> bool {
        let held = self.release(key);
        self.assumed.remove(&(key.clone(), uid.to_owned()));
        self.occupy(key);
        held
    }

    /// Whether the pod waits for a decision.
    pub fn is_waiting(&self, key: &PodKey) -> bool {
        self.pods
            .get(key)
            .is_some_and(|pod| pod.wants_node && self.place(pod).is_empty())
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        static NONE: std::sync::LazyLock<Usage> = std::sync::LazyLock::new(Usage::default);
        self.nodes.values().map(|node| NodeView {
            node,
            usage: self.usage.get(&node.name).unwrap_or(&NONE),
        })
    }

    /// The node that the pod counts on: its own, or the decided one.
    fn place<'a>(&'a self, pod: &'a PodRow) -> &'a str {
        if !pod.node.is_empty() {
            return &pod.node;
        }
        let assumed = self.assumed.get(&(pod.key.clone(), pod.uid.clone()));
        assumed.map_or("", String::as_str)
    }

    fn occupy(&mut self, key: &PodKey) {
        let Some(pod) = self.pods.get(key).filter(|pod| !pod.finished) else {
            return;
        };
        let node = self.place(pod).to_owned();
        if node.is_empty() {
            return;
        }
        let usage = self.usage.entry(node).or_default();
        if usage.pods.insert(key.clone()) {
            usage.requested.add(&pod.requests);
            usage.load.add(&nominal(&pod.requests));
            usage.ports.extend(pod.ports.iter().cloned());
            if !pod.family.is_empty() {
                *usage.families.entry(pod.family.clone()).or_insert(0) += 1;
            }
        }
    }

    /// Takes the pod off the node that it counts on; true if it did on one.
    fn release(&mut self, key: &PodKey) -> bool {
        let Some(pod) = self.pods.get(key) else {
            return false;
        };
        let node = self.place(pod).to_owned();
        let Some(usage) = self.usage.get_mut(&node) else {
            return false;
        };
        if !usage.pods.remove(key) {
            return false;
        }
        usage.requested.subtract(&pod.requests);
        usage.load.subtract(&nominal(&pod.requests));
        for port in &pod.ports {
            if let Some(index) = usage.ports.iter().position(|held| held == port) {
                usage.ports.swap_remove(index);
            }
        }
        if let Some(count) = usage.families.get_mut(&pod.family) {
            *count -= 1;
        }
        usage.families.retain(|_, count| *count > 0);
        if usage.pods.is_empty() {
            self.usage.remove(&node);
        }
        true
    }
}

/// The amounts that scores count for a pod.
pub fn nominal(requests: &Resources) -> Resources {
    let or = |amount: i64, nominal: i64| if amount == 0 { nominal } else { amount };
    Resources {
        cpu: or(requests.cpu, NOMINAL_CPU),
        memory: or(requests.memory, NOMINAL_MEMORY),
        other: BTreeMap::new(),
    }
}

impl From<Node> for NodeRow {
    fn from(node: Node) -> Self {
        let spec = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let ready = status
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == "Ready");
        let mut taints = spec.taints.unwrap_or_default();
        let tainted = taints
            .iter()
            .any(|taint| taint.key == NOT_READY || taint.key == UNREACHABLE);
        if ready.is_none_or(|c| c.status != "True") && !tainted {
            // The controller's taint may come a moment later; nothing is placed in between.
            taints.push(Taint {
                key: NOT_READY.to_owned(),
                effect: "NoSchedule".to_owned(),
                ..Taint::default()
            });
        }
        let mut allocatable =
            Resources::from_quantities(&status.allocatable.or(status.capacity).unwrap_or_default());
        let max_pods = allocatable.other.remove("pods").unwrap_or(DEFAULT_PODS);
        Self {
            name: node.metadata.name.unwrap_or_default(),
            labels: node.metadata.labels.unwrap_or_default(),
            taints,
            unschedulable: spec.unschedulable == Some(true),
            allocatable,
            max_pods,
        }
    }
}

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// For a node that does not say.
const DEFAULT_PODS: i64 = 110;
