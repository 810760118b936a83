//! The ConfigMaps, Secrets and ClusterTrustBundles that pods of this node refer to: one watch each, shared by all
//! pods that refer to it, for environment and volumes alike.
//!
//! Owns what is known of each object. A watch begins with the first reference and ends with the
//! last one; a change wakes the pods that refer to the object and no other. While the server is
//! away the last known contents stay. A node may read ConfigMaps and Secrets only by name: each of their watches
//! selects one. A watch of trust bundles selects one as well, or all of a signer.

mod held;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::pauses::Pauses;
use super::sources::{self, Contents, Kind, Objects, Wanted};
use super::trust_bundles::BundleWish;
use held::Held;

/// The server takes 1,000 requests of one connection at a time; a request beyond them waits for a
/// watch to end, and watches do not end.
const WATCHES_PER_CONNECTION: usize = 500;

/// No name of an object or of a signer is longer.
const NAME_BYTES: usize = 571;

/// Bundles that the server hands out at once.
const PAGE: u32 = 20;

/// Makes a client with a connection of its own.
pub type Connect = Box<dyn Fn() -> Client + Send + Sync>;

/// Every watched object of the node. Clones share them.
#[derive(Clone)]
pub struct Watched {
    shared: Arc<Shared>,
}

/// What one pod refers to; the watches end when the last reference to their object is dropped.
pub struct Reference {
    shared: Arc<Shared>,
    id: u64,
    namespace: String,
    wanted: BTreeSet<Wanted>,
    /// Objects that were known before the pod was: they are read once more, so that the pod sees
    /// what was written before it.
    unread: BTreeSet<Wanted>,
    changes: watch::Receiver<u64>,
}

struct Shared {
    /// Reads single objects.
    client: Client,
    state: Mutex<State>,
}

struct State {
    connections: Connections,
    objects: BTreeMap<Key, Entry>,
    next_id: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Empty for what is no namespace's.
    namespace: String,
    wanted: Wanted,
}

struct Entry {
    /// Tells this entry from an earlier one of the same object.
    id: u64,
    seen: Seen,
    /// The newest revision that was seen of the object, its deletion included.
    revision: u64,
    /// The pods' references to the object, by number.
    users: BTreeMap<u64, User>,
    task: Option<Task>,
}

struct Task {
    handle: AbortHandle,
    connection: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// The server has not said anything of it yet.
    Nothing,
    Absent,
    There(Arc<Contents>),
}

struct User {
    changes: watch::Sender<u64>,
    wake: Arc<Notify>,
}

impl Watched {
    /// `client` reads single objects, `connect` makes the clients of watches.
    pub fn new(client: Client, connect: Connect) -> Watched {
        let state = State {
            connections: Connections {
                connect,
                clients: Vec::new(),
            },
            objects: BTreeMap::new(),
            next_id: 0,
        };
        let shared = Shared {
            client,
            state: Mutex::new(state),
        };
        Watched {
            shared: Arc::new(shared),
        }
    }

    /// Follows what the pod refers to; `wake` is notified of changes.
    pub fn refer(&self, pod: &Pod, wake: &Arc<Notify>) -> Reference {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let wanted = sources::needed(pod);
        let mut unread = BTreeSet::new();
        let (sender, changes) = watch::channel(0);
        let mut state = self.shared.state();
        let id = state.fresh_id();
        for one in &wanted {
            let key = Key::new(one, namespace);
            let entry = state.entry(&key);
            if !key.is_readable() {
                entry.seen = Seen::Absent;
            } else if entry.seen != Seen::Nothing {
                unread.insert(one.clone());
            }
            let user = User {
                changes: sender.clone(),
                wake: wake.clone(),
            };
            entry.users.insert(id, user);
            state.watch(&key, &self.shared);
        }
        drop(state);
        Reference {
            shared: self.shared.clone(),
            id,
            namespace: namespace.to_owned(),
            wanted,
            unread,
            changes,
        }
    }

    /// How many objects are followed, and by how many connections.
    #[cfg(test)]
    fn counts(&self) -> (usize, usize) {
        let state = self.shared.state();
        let tasks = state.objects.values().filter_map(|it| it.task.as_ref());
        let connections: BTreeSet<usize> = tasks.clone().map(|task| task.connection).collect();
        (tasks.count(), connections.len())
    }
}

impl Reference {
    /// Counts up with every change of an object.
    pub fn changes(&self) -> u64 {
        *self.changes.borrow()
    }

    /// What is known of the objects; none before the server has said of each whether it is there.
    pub fn objects(&self) -> Option<Objects> {
        let state = self.shared.state();
        let mut objects = Objects::new();
        for one in &self.wanted {
            let entry = state.objects.get(&self.key(one))?;
            match &entry.seen {
                Seen::Nothing => return None,
                Seen::Absent => {}
                Seen::There(contents) => {
                    objects.insert(one.clone(), contents.clone());
                }
            }
        }
        Some(objects)
    }

