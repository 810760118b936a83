//! The store in one file: redb below, revisions, history and watches on top.
//!
//! One thread writes (`writer`); reads take a snapshot of the database and of the volatile keys
//! that belong together. They may wait for the disk, and give way to other tasks of their thread. Nothing is kept in memory but the volatile keys and the recent commits.

mod batch;
#[cfg(test)]
mod crash;
mod failure;
#[cfg(test)]
mod growth;
mod renew;
mod tables;
mod volatile;
mod writer;

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable};
use tokio::sync::{mpsc, oneshot};

pub use failure::OpenError;
pub use renew::renew;

use super::tail::{self, History, Limits, Tail, give_way};
use super::{
    Chunk, CommitStream, Entry, Page, Range, Result, Revision, Store, StoreError, Visitor, Write,
    check_window,
};
use failure::{Failure, Malformed};
use tables::{CURRENT, FORMAT, LOG, META, Meta, Row, STATE};
use volatile::Volatile;
use writer::{Request, Writer};

/// How much history the file keeps before the oldest tenth of it goes.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimits {
    /// Changes of keys.
    pub rows: u64,
    pub bytes: u64,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            rows: 10_000,
            bytes: 16 << 20,
        }
    }
}

/// A store in one file. Dropping it answers what is under way and closes the file.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens the file, or makes it. Only one process may have it open.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, HistoryLimits::default())
    }

    pub fn open_with(path: &Path, limits: HistoryLimits) -> Result<Self, OpenError> {
        if !path.exists() {
            create(path)?;
        }
        // A damaged file can make redb panic; that must not look like a bug of the caller.
        let opened = std::panic::catch_unwind(|| builder().open(path))
            .map_err(|_| OpenError::corrupt(path, "its pages make no sense"))?;
        let database = opened.map_err(|error| OpenError::database(path, error.into()))?;
        Self::start(database, path, limits)
    }

    fn start(database: Database, path: &Path, limits: HistoryLimits) -> Result<Self, OpenError> {
        let failed = |failure| OpenError::failure(path, failure);
        let meta = {
            let transaction = database
                .begin_read()
                .map_err(Failure::from)
                .map_err(failed)?;
            read_meta(&transaction).map_err(failed)?
        };
        let meta = meta.map_err(|format| match format {
            Some(found) if found > FORMAT => OpenError::Newer {
                path: path.display().to_string(),
                found,
                known: FORMAT,
            },
            _ => OpenError::corrupt(path, "its description is missing"),
        })?;
        // A revision of its own for the start: what was volatile ended with it.
        let revision = meta.revision.max(meta.ceiling) + 1;
        let view = View {
            revision,
            durable: meta.revision,
            compacted: meta.compacted,
            volatile: Volatile::default(),
        };
        let shared = Arc::new(Shared {
            database,
            tail: Tail::new(revision, TAIL),
            view: RwLock::new(view),
        });
        let (requests, queue) = mpsc::channel(QUEUE);
        let writer = Writer::new(shared.clone(), meta, revision, limits);
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(queue))
            .map_err(|source| OpenError::io(path, source))?;
        Ok(Self {
            shared,
            requests: Some(requests),
            writer: Some(writer),
        })
    }

    /// Makes the file of a store whose revisions begin behind `base`; what is at or below it is compacted. There
    /// must be no file yet.
    pub fn create(path: &Path, base: Revision) -> Result<Self, OpenError> {
        if path.exists() {
            let there = std::io::ErrorKind::AlreadyExists;
            return Err(OpenError::io(path, there.into()));
        }
        create(path)?;
        let opened = builder().open(path);
        let database = opened.map_err(|error| OpenError::database(path, error.into()))?;
        let begun = || -> Result<(), Failure> {
            let writing = database.begin_write()?;
            let meta = Meta {
                revision: base,
                ceiling: base,
                compacted: base,
                log_bytes: 0,
            };
            writer::put_meta(&writing, meta)?;
            Ok(writing.commit()?)
        };
        begun().map_err(|failure| OpenError::failure(path, failure))?;
        drop(database);
        Self::open(path)
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        requests
            .send(make(answer))
            .await
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has been printed; the database is consistent without it.
            let _ = writer.join();
        }
    }
}

