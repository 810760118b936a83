//! etcd as the store: for several API servers at once.
//!
//! ```text
//!  commit ─▶ one transaction, a compare for each expectation ─▶ etcd ─▶ one watch of the whole store
//!    ▲                                                                        │ events, one commit a revision
//!    └──── answered when its revision is there ◀──── tail ◀───────────────────┘
//! ```
//!
//! Revisions are etcd's. A commit is answered when the watch has delivered it, so that whoever reads
//! the tail finds it there, as with the other backends. Other servers' commits come by the same
//! watch: `fresh` asks etcd for its newest revision and waits until the watch is there.
//!
//! INVARIANT: a revision that goes back is never believed. etcd says its newest revision with each answer;
//! one below what was already delivered means that answered commits are lost (a member restored from a
//! snapshot), and the store closes.
//!
//! Volatile writes are written like others, since etcd has no memory of its own; compaction keeps
//! what they leave behind small (`compaction`).

mod base;
mod commit;
mod compaction;
mod config;
mod events;
mod failure;
mod feed;
mod keys;
mod lead;
mod members;
mod rpc;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, Notify};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

pub use config::{EtcdConfig, EtcdTls, EtcdUser};
pub use members::{Member, Members};

use super::lead::{Fence, Leadership};
use super::tail::{self, History, Limits, Tail};
use super::{
    Chunk, CommitStream, Entry, Page, Range, Result, Revision, Store, StoreError, Visitor, Write,
    check_window,
};
use keys::{BASE, Keys, SYNC};
use rpc::{RANGE, Repeat, Rpc, TXN};

/// A store in etcd. Dropping it ends its tasks; what was answered stays in etcd.
pub struct EtcdStore {
    inner: Arc<Inner>,
    tasks: Vec<AbortHandle>,
}

struct Inner {
    rpc: Arc<Rpc>,
    keys: Keys,
    tail: Tail,
    /// The history up to here is known to be gone.
    compacted: AtomicU64,
    /// Others write to this etcd too, outside of this store: not every revision is delivered.
    has_neighbours: AtomicBool,
    /// Asks for another watch.
    stalled: Notify,
    /// The etcd that the revisions are of; 0: not known yet.
    cluster: AtomicU64,
    /// The lease under which this store last tried to lead; 0: it never has.
    led: AtomicI64,
    /// Counts those who asked for the newest revision.
    asked: AtomicU64,
    /// What the last look answered, and whom of them.
    looked: Mutex<(u64, Result<Revision>)>,
}

const TAIL: Limits = Limits {
    commits: 256,
    bytes: 1 << 20,
};
/// Keys a page: so many values of the largest size fit in one message.
const PAGE_KEYS: usize = 128;
/// How long a revision may take from etcd's answer to its delivery.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// A revision that nobody delivers for so long may be one of others; a write of our own follows it.
const ALONE: Duration = Duration::from_millis(500);
const SHARED: Duration = Duration::from_millis(2);
/// The base of a store begins with it until everything is there.
const INCOMPLETE: &str = "incomplete ";
/// A watch that does not deliver that write for so long is made anew.
const STALL: Duration = Duration::from_secs(2);

impl EtcdStore {
    /// Reaches etcd, and follows it from now on. Must be called within a runtime. The error names the member that
    /// was asked last.
    ///
    /// # Errors
    /// `Invalid`: a restore into it was not completed.
    pub async fn open(config: &EtcdConfig) -> Result<Self> {
        let (rpc, keys) = reach(config)?;
        let base = base_of(&rpc, &keys).await?;
        Self::start(config, Arc::new(rpc), keys, base).await
    }

    async fn start(config: &EtcdConfig, rpc: Arc<Rpc>, keys: Keys, base: Revision) -> Result<Self> {
        rpc.count_from(base.cast_signed());
        // A revision of its own for the start: the newest revision of the store is always one of its keys'.
        let answer = mark(&rpc, &keys).await.map_err(unread)?;
        let header = answer.header.unwrap_or_default();
        let inner = Arc::new(Inner {
            rpc,
            keys,
            tail: Tail::new(header.revision.unsigned_abs(), TAIL),
            compacted: AtomicU64::new(base),
            has_neighbours: AtomicBool::new(false),
            stalled: Notify::new(),
            cluster: AtomicU64::new(header.cluster_id),
            led: AtomicI64::new(0),
            asked: AtomicU64::new(0),
            looked: Mutex::new((0, Ok(0))),
        });
        let (following, compacting) = (inner.clone(), inner.clone());
        let mut tasks: Vec<JoinHandle<()>> = vec![
            tokio::spawn(following.follow()),
            tokio::spawn(compacting.compact_in_turn()),
        ];
        if config.learns_members {
            let members = Members::of(inner.rpc.clone());
            tasks.push(tokio::spawn(members.learn_in_turn()));
        }
        Ok(Self {
            inner,
            tasks: tasks.iter().map(JoinHandle::abort_handle).collect(),
        })
    }
}

