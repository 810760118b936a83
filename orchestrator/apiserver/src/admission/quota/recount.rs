//! Counts what is used of quotas, and corrects what their statuses say.
//!
//! One task follows the store's commits and keeps the ledger. A correction replaces the quota at the
//! revision that the ledger has seen, at which it has seen every object too, since charges are written
//! together with the objects: so a correction never hides a charge. Several servers may do this at once.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::ledger::Ledger;
use super::quota_kind;
use crate::State;
use crate::cache::{Cached, prefix};
use crate::objects::put;
use crate::registry::Snapshot;
use crate::reply::{self, internal};
use api::quota::{Measured, Usage};
use api::{ApiError, Resource};
use store::{Commit, Event, Expect, Revision};

/// What every key of an object begins with.
const ROOT: &str = "/registry/";
/// Changes that come within this time are written together.
const GATHERING: Duration = Duration::from_millis(50);
/// How often everything is counted anew: a pod that should be gone stops counting by time alone.
const INTERVAL: Duration = Duration::from_secs(300);

/// Counts until the server stops.
pub fn start(state: &Arc<State>) {
    let (tasks, state) = (state.tasks.clone(), state.clone());
    tasks.restarting("quota recount", move || {
        let state = state.clone();
        async move {
            let shutdown = state.tasks.shutdown().clone();
            shutdown.unless(run(&state)).await.unwrap_or(Ok(()))
        }
    });
}

struct Recount<'a> {
    state: &'a State,
    ledger: Ledger,
    /// What the keys of quotas begin with.
    quotas: String,
    /// Every commit up to this was taken in.
    reached: Revision,
}

async fn run(state: &State) -> Result<(), ApiError> {
    let from = state.objects.cache.revision();
    let mut commits = state.objects.store.watch(ROOT, from).map_err(internal)?;
    let mut recount = Recount {
        state,
        ledger: Ledger::default(),
        quotas: prefix(quota_kind()?, None),
        reached: from,
    };
    for quota in state.objects.cache.list(quota_kind()?, None).1 {
        recount.quota(
            quota.namespace(),
            quota.name(),
            Some(&quota.bytes()),
            quota.revision,
        )?;
    }
    let mut kinds = state.registry.subscribe();
    let mut all_due = Instant::now() + INTERVAL;
    loop {
        recount.correct().await?;
        tokio::select! {
            commit = commits.next() => recount.take(commit).await?,
            // A quota may count a kind before it is served.
            _ = kinds.changed() => recount.all()?,
            () = tokio::time::sleep_until(all_due) => {
                recount.all()?;
                all_due = Instant::now() + INTERVAL;
            }
        }
        if recount.ledger.is_dirty() {
            tokio::time::sleep(GATHERING).await;
            while let Some(commit) = commits.next().now_or_never() {
                recount.take(commit).await?;
            }
        }
    }
}

