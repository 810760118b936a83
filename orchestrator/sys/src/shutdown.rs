//! The one signal that a process ends by. Clones share it; a child ends with its parent, not the
//! other way round.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Tells tasks to stop; says nothing about whether they did (that is `Tasks::finish`).
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything that holds this signal or a child of it to stop. Idempotent.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Resolves once stopping was asked for; at once if it was already. Cancel-safe.
    pub fn requested(&self) -> WaitForCancellationFuture<'_> {
        self.0.cancelled()
    }

    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// A signal that fires with this one, and can be fired alone.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Runs the future until it ends or stopping is asked for (then `None`).
    pub async fn unless<F: Future>(&self, future: F) -> Option<F::Output> {
        self.0.run_until_cancelled(future).await
    }

    /// Fires at SIGTERM or SIGINT. A second signal ends the process at once, so that a stop that
    /// hangs can still be ended from a terminal.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping; a second signal ends the process at once");
            shutdown.trigger();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(130);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_ends_with_its_parent_and_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (one, two) = (parent.child(), parent.child());
        one.trigger();
        assert!(one.is_requested() && !parent.is_requested() && !two.is_requested());
        parent.trigger();
        two.requested().await;
        assert!(two.unless(std::future::pending::<()>()).await.is_none());
    }
}
