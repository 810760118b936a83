//! What the datapath is told: Services, EndpointSlices and Nodes as they change, pods as they are
//! wired, and once that all of it is there.
//!
//! Objects are cut to compact views the moment they arrive; only their names are kept, to notice
//! what a new list no longer has. How far the datapath has come with EndpointSlices is told to whom
//! a pod that ends waits for (`drain`).

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};

use super::drain::Nodes;
use super::health_checks::HealthChecks;
use crate::api::pauses::Pauses;
use crate::dns::{Directory, Part};
use crate::metrics::Metrics;
use crate::node::register::Listed;
use datapath::names::Names;
use datapath::object::Programs;
use datapath::{
    Addrs, Change, Datapath, Guard, LocalPod, NodeView, ObjectKey, ServiceView, SliceView,
};
use sys::{Shutdown, Tasks};

const QUEUE: usize = 256;
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// The snapshots that must be there before anything may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Snapshot {
    Services,
    Slices,
    Nodes,
    Pods,
    HostPorts,
}

const ALL: [Snapshot; 5] = [
    Snapshot::Services,
    Snapshot::Slices,
    Snapshot::Nodes,
    Snapshot::Pods,
    Snapshot::HostPorts,
];

/// Who else hears of Services and their endpoints.
#[derive(Clone)]
pub struct Hearers {
    pub nodes: Nodes,
    pub checks: watch::Sender<HealthChecks>,
    pub names: Directory,
}

/// What the API says of this node.
pub struct OwnNode {
    /// The pod range that the control plane gives it; first what an earlier run was given.
    pub range: watch::Sender<Option<String>>,
    /// What its Node says; None while it has none.
    pub listed: watch::Sender<Option<Listed>>,
}

/// What the owner of the datapath tells others.
pub struct Told {
    /// The newest revision of EndpointSlices that the maps hold.
    pub applied: watch::Sender<u64>,
    /// The maps hold what the API had when the agent started, at least.
    pub in_sync: watch::Sender<bool>,
    pub metrics: Arc<Metrics>,
}

/// The way to the one task that owns the datapath.
#[derive(Clone)]
pub struct DatapathHandle {
    queue: mpsc::Sender<Message>,
    guard: watch::Receiver<Arc<Guard>>,
}

enum Message {
    /// A pod by its UID, and what guards its link.
    Wired(
        String,
        LocalPod,
        Arc<Guard>,
        oneshot::Sender<Result<(), String>>,
    ),
    Change(Change, Option<oneshot::Sender<Result<(), String>>>),
    /// A change of a watch, and when it was heard of.
    Heard(Change, Instant),
    /// What do these numbers of Services and of backends mean?
    Name(BTreeSet<u32>, BTreeSet<u32>, oneshot::Sender<Names>),
    /// Everything of EndpointSlices up to that revision was sent.
    Reached(u64),
    Delivered(Snapshot),
    Readdress(Addrs, oneshot::Sender<Result<(), String>>),
    /// These programs log from now on; none means the normal ones.
    Log(Option<Programs>, oneshot::Sender<Result<(), String>>),
}

impl DatapathHandle {
    /// Takes one change into the kernel; returns when it is there.
    pub async fn change(&self, change: Change) -> Result<(), String> {
        self.ask(|done| Message::Change(change, Some(done))).await
    }

    /// What is to be set on the links of pods before they are up.
    pub fn guard(&self) -> Arc<Guard> {
        self.guard.borrow().clone()
    }

    /// Takes in a pod whose link has this guard.
    pub async fn wired(&self, uid: String, pod: LocalPod, guard: Arc<Guard>) -> Result<(), String> {
        self.ask(|done| Message::Wired(uid, pod, guard, done)).await
    }

    /// The node's addresses on the uplink are these now.
    pub async fn readdress(&self, addrs: Addrs) -> Result<(), String> {
        self.ask(|done| Message::Readdress(addrs, done)).await
    }

    /// Puts the programs that log to work; fails if others of theirs are.
    pub async fn begin_log(&self, programs: Programs) -> Result<(), String> {
        self.ask(|done| Message::Log(Some(programs), done)).await
    }

    /// Puts the normal programs back.
    pub async fn end_log(&self) -> Result<(), String> {
        self.ask(|done| Message::Log(None, done)).await
    }

