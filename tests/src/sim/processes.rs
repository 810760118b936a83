//! The processes that are clients: controllers and scheduler. Each follows the log at its own pace
//! and has writes under way; restarted, it knows nothing but what it lists.

use std::collections::{BTreeMap, VecDeque};

use client::{ClientError, Kind, PatchKind};
use controllers::action::{Action, Delete};
use controllers::engine::{Ending, Engine};
use controllers::object::{Key, Object};
use controllers::task::Task;
use controllers::world::Change;
use controllers::{ControllersConfig, pod_cidr};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler::engine::{self as scheduling, Bound, Explanation, Order};
use scheduler::node::NodeRow;
use scheduler::pod::PodRow;
use serde_json::{Value, json};

use super::api::{Api, key_of};
use super::rng::Rng;

/// How often writes go wrong, in a thousand: refused before, or answered with an error after the
/// fact.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub before: u64,
    pub after: u64,
}

/// The controllers.
pub struct Controllers {
    pub engine: Engine,
    cursors: BTreeMap<Kind, usize>,
    running: Vec<(Task, VecDeque<Action>)>,
}

/// The scheduler.
pub struct Scheduler {
    pub engine: scheduling::Engine,
    cursors: BTreeMap<Kind, usize>,
    running: Vec<Order>,
}

const CONCURRENT: usize = 8;

/// The addresses of load balancers, and how many can be given.
const POOL: &str = "192.0.2.0/29";
pub const POOL_SIZE: usize = 6;

impl Controllers {
    pub fn start(now: Timestamp) -> Self {
        let network = "10.100.0.0/16".parse().expect("a range");
        let config = ControllersConfig {
            pod_ranges: vec![pod_cidr::Range {
                network,
                mask_bits: 24,
            }],
            load_balancer_pool: vec![POOL.parse().expect("a pool")],
            root_ca: String::new(),
            finished_pods_kept: 12_500,
        };
        Self {
            engine: Engine::new(config, now),
            cursors: BTreeMap::new(),
            running: Vec::new(),
        }
    }

    /// Delivers the next entry of one kind, or its first list. False if there is nothing new.
    pub fn deliver(&mut self, api: &Api, kind: Kind, relist: bool) -> bool {
        let cursor = self.cursors.get(&kind).copied();
        let Some(from) = cursor.filter(|_| !relist) else {
            let objects = api
                .list(kind)
                .into_iter()
                .map(|value| object(kind, value))
                .collect();
            let change = Change::Snapshot {
                kind,
                objects,
                revision: api.revision(),
            };
            self.engine.apply(change, api.now);
            self.cursors.insert(kind, api.log.len());
            return true;
        };
        let next = (from..api.log.len()).find(|index| api.log[*index].kind == kind);
        self.cursors
            .insert(kind, next.map_or(api.log.len(), |index| index + 1));
        let Some(index) = next else { return false };
        let entry = &api.log[index];
        let object = object(kind, &entry.object);
        let change = if entry.deleted {
            Change::Delete(object)
        } else {
            Change::Upsert(object)
        };
        self.engine.apply(change, api.now);
        true
    }

    /// Makes a plan, or carries on with one. False if there is nothing to do.
    pub fn work(&mut self, api: &mut Api, rng: &mut Rng, faults: Faults) -> bool {
        if self.running.len() < CONCURRENT
            && (self.running.is_empty() || rng.chance(500))
            && let Some((task, plan)) = self.engine.next(api.now)
        {
            self.running.push((task, plan.actions.into()));
            return true;
        }
        if self.running.is_empty() {
            return false;
        }
        let index = rng.below(self.running.len());
        let Some(action) = self.running[index].1.pop_front() else {
            let (task, _) = self.running.swap_remove(index);
            self.engine.finished(&task, Ending::Done, api.now);
            return true;
        };
        if let Action::Ask(ask) = &action {
            let reply = match rng.chance(faults.before) {
                true => Err("no answer".to_owned()),
                false => api.metrics.answer(api, &ask.path),
            };
            let task = self.running[index].0.clone();
            self.engine.told(&task, ask, &reply, api.now);
            return true;
        }
        let creating = matches!(action, Action::Create(_));
        let outcome = if rng.chance(faults.before) {
            Err(ClientError::Unknown("not sent".into()))
        } else {
            let lost = rng.chance(faults.after);
            let outcome = self.carry_out(api, action, !lost);
            if lost {
                Err(ClientError::Unknown("no answer".into()))
            } else {
                outcome
            }
        };
        if let Err(error) = outcome {
            let (task, _) = self.running.swap_remove(index);
            let ending = Ending::Failed {
                creating,
                conflict: matches!(error, ClientError::Conflict(_)),
                message: error.to_string(),
            };
            self.engine.finished(&task, ending, api.now);
        }
        true
    }

