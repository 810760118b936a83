//! The reference: a store in memory that is too simple to be wrong. Every version of every key is
//! kept until compaction. For tests, simulations and as the judge of the other backends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::tail::{self, History, Limits, Tail};
use super::{
    Chunk, Commit, CommitStream, Entry, Event, Lifetime, Page, Range, Result, Revision, Store,
    Visitor, Write, check_shape, check_window, holds,
};

/// Lives as long as its last clone; clones share the data.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    tail: Tail,
    state: Mutex<State>,
    is_shared: bool,
}

#[derive(Default)]
struct State {
    revision: Revision,
    compacted: Revision,
    /// All versions of a key behind `compacted` and the last one before it; `None` is a deletion.
    versions: BTreeMap<Arc<str>, Vec<(Revision, Option<Version>)>>,
    commits: Vec<Arc<Commit>>,
}

#[derive(Clone)]
struct Version {
    value: Bytes,
    created: Revision,
    lifetime: Lifetime,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::with(0, State::default(), false)
    }

    /// One whose clones are the stores of several servers.
    pub fn shared() -> Self {
        Self::with(0, State::default(), true)
    }

    fn with(revision: Revision, state: State, is_shared: bool) -> Self {
        // A short tail: the way through the history is walked in tests too.
        let limits = Limits {
            commits: 16,
            bytes: 1 << 20,
        };
        Self(Arc::new(Inner {
            tail: Tail::new(revision, limits),
            state: Mutex::new(state),
            is_shared,
        }))
    }

    /// What is left of it after a restart at this revision.
    #[cfg(test)]
    pub fn restarted(&self, revision: Revision) -> Self {
        let state = self.0.state().restarted(revision);
        Self::with(revision, state, self.0.is_shared)
    }
}

impl Store for MemoryStore {
    fn revision(&self) -> Revision {
        self.0.state().revision
    }

    fn is_shared(&self) -> bool {
        self.0.is_shared
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>>> {
        let entry = self.0.state().current(key);
        async move { Ok(entry) }.boxed()
    }

    fn range<'a>(&'a self, range: Range<'a>) -> BoxFuture<'a, Result<Page>> {
        let page = self.0.state().range(range);
        async move { page }.boxed()
    }

    fn visit<'a>(
        &'a self,
        prefix: &'a str,
        visitor: Visitor<'a>,
    ) -> BoxFuture<'a, Result<Revision>> {
        let state = self.0.state();
        let found = state
            .versions
            .iter()
            .filter(|(key, _)| key.starts_with(prefix));
        for (key, versions) in found {
            if let Some((modified, Some(version))) = versions.last() {
                visitor(key, *modified, &version.value);
            }
        }
        let revision = state.revision;
        async move { Ok(revision) }.boxed()
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision>> {
        async move {
            let mut state = self.0.state();
            if let Some(commit) = state.commit(writes)? {
                self.0.tail.publish([commit], state.revision);
            }
            Ok(state.revision)
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<CommitStream> {
        let state = self.0.state();
        check_window(from, state.compacted, state.revision)?;
        drop(state);
        Ok(tail::follow(self.0.clone(), prefix, from))
    }

    fn history<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
        limit: usize,
    ) -> BoxFuture<'a, Result<Chunk>> {
        self.0.replay(prefix, from, limit)
    }

    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<()>> {
        self.0.state().compact(upto);
        async { Ok(()) }.boxed()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // A commit is checked before anything changes, so a panic leaves a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History for Inner {
    fn tail(&self) -> &Tail {
        &self.tail
    }

    fn replay<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
        limit: usize,
    ) -> BoxFuture<'a, Result<Chunk>> {
        let chunk = self.replayed(prefix, from, limit);
        async move { chunk }.boxed()
    }
}

impl Inner {
    fn replayed(&self, prefix: &str, from: Revision, limit: usize) -> Result<Chunk> {
        let state = self.state();
        check_window(from, state.compacted, state.revision)?;
        let later = state.commits.iter().filter(|commit| commit.revision > from);
        let commits = later.filter_map(|commit| tail::filter(commit, prefix));
        Ok(tail::chunk(
            commits.take(limit).collect(),
            limit,
            state.revision,
        ))
    }
}