    async fn ask(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Message,
    ) -> Result<(), String> {
        let gone = || "the datapath has stopped".to_owned();
        let (done, outcome) = oneshot::channel();
        let sent = self.queue.send(message(done)).await;
        sent.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// What numbers of Services and of backends mean; nothing, when the datapath has stopped. Blocks.
    pub fn names(&self, services: BTreeSet<u32>, backends: BTreeSet<u32>) -> Names {
        let (asked, answer) = oneshot::channel();
        let message = Message::Name(services, backends, asked);
        let sent = self.queue.blocking_send(message);
        sent.ok()
            .and_then(|()| answer.blocking_recv().ok())
            .unwrap_or_default()
    }

    /// Says that a source's first snapshot is complete.
    pub async fn delivered(&self, snapshot: Snapshot) {
        // It fails only when the process ends.
        let _ = self.queue.send(Message::Delivered(snapshot)).await;
    }

    async fn send(&self, change: Change) {
        // As above.
        let _ = self
            .queue
            .send(Message::Heard(change, Instant::now()))
            .await;
    }

    async fn reached(&self, revision: u64) {
        // As above.
        let _ = self.queue.send(Message::Reached(revision)).await;
    }
}

/// Starts the task that owns the datapath. It ends with the shutdown and leaves all at work, by the normal
/// programs.
pub fn own(datapath: Datapath, told: Told, tasks: &Tasks) -> DatapathHandle {
    let (queue, messages) = mpsc::channel(QUEUE);
    let (guarding, guard) = watch::channel(datapath.guard().clone());
    let owner = Owner {
        datapath,
        told,
        guarding,
        reached: 0,
        wired: false,
        missing: BTreeSet::from(ALL),
    };
    let shutdown = tasks.shutdown().clone();
    tasks.essential("datapath", async move {
        owner.serve(messages, shutdown).await;
        Ok::<(), Infallible>(())
    });
    DatapathHandle { queue, guard }
}

/// The one task that owns the datapath.
struct Owner {
    datapath: Datapath,
    told: Told,
    guarding: watch::Sender<Arc<Guard>>,
    /// The revision of EndpointSlices up to which all was heard.
    reached: u64,
    /// A pod has come or gone since the last look.
    wired: bool,
    missing: BTreeSet<Snapshot>,
}

impl Owner {
    async fn serve(mut self, mut messages: mpsc::Receiver<Message>, shutdown: Shutdown) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.requested() => return self.leave(),
                _ = second.tick() => self.each_second().await,
                _ = sweep.tick() => {
                    if let Err(error) = self.datapath.sweep(monotonic()) {
                        tracing::warn!(%error, "old flows were not removed");
                    }
                    self.follow_routes().await;
                    self.tell();
                }
                message = messages.recv() => match message {
                    None => return self.leave(),
                    Some(message) => {
                        self.take(message);
                        self.tell();
                        self.follow_routes().await;
                    }
                },
            }
        }
    }

    /// All stays at work without the agent, but nobody reads the log.
    fn leave(&mut self) {
        if let Err(error) = self.datapath.end_log() {
            tracing::warn!(%error, "programs that log stay until the agent starts again");
        }
    }

    async fn each_second(&mut self) {
        match self.datapath.relieve(monotonic()) {
            Ok(0) => {}
            Ok(flows) => {
                tracing::warn!(
                    flows,
                    "the flow table was full: half-open flows were removed"
                );
            }
            Err(error) => tracing::warn!(%error, "no room was made in the flow table"),
        }
        if let Err(error) = self.datapath.announce() {
            tracing::warn!(%error, "neighbours were not told of an address");
        }
        // Where one pod comes, others may follow at once.
        if !std::mem::take(&mut self.wired)
            && let Err(error) = self.quicken().await
        {
            tracing::warn!(error, "a pod's packets go on taking the longer way");
        }
    }

    /// The kernel waits meanwhile: not on the thread that all of the agent runs on.
    async fn quicken(&mut self) -> Result<(), String> {
        let late = self.datapath.late().map_err(|error| error.to_string())?;
        let Some(late) = late else { return Ok(()) };
        let attached = tokio::task::spawn_blocking(move || late.attach()).await;
        let attached = attached.map_err(|error| error.to_string())?;
        attached.map_err(|error| error.to_string())
    }

    async fn follow_routes(&mut self) {
        if let Err(error) = self.datapath.follow_routes().await {
            tracing::warn!(%error, "the node's routes to Services' addresses are not as they should be");
        }
    }

    fn take(&mut self, message: Message) {
        let datapath = &mut self.datapath;
        match message {
            Message::Name(services, backends, asked) => {
                // Whoever asked may have gone.
                drop(asked.send(datapath.names(&services, &backends)));
            }
            Message::Heard(change, heard) => match datapath.change(change) {
                Ok(()) if datapath.is_settled() => self.told.metrics.synced(heard.elapsed()),
                Ok(()) => {}
                Err(error) => tracing::error!(%error, "the datapath did not take a change"),
            },
            Message::Wired(uid, pod, guard, done) => {
                self.wired = true;
                let outcome = datapath.wired(uid, pod, &guard).map_err(|e| e.to_string());
                if let Err(error) = &outcome {
                    tracing::error!(error, "the datapath did not take a pod");
                }
                // Whoever asked may have been cancelled meanwhile.
                let _ = done.send(outcome);
            }
            Message::Change(change, done) => {
                self.wired |= matches!(change, Change::Pod(..));
                let outcome = datapath.change(change).map_err(|e| e.to_string());
                if let Err(error) = &outcome {
                    tracing::error!(error, "the datapath did not take a change");
                }
                // Whoever asked may have been cancelled meanwhile.
                done.map(|done| done.send(outcome));
            }
            Message::Reached(revision) => self.reached = revision,
            Message::Readdress(addrs, done) => {
                // As above.
                let _ = done.send(datapath.readdress(addrs).map_err(|e| e.to_string()));
            }
            Message::Log(programs, done) => {
                let outcome = match programs {
                    Some(programs) => datapath.begin_log(programs),
                    None => datapath.end_log(),
                };
                self.guarding.send_replace(datapath.guard().clone());
                // As above.
                let _ = done.send(outcome.map_err(|e| e.to_string()));
            }
            Message::Delivered(snapshot) => {
                if self.missing.remove(&snapshot) && self.missing.is_empty() {
                    tracing::info!("every snapshot is there: the datapath is in sync");
                    if let Err(error) = datapath.in_sync() {
                        tracing::error!(%error, "the datapath did not get in sync");
                    }
                }
            }
        }
    }

    /// Tells how far the maps are, unless they still lead to what has left.
    fn tell(&self) {
        if self.datapath.has_let_go() {
            let (reached, told) = (self.reached, &self.told);
            let applied = &told.applied;
            applied.send_if_modified(|told| std::mem::replace(told, reached) != reached);
            told.in_sync
                .send_if_modified(|in_sync| !std::mem::replace(in_sync, true));
        }
    }
}

