//! The one watch by which a store follows etcd, and the past for those who fell behind it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::timeout;

use super::events::{Assembly, Broken, Delivered};
use super::failure::Failure;
use super::{Inner, wire};
use crate::tail::{self, filter};
use crate::{Chunk, Result, Revision, StoreError, check_window};

/// Why a watch ended.
enum Ended {
    /// The next one goes on where it was.
    Lost(String),
    /// The past that it needs is gone: whatever was read so far cannot be continued.
    Final(String),
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long one read of the past may take.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(20);

impl Inner {
    /// Publishes what happens in etcd until the store is dropped. A watch that ends is made anew, by the
    /// next member, from the revision that was reached.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let before = self.tail.reached();
            match self.follow_once().await {
                Ended::Final(why) => {
                    tracing::error!(%why, "the store cannot follow etcd any more");
                    self.tail.close();
                    return;
                }
                Ended::Lost(why) if self.tail.reached() > before => {
                    tracing::debug!(%why, "the watch of etcd is made anew");
                    pause = FIRST_PAUSE;
                }
                Ended::Lost(why) => tracing::warn!(%why, "etcd cannot be watched; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn follow_once(&self) -> Ended {
        // A member that cannot say the newest revision is not watched; one that says an older one than was
        // seen has lost what was answered.
        if let Err(error) = self.newest().await {
            return match error {
                StoreError::Closed => Ended::Final("its revision went back".to_owned()),
                other => Ended::Lost(other.to_string()),
            };
        }
        let from = self.tail.reached();
        let (mut stream, member) = match self.rpc.watch(self.all_from(from)).await {
            Ok(watching) => watching,
            Err((failure, member)) => {
                self.rpc.turn_from(member);
                return Ended::Lost(failure.to_string());
            }
        };
        let mut assembly = Assembly::new(self.keys.data(), from);
        loop {
            let message = tokio::select! {
                message = stream.next() => message.transpose(),
                () = self.stalled.notified() => {
                    self.rpc.turn_from(member);
                    return Ended::Lost("it delivers nothing".to_owned());
                }
            };
            let response = match message {
                Ok(Some(response)) => response,
                Ok(None) => return Ended::Lost("etcd closed it".to_owned()),
                Err(status) => {
                    self.rpc.turn_from(member);
                    return Ended::Lost(status.message().to_owned());
                }
            };
            match assembly.take(response) {
                Ok(Some(delivered)) => self.publish(delivered),
                Ok(None) => {}
                Err(compacted @ Broken::Compacted(_)) => {
                    return Ended::Final(format!(
                        "{compacted}, and this server had seen only {}: start it again",
                        self.tail.reached()
                    ));
                }
                Err(broken) => {
                    self.rpc.turn_from(member);
                    return Ended::Lost(broken.to_string());
                }
            }
        }
    }

    fn publish(&self, delivered: Delivered) {
        if delivered.has_gap {
            self.has_neighbours.store(true, Ordering::Relaxed);
        }
        self.tail.publish(delivered.commits, delivered.reached);
    }

    /// Reads the past by a watch that ends where the store is now: its newest revision is that of one of its
    /// own keys, so a watch of all of them gets there.
    pub(super) async fn past(&self, prefix: &str, from: Revision, limit: usize) -> Result<Chunk> {
        let now = self.tail.reached();
        check_window(from, self.compacted(), now)?;
        if from == now {
            return Ok((Vec::new(), now));
        }
        let read = self.read_past(prefix, from, limit, now);
        match timeout(REPLAY_TIMEOUT, read).await {
            Ok(chunk) => chunk,
            Err(_) => Err(StoreError::Unavailable(
                "etcd does not deliver the past in time".into(),
            )),
        }
    }

    async fn read_past(
        &self,
        prefix: &str,
        from: Revision,
        limit: usize,
        now: Revision,
    ) -> Result<Chunk> {
        let unavailable = |text: String| StoreError::Unavailable(text.into());
        let watching = self.rpc.watch(self.all_from(from)).await;
        let (mut stream, _) =
            watching.map_err(|(failure, _): (Failure, usize)| unavailable(failure.to_string()))?;
        let mut assembly = Assembly::new(self.keys.data(), from);
        let (mut commits, mut reached) = (Vec::new(), from);
        while reached < now && commits.len() < limit {
            let message = stream.next().await.transpose();
            let message = message.map_err(|status| unavailable(status.message().to_owned()))?;
            let message = message.ok_or_else(|| unavailable("etcd closed a watch".to_owned()))?;
            match assembly.take(message) {
                Ok(Some(delivered)) => {
                    reached = delivered.reached;
                    let found = delivered.commits.iter();
                    commits.extend(found.filter_map(|commit| filter(commit, prefix)));
                }
                Ok(None) => {}
                Err(Broken::Compacted(oldest)) => {
                    self.note_compacted(oldest);
                    return Err(StoreError::Compacted { oldest });
                }
                Err(broken) => return Err(unavailable(broken.to_string())),
            }
        }
        Ok(tail::chunk(commits, limit, reached))
    }

    /// A watch of everything behind `from`. It begins at `from` itself: etcd 3.4 lets a watch begin at the
    /// revision of a compaction, which has taken that revision's deletions. What is at `from` is left out.
    fn all_from(&self, from: Revision) -> wire::WatchCreateRequest {
        let (key, range_end) = self.keys.all();
        wire::WatchCreateRequest {
            key,
            range_end,
            start_revision: i64::try_from(from.max(1)).unwrap_or(i64::MAX),
            prev_kv: true,
            fragment: true,
        }
    }
}
