//! Which pods run on the node, with their processes: written by the workers of pods, read by what measures and
//! shows them. The only way from those back to a worker is an eviction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;

use super::pressure::{self, Newcomer, Pressure};
use crate::pod::refuse::Refusal;
use crate::runtime::{Container, Role, State};
use datapath::HostPort;

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

/// Why a pod must leave the node, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The reason in the pod's status.
    pub reason: &'static str,
    pub message: String,
    /// The node ends it, through no fault of the pod's: its condition DisruptionTarget says so (KEP-3329).
    pub is_disruption: bool,
    /// How long its containers have to end, at most.
    pub most_grace: SignedDuration,
}

/// How long the containers of an evicted pod have to end: they take more than there is.
const EVICTION_GRACE: SignedDuration = SignedDuration::from_secs(1);

impl Eviction {
    /// The node runs out of something.
    pub fn under_pressure(message: String) -> Self {
        Self {
            is_disruption: true,
            ..Self::over_limit(message)
        }
    }

    /// The pod takes more than it may.
    pub fn over_limit(message: String) -> Self {
        Self {
            reason: "Evicted",
            message,
            is_disruption: false,
            most_grace: EVICTION_GRACE,
        }
    }

    /// The node goes down.
    pub fn shut_down(message: String, most_grace: SignedDuration) -> Self {
        Self {
            reason: "Terminated",
            message,
            is_disruption: true,
            most_grace,
        }
    }
}

impl Running {
    /// Says how a pod stands.
    pub fn set(&self, uid: &str, pod: &Arc<Pod>, containers: &[Container], wake: &Arc<Notify>) {
        self.put(uid, RunningPod::of(pod, containers), wake);
    }

    /// The same of what is known already.
    pub fn put(&self, uid: &str, pod: RunningPod, wake: &Arc<Notify>) {
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

    /// Why a pod may not begin on this node now: what the node is short of, or a pod that has what this one asks
    /// for. Pods come here past the scheduler too, by their `nodeName`.
    pub fn refusal(&self, pod: &Pod) -> Option<Refusal> {
        if let Some(message) = pressure::refusal(&self.pressures(), &Newcomer::of(pod)) {
            return Some(Refusal {
                reason: "Evicted",
                message,
            });
        }
        self.ports_are_taken(pod).then(|| Refusal {
            reason: "NodePorts",
            message:
                "Predicate NodePorts failed: node(s) didn't have free ports for the requested \
                      pod ports"
                    .to_owned(),
        })
    }

    /// Whether a pod of the node that has not ended has a port of the node that this one wants.
    fn ports_are_taken(&self, pod: &Pod) -> bool {
        let wanted = HostPort::of(pod);
        if wanted.is_empty() {
            return false;
        }
        let all = self.all();
        let others = all.values().map(|entry| &*entry.pod.pod);
        let others = others.filter(|it| it.metadata.uid != pod.metadata.uid && !has_ended(it));
        let mut taken = others.flat_map(HostPort::of);
        taken.any(|taken| wanted.iter().any(|port| port.conflicts_with(&taken)))
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

fn has_ended(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, port: Value, phase: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": uid, "namespace": "default", "uid": uid},
            "spec": {"containers": [{"name": "c", "ports": [port]}]},
            "status": {"phase": phase},
        });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn a_pod_whose_port_another_pod_of_the_node_has_is_refused_until_that_one_has_ended() {
        let running = Running::default();
        let wake = Arc::new(Notify::new());
        let holder = |phase| pod("a", json!({"containerPort": 80, "hostPort": 8080}), phase);
        running.set("a", &holder("Running"), &[], &wake);
        let reason = |port: Value| {
            let refusal = running.refusal(&pod("b", port, "Pending"));
            refusal.map(|refusal| refusal.reason)
        };
        let same = json!({"containerPort": 1, "hostPort": 8080});
        assert_eq!(reason(same.clone()), Some("NodePorts"));
        let on_one = json!({"containerPort": 1, "hostPort": 8080, "hostIP": "192.0.2.1"});
        assert_eq!(reason(on_one), Some("NodePorts"));
        let udp = json!({"containerPort": 1, "hostPort": 8080, "protocol": "UDP"});
        assert_eq!(reason(udp), None);
        assert_eq!(reason(json!({"containerPort": 8080})), None);
        assert_eq!(running.refusal(&holder("Running")), None);
        running.set("a", &holder("Failed"), &[], &wake);
        assert_eq!(reason(same), None);
    }
}
