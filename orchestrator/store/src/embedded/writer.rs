//! The writer thread: it alone changes the database. It takes every commit that waits, makes them
//! one transaction (one fsync), and answers them when that is on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::WriteTransaction;
use tokio::sync::{mpsc, oneshot};

use super::super::{Commit, Entry, Lifetime, Result, Revision, StoreError, Write};
use super::batch::{Batch, Tables};
use super::failure::Failure;
use super::tables::{META, Meta, STATE};
use super::{HistoryLimits, Shared};

/// What callers ask of the writer.
pub(super) enum Request {
    Commit {
        writes: Vec<Write>,
        answer: oneshot::Sender<Result<Revision>>,
    },
    Compact {
        upto: Revision,
        answer: oneshot::Sender<Result<()>>,
    },
}

/// The state of the thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    meta: Meta,
    /// The newest revision given out.
    revision: Revision,
    limits: HistoryLimits,
    /// Why nothing is written any more.
    broken: Option<StoreError>,
}

/// The most requests that one transaction takes.
const MAX_BATCH: usize = 256;
/// How many revisions are set aside with one write: volatile commits take them without one.
const REVISION_BLOCK: Revision = 10_000;

impl Writer {
    pub fn new(shared: Arc<Shared>, meta: Meta, revision: Revision, limits: HistoryLimits) -> Self {
        Self {
            shared,
            meta,
            revision,
            limits,
            broken: None,
        }
    }

    /// Runs until every sender is gone.
    pub fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH
                && let Ok(request) = requests.try_recv()
            {
                batch.push(request);
            }
            self.process(batch);
        }
        self.finish();
    }

    fn process(&mut self, batch: Vec<Request>) {
        let (asked, mut answers): (Vec<_>, Vec<_>) = batch.into_iter().map(Request::split).unzip();
        let done = match &self.broken {
            Some(error) => Err(error.clone()),
            None => self
                .write(asked, &mut answers)
                .map_err(|failure| self.fail(&failure)),
        };
        match done {
            Ok(done) => {
                self.publish(done);
                answers.into_iter().for_each(Answer::send);
            }
            Err(error) => answers.into_iter().for_each(|answer| answer.refuse(&error)),
        }
    }

    /// Does what was asked, up to and including the fsync. A refused commit has its refusal put in
    /// its answer; an error is the disk's and nothing of the batch may be shown.
    fn write(&self, asked: Vec<Asked>, answers: &mut [Answer]) -> Result<Done, Failure> {
        let reach = self.revision + asked.len() as Revision;
        let touches_disk = reach > self.meta.ceiling || asked.iter().any(Asked::touches_disk);
        if !touches_disk {
            let mut batch = Batch::new(&self.shared, None, self.meta, self.revision);
            run(&mut batch, asked, answers)?;
            return Ok(Done::from(batch));
        }
        let transaction = self.shared.database.begin_write()?;
        let tables = Tables::open(&transaction)?;
        let mut batch = Batch::new(&self.shared, Some(tables), self.meta, self.revision);
        run(&mut batch, asked, answers)?;
        batch.trim(self.limits)?;
        if batch.revision > batch.meta.ceiling {
            batch.meta.ceiling = batch.revision + REVISION_BLOCK;
        }
        let done = Done::from(batch);
        if done.meta == self.meta {
            transaction.abort()?;
        } else {
            put_meta(&transaction, done.meta)?;
            transaction.commit()?;
        }
        Ok(done)
    }

    /// Makes a batch that is on disk visible, before anybody is answered.
    fn publish(&mut self, done: Done) {
        self.meta = done.meta;
        self.revision = done.revision;
        let is_volatile = |commit: &&(Lifetime, Arc<Commit>)| commit.0 == Lifetime::Volatile;
        let volatile = done
            .commits
            .iter()
            .filter(is_volatile)
            .map(|(_, commit)| commit.clone());
        {
            let mut view = self.shared.view_to_change();
            view.durable = done.meta.revision;
            view.compacted = done.meta.compacted;
            view.revision = done.revision;
            view.volatile.apply(done.volatile, volatile);
        }
        let commits = done.commits.into_iter().map(|(_, commit)| commit);
        self.shared.tail.publish(commits, done.revision);
    }

    /// After a failed write nothing is known about the disk: only a restart reads it again. The
    /// watches end, so that whoever serves from them notices.
    fn fail(&mut self, failure: &Failure) -> StoreError {
        tracing::error!(error = %failure, "the store cannot write any more");
        let error = StoreError::Io(failure.to_string().into());
        self.broken = Some(error.clone());
        self.shared.tail.close();
        error
    }

    /// An ordered end gives the unused revisions back.
    fn finish(mut self) {
        self.shared.tail.close();
        if self.broken.is_none() && self.meta.ceiling > self.revision {
            self.meta.ceiling = self.revision;
            if let Err(error) = write_meta(&self.shared, self.meta) {
                tracing::warn!(%error, "the store was not closed cleanly; nothing is lost");
            }
        }
    }
}

