//! All controllers as one state machine without I/O: changes and answers in, plans out. The shell
//! feeds it from watches and carries out its plans; the simulation feeds it from a seed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::action::Plan;
use super::object::{Key, Object};
use super::queue::{Outcome, Queue};
use super::task::{Task, tasks};
use super::world::{Change, Diff, World};
use super::{
    ControllersConfig, deployment, garbage, namespace, node_lifecycle, pod_cidr, pod_gc,
    replication, service,
};
use client::Kind;

/// The controllers' state.
pub struct Engine {
    world: World,
    queue: Queue<Task>,
    memory: Memory,
    config: ControllersConfig,
    in_sync: bool,
}

/// What no object carries.
struct Memory {
    started: Timestamp,
    /// By node: the lease's time of renewal, and when that was seen to change.
    renewed: BTreeMap<String, (Option<Timestamp>, Timestamp)>,
    /// By node uid: the shares that were written.
    shares_given: BTreeMap<String, Vec<String>>,
    missing_nodes: BTreeMap<String, Timestamp>,
    balancers: service::load_balancer::Memory,
    /// By set: why its last create failed.
    refused: BTreeMap<Task, String>,
}

/// How a plan ended.
#[derive(Clone, Debug)]
pub enum Ending {
    Done,
    /// An action failed; what it was and why.
    Failed {
        creating: bool,
        message: String,
    },
}

impl Engine {
    pub fn new(config: ControllersConfig, now: Timestamp) -> Self {
        Self {
            world: World::default(),
            queue: Queue::default(),
            memory: Memory {
                started: now,
                renewed: BTreeMap::new(),
                shares_given: BTreeMap::new(),
                missing_nodes: BTreeMap::new(),
                balancers: service::load_balancer::Memory::default(),
                refused: BTreeMap::new(),
            },
            config,
            in_sync: false,
        }
    }

    /// Takes in what a watch delivered.
    pub fn apply(&mut self, change: Change, now: Timestamp) {
        for diff in self.world.apply(change) {
            self.note(&diff, now);
        }
        if !self.in_sync && self.world.in_sync(Kind::watched()) {
            self.in_sync = true;
            self.queue.add(Task::PodCidr);
            self.queue.add(Task::PodGc);
            // What a Service left behind that was deleted while no controller ran.
            for endpoints in self.world.all(Kind::ENDPOINTS) {
                self.queue.add(Task::Endpoints(endpoints.key.clone()));
            }
        }
    }

    /// Forgets the objects of a custom kind that is served no more.
    pub fn forget(&mut self, kind: Kind, now: Timestamp) {
        for diff in self.world.forget(kind) {
            self.note(&diff, now);
        }
    }

    /// Takes in the object that the server answered a write with.
    pub fn answered(&mut self, object: Object, now: Timestamp) {
        if let Some(diff) = self.world.assume(object) {
            self.note(&diff, now);
        }
    }

    /// Takes in that a delete took effect at once.
    pub fn gone(&mut self, kind: Kind, key: &Key, uid: &str, now: Timestamp) {
        if let Some(diff) = self.world.assume_gone(kind, key, uid) {
            self.note(&diff, now);
        }
    }

    /// The next plan that asks for something. Nothing is planned before every watch has delivered.
    pub fn next(&mut self, now: Timestamp) -> Option<(Task, Plan)> {
        if !self.in_sync {
            return None;
        }
        while let Some(task) = self.queue.pop(now) {
            let plan = self.plan(&task, now);
            if let Some(wait) = plan.again {
                self.queue.add_at(task.clone(), now + wait);
            }
            if !plan.actions.is_empty() {
                return Some((task, plan));
            }
            self.queue.finish(&task, Outcome::Done, now);
        }
        None
    }

    /// A plan was carried out, or failed.
    pub fn finished(&mut self, task: &Task, ending: Ending, now: Timestamp) {
        let outcome = match ending {
            Ending::Done => {
                self.memory.refused.remove(task);
                Outcome::Done
            }
            Ending::Failed {
                creating: true,
                message,
            } => {
                self.memory.refused.insert(task.clone(), message);
                Outcome::Failed
            }
            Ending::Failed { .. } => Outcome::Failed,
        };
        self.queue.finish(task, outcome, now);
    }

