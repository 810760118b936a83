//! Answers that are kept for a while, so many and no more.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Answers in each half: what was asked for lately is in one of them.
const HALF: usize = 4096;

/// The answers to the questions of late. When one half is full, the other one is forgotten.
pub struct Memory<K, V>(Mutex<Halves<K, V>>);

struct Halves<K, V> {
    young: BTreeMap<K, V>,
    old: BTreeMap<K, V>,
}

impl<K: Ord + Clone, V: Clone> Memory<K, V> {
    pub fn get(&self, key: &K) -> Option<V> {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = halves.young.get(key) {
            return Some(value.clone());
        }
        let value = halves.old.remove(key)?;
        halves.put(key.clone(), value.clone());
        Some(value)
    }

    pub fn put(&self, key: K, value: V) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.put(key, value);
    }
}

impl<K: Ord, V> Halves<K, V> {
    fn put(&mut self, key: K, value: V) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Halves {
            young: BTreeMap::new(),
            old: BTreeMap::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_memory_is_bounded() {
        let memory = Memory::default();
        memory.put(0, 0);
        for number in 1..10 * HALF {
            memory.put(number, number);
            assert_eq!(memory.get(&0), Some(0), "after {number}");
        }
        assert_eq!(memory.get(&1), None);
        let halves = memory.0.lock().expect("whole");
        assert!(halves.young.len() + halves.old.len() <= 2 * HALF);
    }
}
