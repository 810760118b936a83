//! States of a kind that clients are still reading page by page.
//!
//! A snapshot shares what has not changed since; what it keeps alive is bounded by the bytes of the
//! objects that were replaced or deleted after it was taken.

use std::collections::VecDeque;

use super::ordered::Ordered;
use store::Revision;

/// How many states are kept, at most.
const SNAPSHOTS: usize = 32;
/// What all of them keep alive, at most: the state that would exceed it is forgotten, the oldest first.
const SNAPSHOTS_BYTES: u64 = 64 << 20;

/// Written by readers that begin a list, and by the task that follows the store.
#[derive(Default)]
pub(super) struct Snapshots {
    kept: VecDeque<Kept>,
    /// The bytes of all objects that were replaced or deleted while a snapshot was kept.
    retired: u64,
}

struct Kept {
    revision: Revision,
    objects: Ordered,
    /// `Snapshots::retired` when it was taken.
    retired: u64,
}

impl Snapshots {
    /// Keeps the state of a revision.
    pub fn keep(&mut self, revision: Revision, objects: &Ordered) {
        if self.at(revision).is_some() {
            return;
        }
        self.kept.push_back(Kept {
            revision,
            objects: objects.clone(),
            retired: self.retired,
        });
        if self.kept.len() > SNAPSHOTS {
            self.kept.pop_front();
        }
    }

    /// The state at a revision.
    pub fn at(&self, revision: Revision) -> Option<&Ordered> {
        let mut kept = self.kept.iter().rev();
        Some(&kept.find(|kept| kept.revision == revision)?.objects)
    }

    /// An object of so many bytes was replaced or deleted.
    pub fn retire(&mut self, bytes: usize) {
        if self.kept.is_empty() {
            return;
        }
        self.retired += bytes as u64;
        while self.bytes() > SNAPSHOTS_BYTES {
            self.forget();
        }
    }

    /// Drops the oldest state.
    pub fn forget(&mut self) {
        self.kept.pop_front();
    }

    /// What is kept alive at most.
    pub fn bytes(&self) -> u64 {
        self.kept
            .front()
            .map_or(0, |oldest| self.retired - oldest.retired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_states_go_when_they_keep_too_much_alive() {
        let mut snapshots = Snapshots::default();
        snapshots.keep(5, &Ordered::default());
        snapshots.retire(40 << 20);
        snapshots.keep(6, &Ordered::default());
        snapshots.retire(20 << 20);
        assert!(snapshots.at(5).is_some());
        snapshots.retire(20 << 20);
        assert!(snapshots.at(5).is_none() && snapshots.at(6).is_some());
        assert_eq!(snapshots.bytes(), 40 << 20);
    }
}
