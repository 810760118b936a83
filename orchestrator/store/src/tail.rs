//! The recent commits in memory: what live watches read. Every backend publishes here; a watch is a
//! place in it, and one that falls off is served from the backend's history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::runtime::RuntimeFlavor;
use tokio::sync::watch;

use super::{Chunk, Commit, CommitStream, Event, Result, Revision, StoreError};

/// What a backend still knows of the past beyond the tail.
pub(super) trait History: Send + Sync + 'static {
    fn tail(&self) -> &Tail;

    /// The first `limit` commits behind `from` (their events with the prefix; commits without any
    /// are left out), and the revision that this reaches to.
    fn replay<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
        limit: usize,
    ) -> BoxFuture<'a, Result<Chunk>>;
}

/// The newest commits, bounded by number and by bytes.
pub(super) struct Tail {
    ring: Mutex<Ring>,
    head: watch::Sender<Revision>,
    limits: Limits,
}

/// How much the tail keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub commits: usize,
    pub bytes: usize,
}

impl Tail {
    pub fn new(revision: Revision, limits: Limits) -> Self {
        let ring = Ring {
            commits: VecDeque::new(),
            bytes: 0,
            start: revision,
            head: revision,
        };
        Self {
            ring: Mutex::new(ring),
            head: watch::Sender::new(revision),
            limits,
        }
    }

    /// Shows commits (in order, all newer than the head) to the watches; `head` is the revision
    /// that is reached with them.
    pub fn publish(&self, commits: impl IntoIterator<Item = Arc<Commit>>, head: Revision) {
        {
            let mut ring = self.ring();
            for commit in commits {
                debug_assert!(commit.revision > ring.head && commit.revision <= head);
                ring.head = commit.revision;
                ring.bytes += size(&commit);
                ring.commits.push_back(commit);
            }
            ring.head = head;
            ring.shrink(self.limits);
        }
        self.head.send_replace(head);
    }

    /// Ends every watch once it has read what is here.
    pub fn close(&self) {
        self.head.send_replace(CLOSED);
    }

    pub fn is_closed(&self) -> bool {
        *self.head.borrow() == CLOSED
    }

    /// The revision that was published last.
    pub fn reached(&self) -> Revision {
        self.ring().head
    }

