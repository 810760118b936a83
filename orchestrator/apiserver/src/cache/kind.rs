//! The objects of one resource, and their recent changes.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::history::{Block, Forgotten, History, Past};
use super::index::{Bucket, Buckets, Indexes};
use super::object::Cached;
use super::ordered::Ordered;
use super::packed::Packer;
use super::references::References;
use super::snapshots::Snapshots;
use super::{Change, Figures, WatchEvent};
use api::Behaviour;
use api::Resource;
use store::{Event, Revision};

/// One resource. Written by the task that follows the store, and by the one that takes it on.
pub(super) struct Kind {
    state: RwLock<State>,
    /// The number of the next event; wakes watches.
    head: watch::Sender<u64>,
}

/// Which watches have something to look at.
#[derive(Default)]
pub(super) struct Wake {
    /// The number of the next event; 0: there was none.
    next: u64,
    buckets: Vec<watch::Sender<u64>>,
}

pub(super) struct State {
    pub resource: Arc<Resource>,
    pub objects: Ordered,
    /// The revision of the last change here.
    pub applied: Revision,
    pub history: History,
    pub snapshots: Snapshots,
    pub indexes: Indexes,
    pub buckets: Buckets,
    packer: Packer,
    /// Of pods; empty for all other resources.
    pub references: References,
    /// Commits that came while the objects were still being loaded; none once they are.
    waiting: Option<Vec<(Revision, Vec<Event>)>>,
}

impl Kind {
    pub fn new(resource: &Arc<Resource>) -> Self {
        let state = State {
            resource: resource.clone(),
            objects: Ordered::default(),
            applied: 0,
            history: History::new(0),
            snapshots: Snapshots::default(),
            indexes: Indexes::of(resource),
            buckets: Buckets::default(),
            packer: Packer::default(),
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
        let mut object = Arc::new(Cached::of(&state.resource, key.into(), stored, revision));
        state.refer(None, Some(&object));
        let State {
            packer, objects, ..
        } = &mut *state;
        let dictionary = packer.dictionary(objects);
        if let Some(packed) = dictionary.and_then(|dictionary| object.packed(&dictionary)) {
            packer.change(Some(&object), Some(&packed));
            object = Arc::new(packed);
        }
        objects.insert(object);
    }

    /// Loading is over: what was loaded is of `revision`, what has come meanwhile is newer or in it.
    pub fn loaded(&self, revision: Revision) {
        let mut wake = Wake::default();
        {
            let mut state = self.state_to_change();
            state.applied = revision;
            state.history = History::new(revision);
            let waiting = state.waiting.take().unwrap_or_default();
            for (revision, events) in waiting.into_iter().filter(|(at, _)| *at > revision) {
                state.apply(revision, events.iter(), &mut wake.buckets);
            }
            wake.next = state.history.next();
        }
        self.wake(wake);
    }

    /// Applies the changes of one commit to this resource, in one step for every reader. Who is to be woken is
    /// added to `wake`.
    pub fn apply<'a>(
        &self,
        revision: Revision,
        events: impl Iterator<Item = &'a Event>,
        wake: &mut Wake,
    ) {
        let mut state = self.state_to_change();
        if let Some(waiting) = &mut state.waiting {
            waiting.push((revision, events.cloned().collect()));
            return;
        }
        state.apply(revision, events, &mut wake.buckets);
        wake.next = state.history.next();
    }

    /// Wakes the watches of the kind, and of the buckets that have changed.
    pub fn wake(&self, wake: Wake) {
        self.head.send_replace(wake.next);
        for head in wake.buckets {
            head.send_replace(wake.next);
        }
    }

    /// Packs what the history has too much of; answers whether there was any. Only the task that
    /// follows the store does that, so what is packed meanwhile is still there after.
    pub fn pack(&self) -> bool {
        let mut packed = false;
        loop {
            let surplus = self.state().history.surplus();
            let Some(events) = surplus else {
                return packed;
            };
            let block = Block::of(&events);
            self.state_to_change().history.pack(block);
            self.pack_objects(&events);
            packed = true;
        }
    }

