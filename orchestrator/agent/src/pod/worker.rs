//! One task a pod: gather what is, ask `pod_plan` what to do, do it, say how it stands.
//!
//! Owns the pod's [`Memory`]. Decides nothing: the order of a pod's life is the plan's, how it reads
//! the status'. A step that fails is remembered with its reason and planned again after a pause.

mod claims;
mod execute;
mod files;
mod hooks;
mod image_volumes;
mod images;
mod logs;
mod places;
mod report;
mod resources;
mod start;
mod start_clock;
mod tokens;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Template, Pod, PodStatus};
use kube::Client;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::downward::Facts;
use super::log_links::Links;
use super::plan::{self, Action, Failure, ImageState, Memory, PostStart, Probed, View};
use super::prober::{self, Verdict};
use super::probes::{Machine, Standing};
use super::refuse::{self, Abilities};
use super::resize::{self, Allocations, Given};
use super::shape;
use super::status::{self, Place};
use crate::api::events::Recorder;
use crate::api::sources::Claimed;
use crate::api::watched::{Reference, Watched};
use crate::metrics::Metrics;
use crate::network::drain::{self, Progress};
use crate::network::pod_net::shaping::Bandwidth;
use crate::network::wiring::PodNetwork;
use crate::node::facts::Capacity;
use crate::node::running::{Eviction, Running};
use crate::runtime::image_root;
use crate::runtime::{Container, Identity, Image, Role, Runtime, RuntimeError, State};
use crate::volumes::csi::Csi;
use crate::volumes::{Dns, PodDir};
use api::amounts::Amounts;
use datapath::Addrs;

use start_clock::StartClock;

pub use tokens::request as ask_for_token;
pub use usage::Measuring;

/// How often one wake-up may plan again before it lets others run: a plan that never settles is a
/// mistake, and must not take the node with it.
const STEPS_PER_WAKE: usize = 50;

/// When to look again after the engine or the server did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// When a changed container is replaced: whoever changes a pod several times in a row has it restarted once,
/// and whoever changes it and then writes its status, as conformance does, is not overtaken.
const REPLACED_AFTER: Duration = Duration::from_millis(200);

/// What all pods of a node share.
pub struct NodeContext<R, N> {
    pub name: String,
    /// The node's addresses, as they are now.
    pub addrs: watch::Receiver<Addrs>,
    pub data_dir: PathBuf,
    /// Where log shippers look for the logs of containers.
    pub logs_dir: PathBuf,
    /// Where the node's own network namespace lies, for sandboxes that join it.
    pub netns: PathBuf,
    pub capacity: Capacity,
    /// What of it is for pods.
    pub allocatable: Amounts,
    /// What the node's pods ask for.
    pub allocations: Arc<Allocations>,
    pub abilities: Abilities,
    pub dns: Dns,
    pub runtime: Arc<R>,
    /// The links of images, as far as mounts have met them.
    pub image_roots: image_root::Known,
    pub network: N,
    pub client: Client,
    pub recorder: Recorder,
    pub metrics: Arc<Metrics>,
    /// What all nodes have said of this node's endpoints.
    pub nodes: drain::Nodes,
    /// The ConfigMaps, Secrets and trust bundles of all pods.
    pub watched: Watched,
    pub measuring: Measuring,
    /// What runs, for what measures and shows it.
    pub running: Arc<Running>,
    pub csi: Csi,
}

/// What the API says of a pod.
#[derive(Debug, Clone)]
pub struct PodUpdate {
    pub pod: Arc<Pod>,
    pub gone: bool,
}

/// News from the worker's own background tasks.
enum Note {
    Pulled {
        container: String,
        image: String,
        outcome: Result<(), RuntimeError>,
        took: Duration,
    },
    Probed {
        id: String,
        verdict: Verdict,
    },
    /// That container's process has ended.
    Ended(String),
    /// The `postStart` of that container has ended; why it failed, if it did.
    PostStarted {
        id: String,
        failed: Option<String>,
    },
    /// The `preStop` of that container has ended.
    PreStopped(String),
    Drained(Progress),
    /// The images of the pod's volumes are there, or cannot be.
    ImagesLaid,
    /// A volume has outgrown its limit: why the pod is evicted.
    Outgrown(String),
}

