//! The database's layout and how its rows are read. The log is an undo log: a row holds what a
//! key was before, so every value is on disk once, and the past is the present taken back step by
//! step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadableTable, TableDefinition};

use super::super::{Commit, Entry, Event, Revision};
use super::failure::{Failure, Malformed};

/// Key → its row as it is now.
pub(super) const CURRENT: TableDefinition<&str, &[u8]> = TableDefinition::new("current");
/// (Revision, place in its commit) → what the key was before.
pub(super) const LOG: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("log");
/// One row, `STATE`.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(super) const STATE: &str = "state";

/// The layout that this code reads and writes.
pub(super) const FORMAT: u64 = 1;

/// What the store knows about itself; written with every commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// The newest durable commit.
    pub revision: Revision,
    /// No revision above this one has been given out, to volatile commits neither.
    pub ceiling: Revision,
    /// The log holds what is newer than this.
    pub compacted: Revision,
    /// The sum of the log's row sizes.
    pub log_bytes: u64,
}

/// A row of `CURRENT`, or the state before in a row of `LOG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub created: Revision,
    pub modified: Revision,
    pub value: Bytes,
}

impl Meta {
    pub fn empty() -> Self {
        Self {
            revision: 0,
            ceiling: 0,
            compacted: 0,
            log_bytes: 0,
        }
    }

    pub fn encode(self) -> [u8; 40] {
        let words = [
            FORMAT,
            self.revision,
            self.ceiling,
            self.compacted,
            self.log_bytes,
        ];
        let mut bytes = [0; 40];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `Err` holds the format of a row that this code does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, Option<u64>> {
        let format = word(bytes, 0).ok_or(None)?;
        if format != FORMAT {
            return Err(Some(format));
        }
        let at = |index| word(bytes, index).ok_or(None);
        Ok(Self {
            revision: at(1)?,
            ceiling: at(2)?,
            compacted: at(3)?,
            log_bytes: at(4)?,
        })
    }
}

impl Row {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.value.len());
        bytes.extend(self.created.to_le_bytes());
        bytes.extend(self.modified.to_le_bytes());
        bytes.extend(&self.value);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        match (word(bytes, 0), word(bytes, 1)) {
            (Some(created), Some(modified)) => Ok(Self {
                created,
                modified,
                value: Bytes::copy_from_slice(&bytes[16..]),
            }),
            _ => Err(Malformed("current")),
        }
    }

    pub fn into_entry(self, key: Arc<str>) -> Entry {
        let Self {
            created,
            modified,
            value,
        } = self;
        Entry {
            key,
            value,
            created,
            modified,
        }
    }
}

/// The revision of the last write, and the value, of a row of `CURRENT`.
pub(super) fn parts(row: &[u8]) -> Result<(Revision, &[u8]), Malformed> {
    match (word(row, 1), row.get(16..)) {
        (Some(modified), Some(value)) => Ok((modified, value)),
        _ => Err(Malformed("current")),
    }
}

/// A row of `LOG`: the key's length, the key, then its row before if it was there.
pub(super) fn encode_undo(key: &str, before: Option<&Row>) -> Vec<u8> {
    let before = before.map(Row::encode).unwrap_or_default();
    let mut bytes = Vec::with_capacity(4 + key.len() + before.len());
    // Keys come out of URLs; one of 4 GiB cannot arrive.
    let length = u32::try_from(key.len()).expect("a key is shorter than 4 GiB");
    bytes.extend(length.to_le_bytes());
    bytes.extend(key.as_bytes());
    bytes.extend(before);
    bytes
}

/// The key of a row of `LOG`, and the rest of the row.
fn undo_key(bytes: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let malformed = || Malformed("log");
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(malformed)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (key, before) = rest.split_at_checked(length).ok_or_else(malformed)?;
    Ok((std::str::from_utf8(key).map_err(|_| malformed())?, before))
}

fn undo_row(before: &[u8]) -> Result<Option<Row>, Malformed> {
    if before.is_empty() {
        Ok(None)
    } else {
        Row::decode(before).map(Some)
    }
}