/// The kernel's monotonic clock, which flows are stamped with.
fn monotonic() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default()
}

/// Watches Services and their endpoints until shutdown.
pub fn start(
    client: &Client,
    node: &str,
    hearers: &Hearers,
    datapath: &DatapathHandle,
    shutdown: &Shutdown,
) {
    let services = Api::<Service>::all(client.clone());
    let (checks, names) = (hearers.checks.clone(), hearers.names.clone());
    let to_change = move |key: ObjectKey, service: &Service, gone: bool| {
        let here = Some(service).filter(|_| !gone);
        names.service(&key, here);
        checks.send_modify(|checks| checks.service(key.clone(), here));
        Change::Service(key, here.and_then(ServiceView::from_object))
    };
    let (checks, names) = (hearers.checks.clone(), hearers.names.clone());
    let forget = move |key: ObjectKey| {
        names.service(&key, None);
        checks.send_modify(|checks| checks.service(key.clone(), None));
        Change::Service(key, None)
    };
    let names = hearers.names.clone();
    let listed = (Snapshot::Services, move || names.listed(Part::Services));
    let task = follow(services, to_change, forget, datapath.clone(), listed);
    spawn(task, shutdown);

    let (node, heard) = (node.to_owned(), hearers.clone());
    let slices = Api::<EndpointSlice>::all(client.clone());
    let to_change = move |key: ObjectKey, slice: &EndpointSlice, gone: bool| {
        let here = Some(slice).filter(|_| !gone);
        heard.names.slice(&key, here);
        heard.nodes.slice(key.clone(), here, revision(slice));
        let checks = &heard.checks;
        checks.send_modify(|checks| checks.slice(key.clone(), here, &node));
        Change::Slice(
            key,
            here.and_then(|slice| SliceView::from_object(slice, &node)),
        )
    };
    let heard = hearers.clone();
    let forget = move |key: ObjectKey| {
        heard.names.slice(&key, None);
        heard.nodes.forget_slice(key.clone());
        let checks = &heard.checks;
        checks.send_modify(|checks| checks.slice(key.clone(), None, ""));
        Change::Slice(key, None)
    };
    let (nodes, names) = (hearers.nodes.clone(), hearers.names.clone());
    let listed = (Snapshot::Slices, move || {
        names.listed(Part::Slices);
        nodes.slices_listed();
    });
    let task = follow(slices, to_change, forget, datapath.clone(), listed);
    spawn(task, shutdown);
}