/// What a step means for the loop.
enum Step {
    /// Something changed: look again.
    Progress,
    /// Nothing to do before then, unless something wakes the worker.
    Wait(Instant),
    Settled,
    Finished,
}

/// Runs until nothing of the pod is left.
pub fn run<R: Runtime, N: PodNetwork>(
    node: Arc<NodeContext<R, N>>,
    updates: watch::Receiver<PodUpdate>,
    wake: Arc<Notify>,
) -> impl Future<Output = ()> + Send {
    // It counts from the call, also while the runtime has other tasks to run.
    let clock = Arc::new(StartClock::new(&updates.borrow().pod));
    work(node, updates, wake, clock)
}

async fn work<R: Runtime, N: PodNetwork>(
    node: Arc<NodeContext<R, N>>,
    mut updates: watch::Receiver<PodUpdate>,
    wake: Arc<Notify>,
    clock: Arc<StartClock>,
) {
    let (notes, mut inbox) = mpsc::channel(16);
    let update = updates.borrow_and_update().clone();
    let mut worker = Worker::new(node, update, notes, wake.clone(), clock);
    let mut held: Option<Instant> = None;
    loop {
        let until = match worker.settle(&mut updates).await {
            Step::Finished => return worker.node.running.forget(worker.uid()),
            Step::Wait(until) => until,
            Step::Progress => Instant::now() + RETRY,
            Step::Settled => Instant::now() + Duration::from_secs(3600),
        };
        let until = held.map_or(until, |held| held.min(until));
        tokio::select! {
            changed = updates.changed() => match changed {
                Ok(()) => {
                    let update = updates.borrow_and_update().clone();
                    if worker.is_replaced_by(&update) {
                        held.get_or_insert_with(|| Instant::now() + REPLACED_AFTER);
                    } else {
                        held = None;
                        worker.adopt(update);
                    }
                }
                Err(_) => return,
            },
            () = wake.notified() => worker.stale = true,
            note = inbox.recv() => if let Some(note) = note {
                worker.take(note);
                worker.report_loss().await;
            },
            () = tokio::time::sleep_until(until) => worker.stale = true,
        }
        if held.take_if(|held| *held <= Instant::now()).is_some() {
            worker.adopt(updates.borrow().clone());
        }
    }
}