impl Store for EmbeddedStore {
    fn revision(&self) -> Revision {
        self.shared.view_now().revision
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>>> {
        async move { give_way(|| self.shared.get(key).map_err(unreadable)) }.boxed()
    }

    fn range<'a>(&'a self, range: Range<'a>) -> BoxFuture<'a, Result<Page>> {
        async move { give_way(|| self.shared.range(range).map_err(unreadable))? }.boxed()
    }

    fn visit<'a>(
        &'a self,
        prefix: &'a str,
        visitor: Visitor<'a>,
    ) -> BoxFuture<'a, Result<Revision>> {
        async move { give_way(|| self.shared.visit(prefix, visitor).map_err(unreadable)) }.boxed()
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision>> {
        self.ask(|answer| Request::Commit { writes, answer })
            .boxed()
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<CommitStream> {
        let view = self.shared.view_now();
        check_window(from, view.compacted, view.revision)?;
        drop(view);
        Ok(tail::follow(self.shared.clone(), prefix, from))
    }

    fn history<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
        limit: usize,
    ) -> BoxFuture<'a, Result<Chunk>> {
        self.shared.replay(prefix, from, limit)
    }

    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<()>> {
        self.ask(move |answer| Request::Compact { upto, answer })
            .boxed()
    }
}

/// Commits that may wait for the writer before callers wait to hand theirs over.
const QUEUE: usize = 1024;
/// redb's page cache. Reads are rare (the watch cache answers clients), so it is small.
const PAGE_CACHE: usize = 4 << 20;
const TAIL: Limits = Limits {
    commits: 256,
    bytes: 1 << 20,
};

struct Shared {
    database: Database,
    tail: Tail,
    view: RwLock<View>,
}

/// What is answered: changed by the writer after a batch is on disk.
struct View {
    revision: Revision,
    /// The newest durable commit of it.
    durable: Revision,
    compacted: Revision,
    volatile: Volatile,
}

/// The database and what was taken from the view, as of one revision.
struct Snapshot<T> {
    transaction: ReadTransaction,
    meta: Meta,
    view: T,
}

impl Shared {
    fn view_now(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_to_change(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Between the end of a transaction and the change of the view lie microseconds: who looks
    /// then looks again.
    fn snapshot<T>(&self, take: impl Fn(&View) -> T) -> Result<Snapshot<T>, Failure> {
        loop {
            {
                let view = self.view_now();
                let transaction = self.database.begin_read()?;
                let meta = read_meta(&transaction)?.map_err(|_| Malformed(STATE))?;
                if meta.revision == view.durable {
                    return Ok(Snapshot {
                        transaction,
                        meta,
                        view: take(&view),
                    });
                }
            }
            std::thread::yield_now();
        }
    }

    fn get(&self, key: &str) -> Result<Option<Entry>, Failure> {
        let snapshot = self.snapshot(|view| view.volatile.rows.get(key).cloned())?;
        if snapshot.view.is_some() {
            return Ok(snapshot.view);
        }
        let current = snapshot.transaction.open_table(CURRENT)?;
        let row = current
            .get(key)?
            .map(|row| Row::decode(row.value()))
            .transpose()?;
        Ok(row.map(|row| row.into_entry(key.into())))
    }

    fn visit(&self, prefix: &str, visitor: Visitor<'_>) -> Result<Revision, Failure> {
        let snapshot = self.snapshot(|view| {
            (
                view.revision,
                view.volatile.range(prefix).cloned().collect::<Vec<_>>(),
            )
        })?;
        let (revision, volatile) = snapshot.view;
        let current = snapshot.transaction.open_table(CURRENT)?;
        for item in current.range::<&str>(prefix..)? {
            let (key, row) = item?;
            let key = key.value();
            if !key.starts_with(prefix) {
                break;
            }
            let (modified, value) = tables::parts(row.value())?;
            visitor(key, modified, value);
        }
        for entry in volatile {
            visitor(&entry.key, entry.modified, &entry.value);
        }
        Ok(revision)
    }

    fn range(&self, range: Range<'_>) -> Result<Result<Page>, Failure> {
        let snapshot = self.snapshot(|view| {
            let volatile = view.volatile.range(range.prefix).cloned();
            (view.revision, volatile.collect::<Vec<_>>())
        })?;
        let (now, volatile) = snapshot.view;
        let at = range.at.unwrap_or(now);
        if let Err(outside) = check_window(at, snapshot.meta.compacted, now) {
            return Ok(Err(outside));
        }
        let mut instead = match at < snapshot.meta.revision {
            true => tables::undone(&snapshot.transaction.open_table(LOG)?, range.prefix, at)?,
            false => BTreeMap::new(),
        };
        instead.extend(
            volatile
                .into_iter()
                .map(|entry| (entry.key.clone(), Some(entry))),
        );
        let current = snapshot.transaction.open_table(CURRENT)?;
        merge(&current, instead, range).map(|(entries, remaining)| {
            Ok(Page {
                entries,
                revision: at,
                remaining,
            })
        })
    }
}

impl History for Shared {
    fn tail(&self) -> &Tail {
        &self.tail
    }

    fn replay<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
        limit: usize,
    ) -> BoxFuture<'a, Result<Chunk>> {
        async move { give_way(|| self.replayed(prefix, from, limit)) }.boxed()
    }
}

