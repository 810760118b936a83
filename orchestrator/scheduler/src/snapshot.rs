//! Nodes with what their pods hold, kept up to date change by change. Pods that were given a node count
//! from the moment of the decision. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::demand::{Demand, HostPort};
use super::index::{Index, NodeId, Placed};
use super::node::NodeRow;
use super::pod::{PodKey, PodRow};
use super::resources::Resources;

/// A pod's place in the table of pods.
pub type PodId = usize;

/// All nodes and pods.
#[derive(Default)]
pub struct Snapshot {
    nodes: Vec<Slot>,
    by_name: BTreeMap<String, NodeId>,
    free_nodes: Vec<NodeId>,
    pods: Vec<Option<PodSlot>>,
    by_key: BTreeMap<PodKey, PodId>,
    free_pods: Vec<PodId>,
    index: Index,
    log: Log,
    /// How many nodes have each image.
    images: BTreeMap<String, i64>,
    live: usize,
    /// Nodes for which pods are nominated.
    nominated: BTreeMap<NodeId, BTreeSet<PodId>>,
    /// How many placed pods use each claim.
    claims: BTreeMap<PodKey, u32>,
}

/// A node's name, what it offers if it is there, and what is on it.
#[derive(Default)]
pub struct Slot {
    name: String,
    row: Option<Arc<NodeRow>>,
    usage: Usage,
    /// Changes with the row, the usage and the nominations.
    generation: u64,
    /// For breaking ties.
    draw: u64,
}

struct PodSlot {
    row: PodRow,
    placed: Option<Placed>,
    /// Decided but not yet seen bound.
    assumed: Option<NodeId>,
    /// Others were stopped for it there.
    nominated: Option<NodeId>,
    /// It is being stopped, which its row does not say yet.
    stopping: bool,
}

/// What the pods of a node hold.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub requested: Resources,
    /// With a small amount for pods that ask for nothing, so that they count in scores.
    pub load: Resources,
    pub ports: Vec<HostPort>,
    pub pods: Vec<PodId>,
}

/// A node and what its pods hold.
#[derive(Clone, Copy)]
pub struct NodeView<'a> {
    pub node: &'a NodeRow,
    pub usage: &'a Usage,
}

/// Which nodes changed, in order.
#[derive(Default)]
struct Log {
    /// The position of the first that is kept.
    base: u64,
    changed: Vec<NodeId>,
}

/// What a pod that asks for nothing counts as in scores.
const NOMINAL_CPU: i64 = 100;
const NOMINAL_MEMORY: i64 = 200 << 20;

impl Usage {
    pub fn add(&mut self, pod: PodId, demand: &Demand) {
        self.pods.push(pod);
        self.requested.add(&demand.local.requests);
        self.load.add(&nominal(&demand.local.requests));
        self.ports.extend(demand.local.ports.iter().cloned());
    }

