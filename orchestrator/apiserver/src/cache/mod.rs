//! The watch cache: every object as the bytes that clients get, and the recent past.
//!
//! One task follows the store and applies its commits; GET, LIST and WATCH read here and never
//! touch the store, but for a watch or a list of a state from before this process began. Objects are not kept
//! parsed: bytes, and labels and selectable fields once a selector looked; of bound pods also what
//! they refer to, by which a node's rights are judged. Writes go to the store, never here; who must
//! read its own write waits for its revision (`wait_for`).

mod history;
mod index;
mod kind;
mod node;
mod object;
mod ordered;
mod packed;
mod recall;
mod references;
mod selectable;
mod snapshots;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockWriteGuard};

use futures::StreamExt;
use tokio::sync::Semaphore;

use super::addresses::Addresses;
use super::rbac::Rbac;
use api::{self, Resource};
use store::{Commit, CommitStream, Revision, Store, StoreError};
use sys::{Shutdown, Tasks};

pub use index::Bucket;
pub use node::is_trimmed;
pub use object::Cached;
pub use ordered::Ordered;
pub use references::{Referent, referred};
pub use watch::Watch;

use kind::{Kind, Wake};
use recall::Recall;

/// What there is of a kind.
#[derive(Clone, Debug)]
pub struct Figures {
    pub group: api::resource::Name,
    pub plural: api::resource::Name,
    pub objects: u64,
    /// The revision of its last change.
    pub revision: Revision,
    /// What watches and pages of the past take.
    pub past_bytes: u64,
}

/// What happened to an object of a resource (before any selector).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

/// One change, with what a selector needs to see an object enter or leave its set.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub change: Change,
    /// The new state; of a deletion the last state, at the revision of the deletion.
    pub object: Arc<Cached>,
    /// The state before, unless it was added.
    pub previous: Option<Arc<Cached>>,
}

/// The revision that a watch asked for lies before everything that is kept: the client has to
/// list again (410, reason Expired).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Gone {
    pub asked: Revision,
    pub oldest: Revision,
}

/// Resources by what their keys begin with.
type Kinds = HashMap<Box<str>, Arc<Kind>>;

/// The cache of a whole store. Clones share it.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    /// By what their keys begin with.
    kinds: RwLock<Kinds>,
    /// Those that are loaded while the server runs; nobody reads them yet.
    joining: RwLock<Kinds>,
    /// Who has which role; written with the roles and bindings themselves.
    rbac: Rbac,
    /// Who has which address; told after the objects and before the revision.
    addresses: OnceLock<Arc<Addresses>>,
    /// Everything up to this is visible.
    revision: tokio::sync::watch::Sender<Revision>,
    /// The revision that was loaded at the start.
    loaded: Revision,
    /// What happened before.
    recall: Recall,
    /// Watches that read the store's log themselves.
    log_readers: Semaphore,
    shutdown: Shutdown,
}

/// The store's key of an object (`namespace` empty for a cluster resource).
pub fn object_key(resource: &Resource, namespace: &str, name: &str) -> String {
    let mut key = prefix(resource, Some(namespace));
    key.push_str(name);
    key
}

/// What the keys of a resource, or of its objects in a namespace, begin with.
pub fn prefix(resource: &Resource, namespace: Option<&str>) -> String {
    let group = if resource.group.is_empty() {
        "core"
    } else {
        &*resource.group
    };
    let plural = &resource.plural;
    match namespace {
        Some(namespace) if !namespace.is_empty() => {
            format!("{ROOT}{group}/{plural}/{namespace}/")
        }
        _ => format!("{ROOT}{group}/{plural}/"),
    }
}

