//! One watch: a place in the past that moves on.
//!
//! It reads the newest changes of its resource; while these do not reach back to its place, it unpacks
//! the history block by block, and before that the store's log a little at a time. It holds no queue,
//! so a slow client costs nothing. One of a single bucket sleeps through the changes of others.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::history::Forgotten;
use super::index::Bucket;
use super::kind::Kind;
use super::object::Cached;
use super::{Change, Gone, Inner, WatchEvent};
use api::{Lifetime, Resource};
use store::{Commit, Event, Revision, StoreError};

/// Created by `Cache::watch`. One that falls behind everything that is kept gets `Gone`.
pub struct Watch {
    cache: Arc<Inner>,
    kind: Arc<Kind>,
    /// What the keys of its objects begin with.
    prefix: Box<str>,
    /// The parts of the changes that it is interested in, where these have names; else all.
    buckets: Box<[Bucket]>,
    /// Everything up to here was delivered.
    delivered: Revision,
    place: Place,
    /// At least one.
    heads: Vec<watch::Receiver<u64>>,
}

/// Where the next event comes from.
enum Place {
    /// The recent event of this number.
    Recent(u64),
    /// The past, out of the history or the store's log: `ready` are its events up to `read`.
    Past {
        read: Revision,
        ready: VecDeque<WatchEvent>,
    },
    /// Nowhere: the log does not reach back.
    Over(Gone),
}

impl Watch {
    pub(super) async fn new(
        cache: Arc<Inner>,
        kind: Arc<Kind>,
        prefix: Box<str>,
        buckets: Box<[Bucket]>,
        from: Revision,
    ) -> Result<Self, Gone> {
        let heads = kind.subscribe(&buckets);
        let place = Place::Recent(0);
        let mut watch = Self {
            cache,
            kind,
            prefix,
            buckets,
            delivered: from,
            place,
            heads,
        };
        watch.find_place();
        if let Place::Past { .. } = watch.place {
            // A revision that is gone is said before the watch begins.
            watch.read_past().await;
        }
        match &watch.place {
            Place::Over(gone) => Err(*gone),
            _ => Ok(watch),
        }
    }