struct Worker<R, N> {
    node: Arc<NodeContext<R, N>>,
    update: PodUpdate,
    memory: Memory,
    containers: Vec<Container>,
    /// The engine may have others by now.
    stale: bool,
    place: Place,
    dir: PodDir,
    /// Notified when a container or an object that the pod refers to changes.
    wake: Arc<Notify>,
    clock: Arc<StartClock>,
    /// What the pod refers to, while it shall run.
    objects: Option<Reference>,
    /// How many changes of them the plan knows.
    seen_changes: u64,
    /// Read when the sandbox was made; used again when the server is away.
    service_env: Option<(Instant, BTreeMap<String, String>)>,
    written: Option<files::Written>,
    /// What the pod was given, and what its spec says.
    given: Given,
    wanted: Given,
    /// The links to logs that there are.
    log_links: Links,
    tokens: tokens::Tokens,
    /// What was read of the pod's claims.
    claimed: Claimed,
    /// Measures the volumes that have a limit.
    gauge: Option<AbortOnDropHandle<()>>,
    /// By container name: the image of its next start, if it was there when it was looked for.
    found_images: BTreeMap<String, Image>,
    image_volumes: image_volumes::ImageVolumes,
    /// By container name: pulls that failed in a row.
    pull_failures: BTreeMap<String, u32>,
    reported: Option<PodStatus>,
    /// What the pod runs without, until it was told.
    unmet: Vec<String>,
    /// By container id.
    probers: BTreeMap<String, prober::Prober>,
    /// By container id: those whose process is waited for.
    awaited: BTreeSet<String>,
    notes: mpsc::Sender<Note>,
}

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    fn new(
        node: Arc<NodeContext<R, N>>,
        update: PodUpdate,
        notes: mpsc::Sender<Note>,
        wake: Arc<Notify>,
        clock: Arc<StartClock>,
    ) -> Self {
        let uid = update.pod.metadata.uid.clone().unwrap_or_default();
        let admission = refuse::admit(&update.pod, &node.abilities);
        let memory = Memory {
            refused: admission
                .refusal
                .or_else(|| node.running.refusal(&update.pod))
                .or_else(|| Bandwidth::refusal(&update.pod)),
            ..Default::default()
        };
        let node_ips = *node.addrs.borrow();
        let given = resize::known(&update.pod);
        let wanted = resize::wanted(&update.pod);
        Worker {
            place: Place {
                node_ips,
                accepted_at: Timestamp::now(),
            },
            dir: PodDir::new(&node.data_dir, &uid),
            node,
            update,
            memory,
            containers: Vec::new(),
            stale: true,
            wake,
            clock,
            objects: None,
            seen_changes: 0,
            service_env: None,
            written: None,
            given,
            wanted,
            log_links: Links::default(),
            tokens: tokens::Tokens::default(),
            claimed: Claimed::new(),
            gauge: None,
            found_images: BTreeMap::new(),
            image_volumes: image_volumes::ImageVolumes::default(),
            pull_failures: BTreeMap::new(),
            reported: None,
            unmet: admission.unmet,
            probers: BTreeMap::new(),
            awaited: BTreeSet::new(),
            notes,
        }
    }

    fn adopt(&mut self, update: PodUpdate) {
        self.wanted = resize::wanted(&update.pod);
        self.update = update;
    }

    /// Whether the API has said something of the pod that is to be acted on at once.
    fn has_news(&self, updates: &watch::Receiver<PodUpdate>) -> bool {
        updates.has_changed().unwrap_or(false) && !self.is_replaced_by(&updates.borrow())
    }

    /// Whether a container that runs is another one in the update.
    fn is_replaced_by(&self, update: &PodUpdate) -> bool {
        let goes = update.gone || update.pod.metadata.deletion_timestamp.is_some();
        let hash = |pod: &Pod, name: &str| shape::template(pod, name).map(shape::spec_hash);
        let changed = |container: &Container| {
            let (name, pod) = (&container.identity.name, &self.update.pod);
            let is_running = matches!(container.state, State::Running { .. });
            is_running && hash(&update.pod, name) != hash(pod, name)
        };
        !goes && self.containers.iter().any(changed)
    }

    fn uid(&self) -> &str {
        self.update.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    fn view(&self) -> View<'_> {
        View {
            pod: &self.update.pod,
            gone: self.update.gone,
            now: Timestamp::now(),
            containers: &self.containers,
            memory: &self.memory,
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            node_name: self.node.name.clone(),
            node_ips: *self.node.addrs.borrow(),
            pod_ips: self.memory.attached.as_ref().map(|attached| attached.addrs),
            node_cpus: self.node.capacity.cpus,
            node_memory_bytes: self.node.capacity.memory_bytes,
        }
    }

    /// Plans and does until there is nothing to do now; then reports.
    async fn settle(&mut self, updates: &mut watch::Receiver<PodUpdate>) -> Step {
        self.place.node_ips = *self.node.addrs.borrow();
        for _ in 0..STEPS_PER_WAKE {
            if self.has_news(updates) {
                let update = updates.borrow_and_update().clone();
                self.adopt(update);
            }
            match self.step(updates).await {
                Step::Progress => {}
                Step::Finished => return Step::Finished,
                waiting => return self.report_and(waiting).await,
            }
        }
        tracing::error!(uid = self.uid(), "the plan of a pod does not settle");
        Step::Progress
    }

    async fn step(&mut self, updates: &watch::Receiver<PodUpdate>) -> Step {
        if self.stale {
            let listed = self.node.runtime.containers(self.uid());
            match self.clock.engine(listed).await {
                Ok(found) => self.containers = found,
                Err(error) => {
                    tracing::warn!(%error, "containers could not be listed");
                    return Step::Wait(Instant::now() + RETRY);
                }
            }
            self.stale = false;
        }
        // What was refused holds nothing of the node.
        if self.memory.refused.is_none() || !self.containers.is_empty() {
            let running = &self.node.running;
            running.set(self.uid(), &self.update.pod, &self.containers, &self.wake);
        }
        if let Some(eviction) = self.node.running.take_eviction(self.uid()) {
            self.evict(eviction);
        }
        self.forget_the_dead();
        self.follow_objects();
        self.link_logs().await;
        self.read_termination_messages().await;
        self.watch_probes();
        self.await_ends();
        self.report_loss().await;
        self.watch_usage();
        let room = self.allocate();
        let volumes = self.update_volumes().await;
        let mut until = room.into_iter().chain(volumes).min();
        let actions = plan::plan(&self.view());
        let mut progress = false;
        for action in actions {
            tracing::debug!(pod = self.update.pod.metadata.name, ?action, "next");
            self.stale |= action.changes_containers();
            match self.execute(action).await {
                Step::Progress => progress = true,
                Step::Wait(at) => until = Some(until.map_or(at, |until| until.min(at))),
                Step::Settled => {}
                Step::Finished => return Step::Finished,
            }
            // What else was planned may not be wanted any more: the pod may be deleted.
            if self.has_news(updates) {
                return Step::Progress;
            }
        }
        match (progress, until) {
            (true, _) => Step::Progress,
            (false, Some(until)) => Step::Wait(until),
            (false, None) => Step::Settled,
        }
    }

    async fn report_and(&mut self, waiting: Step) -> Step {
        if self.update.gone || self.memory.reported_end {
            return waiting;
        }
        match self.report().await {
            Ok(()) => waiting,
            Err(error) => {
                tracing::debug!(%error, "a pod's status was not written");
                let retry = Instant::now() + RETRY;
                match waiting {
                    Step::Wait(until) => Step::Wait(until.min(retry)),
                    _ => Step::Wait(retry),
                }
            }
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Pulled {
                container,
                image,
                outcome,
                took,
            } => {
                self.pulled(container, &image, outcome, took);
            }
            Note::Probed { id, verdict } => self.probed(id, verdict),
            Note::Ended(id) => {
                self.stale = true;
                let probed = self.memory.probes.entry(id).or_insert(Probed {
                    started: true,
                    ready: true,
                    failed: None,
                });
                probed.ready = false;
            }
            Note::PostStarted { id, failed } => {
                let ended = failed.map_or(PostStart::Done, PostStart::Failed);
                self.memory.post_starts.insert(id, ended);
            }
            Note::PreStopped(id) => {
                if let Some(hook) = self.memory.pre_stops.get_mut(&id) {
                    hook.ended = true;
                }
            }
            Note::ImagesLaid => self.images_laid(),
            Note::Outgrown(why) => self.evict(Eviction::over_limit(why)),
            Note::Drained(progress) => {
                if let Some(drain) = &mut self.memory.drain {
                    drain.seen = progress;
                }
            }
        }
    }

    /// What is remembered of containers that are gone.
    fn forget_the_dead(&mut self) {
        let running: BTreeSet<&String> = self
            .containers
            .iter()
            .filter(|it| it.is_running())
            .map(|it| &it.id)
            .collect();
        self.memory.signalled.retain(|id, _| running.contains(id));
        self.memory.pre_stops.retain(|id, _| running.contains(id));
        self.memory.post_starts.retain(|id, _| running.contains(id));
        self.memory.probes.retain(|id, _| running.contains(id));
        let known: BTreeSet<&String> = self.containers.iter().map(|it| &it.id).collect();
        self.memory
            .termination_messages
            .retain(|id, _| known.contains(id));
        self.probers.retain(|id, _| running.contains(id));
        self.awaited.retain(|id| running.contains(id));
        if let Some(attached) = &self.memory.attached
            && !running.contains(&attached.sandbox)
        {
            self.memory.attached = None;
        }
    }

    fn remember_failure(&mut self, name: &str, reason: &str, message: String) {
        self.clock.disregard();
        let count = self
            .memory
            .failures
            .get(name)
            .map_or(0, |failure| failure.count)
            + 1;
        let failure = Failure {
            reason: reason.to_owned(),
            message,
            at: Timestamp::now(),
            count,
        };
        self.memory.failures.insert(name.to_owned(), failure);
    }

    /// Has the kernel say when what runs has ended.
    fn await_ends(&mut self) {
        for container in &self.containers {
            let State::Running { pid, .. } = container.state else {
                continue;
            };
            let stays = is_followed(&self.update.pod, container);
            if !stays || !self.awaited.insert(container.id.clone()) {
                continue;
            }
            let (node, notes) = (self.node.clone(), self.notes.clone());
            let id = container.id.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = notes.closed() => {}
                    // It fails when the worker has ended meanwhile.
                    () = node.runtime.ended(pid) => drop(notes.send(Note::Ended(id)).await),
                }
            });
        }
    }

    /// Starts probing what runs and has probes.
    fn watch_probes(&mut self) {
        for container in &self.containers {
            let State::Running { started_at, pid: _ } = container.state else {
                continue;
            };
            if !is_followed(&self.update.pod, container) {
                continue;
            }
            let template = shape::template(&self.update.pod, &container.identity.name);
            let Some(template) = template else { continue };
            let hook = self.memory.post_starts.get(&container.id);
            if hook.is_some_and(|hook| *hook != PostStart::Done) {
                continue;
            }
            if self.probers.contains_key(&container.id) || !prober::has_probes(template) {
                continue;
            }
            let machine = resumed(&self.update.pod, container, template, started_at);
            let Standing { started, ready, .. } = machine.standing();
            let probed = Probed {
                started,
                ready,
                failed: None,
            };
            self.memory
                .probes
                .entry(container.id.clone())
                .or_insert(probed);
            // An adopted pod's address is known only when its wire was found again: probes without
            // it would fail, and get a healthy container killed.
            let attached = self.memory.attached.as_ref();
            let Some(address) = attached.and_then(|attached| attached.addrs.first()) else {
                continue;
            };
            let target = prober::Target {
                id: container.id.clone(),
                template: template.clone(),
                address,
                machine,
            };
            let (node, notes) = (self.node.clone(), self.notes.clone());
            let id = container.id.clone();
            let prober = prober::start(node, target, move |verdict| {
                let (notes, id) = (notes.clone(), id.clone());
                async move { notes.send(Note::Probed { id, verdict }).await.is_ok() }
            });
            self.probers.insert(container.id.clone(), prober);
        }
    }
}