impl Cache {
    /// Loads the store and follows it until the tasks are stopped. Returns when every object is
    /// there.
    pub async fn start(store: Arc<dyn Store>, tasks: &Tasks) -> Result<Self, StoreError> {
        let kinds = api::resources().iter();
        let kinds: Kinds = kinds
            .map(|resource| (prefix(resource, None).into(), Arc::new(Kind::new(resource))))
            .collect();
        let rbac = Rbac::default();
        // Objects of custom kinds stay where they are until their kind is added.
        let mut load = |key: &str, revision: Revision, stored: &[u8]| {
            rbac.note(key, Some(stored));
            if let Some(kind) = kind_of(key).and_then(|prefix| kinds.get(prefix)) {
                kind.load(key, stored, revision);
            }
        };
        let loaded = store.visit(ROOT, &mut load).await?;
        kinds.values().for_each(|kind| kind.loaded(loaded));
        let changes = store.watch(ROOT, loaded)?;
        let revision = tokio::sync::watch::Sender::new(loaded);
        let shutdown = tasks.shutdown().clone();
        let inner = Arc::new(Inner {
            store,
            kinds: RwLock::new(kinds),
            joining: RwLock::default(),
            rbac,
            addresses: OnceLock::new(),
            revision,
            loaded,
            recall: Recall::new(loaded),
            log_readers: Semaphore::new(LOG_READERS),
            shutdown: shutdown.clone(),
        });
        let following = inner.clone();
        tasks.essential("watch cache", async move {
            shutdown
                .unless(following.follow(changes))
                .await
                .unwrap_or(Ok(()))
        });
        Ok(Self(inner))
    }

    /// Takes on a kind while the server runs; returns when its objects are there. One that is there in
    /// another form is read until then, and hears nothing more afterwards: its watches are to end. Only one
    /// task may call this.
    pub async fn add(&self, resource: &Arc<Resource>) -> Result<(), StoreError> {
        let prefix = prefix(resource, None);
        let kind = Arc::new(Kind::new(resource));
        to_change(&self.0.joining).insert((&*prefix).into(), kind.clone());
        let mut load = |key: &str, revision: Revision, stored: &[u8]| {
            kind.load(key, stored, revision);
        };
        let loaded = self.0.store.visit(&prefix, &mut load).await;
        if let Ok(loaded) = loaded {
            // From here on the follower of the store feeds the kind, in both places at once at most.
            kind.loaded(loaded);
            to_change(&self.0.kinds).insert((&*prefix).into(), kind);
        }
        to_change(&self.0.joining).remove(&*prefix);
        loaded.map(|_| ())
    }

    /// Lets go of a kind. Its watches hear nothing more; what is stored stays stored.
    pub fn forget(&self, resource: &Resource) {
        to_change(&self.0.kinds).remove(&*prefix(resource, None));
    }

    /// `namespace` is empty for a cluster resource.
    pub fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Arc<Cached>> {
        let key = object_key(resource, namespace, name);
        let kind = self.0.kind(&key)?;
        let found = kind.state().objects.get(key.as_str()).cloned();
        found
    }