    /// The objects, with everything that was written before the pod; none when the server does not
    /// say it within `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Option<Objects> {
        let deadline = tokio::time::Instant::now() + limit;
        self.read_again(deadline).await;
        loop {
            // A change that comes from here on ends the wait below.
            self.changes.mark_unchanged();
            if let Some(objects) = self.objects() {
                return Some(objects);
            }
            let changed = tokio::time::timeout_at(deadline, self.changes.changed());
            // The sender lives as long as this reference.
            changed.await.ok()?.ok()?;
        }
    }

    async fn read_again(&mut self, deadline: tokio::time::Instant) {
        if self.unread.is_empty() {
            return;
        }
        let keys = self.unread.iter().map(|one| self.key(one));
        let reads = keys.map(|key| read(self.shared.clone(), key));
        // What cannot be read stays as it was known last.
        let _ = tokio::time::timeout_at(deadline, join_all(reads)).await;
        self.unread.clear();
    }

    fn key(&self, wanted: &Wanted) -> Key {
        Key::new(wanted, &self.namespace)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        for one in &self.wanted {
            state.leave(&self.key(one), self.id);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the table is one step: a panic leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn new(wanted: &Wanted, namespace: &str) -> Key {
        let namespace = match wanted {
            Wanted::Object(..) => namespace,
            Wanted::Bundles(_) => "",
        };
        Key {
            namespace: namespace.to_owned(),
            wanted: wanted.clone(),
        }
    }

    /// The field by whose value the objects are selected, and that value.
    fn selected(&self) -> (&'static str, &str) {
        match &self.wanted {
            Wanted::Object(_, name) | Wanted::Bundles(BundleWish::Named(name)) => {
                ("metadata.name", name)
            }
            Wanted::Bundles(BundleWish::OfSigner { signer, .. }) => ("spec.signerName", signer),
        }
    }

    fn selector(&self) -> String {
        let (field, value) = self.selected();
        format!("{field}={value}")
    }

    /// No object has another name, and such a name would say something else in a selector or a URL.
    fn is_readable(&self) -> bool {
        let parts: &[u8] = match &self.wanted {
            Wanted::Object(..) => b"-.",
            Wanted::Bundles(BundleWish::Named(_)) => b"-.:",
            Wanted::Bundles(BundleWish::OfSigner { .. }) => b"-./",
        };
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9') || parts.contains(&byte);
        let name = self.selected().1.as_bytes();
        name.len() <= NAME_BYTES
            && name.first().is_some_and(u8::is_ascii_alphanumeric)
            && name.iter().copied().all(fits)
    }
}

impl State {
    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn entry(&mut self, key: &Key) -> &mut Entry {
        let id = self.fresh_id();
        self.objects.entry(key.clone()).or_insert_with(|| Entry {
            id,
            seen: Seen::Nothing,
            revision: 0,
            users: BTreeMap::new(),
            task: None,
        })
    }

    /// Starts the watch of an object that needs one and has none. An immutable object needs none.
    fn watch(&mut self, key: &Key, shared: &Arc<Shared>) {
        let Some(entry) = self.objects.get_mut(key) else {
            return;
        };
        let immutable = matches!(&entry.seen, Seen::There(contents) if contents.immutable);
        if entry.task.is_some() || immutable || !key.is_readable() {
            return;
        }
        let (connection, client) = self.connections.take();
        let (shared, id, key) = (Arc::downgrade(shared), entry.id, key.clone());
        let namespace = &key.namespace;
        let task = match &key.wanted {
            Wanted::Object(Kind::ConfigMap, _) => {
                let api = Api::<ConfigMap>::namespaced(client, namespace);
                tokio::spawn(follow(shared, api, key, id))
            }
            Wanted::Object(Kind::Secret, _) => {
                let api = Api::<Secret>::namespaced(client, namespace);
                tokio::spawn(follow(shared, api, key, id))
            }
            Wanted::Bundles(_) => {
                let api = Api::<ClusterTrustBundle>::all(client);
                tokio::spawn(follow(shared, api, key, id))
            }
        };
        let handle = task.abort_handle();
        entry.task = Some(Task { handle, connection });
    }

    /// Takes what the server says of an object; older news than what is known is passed over.
    fn hear(&mut self, key: &Key, seen: Seen, revision: Option<u64>) {
        let Some(entry) = self.objects.get_mut(key) else {
            return;
        };
        let old = revision.is_some_and(|revision| revision < entry.revision);
        if old || entry.seen == seen {
            return;
        }
        entry.seen = seen;
        entry.revision = revision.unwrap_or(entry.revision).max(entry.revision);
        for user in entry.users.values() {
            user.changes.send_modify(|count| *count += 1);
            user.wake.notify_one();
        }
    }

    fn leave(&mut self, key: &Key, user: u64) {
        let Some(entry) = self.objects.get_mut(key) else {
            return;
        };
        entry.users.remove(&user);
        if entry.users.is_empty() {
            self.end_watch(key);
            self.objects.remove(key);
        }
    }

    fn end_watch(&mut self, key: &Key) {
        let entry = self.objects.get_mut(key);
        if let Some(task) = entry.and_then(|entry| entry.task.take()) {
            task.handle.abort();
            self.connections.give_back(task.connection);
        }
    }
}

/// The clients of watches. Requests of one client share its connection.
struct Connections {
    connect: Connect,
    /// Each with the number of its watches. One without any has no connection either.
    clients: Vec<(Option<Client>, usize)>,
}

impl Connections {
    fn take(&mut self) -> (usize, Client) {
        let free = self.clients.iter();
        let free = free.take_while(|(_, watches)| *watches >= WATCHES_PER_CONNECTION);
        let number = free.count();
        if number == self.clients.len() {
            self.clients.push((None, 0));
        }
        let (client, watches) = &mut self.clients[number];
        *watches += 1;
        (number, client.get_or_insert_with(&self.connect).clone())
    }

    fn give_back(&mut self, number: usize) {
        let (client, watches) = &mut self.clients[number];
        *watches -= 1;
        if *watches == 0 {
            *client = None;
        }
    }
}

/// Reads what a key selects.
async fn read(shared: Arc<Shared>, key: Key) {
    let (client, namespace) = (shared.client.clone(), &key.namespace);
    let found = match &key.wanted {
        Wanted::Object(Kind::ConfigMap, _) => {
            select(Api::<ConfigMap>::namespaced(client, namespace), &key).await
        }
        Wanted::Object(Kind::Secret, _) => {
            select(Api::<Secret>::namespaced(client, namespace), &key).await
        }
        Wanted::Bundles(_) => select(Api::<ClusterTrustBundle>::all(client), &key).await,
    };
    match found {
        Ok((Seen::Absent, _)) => {
            let mut state = shared.state();
            let entry = state.objects.get(&key);
            // The watch tells of a deletion; an immutable object has none.
            if entry.is_some_and(|entry| entry.task.is_none()) {
                state.hear(&key, Seen::Absent, None);
                state.watch(&key, &shared);
            }
        }
        Ok((seen, revision)) => {
            let mut state = shared.state();
            state.hear(&key, seen, revision);
            // An immutable object that was made anew may not be immutable any more.
            state.watch(&key, &shared);
        }
        Err(error) => tracing::debug!(%error, ?key, "an object was not read again"),
    }
}

/// The objects that a key selects, and the revision as of which they are so.
async fn select<K>(api: Api<K>, key: &Key) -> Result<(Seen, Option<u64>), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Into<Contents>,
{
    let mut held = Held::new(&key.wanted);
    if let ("metadata.name", name) = key.selected() {
        if let Some(object) = api.get_opt(name).await? {
            held.put(object);
        }
        return Ok((held.seen(), held.revision()));
    }
    let mut page = ListParams::default().fields(&key.selector()).limit(PAGE);
    loop {
        let list = api.list(&page).await?;
        list.items.into_iter().for_each(|object| held.put(object));
        match list.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) if held.fits() => page = page.continue_token(&next),
            _ => {
                let revision = list.metadata.resource_version;
                return Ok((held.seen(), revision.and_then(|text| text.parse().ok())));
            }
        }
    }
}

