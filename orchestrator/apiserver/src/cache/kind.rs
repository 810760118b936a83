//! The objects of one resource, and their recent changes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Included, Unbounded};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::object::Cached;
use super::references::References;
use super::{Change, WatchEvent};
use api::Behaviour;
use api::Resource;
use store::{Event, Revision};

/// Recent changes that are kept for watches of a resource, at most.
const RECENT_EVENTS: usize = 1024;
const RECENT_BYTES: usize = 2 << 20;

/// One resource. Written by the task that follows the store, and by the one that takes it on.
pub(super) struct Kind {
    state: RwLock<State>,
    /// The number of the next event; wakes watches.
    head: watch::Sender<u64>,
}

pub(super) struct State {
    pub resource: Arc<Resource>,
    /// In key order: namespace, then name.
    pub objects: BTreeMap<Arc<str>, Arc<Cached>>,
    /// The revision of the last change here.
    pub applied: Revision,
    pub recent: Recent,
    /// Of pods; empty for all other resources.
    pub references: References,
    /// Commits that came while the objects were still being loaded; none once they are.
    waiting: Option<Vec<(Revision, Vec<Event>)>>,
}

/// Changes that happened not long ago, numbered; bounded by number and by bytes.
pub(super) struct Recent {
    events: VecDeque<WatchEvent>,
    bytes: usize,
    /// The number of the first event that is here.
    first: u64,
    /// Every change newer than this revision is here.
    start: Revision,
}

impl Kind {
    pub fn new(resource: &Arc<Resource>) -> Self {
        let recent = Recent {
            events: VecDeque::new(),
            bytes: 0,
            first: 0,
            start: 0,
        };
        let state = State {
            resource: resource.clone(),
            objects: BTreeMap::new(),
            applied: 0,
            recent,
            references: References::default(),
            waiting: Some(Vec::new()),
        };
        Self {
            state: RwLock::new(state),
            head: watch::Sender::new(0),
        }
    }

    /// Shows an object while the store is loaded.
    pub fn load(&self, key: &str, stored: &[u8], revision: Revision) {
        let mut state = self.state_to_change();
        let object = Arc::new(Cached::of(&state.resource, key.into(), stored, revision));
        state.refer(None, Some(&object));
        state.objects.insert(object.key.clone(), object);
    }

    /// Loading is over: what was loaded is of `revision`, what has come meanwhile is newer or in it.
    pub fn loaded(&self, revision: Revision) {
        let next = {
            let mut state = self.state_to_change();
            state.applied = revision;
            state.recent.start = revision;
            let waiting = state.waiting.take().unwrap_or_default();
            for (revision, events) in waiting.into_iter().filter(|(at, _)| *at > revision) {
                state.apply(revision, events.iter());
            }
            state.recent.next()
        };
        self.head.send_replace(next);
    }

    /// Applies the changes of one commit to this resource, in one step for every reader.
    pub fn apply<'a>(&self, revision: Revision, events: impl Iterator<Item = &'a Event>) {
        let next = {
            let mut state = self.state_to_change();
            if let Some(waiting) = &mut state.waiting {
                waiting.push((revision, events.cloned().collect()));
                return;
            }
            state.apply(revision, events);
            state.recent.next()
        };
        self.head.send_replace(next);
    }

    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    fn state_to_change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The objects whose keys begin with `prefix`.
    pub fn range(&self, prefix: &str) -> impl Iterator<Item = &Arc<Cached>> {
        self.objects
            .range::<str, _>((Included(prefix), Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, object)| object)
    }

    fn apply<'a>(&mut self, revision: Revision, events: impl Iterator<Item = &'a Event>) {
        // A kind is taken on at a revision that the follower of the store has yet to reach.
        if revision <= self.applied {
            return;
        }
        self.applied = revision;
        for event in events {
            if let Some(change) = self.change(revision, event) {
                self.recent.push(change);
            }
        }
    }

    fn change(&mut self, revision: Revision, event: &Event) -> Option<WatchEvent> {
        let previous = self.objects.get(&event.key).cloned();
        match &event.value {
            Some(stored) => {
                let mut object = Cached::of(&self.resource, event.key.clone(), stored, revision);
                let change = match &previous {
                    Some(previous) => {
                        object.key = previous.key.clone();
                        Change::Modified
                    }
                    None => Change::Added,
                };
                let object = Arc::new(object);
                self.refer(previous.as_deref(), Some(&object));
                self.objects.insert(object.key.clone(), object.clone());
                Some(WatchEvent {
                    change,
                    object,
                    previous,
                })
            }
            None => {
                let previous = previous?;
                self.refer(Some(&previous), None);
                self.objects.remove(&event.key);
                let object = Arc::new(previous.moved_to(revision));
                Some(WatchEvent {
                    change: Change::Deleted,
                    object,
                    previous: Some(previous),
                })
            }
        }
    }
}

impl State {
    /// Keeps what pods refer to as pods change.
    fn refer(&mut self, before: Option<&Cached>, now: Option<&Cached>) {
        if self.resource.behaviour != Behaviour::Pod {
            return;
        }
        if let Some(before) = before {
            self.references.remove(before);
        }
        if let Some(now) = now {
            self.references.add(now);
        }
    }
}

impl Recent {
    /// The number of the event that comes next.
    pub fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// The number of the first event behind `revision`; `None` if some of them have gone.
    pub fn number_behind(&self, revision: Revision) -> Option<u64> {
        let behind = self
            .events
            .partition_point(|event| event.object.revision <= revision);
        (revision >= self.start).then_some(self.first + behind as u64)
    }

    /// `Err` if the event of this number has gone, `Ok(None)` if it is still to come.
    pub fn get(&self, number: u64) -> Result<Option<&WatchEvent>, Forgotten> {
        let index = number.checked_sub(self.first).ok_or(Forgotten)?;
        Ok(usize::try_from(index)
            .ok()
            .and_then(|index| self.events.get(index)))
    }

    fn push(&mut self, event: WatchEvent) {
        self.bytes += size(&event);
        self.events.push_back(event);
        while self.events.len() > RECENT_EVENTS || self.bytes > RECENT_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= size(&oldest);
            self.first += 1;
            self.start = oldest.object.revision;
        }
    }
}

/// An event that is no longer among the recent ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forgotten;

/// What an event keeps alive that would otherwise be gone: the state before.
fn size(event: &WatchEvent) -> usize {
    let own = if event.change == Change::Deleted {
        event.object.bytes.len()
    } else {
        0
    };
    own + event
        .previous
        .as_ref()
        .map_or(0, |object| object.bytes.len())
}
