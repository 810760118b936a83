//! Supervised tasks: each has a name, a panic or an error is logged with it, and what the process
//! cannot live without takes the process down in order when it ends early.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::Shutdown;

/// The tasks of a process or of one part of it. Clones share the set.
#[derive(Clone, Debug)]
pub struct Tasks {
    shutdown: Shutdown,
    tracker: TaskTracker,
    failed: Arc<AtomicBool>,
}

impl Tasks {
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            shutdown,
            tracker: TaskTracker::new(),
            failed: Arc::default(),
        }
    }

    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs a task without which the process is useless: its error, panic or early end triggers
    /// the shutdown of this set and makes `finish` say so.
    pub fn essential<E: Display>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> JoinHandle<()> {
        let this = self.clone();
        self.tracker.spawn(async move {
            let ended = std::panic::AssertUnwindSafe(task.map(|r| r.map_err(|e| e.to_string())))
                .catch_unwind()
                .await;
            if this.shutdown.is_requested() {
                log_end(name, ended);
                return;
            }
            if matches!(ended, Ok(Ok(()))) {
                tracing::error!(task = name, "ended although nobody asked for it");
            }
            log_end(name, ended);
            this.failed.store(true, Ordering::Relaxed);
            this.shutdown.trigger();
        })
    }

    /// Runs a task that is made anew with back-off (100 ms doubling to 30 s) when it fails or
    /// panics, until it ends well or shutdown is asked for.
    pub fn restarting<E, F>(
        &self,
        name: &'static str,
        mut make: impl FnMut() -> F + Send + 'static,
    ) -> JoinHandle<()>
    where
        E: Display,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        self.tracker.spawn(async move {
            let mut pause = FIRST_PAUSE;
            while !shutdown.is_requested() {
                let started = tokio::time::Instant::now();
                let task = make().map(|r| r.map_err(|e| e.to_string()));
                let ended = std::panic::AssertUnwindSafe(task).catch_unwind().await;
                if matches!(ended, Ok(Ok(()))) {
                    return;
                }
                log_end(name, ended);
                // A task that lived long failed for a new reason: begin the back-off again.
                if started.elapsed() > LAST_PAUSE {
                    pause = FIRST_PAUSE;
                }
                shutdown.unless(tokio::time::sleep(pause)).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        })
    }

    /// Waits until every task has ended after `shutdown` was triggered, at most `patience`.
    /// The answer is whether all ended in time and no essential one failed.
    pub async fn finish(&self, patience: Duration) -> bool {
        self.shutdown.requested().await;
        self.tracker.close();
        let ended = tokio::time::timeout(patience, self.tracker.wait())
            .await
            .is_ok();
        if !ended {
            let left = self.tracker.len();
            tracing::warn!(left, ?patience, "tasks did not stop in time; leaving them");
        }
        ended && !self.failed.load(Ordering::Relaxed)
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(30);

fn log_end(name: &str, ended: std::thread::Result<Result<(), String>>) {
    match ended {
        Ok(Ok(())) => tracing::debug!(task = name, "ended"),
        Ok(Err(error)) => tracing::error!(task = name, error, "failed"),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(task = name, panic = text, "panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_an_essential_task_stops_the_set_and_counts_as_a_failure() {
        let tasks = Tasks::new(Shutdown::new());
        tasks.essential("broken", async { Err::<(), _>("no luck") });
        assert!(!tasks.finish(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_panic_of_an_essential_task_stops_the_set() {
        let tasks = Tasks::new(Shutdown::new());
        tasks.essential::<String>("panics", async { panic!("on purpose") });
        assert!(!tasks.finish(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn an_ordered_stop_is_no_failure() {
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.clone());
        let child = shutdown.clone();
        tasks.essential::<String>("waits", async move {
            child.requested().await;
            Ok(())
        });
        shutdown.trigger();
        assert!(tasks.finish(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_restarting_task_is_tried_until_it_ends_well() {
        let tasks = Tasks::new(Shutdown::new());
        let mut tries = 0;
        let task = tasks.restarting("flaky", move || {
            tries += 1;
            let ended = if tries < 2 { Err("not yet") } else { Ok(()) };
            async move { ended }
        });
        task.await.unwrap();
    }
}