impl EtcdStore {
    /// Opens an etcd that holds nothing below the prefix yet, as a store whose revisions begin behind `base`. No
    /// server opens it before it is said to be complete.
    pub async fn create(config: &EtcdConfig, base: Revision) -> Result<Self> {
        let (rpc, keys) = reach(config)?;
        let (key, range_end) = keys.all();
        let first = wire::RangeRequest {
            key,
            range_end,
            limit: 1,
            keys_only: true,
            ..wire::RangeRequest::default()
        };
        let found = rpc.ask::<_, wire::RangeResponse>(RANGE, &first, Repeat::Safe);
        if found.await.map_err(unread)?.count > 0 {
            return Err(StoreError::Invalid(format!(
                "etcd holds something below {} already",
                config.prefix
            )));
        }
        let begun = format!("{INCOMPLETE}{base}").into();
        let request = commit::control(keys.control(BASE), begun, Some(0), 0);
        let answer = rpc.ask::<_, wire::TxnResponse>(TXN, &request, Repeat::Unsent);
        if !answer.await.map_err(failure::Failure::of_commit)?.succeeded {
            return Err(StoreError::Invalid(
                "another store begins in this etcd".to_owned(),
            ));
        }
        Self::start(config, Arc::new(rpc), keys, base).await
    }

    /// Says that everything is there of a store that was created.
    pub async fn complete(&self) -> Result<()> {
        let (rpc, key) = (&self.inner.rpc, self.inner.keys.control(BASE));
        let base = rpc.base().to_string().into();
        let request = commit::control(key, base, None, 0);
        let answer = rpc.ask::<_, wire::TxnResponse>(TXN, &request, Repeat::Safe);
        answer.await.map_err(failure::Failure::of_commit)?;
        Ok(())
    }
}

fn reach(config: &EtcdConfig) -> Result<(Rpc, Keys)> {
    let invalid = |why: String| StoreError::Unavailable(why.into());
    let rpc = Rpc::new(config).map_err(invalid)?;
    Ok((rpc, Keys::new(&config.prefix)))
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.inner.tail.close();
    }
}

impl Store for EtcdStore {
    fn revision(&self) -> Revision {
        self.inner.tail.reached()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn fresh(&self) -> BoxFuture<'_, Result<Revision>> {
        async move {
            let newest = self.inner.newest().await?;
            self.inner.reach(newest).await?;
            Ok(newest)
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>>> {
        async move {
            let request = wire::RangeRequest {
                key: self.inner.keys.of(key),
                ..wire::RangeRequest::default()
            };
            let (kvs, ..) = self.inner.range(&request).await?;
            let found = kvs.into_iter().next();
            Ok(found.and_then(|kv| self.inner.keys.entry(kv)))
        }
        .boxed()
    }

    fn range<'a>(&'a self, range: Range<'a>) -> BoxFuture<'a, Result<Page>> {
        async move {
            let mut pages = Pages::new(&self.inner, range);
            let mut entries = Vec::new();
            while let Some(kvs) = pages
                .next(range.limit.saturating_sub(entries.len()))
                .await?
            {
                let read = kvs.into_iter();
                entries.extend(read.filter_map(|kv| self.inner.keys.entry(kv)));
                if entries.len() == range.limit {
                    break;
                }
            }
            let revision = pages.revision();
            self.inner.reach(revision).await?;
            Ok(Page {
                entries,
                revision,
                remaining: pages.remaining,
            })
        }
        .boxed()
    }

    fn visit<'a>(
        &'a self,
        prefix: &'a str,
        visitor: Visitor<'a>,
    ) -> BoxFuture<'a, Result<Revision>> {
        async move {
            let mut pages = Pages::new(&self.inner, Range::all(prefix));
            let data = self.inner.keys.data();
            while let Some(kvs) = pages.next(0).await? {
                for kv in kvs {
                    if let Some(key) = events::key_of(&kv.key, &data) {
                        visitor(key, kv.mod_revision.unsigned_abs(), &kv.value);
                    }
                }
            }
            let revision = pages.revision();
            self.inner.reach(revision).await?;
            Ok(revision)
        }
        .boxed()
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision>> {
        let inner = self.inner.clone();
        let fence = Fence::current();
        // A task of its own, which goes on when nobody waits any more.
        let committed = tokio::spawn(async move { inner.commit(writes, fence).await });
        async move { committed.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<CommitStream> {
        check_window(from, self.inner.compacted(), self.inner.tail.reached())?;
        Ok(tail::follow(self.inner.clone(), prefix, from))
    }

    fn history<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
        limit: usize,
    ) -> BoxFuture<'a, Result<Chunk>> {
        self.inner.replay(prefix, from, limit)
    }

    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<()>> {
        self.inner.compact(upto).boxed()
    }

    fn members(&self) -> Option<Members> {
        Some(Members::of(self.inner.rpc.clone()))
    }

    fn campaign<'a>(&'a self, name: &'a str, holder: &'a str) -> BoxFuture<'a, Result<Leadership>> {
        self.inner.clone().campaign(name, holder).boxed()
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
        self.past(prefix, from, limit).boxed()
    }
}