/// What a request wants, apart from who waits for it.
enum Asked {
    Commit(Vec<Write>),
    Compact(Revision),
}

/// Who waits, and what they will hear if the disk agrees.
enum Answer {
    Commit(oneshot::Sender<Result<Revision>>, Result<Revision>),
    Compact(oneshot::Sender<Result<()>>),
}

/// What a finished batch changes in memory.
struct Done {
    meta: Meta,
    revision: Revision,
    volatile: BTreeMap<Arc<str>, Option<Entry>>,
    commits: Vec<(Lifetime, Arc<Commit>)>,
}

impl Request {
    fn split(self) -> (Asked, Answer) {
        match self {
            Self::Commit { writes, answer } => (
                Asked::Commit(writes),
                Answer::Commit(answer, Err(StoreError::Closed)),
            ),
            Self::Compact { upto, answer } => (Asked::Compact(upto), Answer::Compact(answer)),
        }
    }
}

impl Asked {
    fn touches_disk(&self) -> bool {
        match self {
            Self::Commit(writes) => writes.iter().any(|w| w.lifetime == Lifetime::Durable),
            Self::Compact(_) => true,
        }
    }
}

impl Answer {
    fn send(self) {
        // Who does not wait any more needs no answer.
        match self {
            Self::Commit(waiter, result) => drop(waiter.send(result)),
            Self::Compact(waiter) => drop(waiter.send(Ok(()))),
        }
    }

    fn refuse(self, error: &StoreError) {
        match self {
            Self::Commit(waiter, _) => drop(waiter.send(Err(error.clone()))),
            Self::Compact(waiter) => drop(waiter.send(Err(error.clone()))),
        }
    }
}

impl From<Batch<'_>> for Done {
    fn from(batch: Batch<'_>) -> Self {
        let Batch {
            meta,
            revision,
            volatile,
            commits,
            ..
        } = batch;
        Self {
            meta,
            revision,
            volatile,
            commits,
        }
    }
}

fn run(batch: &mut Batch<'_>, asked: Vec<Asked>, answers: &mut [Answer]) -> Result<(), Failure> {
    for (asked, answer) in asked.into_iter().zip(answers) {
        match (asked, answer) {
            (Asked::Commit(writes), Answer::Commit(_, result)) => *result = batch.commit(writes)?,
            (Asked::Compact(upto), _) => batch.compact(upto)?,
            (Asked::Commit(_), Answer::Compact(_)) => unreachable!("requests split in pairs"),
        }
    }
    Ok(())
}

/// Writes the one row of `META` in a transaction of its own.
pub(super) fn write_meta(shared: &Shared, meta: Meta) -> Result<(), Failure> {
    let transaction = shared.database.begin_write()?;
    put_meta(&transaction, meta)?;
    Ok(transaction.commit()?)
}

pub(super) fn put_meta(transaction: &WriteTransaction, meta: Meta) -> Result<(), Failure> {
    let mut table = transaction.open_table(META)?;
    table.insert(STATE, meta.encode().as_slice())?;
    Ok(())
}