    fn carry_out(&mut self, api: &mut Api, action: Action, heard: bool) -> Result<(), ClientError> {
        match action {
            Action::Create(create) => {
                let mut object = create.object;
                object["metadata"]["namespace"] = create.namespace.into();
                match api.create(create.kind, object) {
                    Err(ClientError::AlreadyExists(_)) if create.if_absent => Ok(()),
                    Err(error) => Err(error),
                    Ok(object) => self.answered(api, create.kind, &object, heard),
                }
            }
            Action::PatchAll(patches) => {
                for patch in patches {
                    self.carry_out(api, Action::Patch(patch), heard)?;
                }
                Ok(())
            }
            Action::Patch(patch) => {
                match api.patch(
                    patch.kind,
                    &patch.key,
                    patch.subresource,
                    patch.how,
                    &patch.body,
                ) {
                    Err(ClientError::NotFound(_)) => Ok(()),
                    Err(error) => Err(error),
                    Ok(object) => self.answered(api, patch.kind, &object, heard),
                }
            }
            Action::Delete(delete) => self.delete(api, delete, heard),
            Action::Empty { kind, namespace } => {
                if kind != Kind::POD && !api.keys(Kind::POD, &namespace).is_empty() {
                    return Ok(());
                }
                for key in api.keys(kind, &namespace) {
                    api.delete(kind, &key, &json!({}))?;
                }
                Ok(())
            }
            Action::Finalize { namespace, .. } => {
                let mut kinds = Kind::watched()
                    .iter()
                    .copied()
                    .filter(|kind| kind.namespaced);
                if kinds.any(|kind| !api.keys(kind, &namespace).is_empty()) {
                    return Err(ClientError::Conflict(namespace));
                }
                api.finalize(&namespace).map(drop)
            }
            Action::Tell(_) => Ok(()),
            Action::Ask(_) => unreachable!("what is asked is answered before"),
        }
    }

