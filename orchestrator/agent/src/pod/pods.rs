//! The pods of this node: one worker each, woken by the API, by the engine and by a relist.
//!
//! Owns the set of workers. What the API no longer has is ended only after it has listed everything
//! once; until then what runs is left to run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::{Notify, mpsc, watch};

use super::log_links;
use super::refuse;
use super::worker::{self, NodeContext, PodUpdate};
use crate::api::pauses::Pauses;
use crate::network::wiring::PodNetwork;
use crate::node::static_pods::shell::{Given, News};
use crate::node::static_pods::{is_mirror, is_static};
use crate::runtime::{PodRef, Runtime, RuntimeError, Sighting, is_uid};
use crate::volumes::PodDir;
use datapath::HostPort;
use sys::Shutdown;

/// The safety net under the engine's events.
const RELIST_EVERY: Duration = Duration::from_secs(10);
const EVENTS_RETRY: Duration = Duration::from_secs(1);
/// From one static pod to the next at start; then all have been told.
const MANIFESTS_TIMEOUT: Duration = Duration::from_millis(500);

struct Handle {
    updates: watch::Sender<PodUpdate>,
    wake: Arc<Notify>,
}

impl Handle {
    fn is_static(&self) -> bool {
        is_static(&self.updates.borrow().pod)
    }
}

/// The next pod of a manifest; never, where there are none.
async fn next_given(given: &mut Option<mpsc::Receiver<Given>>) -> Option<Given> {
    match given {
        Some(given) => given.recv().await,
        None => std::future::pending().await,
    }
}

/// Every worker of the node.
struct Pods<R, N> {
    node: Arc<NodeContext<R, N>>,
    workers: BTreeMap<String, Handle>,
    ended: mpsc::Sender<String>,
    /// By uid: what the last relist saw.
    fingerprints: BTreeMap<String, String>,
    /// By uid: those that have ports of the node.
    with_host_ports: BTreeSet<String>,
    /// The API has listed its pods: what it did not name may be ended.
    complete: bool,
    /// Who makes the mirrors of static pods; None: there are none.
    mirrors: Option<mpsc::Sender<News>>,
}

/// Where static pods come from, and where what the API says of their mirrors goes.
pub struct Manifests {
    pub given: mpsc::Receiver<Given>,
    pub mirrors: mpsc::Sender<News>,
}

/// Runs the node's pods until shutdown, and leaves them running then.
pub async fn run<R: Runtime, N: PodNetwork>(
    node: Arc<NodeContext<R, N>>,
    manifests: Option<Manifests>,
    shutdown: Shutdown,
) {
    let (ended, mut endings) = mpsc::channel(64);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", node.name));
    let mut api = watcher(Api::<Pod>::all(node.client.clone()), config)
        .backoff(Pauses::default())
        .boxed();
    sweep_log_links(&node.logs_dir).await;
    let mut news = engine_news(node.clone(), shutdown.clone());
    let mut relist = tokio::time::interval(RELIST_EVERY);
    relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut listed = BTreeSet::new();
    let (mut given, mirrors) = match manifests {
        Some(Manifests { given, mirrors }) => (Some(given), Some(mirrors)),
        None => (None, None),
    };
    let mut pods = Pods {
        node,
        workers: BTreeMap::new(),
        ended,
        fingerprints: BTreeMap::new(),
        with_host_ports: BTreeSet::new(),
        complete: false,
        mirrors,
    };
    // What runs of the node's own manifests is known before anything is ended.
    while given.is_some()
        && let Ok(Some((pod, gone))) =
            tokio::time::timeout(MANIFESTS_TIMEOUT, next_given(&mut given)).await
    {
        pods.update(Pod::clone(&pod), gone).await;
    }
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            event = api.next() => match event {
                Some(Ok(event)) => pods.hear(event, &mut listed).await,
                Some(Err(error)) => tracing::debug!(%error, "the watch of pods is interrupted"),
                None => return,
            },
            Some((pod, gone)) = next_given(&mut given) => pods.update(Pod::clone(&pod), gone).await,
            Some(uid) = news.recv() => pods.wake(&uid),
            Some(uid) = endings.recv() => {
                pods.workers.remove(&uid);
                pods.fingerprints.remove(&uid);
            }
            _ = relist.tick() => pods.relist().await,
        }
    }
}