/// Watches nodes until shutdown: this node's own pod range goes to `own_range` as it is known, and
/// all of them to the datapath once there is one.
pub fn start_nodes(
    client: &Client,
    node: &str,
    own: OwnNode,
    datapath: watch::Receiver<Option<DatapathHandle>>,
    shutdown: &Shutdown,
) {
    let (client, name) = (client.clone(), node.to_owned());
    let task = async move {
        first_range(&client, &name, own.range).await;
        let mut datapath = datapath;
        let Ok(handle) = datapath
            .wait_for(Option::is_some)
            .await
            .map(|it| it.clone())
        else {
            return;
        };
        let Some(handle) = handle else { return };
        let nodes = Api::<Node>::all(client);
        let to_change = |key: ObjectKey, node: &Node, gone: bool| {
            let other = key.name().to_owned();
            let view = NodeView::from_object(node).filter(|_| !gone);
            if other == name {
                let addrs = view.as_ref().map(|view| view.addrs).unwrap_or_default();
                own.listed
                    .send_replace((!gone).then(|| Listed::of(node, addrs)));
            }
            Change::Node(other, view)
        };
        let forget = |key: ObjectKey| Change::Node(key.name().to_owned(), None);
        let listed = (Snapshot::Nodes, || {});
        follow(nodes, to_change, forget, handle, listed).await;
    };
    spawn(task, shutdown);
}

/// Waits for the pod range that the control plane gives this node.
async fn first_range(client: &Client, name: &str, own_range: watch::Sender<Option<String>>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let nodes = watcher(Api::<Node>::all(client.clone()), config).backoff(Pauses::default());
    let mut nodes = nodes.applied_objects().boxed();
    loop {
        match nodes.try_next().await {
            Ok(Some(node)) => {
                let spec = node.spec.unwrap_or_default();
                let ranges = spec.pod_cidrs.filter(|ranges| !ranges.is_empty());
                if let Some(range) = ranges.map(|ranges| ranges.join(",")).or(spec.pod_cidr) {
                    own_range.send_replace(Some(range));
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => tracing::debug!(%error, "the node's own object is not there yet"),
        }
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static, shutdown: &Shutdown) {
    let shutdown = shutdown.clone();
    tokio::spawn(async move { shutdown.unless(task).await });
}

/// List, watch and list again for ever; hands every change on and notices what a new list lacks.
async fn follow<K>(
    api: Api<K>,
    to_change: impl Fn(ObjectKey, &K, bool) -> Change,
    forget: impl Fn(ObjectKey) -> Change,
    datapath: DatapathHandle,
    (snapshot, listed_whole): (Snapshot, impl Fn()),
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    // The texts of these names are those that the datapath keeps.
    let mut known: BTreeSet<ObjectKey> = BTreeSet::new();
    let mut listed: BTreeSet<ObjectKey> = BTreeSet::new();
    // The newest revision of the list that is under way.
    let mut newest = 0;
    // One object at a time: nobody holds a page of them.
    let config = watcher::Config::default().streaming_lists();
    let mut events = watcher(api, config).backoff(Pauses::default()).boxed();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => {
                listed.clear();
                newest = 0;
            }
            Ok(Some(watcher::Event::InitApply(object))) => {
                let key = key_of(&object);
                listed.insert(key.clone());
                newest = newest.max(revision(&object));
                datapath.send(to_change(key, &object, false)).await;
            }
            Ok(Some(watcher::Event::InitDone)) => {
                for key in known.difference(&listed) {
                    datapath.send(forget(key.clone())).await;
                }
                // Made from all at once, a tree is full.
                known = std::mem::take(&mut listed).into_iter().collect();
                listed_whole();
                datapath.delivered(snapshot).await;
                reached(&datapath, snapshot, newest).await;
            }
            Ok(Some(watcher::Event::Apply(object))) => {
                let key = key_of(&object);
                known.insert(key.clone());
                datapath.send(to_change(key, &object, false)).await;
                reached(&datapath, snapshot, revision(&object)).await;
            }
            Ok(Some(watcher::Event::Delete(object))) => {
                let key = key_of(&object);
                known.remove(&key);
                datapath.send(to_change(key, &object, true)).await;
                reached(&datapath, snapshot, revision(&object)).await;
            }
            Ok(None) => return,
            Err(error) => tracing::debug!(%error, ?snapshot, "a watch is interrupted"),
        }
    }
}

/// Events come in the order of revisions: what the newest one brought is all there is up to it.
async fn reached(datapath: &DatapathHandle, snapshot: Snapshot, revision: u64) {
    if snapshot == Snapshot::Slices {
        datapath.reached(revision).await;
    }
}

/// The store's revision at which the object was last written; for a deleted one, deleted.
fn revision(object: &impl Resource) -> u64 {
    let revision = object.meta().resource_version.as_ref();
    revision.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn key_of(object: &impl Resource) -> ObjectKey {
    let meta = object.meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    ObjectKey::new(namespace, meta.name.as_deref().unwrap_or_default())
}