    /// Compresses the objects of a large kind that have not changed again since.
    fn pack_objects(&self, events: &[WatchEvent]) {
        let dictionary = {
            let mut state = self.state_to_change();
            let State {
                packer, objects, ..
            } = &mut *state;
            packer.dictionary(objects)
        };
        let Some(dictionary) = dictionary else {
            return;
        };
        for WatchEvent { object, .. } in events {
            let is_there = |state: &State| {
                let now = state.objects.get(&object.key);
                now.is_some_and(|now| Arc::ptr_eq(now, object))
            };
            if !is_there(&self.state()) {
                continue;
            }
            if let Some(packed) = object.packed(&dictionary) {
                let mut state = self.state_to_change();
                // Its resource may have been renewed meanwhile.
                if is_there(&state) {
                    state.packer.change(Some(object), Some(&packed));
                    state.objects.insert(Arc::new(packed));
                }
            }
        }
    }

    /// Puts what happened between two revisions in front of the history.
    pub fn recall(&self, span: (Revision, Revision), past: Past) {
        self.state_to_change().history.prepend(span, past);
    }

    /// What watches and pages of the past take, in bytes.
    pub fn past_bytes(&self) -> usize {
        let state = self.state();
        let snapshots = usize::try_from(state.snapshots.bytes()).unwrap_or(usize::MAX);
        state.history.packed_bytes().saturating_add(snapshots)
    }

    /// In numbers.
    pub fn figures(&self) -> Figures {
        let past_bytes = self.past_bytes() as u64;
        let state = self.state();
        Figures {
            group: state.resource.group.clone(),
            plural: state.resource.plural.clone(),
            objects: state.objects.len() as u64,
            revision: state.applied,
            past_bytes,
        }
    }

    /// Forgets the older part of it.
    pub fn forget_some(&self) {
        let mut state = self.state_to_change();
        state.snapshots.forget();
        state.history.forget();
    }

    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What wakes a watch of these buckets; without any it is every change.
    pub fn subscribe(&self, buckets: &[Bucket]) -> Vec<watch::Receiver<u64>> {
        if buckets.is_empty() {
            return vec![self.head.subscribe()];
        }
        let mut state = self.state_to_change();
        let State {
            history,
            buckets: followed,
            ..
        } = &mut *state;
        let heads = buckets.iter().map(|bucket| followed.enter(bucket, history));
        heads.collect()
    }

    /// Watches that every change wakes.
    pub fn watches(&self) -> usize {
        self.head.receiver_count()
    }

    /// A watch of buckets ends.
    pub fn unsubscribe(&self, buckets: &[Bucket]) {
        let mut state = self.state_to_change();
        buckets.iter().for_each(|it| state.buckets.leave(it));
    }

    /// Keeps the state of a revision for whoever reads it page by page.
    pub fn keep(&self, revision: Revision, objects: &Ordered) {
        self.state_to_change().snapshots.keep(revision, objects);
    }

    fn state_to_change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The number of the first event from `number` on that concerns one of these buckets, if it has come; without any
    /// bucket each event does. An error if one of them may have been packed.
    pub fn next(&self, buckets: &[Bucket], number: u64) -> Result<Option<u64>, Forgotten> {
        if buckets.is_empty() {
            return Ok(self.history.get(number)?.map(|_| number));
        }
        let next = |bucket| self.buckets.next(bucket, number, &self.history);
        buckets
            .iter()
            .map(next)
            .try_fold(None, |first, next| Ok(first.into_iter().chain(next?).min()))
    }

    fn apply<'a>(
        &mut self,
        revision: Revision,
        events: impl Iterator<Item = &'a Event>,
        woken: &mut Vec<watch::Sender<u64>>,
    ) {
        // A kind is taken on at a revision that the follower of the store has yet to reach.
        if revision <= self.applied {
            return;
        }
        self.applied = revision;
        for event in events {
            if let Some(change) = self.change(revision, event) {
                self.buckets.note(&change, &self.history, woken);
                self.history.push(change);
            }
        }
    }

    fn change(&mut self, revision: Revision, event: &Event) -> Option<WatchEvent> {
        let previous = self.objects.get(&event.key).cloned();
        if let Some(previous) = &previous {
            self.snapshots.retire(previous.size());
        }
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
                self.objects.insert(object.clone());
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
    /// Keeps the indexes, and what pods refer to, as objects change.
    fn refer(&mut self, before: Option<&Cached>, now: Option<&Cached>) {
        self.indexes.change(before, now);
        self.packer.change(before, now);
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
