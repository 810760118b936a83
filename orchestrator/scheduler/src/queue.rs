//! Pods that wait for a node: active, backing off, or unschedulable until something changes. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::pod::PodKey;

/// Order of scheduling: higher priority first, then who waited longer.
#[derive(Default)]
pub struct Queue {
    active: BTreeSet<(Reverse<i32>, u64, PodKey)>,
    backing_off: BTreeSet<(Timestamp, PodKey)>,
    unschedulable: BTreeSet<PodKey>,
    entries: BTreeMap<PodKey, Entry>,
    arrivals: u64,
}

struct Entry {
    priority: i32,
    arrival: u64,
    attempts: u32,
    not_before: Timestamp,
}

const FIRST_PAUSE_MS: i64 = 10;
const LONGEST_PAUSE_MS: i64 = 10_000;

impl Queue {
    /// A pod that waits; one that is known already stays where it is.
    pub fn add(&mut self, key: PodKey, priority: i32) {
        if self.entries.contains_key(&key) {
            return;
        }
        self.arrivals += 1;
        let entry = Entry {
            priority,
            arrival: self.arrivals,
            attempts: 0,
            not_before: Timestamp::MIN,
        };
        self.active
            .insert((Reverse(priority), entry.arrival, key.clone()));
        self.entries.insert(key, entry);
    }

    /// The pod waits no more.
    pub fn remove(&mut self, key: &PodKey) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        self.active
            .remove(&(Reverse(entry.priority), entry.arrival, key.clone()));
        self.backing_off.remove(&(entry.not_before, key.clone()));
        self.unschedulable.remove(key);
    }

    /// The next pod to place. It is in no queue until `refused` or `remove`.
    pub fn pop(&mut self, now: Timestamp) -> Option<PodKey> {
        while let Some((at, key)) = self.backing_off.first().cloned() {
            if at > now {
                break;
            }
            self.backing_off.remove(&(at, key.clone()));
            self.activate(key);
        }
        self.active.pop_first().map(|(_, _, key)| key)
    }

    /// There was no place; it waits for a change, and no shorter than its back-off.
    pub fn refused(&mut self, key: &PodKey, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            let pause = FIRST_PAUSE_MS << entry.attempts.min(16);
            entry.attempts += 1;
            entry.not_before = now + SignedDuration::from_millis(pause.min(LONGEST_PAUSE_MS));
            self.unschedulable.insert(key.clone());
        }
    }

    /// The decision could not be carried out; it is tried again after its back-off.
    pub fn failed(&mut self, key: &PodKey, now: Timestamp) {
        self.refused(key, now);
        if self.unschedulable.remove(key)
            && let Some(entry) = self.entries.get(key)
        {
            self.backing_off.insert((entry.not_before, key.clone()));
        }
    }

    /// Something changed that may give unschedulable pods a place.
    pub fn wake(&mut self, now: Timestamp) {
        for key in std::mem::take(&mut self.unschedulable) {
            let Some(entry) = self.entries.get(&key) else {
                continue;
            };
            if entry.not_before > now {
                self.backing_off.insert((entry.not_before, key));
            } else {
                self.activate(key);
            }
        }
    }

    /// The pod itself changed, perhaps so that it fits.
    pub fn wake_one(&mut self, key: &PodKey, now: Timestamp) {
        if self.unschedulable.remove(key)
            && let Some(entry) = self.entries.get(key)
        {
            self.backing_off
                .insert((entry.not_before.max(now), key.clone()));
        }
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.backing_off.first().map(|(at, _)| *at)
    }

    fn activate(&mut self, key: PodKey) {
        if let Some(entry) = self.entries.get(&key) {
            self.active
                .insert((Reverse(entry.priority), entry.arrival, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> PodKey {
        ("ns".to_owned(), name.to_owned())
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn higher_priority_goes_first_and_equals_in_order_of_arrival() {
        let mut queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 0), ("c", 9)] {
            queue.add(key(name), priority);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(at(0)))
            .map(|key| key.1)
            .collect();
        assert_eq!(order, ["c", "a", "b"]);
    }

    #[test]
    fn an_unschedulable_pod_waits_for_a_change_and_for_its_back_off() {
        let mut queue = Queue::default();
        queue.add(key("a"), 0);
        queue.pop(at(0));
        queue.refused(&key("a"), at(0));
        assert_eq!(queue.pop(at(1_000_000)), None);
        queue.wake(at(5));
        assert_eq!(queue.pop(at(5)), None);
        assert_eq!(queue.next_deadline(), Some(at(10)));
        assert_eq!(queue.pop(at(10)), Some(key("a")));
    }

    #[test]
    fn a_removed_pod_is_in_no_queue() {
        let mut queue = Queue::default();
        for name in ["a", "b", "c"] {
            queue.add(key(name), 0);
        }
        let popped = queue.pop(at(0)).unwrap();
        queue.refused(&popped, at(0));
        let popped = queue.pop(at(0)).unwrap();
        queue.failed(&popped, at(0));
        for name in ["a", "b", "c"] {
            queue.remove(&key(name));
        }
        queue.wake(at(0));
        assert_eq!(queue.pop(at(1_000_000)), None);
    }
}
