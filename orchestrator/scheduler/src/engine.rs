//! The scheduler as a state machine without I/O: changes and outcomes in, orders out. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::cycle::{Cycle, Decision};
use super::hints::{self, Event};
use super::index::NodeId;
use super::node::NodeRow;
use super::pod::{PodKey, PodRow};
use super::preempt::{Budget, Preemption};
use super::profile::Config;
use super::queue::{Pauses, Queue};
use super::snapshot::Snapshot;
use super::volumes::{ClaimRow, ClassRow, Plan, VolumeRow};
use consultation::{Consultations, Proposal};

mod consultation;

/// One delivery of a watch.
#[derive(Debug)]
pub enum Change {
    Pods { items: Vec<PodRow>, revision: u64 },
    Pod(PodRow),
    PodGone(PodKey),
    Nodes(Vec<NodeRow>),
    Node(NodeRow),
    NodeGone(String),
    Namespaces(Vec<(String, BTreeMap<String, String>)>),
    Namespace(String, BTreeMap<String, String>),
    NamespaceGone(String),
    Budgets(Vec<Budget>),
    Budget(Budget),
    BudgetGone(PodKey),
    Storage(StorageChange),
}

/// A change of what volumes depend on.
#[derive(Debug)]
pub enum StorageChange {
    Claims(Vec<ClaimRow>),
    Claim(ClaimRow),
    ClaimGone(PodKey),
    Volumes(Vec<VolumeRow>),
    Volume(VolumeRow),
    VolumeGone(String),
    Classes(Vec<ClassRow>),
    Class(ClassRow),
    ClassGone(String),
    /// By node, and there by driver.
    AllLimits(BTreeMap<String, BTreeMap<String, i64>>),
    Limits(String, BTreeMap<String, i64>),
    LimitsGone(String),
}

/// What is to be done for one pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    Bind {
        key: PodKey,
        uid: String,
        node: String,
    },
    /// Write what makes the pod's volumes come to the node; it is bound once its claims are.
    Prepare {
        key: PodKey,
        uid: String,
        node: String,
        plan: Plan,
    },
    Explain(Explanation),
    /// Ask extenders about these nodes; the answer comes by `consulted`.
    Consult {
        key: PodKey,
        uid: String,
        nodes: Vec<String>,
    },
    /// Ask extenders whether these pods may be stopped; the answer comes by `agreed`.
    ConsultPreemption {
        key: PodKey,
        uid: String,
        node: String,
        victims: Vec<(PodKey, String)>,
        violations: usize,
    },
}

/// Why a pod waits, and what is done about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    pub key: PodKey,
    pub uid: String,
    pub message: String,
    /// No node was looked at: something failed.
    pub is_error: bool,
    /// Its condition does not say so yet.
    pub changed: bool,
    /// The node for which it is nominated from now on; empty: for none any more.
    pub nominated: Option<String>,
    /// Pods to be stopped for it.
    pub victims: Vec<Victim>,
    /// Less important pods that are not nominated for that node any more.
    pub demoted: Vec<(PodKey, String)>,
}

/// A pod to be stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Victim {
    pub key: PodKey,
    pub uid: String,
    /// The name of the preemptor's profile, as the condition tells it.
    pub scheduler: String,
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
    cycle: Cycle,
    /// Pods that have a node and wait for their volumes.
    preparing: BTreeMap<PodKey, Preparing>,
    /// Pods that are being stopped, and until when that has to show; the first is due first.
    stopping: VecDeque<(Timestamp, PodKey)>,
    /// What has happened since pods were last woken.
    news: News,
    consultations: Consultations,
    pods_listed: bool,
    nodes_listed: bool,
}

/// A pod that waits for its volumes.
struct Preparing {
    uid: String,
    node: String,
    /// Claims for which volumes are made.
    asked: Vec<PodKey>,
    /// Those of them that are seen to be selected for the node.
    seen: BTreeSet<PodKey>,
    deadline: Timestamp,
}

/// What may help pods that wait.
#[derive(Default)]
struct News {
    /// Plugins whose answers for any node may be others now, by their bits.
    anywhere: u32,
    /// Nodes on which what is held has changed.
    nodes: BTreeSet<NodeId>,
}