impl Shared {
    fn replayed(&self, prefix: &str, from: Revision, limit: usize) -> Result<Chunk> {
        let snapshot = self
            .snapshot(|view| (view.revision, view.volatile.replay(prefix, from)))
            .map_err(unreadable)?;
        let (now, volatile) = snapshot.view;
        check_window(from, snapshot.meta.compacted, now)?;
        let durable = (|| {
            let current = snapshot.transaction.open_table(CURRENT)?;
            let log = snapshot.transaction.open_table(LOG)?;
            tables::replayed(&current, &log, prefix, from, limit)
        })();
        let mut commits = durable.map_err(unreadable)?;
        commits.extend(volatile?);
        commits.sort_by_key(|commit| commit.revision);
        Ok(tail::chunk(commits, limit, now))
    }
}

/// One page of the table, with some keys replaced or taken out.
fn merge(
    current: &impl ReadableTable<&'static str, &'static [u8]>,
    instead: BTreeMap<Arc<str>, Option<Entry>>,
    range: Range<'_>,
) -> Result<(Vec<Entry>, usize), Failure> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let limit = if range.limit == 0 {
        usize::MAX
    } else {
        range.limit
    };
    let from = match range.after {
        Some(after) if after >= range.prefix => Excluded(after),
        _ => Included(range.prefix),
    };
    let mut page = (Vec::new(), 0);
    let mut add = |entry: Entry| match page.0.len() < limit {
        true => page.0.push(entry),
        false => page.1 += 1,
    };
    let mut others = instead
        .range::<str, _>((from, Unbounded))
        .take_while(|(key, _)| key.starts_with(range.prefix))
        .peekable();
    for item in current.range::<&str>((from, Unbounded))? {
        let (key, row) = item?;
        let key = key.value();
        if !key.starts_with(range.prefix) {
            break;
        }
        while let Some((_, other)) = others.next_if(|(other, _)| &***other < key) {
            other.iter().cloned().for_each(&mut add);
        }
        match others.next_if(|(other, _)| &***other == key) {
            Some((_, other)) => other.iter().cloned().for_each(&mut add),
            None => add(Row::decode(row.value())?.into_entry(key.into())),
        }
    }
    others
        .filter_map(|(_, other)| other.clone())
        .for_each(&mut add);
    Ok(page)
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(PAGE_CACHE);
    builder
}

/// Makes an empty database beside `path` and moves it there: a file that is there is whole.
fn create(path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::io(path, source);
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(directory).map_err(io)?;
    let temporary = path.with_extension(format!("{}.tmp", uuid::Uuid::new_v4().simple()));
    // It holds secrets: the owner's alone from its first byte on.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io)?;
    let made = builder()
        .create_file(file)
        .map_err(|e| OpenError::database(path, e.into()));
    let made = made.and_then(|database| {
        initialise(&database).map_err(|failure| OpenError::failure(path, failure))?;
        drop(database);
        // Unlike a rename, a link does not replace what another process has put there meanwhile.
        match std::fs::hard_link(&temporary, path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(io(error)),
            _ => Ok(()),
        }
    });
    let removed = std::fs::remove_file(&temporary);
    made?;
    removed.map_err(io)?;
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io)
}

fn initialise(database: &Database) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    transaction.open_table(CURRENT)?;
    transaction.open_table(LOG)?;
    writer::put_meta(&transaction, Meta::empty())?;
    Ok(transaction.commit()?)
}

fn read_meta(transaction: &ReadTransaction) -> Result<Result<Meta, Option<u64>>, Failure> {
    let table = match transaction.open_table(META) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Err(None)),
        table => table?,
    };
    Ok(table
        .get(STATE)?
        .map_or(Err(None), |row| Meta::decode(row.value())))
}

fn unreadable(failure: Failure) -> StoreError {
    StoreError::Io(failure.to_string().into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Expect, Write};

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_read_that_takes_its_time_keeps_no_other_task_from_its_thread() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&directory.path().join("db")).unwrap();
        let write = Write::put("/a/b", "x", Expect::Any);
        store.commit(vec![write]).await.unwrap();
        let read = async move {
            let (tell, told) = std::sync::mpsc::channel();
            let told = std::sync::Mutex::new(told);
            tokio::spawn(async move { tell.send(()).unwrap() });
            // As slow as a disk can be: it goes on when the other task has run.
            let mut slow = |_: &str, _, _: &[u8]| {
                let wait = told.lock().unwrap().recv_timeout(Duration::from_secs(20));
                wait.unwrap();
            };
            store.visit("/a/", &mut slow).await.unwrap();
        };
        tokio::spawn(read).await.unwrap();
    }
}