/// What the keys with this prefix, changed behind `at`, were at `at`.
pub(super) fn undone(
    log: &impl ReadableTable<(u64, u32), &'static [u8]>,
    prefix: &str,
    at: Revision,
) -> Result<BTreeMap<Arc<str>, Option<Entry>>, Failure> {
    let mut before: BTreeMap<Arc<str>, Option<Entry>> = BTreeMap::new();
    for item in log.range((at + 1, 0)..)? {
        let (_, bytes) = item?;
        let (key, row) = undo_key(bytes.value())?;
        // The first change behind `at` knows what was there at `at`.
        if key.starts_with(prefix) && !before.contains_key(key) {
            let key: Arc<str> = key.into();
            let entry = undo_row(row)?.map(|row| row.into_entry(key.clone()));
            before.insert(key, entry);
        }
    }
    Ok(before)
}

/// The first `limit` commits behind `from`, as far as they touch the prefix: walks back from now, because the
/// value that a change wrote is what the next change of the key found.
pub(super) fn replayed(
    current: &impl ReadableTable<&'static str, &'static [u8]>,
    log: &impl ReadableTable<(u64, u32), &'static [u8]>,
    prefix: &str,
    from: Revision,
    limit: usize,
) -> Result<Vec<Arc<Commit>>, Failure> {
    let mut after: BTreeMap<Arc<str>, Option<Bytes>> = BTreeMap::new();
    // Newest first; only the oldest ones stay.
    let mut commits: VecDeque<Commit> = VecDeque::new();
    for item in log.range((from + 1, 0)..)?.rev() {
        let (place, bytes) = item?;
        let (revision, _) = place.value();
        let (key, before) = undo_key(bytes.value())?;
        if !key.starts_with(prefix) {
            continue;
        }
        let prev = undo_row(before)?.map(|row| row.value);
        let (key, value) = match after.get_key_value(key) {
            Some((key, value)) => (key.clone(), value.clone()),
            None => {
                let row = current
                    .get(key)?
                    .map(|row| Row::decode(row.value()))
                    .transpose()?;
                (key.into(), row.map(|row| row.value))
            }
        };
        after.insert(key.clone(), prev.clone());
        let event = Event { key, value, prev };
        match commits.back_mut() {
            Some(commit) if commit.revision == revision => commit.events.push(event),
            _ => {
                if commits.len() == limit {
                    commits.pop_front();
                }
                commits.push_back(Commit {
                    revision,
                    events: vec![event],
                });
            }
        }
    }
    let commits = commits.into_iter().rev().map(|mut commit| {
        commit.events.reverse();
        Arc::new(commit)
    });
    Ok(commits.collect())
}

fn word(bytes: &[u8], index: usize) -> Option<u64> {
    let bytes = bytes.get(index * 8..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_they_were_written() {
        let row = Row {
            created: 3,
            modified: 9,
            value: Bytes::from_static(b"x"),
        };
        assert_eq!(Row::decode(&row.encode()).unwrap(), row);
        let bytes = encode_undo("/a", Some(&row));
        let (key, before) = undo_key(&bytes).unwrap();
        assert_eq!((key, undo_row(before).unwrap()), ("/a", Some(row)));
        let meta = Meta {
            revision: 1,
            ceiling: 2,
            compacted: 3,
            log_bytes: 4,
        };
        assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
    }

    #[test]
    fn an_empty_value_is_not_an_absent_one() {
        let row = Row {
            created: 1,
            modified: 1,
            value: Bytes::new(),
        };
        let bytes = encode_undo("/a", Some(&row));
        assert_eq!(undo_row(undo_key(&bytes).unwrap().1).unwrap(), Some(row));
    }

    #[test]
    fn short_and_foreign_rows_are_errors() {
        assert!(Row::decode(&[0; 15]).is_err());
        assert!(undo_key(&[9, 0, 0, 0, b'a']).is_err());
        let mut newer = Meta::empty().encode();
        newer[0] = 2;
        assert_eq!(Meta::decode(&newer), Err(Some(2)));
        assert_eq!(Meta::decode(&newer[..4]), Err(None));
    }
}