impl Inner {
    fn compacted(&self) -> Revision {
        self.compacted.load(Ordering::Relaxed)
    }

    fn note_compacted(&self, upto: Revision) {
        self.compacted.fetch_max(upto, Ordering::Relaxed);
    }

    /// One range as of one revision: the values, how many keys there are, and etcd's newest revision.
    async fn range(
        &self,
        request: &wire::RangeRequest,
    ) -> Result<(Vec<wire::KeyValue>, usize, Revision)> {
        let before = self.tail.reached();
        let (at, base) = (request.revision, self.rpc.base());
        if at > 0 && at <= base {
            return Err(StoreError::Compacted {
                oldest: self.compacted(),
            });
        }
        let asked = self
            .rpc
            .ask::<_, wire::RangeResponse>(RANGE, request, Repeat::Safe);
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(failure) => {
                let at = at.unsigned_abs();
                let oldest = (at + 1).max(self.compacted());
                return Err(failure.of_read(oldest, self.tail.reached()));
            }
        };
        let newest = self.verify(answer.header.as_ref(), before)?;
        let count = usize::try_from(answer.count).unwrap_or_default();
        Ok((answer.kvs, count, newest))
    }

    /// etcd's newest revision, of any key, as of a moment after the call. Those who ask while one look is under
    /// way share the next one.
    async fn newest(&self) -> Result<Revision> {
        let ticket = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut looked = self.looked.lock().await;
        if looked.0 >= ticket {
            return looked.1.clone();
        }
        let upto = self.asked.load(Ordering::Relaxed);
        let request = wire::RangeRequest {
            key: self.keys.control(SYNC),
            keys_only: true,
            ..wire::RangeRequest::default()
        };
        let before = self.tail.reached();
        let asked = self
            .rpc
            .ask::<_, wire::RangeResponse>(RANGE, &request, Repeat::Safe);
        let newest = match asked.await {
            Ok(answer) => self.verify(answer.header.as_ref(), before),
            Err(failure) => Err(unread(failure)),
        };
        *looked = (upto, newest.clone());
        newest
    }

    /// Returns when everything up to `revision` is delivered.
    async fn reach(&self, revision: Revision) -> Result<()> {
        let mut head = self.tail.subscribe();
        let delivery = async {
            let patience = match self.has_neighbours.load(Ordering::Relaxed) {
                true => SHARED,
                false => ALONE,
            };
            if timeout(patience, head.wait_for(|at| *at >= revision))
                .await
                .is_ok()
            {
                return Ok(());
            }
            // Nobody of this store may have written it. What is written now is delivered behind it.
            mark(&self.rpc, &self.keys).await.map_err(unread)?;
            if timeout(STALL, head.wait_for(|at| *at >= revision))
                .await
                .is_err()
            {
                self.stalled.notify_one();
                // The outer time limits this.
                let _ = head.wait_for(|at| *at >= revision).await;
            }
            Ok(())
        };
        let late = StoreError::Unavailable("etcd does not deliver what it has written".into());
        timeout(DELIVERY_TIMEOUT, delivery)
            .await
            .unwrap_or(Err(late))?;
        match self.tail.is_closed() {
            true => Err(StoreError::Closed),
            false => Ok(()),
        }
    }

    /// The revision of an answer, which is not below what was delivered before it was asked for.
    fn verify(&self, header: Option<&wire::Header>, before: Revision) -> Result<Revision> {
        let said = header.map_or(0, |header| header.revision.unsigned_abs());
        let cluster = header.map_or(0, |header| header.cluster_id);
        let known = self.cluster.load(Ordering::Relaxed);
        if said >= before && cluster == known {
            return Ok(said);
        }
        let closed = self.tail.is_closed();
        self.tail.close();
        if !closed {
            tracing::error!(
                said,
                before,
                cluster = format!("{cluster:x}"),
                known = format!("{known:x}"),
                "etcd is not the one that was read, or has lost what it had answered: the store closes"
            );
        }
        Err(StoreError::Closed)
    }

    /// A number that the store keeps for itself, and the revision of its key.
    async fn control_number(&self, name: &str) -> Result<Option<(u64, Revision)>> {
        let request = wire::RangeRequest {
            key: self.keys.control(name),
            ..wire::RangeRequest::default()
        };
        let (kvs, ..) = self.range(&request).await?;
        Ok(kvs.into_iter().next().and_then(|kv| {
            let text = std::str::from_utf8(&kv.value).ok()?;
            Some((text.parse().ok()?, kv.mod_revision.unsigned_abs()))
        }))
    }
}