impl Recount<'_> {
    async fn take(&mut self, commit: Option<store::Result<Arc<Commit>>>) -> Result<(), ApiError> {
        let commit = commit.ok_or_else(|| internal("the store is closed"))?;
        let commit = commit.map_err(internal)?;
        for event in &commit.events {
            let Some(object) = Place::of(&event.key) else {
                continue;
            };
            if event.key.starts_with(&self.quotas) {
                // The cache, from which objects are counted, may be behind.
                self.state.objects.cache.wait_for(commit.revision).await;
                let value = event.value.as_ref();
                self.quota(object.namespace, object.name, value, commit.revision)?;
            }
            self.object(&object, event)?;
        }
        self.reached = commit.revision;
        Ok(())
    }

    fn quota(
        &mut self,
        namespace: &str,
        name: &str,
        stored: Option<&bytes::Bytes>,
        revision: Revision,
    ) -> Result<(), ApiError> {
        let object = stored.map(without_revision).transpose()?;
        if self.ledger.quota(namespace, name, object, revision) {
            self.count(namespace, name)?;
        }
        Ok(())
    }

    /// An object that quotas may limit.
    fn object(&mut self, at: &Place<'_>, event: &Event) -> Result<(), ApiError> {
        if !self.ledger.has(at.namespace) {
            return Ok(());
        }
        let served = self.state.registry.snapshot();
        let Some(resource) = find_stored(&served, at.kind) else {
            return Ok(());
        };
        match &event.value {
            None => self.ledger.gone(at.namespace, &event.key),
            Some(stored) => {
                let object = content(&resource, stored)?;
                let measured = measured(&resource, &object);
                self.ledger.put(at.namespace, &event.key, &measured);
            }
        }
        Ok(())
    }

    fn all(&mut self) -> Result<(), ApiError> {
        for (namespace, name) in self.ledger.all() {
            self.count(&namespace, &name)?;
        }
        Ok(())
    }

    /// Counts all objects of a quota's namespace.
    fn count(&mut self, namespace: &str, name: &str) -> Result<(), ApiError> {
        let cache = &self.state.objects.cache;
        let mut users: Vec<(Arc<Resource>, Vec<Arc<Cached>>)> = Vec::new();
        let Some(quota) = self.ledger.begin(namespace, name, Revision::MAX).cloned() else {
            return Ok(());
        };
        for resource in stored(&self.state.registry.snapshot()) {
            if resource.namespaced() && !quota.names_of(&resource).is_empty() {
                let (_, objects) = cache.list(&resource, Some(namespace));
                users.push((resource, objects));
            }
        }
        // Whatever of it is newer than the commits that were taken in will be shown again.
        self.ledger.begin(namespace, name, cache.revision());
        for (resource, objects) in users {
            for cached in objects {
                let object = content(&resource, &cached.bytes())?;
                let measured = measured(&resource, &object);
                self.ledger.count(namespace, name, &cached.key, &measured);
            }
        }
        Ok(())
    }

    /// Writes what is wrong. Who loses a race hears of the winner's write, and looks again.
    async fn correct(&mut self) -> Result<(), ApiError> {
        let served = self.state.registry.snapshot();
        let is_served = |group: &str, plural: &str| find_stored(&served, (group, plural)).is_some();
        for correction in self.ledger.corrections(self.reached, is_served) {
            let expect = Expect::At(correction.revision);
            let write = put(quota_kind()?, &correction.quota, expect);
            match self.state.objects.store.commit(vec![write]).await {
                Ok(_) | Err(store::StoreError::Conflict { .. }) => {}
                Err(error) => return Err(internal(error)),
            }
        }
        Ok(())
    }
}

/// What a key says of its object.
struct Place<'a> {
    /// Group and plural.
    kind: (&'a str, &'a str),
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Place<'a> {
    /// None: not an object in a namespace.
    fn of(key: &'a str) -> Option<Self> {
        let mut words = key.strip_prefix(ROOT)?.split('/');
        let [group, plural, namespace, name] = [(); 4].map(|()| words.next());
        let group = group.filter(|group| *group != "core").unwrap_or_default();
        Some(Self {
            kind: (group, plural?),
            namespace: namespace?,
            name: name?,
        })
    }
}

/// The kinds that are stored, each once.
fn stored(served: &Snapshot) -> Vec<Arc<Resource>> {
    let served = served.versions().iter().flat_map(|version| &version.served);
    let mut kinds: Vec<Arc<Resource>> = served.map(|served| served.storage.clone()).collect();
    let name = |kind: &Arc<Resource>| (kind.group.clone(), kind.plural.clone());
    kinds.sort_by_key(name);
    kinds.dedup_by_key(|kind| name(kind));
    kinds
}

/// The stored kind of that name. One that is only another face of it is not counted.
fn find_stored(served: &Snapshot, (group, plural): (&str, &str)) -> Option<Arc<Resource>> {
    let found = served.find_any(group, plural)?;
    let is_its_own = found.storage.qualified() == found.resource.qualified();
    is_its_own.then(|| found.storage.clone())
}

fn measured<'a>(resource: &'a Resource, object: &'a Value) -> Measured<'a> {
    Measured {
        resource,
        object,
        now: Timestamp::now(),
    }
}

/// The object, if what it uses depends on it.
fn content(resource: &Resource, stored: &bytes::Bytes) -> Result<Value, ApiError> {
    match resource.usage {
        Usage::Pod | Usage::Service | Usage::Claim => reply::parse(stored),
        Usage::Nothing | Usage::Count | Usage::CountAs(_) => Ok(Value::Null),
    }
}

fn without_revision(stored: &bytes::Bytes) -> Result<Value, ApiError> {
    let mut object = reply::parse(stored)?;
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    Ok(object)
}
