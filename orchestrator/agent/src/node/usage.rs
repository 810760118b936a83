//! What the node and its pods use: read from the kernel, kept as the newest reading, and told to the API server,
//! which answers metrics.k8s.io from it.
//!
//! ```text
//!  running (pods, pids) ─▶ Sampler: cgroups, /proc ─▶ Reading ─▶ stats, metrics (serve), pressure
//!                                                        └─▶ POST samples ─▶ API server
//! ```

mod disk;
mod history;
mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;

use super::cgroup::{Cgroup, Counters, Disk, Hierarchies};
use super::facts;
use super::running::{Running, RunningContainer, RunningPod};
use crate::pod::shape;
use crate::pod::whole::{self, HugePages};
use api::annotations::DISK_BANDWIDTH;
use api::samples::{self, ContainerSample, NodeSample, PodSample, Taken, Usage};
use sys::Shutdown;

pub use disk::{ContainerDisk, Disks, PodDisk, VolumeDisk, run as measure_disks};
pub use history::Rate;
pub use machine::{Filesystem, INTERFACE, Interface, Machine};

use history::History;

/// How often is read until the API server says how often it wants that.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// However often it wants samples, they are not read more rarely: pressure is seen by them.
const LONGEST_INTERVAL: Duration = Duration::from_secs(15);
/// A server that hangs must not keep the node from reading on.
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// Readings between two tries of a server that is away.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// The newest reading, and what was measured of disks; clones share them.
#[derive(Clone)]
pub struct Readings {
    newest: watch::Sender<Arc<Reading>>,
    disks: Disks,
}

/// The node at one moment.
#[derive(Debug, Default)]
pub struct Reading {
    pub at: Timestamp,
    pub machine: Machine,
    pub rate: Rate,
    /// By uid.
    pub pods: BTreeMap<String, PodReading>,
}

/// A pod of it.
#[derive(Debug)]
pub struct PodReading {
    pub pod: Arc<Pod>,
    pub containers: Vec<ContainerReading>,
    /// None: it has no network of its own.
    pub interface: Option<Interface>,
}

/// A container of it.
#[derive(Debug)]
pub struct ContainerReading {
    pub running: RunningContainer,
    pub counters: Counters,
    pub rate: Rate,
}

impl Default for Readings {
    fn default() -> Self {
        Self {
            newest: watch::Sender::new(Arc::default()),
            disks: Disks::default(),
        }
    }
}

impl Readings {
    pub fn newest(&self) -> Arc<Reading> {
        self.newest.borrow().clone()
    }

    /// What pods take of disks, which is measured more rarely.
    pub fn disks(&self) -> Disks {
        self.disks.clone()
    }

    /// Makes this the newest one.
    pub fn show(&self, reading: Reading) {
        self.newest.send_replace(Arc::new(reading));
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<Reading>> {
        self.newest.subscribe()
    }
}

impl Reading {
    /// As the API server is told.
    fn sample(&self) -> NodeSample {
        let pods = self.pods.iter().take(samples::PODS);
        let pods = pods.filter(|(_, pod)| !pod.containers.is_empty());
        NodeSample {
            window_ms: self.rate.window_ms,
            usage: Usage {
                cpu_nanocores: self.rate.nanocores,
                memory_bytes: self.machine.working_set_bytes(),
            },
            pods: pods.map(|(uid, pod)| pod.sample(uid)).collect(),
        }
    }
}

impl PodReading {
    fn sample(&self, uid: &str) -> PodSample {
        let containers = self.containers.iter().map(|it| ContainerSample {
            name: it.running.name.clone(),
            usage: Usage {
                cpu_nanocores: it.rate.nanocores,
                memory_bytes: it.counters.working_set_bytes,
            },
        });
        let windows = self.containers.iter().map(|it| it.rate.window_ms);
        PodSample {
            uid: uid.to_owned(),
            window_ms: windows.min().unwrap_or_default(),
            containers: containers.collect(),
        }
    }

    /// What its containers have used and hold, together.
    pub fn counters(&self) -> Counters {
        let all = self.containers.iter().map(|it| it.counters);
        all.fold(Counters::default(), Counters::plus)
    }

