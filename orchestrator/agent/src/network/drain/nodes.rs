//! What the nodes of the cluster have said of slices: which of them are Ready, and how far each has
//! come. Shared by all pods of this node.
//!
//! Leases are watched only while a pod waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use super::APPLIED;
use super::Progress;
use super::connections;
use super::endpoints::{Endpoints, Standing};

use crate::network::feed::Snapshot;
use crate::node::heartbeat;
use datapath::ObjectKey;
use sys::Shutdown;

/// How often a pod's connections are counted.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One for a node.
#[derive(Clone)]
pub struct Nodes {
    own: Arc<str>,
    known: watch::Sender<Known>,
    /// How many pods wait for leases.
    waiting: watch::Sender<usize>,
}

/// What is known of nodes and of this node's endpoints. Pure.
#[derive(Debug)]
pub struct Known {
    /// The first lists that are still under way: what they would say is not known yet.
    pub awaited: BTreeSet<Snapshot>,
    pub endpoints: Endpoints,
    pub ready: BTreeSet<String>,
    /// By node: what its lease says.
    pub applied: BTreeMap<String, u64>,
}

/// The pod that ends.
#[derive(Debug, Clone)]
pub struct Leaver {
    pub uid: String,
    pub address: Option<IpAddr>,
    /// The revision in which it was told to end, or a later one.
    pub told: u64,
    /// A process in its network namespace.
    pub pid: Option<u32>,
    /// Which ports count as its own; all, when it has a namespace of its own.
    pub ports: Option<BTreeSet<u16>>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            awaited: BTreeSet::from([Snapshot::Slices, Snapshot::Nodes]),
            endpoints: Endpoints::default(),
            ready: BTreeSet::new(),
            applied: BTreeMap::new(),
        }
    }
}

impl Known {
    /// The Ready nodes that have not said that they applied that revision.
    pub fn behind(&self, revision: u64) -> impl Iterator<Item = &str> {
        let ready = self.ready.iter().map(String::as_str);
        ready.filter(move |node| self.applied.get(*node).is_none_or(|at| *at < revision))
    }

    /// Whether a pod that was `told` to end in that revision gets no new connection from any Ready
    /// node. `None`: no Service ever named it. While a first list is under way, a Service may name it,
    /// and a node may be Ready, that nobody has heard of.
    pub fn has_left(&self, uid: &str, address: Option<IpAddr>, told: u64) -> Option<bool> {
        if !self.awaited.is_empty() {
            return Some(false);
        }
        let is_known = |revision| self.behind(revision).next().is_none();
        match self.endpoints.standing(uid, address) {
            Standing::InNone => None,
            Standing::Present => Some(false),
            Standing::LeftAt(revision) => Some(is_known(revision)),
            // Who drops it then need not know yet that it ends, and so whoever takes it next.
            Standing::DroppedAt(revision) => Some(revision < told && is_known(revision)),
        }
    }
}

impl Nodes {
    pub fn new(own: &str) -> Nodes {
        Nodes {
            own: own.into(),
            known: watch::Sender::default(),
            waiting: watch::Sender::default(),
        }
    }

    /// Follows the leases whenever a pod waits for them, until shutdown.
    pub fn start(&self, client: Client, shutdown: &Shutdown) {
        let (nodes, shutdown) = (self.clone(), shutdown.clone());
        tokio::spawn(async move { shutdown.unless(nodes.follow(client)).await });
    }

    /// Says that the first list of these is complete.
    pub fn delivered(&self, snapshot: Snapshot) {
        self.known
            .send_if_modified(|known| known.awaited.remove(&snapshot));
    }

    /// Takes a slice in; None when it was deleted.
    pub fn slice(&self, key: ObjectKey, slice: Option<&EndpointSlice>, revision: u64) {
        self.known
            .send_modify(|known| known.endpoints.apply(key, slice, revision, &self.own));
    }

    /// A new list does not have the slice.
    pub fn forget_slice(&self, key: ObjectKey) {
        self.known
            .send_modify(|known| known.endpoints.forget(key, &self.own));
    }