/// A deletion that has not shown by then has failed.
const STOPPING_TIMEOUT: SignedDuration = SignedDuration::from_secs(5);

impl Engine {
    pub fn new(config: Config) -> Self {
        let pauses = Pauses {
            first_ms: config.first_pause_ms,
            longest_ms: config.longest_pause_ms,
        };
        Self {
            queue: Queue::new(pauses),
            cycle: Cycle::new(config),
            ..Self::default()
        }
    }

    /// Takes in what a watch delivered.
    pub fn apply(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::Pods { items, revision } => self.replace_pods(items, revision, now),
            Change::Pod(pod) => self.upsert_pod(pod, now),
            Change::PodGone(key) => self.remove_pod(&key),
            Change::Nodes(nodes) => self.replace_nodes(nodes),
            Change::Node(node) => self.upsert_node(node),
            Change::NodeGone(name) => self.remove_node(&name),
            Change::Namespaces(all) => {
                let listed: BTreeSet<&String> = all.iter().map(|(name, _)| name).collect();
                let mut known = self.snapshot.index().namespace_names();
                known.retain(|name| !listed.contains(name));
                known.iter().for_each(|name| self.set_namespace(name, None));
                for (name, labels) in all {
                    self.set_namespace(&name, Some(labels));
                }
            }
            Change::Namespace(name, labels) => self.set_namespace(&name, Some(labels)),
            Change::NamespaceGone(name) => self.set_namespace(&name, None),
            Change::Budgets(all) => self.cycle.budgets.replace(all),
            Change::Budget(budget) => self.cycle.budgets.set(budget),
            Change::BudgetGone(key) => self.cycle.budgets.remove(&key),
            Change::Storage(change) => self.storage(change),
        }
    }

    /// The next order. Nothing is decided before all pods and nodes are known.
    pub fn next(&mut self, now: Timestamp) -> Option<Order> {
        if !self.pods_listed || !self.nodes_listed {
            return None;
        }
        self.wake(now);
        if let Some(explanation) = self.consultations.told.pop_front() {
            return Some(Order::Explain(explanation));
        }
        if let Some(order) = self.prepared(now) {
            return Some(order);
        }
        while let Some(key) = self.queue.pop(now) {
            let id = self
                .snapshot
                .pod_id(&key)
                .filter(|_| self.snapshot.is_waiting(&key));
            let Some((id, uid)) = id.and_then(|id| Some((id, self.snapshot.row(id)?.uid.clone())))
            else {
                self.queue.remove(&key);
                continue;
            };
            let heard = self.consultations.heard(&key, &uid);
            match self.cycle.decide_hearing(&mut self.snapshot, id, heard) {
                Decision::Consult { nodes } => {
                    let names = nodes.iter().map(|node| self.snapshot.node_name(*node));
                    let nodes = names.map(str::to_owned).collect();
                    return Some(Order::Consult { key, uid, nodes });
                }
                Decision::Bind { node, volumes } => {
                    self.consultations.end(&key);
                    self.snapshot.assume(id, node);
                    self.note(Event::PodPlaced, Some(node));
                    let node = self.snapshot.node_name(node).to_owned();
                    return Some(self.place(key, uid, node, volumes, now));
                }
                Decision::Unschedulable {
                    message,
                    by,
                    preemption,
                    keeps_nomination,
                } => {
                    if let Some(preemption) = &preemption
                        && let Some(order) = self.ask_before(&key, &uid, preemption)
                    {
                        let proposal = Proposal {
                            uid,
                            message,
                            by,
                            preemption: preemption.clone(),
                        };
                        self.consultations.propose(key, proposal);
                        return Some(order);
                    }
                    self.consultations.end(&key);
                    self.refused(&key, by, now);
                    let explanation = self.explain(key, message, preemption, keeps_nomination, now);
                    return Some(Order::Explain(explanation));
                }
            }
        }
        None
    }

    /// A bind ended. After a failure the pod's true state is taken in before its place is given up.
    pub fn bound(&mut self, key: &PodKey, uid: &str, outcome: Bound, now: Timestamp) {
        match outcome {
            Bound::Done => {
                self.queue.remove(key);
                self.forget_volumes(key);
            }
            Bound::Failed(found) => {
                self.forget_volumes(key);
                if let Some(pod) = found {
                    self.upsert_pod(*pod, now);
                }
                if let Some(node) = self.snapshot.forget(key, uid) {
                    self.note(Event::PodGone, Some(node));
                }
                if self.snapshot.is_waiting(key) {
                    self.queue.failed(key, now);
                } else {
                    self.queue.remove(key);
                }
            }
        }
    }

    /// How many pods wait in each queue.
    pub fn waiting(&self) -> [(&'static str, usize); 3] {
        self.queue.lengths()
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        let volumes = self.preparing.values().map(|it| it.deadline).min();
        let stopping = self.stopping.front().map(|(until, _)| *until);
        let queue = self.queue.next_deadline();
        queue.into_iter().chain(volumes).chain(stopping).min()
    }

    /// What decisions are made with.
    pub(super) fn into_parts(self) -> (Cycle, Snapshot) {
        (self.cycle, self.snapshot)
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The pod waits for a change.
    fn refused(&mut self, key: &PodKey, by: u32, now: Timestamp) {
        let row = self.snapshot.pod(key);
        let demand = row.map(|row| row.demand.clone()).unwrap_or_default();
        self.queue.refused(key, by, demand, now);
    }

    fn explain(
        &mut self,
        key: PodKey,
        message: String,
        preemption: Option<Preemption>,
        keeps_nomination: bool,
        now: Timestamp,
    ) -> Explanation {
        let id = self.snapshot.pod_id(&key);
        let row = id
            .and_then(|id| self.snapshot.row(id))
            .cloned()
            .unwrap_or_default();
        let mut explanation = Explanation {
            changed: row.told.as_deref() != Some(message.as_str()),
            uid: row.uid,
            key,
            message,
            is_error: false,
            nominated: None,
            victims: Vec::new(),
            demoted: Vec::new(),
        };
        let Some(id) = id else {
            return explanation;
        };
        let Some(preemption) = preemption else {
            if let Some(node) = self.snapshot.nomination(id).filter(|_| !keeps_nomination) {
                self.snapshot.nominate(id, None);
                explanation.nominated = Some(String::new());
                self.note(Event::NominationGone, Some(node));
            } else if !row.nominated.is_empty() && !keeps_nomination {
                explanation.nominated = Some(String::new());
            }
            return explanation;
        };
        let name = |id: &usize| {
            let row = self.snapshot.row(*id)?;
            Some((row.key.clone(), row.uid.clone()))
        };
        explanation.demoted = preemption.demoted.iter().filter_map(name).collect();
        let victims = preemption.victims.iter().filter_map(name);
        let victims = victims.map(|(key, uid)| Victim {
            key,
            uid,
            scheduler: row.demand.scheduler.clone(),
        });
        explanation.victims = victims.collect();
        for victim in &explanation.victims {
            let until = now + STOPPING_TIMEOUT;
            self.snapshot.set_stopping(&victim.key, true);
            self.stopping.push_back((until, victim.key.clone()));
        }
        explanation.nominated = Some(self.snapshot.node_name(preemption.node).to_owned());
        for other in preemption.demoted {
            self.snapshot.nominate(other, None);
            if let Some(key) = self.snapshot.row(other).map(|row| row.key.clone()) {
                self.queue.wake(&key, now);
            }
        }
        self.snapshot.nominate(id, Some(preemption.node));
        explanation
    }

    fn place(
        &mut self,
        key: PodKey,
        uid: String,
        node: String,
        plan: Plan,
        now: Timestamp,
    ) -> Order {
        if plan.is_empty() {
            return Order::Bind { key, uid, node };
        }
        self.cycle.volumes.assume(&plan);
        let row = self.snapshot.pod(&key);
        let timeout = row.map_or(0, |row| self.cycle.volumes_timeout_seconds(row));
        let waiting = Preparing {
            uid: uid.clone(),
            node: node.clone(),
            asked: plan.provision.clone(),
            seen: BTreeSet::new(),
            deadline: now + SignedDuration::from_secs(timeout),
        };
        self.preparing.insert(key.clone(), waiting);
        Order::Prepare {
            key,
            uid,
            node,
            plan,
        }
    }

    /// Binds a pod whose volumes are there, and gives up those whose volumes do not come.
    fn prepared(&mut self, now: Timestamp) -> Option<Order> {
        let mut failed = Vec::new();
        let mut done = None;
        for (key, it) in &mut self.preparing {
            let row = self.snapshot.pod(key).filter(|row| row.uid == it.uid);
            let volumes = &self.cycle.volumes;
            if done.is_none() && row.is_some_and(|row| volumes.all_bound(row)) {
                done = Some(key.clone());
                continue;
            }
            let mut given_up = row.is_none() || it.deadline <= now;
            for claim in &it.asked {
                match volumes.is_selected(claim, &it.node) {
                    Some(true) => drop(it.seen.insert(claim.clone())),
                    Some(false) => given_up |= it.seen.contains(claim),
                    None => given_up = true,
                }
            }
            if given_up {
                failed.push((key.clone(), it.uid.clone()));
            }
        }
        for (key, uid) in failed {
            self.bound(&key, &uid, Bound::Failed(None), now);
        }
        let key = done?;
        let it = self.preparing.remove(&key)?;
        Some(Order::Bind {
            key,
            uid: it.uid,
            node: it.node,
        })
    }

    fn forget_volumes(&mut self, key: &PodKey) {
        self.preparing.remove(key);
        if let Some(row) = self
            .snapshot
            .pod(key)
            .filter(|row| !row.demand.claims.is_empty())
        {
            self.cycle.volumes.forget(row);
        }
    }

    fn storage(&mut self, change: StorageChange) {
        let event = self.cycle.volumes.apply(change);
        self.note(event, None);
    }

    fn replace_pods(&mut self, items: Vec<PodRow>, revision: u64, now: Timestamp) {
        let listed: BTreeSet<PodKey> = items.iter().map(|pod| pod.key.clone()).collect();
        for key in self.snapshot.pod_keys() {
            let known = self.snapshot.pod(&key).map_or(0, |pod| pod.revision);
            if known <= revision && !listed.contains(&key) {
                self.remove_pod(&key);
            }
        }
        items.into_iter().for_each(|pod| self.upsert_pod(pod, now));
        self.pods_listed = true;
    }

    fn upsert_pod(&mut self, pod: PodRow, now: Timestamp) {
        let key = pod.key.clone();
        let known = self.snapshot.pod(&key);
        let replaced = known.is_some_and(|known| known.uid != pod.uid);
        let asks_anew = known.is_some_and(|known| !known.asks_the_same(&pod));
        let relabelled = asks_anew && !pod.node.is_empty();
        let id = self.snapshot.pod_id(&key);
        let before = id.and_then(|id| self.snapshot.placed(id));
        let nominated = id.and_then(|id| self.snapshot.nomination(id));
        let (ours, priority) = (self.cycle.is_ours(&pod), pod.priority());
        if !self.snapshot.upsert_pod(pod) {
            return;
        }
        if replaced {
            self.queue.remove(&key);
        }
        let id = self.snapshot.pod_id(&key);
        let after = id.and_then(|id| self.snapshot.placed(id));
        if let Some(node) = before.filter(|_| after != before || replaced) {
            self.note(Event::PodGone, Some(node));
        }
        if let Some(node) = after.filter(|_| after != before || relabelled) {
            self.note(Event::PodPlaced, Some(node));
        }
        if let Some(node) = nominated
            && id.and_then(|id| self.snapshot.nomination(id)) != Some(node)
            && after != Some(node)
        {
            self.note(Event::NominationGone, Some(node));
        }
        if ours && self.snapshot.is_waiting(&key) {
            self.queue.add(key.clone(), priority);
            if asks_anew {
                self.queue.wake(&key, now);
            }
        } else if self.snapshot.pod(&key).is_some_and(PodRow::is_settled) {
            self.queue.remove(&key);
        }
    }

    fn remove_pod(&mut self, key: &PodKey) {
        self.queue.remove(key);
        self.consultations.end(key);
        self.forget_volumes(key);
        let id = self.snapshot.pod_id(key);
        let nominated = id.and_then(|id| self.snapshot.nomination(id));
        if let Some(node) = self.snapshot.remove_pod(key) {
            self.note(Event::PodGone, Some(node));
        }
        if let Some(node) = nominated {
            self.note(Event::NominationGone, Some(node));
        }
    }

    fn replace_nodes(&mut self, nodes: Vec<NodeRow>) {
        let listed: BTreeSet<&String> = nodes.iter().map(|node| &node.name).collect();
        let mut gone = self.snapshot.node_names();
        gone.retain(|name| !listed.contains(name));
        gone.iter().for_each(|name| self.remove_node(name));
        nodes.into_iter().for_each(|node| self.upsert_node(node));
        self.nodes_listed = true;
    }

    fn upsert_node(&mut self, node: NodeRow) {
        let name = node.name.clone();
        let Some(old) = self.snapshot.upsert_node(node) else {
            return;
        };
        let id = self.snapshot.node_id(&name);
        let Some(new) = id
            .and_then(|id| self.snapshot.view(id))
            .map(|view| view.node.clone())
        else {
            return;
        };
        let Some(old) = old else {
            return self.note(Event::NodeAdded, None);
        };
        if old.labels != new.labels {
            self.note(Event::NodeLabels, None);
        }
        if old.taints != new.taints || old.unschedulable != new.unschedulable {
            self.note(Event::NodeTaints, None);
        }
        if old.allocatable != new.allocatable || old.max_pods != new.max_pods {
            self.note(Event::NodeAmounts, id);
        }
    }

    fn remove_node(&mut self, name: &str) {
        self.snapshot.remove_node(name);
        self.note(Event::NodeGone, None);
    }

    fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        if self.snapshot.index_mut().set_namespace(name, labels) {
            self.note(Event::NamespaceLabels, None);
        }
    }

    /// Notes what may help pods that wait.
    fn note(&mut self, event: Event, node: Option<NodeId>) {
        if !self.queue.has_refused() {
            return;
        }
        let concerned = hints::concerned(event);
        match node {
            None => self.news.anywhere |= concerned,
            Some(node) => {
                self.news.anywhere |= concerned & !hints::of_one_node();
                if concerned & hints::of_one_node() != 0 {
                    self.news.nodes.insert(node);
                }
            }
        }
    }

    /// Gives another turn to the pods that the news may help. Where only what is on some nodes has changed,
    /// these are asked first: for pods for which room is made there, and for one of each kind of the others.
    fn wake(&mut self, now: Timestamp) {
        self.forget_stopped(now);
        let news = std::mem::take(&mut self.news);
        for key in self.queue.refused_by(news.anywhere) {
            self.queue.wake(&key, now);
        }
        let of_one_node = hints::of_one_node();
        for node in &news.nodes {
            let promised: Vec<_> = self.snapshot.nominated_on(*node).collect();
            for id in promised {
                let key = self.snapshot.row(id).map(|row| row.key.clone());
                let key = key.filter(|key| self.queue.is_refused_by(key, of_one_node));
                if let Some(key) = key
                    && self.cycle.may_take_its_room(&mut self.snapshot, id)
                {
                    self.queue.wake(&key, now);
                }
            }
        }
        if news.nodes.is_empty() {
            return;
        }
        for key in self.queue.kinds_refused_by(of_one_node) {
            let id = self.snapshot.pod_id(&key);
            let fits = |id| self.cycle.may_fit(&mut self.snapshot, id, &news.nodes);
            if id.is_none_or(fits) {
                self.queue.wake_alike(&key, now);
            }
        }
    }

    /// What was to be stopped and does not show it in time is not being stopped.
    fn forget_stopped(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.stopping.pop_front_if(|(until, _)| *until <= now) {
            self.snapshot.set_stopping(&key, false);
            let id = self.snapshot.pod_id(&key);
            self.news
                .nodes
                .extend(id.and_then(|id| self.snapshot.placed(id)));
        }
    }
}

#[cfg(test)]
mod tests;
