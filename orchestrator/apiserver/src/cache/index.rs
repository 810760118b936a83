//! Which objects have a value in a field, and whom a change concerns.
//!
//! A resource declares fields as its indexes (`Resource::indexes`). By these, and by single objects,
//! watches are woken: a pod's change reaches the agent of its node and not all agents.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use tokio::sync::watch;

use super::history::{Forgotten, History};
use super::{Cached, Change, WatchEvent};
use api::Resource;

/// Which part of a kind's changes a watch is interested in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// One object, by its key.
    Object(Arc<str>),
    /// The objects that have this value in the field of that index.
    Field(usize, Arc<str>),
    /// All nodes, as other nodes see them: what a node says of itself is most often no change to its peers.
    Peers,
}

impl Bucket {
    /// Whether the event is about an object of the bucket, as it was or as it is.
    pub(super) fn concerns(&self, event: &WatchEvent) -> bool {
        let has = |object: &Cached| match self {
            Self::Object(key) => object.key == *key,
            Self::Field(index, value) => object.indexed().get(*index) == Some(value),
            Self::Peers => is_seen_by_peers(event),
        };
        has(&event.object) || event.previous.as_deref().is_some_and(has)
    }

    /// Those that an event concerns, each once.
    pub(super) fn concerned(event: &WatchEvent) -> impl Iterator<Item = Self> {
        let field = |(index, value): (usize, &Arc<str>)| Self::Field(index, value.clone());
        let now = event.object.indexed();
        let before = event.previous.iter().flat_map(|it| it.indexed());
        let left = before.enumerate();
        let left = left.filter(move |(at, it)| now.get(*at) != Some(it));
        std::iter::once(Self::Object(event.object.key.clone()))
            .chain(now.iter().enumerate().map(field))
            .chain(left.map(field))
            .chain(is_seen_by_peers(event).then_some(Self::Peers))
    }

    /// A number that another bucket hardly ever has.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// Whether it is a node's event that other nodes see.
fn is_seen_by_peers(event: &WatchEvent) -> bool {
    let before = event.previous.as_ref();
    let before = before.filter(|_| event.change == Change::Modified);
    event.object.is_trimmed() && before.is_none_or(|before| !before.is_trimmed_to(&event.object))
}

/// The keys of objects by the values of their indexed fields. Written with the objects.
#[derive(Default)]
pub(super) struct Indexes(Vec<HashMap<Arc<str>, BTreeSet<Arc<str>>>>);

impl Indexes {
    pub fn of(resource: &Resource) -> Self {
        Self(resource.indexes.iter().map(|_| HashMap::new()).collect())
    }

    /// Takes in a change of an object.
    pub fn change(&mut self, before: Option<&Cached>, now: Option<&Cached>) {
        for (index, keys) in self.0.iter_mut().enumerate() {
            let value = |object: Option<&Cached>| Some(object?.indexed().get(index)?.clone());
            let (old, new) = (value(before), value(now));
            if old == new {
                continue;
            }
            if let (Some(old), Some(before)) = (old, before)
                && let Some(set) = keys.get_mut(&old)
            {
                set.remove(&before.key);
                if set.is_empty() {
                    keys.remove(&old);
                }
            }
            if let (Some(new), Some(now)) = (new, now) {
                keys.entry(new).or_default().insert(now.key.clone());
            }
        }
    }

    /// The keys of the objects with that value, in order.
    pub fn keys(&self, index: usize, value: &str) -> impl Iterator<Item = &Arc<str>> {
        let keys = self.0.get(index).and_then(|values| values.get(value));
        keys.into_iter().flatten()
    }
}

/// The watches of single buckets. A bucket is here while one of its watches lives.
#[derive(Default)]
pub(super) struct Buckets(HashMap<Bucket, Followed>);

/// A bucket that is watched.
struct Followed {
    watches: usize,
    /// The numbers of its events that are among the newest of the history; older ones may still stand
    /// here.
    numbers: VecDeque<u64>,
    /// No event that has left `numbers` has this number or a higher one.
    forgotten: u64,
    /// Wakes its watches.
    head: watch::Sender<u64>,
}

impl Buckets {
    /// Follows a bucket. `history` is where its newest events are found.
    pub fn enter(&mut self, bucket: &Bucket, history: &History) -> watch::Receiver<u64> {
        let followed = self.0.entry(bucket.clone()).or_insert_with(|| {
            let events = history.newest().filter(|(_, event)| bucket.concerns(event));
            Followed {
                watches: 0,
                numbers: events.map(|(number, _)| number).collect(),
                forgotten: history.first(),
                head: watch::Sender::new(history.next()),
            }
        });
        followed.watches += 1;
        followed.head.subscribe()
    }

    /// A watch that followed the bucket ends.
    pub fn leave(&mut self, bucket: &Bucket) {
        if let Some(followed) = self.0.get_mut(bucket) {
            followed.watches -= 1;
            if followed.watches == 0 {
                self.0.remove(bucket);
            }
        }
    }

    /// How many watches follow it.
    pub fn watches(&self, bucket: &Bucket) -> usize {
        self.0.get(bucket).map_or(0, |followed| followed.watches)
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes an event before it is pushed; who is to be woken goes to `woken`.
    pub fn note(
        &mut self,
        event: &WatchEvent,
        history: &History,
        woken: &mut Vec<watch::Sender<u64>>,
    ) {
        if self.0.is_empty() {
            return;
        }
        let (first, number) = (history.first(), history.next());
        for bucket in Bucket::concerned(event) {
            if let Some(followed) = self.0.get_mut(&bucket) {
                while let Some(old) = followed.numbers.pop_front_if(|old| *old < first) {
                    followed.forgotten = old + 1;
                }
                followed.numbers.push_back(number);
                woken.push(followed.head.clone());
            }
        }
    }

    /// The number of the bucket's first event from `number` on, if it has come; an error if one of them
    /// may have been packed.
    pub fn next(
        &self,
        bucket: &Bucket,
        number: u64,
        history: &History,
    ) -> Result<Option<u64>, Forgotten> {
        let followed = self.0.get(bucket).ok_or(Forgotten)?;
        let at = followed.numbers.partition_point(|it| *it < number);
        let next = followed.numbers.get(at).copied();
        let is_packed = |next: u64| next < history.first();
        if number < followed.forgotten || next.is_some_and(is_packed) {
            return Err(Forgotten);
        }
        Ok(next)
    }
}
