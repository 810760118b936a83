//! The scheduler as a state machine without I/O: changes and outcomes in, orders out. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::cycle::{Decision, decide};
use super::pod::{PodKey, PodRow};
use super::queue::Queue;
use super::snapshot::{NodeRow, Snapshot};

/// One delivery of a watch.
#[derive(Debug)]
pub enum Change {
    Pods { items: Vec<PodRow>, revision: u64 },
    Pod(PodRow),
    PodGone(PodKey),
    Nodes(Vec<NodeRow>),
    Node(NodeRow),
    NodeGone(String),
}

/// What is to be done for one pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    Bind {
        key: PodKey,
        uid: String,
        node: String,
    },
    /// Tell why it waits; `changed` if its condition does not say so yet.
    Explain {
        key: PodKey,
        uid: String,
        message: String,
        changed: bool,
    },
}

/// How a bind ended.
#[derive(Debug)]
pub enum Bound {
    Done,
    /// It failed, and this is the pod as the server has it now.
    Failed(Option<Box<PodRow>>),
}

/// The scheduler's state.
#[derive(Default)]
pub struct Engine {
    snapshot: Snapshot,
    queue: Queue,
    pods_listed: bool,
    nodes_listed: bool,
}

impl Engine {
    /// Takes in what a watch delivered.
    pub fn apply(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::Pods { items, revision } => self.replace_pods(items, revision, now),
            Change::Pod(pod) => self.upsert_pod(pod, now),
            Change::PodGone(key) => self.remove_pod(&key, now),
            Change::Nodes(nodes) => {
                for name in self.snapshot.node_names() {
                    if !nodes.iter().any(|node| node.name == name) {
                        self.snapshot.remove_node(&name);
                    }
                }
                nodes
                    .into_iter()
                    .for_each(|node| self.upsert_node(node, now));
                self.nodes_listed = true;
            }
            Change::Node(node) => self.upsert_node(node, now),
            Change::NodeGone(name) => self.snapshot.remove_node(&name),
        }
    }

    /// The next order. Nothing is decided before all pods and nodes are known.
    pub fn next(&mut self, now: Timestamp) -> Option<Order> {
        if !self.pods_listed || !self.nodes_listed {
            return None;
        }
        while let Some(key) = self.queue.pop(now) {
            let Some(pod) = self.snapshot.pod(&key) else {
                self.queue.remove(&key);
                continue;
            };
            if !self.snapshot.is_waiting(&key) {
                self.queue.remove(&key);
                continue;
            }
            let uid = pod.uid.clone();
            match decide(&self.snapshot, pod) {
                Decision::Bind { node } => {
                    self.snapshot.assume(&key, &node);
                    return Some(Order::Bind { key, uid, node });
                }
                Decision::Unschedulable { message } => {
                    let changed = pod.told.as_deref() != Some(message.as_str());
                    self.queue.refused(&key, now);
                    return Some(Order::Explain {
                        key,
                        uid,
                        message,
                        changed,
                    });
                }
            }
        }
        None
    }

    /// A bind ended. After a failure the pod's true state is taken in before its place is given up.
    pub fn bound(&mut self, key: &PodKey, uid: &str, outcome: Bound, now: Timestamp) {
        match outcome {
            Bound::Done => self.queue.remove(key),
            Bound::Failed(found) => {
                if let Some(pod) = found {
                    self.upsert_pod(*pod, now);
                }
                if self.snapshot.forget(key, uid) {
                    self.queue.wake(now);
                }
                if self.snapshot.is_waiting(key) {
                    self.queue.failed(key, now);
                } else {
                    self.queue.remove(key);
                }
            }
        }
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.queue.next_deadline()
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn replace_pods(&mut self, items: Vec<PodRow>, revision: u64, now: Timestamp) {
        let listed: BTreeSet<PodKey> = items.iter().map(|pod| pod.key.clone()).collect();
        for key in self.snapshot.pod_keys() {
            let known = self.snapshot.pod(&key).map_or(0, |pod| pod.revision);
            if known <= revision && !listed.contains(&key) {
                self.remove_pod(&key, now);
            }
        }
        items.into_iter().for_each(|pod| self.upsert_pod(pod, now));
        self.pods_listed = true;
    }

    fn upsert_pod(&mut self, pod: PodRow, now: Timestamp) {
        let (key, priority) = (pod.key.clone(), pod.priority);
        let replaced = self
            .snapshot
            .pod(&key)
            .is_some_and(|known| known.uid != pod.uid);
        let known = self.snapshot.pod(&key);
        let asks_anew = known.is_some_and(|known| !known.asks_the_same(&pod));
        let frees = (pod.finished || replaced) && !self.snapshot.is_waiting(&key);
        if !self.snapshot.upsert_pod(pod) {
            return;
        }
        if replaced {
            self.queue.remove(&key);
        }
        if frees {
            self.queue.wake(now);
        }
        if self.snapshot.is_waiting(&key) {
            self.queue.add(key.clone(), priority);
            if asks_anew {
                self.queue.wake_one(&key, now);
            }
        } else if self.snapshot.pod(&key).is_some_and(PodRow::is_settled) {
            self.queue.remove(&key);
        }
    }

    fn remove_pod(&mut self, key: &PodKey, now: Timestamp) {
        self.queue.remove(key);
        if self.snapshot.remove_pod(key) {
            self.queue.wake(now);
        }
    }

    fn upsert_node(&mut self, node: NodeRow, now: Timestamp) {
        if self.snapshot.upsert_node(node) {
            self.queue.wake(now);
        }
    }
}

#[cfg(test)]
mod tests;
