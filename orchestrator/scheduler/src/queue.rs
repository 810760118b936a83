//! Pods that wait for a node: active, backing off, or unschedulable until something changes. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::demand::Demand;
use super::pod::PodKey;

/// Order of scheduling: higher priority first, then who waited longer.
#[derive(Default)]
pub struct Queue {
    active: BTreeSet<(Reverse<i32>, u64, PodKey)>,
    backing_off: BTreeSet<(Timestamp, PodKey)>,
    unschedulable: BTreeMap<PodKey, Refused>,
    /// The same, those together that one answer is for.
    alike: BTreeMap<Refused, BTreeSet<PodKey>>,
    pauses: Pauses,
    entries: BTreeMap<PodKey, Entry>,
    arrivals: u64,
}

/// How long pods that have no place wait at least, in milliseconds: doubled from the first to the longest.
#[derive(Clone, Copy)]
pub struct Pauses {
    pub first_ms: i64,
    pub longest_ms: i64,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            first_ms: 10,
            longest_ms: 10_000,
        }
    }
}

struct Entry {
    priority: i32,
    arrival: u64,
    attempts: u32,
    not_before: Timestamp,
}

/// The plugins that refused a pod, by their bits, and what it asks for.
type Refused = (u32, Arc<Demand>);

impl Queue {
    pub fn new(pauses: Pauses) -> Self {
        Self {
            pauses,
            ..Self::default()
        }
    }

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
        self.take_refused(key);
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
    /// `by` are the plugins that refused.
    pub fn refused(&mut self, key: &PodKey, by: u32, demand: Arc<Demand>, now: Timestamp) {
        if self.pause(key, now).is_some() {
            self.take_refused(key);
            let refused = (by, demand);
            let alike = self.alike.entry(refused.clone()).or_default();
            alike.insert(key.clone());
            self.unschedulable.insert(key.clone(), refused);
        }
    }

    /// The decision could not be carried out; it is tried again after its back-off.
    pub fn failed(&mut self, key: &PodKey, now: Timestamp) {
        if let Some(until) = self.pause(key, now) {
            self.take_refused(key);
            self.backing_off.insert((until, key.clone()));
        }
    }

    /// Until when the pod waits after one more attempt.
    fn pause(&mut self, key: &PodKey, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get_mut(key)?;
        let pause = self.pauses.first_ms << entry.attempts.min(16);
        entry.attempts += 1;
        let pause = pause.min(self.pauses.longest_ms);
        entry.not_before = now + SignedDuration::from_millis(pause);
        Some(entry.not_before)
    }

    fn take_refused(&mut self, key: &PodKey) -> Option<Refused> {
        let refused = self.unschedulable.remove(key)?;
        if let Some(alike) = self.alike.get_mut(&refused) {
            alike.remove(key);
            if alike.is_empty() {
                self.alike.remove(&refused);
            }
        }
        Some(refused)
    }

    /// The pods that wait for a change that any of the plugins in `of` could answer otherwise.
    pub fn refused_by(&self, of: u32) -> Vec<PodKey> {
        let waiting = self.alike.iter().filter(|((by, _), _)| by & of != 0);
        waiting.flat_map(|(_, alike)| alike).cloned().collect()
    }

    /// One pod of each kind of those.
    pub fn kinds_refused_by(&self, of: u32) -> Vec<PodKey> {
        let waiting = self.alike.iter().filter(|((by, _), _)| by & of != 0);
        waiting
            .filter_map(|(_, alike)| alike.first().cloned())
            .collect()
    }

    pub fn is_refused_by(&self, key: &PodKey, of: u32) -> bool {
        let refused = self.unschedulable.get(key);
        refused.is_some_and(|(by, _)| by & of != 0)
    }

    /// Something changed that may give this pod and those that ask for the same a place.
    pub fn wake_alike(&mut self, key: &PodKey, now: Timestamp) {
        let refused = self.unschedulable.get(key);
        let alike = refused.and_then(|refused| self.alike.get(refused));
        for key in alike.cloned().unwrap_or_default() {
            self.wake(&key, now);
        }
    }

    /// Something changed that may give the pod a place; it waits for the end of its pause at least.
    pub fn wake(&mut self, key: &PodKey, now: Timestamp) {
        if self.take_refused(key).is_none() {
            return;
        }
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        if entry.not_before > now {
            self.backing_off.insert((entry.not_before, key.clone()));
        } else {
            self.activate(key.clone());
        }
    }

    /// The pod was popped, and is to be decided about anew at once.
    pub fn again(&mut self, key: &PodKey) {
        self.activate(key.clone());
    }

    /// Whether pods wait for a change.
    pub fn has_refused(&self) -> bool {
        !self.unschedulable.is_empty()
    }

    /// How many pods are in each queue, by Kubernetes' names of them.
    pub fn lengths(&self) -> [(&'static str, usize); 3] {
        [
            ("active", self.active.len()),
            ("backoff", self.backing_off.len()),
            ("unschedulable", self.unschedulable.len()),
        ]
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
        queue.refused(&key("a"), 1, Arc::default(), at(0));
        assert_eq!(queue.pop(at(1_000_000)), None);
        assert_eq!(queue.refused_by(2), []);
        assert_eq!(queue.refused_by(3), [key("a")]);
        queue.wake(&key("a"), at(5));
        assert_eq!(queue.pop(at(5)), None);
        assert_eq!(queue.next_deadline(), Some(at(10)));
        assert_eq!(queue.pop(at(10)), Some(key("a")));
    }

    #[test]
    fn pods_that_ask_for_the_same_are_asked_about_once_and_woken_together() {
        let mut queue = Queue::default();
        let other = Demand {
            namespace: "other".to_owned(),
            ..Demand::default()
        };
        for (name, by, demand) in [
            ("a", 1, Demand::default()),
            ("b", 1, Demand::default()),
            ("c", 1, other),
            ("d", 2, Demand::default()),
        ] {
            queue.add(key(name), 0);
            queue.pop(at(0));
            queue.refused(&key(name), by, Arc::new(demand), at(0));
        }
        assert_eq!(queue.kinds_refused_by(1), [key("a"), key("c")]);
        assert!(queue.is_refused_by(&key("d"), 2) && !queue.is_refused_by(&key("d"), 1));
        queue.wake_alike(&key("a"), at(20));
        let woken: Vec<_> = std::iter::from_fn(|| queue.pop(at(20))).collect();
        assert_eq!(woken, [key("a"), key("b")]);
        assert_eq!(queue.refused_by(3), [key("c"), key("d")]);
    }

    #[test]
    fn a_removed_pod_is_in_no_queue() {
        let mut queue = Queue::default();
        for name in ["a", "b", "c"] {
            queue.add(key(name), 0);
        }
        let popped = queue.pop(at(0)).unwrap();
        queue.refused(&popped, 1, Arc::default(), at(0));
        let popped = queue.pop(at(0)).unwrap();
        queue.failed(&popped, at(0));
        for name in ["a", "b", "c"] {
            queue.remove(&key(name));
        }
        assert_eq!(queue.refused_by(u32::MAX), []);
        assert_eq!(queue.pop(at(1_000_000)), None);
    }
}