    fn delete(&mut self, api: &mut Api, delete: Delete, heard: bool) -> Result<(), ClientError> {
        let kind = delete.kind.expect("a deletion has a kind");
        for (kind, key, uid) in &delete.unless_any {
            let found = api.get(*kind, &key.namespace, &key.name);
            if found.is_some_and(|v| uid.is_empty() || v["metadata"]["uid"] == json!(uid)) {
                return Ok(());
            }
        }
        let mut options = json!({"preconditions": {"uid": delete.uid}});
        if let Some(seconds) = delete.grace_seconds {
            options["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = delete.propagation {
            options["propagationPolicy"] = policy.into();
        }
        match api.delete(kind, &delete.key, &options) {
            Ok(Some(object)) => self.answered(api, kind, &object, heard),
            Ok(None) => {
                if heard {
                    self.engine.gone(kind, &delete.key, &delete.uid, api.now);
                }
                Ok(())
            }
            Err(ClientError::NotFound(_) | ClientError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn answered(
        &mut self,
        api: &Api,
        kind: Kind,
        value: &Value,
        heard: bool,
    ) -> Result<(), ClientError> {
        if heard {
            self.engine.answered(object(kind, value), api.now);
        }
        Ok(())
    }
}

impl Scheduler {
    pub fn start() -> Self {
        Self {
            engine: scheduling::Engine::default(),
            cursors: BTreeMap::new(),
            running: Vec::new(),
        }
    }

    /// Delivers the next entry of pods or nodes, or the first list. False if there is nothing new.
    pub fn deliver(&mut self, api: &Api, kind: Kind, relist: bool) -> bool {
        let pods = kind == Kind::POD;
        let cursor = self.cursors.get(&kind).copied();
        let Some(from) = cursor.filter(|_| !relist) else {
            let all = api.list(kind);
            let change = if pods {
                let items = all.into_iter().map(pod).collect();
                scheduling::Change::Pods {
                    items,
                    revision: api.revision(),
                }
            } else {
                scheduling::Change::Nodes(all.into_iter().map(node).collect())
            };
            self.engine.apply(change, api.now);
            self.cursors.insert(kind, api.log.len());
            return true;
        };
        let next = (from..api.log.len()).find(|index| api.log[*index].kind == kind);
        self.cursors
            .insert(kind, next.map_or(api.log.len(), |index| index + 1));
        let Some(index) = next else { return false };
        let entry = &api.log[index];
        let change = match (pods, entry.deleted) {
            (true, false) => scheduling::Change::Pod(pod(&entry.object)),
            (true, true) => scheduling::Change::PodGone(pod(&entry.object).key),
            (false, false) => scheduling::Change::Node(node(&entry.object)),
            (false, true) => scheduling::Change::NodeGone(node(&entry.object).name),
        };
        self.engine.apply(change, api.now);
        true
    }

    /// Decides for a pod, or carries a decision out. False if there is nothing to do.
    pub fn work(&mut self, api: &mut Api, rng: &mut Rng, faults: Faults) -> bool {
        if self.running.len() < CONCURRENT
            && (self.running.is_empty() || rng.chance(500))
            && let Some(order) = self.engine.next(api.now)
        {
            self.running.push(order);
            return true;
        }
        if self.running.is_empty() {
            return false;
        }
        let index = rng.below(self.running.len());
        let (key, uid, node) = match self.running.swap_remove(index) {
            Order::Bind { key, uid, node } => (key, uid, node),
            Order::Explain(explanation) => {
                explain(api, &explanation);
                return true;
            }
            Order::Prepare { .. } => unreachable!("no pod of the simulation has claims"),
            Order::Consult { .. } | Order::ConsultPreemption { .. } => {
                unreachable!("the simulation has no extenders")
            }
        };
        let name = Key::new(&key.0, &key.1);
        let lost = rng.chance(faults.after);
        let failed = rng.chance(faults.before) || api.bind(&name, &uid, &node).is_err() || lost;
        let outcome = if failed {
            let found = api.get(Kind::POD, &key.0, &key.1);
            Bound::Failed(found.map(|found| Box::new(pod(found))))
        } else {
            Bound::Done
        };
        self.engine.bound(&key, &uid, outcome, api.now);
        true
    }
}

/// Stops the victims and writes who is nominated. What fails is done again at the next decision.
fn explain(api: &mut Api, explanation: &Explanation) {
    for victim in &explanation.victims {
        let options = json!({"preconditions": {"uid": victim.uid}});
        let key = Key::new(&victim.key.0, &victim.key.1);
        let _ = api.delete(Kind::POD, &key, &options);
    }
    let mut nominations: Vec<_> = explanation
        .demoted
        .iter()
        .map(|(key, _)| (key, ""))
        .collect();
    if let Some(node) = &explanation.nominated {
        nominations.push((&explanation.key, node));
    }
    for (key, node) in nominations {
        let node = if node.is_empty() {
            json!(null)
        } else {
            json!(node)
        };
        let body = json!({"status": {"nominatedNodeName": node}});
        let key = Key::new(&key.0, &key.1);
        let _ = api.patch(Kind::POD, &key, "status", PatchKind::Strategic, &body);
    }
}

fn object(kind: Kind, value: &Value) -> Object {
    Object::from_json(kind, value.clone()).expect("the API holds objects of their kind")
}

fn pod(value: &Value) -> PodRow {
    let pod: Pod = serde_json::from_value(value.clone()).expect("the API holds pods");
    PodRow::from(pod)
}

fn node(value: &Value) -> NodeRow {
    let node: Node = serde_json::from_value(value.clone()).expect("the API holds nodes");
    NodeRow::from(node)
}

/// The key, for messages.
pub fn label(value: &Value) -> String {
    let Key { namespace, name } = key_of(value);
    format!("{namespace}/{name}")
}