    /// The CPU that its containers use now, together.
    pub fn nanocores(&self) -> u64 {
        self.containers.iter().map(|it| it.rate.nanocores).sum()
    }
}

/// Reads again and again until shutdown. `data` lies on the disk that pods write to.
pub async fn run(
    client: Client,
    running: Arc<Running>,
    readings: Readings,
    data: PathBuf,
    shutdown: Shutdown,
) {
    let hierarchies = match Hierarchies::read() {
        Ok(hierarchies) => hierarchies,
        Err(error) => return tracing::error!(%error, "what pods use will not be known"),
    };
    let mut sampler = Sampler {
        hierarchies,
        cgroups: BTreeMap::new(),
        history: History::default(),
        disks: [&*data, Path::new(ENGINE_DATA)]
            .into_iter()
            .filter_map(Disk::of)
            .collect(),
        huge_pages: whole::none_of(facts::huge_pages(Path::new(facts::HUGE_PAGES)).keys()),
        data,
    };
    let (mut interval, mut push_at) = (FIRST_INTERVAL, Instant::now());
    loop {
        let pods = running.pods();
        let read = tokio::task::spawn_blocking(move || {
            let reading = sampler.read(pods, Timestamp::now());
            (sampler, reading)
        });
        let Ok((again, reading)) = read.await else {
            return tracing::error!("reading what pods use has failed for good");
        };
        sampler = again;
        readings.show(reading);
        let reading = readings.newest();
        let started = Instant::now();
        if started >= push_at {
            match tokio::time::timeout(PUSH_TIMEOUT, push(&client, &reading)).await {
                Ok(Ok(taken)) => {
                    let wanted = Duration::from_millis(taken.next_ms);
                    interval = wanted.clamp(FIRST_INTERVAL, LONGEST_INTERVAL);
                }
                outcome => {
                    let why = outcome.map(|pushed| pushed.err().map(|error| error.to_string()));
                    tracing::debug!(?why, "the API server does not hear what pods use");
                    push_at = Instant::now() + FAILED_PAUSE;
                }
            }
        }
        let pause = tokio::time::sleep_until(started + interval);
        if shutdown.unless(pause).await.is_none() {
            return;
        }
    }
}

async fn push(client: &Client, reading: &Reading) -> Result<Taken, kube::Error> {
    let body = serde_json::to_vec(&reading.sample()).map_err(kube::Error::SerdeError)?;
    let request = http::Request::post(samples::PATH)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// What is remembered from one reading to the next.
struct Sampler {
    hierarchies: Hierarchies,
    /// By container id.
    cgroups: BTreeMap<String, Cgroup>,
    history: History,
    data: PathBuf,
    /// Those that containers write to.
    disks: BTreeSet<Disk>,
    /// The machine's sizes of huge pages: a container has none that it did not ask for.
    huge_pages: HugePages,
}

/// Where the Engine keeps what containers write, unless it was told otherwise.
const ENGINE_DATA: &str = "/var/lib/docker";

/// Bytes a second that a pod's annotation gives each of its containers; what does not read was refused.
fn disk_limit(pod: &Pod) -> Option<u64> {
    let text = pod.metadata.annotations.as_ref()?.get(DISK_BANDWIDTH)?;
    let bytes = api::quantity::Quantity::parse(text).ok()?.units();
    u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

/// The huge pages that a container of a pod may use.
fn huge_pages(pod: &Pod, name: &str) -> HugePages {
    let mains = shape::main_templates(pod).iter();
    let mut templates = mains.chain(shape::init_templates(pod));
    let template = templates.find(|template| template.name == name);
    template.map(whole::of_container).unwrap_or_default()
}

/// The key of the node in the history, which is no container's id.
const NODE: &str = "node";

impl Sampler {
    fn read(&mut self, pods: BTreeMap<String, RunningPod>, now: Timestamp) -> Reading {
        let machine = Machine::read(&self.data, Path::new(ENGINE_DATA));
        let rate = self.history.rate(NODE, now, machine.cpu_ns, None);
        let pods = pods.into_iter().map(|(uid, pod)| {
            let containers = pod.containers.into_iter();
            let limit = disk_limit(&pod.pod);
            let of = pod.pod.clone();
            let containers = containers.filter_map(|it| {
                let pages = { self.huge_pages.clone() }.into_iter();
                let pages = pages.chain(huge_pages(&of, &it.name)).collect();
                self.container(it, (limit, pages), now)
            });
            let reading = PodReading {
                containers: containers.collect(),
                interface: pod.network.and_then(Interface::of_process),
                pod: pod.pod,
            };
            (uid, reading)
        });
        let pods: BTreeMap<String, PodReading> = pods.collect();
        let ids = pods.values().flat_map(|pod| &pod.containers);
        let ids: BTreeSet<&str> = ids.map(|it| &*it.running.id).chain([NODE]).collect();
        self.cgroups.retain(|id, _| ids.contains(&**id));
        self.history.retain(&ids);
        Reading {
            at: now,
            machine,
            rate,
            pods,
        }
    }

    /// None: it has ended meanwhile.
    fn container(
        &mut self,
        running: RunningContainer,
        (limit, pages): (Option<u64>, HugePages),
        now: Timestamp,
    ) -> Option<ContainerReading> {
        if !self.cgroups.contains_key(&running.id) {
            let found = self.hierarchies.of_process(running.pid).ok()?;
            for disk in limit.iter().flat_map(|_| &self.disks) {
                if let Err(error) = found.throttle(*disk, limit.unwrap_or_default()) {
                    tracing::warn!(%error, name = running.name, "a container's disk is not limited");
                }
            }
            if let Err(error) = found.limit_huge_pages(&pages) {
                tracing::warn!(%error, name = running.name, "a container's huge pages are not limited");
            }
            self.cgroups.insert(running.id.clone(), found);
        }
        let counters = self.cgroups.get(&running.id)?.read().ok()?;
        let since = Some(running.started_at);
        let rate = self.history.rate(&running.id, now, counters.cpu_ns, since);
        Some(ContainerReading {
            running,
            counters,
            rate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured_by_its_cgroup_and_forgotten_with_its_container() {
        let container = RunningContainer {
            id: "c1".into(),
            name: "main".into(),
            image: "i".into(),
            pid: std::process::id(),
            started_at: Timestamp::from_second(1000).expect("in range"),
        };
        let pod = RunningPod {
            pod: Arc::default(),
            network: Some(std::process::id()),
            containers: vec![container],
        };
        let mut sampler = Sampler {
            hierarchies: Hierarchies::read().expect("mounts"),
            cgroups: BTreeMap::new(),
            history: History::default(),
            disks: BTreeSet::new(),
            huge_pages: HugePages::new(),
            data: "/".into(),
        };
        let now = Timestamp::from_second(2000).expect("in range");
        let reading = sampler.read(BTreeMap::from([("u1".to_owned(), pod)]), now);
        let sample = reading.sample();
        assert_eq!(sample.pods[0].uid, "u1");
        assert!(sample.pods[0].containers[0].usage.memory_bytes > 0);
        assert!(sample.usage.memory_bytes > 0 && reading.machine.filesystem.inodes > 0);
        assert!(sampler.cgroups.contains_key("c1"));
        let later = sampler.read(BTreeMap::new(), now);
        assert!(later.pods.is_empty() && sampler.cgroups.is_empty());
    }
}
