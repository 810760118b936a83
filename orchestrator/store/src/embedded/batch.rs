//! One transaction of the writer: many commits, checked and written one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::super::{Commit, Entry, Event, Lifetime, Result, Revision, Write, check_shape, holds};
use super::failure::Failure;
use super::tables::{CURRENT, LOG, Meta, Row, encode_undo};
use super::{HistoryLimits, Shared};

/// What a batch did so far; nothing of it is visible yet.
pub(super) struct Batch<'a> {
    shared: &'a Shared,
    /// Open if the batch may touch the disk.
    tables: Option<Tables<'a>>,
    pub meta: Meta,
    pub revision: Revision,
    pub volatile: BTreeMap<Arc<str>, Option<Entry>>,
    pub commits: Vec<(Lifetime, Arc<Commit>)>,
}

pub(super) struct Tables<'a> {
    current: Table<'a, &'static str, &'static [u8]>,
    log: Table<'a, (u64, u32), &'static [u8]>,
}

impl<'a> Tables<'a> {
    pub fn open(transaction: &'a WriteTransaction) -> Result<Self, Failure> {
        Ok(Self {
            current: transaction.open_table(CURRENT)?,
            log: transaction.open_table(LOG)?,
        })
    }
}

impl<'a> Batch<'a> {
    pub fn new(
        shared: &'a Shared,
        tables: Option<Tables<'a>>,
        meta: Meta,
        revision: Revision,
    ) -> Self {
        let (volatile, commits) = Default::default();
        Self {
            shared,
            tables,
            meta,
            revision,
            volatile,
            commits,
        }
    }

    /// Checks a commit against everything before it and writes it if all its expectations hold.
    /// The outer error is the disk's and ends the batch.
    pub fn commit(&mut self, writes: Vec<Write>) -> Result<Result<Revision>, Failure> {
        if let Err(refusal) = check_shape(&writes) {
            return Ok(Err(refusal));
        }
        let mut found = Vec::with_capacity(writes.len());
        for write in &writes {
            let before = self.find(write)?;
            if let Err(conflict) = holds(write, before.clone()) {
                return Ok(Err(conflict));
            }
            found.push(before);
        }
        let revision = self.revision + 1;
        let mut lifetime = Lifetime::Durable;
        let mut events = Vec::with_capacity(writes.len());
        for (write, before) in writes.into_iter().zip(found) {
            if write.value.is_none() && before.is_none() {
                continue;
            }
            let place = (revision, u32::try_from(events.len()).unwrap_or(u32::MAX));
            lifetime = write.lifetime;
            events.push(match lifetime {
                Lifetime::Durable => self.write_durable(place, write, before)?,
                Lifetime::Volatile => self.write_volatile(revision, write, before),
            });
        }
        if !events.is_empty() {
            self.revision = revision;
            if lifetime == Lifetime::Durable {
                self.meta.revision = revision;
            }
            self.commits
                .push((lifetime, Arc::new(Commit { revision, events })));
        }
        Ok(Ok(self.revision))
    }

    /// Forgets the log up to `upto`.
    pub fn compact(&mut self, upto: Revision) -> Result<(), Failure> {
        let upto = upto.min(self.revision);
        if let Some(tables) = &mut self.tables
            && upto > self.meta.compacted
        {
            let mut freed = 0;
            tables.log.retain_in(..=(upto, u32::MAX), |_, row| {
                freed += row_size(row.len());
                false
            })?;
            self.meta.log_bytes = self.meta.log_bytes.saturating_sub(freed);
            self.meta.compacted = upto;
        }
        Ok(())
    }

    /// Keeps the log below its limits: when it is above one, a tenth goes at once, so that most
    /// batches need not.
    pub fn trim(&mut self, limits: HistoryLimits) -> Result<(), Failure> {
        let Some(tables) = &mut self.tables else {
            return Ok(());
        };
        let mut rows = tables.log.len()?;
        if rows <= limits.rows && self.meta.log_bytes <= limits.bytes {
            return Ok(());
        }
        let keep = HistoryLimits {
            rows: limits.rows / 10 * 9,
            bytes: limits.bytes / 10 * 9,
        };
        loop {
            let is_above = rows > keep.rows || self.meta.log_bytes > keep.bytes;
            let Some(oldest) = tables.log.first()?.map(|(place, _)| place.value().0) else {
                return Ok(());
            };
            // A commit goes whole.
            if !is_above && oldest != self.meta.compacted {
                return Ok(());
            }
            if let Some((_, row)) = tables.log.pop_first()? {
                let size = row_size(row.value().len());
                self.meta.log_bytes = self.meta.log_bytes.saturating_sub(size);
                self.meta.compacted = oldest;
                rows -= 1;
            }
        }
    }

    fn find(&self, write: &Write) -> Result<Option<Entry>, Failure> {
        let key = write.key.as_str();
        match (write.lifetime, &self.tables) {
            (Lifetime::Volatile, _) => Ok(match self.volatile.get(key) {
                Some(entry) => entry.clone(),
                None => self.shared.view_now().volatile.rows.get(key).cloned(),
            }),
            (Lifetime::Durable, Some(tables)) => {
                let row = tables.current.get(key)?;
                let row = row.map(|row| Row::decode(row.value())).transpose()?;
                Ok(row.map(|row| row.into_entry(key.into())))
            }
            (Lifetime::Durable, None) => unreachable!("the writer opens tables for durable writes"),
        }
    }

    fn write_durable(
        &mut self,
        place: (Revision, u32),
        write: Write,
        before: Option<Entry>,
    ) -> Result<Event, Failure> {
        let Some(tables) = &mut self.tables else {
            unreachable!("the writer opens tables for durable writes")
        };
        let Write { key, value, .. } = write;
        let row = before.map(
            |Entry {
                 created,
                 modified,
                 value,
                 ..
             }| Row {
                created,
                modified,
                value,
            },
        );
        let undo = encode_undo(&key, row.as_ref());
        self.meta.log_bytes += row_size(undo.len());
        tables.log.insert(place, undo.as_slice())?;
        match &value {
            Some(value) => {
                let created = row.as_ref().map_or(place.0, |row| row.created);
                let new = Row {
                    created,
                    modified: place.0,
                    value: value.clone(),
                };
                tables
                    .current
                    .insert(key.as_str(), new.encode().as_slice())?;
            }
            None => drop(tables.current.remove(key.as_str())?),
        }
        Ok(Event {
            key: key.into(),
            value,
            prev: row.map(|row| row.value),
        })
    }

    fn write_volatile(&mut self, revision: Revision, write: Write, before: Option<Entry>) -> Event {
        let Write { key, value, .. } = write;
        let key: Arc<str> = key.into();
        let created = before.as_ref().map_or(revision, |entry| entry.created);
        let after = value.clone().map(|value| Entry {
            key: key.clone(),
            value,
            created,
            modified: revision,
        });
        self.volatile.insert(key.clone(), after);
        Event {
            key,
            value,
            prev: before.map(|entry| entry.value),
        }
    }
}

/// A row of the log with its key.
fn row_size(value: usize) -> u64 {
    value as u64 + 12
}
