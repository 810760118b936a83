//! Leadership as a key of etcd that lives as long as its lease is renewed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::rpc::{RANGE, Repeat, TXN};
use super::{Inner, commit, unread, wire};
use crate::Result;
use crate::lead::{Fence, Leadership};

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
/// A stream in etcd; here it has one request and one answer.
const RENEW: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// How long a leader that died leads on. etcd looks for leases that are over twice a second.
const LEASE: Duration = Duration::from_secs(3);
const RENEWAL: Duration = Duration::from_millis(700);
/// The leader stops leading so long before etcd says so.
const MARGIN: Duration = Duration::from_millis(300);
/// Who waits looks at the key at least so often, whatever its watch says.
const LOOK: Duration = Duration::from_secs(1);
/// After a failure to ask.
const PAUSE: Duration = Duration::from_millis(500);

impl Inner {
    /// Returns when `holder` leads.
    pub(super) async fn campaign(self: Arc<Self>, name: &str, holder: &str) -> Result<Leadership> {
        let key = self.keys.control(&format!("leader/{name}"));
        loop {
            match self.leader(&key).await? {
                Some(leader) if self.is_own(&leader, holder) => {
                    if !self.revoke(leader.lease).await {
                        tokio::time::sleep(PAUSE).await;
                    }
                    continue;
                }
                Some(leader) => {
                    self.until_changed(&key, leader.mod_revision).await;
                    continue;
                }
                None => {}
            }
            let began = Instant::now();
            let ttl = i64::try_from(LEASE.as_secs()).unwrap_or(i64::MAX);
            let grant = wire::LeaseGrantRequest { ttl };
            let granted = self
                .rpc
                .ask::<_, wire::LeaseResponse>(GRANT, &grant, Repeat::Safe);
            let lease = granted.await.map_err(unread)?.id;
            let request = commit::control(key.clone(), holder.to_owned().into(), Some(0), lease);
            let asked = self
                .rpc
                .ask::<_, wire::TxnResponse>(TXN, &request, Repeat::Unsent);
            // Also if nobody answers: it may be done all the same.
            self.led.store(lease, Ordering::Relaxed);
            // A member that stands still may answer when the lease is over.
            match timeout_at(began + LEASE, asked).await {
                Ok(Ok(answer)) if answer.succeeded => {
                    let created = answer.header.unwrap_or_default().revision.unsigned_abs();
                    let fence = Fence { key, created };
                    return Ok(self.lead(fence, lease, began));
                }
                // Another one was faster, or nobody knows: the key ends with its lease.
                _ => {
                    self.revoke(lease).await;
                }
            }
        }
    }

    /// Whether a leadership is left from before: of this store, which lost it when it could not renew it, or of
    /// the process that was this server before and died. etcd would keep its lease for its whole length, and
    /// counts that length anew when it has been away itself.
    fn is_own(&self, leader: &wire::KeyValue, holder: &str) -> bool {
        match self.led.load(Ordering::Relaxed) {
            // Only in the beginning, so that two servers that are given one name do not take turns.
            0 => leader.value == holder.as_bytes(),
            lease => leader.lease == lease,
        }
    }

    /// The key of whoever leads.
    async fn leader(&self, key: &bytes::Bytes) -> Result<Option<wire::KeyValue>> {
        let request = wire::RangeRequest {
            key: key.clone(),
            ..wire::RangeRequest::default()
        };
        let asked = self
            .rpc
            .ask::<_, wire::RangeResponse>(RANGE, &request, Repeat::Safe);
        let answer = asked.await.map_err(unread)?;
        Ok(answer.kvs.into_iter().next())
    }

    /// Returns when the key was written behind a revision, or it is time to look: a member that stands still
    /// says nothing of it.
    pub(super) async fn until_changed(&self, key: &bytes::Bytes, revision: i64) {
        // Either way the key is read next.
        let _ = timeout(LOOK, self.changed(key, revision)).await;
    }

    async fn changed(&self, key: &bytes::Bytes, revision: i64) {
        let create = wire::WatchCreateRequest {
            key: key.clone(),
            start_revision: revision + 1,
            ..wire::WatchCreateRequest::default()
        };
        let Ok((mut stream, _)) = self.rpc.watch(create).await else {
            tokio::time::sleep(PAUSE).await;
            return;
        };
        while let Some(Ok(response)) = stream.next().await {
            if response.canceled || !response.events.is_empty() {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }

    fn lead(self: Arc<Self>, fence: Fence, lease: i64, began: Instant) -> Leadership {
        let (lose, lost) = watch::channel(false);
        let renewing = self.clone();
        let renewal = tokio::spawn(async move {
            renewing.renew(lease, began).await;
            lose.send_replace(true);
        });
        let resign = async move {
            self.revoke(lease).await;
        };
        Leadership::new(fence, lost, renewal.abort_handle(), Box::pin(resign))
    }

    /// Renews a lease; returns when it may be over.
    async fn renew(&self, lease: i64, began: Instant) {
        let mut last = began;
        loop {
            tokio::time::sleep(RENEWAL).await;
            let asked_at = Instant::now();
            let over = last + LEASE.saturating_sub(MARGIN);
            let request = wire::LeaseRequest { id: lease };
            let asked = self
                .rpc
                .ask::<_, wire::LeaseResponse>(RENEW, &request, Repeat::Safe);
            match timeout_at(over, asked).await {
                Ok(Ok(answer)) if answer.ttl > 0 => last = asked_at,
                // etcd says that it is over, or says nothing until it is.
                Ok(Ok(_)) | Err(_) => return,
                Ok(Err(error)) => tracing::warn!(%error, "the leadership was not renewed"),
            }
        }
    }

    /// Whether etcd says that it is done.
    async fn revoke(&self, lease: i64) -> bool {
        let request = wire::LeaseRequest { id: lease };
        let asked = self
            .rpc
            .ask::<_, wire::HeaderOnly>(REVOKE, &request, Repeat::Safe);
        let answer = asked.await;
        if let Err(error) = &answer {
            tracing::debug!(%error, "a lease was not given back, and will run out");
        }
        answer.is_ok()
    }
}
