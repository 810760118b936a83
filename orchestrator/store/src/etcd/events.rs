//! From what a watch of etcd delivers to commits. Pure.
//!
//! etcd promises the events of a range in the order of revisions, each once, those of a revision
//! together. Nothing of that is believed: what a member that went back sends again is left out, and
//! what lacks its former value ends the watch.

use std::sync::Arc;

use bytes::Bytes;

use super::wire;
use crate::{Commit, Event, Revision};

/// Takes what a watch delivers, piece by piece.
pub(super) struct Assembly {
    /// What the etcd keys of values begin with; what else is watched only moves the revision.
    data: Arc<str>,
    /// Everything up to here was delivered.
    reached: Revision,
    /// Pieces of responses whose last one is not there yet.
    pieces: Vec<wire::Event>,
}

/// Some commits in order, and the revision that is reached with them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    pub commits: Vec<Arc<Commit>>,
    pub reached: Revision,
    /// Revisions were left out: others write to this etcd, outside of what is watched.
    pub has_gap: bool,
}

/// Why a watch cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// Compaction overtook it.
    #[error("etcd has compacted the revisions up to {0}")]
    Compacted(Revision),
    #[error("etcd ended the watch: {0}")]
    Canceled(String),
    #[error("etcd sent what no watch sends: {0}")]
    Malformed(&'static str),
}

/// All pieces of one response: a watch that sends more without an end is not etcd's.
const MOST_PIECES: usize = 200_000;

impl Assembly {
    pub fn new(data: Arc<str>, reached: Revision) -> Self {
        Self {
            data,
            reached,
            pieces: Vec::new(),
        }
    }

    /// The next response. `None`: nothing new is whole yet.
    pub fn take(&mut self, response: wire::WatchResponse) -> Result<Option<Delivered>, Broken> {
        if response.compact_revision > 0 {
            return Err(Broken::Compacted(response.compact_revision.unsigned_abs()));
        }
        if response.canceled {
            return Err(Broken::Canceled(response.cancel_reason));
        }
        self.pieces.extend(response.events);
        if self.pieces.len() > MOST_PIECES {
            return Err(Broken::Malformed("a response without an end"));
        }
        if response.fragment || self.pieces.is_empty() {
            return Ok(None);
        }
        let pieces = std::mem::take(&mut self.pieces);
        self.assemble(pieces)
    }

    fn assemble(&mut self, pieces: Vec<wire::Event>) -> Result<Option<Delivered>, Broken> {
        let before = self.reached;
        let mut commits: Vec<Commit> = Vec::new();
        let mut has_gap = false;
        for piece in pieces {
            let kv = piece.kv.as_ref();
            let kv = kv.ok_or(Broken::Malformed("an event without a key"))?;
            let revision = revision(kv.mod_revision)?;
            if revision <= before {
                continue;
            }
            if revision < self.reached {
                return Err(Broken::Malformed("revisions out of order"));
            }
            if revision > self.reached {
                has_gap |= revision > self.reached + 1;
                self.reached = revision;
                let events = Vec::new();
                commits.push(Commit { revision, events });
            }
            let event = self.event(&piece, kv)?;
            if let Some(commit) = commits.last_mut() {
                commit.events.extend(event);
            }
        }
        Ok((self.reached > before).then_some(Delivered {
            commits: commits.into_iter().map(Arc::new).collect(),
            reached: self.reached,
            has_gap,
        }))
    }

    /// The event of a value; `None`: the key holds none.
    fn event(&self, piece: &wire::Event, kv: &wire::KeyValue) -> Result<Option<Event>, Broken> {
        let Some(key) = key_of(&kv.key, &self.data) else {
            return Ok(None);
        };
        let is_put = match piece.kind {
            PUT => true,
            DELETE => false,
            _ => return Err(Broken::Malformed("an event of an unknown type")),
        };
        let is_new = is_put && kv.create_revision == kv.mod_revision;
        let prev = match &piece.prev_kv {
            Some(before) => Some(Bytes::copy_from_slice(&before.value)),
            None if is_new => None,
            // Compaction took it between the event and its delivery.
            None => return Err(Broken::Compacted(revision(kv.mod_revision)?)),
        };
        Ok(Some(Event {
            key: key.into(),
            // A copy, which does not keep the whole message.
            value: is_put.then(|| Bytes::copy_from_slice(&kv.value)),
            prev: prev.filter(|_| !is_new),
        }))
    }
}

const PUT: i32 = 0;
const DELETE: i32 = 1;

