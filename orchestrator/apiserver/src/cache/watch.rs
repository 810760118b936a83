//! One watch: a place in the past that moves on.
//!
//! It reads the recent changes of its resource; while these do not reach back to its place, it
//! reads the store's log a little at a time. It holds no queue, so a slow client costs nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::kind::{Forgotten, Kind};
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
    /// Everything up to here was delivered.
    delivered: Revision,
    place: Place,
    head: watch::Receiver<u64>,
}

/// Where the next event comes from.
enum Place {
    /// The recent event of this number.
    Recent(u64),
    /// The store's log: `ready` are its events up to `read`.
    Log {
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
        from: Revision,
    ) -> Result<Self, Gone> {
        let head = kind.subscribe();
        let place = Place::Recent(0);
        let mut watch = Self {
            cache,
            kind,
            prefix,
            delivered: from,
            place,
            head,
        };
        watch.find_place();
        if let Place::Log { .. } = watch.place {
            // A revision that is gone is said before the watch begins.
            watch.read_log().await;
        }
        match watch.place {
            Place::Over(gone) => Err(gone),
            _ => Ok(watch),
        }
    }

    /// The next change. Cancel-safe. After `Gone` the watch is over.
    pub async fn next(&mut self) -> Result<WatchEvent, Gone> {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            if let Place::Log { .. } = self.place {
                self.read_log().await;
            } else if self.head.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The next change if it is there already: to fill one write with several events.
    pub fn try_next(&mut self) -> Option<Result<WatchEvent, Gone>> {
        loop {
            match &mut self.place {
                Place::Over(gone) => return Some(Err(*gone)),
                Place::Log { read, ready } => {
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
                    self.head.mark_unchanged();
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
            && number >= self.kind.state().recent.next()
        {
            self.delivered = self.delivered.max(revision);
        }
        self.delivered
    }

    fn recent(&mut self, number: u64) -> Result<Step, Forgotten> {
        let (step, delivered) = {
            let state = self.kind.state();
            let Some(event) = state.recent.get(number)? else {
                return Ok(Step::Wait);
            };
            let revision = event.object.revision;
            let next = state.recent.get(number + 1).ok().flatten();
            let whole = next.is_none_or(|next| next.object.revision != revision);
            let is_ours = event.object.key.starts_with(&*self.prefix) && revision > self.delivered;
            let step = if is_ours {
                Step::Event(event.clone())
            } else {
                Step::Foreign
            };
            (step, revision - u64::from(!whole))
        };
        self.delivered = self.delivered.max(delivered);
        self.place = Place::Recent(number + 1);
        Ok(step)
    }

    /// Goes to the recent changes if they reach back far enough, else to the log.
    fn find_place(&mut self) {
        // Before this process began, volatile objects were others.
        let volatile = self.kind.state().resource.lifetime == Lifetime::Volatile;
        if volatile && self.delivered < self.cache.loaded {
            self.end(self.cache.loaded);
        } else if !self.find_recent() {
            self.place = Place::Log {
                read: self.delivered,
                ready: VecDeque::new(),
            };
        }
    }

    fn find_recent(&mut self) -> bool {
        let number = self.kind.state().recent.number_behind(self.delivered);
        if let Some(number) = number {
            self.place = Place::Recent(number);
        }
        number.is_some()
    }

    async fn read_log(&mut self) {
        let found = self
            .cache
            .store
            .history(&self.prefix, self.delivered, CHUNK)
            .await;
        match found {
            Ok((commits, read)) => {
                let resource = self.kind.state().resource.clone();
                let ready = commits.iter();
                let ready = ready.flat_map(|commit| events(&resource, commit)).collect();
                self.place = Place::Log { read, ready };
            }
            Err(StoreError::Compacted { oldest }) => self.end(oldest),
            Err(error) => {
                // The store is closed or broken: the server is about to stop.
                tracing::debug!(%error, "a watch cannot go on");
                std::future::pending::<()>().await;
            }
        }
    }

    fn end(&mut self, oldest: Revision) {
        self.place = Place::Over(Gone {
            asked: self.delivered,
            oldest,
        });
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

/// The changes of a commit from the store's log, as the cache would have told them.
fn events(resource: &Arc<Resource>, commit: &Commit) -> Vec<WatchEvent> {
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
    commit.events.iter().filter_map(event).collect()
}