impl<R: Runtime, N: PodNetwork> Pods<R, N> {
    async fn hear(&mut self, event: watcher::Event<Pod>, listed: &mut BTreeSet<String>) {
        match event {
            watcher::Event::Init => {
                listed.clear();
                self.tell_mirrors(News::Listing).await;
            }
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) if is_mirror(&pod) => {
                self.tell_mirrors(News::Shown(Arc::new(pod))).await;
            }
            watcher::Event::Delete(pod) if is_mirror(&pod) => {
                self.tell_mirrors(News::Gone(Arc::new(pod))).await;
            }
            watcher::Event::InitApply(pod) => {
                listed.extend(pod.metadata.uid.clone());
                self.update(pod, false).await;
            }
            watcher::Event::InitDone => {
                self.tell_mirrors(News::Listed).await;
                self.node.network.host_ports(None).await;
                let missing: Vec<String> = self
                    .workers
                    .iter()
                    .filter(|(uid, worker)| !listed.contains(*uid) && !worker.is_static())
                    .map(|(uid, _)| uid.clone())
                    .collect();
                for uid in missing {
                    self.lose(&uid);
                    self.tell_host_ports(&uid, &Pod::default(), true).await;
                }
                self.complete = true;
                self.relist().await;
                self.end_leftovers().await;
            }
            watcher::Event::Apply(pod) => self.update(pod, false).await,
            watcher::Event::Delete(pod) => self.update(pod, true).await,
        }
    }

    /// Says what the API has of a static pod; nobody hears where there are none, and a mirror of a former run stays
    /// until somebody deletes it.
    async fn tell_mirrors(&self, news: News) {
        if let Some(mirrors) = &self.mirrors {
            // It ends with the agent.
            let _ = mirrors.send(news).await;
        }
    }

    async fn update(&mut self, pod: Pod, gone: bool) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if !is_uid(&uid) {
            let name = pod.metadata.name;
            return tracing::error!(?name, uid, "a pod whose uid is no UUID is not run");
        }
        self.tell_host_ports(&uid, &pod, gone).await;
        let update = PodUpdate {
            pod: Arc::new(pod),
            gone,
        };
        match self.workers.get(&uid) {
            Some(handle) => {
                handle.updates.send_replace(update);
            }
            None => self.employ(uid, update),
        }
    }

    /// They follow the API alone: a restarted agent knows them before anything is removed.
    async fn tell_host_ports(&mut self, uid: &str, pod: &Pod, gone: bool) {
        let mut ports = if gone { Vec::new() } else { HostPort::of(pod) };
        // What is refused leads nowhere.
        if !ports.is_empty() && refuse::admit(pod, &self.node.abilities).refusal.is_some() {
            ports.clear();
        }
        let told = if ports.is_empty() {
            self.with_host_ports.remove(uid)
        } else {
            self.with_host_ports.insert(uid.to_owned())
        };
        if told {
            self.node.network.host_ports(Some((uid, ports))).await;
        }
    }

    /// The API has no such pod any more, and its last event was missed.
    fn lose(&mut self, uid: &str) {
        if let Some(handle) = self.workers.get(uid) {
            handle.updates.send_modify(|update| update.gone = true);
        }
    }

    fn employ(&mut self, uid: String, update: PodUpdate) {
        let (updates, receiver) = watch::channel(update);
        let wake = Arc::new(Notify::new());
        let work = worker::run(self.node.clone(), receiver, wake.clone());
        let (ended, name) = (self.ended.clone(), uid.clone());
        tokio::spawn(async move {
            work.await;
            // Fails only when the node's pods are not run any more.
            let _ = ended.send(name).await;
        });
        self.workers.insert(uid, Handle { updates, wake });
    }

    fn wake(&self, uid: &str) {
        if let Some(handle) = self.workers.get(uid) {
            handle.wake.notify_one();
        }
    }

    /// Ends pods of which nothing is left but their files: an agent died while it removed them.
    async fn end_leftovers(&mut self) {
        let data_dir = self.node.data_dir.clone();
        let found = tokio::task::spawn_blocking(move || PodDir::all(&data_dir)).await;
        let uids = match found {
            Ok(Ok(uids)) => uids,
            Ok(Err(error)) => return tracing::warn!(%error, "directories of pods were not listed"),
            Err(error) => return tracing::warn!(%error, "directories of pods were not listed"),
        };
        for uid in uids {
            if !self.workers.contains_key(&uid) {
                tracing::info!(uid, "removing the files of a pod that is gone");
                let pod = PodRef {
                    namespace: String::new(),
                    name: String::new(),
                    uid,
                };
                self.end(&pod);
            }
        }
    }

    /// Ends a pod that the API does not have.
    fn end(&mut self, pod: &PodRef) {
        let update = PodUpdate {
            pod: Arc::new(ghost(pod)),
            gone: true,
        };
        self.employ(pod.uid.clone(), update);
    }

    /// Wakes whose containers are not what the last relist saw, and ends those of nobody.
    async fn relist(&mut self) {
        let sightings = match self.node.runtime.pods().await {
            Ok(sightings) => sightings,
            Err(error) => {
                tracing::warn!(%error, "containers could not be listed");
                return;
            }
        };
        let seen: BTreeMap<String, String> = sightings
            .iter()
            .map(|it| (it.pod.uid.clone(), it.fingerprint.clone()))
            .collect();
        for uid in self.workers.keys() {
            if seen.get(uid) != self.fingerprints.get(uid) {
                self.wake(uid);
            }
        }
        self.fingerprints = seen;
        if self.complete {
            for Sighting { pod, .. } in sightings {
                if !self.workers.contains_key(&pod.uid) {
                    tracing::info!(
                        pod = pod.name,
                        uid = pod.uid,
                        "ending a pod that is not the API's"
                    );
                    self.end(&pod);
                }
            }
        }
    }
}