/// Whether a container is one that lives as long as its pod.
fn is_followed(pod: &Pod, container: &Container) -> bool {
    let Identity { role, name, .. } = &container.identity;
    matches!(role, Role::Main | Role::Init) && shape::template(pod, name).is_some()
}

/// A container's probes, from where the last reported status of that very container left them.
fn resumed(pod: &Pod, container: &Container, template: &Template, at: Timestamp) -> Machine {
    let machine = Machine::new(template, at);
    let id = status::container_id(container);
    let known = shape::known_status(pod, container.identity.role, &template.name);
    match known.filter(|known| known.container_id.as_ref() == Some(&id)) {
        Some(known) => machine.resume(known.started == Some(true), known.ready),
        None => machine,
    }
}

/// The clock of plans as the runtime's clock.
fn instant_of(time: Timestamp) -> Instant {
    let left = time.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(left).unwrap_or_default()
}

/// Whether the image of a container's next start is being waited for.
fn is_pulling(memory: &Memory, container: &str) -> bool {
    memory.images.get(container) == Some(&ImageState::Pulling)
}

/// Keeps a container's name and its place in messages.
fn pod_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!(
        "{}_{}({})",
        part(&meta.name),
        part(&meta.namespace),
        part(&meta.uid)
    )
}

/// An action that only sets the alarm.
fn alarm(action: &Action) -> Option<Instant> {
    match action {
        Action::WakeAt(time) => Some(instant_of(*time)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