/// The store's key of an etcd key, if it has one.
pub(super) fn key_of<'a>(key: &'a [u8], data: &str) -> Option<&'a str> {
    std::str::from_utf8(key.strip_prefix(data.as_bytes())?).ok()
}

pub(super) fn revision(number: i64) -> Result<Revision, Broken> {
    Revision::try_from(number).map_err(|_| Broken::Malformed("a revision below 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(revision: i64, created: i64, key: &str, prev: Option<&str>) -> wire::Event {
        let kv = |value: &str, modified| wire::KeyValue {
            key: key.as_bytes().to_vec().into(),
            create_revision: created,
            mod_revision: modified,
            value: value.as_bytes().to_vec().into(),
            lease: 0,
        };
        wire::Event {
            kind: PUT,
            kv: Some(kv("new", revision)),
            prev_kv: prev.map(|prev| kv(prev, revision - 1)),
        }
    }

    fn deletion(revision: i64, key: &str, prev: Option<&str>) -> wire::Event {
        wire::Event {
            kind: DELETE,
            ..put(revision, 0, key, prev)
        }
    }

    fn response(events: Vec<wire::Event>) -> wire::WatchResponse {
        wire::WatchResponse {
            events,
            ..wire::WatchResponse::default()
        }
    }

    fn assembly(reached: Revision) -> Assembly {
        Assembly::new("/p/data".into(), reached)
    }

    /// `revision: key prev>value, …`
    fn shown(delivered: &Delivered) -> Vec<String> {
        let text = |value: &Option<Bytes>| {
            let value = value.as_ref();
            value.map_or("-".into(), |it| String::from_utf8_lossy(it).into_owned())
        };
        let commits = delivered.commits.iter().map(|commit| {
            let events = commit.events.iter();
            let events =
                events.map(|it| format!("{} {}>{}", it.key, text(&it.prev), text(&it.value)));
            format!(
                "{}: {}",
                commit.revision,
                events.collect::<Vec<_>>().join(", ")
            )
        });
        commits.collect()
    }

    #[test]
    fn the_events_of_a_revision_are_one_commit() {
        let events = vec![
            put(6, 6, "/p/data/a", None),
            put(6, 3, "/p/data/b", Some("old")),
            deletion(7, "/p/data/a", Some("new")),
        ];
        let delivered = assembly(5).take(response(events)).unwrap().unwrap();
        assert_eq!(
            shown(&delivered),
            ["6: /a ->new, /b old>new", "7: /a new>-"]
        );
        assert_eq!((delivered.reached, delivered.has_gap), (7, false));
    }

    #[test]
    fn a_response_in_pieces_is_put_together() {
        let mut assembly = assembly(5);
        let mut first = response(vec![put(6, 6, "/p/data/a", None)]);
        first.fragment = true;
        assert_eq!(assembly.take(first), Ok(None));
        let last = response(vec![put(6, 6, "/p/data/b", None)]);
        let delivered = assembly.take(last).unwrap().unwrap();
        assert_eq!(shown(&delivered), ["6: /a ->new, /b ->new"]);
    }

    #[test]
    fn what_was_delivered_is_not_delivered_again() {
        let mut assembly = assembly(5);
        let events = || response(vec![put(6, 6, "/p/data/a", None)]);
        assert!(assembly.take(events()).unwrap().is_some());
        assert_eq!(assembly.take(events()), Ok(None));
        let back = response(vec![put(4, 4, "/p/data/a", None)]);
        assert_eq!(assembly.take(back), Ok(None));
        let disordered = response(vec![
            put(9, 9, "/p/data/a", None),
            put(8, 8, "/p/data/b", None),
        ]);
        assert!(matches!(
            assembly.take(disordered),
            Err(Broken::Malformed(_))
        ));
    }

    #[test]
    fn keys_without_a_value_of_the_store_only_move_the_revision() {
        let events = vec![put(8, 2, "/p/control/sync", None)];
        let delivered = assembly(5).take(response(events)).unwrap().unwrap();
        assert_eq!(
            (shown(&delivered), delivered.reached),
            (vec!["8: ".to_owned()], 8)
        );
        assert!(delivered.has_gap);
    }

    #[test]
    fn a_change_whose_former_value_is_gone_ends_the_watch() {
        for lost in [put(6, 3, "/p/data/a", None), deletion(6, "/p/data/a", None)] {
            let taken = assembly(5).take(response(vec![lost]));
            assert_eq!(taken, Err(Broken::Compacted(6)));
        }
        let compacted = wire::WatchResponse {
            canceled: true,
            compact_revision: 40,
            ..wire::WatchResponse::default()
        };
        assert_eq!(assembly(5).take(compacted), Err(Broken::Compacted(40)));
    }
}
