//! Which pods run on the node, with their processes: written by the workers of pods, read by what measures and
//! shows them. The only way from those back to a worker is an eviction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;

use super::pressure::{self, Newcomer, Pressure};
use crate::pod::refuse::Refusal;
use crate::runtime::{Container, Role, State};

/// All pods that have a worker.
#[derive(Default)]
pub struct Running {
    /// By uid.
    pods: Mutex<BTreeMap<String, Entry>>,
    /// What the node is short of.
    pressures: Mutex<BTreeSet<Pressure>>,
}

struct Entry {
    pod: RunningPod,
    wake: Arc<Notify>,
    eviction: Option<Eviction>,
}

/// A pod, and what of it runs.
#[derive(Clone, Debug)]
pub struct RunningPod {
    pub pod: Arc<Pod>,
    /// A process in its network namespace, unless that is the node's.
    pub network: Option<u32>,
    pub containers: Vec<RunningContainer>,
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningContainer {
    pub id: String,
    pub name: String,
    pub image: String,
    pub pid: u32,
    pub started_at: Timestamp,
}

/// Why a pod must leave the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    pub message: String,
}

impl Running {
    /// Says how a pod stands.
    pub fn set(&self, uid: &str, pod: &Arc<Pod>, containers: &[Container], wake: &Arc<Notify>) {
        let pod = RunningPod::of(pod, containers);
        let mut all = self.all();
        match all.get_mut(uid) {
            Some(entry) => entry.pod = pod,
            None => {
                let entry = Entry {
                    pod,
                    wake: wake.clone(),
                    eviction: None,
                };
                all.insert(uid.to_owned(), entry);
            }
        }
    }

    /// Nothing of the pod is left.
    pub fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    /// Has a pod's worker evict it; false: there is no such pod.
    pub fn evict(&self, uid: &str, eviction: Eviction) -> bool {
        let mut all = self.all();
        let Some(entry) = all.get_mut(uid) else {
            return false;
        };
        entry.eviction = Some(eviction);
        entry.wake.notify_one();
        true
    }

    /// What a worker has been told, once.
    pub fn take_eviction(&self, uid: &str) -> Option<Eviction> {
        self.all().get_mut(uid)?.eviction.take()
    }

    /// Says what the node is short of.
    pub fn set_pressures(&self, pressures: &BTreeSet<Pressure>) {
        self.pressures().clone_from(pressures);
    }

    /// Why a pod may not begin on this node now.
    pub fn refusal(&self, pod: &Pod) -> Option<Refusal> {
        let message = pressure::refusal(&self.pressures(), &Newcomer::of(pod))?;
        Some(Refusal {
            reason: "Evicted",
            message,
        })
    }

    fn pressures(&self) -> MutexGuard<'_, BTreeSet<Pressure>> {
        self.pressures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// All pods as they are now.
    pub fn pods(&self) -> BTreeMap<String, RunningPod> {
        let all = self.all();
        let pods = all.iter();
        pods.map(|(uid, entry)| (uid.clone(), entry.pod.clone()))
            .collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningPod {
    fn of(pod: &Arc<Pod>, containers: &[Container]) -> Self {
        let spec = pod.spec.as_ref();
        let is_on_node = spec.and_then(|spec| spec.host_network) == Some(true);
        let running = |it: &Container| match it.state {
            State::Running { pid, started_at } => Some((pid, started_at)),
            _ => None,
        };
        let sandbox = containers
            .iter()
            .filter(|it| it.identity.role == Role::Sandbox);
        let network = sandbox.filter_map(running).map(|(pid, _)| pid).next();
        let containers = containers.iter().filter_map(|it| {
            let (pid, started_at) = running(it)?;
            (it.identity.role != Role::Sandbox).then(|| RunningContainer {
                id: it.id.clone(),
                name: it.identity.name.clone(),
                image: it.image.clone(),
                pid,
                started_at,
            })
        });
        Self {
            pod: pod.clone(),
            network: network.filter(|_| !is_on_node),
            containers: containers.collect(),
        }
    }
}