    /// Takes a node in; None when it was deleted.
    pub fn node(&self, name: &str, node: Option<&Node>) {
        let is_ready = node.is_some_and(ready);
        self.known.send_if_modified(|known| {
            if is_ready {
                known.ready.insert(name.to_owned())
            } else {
                known.ready.remove(name)
            }
        });
    }

    /// Whether a pod needs no wait: no Service ever named it.
    pub fn in_none(&self, leaver: &Leaver) -> bool {
        let known = self.known.borrow();
        known
            .has_left(&leaver.uid, leaver.address, leaver.told)
            .is_none()
    }

    /// The Ready nodes that a pod still waits for; this one, while it has not heard of all.
    pub fn missing(&self, leaver: &Leaver) -> Vec<String> {
        let known = self.known.borrow();
        if !known.awaited.is_empty() {
            return vec![self.own.to_string()];
        }
        match known.endpoints.standing(&leaver.uid, leaver.address) {
            Standing::LeftAt(revision) | Standing::DroppedAt(revision) => {
                known.behind(revision).map(str::to_owned).collect()
            }
            Standing::InNone | Standing::Present => Vec::new(),
        }
    }

    /// Waits for a pod to leave its Services and then for its last connection to end; tells of both.
    pub async fn observe<F: Future>(&self, leaver: Leaver, tell: impl Fn(Progress) -> F) {
        let _waiting = Waiting::start(&self.waiting);
        let mut known = self.known.subscribe();
        let left =
            |known: &Known| known.has_left(&leaver.uid, leaver.address, leaver.told) != Some(false);
        if known.wait_for(left).await.is_err() {
            return;
        }
        if self.in_none(&leaver) {
            tell(Progress::DONE).await;
            return;
        }
        let mut seen = Progress {
            left: true,
            idle: !self.has_connections(&leaver).await,
        };
        tell(seen).await;
        while !seen.idle {
            tokio::time::sleep(LOOK_EVERY).await;
            seen.idle = !self.has_connections(&leaver).await;
        }
        tell(seen).await;
    }

    async fn has_connections(&self, leaver: &Leaver) -> bool {
        let Some(pid) = leaver.pid else { return false };
        let ports = leaver.ports.clone();
        let look =
            tokio::task::spawn_blocking(move || connections::any_inbound(pid, ports.as_ref()));
        look.await.unwrap_or(false)
    }

    async fn follow(&self, client: Client) {
        let api: Api<Lease> = Api::namespaced(client, heartbeat::NAMESPACE);
        let mut waiting = self.waiting.subscribe();
        loop {
            if waiting.wait_for(|count| *count > 0).await.is_err() {
                return;
            }
            let nobody = async { waiting.wait_for(|count| *count == 0).await.map(drop) };
            tokio::select! {
                _ = nobody => {}
                () = self.follow_now(&api) => {}
            }
        }
    }

    async fn follow_now(&self, api: &Api<Lease>) {
        let mut leases = watcher(api.clone(), watcher::Config::default())
            .default_backoff()
            .boxed();
        loop {
            match leases.try_next().await {
                Ok(Some(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease))) => {
                    self.lease(&lease);
                }
                Ok(Some(watcher::Event::Init)) => {
                    // A server that lost its data counts anew.
                    self.known.send_modify(|known| known.applied.clear());
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => tracing::debug!(%error, "the watch of leases is interrupted"),
            }
        }
    }

    pub fn lease(&self, lease: &Lease) {
        let annotations = lease.metadata.annotations.as_ref();
        let applied = annotations.and_then(|all| all.get(APPLIED)?.parse().ok());
        let name = lease.metadata.name.clone().unwrap_or_default();
        if let Some(applied) = applied {
            self.known
                .send_if_modified(|known| known.applied.insert(name, applied) != Some(applied));
        }
    }
}

/// Counts while it lives.
struct Waiting(watch::Sender<usize>);

impl Waiting {
    fn start(count: &watch::Sender<usize>) -> Waiting {
        count.send_modify(|count| *count += 1);
        Waiting(count.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn ready(node: &Node) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|it| it.type_ == "Ready" && it.status == "True")
}