    /// All objects in key order (namespace, then name), and the revision at which this is true: a
    /// watch from it misses nothing and repeats nothing.
    pub fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
    ) -> (Revision, Vec<Arc<Cached>>) {
        let (revision, objects) = self.snapshot(resource);
        let places = objects.span(&prefix(resource, namespace));
        (revision, objects.slice(places).cloned().collect())
    }

    /// All objects as they are now, and the revision at which this is true. Copies nothing.
    pub fn snapshot(&self, resource: &Resource) -> (Revision, Ordered) {
        let Some(kind) = self.kind(resource) else {
            return (self.revision(), Ordered::default());
        };
        let state = kind.state();
        // Under the lock: no change of this resource can lie between the two.
        (self.revision().max(state.applied), state.objects.clone())
    }

    /// All objects as they were at a revision, if that is now or has been kept.
    pub fn snapshot_at(&self, resource: &Resource, revision: Revision) -> Option<Ordered> {
        let kind = self.kind(resource)?;
        let reached = self.revision();
        let state = kind.state();
        match state.snapshots.at(revision) {
            Some(kept) => Some(kept.clone()),
            None if (state.applied..=reached).contains(&revision) => Some(state.objects.clone()),
            None => None,
        }
    }

    /// Keeps the state of a revision for a while: a client reads it page by page.
    pub fn keep(&self, resource: &Resource, revision: Revision, objects: &Ordered) {
        if let Some(kind) = self.kind(resource) {
            kind.keep(revision, objects);
        }
    }

    /// The objects of a bucket in a namespace, in key order, as of a revision.
    pub fn list_bucket(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        bucket: &Bucket,
    ) -> (Revision, Vec<Arc<Cached>>) {
        let Some(kind) = self.kind(resource) else {
            return (self.revision(), Vec::new());
        };
        let prefix = prefix(resource, namespace);
        let state = kind.state();
        let get = |key: &str| state.objects.get(key).cloned();
        let objects = match bucket {
            Bucket::Object(key) => get(key).into_iter().collect(),
            Bucket::Field(index, value) => {
                let keys = state.indexes.keys(*index, value);
                let keys = keys.filter(|key| key.starts_with(&prefix));
                keys.filter_map(|key| get(key)).collect()
            }
            Bucket::Peers => {
                let places = state.objects.span(&prefix);
                state.objects.slice(places).cloned().collect()
            }
        };
        (self.revision().max(state.applied), objects)
    }

    /// The revision of the last change of any object of a resource.
    pub fn last_change(&self, resource: &Resource) -> Revision {
        self.kind(resource).map_or(0, |kind| kind.state().applied)
    }

    /// What there is of each kind now.
    pub fn figures(&self) -> Vec<Figures> {
        let mut kinds = self.0.all_kinds();
        kinds.sort_by(|(a, _), (b, _)| a.cmp(b));
        kinds.iter().map(|(_, kind)| kind.figures()).collect()
    }

    /// What the past of all kinds takes, in bytes.
    #[cfg(test)]
    pub fn past_bytes(&self) -> usize {
        let kinds = self.0.kinds.read().unwrap_or_else(PoisonError::into_inner);
        kinds.values().map(|kind| kind.past_bytes()).sum()
    }

    /// Whether a pod that is bound to the node refers to that object of its own namespace.
    pub fn refers(&self, node: &str, kind: Referent, namespace: &str, name: &str) -> bool {
        let pods = api::find("", "v1", "pods");
        let Some((pods, of_kind)) = pods.and_then(|pods| Some((pods, self.kind(pods)?))) else {
            return false;
        };
        let prefix = prefix(pods, Some(namespace));
        of_kind.state().references.has(node, &prefix, kind, name)
    }

    /// The claims that pods which are bound to the node refer to: namespaces and names.
    pub fn claims_of(&self, node: &str) -> Vec<(String, String)> {
        let pods = api::find("", "v1", "pods").and_then(|pods| self.kind(pods));
        pods.map_or_else(Vec::new, |pods| pods.state().references.claims_of(node))
    }

    /// Tells it of every change from now on.
    pub fn observe(&self, addresses: Arc<Addresses>) {
        // A cache has one server.
        let _ = self.0.addresses.set(addresses);
    }

    /// Who has which role, as of now.
    pub fn rbac(&self) -> &Rbac {
        &self.0.rbac
    }

    /// Everything up to this revision is visible.
    pub fn revision(&self) -> Revision {
        *self.0.revision.borrow()
    }

    /// Returns once `revision` is visible: after a commit (read your writes), or before a
    /// consistent read (`wait_for(store.revision())`). Also when the server stops: nothing becomes
    /// visible any more then.
    pub async fn wait_for(&self, revision: Revision) {
        if self.revision() >= revision {
            return;
        }
        let mut seen = self.0.revision.subscribe();
        self.0
            .shutdown
            .unless(seen.wait_for(|reached| *reached >= revision))
            .await;
    }

    /// Every change behind `from`, or those of some buckets. Bodies of watch events share the cache's bytes.
    pub async fn watch(
        &self,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        buckets: impl IntoIterator<Item = Bucket>,
        from: Revision,
    ) -> Result<Watch, Gone> {
        let Some(kind) = self.kind(resource) else {
            return Err(Gone {
                asked: from,
                oldest: from,
            });
        };
        Watch::new(
            self.0.clone(),
            kind,
            prefix(resource, namespace).into(),
            buckets.into_iter().collect(),
            from,
        )
        .await
    }

    fn kind(&self, resource: &Resource) -> Option<Arc<Kind>> {
        self.0.kind(&prefix(resource, None))
    }
}

/// What every key of an object begins with.
const ROOT: &str = "/registry/";

impl Inner {
    async fn follow(&self, changes: CommitStream) -> Result<(), StoreError> {
        let mut chunks = changes.ready_chunks(CHUNK_COMMITS);
        while let Some(chunk) = chunks.next().await {
            self.apply_all(chunk)?;
        }
        Err(StoreError::Closed)
    }