    /// When something falls due by time alone.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.queue.next_deadline()
    }

    /// Nothing is due and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    fn note(&mut self, diff: &Diff, now: Timestamp) {
        self.memory.hear(diff, now);
        self.memory.forget(diff);
        let mut due = BTreeSet::new();
        tasks(&self.world, diff, &mut due);
        due.into_iter().for_each(|task| self.queue.add(task));
    }

    fn plan(&mut self, task: &Task, now: Timestamp) -> Plan {
        let world = &self.world;
        let plan = match task {
            Task::Set(kind, key) => {
                let refused = self.memory.refused.get(task).map(String::as_str);
                replication::gather(world, *kind, key, refused, now)
                    .map(|view| replication::plan(&view))
            }
            Task::Deployment(key) => {
                deployment::gather(world, key, now).map(|view| deployment::plan(&view))
            }
            Task::Slices(key) => {
                service::selection::gather(world, key).map(|view| service::slices::plan(&view))
            }
            Task::Endpoints(key) => plan_endpoints(world, key),
            Task::Mirror(key) => {
                let view = service::mirror::gather(world, key);
                Some(service::mirror::plan(&view))
            }
            Task::Sctp(key) => {
                service::sctp::gather(world, key).map(|view| service::sctp::plan(&view, now))
            }
            Task::LoadBalancers => Some(self.plan_load_balancers()),
            Task::PodCidr => Some(self.plan_shares()),
            Task::Node(name) => self.plan_node(name, now),
            Task::Namespace(name) => {
                namespace::gather(world, name, now).map(|view| namespace::plan(&view))
            }
            Task::Collect(kind, key) => {
                garbage::gather(world, *kind, key).map(|view| garbage::plan(&view))
            }
            Task::PodGc => {
                let view = pod_gc::gather(world, &mut self.memory.missing_nodes, now);
                Some(pod_gc::plan(&view))
            }
        };
        plan.unwrap_or_default()
    }

    fn plan_shares(&mut self) -> Plan {
        let nodes = self.world.all(Kind::NODE);
        let view = pod_cidr::View {
            nodes: nodes
                .filter_map(|node| Some((node.as_ref(), node.as_node()?)))
                .collect(),
            ranges: &self.config.pod_ranges,
            given: &self.memory.shares_given,
        };
        let (plan, given) = pod_cidr::plan(&view);
        self.memory.shares_given = given;
        plan
    }

    fn plan_load_balancers(&mut self) -> Plan {
        let pool = &self.config.load_balancer_pool;
        let view = service::load_balancer::gather(&self.world, pool, &self.memory.balancers);
        let (plan, memory) = service::load_balancer::plan(&view);
        self.memory.balancers = memory;
        plan
    }

    fn plan_node(&self, name: &str, now: Timestamp) -> Option<Plan> {
        let node = self.world.get(Kind::NODE, &Key::new("", name))?;
        let heard = self.memory.renewed.get(name).map(|(_, heard)| *heard);
        let view = node_lifecycle::View {
            node,
            row: node.as_node()?,
            pods: self.world.pods_on(name),
            renewed: heard
                .unwrap_or_default()
                .max(self.memory.started)
                .max(node.meta.created),
            now,
        };
        Some(node_lifecycle::plan(&view))
    }
}

impl Memory {
    /// Nothing is remembered of what is gone.
    fn forget(&mut self, diff: &Diff) {
        let Some(old) = diff.old.as_ref().filter(|_| diff.new.is_none()) else {
            return;
        };
        if old.kind == Kind::NODE {
            self.renewed.remove(&old.key.name);
        }
        if old.as_set().is_some() {
            self.refused.remove(&Task::Set(old.kind, old.key.clone()));
        }
    }

    /// A node lives while its lease's time of renewal changes, or when it says that it is ready
    /// again. Clocks are not compared.
    fn hear(&mut self, diff: &Diff, now: Timestamp) {
        let Some(new) = &diff.new else { return };
        let name = &new.key.name;
        let known = self.renewed.get(name).map(|(renewed, _)| *renewed);
        if let Some(lease) = new.as_lease().filter(|_| new.key.namespace == NODE_LEASES) {
            if known != Some(lease.renewed) {
                self.renewed.insert(name.clone(), (lease.renewed, now));
            }
        } else if says_ready(new) && !diff.old.as_deref().is_some_and(says_ready) {
            self.renewed.insert(name.clone(), (known.flatten(), now));
        }
    }
}

const NODE_LEASES: &str = "kube-node-lease";

/// Only the node's own agent says so.
fn says_ready(object: &Object) -> bool {
    object.as_node().is_some_and(|node| node.ready == "True")
}

fn plan_endpoints(world: &World, key: &Key) -> Option<Plan> {
    if world.get(Kind::SERVICE, key).is_some() {
        return service::selection::gather(world, key).map(|view| service::endpoints::plan(&view));
    }
    let leftover = world.get(Kind::ENDPOINTS, key)?;
    Some(service::endpoints::plan_gone(leftover))
}

#[cfg(test)]
mod tests;
