//! Whether a pod has left its Services, on every Ready node. Shared by all pods of this node.
//!
//! Which slices name a pod, and since which revision none does, this node knows itself. How far the others are
//! the API server gathers (`apiserver::applied`): an agent has one request there which the server answers when a
//! pod somewhere ends, and the agent whose pod it is has another one, answered when all have caught up.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::connections;
use super::endpoints::{Endpoints, Standing};
use super::{LIMIT, Progress};

use datapath::ObjectKey;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sys::Shutdown;

/// Where the API server hears of applied revisions, and says who has not applied one.
pub const PATH: &str = "/orchestrator/v1/applied";

/// How often a pod's connections are counted.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// From one failed request to the next.
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// A revision that the maps do not come to is not waited for longer before the server hears where they are.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// One for a node.
#[derive(Clone)]
pub struct Nodes {
    own: Arc<str>,
    client: Client,
    known: watch::Sender<Known>,
}

/// What is known of this node's endpoints. Pure.
#[derive(Debug, Default)]
pub struct Known {
    /// The first list of slices is complete: before, a Service may name a pod that is not heard of yet.
    pub is_listed: bool,
    pub endpoints: Endpoints,
}

/// How far a pod has left its Services, as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// No Service ever named it.
    InNone,
    NotYet,
    /// A node that has applied this revision sends it no new connection.
    At(u64),
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

impl Known {
    /// How far the pod has left that was told to end in this revision.
    pub fn leaving(&self, uid: &str, address: Option<IpAddr>, told: u64) -> Leaving {
        if !self.is_listed {
            return Leaving::NotYet;
        }
        match self.endpoints.standing(uid, address) {
            Standing::InNone => Leaving::InNone,
            Standing::LeftAt(revision) => Leaving::At(revision),
            // A slice that drops the pod before it ends does not say that it ends: the next Service that
            // selects it may still call it ready.
            Standing::DroppedAt(revision) if revision < told => Leaving::At(revision),
            Standing::Present | Standing::DroppedAt(_) => Leaving::NotYet,
        }
    }
}

impl Nodes {
    pub fn new(own: &str, client: Client) -> Nodes {
        Nodes {
            own: own.into(),
            client,
            known: watch::Sender::default(),
        }
    }

    /// Says that the first list of slices is complete.
    pub fn slices_listed(&self) {
        self.known
            .send_if_modified(|known| !std::mem::replace(&mut known.is_listed, true));
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

    fn leaving(&self, leaver: &Leaver) -> Leaving {
        let known = self.known.borrow();
        known.leaving(&leaver.uid, leaver.address, leaver.told)
    }

    /// Whether a pod needs no wait: no Service ever named it.
    pub fn in_none(&self, leaver: &Leaver) -> bool {
        self.leaving(leaver) == Leaving::InNone
    }

    /// The Ready nodes that a pod still waits for; this one, while it has not heard of all.
    pub async fn missing(&self, leaver: &Leaver) -> Vec<String> {
        match self.leaving(leaver) {
            Leaving::InNone => Vec::new(),
            Leaving::NotYet => vec![self.own.to_string()],
            Leaving::At(revision) => {
                let behind = self.behind(revision, Duration::ZERO).await;
                behind.unwrap_or_else(|error| vec![format!("the API server: {error}")])
            }
        }
    }

    /// Waits for a pod to leave its Services and then for its last connection to end; tells of both.
    pub async fn observe<F: Future>(&self, leaver: Leaver, tell: impl Fn(Progress) -> F) {
        if !self.has_left(&leaver).await {
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

    /// Waits until no Ready node sends the pod new connections. False: no Service names it.
    async fn has_left(&self, leaver: &Leaver) -> bool {
        let patience = Duration::try_from(LIMIT).unwrap_or_default();
        let mut known = self.known.subscribe();
        loop {
            let leaving = |known: &Known| known.leaving(&leaver.uid, leaver.address, leaver.told);
            // The sender is in `self`.
            let _ = known
                .wait_for(|known| leaving(known) != Leaving::NotYet)
                .await;
            let Leaving::At(revision) = self.leaving(leaver) else {
                return false;
            };
            match self.behind(revision, patience).await {
                // Another slice may have named it meanwhile.
                Ok(behind)
                    if behind.is_empty() && self.leaving(leaver) == Leaving::At(revision) =>
                {
                    return true;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "the API server does not say which nodes send a pod connections");
                    tokio::time::sleep(RETRY_EVERY).await;
                }
            }
        }
    }

    /// The Ready nodes whose maps do not hold this revision of slices, when there is none or the time is over.
    async fn behind(&self, revision: u64, patience: Duration) -> Result<Vec<String>, kube::Error> {
        #[derive(Deserialize)]
        struct Answer {
            behind: Vec<String>,
        }
        let path = format!("{PATH}/{revision}?timeoutMs={}", patience.as_millis());
        let answer: Answer = ask(&self.client, http::Request::get(path)).await?;
        Ok(answer.behind)
    }

    async fn has_connections(&self, leaver: &Leaver) -> bool {
        let Some(pid) = leaver.pid else { return false };
        let ports = leaver.ports.clone();
        let look =
            tokio::task::spawn_blocking(move || connections::any_inbound(pid, ports.as_ref()));
        look.await.unwrap_or(false)
    }
}

/// Tells the API server how far this node's maps are with EndpointSlices, whenever a node waits for that, until
/// shutdown.
pub fn report(client: Client, applied: watch::Receiver<u64>, shutdown: &Shutdown) {
    let shutdown = shutdown.clone();
    tokio::spawn(async move { shutdown.unless(report_always(client, applied)).await });
}

async fn report_always(client: Client, mut applied: watch::Receiver<u64>) {
    #[derive(Deserialize)]
    struct Answer {
        awaited: Option<u64>,
    }
    loop {
        let revision = *applied.borrow_and_update();
        let path = format!("{PATH}/{revision}");
        let told: Result<Answer, _> = ask(&client, http::Request::post(path)).await;
        match told {
            Ok(Answer {
                awaited: Some(awaited),
            }) => {
                let caught_up = applied.wait_for(|applied| *applied >= awaited);
                // What the maps do hold is said in any case.
                drop(tokio::time::timeout(CATCH_UP_TIMEOUT, caught_up).await);
            }
            Ok(Answer { awaited: None }) => {}
            Err(error) => {
                tracing::debug!(%error, "the API server does not hear how far this node's maps are");
                tokio::time::sleep(RETRY_EVERY).await;
            }
        }
    }
}

async fn ask<T: DeserializeOwned>(
    client: &Client,
    request: http::request::Builder,
) -> Result<T, kube::Error> {
    let request = request.body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request(request).await
}
