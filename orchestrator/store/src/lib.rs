//! Revisioned keys: compare-and-set, watch from a revision, compaction.
//!
//! One revision counts the changes of the whole store; a commit takes one and all its writes carry
//! it. What a commit was answered for is on disk (unless it was `Volatile`) and every later read
//! and watch shows it. The store knows bytes, not objects: it never parses a value.
//! Only the API server may use it.

#[cfg(test)]
mod conformance;
pub mod embedded;
pub mod etcd;
mod lead;
pub mod memory;
pub mod snapshot;
mod tail;

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use embedded::{EmbeddedStore, OpenError, renew};
pub use etcd::{EtcdConfig, EtcdStore};
pub use lead::{Fence, Leadership};
pub use memory::MemoryStore;

/// Some commits in the order of revisions, and the revision up to which they are all.
pub type Chunk = (Vec<Arc<Commit>>, Revision);

/// So many writes of one commit every backend takes (etcd's default limit).
pub const MOST_WRITES: usize = 128;

/// Counts commits. 0 is before the first one.
pub type Revision = u64;

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Is shown each key, the revision of its last write, and its value.
pub type Visitor<'a> = &'a mut (dyn FnMut(&str, Revision, &[u8]) + Send);

/// Commits in the order of revisions. Ends after the first error.
pub type CommitStream = BoxStream<'static, Result<Arc<Commit>>>;

/// One key as it is, or was at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Arc<str>,
    pub value: Bytes,
    /// The revision that made the key.
    pub created: Revision,
    /// The revision of the last write.
    pub modified: Revision,
}

/// What must be true of a key for the commit to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Any,
    Absent,
    /// The key was last modified at this revision.
    At(Revision),
}

/// How long a written value lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// On disk before the commit is answered.
    Durable,
    /// In memory only: takes a revision and is watched like any other, gone after a restart.
    Volatile,
}

/// One write of a commit.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: String,
    /// `None` deletes. Deleting what is absent changes nothing and takes no revision.
    pub value: Option<Bytes>,
    pub expect: Expect,
    /// The same for all writes of a key during its life, and for all writes of a commit.
    pub lifetime: Lifetime,
}

/// The changes of one commit, in the order that it was written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub revision: Revision,
    /// Empty: the store took the revision for itself. Every watch is told, so that it knows where it is.
    pub events: Vec<Event>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: Arc<str>,
    /// `None`: deleted.
    pub value: Option<Bytes>,
    /// `None`: it was absent before.
    pub prev: Option<Bytes>,
}

/// Which keys to read, in key order.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    pub prefix: &'a str,
    /// Only keys behind this one.
    pub after: Option<&'a str>,
    /// At most so many (0 = all).
    pub limit: usize,
    /// As of this revision instead of now. Volatile keys are always as of now.
    pub at: Option<Revision>,
}

/// One page of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// What the page shows: `Range::at`, or the store's revision when it was read.
    pub revision: Revision,
    /// How many keys follow behind the last entry.
    pub remaining: usize,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// An expectation did not hold; nothing was written.
    #[error("{key} is not as expected")]
    Conflict {
        key: String,
        /// What is there instead.
        current: Option<Box<Entry>>,
    },
    /// The history before `oldest` is gone: read anew.
    #[error("revision is older than {oldest}, the oldest that the store still holds")]
    Compacted { oldest: Revision },
    /// A revision that the store has not reached.
    #[error("revision is ahead of the store, which is at {current}")]
    Future { current: Revision },
    /// The commit itself is wrong (the same key twice, an empty key, mixed lifetimes).
    #[error("commit refused: {0}")]
    Invalid(String),
    /// The disk failed. Whether the commit is there shows only after a restart; until then
    /// nothing is written.
    #[error("the store cannot write: {0}; restart the server when the disk is well again")]
    Io(Arc<str>),
    /// A commit is larger than the store takes, in bytes or in writes.
    #[error("the store cannot take it: {0}")]
    TooLarge(String),
    /// The store does not answer; nothing was written.
    #[error("the store does not answer: {0}")]
    Unavailable(Arc<str>),
    /// The store did not answer; whether the commit happened shows only by reading.
    #[error("the store did not say whether it was written: {0}")]
    Uncertain(Arc<str>),
    /// The store takes no writes until somebody has made room.
    #[error(
        "etcd has no space left ({0}): compact and defragment it or raise its --quota-backend-bytes, \
         then `etcdctl alarm disarm`"
    )]
    Full(Arc<str>),
    /// The leadership that the commit was to happen under is over; nothing was written.
    #[error("another server leads now")]
    Fenced,
    /// A value is there that whoever gave it to the store cannot read back.
    #[error("the value of {key} cannot be read: {why}")]
    Unreadable { key: String, why: Arc<str> },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Contract, the same for every backend (`conformance` is its test):