impl State {
    fn current(&self, key: &str) -> Option<Entry> {
        let (key, versions) = self.versions.get_key_value(key)?;
        entry(key, versions.last()?)
    }

    fn range(&self, range: Range<'_>) -> Result<Page> {
        let at = range.at.unwrap_or(self.revision);
        check_window(at, self.compacted, self.revision)?;
        let is_volatile = |version: &Option<Version>| {
            version
                .as_ref()
                .is_some_and(|v| v.lifetime == Lifetime::Volatile)
        };
        let mut found: Vec<Entry> = self
            .versions
            .iter()
            .filter(|(key, _)| key.starts_with(range.prefix))
            .filter(|(key, _)| range.after.is_none_or(|after| &***key > after))
            .filter_map(|(key, versions)| {
                let as_of = if versions.iter().any(|(_, v)| is_volatile(v)) {
                    self.revision
                } else {
                    at
                };
                entry(
                    key,
                    versions.iter().rfind(|(revision, _)| *revision <= as_of)?,
                )
            })
            .collect();
        let limit = if range.limit == 0 {
            usize::MAX
        } else {
            range.limit
        };
        let remaining = found.len().saturating_sub(limit);
        found.truncate(limit);
        Ok(Page {
            entries: found,
            revision: at,
            remaining,
        })
    }

    fn commit(&mut self, writes: Vec<Write>) -> Result<Option<Arc<Commit>>> {
        check_shape(&writes)?;
        for write in &writes {
            holds(write, self.current(&write.key))?;
        }
        let revision = self.revision + 1;
        let mut events = Vec::new();
        for write in writes {
            let before = self.current(&write.key);
            if write.value.is_none() && before.is_none() {
                continue;
            }
            let key: Arc<str> = write.key.into();
            let created = before.as_ref().map_or(revision, |entry| entry.created);
            let lifetime = write.lifetime;
            let version = write.value.clone().map(|value| Version {
                value,
                created,
                lifetime,
            });
            self.versions
                .entry(key.clone())
                .or_default()
                .push((revision, version));
            events.push(Event {
                key,
                value: write.value,
                prev: before.map(|e| e.value),
            });
        }
        if events.is_empty() {
            return Ok(None);
        }
        self.revision = revision;
        let commit = Arc::new(Commit { revision, events });
        self.commits.push(commit.clone());
        Ok(Some(commit))
    }

    #[cfg(test)]
    fn restarted(&self, revision: Revision) -> Self {
        let is_volatile = |key: &Arc<str>| {
            let versions = self.versions.get(key).into_iter().flatten();
            versions
                .filter_map(|(_, v)| v.as_ref())
                .any(|v| v.lifetime == Lifetime::Volatile)
        };
        let (versions, commits) = (self.versions.iter(), self.commits.iter());
        Self {
            revision,
            compacted: self.compacted,
            versions: versions
                .filter(|(key, _)| !is_volatile(key))
                .map(|(key, versions)| (key.clone(), versions.clone()))
                .collect(),
            commits: commits
                .filter(|commit| !is_volatile(&commit.events[0].key))
                .cloned()
                .collect(),
        }
    }

    fn compact(&mut self, upto: Revision) {
        let upto = upto.min(self.revision);
        self.compacted = self.compacted.max(upto);
        self.commits.retain(|commit| commit.revision > upto);
        for versions in self.versions.values_mut() {
            let last_before = versions.iter().rposition(|(revision, _)| *revision <= upto);
            versions.drain(..last_before.unwrap_or(0));
        }
        self.versions
            .retain(|_, versions| !matches!(versions[..], [(r, None)] if r <= upto));
    }
}

fn entry(key: &Arc<str>, (modified, version): &(Revision, Option<Version>)) -> Option<Entry> {
    let Version { value, created, .. } = version.clone()?;
    Some(Entry {
        key: key.clone(),
        value,
        created,
        modified: *modified,
    })
}
