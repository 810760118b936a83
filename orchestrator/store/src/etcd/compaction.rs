//! Forgetting the past of etcd, which grows with every write: one of the servers does it, every few
//! minutes, and leaves as much past as that.

use std::sync::Arc;
use std::time::Duration;

use super::keys::COMPACTED;
use super::rpc::{COMPACT, Repeat, TXN};
use super::{Inner, commit, unread, wire};
use crate::{Result, Revision, StoreError};

/// Between two compactions. A watch or a list can go on from a revision that is younger than this.
const INTERVAL: Duration = Duration::from_secs(300);

impl Inner {
    /// Compacts for as long as the store is open, in turn with the other servers: whoever replaces the
    /// revision that it read an interval ago compacts up to it.
    pub(super) async fn compact_in_turn(self: Arc<Self>) {
        let mut seen = self.control_number(COMPACTED).await.unwrap_or_default();
        loop {
            tokio::time::sleep(INTERVAL).await;
            match self.turn(seen).await {
                Ok(next) => seen = next,
                Err(StoreError::Closed) => return,
                Err(error) => tracing::warn!(%error, "the history in etcd was not compacted"),
            }
        }
    }

    /// One turn. `seen` and the answer are the number of the control key and the revision of that key.
    async fn turn(
        &self,
        seen: Option<(Revision, Revision)>,
    ) -> Result<Option<(Revision, Revision)>> {
        let now = self.control_number(COMPACTED).await?;
        // Another server was here since, or this one has just begun.
        if now != seen {
            return Ok(now);
        }
        let next = self.tail.reached();
        let expected = now.map_or(0, |(_, revision)| revision);
        let request = commit::control(
            self.keys.control(COMPACTED),
            next.to_string().into(),
            Some(expected),
            0,
        );
        let asked = self
            .rpc
            .ask::<_, wire::TxnResponse>(TXN, &request, Repeat::Unsent);
        let answer = asked.await.map_err(unread)?;
        if !answer.succeeded {
            return Ok(now);
        }
        if let Some((upto, _)) = now {
            self.compact(upto).await?;
        }
        let revision = answer
            .header
            .map_or(0, |header| header.revision.unsigned_abs());
        Ok(Some((next, revision)))
    }

    /// Forgets the history up to a revision.
    pub(super) async fn compact(&self, upto: Revision) -> Result<()> {
        let upto = upto.min(self.tail.reached());
        if upto <= self.compacted() {
            return Ok(());
        }
        let request = wire::CompactionRequest {
            revision: i64::try_from(upto).unwrap_or(i64::MAX),
        };
        let asked = self
            .rpc
            .ask::<_, wire::HeaderOnly>(COMPACT, &request, Repeat::Safe);
        match asked.await.map_err(unread) {
            Ok(_) => self.note_compacted(upto),
            // Somebody was faster.
            Err(StoreError::Compacted { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