///
/// - Commits are atomic and serial; revisions only grow, also over a restart.
/// - A commit that changes nothing answers the current revision and takes none.
/// - Reads show every commit that was answered before they began.
/// - A watch delivers each later commit once, whole, in the order of revisions.
pub trait Store: Send + Sync + 'static {
    /// The newest revision that is answered.
    fn revision(&self) -> Revision;

    /// Whether other servers write to it too.
    fn is_shared(&self) -> bool {
        false
    }

    /// A revision that holds every commit that was answered before the call, whichever server made it;
    /// reads and watches of this store show it. Where there is one server that is `revision`.
    fn fresh(&self) -> BoxFuture<'_, Result<Revision>> {
        futures::future::ready(Ok(self.revision())).boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>>>;

    fn range<'a>(&'a self, range: Range<'a>) -> BoxFuture<'a, Result<Page>>;

    /// Shows every key with this prefix as of one revision, the answer; copies nothing.
    fn visit<'a>(
        &'a self,
        prefix: &'a str,
        visitor: Visitor<'a>,
    ) -> BoxFuture<'a, Result<Revision>>;

    /// All writes or none. Cancelling the future does not cancel the commit.
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision>>;

    /// Every change behind `from` of a key that begins with `prefix`, then the live ones. A reader
    /// that is slow is served from disk; one slower than compaction gets `Compacted`.
    fn watch(&self, prefix: &str, from: Revision) -> Result<CommitStream>;

    /// The first `limit` changes behind `from`, and the revision that this reaches to: a watch's
    /// past without its future.
    fn history<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
        limit: usize,
    ) -> BoxFuture<'a, Result<Chunk>>;

    /// Forgets the history up to `upto`: ranges and watches from `upto` on still work.
    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<()>>;

    /// The members of the etcd that it lies in; `None`: it lies in none.
    fn members(&self) -> Option<etcd::Members> {
        None
    }

    /// What lies below: the same keys with their values as they are kept, where those are encrypted.
    fn kept(&self) -> Option<Arc<dyn Store>> {
        None
    }

    /// Returns when `holder` leads in what `name` stands for: one at a time among all servers. Where there
    /// is one server it always leads.
    fn campaign<'a>(
        &'a self,
        _name: &'a str,
        _holder: &'a str,
    ) -> BoxFuture<'a, Result<Leadership>> {
        futures::future::ready(Ok(Leadership::always())).boxed()
    }
}

impl<'a> Range<'a> {
    /// All keys with this prefix, now.
    pub fn all(prefix: &'a str) -> Self {
        Self {
            prefix,
            after: None,
            limit: 0,
            at: None,
        }
    }
}

impl Page {
    pub fn more(&self) -> bool {
        self.remaining > 0
    }
}

impl Write {
    /// A durable write of a value.
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>, expect: Expect) -> Self {
        Self {
            key: key.into(),
            value: Some(value.into()),
            expect,
            lifetime: Lifetime::Durable,
        }
    }

    /// A durable delete.
    pub fn delete(key: impl Into<String>, expect: Expect) -> Self {
        Self {
            key: key.into(),
            value: None,
            expect,
            lifetime: Lifetime::Durable,
        }
    }

    /// The same write, in memory only.
    pub fn volatile(self) -> Self {
        Self {
            lifetime: Lifetime::Volatile,
            ..self
        }
    }
}

/// What every backend refuses before it looks at its data.
fn check_shape(writes: &[Write]) -> Result<()> {
    let invalid = |text: String| Err(StoreError::Invalid(text));
    for (index, write) in writes.iter().enumerate() {
        if write.key.is_empty() {
            return invalid("a key is empty".into());
        }
        if write.lifetime != writes[0].lifetime {
            return invalid("durable and volatile writes do not mix".into());
        }
        if writes[..index].iter().any(|other| other.key == write.key) {
            return invalid(format!("{} is written twice", write.key));
        }
    }
    Ok(())
}

/// Whether the expectation of a write holds for what is there.
fn holds(write: &Write, current: Option<Entry>) -> Result<()> {
    let holds = match write.expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::At(revision) => current.as_ref().is_some_and(|e| e.modified == revision),
    };
    if holds {
        return Ok(());
    }
    Err(StoreError::Conflict {
        key: write.key.clone(),
        current: current.map(Box::new),
    })
}

/// Whether a revision lies between what is compacted and what is reached.
fn check_window(asked: Revision, compacted: Revision, current: Revision) -> Result<()> {
    if asked < compacted {
        return Err(StoreError::Compacted { oldest: compacted });
    }
    if asked > current {
        return Err(StoreError::Future { current });
    }
    Ok(())
}