    /// Applies what was one batch of the store, or a part of it: it becomes visible, and wakes those who wait, once.
    fn apply_all(&self, chunk: Vec<store::Result<Arc<Commit>>>) -> Result<(), StoreError> {
        let mut changed: Vec<Changed> = Vec::new();
        let (mut reached, mut ended) = (None, Ok(()));
        for commit in chunk {
            match commit {
                Ok(commit) => {
                    self.apply(&commit, &mut changed);
                    reached = Some(commit.revision);
                }
                Err(error) => ended = Err(error),
            }
        }
        for (kind, wake) in &mut changed {
            kind.wake(std::mem::take(wake));
        }
        if let Some(revision) = reached {
            self.revision.send_replace(revision);
        }
        // Those who wait for the revision do not wait for this.
        let packed = changed.iter().map(|(kind, _)| kind.pack());
        if packed.fold(false, |any, packed| any | packed) {
            self.limit_past();
        }
        ended
    }

    fn apply(&self, commit: &Commit, changed: &mut Vec<Changed>) {
        let mut prefixes: Vec<&str> = Vec::new();
        for event in &commit.events {
            self.rbac.note(&event.key, event.value.as_deref());
            prefixes.extend(kind_of(&event.key).filter(|prefix| !prefixes.contains(prefix)));
        }
        for prefix in prefixes {
            let kinds = [&self.joining, &self.kinds].map(|kinds| of_prefix(kinds, prefix));
            for kind in kinds.into_iter().flatten() {
                let events = commit.events.iter();
                let of_kind = events.filter(|event| event.key.starts_with(prefix));
                let known = changed.iter_mut().find(|(it, _)| Arc::ptr_eq(it, &kind));
                match known {
                    Some((_, wake)) => kind.apply(commit.revision, of_kind, wake),
                    None => {
                        let mut wake = Wake::default();
                        kind.apply(commit.revision, of_kind, &mut wake);
                        changed.push((kind, wake));
                    }
                }
            }
        }
        if let Some(addresses) = self.addresses.get() {
            for event in &commit.events {
                addresses.note(&event.key, event.value.as_deref(), commit.revision);
            }
        }
    }

    /// Every kind, with what its keys begin with.
    fn all_kinds(&self) -> Vec<(Box<str>, Arc<Kind>)> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        let kinds = kinds.iter();
        kinds
            .map(|(prefix, kind)| (prefix.clone(), kind.clone()))
            .collect()
    }

    /// Whoever has most of the past gives some of it up, until all of it fits.
    fn limit_past(&self) {
        let kinds = self.all_kinds();
        loop {
            let sizes: Vec<usize> = kinds.iter().map(|(_, kind)| kind.past_bytes()).collect();
            if sizes.iter().sum::<usize>() <= PAST_BYTES {
                return;
            }
            let largest = (0..sizes.len()).max_by_key(|index| sizes[*index]);
            match largest {
                Some(index) => kinds[index].1.forget_some(),
                None => return,
            }
        }
    }

    /// The kind of a key, or of what begins as a key does.
    fn kind(&self, key: &str) -> Option<Arc<Kind>> {
        of_prefix(&self.kinds, kind_of(key)?)
    }
}

fn of_prefix(kinds: &RwLock<Kinds>, prefix: &str) -> Option<Arc<Kind>> {
    let kinds = kinds.read().unwrap_or_else(PoisonError::into_inner);
    kinds.get(prefix).cloned()
}

fn to_change(kinds: &RwLock<Kinds>) -> RwLockWriteGuard<'_, Kinds> {
    kinds.write().unwrap_or_else(PoisonError::into_inner)
}

/// Commits that become visible together, at most: the first of them waits for the last.
const CHUNK_COMMITS: usize = 64;

/// Watches that read the store's log at once.
const LOG_READERS: usize = 4;

/// A kind that has changed, and who is to be told.
type Changed = (Arc<Kind>, Wake);

/// What the past of all kinds takes, at most: packed changes for watches, and states that are read
/// page by page.
const PAST_BYTES: usize = 256 << 20;

/// `/registry/core/pods/` of `/registry/core/pods/default/web`.
fn kind_of(key: &str) -> Option<&str> {
    let rest = key.strip_prefix(ROOT)?;
    let group = rest.find('/')? + 1;
    let plural = rest[group..].find('/')? + 1;
    Some(&key[..ROOT.len() + group + plural])
}
