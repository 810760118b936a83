//! Events that wait to be written: bounded in bytes, filled by requests, emptied by one backend.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

/// Lines of events, without an end that anybody waits for.
pub struct Queue {
    limit: usize,
    waiting: Mutex<Waiting>,
    /// Something waits, or nothing more will.
    filled: Notify,
    /// There is room again, or everything has been written.
    emptied: Notify,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes that the backend has taken and not written yet.
    taken: usize,
    closed: bool,
}

impl Queue {
    /// A queue of that many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            waiting: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
        }
    }

    /// Adds a line, whether or not there is room.
    pub fn push(&self, line: Bytes) {
        let mut waiting = self.waiting();
        let was_empty = waiting.lines.is_empty();
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Adds a line if there is room; false if there is none.
    pub fn try_push(&self, line: Bytes) -> bool {
        let has_room = self.has_room();
        if has_room {
            self.push(line);
        }
        has_room
    }

    /// Waits until there is room; false if that takes longer than `patience`.
    pub async fn room(&self, patience: Duration) -> bool {
        self.until(patience, Self::has_room).await
    }

    /// Everything that waits, at most `max` lines of it; None if nothing more will come.
    pub async fn take(&self, max: usize) -> Option<Vec<Bytes>> {
        loop {
            {
                let mut waiting = self.waiting();
                let count = waiting.lines.len().min(max);
                let lines: Vec<Bytes> = waiting.lines.drain(..count).collect();
                let bytes: usize = lines.iter().map(Bytes::len).sum();
                waiting.taken += bytes;
                waiting.bytes -= bytes;
                if !lines.is_empty() {
                    return Some(lines);
                }
                if waiting.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    /// What has been taken is written, or lost.
    pub fn written(&self) {
        self.waiting().taken = 0;
        self.emptied.notify_waiters();
    }

    /// Nothing more will come. Waits until everything has been written; false if that takes longer.
    pub async fn close(&self, patience: Duration) -> bool {
        self.waiting().closed = true;
        self.filled.notify_one();
        self.emptied.notify_waiters();
        let is_empty = |queue: &Self| {
            let waiting = queue.waiting();
            waiting.lines.is_empty() && waiting.taken == 0
        };
        self.until(patience, is_empty).await
    }

    pub fn is_closed(&self) -> bool {
        self.waiting().closed
    }

    /// Waits until nothing more will come.
    pub async fn closed(&self) {
        self.until(Duration::MAX, Self::is_closed).await;
    }

    async fn until(&self, patience: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        if holds(self) {
            return true;
        }
        let waiting = async {
            loop {
                let emptied = self.emptied.notified();
                tokio::pin!(emptied);
                emptied.as_mut().enable();
                if holds(self) {
                    return;
                }
                emptied.await;
            }
        };
        tokio::time::timeout(patience, waiting).await.is_ok()
    }

    fn has_room(&self) -> bool {
        let waiting = self.waiting();
        waiting.bytes + waiting.taken < self.limit
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);
    const LATE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_full_queue_has_room_again_when_its_lines_are_written() {
        let queue = Queue::new(4);
        assert!(queue.try_push(Bytes::from_static(b"12345")));
        assert!(!queue.try_push(Bytes::from_static(b"6")));
        assert!(!queue.room(SOON).await);
        assert_eq!(queue.take(9).await.expect("lines").len(), 1);
        // Taken, and not yet written.
        assert!(!queue.room(SOON).await);
        let written = async { queue.written() };
        assert!(tokio::join!(queue.room(LATE), written).0);
    }

    #[tokio::test]
    async fn a_closed_queue_is_emptied_and_ends() {
        let queue = Queue::new(4);
        queue.push(Bytes::from_static(b"1"));
        queue.push(Bytes::from_static(b"2"));
        let write = async {
            let mut written = 0;
            while let Some(lines) = queue.take(1).await {
                written += lines.len();
                queue.written();
            }
            written
        };
        assert_eq!(tokio::join!(queue.close(LATE), write), (true, 2));
    }
}
