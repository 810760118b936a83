//! Who leads: of all servers one, whose writes fail as soon as another one leads.

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Revision;

tokio::task_local! {
    static FENCE: Fence;
}

/// A key of the store that must still be the one that was made at a revision: while the leadership lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub(crate) key: Bytes,
    pub(crate) created: Revision,
}

impl Fence {
    /// Runs what writes only while the leadership lasts: each commit that it makes in its own task is
    /// refused with `Fenced` afterwards.
    pub async fn keep<T>(fence: Option<Self>, work: impl Future<Output = T>) -> T {
        match fence {
            Some(fence) => FENCE.scope(fence, work).await,
            None => work.await,
        }
    }

    /// The fence that this task's writes are under. A task that is spawned has none of its own.
    pub fn current() -> Option<Self> {
        FENCE.try_with(Clone::clone).ok()
    }
}

/// A leadership, from its beginning on. Dropping it leaves it to run out.
pub struct Leadership {
    fence: Option<Fence>,
    lost: watch::Receiver<bool>,
    end: Option<End>,
}

/// How a leadership ends before its time.
struct End {
    renewal: AbortHandle,
    resign: BoxFuture<'static, ()>,
}

impl Leadership {
    /// The one of a store that has one server.
    pub(crate) fn always() -> Self {
        Self {
            fence: None,
            lost: watch::Sender::new(false).subscribe(),
            end: None,
        }
    }

    /// `lost` becomes true when the leadership may be over; `renewal` keeps it, `resign` gives it up.
    pub(crate) fn new(
        fence: Fence,
        lost: watch::Receiver<bool>,
        renewal: AbortHandle,
        resign: BoxFuture<'static, ()>,
    ) -> Self {
        Self {
            fence: Some(fence),
            lost,
            end: Some(End { renewal, resign }),
        }
    }

    /// What keeps a former leader from writing; `None` where there can be none.
    pub fn fence(&self) -> Option<Fence> {
        self.fence.clone()
    }

    /// Returns when the leadership may be over.
    pub async fn lost(&mut self) {
        // Without a sender nobody can take it away.
        if self.lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Gives it up: the next one leads at once.
    pub async fn resign(mut self) {
        if let Some(end) = self.end.take() {
            end.renewal.abort();
            end.resign.await;
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        if let Some(end) = &self.end {
            end.renewal.abort();
        }
    }
}
