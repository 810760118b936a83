//! Observes the node with each reading of what is used, has it decided what that means, and does it: conditions to
//! the heartbeat and to admission, evictions to the workers of pods, images to whoever removes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use tokio::sync::{Notify, watch};

use super::{
    Action, Candidate, ContainerUse, Level, Memory, Newcomer, Observation, Policy, Signal,
};
use crate::api::events::{self, Recorder};
use crate::node::register::Health;
use crate::node::running::{Eviction, Running};
use crate::node::usage::{Disks, Machine, PodReading, Reading, Readings};
use crate::pod::{qos, quantity};
use sys::Shutdown;

/// From one event about the same resource to the next.
const EVENT_PAUSE: Duration = Duration::from_secs(60);
/// From which priority on a pod is the system's own (`system-cluster-critical`).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;
/// Where a pod comes from that no API server has made.
const SOURCE: &str = "kubernetes.io/config.source";
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

/// What keeps a node from running out.
pub struct Keeper {
    pub node_name: String,
    pub policy: Policy,
    pub running: Arc<Running>,
    pub disks: Disks,
    pub health: watch::Sender<Health>,
    pub recorder: Recorder,
    /// Unused images are to go.
    pub images: Arc<Notify>,
}

impl Keeper {
    pub async fn run(self, readings: Readings, shutdown: Shutdown) {
        let mut newest = readings.subscribe();
        // What was read before is looked at as well.
        newest.mark_changed();
        let (mut memory, mut told) = (Memory::default(), None::<(&str, tokio::time::Instant)>);
        while let Some(Ok(())) = shutdown.unless(newest.changed()).await {
            let reading = newest.borrow_and_update().clone();
            let observed = observe(&reading, &self.disks);
            let decision = super::decide(&self.policy, &observed, &mut memory, Timestamp::now());
            self.say(&decision.conditions);
            if let Some(resource) = decision.reclaiming
                && told.is_none_or(|(last, at)| last != resource || at.elapsed() > EVENT_PAUSE)
            {
                let text = format!("Attempting to reclaim {resource}");
                self.recorder
                    .warning(events::node(&self.node_name), "EvictionThresholdMet", text);
                told = Some((resource, tokio::time::Instant::now()));
            }
            match decision.action {
                None => {}
                Some(Action::RemoveImages) => self.images.notify_one(),
                Some(Action::Evict { uid, message }) => {
                    tracing::warn!(uid, message, "a pod leaves this node");
                    self.running.evict(&uid, Eviction::under_pressure(message));
                }
            }
        }
    }

    fn say(&self, conditions: &BTreeSet<super::Pressure>) {
        self.running.set_pressures(conditions);
        self.health.send_if_modified(|health| {
            let changed = health.pressures != *conditions;
            if changed {
                health.pressures.clone_from(conditions);
            }
            changed
        });
    }
}

fn observe(reading: &Reading, disks: &Disks) -> Observation {
    let pods = reading
        .pods
        .iter()
        .filter(|(_, pod)| !pod.containers.is_empty());
    Observation {
        levels: levels(&reading.machine),
        pods: pods.map(|(uid, pod)| candidate(uid, pod, disks)).collect(),
    }
}

fn levels(machine: &Machine) -> BTreeMap<Signal, Level> {
    let disk = &machine.filesystem;
    let all = [
        (
            Signal::MemoryAvailable,
            machine.available_bytes(),
            machine.memory_total_bytes,
        ),
        (
            Signal::NodefsAvailable,
            disk.available_bytes,
            disk.capacity_bytes,
        ),
        (Signal::NodefsInodesFree, disk.inodes_free, disk.inodes),
        (
            Signal::PidAvailable,
            machine.most_processes.saturating_sub(machine.processes),
            machine.most_processes,
        ),
    ];
    // What has no capacity was not read, or has no such thing: btrfs counts no inodes.
    let known = all.into_iter().filter(|(_, _, capacity)| *capacity > 0);
    known
        .map(|(signal, available, capacity)| {
            let level = Level {
                available,
                capacity,
            };
            (signal, level)
        })
        .collect()
}

fn candidate(uid: &str, of: &PodReading, disks: &Disks) -> Candidate {
    let disk = disks.of(uid).unwrap_or_default();
    let containers = of.containers.iter().map(|it| {
        let name = &it.running.name;
        ContainerUse {
            name: name.clone(),
            memory_bytes: it.counters.working_set_bytes,
            memory_request: request(&of.pod, name, "memory"),
            disk_bytes: disk.containers.get(name).map_or(0, |it| it.bytes()),
            disk_request: request(&of.pod, name, "ephemeral-storage"),
        }
    });
    let spec = of.pod.spec.as_ref();
    Candidate {
        uid: uid.to_owned(),
        name: of.pod.metadata.name.clone().unwrap_or_default(),
        priority: spec.and_then(|spec| spec.priority).unwrap_or(0).into(),
        is_critical: is_critical(&of.pod),
        containers: containers.collect(),
        inodes: disk.inodes(),
        processes: of.counters().processes,
        volume_bytes: disk.volumes.bytes,
    }
}

/// What a container has asked for of a resource: what it is limited to, where it says nothing else.
fn request(pod: &Pod, container: &str, resource: &str) -> u64 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut resources = containers
        .filter(|it| it.name == container)
        .filter_map(|it| it.resources.as_ref());
    let amount = resources.next().and_then(|wanted| {
        let of = |list: &Option<BTreeMap<_, _>>| quantity::milli(list.as_ref()?.get(resource)?);
        of(&wanted.requests).or_else(|| of(&wanted.limits))
    });
    amount.map_or(0, |milli| u64::try_from(milli / 1000).unwrap_or(0))
}