    pub fn remove(&mut self, pod: PodId, demand: &Demand) {
        let Some(at) = self.pods.iter().position(|held| *held == pod) else {
            return;
        };
        self.pods.swap_remove(at);
        self.requested.subtract(&demand.local.requests);
        self.load.subtract(&nominal(&demand.local.requests));
        for port in &demand.local.ports {
            if let Some(at) = self.ports.iter().position(|held| held == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}

impl Snapshot {
    /// Takes in a node; what it was before, if it is not as it was.
    pub fn upsert_node(&mut self, row: NodeRow) -> Option<Option<Arc<NodeRow>>> {
        let id = self.slot(&row.name);
        let old = self.nodes[id].row.clone();
        if old.as_deref() == Some(&row) {
            return None;
        }
        let moved = old.as_ref().is_none_or(|old| {
            old.labels != row.labels
                || old.taints != row.taints
                || old.unschedulable != row.unschedulable
        });
        let row = Arc::new(row);
        self.count_images(old.as_deref(), Some(&row));
        self.live += usize::from(old.is_none());
        self.nodes[id].row = Some(row.clone());
        if moved {
            self.index.set_node(id, Some(&row));
        }
        self.touch(id);
        Some(old)
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.by_name.get(name).copied() else {
            return;
        };
        if let Some(old) = self.nodes[id].row.take() {
            self.count_images(Some(&old), None);
            self.live -= 1;
            self.index.set_node(id, None);
            self.touch(id);
        }
        self.free_if_unused(id);
    }

    pub fn node_names(&self) -> Vec<String> {
        let live = self.nodes.iter().filter(|slot| slot.row.is_some());
        live.map(|slot| slot.name.clone()).collect()
    }

    /// How many nodes there are.
    pub fn live_nodes(&self) -> usize {
        self.live
    }

    /// The size of tables by node.
    pub fn width(&self) -> usize {
        self.nodes.len()
    }

    pub fn node_id(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    pub fn node_name(&self, id: NodeId) -> &str {
        &self.nodes[id].name
    }

    pub fn generation(&self, id: NodeId) -> u64 {
        self.nodes[id].generation
    }

    pub fn draw(&self, id: NodeId) -> u64 {
        self.nodes[id].draw
    }

    /// The node, if it is there.
    pub fn view(&self, id: NodeId) -> Option<NodeView<'_>> {
        let slot = self.nodes.get(id)?;
        let node = slot.row.as_deref()?;
        Some(NodeView {
            node,
            usage: &slot.usage,
        })
    }

    /// Whether a placed pod uses the claim.
    pub fn uses_claim(&self, claim: &PodKey) -> bool {
        self.claims.contains_key(claim)
    }

    /// How many nodes have the image.
    pub fn image_nodes(&self, image: &str) -> i64 {
        self.images.get(image).copied().unwrap_or(0)
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    pub fn index_mut(&mut self) -> &mut Index {
        &mut self.index
    }

    /// The position of the log now.
    pub fn position(&self) -> u64 {
        self.log.base + self.log.changed.len() as u64
    }

    /// The nodes that changed since `position`; none if that is not known any more.
    pub fn changed_since(&self, position: u64) -> Option<&[NodeId]> {
        let from = position.checked_sub(self.log.base)?;
        self.log.changed.get(usize::try_from(from).ok()?..)
    }

    /// Takes in a pod unless a newer state of it is known; gives back whether it was taken.
    pub fn upsert_pod(&mut self, row: PodRow) -> bool {
        let Some(id) = self.by_key.get(&row.key).copied() else {
            let id = self.free_pods.pop().unwrap_or_else(|| {
                self.pods.push(None);
                self.pods.len() - 1
            });
            self.by_key.insert(row.key.clone(), id);
            self.pods[id] = Some(PodSlot {
                row,
                placed: None,
                assumed: None,
                nominated: None,
                stopping: false,
            });
            self.settle(id);
            return true;
        };
        let Some(slot) = self.pods[id].as_mut() else {
            return false;
        };
        let same = slot.row.uid == row.uid;
        if same && slot.row.revision >= row.revision {
            return false;
        }
        let assumed = slot.assumed.map(|node| self.nodes[node].name.as_str());
        if same
            && slot.placed.is_some()
            && assumed == Some(row.node.as_str())
            && slot.row.demand == row.demand
            && slot.row.terminating == row.terminating
            && !row.finished
        {
            // Bound as it was decided: it counts already.
            slot.assumed = None;
            let demand = slot.row.demand.clone();
            slot.row = PodRow { demand, ..row };
            return true;
        }
        if same && slot.row.holds_the_same(&row) && slot.row.nominated == row.nominated {
            let demand = slot.row.demand.clone();
            slot.row = PodRow { demand, ..row };
            if slot.row.is_settled() && slot.row.node.is_empty() && slot.assumed.is_some() {
                self.release(id);
            }
            return true;
        }
        if !same || !row.node.is_empty() || !row.wants_node {
            self.release(id);
        } else {
            self.lift(id);
        }
        if let Some(slot) = self.pods[id].as_mut() {
            slot.row = row;
            slot.stopping &= same;
        }
        self.settle(id);
        true
    }

    /// Forgets a pod; the node that has more room now.
    pub fn remove_pod(&mut self, key: &PodKey) -> Option<NodeId> {
        let id = self.by_key.remove(key)?;
        let held = self.placed(id);
        self.release(id);
        self.nominate_id(id, None);
        self.pods[id] = None;
        self.free_pods.push(id);
        held
    }

    pub fn pod(&self, key: &PodKey) -> Option<&PodRow> {
        self.row(*self.by_key.get(key)?)
    }

    pub fn pod_id(&self, key: &PodKey) -> Option<PodId> {
        self.by_key.get(key).copied()
    }

    pub fn row(&self, id: PodId) -> Option<&PodRow> {
        self.pods.get(id)?.as_ref().map(|slot| &slot.row)
    }

    pub fn pod_keys(&self) -> Vec<PodKey> {
        self.by_key.keys().cloned().collect()
    }

    /// The node that the pod counts on.
    pub fn placed(&self, id: PodId) -> Option<NodeId> {
        self.pods
            .get(id)?
            .as_ref()?
            .placed
            .as_ref()
            .map(|placed| placed.node)
    }

    /// From now on the pod counts on `node`.
    pub fn assume(&mut self, id: PodId, node: NodeId) {
        self.release(id);
        self.nominate_id(id, None);
        if let Some(slot) = self.pods[id].as_mut() {
            slot.assumed = Some(node);
        }
        self.settle(id);
    }

    /// The decision came to nothing. The node that has more room now.
    pub fn forget(&mut self, key: &PodKey, uid: &str) -> Option<NodeId> {
        let id = self.by_key.get(key).copied()?;
        let slot = self.pods[id].as_ref().filter(|slot| slot.row.uid == uid)?;
        slot.assumed?;
        let held = self.placed(id);
        self.release(id);
        self.settle(id);
        held
    }

    /// Whether the pod waits for a decision.
    pub fn is_waiting(&self, key: &PodKey) -> bool {
        let slot = self.by_key.get(key).and_then(|id| self.pods[*id].as_ref());
        slot.is_some_and(|slot| {
            slot.row.wants_node && slot.row.node.is_empty() && slot.assumed.is_none()
        })
    }

    pub fn set_stopping(&mut self, key: &PodKey, stopping: bool) {
        let id = self.by_key.get(key).copied();
        if let Some(slot) = id.and_then(|id| self.pods[id].as_mut()) {
            slot.stopping = stopping;
        }
    }

    /// Whether the pod is on its way out.
    pub fn is_leaving(&self, id: PodId) -> bool {
        let slot = self.pods.get(id).and_then(Option::as_ref);
        slot.is_some_and(|slot| slot.row.terminating || slot.stopping)
    }

    /// Where the pod is nominated.
    pub fn nomination(&self, id: PodId) -> Option<NodeId> {
        self.pods.get(id)?.as_ref()?.nominated
    }

    /// Room on `node` is being made for the pod; none: no more.
    pub fn nominate(&mut self, id: PodId, node: Option<NodeId>) {
        self.nominate_id(id, node);
    }

    /// The pods for which room is being made on the node.
    pub fn nominated_on(&self, node: NodeId) -> impl Iterator<Item = PodId> {
        self.nominated.get(&node).into_iter().flatten().copied()
    }

    /// Takes the pod off its node for a trial; `put_back` ends it.
    pub fn take_off(&mut self, id: PodId) -> Option<NodeId> {
        let node = self.placed(id);
        self.lift(id);
        node
    }

    /// Puts a pod on a node for a trial, or back.
    pub fn put_on(&mut self, id: PodId, node: NodeId) {
        self.occupy(id, node);
    }

    /// What is on the node, with the nominated pods that are at least as important as `priority`.
    pub fn promised(&self, node: NodeId, priority: i32) -> Option<Usage> {
        let nominated = self.nominated.get(&node)?;
        let mut usage = self.nodes[node].usage.clone();
        let mut any = false;
        for id in nominated {
            let Some(row) = self.row(*id).filter(|row| row.priority() >= priority) else {
                continue;
            };
            usage.add(*id, &row.demand);
            any = true;
        }
        any.then_some(usage)
    }

    fn slot(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = self.free_nodes.pop().unwrap_or_else(|| {
            self.nodes.push(Slot::default());
            self.nodes.len() - 1
        });
        self.nodes[id] = Slot {
            name: name.to_owned(),
            generation: self.nodes[id].generation,
            draw: draw(name),
            ..Slot::default()
        };
        self.by_name.insert(name.to_owned(), id);
        id
    }

    fn free_if_unused(&mut self, id: NodeId) {
        let slot = &self.nodes[id];
        if slot.row.is_none() && slot.usage.pods.is_empty() && !self.nominated.contains_key(&id) {
            self.by_name.remove(&slot.name);
            self.free_nodes.push(id);
        }
    }

    /// Counts a pod where its row or the decision says, and remembers its nomination.
    fn settle(&mut self, id: PodId) {
        let Some(slot) = self.pods[id].as_ref() else {
            return;
        };
        if slot.row.finished {
            self.nominate_id(id, None);
            return;
        }
        let (bound, nominated) = (slot.row.node.clone(), slot.row.nominated.clone());
        let node = match slot.assumed {
            Some(node) if bound.is_empty() => Some(node),
            _ if bound.is_empty() => None,
            _ => Some(self.slot(&bound)),
        };
        match node {
            Some(node) => {
                self.nominate_id(id, None);
                self.occupy(id, node);
            }
            None if nominated.is_empty() => {}
            None => {
                let node = self.by_name.get(&nominated).copied();
                self.nominate_id(id, node);
            }
        }
    }

    /// Takes the pod off the node that it counts on and forgets what was decided.
    fn release(&mut self, id: PodId) {
        self.lift(id);
        if let Some(slot) = self.pods[id].as_mut() {
            slot.assumed = None;
        }
    }

    fn occupy(&mut self, id: PodId, node: NodeId) {
        let Some(slot) = self.pods[id].as_mut() else {
            return;
        };
        let (demand, terminating) = (slot.row.demand.clone(), slot.row.terminating);
        self.nodes[node].usage.add(id, &demand);
        slot.placed = Some(self.index.place(node, &demand, terminating));
        for claim in &demand.claims {
            let key = (demand.namespace.clone(), claim.name.clone());
            *self.claims.entry(key).or_insert(0) += 1;
        }
        self.touch(node);
    }

    fn lift(&mut self, id: PodId) {
        let Some(slot) = self.pods[id].as_mut() else {
            return;
        };
        let Some(placed) = slot.placed.take() else {
            return;
        };
        let demand = slot.row.demand.clone();
        self.index.lift(&placed);
        for claim in &demand.claims {
            let key = (demand.namespace.clone(), claim.name.clone());
            if let Some(users) = self.claims.get_mut(&key) {
                *users -= 1;
                if *users == 0 {
                    self.claims.remove(&key);
                }
            }
        }
        self.nodes[placed.node].usage.remove(id, &demand);
        self.touch(placed.node);
        self.free_if_unused(placed.node);
    }

    fn nominate_id(&mut self, id: PodId, node: Option<NodeId>) {
        let Some(slot) = self.pods[id].as_mut() else {
            return;
        };
        let old = std::mem::replace(&mut slot.nominated, node);
        if old == node {
            return;
        }
        if let Some(old) = old {
            if let Some(pods) = self.nominated.get_mut(&old) {
                pods.remove(&id);
                if pods.is_empty() {
                    self.nominated.remove(&old);
                }
            }
            self.touch(old);
            self.free_if_unused(old);
        }
        if let Some(node) = node {
            self.nominated.entry(node).or_default().insert(id);
            self.touch(node);
        }
    }

    fn touch(&mut self, node: NodeId) {
        self.nodes[node].generation += 1;
        self.log.changed.push(node);
        let most = 4 * self.nodes.len() + 4096;
        if self.log.changed.len() > most {
            self.log.base += self.log.changed.len() as u64;
            self.log.changed.clear();
        }
    }

    fn count_images(&mut self, old: Option<&NodeRow>, new: Option<&NodeRow>) {
        let (old, new) = (old.map(|row| &row.images), new.map(|row| &row.images));
        if old == new {
            return;
        }
        for name in old.into_iter().flatten().map(|(name, _)| name) {
            if let Some(count) = self.images.get_mut(name) {
                *count -= 1;
            }
        }
        for name in new.into_iter().flatten().map(|(name, _)| name) {
            *self.images.entry(name.clone()).or_insert(0) += 1;
        }
        self.images.retain(|_, count| *count > 0);
    }
}

/// A number of a text, evenly spread (FNV-1a, mixed).
pub fn draw(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The amounts that scores count for a pod.
pub fn nominal(requests: &Resources) -> Resources {
    let or = |amount: i64, nominal: i64| if amount == 0 { nominal } else { amount };
    Resources {
        cpu: or(requests.cpu, NOMINAL_CPU),
        memory: or(requests.memory, NOMINAL_MEMORY),
        other: requests.other.clone(),
    }
}
