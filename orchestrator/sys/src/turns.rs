//! Turns at work of which so many pieces are done at a time, fair among those who cause it.
//!
//! ```text
//! source a: ● ● ● ● ─▶ a's first ─┐
//! source b: ●       ─▶ b's first ─┼─▶ at work, as many as there are seats
//! source c: ● ●     ─▶ c's first ─┘
//! ```
//!
//! A waiter waits first among those of its source, and then among the first ones of all sources, as many
//! of each as there are seats: a source with a thousand waiters delays another one's by one turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who waits and who is at work. Clones share it.
#[derive(Debug)]
pub struct Turns<K> {
    seats: usize,
    first_ones: Arc<Semaphore>,
    /// Only sources of which a waiter is there, or one is at work.
    sources: Arc<Mutex<BTreeMap<K, Source>>>,
}

#[derive(Debug)]
struct Source {
    own: Arc<Semaphore>,
    /// Waiters, and those at work.
    present: usize,
}

/// The right to work, until it is dropped.
#[derive(Debug)]
pub struct Turn<K: Ord> {
    // Given back in this order: the next one of the source waits behind the first ones of others.
    _at_work: Option<OwnedSemaphorePermit>,
    _first: Option<OwnedSemaphorePermit>,
    _presence: Presence<K>,
}

/// Keeps a source in the table.
#[derive(Debug)]
struct Presence<K: Ord> {
    sources: Arc<Mutex<BTreeMap<K, Source>>>,
    key: K,
}

impl<K> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self {
            seats: self.seats,
            first_ones: self.first_ones.clone(),
            sources: self.sources.clone(),
        }
    }
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self::with_seats(1)
    }
}

impl<K> Turns<K> {
    /// So many may work at a time.
    pub fn with_seats(seats: usize) -> Self {
        Self {
            seats,
            first_ones: Arc::new(Semaphore::new(seats)),
            sources: Arc::default(),
        }
    }
}

impl<K: Ord + Clone> Turns<K> {
    /// Waits for a turn of this source. A waiter that gives up leaves nothing behind.
    pub async fn next(&self, source: K) -> Turn<K> {
        let (presence, own) = self.enter(source);
        self.wait(presence, own).await
    }

    /// The same, unless `limit` of this source wait or work already.
    pub async fn next_of(&self, source: K, limit: usize) -> Option<Turn<K>> {
        let (presence, own) = self.enter(source);
        match presence.count() > limit {
            true => None,
            false => Some(self.wait(presence, own).await),
        }
    }

    async fn wait(&self, presence: Presence<K>, own: Arc<Semaphore>) -> Turn<K> {
        // Errors are of semaphores that were closed: nothing closes these.
        let first = own.acquire_owned().await.ok();
        let at_work = self.first_ones.clone().acquire_owned().await.ok();
        Turn {
            _at_work: at_work,
            _first: first,
            _presence: presence,
        }
    }

    fn enter(&self, key: K) -> (Presence<K>, Arc<Semaphore>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let source = sources.entry(key.clone()).or_insert_with(|| Source {
            own: Arc::new(Semaphore::new(self.seats)),
            present: 0,
        });
        source.present += 1;
        let own = source.own.clone();
        let sources = self.sources.clone();
        (Presence { sources, key }, own)
    }
}

impl<K: Ord> Presence<K> {
    /// How many of the source are there.
    fn count(&self) -> usize {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.get(&self.key).map_or(0, |source| source.present)
    }
}

impl<K: Ord> Drop for Presence<K> {
    fn drop(&mut self) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get_mut(&self.key) {
            source.present -= 1;
            if source.present == 0 {
                sources.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn present<K>(turns: &Turns<K>) -> usize {
        turns.sources.lock().expect("no panic").len()
    }

    #[tokio::test]
    async fn a_thousand_waiters_of_one_source_let_another_ones_first_waiter_be_second() {
        let turns = Turns::default();
        let working = turns.next("many").await;
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        let wait = |source: &'static str| {
            let (turns, sender) = (turns.clone(), sender.clone());
            tokio::spawn(async move {
                let _turn = turns.next(source).await;
                let _ = sender.send(source);
                tokio::task::yield_now().await;
            });
        };
        for _ in 0..1000 {
            wait("many");
        }
        tokio::task::yield_now().await;
        wait("few");
        tokio::task::yield_now().await;
        drop(working);
        let first = [order.recv().await, order.recv().await];
        assert!(first.contains(&Some("few")), "{first:?}");
        for _ in 2..1001 {
            assert_eq!(order.recv().await, Some("many"));
        }
        while present(&turns) > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn sources_take_turns() {
        let turns = Turns::default();
        let working = turns.next('z').await;
        let mut waiting: Vec<_> = "aabbcc"
            .chars()
            .map(|source| (source, Box::pin(turns.next(source))))
            .collect();
        drop(working);
        let mut order = String::new();
        while !waiting.is_empty() {
            let polled = waiting.iter_mut().map(|(_, it)| it.now_or_never());
            let ready: Vec<_> = polled.collect();
            let at = ready.iter().position(Option::is_some).expect("one is next");
            order.push(waiting.remove(at).0);
            assert_eq!(ready.iter().flatten().count(), 1, "one at a time");
        }
        assert_eq!(order, "abcabc");
    }

    #[tokio::test]
    async fn a_source_alone_takes_every_seat_and_no_more_than_its_limit_wait() {
        let turns = Turns::with_seats(2);
        let (one, two) = (turns.next(1).await, turns.next(1).await);
        let mut third = Box::pin(turns.next_of(1, 3));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(
            turns
                .next_of(1, 3)
                .now_or_never()
                .is_some_and(|turn| turn.is_none())
        );
        let mut other = Box::pin(turns.next_of(2, 3));
        assert!(other.as_mut().now_or_never().is_none());
        drop((one, two));
        let third = third.await.expect("a turn");
        let other = other.await.expect("a turn");
        assert_eq!(present(&turns), 2);
        drop((third, other));
        assert_eq!(present(&turns), 0);
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_nothing_and_holds_up_nobody() {
        let turns = Turns::default();
        let working = turns.next(1).await;
        for source in [1, 2, 2] {
            assert!(turns.next(source).now_or_never().is_none());
        }
        assert_eq!(present(&turns), 1);
        drop(working);
        assert_eq!(present(&turns), 0);
        assert!(turns.next(2).now_or_never().is_some());
    }
}