    /// Each revision that is published; one above all when the store closes.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    /// What is newer than `from` and the revision that it reaches to; `None` if part of it has
    /// already gone.
    fn after(&self, from: Revision, limit: usize) -> Option<Chunk> {
        let ring = self.ring();
        if from < ring.start {
            return None;
        }
        let first = ring
            .commits
            .partition_point(|commit| commit.revision <= from);
        let commits = ring.commits.range(first..).take(limit).cloned().collect();
        Some(chunk(commits, limit, ring.head))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics halfway through a change of the ring.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream behind `Store::watch`: from the tail while it reaches back far enough, else from
/// the backend's history.
pub(super) fn follow(history: Arc<dyn History>, prefix: &str, from: Revision) -> CommitStream {
    let head = history.tail().head.subscribe();
    let follower = Follower {
        history,
        head,
        prefix: prefix.into(),
        reached: from,
        ready: VecDeque::new(),
    };
    futures::stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(commit) => Some((Ok(commit), Some(follower))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

/// The first `limit` of these commits, which are all up to `head` or the first `limit` at least.
pub(super) fn chunk(mut commits: Vec<Arc<Commit>>, limit: usize, head: Revision) -> Chunk {
    commits.truncate(limit);
    match commits.last() {
        Some(last) if commits.len() == limit => {
            let reached = last.revision;
            (commits, reached)
        }
        _ => (commits, head),
    }
}

/// Does what may wait for a disk, after the other tasks of this thread have been handed to another one.
pub(super) fn give_way<T>(work: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Handle::try_current();
    match runtime.map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // There is no other thread, as in tests.
        _ => work(),
    }
}

/// What of a commit has the prefix; the commit itself if all of it has, as one without events has.
pub(super) fn filter(commit: &Arc<Commit>, prefix: &str) -> Option<Arc<Commit>> {
    let has = |event: &&Event| event.key.starts_with(prefix);
    match commit.events.iter().filter(has).count() {
        n if n == commit.events.len() => Some(commit.clone()),
        0 => None,
        _ => {
            let events = commit.events.iter().filter(has).cloned().collect();
            Some(Arc::new(Commit {
                revision: commit.revision,
                events,
            }))
        }
    }
}

/// The head that says that the store is closed: no revision ever gets there.
const CLOSED: Revision = Revision::MAX;
/// The most that one look takes: what a slow reader holds.
const CHUNK: usize = 256;

struct Ring {
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
    /// Every commit newer than this is here.
    start: Revision,
    head: Revision,
}

impl Ring {
    fn shrink(&mut self, limits: Limits) {
        while self.commits.len() > limits.commits || self.bytes > limits.bytes {
            let Some(oldest) = self.commits.pop_front() else {
                return;
            };
            self.bytes -= size(&oldest);
            self.start = oldest.revision;
        }
    }
}

fn size(commit: &Commit) -> usize {
    let value = |v: &Option<bytes::Bytes>| v.as_ref().map_or(0, bytes::Bytes::len);
    commit
        .events
        .iter()
        .map(|e| e.key.len() + value(&e.value) + value(&e.prev))
        .sum()
}

struct Follower {
    history: Arc<dyn History>,
    head: watch::Receiver<Revision>,
    prefix: Box<str>,
    /// Everything up to here is delivered or in `ready`.
    reached: Revision,
    ready: VecDeque<Arc<Commit>>,
}

impl Follower {
    async fn next(&mut self) -> Result<Arc<Commit>> {
        loop {
            if let Some(commit) = self.ready.pop_front() {
                return Ok(commit);
            }
            let head = *self.head.borrow_and_update();
            let (commits, reached) = match self.history.tail().after(self.reached, CHUNK) {
                Some(found) => found,
                None => {
                    let replay = self.history.replay(&self.prefix, self.reached, CHUNK);
                    replay.await?
                }
            };
            let progressed = reached > self.reached;
            self.reached = reached;
            self.ready
                .extend(commits.iter().filter_map(|c| filter(c, &self.prefix)));
            let idle = !progressed;
            if idle && (head == CLOSED || self.head.changed().await.is_err()) {
                return Err(StoreError::Closed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    struct Past(Tail);

    impl History for Past {
        fn tail(&self) -> &Tail {
            &self.0
        }

        fn replay<'a>(
            &'a self,
            _: &'a str,
            from: Revision,
            _: usize,
        ) -> BoxFuture<'a, Result<Chunk>> {
            let chunk = (vec![commit(from + 1, "/a/from-history")], from + 1);
            futures::future::ready(Ok(chunk)).boxed()
        }
    }

    fn commit(revision: Revision, key: &str) -> Arc<Commit> {
        let event = Event {
            key: key.into(),
            value: None,
            prev: None,
        };
        Arc::new(Commit {
            revision,
            events: vec![event],
        })
    }

    #[tokio::test]
    async fn a_watch_that_fell_off_the_tail_goes_on_from_history() {
        let past = Arc::new(Past(Tail::new(
            0,
            Limits {
                commits: 2,
                bytes: 1000,
            },
        )));
        let mut watch = follow(past.clone(), "/a/", 0);
        for revision in 1..=3 {
            past.tail().publish([commit(revision, "/a/live")], revision);
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            let commit = watch.next().await.unwrap().unwrap();
            seen.push((commit.revision, commit.events[0].key.to_string()));
        }
        let expected = [(1, "/a/from-history"), (2, "/a/live"), (3, "/a/live")];
        assert_eq!(
            seen,
            expected.map(|(revision, key)| (revision, key.to_owned()))
        );
    }

    #[tokio::test]
    async fn a_watch_ends_when_the_store_closes_but_reads_the_rest_first() {
        let past = Arc::new(Past(Tail::new(
            7,
            Limits {
                commits: 9,
                bytes: 1000,
            },
        )));
        let mut watch = follow(past.clone(), "/a/", 7);
        past.tail()
            .publish([commit(8, "/b/other"), commit(9, "/a/mine")], 9);
        past.tail().close();
        assert_eq!(watch.next().await.unwrap().unwrap().revision, 9);
        assert!(matches!(watch.next().await, Some(Err(StoreError::Closed))));
        assert!(watch.next().await.is_none());
    }
}