/// Static, or the system's own.
pub fn is_critical(pod: &Pod) -> bool {
    let source = pod.metadata.annotations.as_ref();
    let source = source.and_then(|all| all.get(SOURCE));
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority);
    source.is_some_and(|source| source != "api") || priority.unwrap_or(0) >= CRITICAL_PRIORITY
}

impl Newcomer {
    pub fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let tolerations = spec.and_then(|spec| spec.tolerations.as_ref());
        let mut tolerations = tolerations.into_iter().flatten();
        Self {
            is_critical: is_critical(pod),
            is_best_effort: qos::class(pod) == "BestEffort",
            tolerates_memory_pressure: tolerations.any(tolerates_memory_pressure),
        }
    }
}

fn tolerates_memory_pressure(toleration: &Toleration) -> bool {
    let is_or_any = |text: &Option<String>, wanted: &str| {
        text.as_deref()
            .is_none_or(|text| text.is_empty() || text == wanted)
    };
    let exists = toleration.operator.as_deref() == Some("Exists");
    let named = toleration.key.as_deref() == Some(MEMORY_PRESSURE);
    let any = exists && toleration.key.as_deref().is_none_or(str::is_empty);
    let empty = toleration.value.as_deref().is_none_or(str::is_empty);
    is_or_any(&toleration.effect, "NoSchedule") && (any || named && (exists || empty))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::node::running::RunningContainer;
    use crate::node::usage::{ContainerReading, Rate};

    fn pod(uid: &str, spec: serde_json::Value) -> (String, PodReading) {
        let pod = json!({"metadata": {"name": uid}, "spec": spec});
        let container = ContainerReading {
            running: RunningContainer {
                id: uid.to_owned(),
                name: "c".to_owned(),
                image: String::new(),
                pid: 0,
                started_at: Timestamp::UNIX_EPOCH,
            },
            counters: crate::node::cgroup::Counters {
                working_set_bytes: 64 << 20,
                ..Default::default()
            },
            rate: Rate::default(),
        };
        let reading = PodReading {
            pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
            containers: vec![container],
            interface: None,
        };
        (uid.to_owned(), reading)
    }

    fn spec(request: &str) -> serde_json::Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"memory": request}}}]})
    }

    #[tokio::test]
    async fn a_node_without_memory_says_so_and_the_greedy_pod_leaves() {
        let (health, mut heard) = watch::channel(Health::default());
        let (running, shutdown) = (Arc::new(Running::default()), Shutdown::new());
        let wake = Arc::new(Notify::new());
        let pods = [pod("modest", spec("100Mi")), pod("greedy", spec("1Mi"))];
        for (uid, reading) in &pods {
            running.set(uid, &reading.pod, &[], &wake);
        }
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
        });
        let client = kube::Client::new(service, "default");
        let keeper = Keeper {
            node_name: "n1".into(),
            policy: Policy {
                thresholds: super::super::parse_thresholds("memory.available<100Mi").expect("one"),
                transition: jiff::SignedDuration::from_secs(300),
            },
            running: running.clone(),
            disks: Disks::default(),
            health,
            recorder: crate::api::events::recorder(client, "n1".into()),
            images: Arc::default(),
        };
        let readings = Readings::default();
        let task = tokio::spawn(keeper.run(readings.clone(), shutdown.clone()));
        readings.show(Reading {
            machine: Machine {
                memory_total_bytes: 1 << 30,
                memory_free_bytes: 50 << 20,
                ..Machine::default()
            },
            pods: pods.into(),
            ..Reading::default()
        });
        let said = heard.wait_for(|health| !health.pressures.is_empty()).await;
        assert!(said.is_ok());
        let newcomer: Pod =
            serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}}))
                .expect("a pod");
        assert!(
            running.refusal(&newcomer).is_some(),
            "it has asked for nothing"
        );
        wake.notified().await;
        let message = running.take_eviction("greedy").expect("it leaves").message;
        assert!(
            message.starts_with("The node was low on resource: memory."),
            "{message}"
        );
        assert_eq!(running.take_eviction("modest"), None);
        shutdown.trigger();
        task.await.expect("it ends");
    }

    #[test]
    fn pods_of_the_system_and_static_ones_are_critical() {
        let of =
            |value: serde_json::Value| -> Pod { serde_json::from_value(value).expect("a pod") };
        let spec = |priority: i64| json!({"containers": [], "priority": priority});
        assert!(is_critical(&of(json!({"spec": spec(2_000_001_000)}))));
        assert!(!is_critical(&of(json!({"spec": spec(1_000_000_000)}))));
        let annotations = json!({SOURCE: "file"});
        assert!(is_critical(&of(
            json!({"metadata": {"annotations": annotations}, "spec": spec(0)})
        )));
    }

    #[test]
    fn a_newcomer_is_read_off_its_pod() {
        let of = |tolerations: serde_json::Value| {
            let pod = json!({"spec": {"containers": [{"name": "c"}], "tolerations": tolerations}});
            Newcomer::of(&serde_json::from_value(pod).expect("a pod"))
        };
        let key = MEMORY_PRESSURE;
        for (tolerations, tolerates) in [
            (json!([]), false),
            (json!([{"operator": "Exists"}]), true),
            (
                json!([{"key": key, "operator": "Exists", "effect": "NoSchedule"}]),
                true,
            ),
            (
                json!([{"key": key, "operator": "Exists", "effect": "NoExecute"}]),
                false,
            ),
            (json!([{"key": "other", "operator": "Exists"}]), false),
        ] {
            let newcomer = of(tolerations.clone());
            assert_eq!(
                newcomer.tolerates_memory_pressure, tolerates,
                "{tolerations}"
            );
            assert!(newcomer.is_best_effort && !newcomer.is_critical);
        }
    }
}
