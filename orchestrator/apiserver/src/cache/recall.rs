//! What happened before this process began. All agents come back at once when a server starts again, and each
//! resumes its watches where they were: the store's log is read once for all of them, and kept as the history
//! keeps what is older.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::history::Past;
use super::kind::Kind;
use super::watch::events;
use super::{Inner, ROOT, kind_of};
use api::{Lifetime, Resource};
use store::{Revision, StoreError};

/// Commits that one read of the log takes.
const CHUNK: usize = 128;

/// How far back the log has been read.
pub(super) struct Recall(Mutex<Revision>);

/// A kind, and what it is about to be told.
struct Told {
    kind: Arc<Kind>,
    resource: Arc<Resource>,
    past: Past,
}

impl Recall {
    /// Nothing before this revision has been read.
    pub fn new(loaded: Revision) -> Self {
        Self(Mutex::new(loaded))
    }

    /// Returns when the histories have every change behind `from`, as far as there is room. Who asks while another one
    /// reads waits, and most often finds everything.
    pub async fn reach(&self, cache: &Inner, from: Revision) -> Result<(), StoreError> {
        let mut reached = self.0.lock().await;
        let until = *reached;
        if from >= until {
            return Ok(());
        }
        let mut kinds = kinds(cache);
        let mut read = from;
        while read < until {
            let (commits, upto) = cache.store.history(ROOT, read, CHUNK).await?;
            let commits = commits.iter().filter(|commit| commit.revision <= until);
            for commit in commits {
                let mut prefixes: Vec<&str> = Vec::new();
                let of_events = commit.events.iter().filter_map(|it| kind_of(&it.key));
                of_events.for_each(|it| {
                    if !prefixes.contains(&it) {
                        prefixes.push(it);
                    }
                });
                for prefix in prefixes {
                    if let Some(told) = kinds.get_mut(prefix) {
                        let events = events(&told.resource, commit, prefix);
                        events.into_iter().for_each(|event| told.past.push(event));
                    }
                }
            }
            read = upto.max(read + 1);
            // Others have their turn between two parts.
            tokio::task::yield_now().await;
        }
        for told in kinds.into_values() {
            told.kind.recall((from, until), told.past);
        }
        *reached = from;
        cache.limit_past();
        Ok(())
    }
}

/// All kinds whose changes are in the log.
fn kinds(cache: &Inner) -> HashMap<Box<str>, Told> {
    let kinds = cache.all_kinds().into_iter();
    let told = kinds.map(|(prefix, kind)| {
        let resource = kind.state().resource.clone();
        let past = Past::default();
        (
            prefix,
            Told {
                kind,
                resource,
                past,
            },
        )
    });
    told.filter(|(_, told)| told.resource.lifetime != Lifetime::Volatile)
        .collect()
}