    /// The next change. Cancel-safe. After `Gone` the watch is over.
    pub async fn next(&mut self) -> Result<WatchEvent, Gone> {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            if let Place::Past { .. } = self.place {
                self.read_past().await;
            } else {
                changed(&mut self.heads).await;
            }
        }
    }

    /// The next change if it is there already: to fill one write with several events.
    pub fn try_next(&mut self) -> Option<Result<WatchEvent, Gone>> {
        loop {
            match &mut self.place {
                Place::Over(gone) => return Some(Err(*gone)),
                Place::Past { read, ready } => {
                    let Some(event) = ready.pop_front() else {
                        self.delivered = *read;
                        if self.find_recent() {
                            continue;
                        }
                        return None;
                    };
                    let revision = event.object.revision;
                    let whole = ready
                        .front()
                        .is_none_or(|next| next.object.revision != revision);
                    self.delivered = revision - u64::from(!whole);
                    return Some(Ok(event));
                }
                Place::Recent(number) => {
                    let number = *number;
                    // Taken before the look: what it counts is then seen.
                    self.heads.iter_mut().for_each(|it| it.mark_unchanged());
                    match self.recent(number) {
                        Ok(Step::Event(event)) => return Some(Ok(event)),
                        Ok(Step::Foreign) => {}
                        Ok(Step::Wait) => return None,
                        Err(Forgotten) => self.find_place(),
                    }
                }
            }
        }
    }

    /// The revision up to which this watch has delivered everything: what a bookmark may say. Never
    /// less than it said before.
    pub fn progress(&mut self) -> Revision {
        // First the cache's revision, then the look: all that it counts has been pushed by then.
        let revision = *self.cache.revision.borrow();
        if let Place::Recent(number) = self.place
            && self.look(number) == Ok(None)
        {
            self.delivered = self.delivered.max(revision);
        }
        self.delivered
    }

    /// How many watches are woken by what wakes this one.
    pub fn companions(&self) -> usize {
        if self.buckets.is_empty() {
            return self.kind.watches();
        }
        let state = self.kind.state();
        let watches = self.buckets.iter().map(|it| state.buckets.watches(it));
        watches.max().unwrap_or_default()
    }

    /// Whether something has happened since the last look that this watch is to look at.
    #[cfg(test)]
    pub fn is_woken(&self) -> bool {
        let mut heads = self.heads.iter();
        heads.any(|head| head.has_changed().unwrap_or_default())
    }

    /// The number of the next event from `number` on that may concern this watch, if it has come.
    fn look(&self, number: u64) -> Result<Option<u64>, Forgotten> {
        self.kind.state().next(&self.buckets, number)
    }

    fn recent(&mut self, number: u64) -> Result<Step, Forgotten> {
        let (step, number, delivered) = {
            let state = self.kind.state();
            let Some(number) = state.next(&self.buckets, number)? else {
                // All that has happened so far concerned others.
                self.delivered = self.delivered.max(state.applied);
                self.place = Place::Recent(state.history.next());
                return Ok(Step::Wait);
            };
            let Some(event) = state.history.get(number)? else {
                return Ok(Step::Wait);
            };
            let revision = event.object.revision;
            let next = state.history.get(number + 1).ok().flatten();
            let whole = next.is_none_or(|next| next.object.revision != revision);
            let is_ours = event.object.key.starts_with(&*self.prefix) && revision > self.delivered;
            let step = if is_ours {
                Step::Event(event.clone())
            } else {
                Step::Foreign
            };
            (step, number, revision - u64::from(!whole))
        };
        self.delivered = self.delivered.max(delivered);
        self.place = Place::Recent(number + 1);
        Ok(step)
    }

    /// Goes to the newest changes if they reach back far enough, else to the past.
    fn find_place(&mut self) {
        // Before this process began, volatile objects were others.
        let volatile = self.kind.state().resource.lifetime == Lifetime::Volatile;
        if volatile && self.delivered < self.cache.loaded {
            self.end(self.cache.loaded);
        } else if !self.find_recent() {
            self.place = Place::Past {
                read: self.delivered,
                ready: VecDeque::new(),
            };
        }
    }

    fn find_recent(&mut self) -> bool {
        let number = self.kind.state().history.number_behind(self.delivered);
        if let Some(number) = number {
            self.place = Place::Recent(number);
        }
        number.is_some()
    }

    /// Reads on, in memory while that reaches back, else in the store's log.
    async fn read_past(&mut self) {
        if self.read_block() {
            return;
        }
        let (is_older, cache) = (self.delivered < self.cache.loaded, self.cache.clone());
        // What cannot be recalled is asked of the store below, which says why.
        if is_older
            && cache.recall.reach(&cache, self.delivered).await.is_ok()
            && (self.find_recent() || self.read_block())
        {
            return;
        }
        // Few at a time: what one has read takes room, and others wait for their thread meanwhile.
        let _turn = cache.log_readers.acquire().await;
        let found = cache
            .store
            .history(&self.prefix, self.delivered, CHUNK)
            .await;
        match found {
            Ok((commits, read)) => {
                let resource = self.kind.state().resource.clone();
                let ready = commits.iter();
                let ready = ready.flat_map(|commit| events(&resource, commit, &self.prefix));
                let ready = ready.filter(|event| self.is_of_bucket(event)).collect();
                self.place = Place::Past { read, ready };
            }
            Err(StoreError::Compacted { oldest }) => self.end(oldest),
            // The client lists again, as after compaction.
            Err(StoreError::Unavailable(_)) => self.end(self.delivered),
            Err(error) => {
                // The store is closed or broken: the server is about to stop.
                tracing::debug!(%error, "a watch cannot go on");
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reads the next block of the history; false if that does not reach back.
    fn read_block(&mut self) -> bool {
        let block = self.kind.state().history.block_behind(self.delivered);
        let Some(block) = block else {
            return false;
        };
        let may_be = self.buckets.iter().any(|it| block.may_concern(it));
        let events = match may_be || self.buckets.is_empty() {
            true => block.events(&self.kind.state().resource.clone()),
            false => Vec::new(),
        };
        let is_ours = |event: &WatchEvent| {
            event.object.revision > self.delivered
                && event.object.key.starts_with(&*self.prefix)
                && self.is_of_bucket(event)
        };
        self.place = Place::Past {
            ready: events.into_iter().filter(is_ours).collect(),
            read: block.last(),
        };
        true
    }

    fn is_of_bucket(&self, event: &WatchEvent) -> bool {
        self.buckets.is_empty() || self.buckets.iter().any(|it| it.concerns(event))
    }

    fn end(&mut self, oldest: Revision) {
        self.place = Place::Over(Gone {
            asked: self.delivered,
            oldest,
        });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.buckets.is_empty() {
            self.kind.unsubscribe(&self.buckets);
        }
    }
}

/// Waits for the first of them to change; of a kind that is let go of none does any more.
async fn changed(heads: &mut [watch::Receiver<u64>]) {
    let all = heads.iter_mut().map(|head| Box::pin(head.changed()));
    let (first, ..) = futures::future::select_all(all).await;
    if first.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Commits that one read of the log takes: what a slow client holds. An object may have 3 MiB.
const CHUNK: usize = 32;

/// What a look at the recent changes found.
enum Step {
    Event(WatchEvent),
    /// One that this watch is not interested in.
    Foreign,
    Wait,
}

/// The changes of a commit from the store's log with a prefix, as the cache would have told them.
pub(super) fn events(resource: &Arc<Resource>, commit: &Commit, prefix: &str) -> Vec<WatchEvent> {
    let state = |event: &Event, stored: &[u8]| {
        let key = event.key.clone();
        Arc::new(Cached::of(resource, key, stored, commit.revision))
    };
    let event = |event: &Event| {
        let previous = event.prev.as_ref().map(|stored| state(event, stored));
        let object = event.value.as_ref().map(|stored| state(event, stored));
        match (object, &previous) {
            (Some(object), None) => Some(WatchEvent {
                change: Change::Added,
                object,
                previous,
            }),
            (Some(object), Some(_)) => Some(WatchEvent {
                change: Change::Modified,
                object,
                previous,
            }),
            (None, Some(gone)) => {
                let object = gone.clone();
                Some(WatchEvent {
                    change: Change::Deleted,
                    object,
                    previous,
                })
            }
            (None, None) => None,
        }
    };
    let events = commit.events.iter();
    let events = events.filter(|event| event.key.starts_with(prefix));
    events.filter_map(event).collect()
}