async fn sweep_log_links(logs: &Path) {
    let logs = logs.to_owned();
    let swept = tokio::task::spawn_blocking(move || log_links::sweep(&logs)).await;
    if let Ok(Err(error)) = swept {
        tracing::warn!(%error, "links to the logs of former containers are left");
    }
}

/// What is known of a pod that the API does not have.
fn ghost(pod: &PodRef) -> Pod {
    let metadata = ObjectMeta {
        name: Some(pod.name.clone()),
        namespace: Some(pod.namespace.clone()),
        uid: Some(pod.uid.clone()),
        ..Default::default()
    };
    Pod {
        metadata,
        ..Default::default()
    }
}

/// The engine's events as uids; a stream that breaks is made anew, and everything is relisted by
/// the timer meanwhile.
fn engine_news<R: Runtime, N: PodNetwork>(
    node: Arc<NodeContext<R, N>>,
    shutdown: Shutdown,
) -> mpsc::Receiver<String> {
    let (news, receiver) = mpsc::channel(256);
    tokio::spawn(async move {
        loop {
            let mut events = node.runtime.events();
            loop {
                let event: Option<Option<Result<String, RuntimeError>>> =
                    shutdown.unless(events.next()).await;
                match event {
                    None => return,
                    Some(Some(Ok(uid))) => {
                        if news.send(uid).await.is_err() {
                            return;
                        }
                    }
                    Some(Some(Err(error))) => {
                        tracing::warn!(%error, "the engine's events broke off");
                        break;
                    }
                    Some(None) => break,
                }
            }
            tokio::time::sleep(EVENTS_RETRY).await;
        }
    });
    receiver
}
