//! Volumes that may not outgrow their `sizeLimit`: measured while the pod runs, beside the worker.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Note;
use super::Worker;

use crate::api::events;
use crate::network::wiring::PodNetwork;
use crate::node::running::Eviction;
use crate::pod::shape;
use crate::runtime::{Container, Runtime};
use crate::volumes;

/// How much longer than a measure the pause after it is, at least.
const LEAST_PAUSE: u32 = 9;

/// How volumes are measured: one at a time on a node, as it is work for its disk.
pub struct Measuring {
    every: Duration,
    turn: Arc<Semaphore>,
}

impl Measuring {
    pub fn every(every: Duration) -> Measuring {
        Measuring {
            every,
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    /// Measures the limited volumes of a pod while its containers run.
    pub(super) fn watch_usage(&mut self) {
        let running = shape::members(&self.containers).any(Container::is_running);
        if !running || self.objects.is_none() {
            self.gauge = None;
            return;
        }
        if self.gauge.is_some() {
            return;
        }
        let limited = volumes::limited(&self.update.pod);
        if limited.is_empty() {
            return;
        }
        let (dir, notes) = (self.dir.clone(), self.notes.clone());
        let (every, turn) = (self.node.measuring.every, self.node.measuring.turn.clone());
        let gauge = async move {
            let mut pause = every;
            loop {
                tokio::time::sleep(pause).await;
                // The semaphore is never closed.
                let Ok(turn) = turn.clone().acquire_owned().await else {
                    return;
                };
                let started = Instant::now();
                let (dir, limited) = (dir.clone(), limited.clone());
                let measure = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    limited.into_iter().find(|it| dir.outgrows(it))
                });
                if let Ok(Some(volume)) = measure.await {
                    // The pod may have ended meanwhile.
                    drop(notes.send(Note::Outgrown(volume.message())).await);
                    return;
                }
                // A pod that makes it long work has it done more rarely.
                pause = every.max(started.elapsed() * LEAST_PAUSE);
            }
        };
        self.gauge = Some(AbortOnDropHandle::new(tokio::spawn(gauge)));
    }

    pub(super) fn evict(&mut self, eviction: Eviction) {
        if self.objects.is_none() {
            // It ends already.
            return;
        }
        if eviction.reason == "Evicted" {
            let about = events::pod(&self.update.pod);
            let message = eviction.message.clone();
            self.node.recorder.warning(about, "Evicted", message);
        }
        self.memory.evicted = Some(eviction);
    }
}