/// Follows what a key selects until no pod refers to it.
async fn follow<K>(shared: Weak<Shared>, api: Api<K>, key: Key, id: u64)
where
    K: Resource<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Into<Contents>
        + Send
        + 'static,
{
    let begin = || {
        let config = watcher::Config::default().fields(&key.selector());
        let events = watcher(api.clone(), config.streaming_lists());
        events.backoff(Pauses::default()).boxed()
    };
    let (mut events, mut held) = (begin(), Held::new(&key.wanted));
    while let Some(event) = events.next().await {
        let revision = match event {
            Ok(watcher::Event::Init) => {
                held = Held::new(&key.wanted);
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                held.put(object);
                continue;
            }
            Ok(watcher::Event::InitDone) => held.revision(),
            Ok(watcher::Event::Apply(object)) => {
                let revision = sources::revision(object.meta());
                held.put(object);
                Some(revision)
            }
            Ok(watcher::Event::Delete(object)) => {
                held.remove(&object.name_any());
                Some(sources::revision(object.meta()))
            }
            Err(error) => {
                tracing::debug!(%error, ?key, "a watch is interrupted");
                continue;
            }
        };
        if held.lacks() {
            events = begin();
            continue;
        }
        if told(&shared, &key, id, held.seen(), revision).is_break() {
            return;
        }
    }
}

/// Hands on what a watch said; whether the watch has done its work.
fn told(
    shared: &Weak<Shared>,
    key: &Key,
    id: u64,
    seen: Seen,
    revision: Option<u64>,
) -> ControlFlow<()> {
    let Some(shared) = shared.upgrade() else {
        return ControlFlow::Break(());
    };
    let mut state = shared.state();
    if state.objects.get(key).is_none_or(|entry| entry.id != id) {
        return ControlFlow::Break(());
    }
    let immutable = matches!(&seen, Seen::There(contents) if contents.immutable);
    state.hear(key, seen, revision);
    if immutable {
        state.end_watch(key);
        return ControlFlow::Break(());
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
#[path = "watched_fake.rs"]
pub mod fake;

#[cfg(test)]
#[path = "watched_tests.rs"]
mod tests;
