//! What lives in memory only: the volatile keys and their short history.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;

use super::super::{Commit, Entry, Result, Revision, StoreError, tail};

/// How many volatile commits a watch that fell off the tail can still be told of.
const HISTORY: usize = 512;

/// Volatile keys as of the answered revision. Written by the writer thread.
#[derive(Default)]
pub(super) struct Volatile {
    pub rows: BTreeMap<Arc<str>, Entry>,
    history: VecDeque<Arc<Commit>>,
    /// Directory (a key up to its last slash) → the newest revision that its history forgot.
    forgotten: BTreeMap<Box<str>, Revision>,
}

impl Volatile {
    /// Takes over what a batch did: the new states of keys, and its commits.
    pub fn apply(
        &mut self,
        changes: BTreeMap<Arc<str>, Option<Entry>>,
        commits: impl IntoIterator<Item = Arc<Commit>>,
    ) {
        for (key, entry) in changes {
            match entry {
                Some(entry) => self.rows.insert(key, entry),
                None => self.rows.remove(&key),
            };
        }
        self.history.extend(commits);
        while self.history.len() > HISTORY {
            let Some(oldest) = self.history.pop_front() else {
                return;
            };
            for event in &oldest.events {
                self.forgotten
                    .insert(directory(&event.key).into(), oldest.revision);
            }
        }
    }

    pub fn range(&self, prefix: &str) -> impl Iterator<Item = &Entry> {
        let from = self.rows.range::<str, _>((Included(prefix), Unbounded));
        from.map(|(_, entry)| entry)
            .take_while(move |entry| entry.key.starts_with(prefix))
    }

    /// The volatile commits behind `from` that touch the prefix.
    pub fn replay(&self, prefix: &str, from: Revision) -> Result<Vec<Arc<Commit>>> {
        let overlaps =
            |directory: &str| directory.starts_with(prefix) || prefix.starts_with(directory);
        let lost = self
            .forgotten
            .iter()
            .filter(|(directory, _)| overlaps(directory));
        match lost.map(|(_, revision)| *revision).max() {
            Some(oldest) if from < oldest => Err(StoreError::Compacted { oldest }),
            _ => Ok(self
                .history
                .iter()
                .filter(|commit| commit.revision > from)
                .filter_map(|commit| tail::filter(commit, prefix))
                .collect()),
        }
    }
}

fn directory(key: &str) -> &str {
    key.rfind('/').map_or("", |slash| &key[..=slash])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    #[test]
    fn a_forgotten_change_is_gone_only_for_who_asks_for_its_directory() {
        let mut volatile = Volatile::default();
        let commit = |revision: Revision| {
            let event = Event {
                key: "/lease/a/x".into(),
                value: None,
                prev: None,
            };
            Arc::new(Commit {
                revision,
                events: vec![event],
            })
        };
        volatile.apply(BTreeMap::new(), (1..=HISTORY as u64 + 5).map(commit));
        let oldest = 5;
        for prefix in ["/", "/lease/", "/lease/a/", "/lease/a/x"] {
            let gone = volatile.replay(prefix, 4).unwrap_err();
            assert!(matches!(gone, StoreError::Compacted { oldest: o } if o == oldest));
            assert_eq!(volatile.replay(prefix, 5).unwrap().len(), HISTORY);
        }
        assert!(volatile.replay("/pod/", 0).unwrap().is_empty());
    }
}