/// A range, page by page, all as of the revision of the first page.
struct Pages<'a> {
    inner: &'a Inner,
    from: bytes::Bytes,
    end: bytes::Bytes,
    at: Option<Revision>,
    /// Keys behind the last page.
    remaining: usize,
    is_over: bool,
}

impl<'a> Pages<'a> {
    fn new(inner: &'a Inner, range: Range<'_>) -> Self {
        let (start, end) = inner.keys.with_prefix(range.prefix);
        let from = match range.after {
            Some(after) if after >= range.prefix => behind(&inner.keys.of(after)),
            _ => start,
        };
        Self {
            inner,
            from,
            end,
            at: range.at,
            remaining: 0,
            is_over: false,
        }
    }

    /// The next page, of at most `limit` keys (0: as many as fit).
    async fn next(&mut self, limit: usize) -> Result<Option<Vec<wire::KeyValue>>> {
        if self.is_over {
            return Ok(None);
        }
        let limit = if limit == 0 {
            PAGE_KEYS
        } else {
            limit.min(PAGE_KEYS)
        };
        let request = wire::RangeRequest {
            key: self.from.clone(),
            range_end: self.end.clone(),
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            revision: self
                .at
                .map_or(0, |at| i64::try_from(at).unwrap_or(i64::MAX)),
            ..wire::RangeRequest::default()
        };
        let (kvs, count, newest) = self.inner.range(&request).await?;
        self.at.get_or_insert(newest);
        self.remaining = count.saturating_sub(kvs.len());
        self.is_over = self.remaining == 0;
        if let Some(last) = kvs.last() {
            self.from = behind(&last.key);
        }
        Ok(Some(kvs))
    }

    /// What the pages show, once the first one is there.
    fn revision(&self) -> Revision {
        self.at.unwrap_or_default()
    }
}

/// The first key behind a key.
fn behind(key: &[u8]) -> bytes::Bytes {
    [key, &[0]].concat().into()
}

/// Takes a revision by a write that means nothing.
async fn mark(rpc: &Rpc, keys: &Keys) -> std::result::Result<wire::TxnResponse, failure::Failure> {
    let request = commit::control(keys.control(SYNC), bytes::Bytes::new(), None, 0);
    rpc.ask(TXN, &request, Repeat::Safe).await
}

/// Where the revisions of a store begin that was restored or moved; 0 elsewhere.
async fn base_of(rpc: &Rpc, keys: &Keys) -> Result<Revision> {
    let request = wire::RangeRequest {
        key: keys.control(BASE),
        ..wire::RangeRequest::default()
    };
    let asked = rpc.ask::<_, wire::RangeResponse>(RANGE, &request, Repeat::Safe);
    let answer = asked.await.map_err(unread)?;
    let Some(kv) = answer.kvs.into_iter().next() else {
        return Ok(0);
    };
    let text = std::str::from_utf8(&kv.value).unwrap_or_default();
    let unreadable = || StoreError::Unreadable {
        key: String::from_utf8_lossy(&kv.key).into_owned(),
        why: "it is no revision".into(),
    };
    if text.starts_with(INCOMPLETE) {
        return Err(StoreError::Invalid(
            "a restore into this etcd was not completed: remove what is below the prefix, and begin again".to_owned(),
        ));
    }
    // Revisions of the wire have 63 bits.
    let base = text.parse().ok().filter(|base: &i64| *base >= 0);
    base.map(i64::unsigned_abs).ok_or_else(unreadable)
}

fn unread(failure: failure::Failure) -> StoreError {
    failure.of_read(0, 0)
}
