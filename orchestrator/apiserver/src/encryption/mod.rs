//! Secrets, and whatever else a file names, encrypted in the store.
//!
//! ```text
//! objects, cache ──▶ EncryptedStore ──▶ store: `k8s:enc:aesgcm:v1:KEY:` nonce, ciphertext, tag
//!   plain values       seals, opens       neither its rows nor its log hold a plain value
//! ```
//!
//! The key of an object is authenticated with its value: a value is no good under another key. Values
//! are plain in memory only. What is encrypted by which keys is said by an EncryptionConfiguration
//! (`config`); a new cluster gets one with a key of its own. `upkeep` changes keys while no server runs.

mod config;
mod scheme;
mod seal;
pub mod upkeep;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};

use store::{
    Chunk, Commit, CommitStream, Entry, Event, Leadership, Page, Range, Revision, Store,
    StoreError, Visitor, Write,
};

pub use config::{Encryption, EncryptionError};
pub use scheme::{KEY as SCHEME, Scheme, announce, clash};

use config::Rule;
use seal::Unsealed;

/// Where the servers keep secrets of their own that all of them need: they are encrypted as Secrets are.
pub const OWN_SECRETS: &str = "/cluster/secrets/";

/// A store whose values are encrypted on their way in, and decrypted on their way out.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    opener: Arc<Opener>,
}

/// What values are encrypted with.
struct Opener {
    rules: Vec<Rule>,
    /// Named in errors.
    file: PathBuf,
}

impl EncryptedStore {
    pub fn new(inner: Arc<dyn Store>, encryption: Encryption) -> Self {
        let opener = Opener {
            rules: encryption.rules,
            file: encryption.file,
        };
        Self {
            inner,
            opener: Arc::new(opener),
        }
    }

    fn sealed(&self, writes: Vec<Write>) -> Vec<Write> {
        let seal = |mut write: Write| {
            if let (Some(rule), Some(value)) = (self.opener.rule(&write.key), &write.value) {
                write.value = Some(rule.seal(&write.key, value));
            }
            write
        };
        writes.into_iter().map(seal).collect()
    }
}

impl Opener {
    /// The first rule for a key.
    fn rule(&self, key: &str) -> Option<&Rule> {
        let key = if key.starts_with(OWN_SECRETS) {
            upkeep::SECRETS
        } else {
            key
        };
        self.rules.iter().find(|rule| rule.is_for(key))
    }

    /// A value as it was before it was encrypted.
    fn open<'a>(&self, key: &str, value: &'a [u8]) -> Result<Unsealed<'a>, StoreError> {
        let none = Rule::default();
        let rule = self.rule(key).unwrap_or(&none);
        rule.open(key, value).map_err(|why| StoreError::Unreadable {
            key: key.to_owned(),
            why: format!("{why} ({})", self.file.display()).into(),
        })
    }

    fn bytes(&self, key: &str, value: &Bytes) -> Result<Bytes, StoreError> {
        Ok(match self.open(key, value)? {
            Unsealed::AsItWas(_) => value.clone(),
            Unsealed::Decrypted(plain) => plain.into(),
        })
    }

    fn entry(&self, entry: Entry) -> Result<Entry, StoreError> {
        let value = self.bytes(&entry.key, &entry.value)?;
        Ok(Entry { value, ..entry })
    }

    fn commit(&self, commit: Arc<Commit>) -> Result<Arc<Commit>, StoreError> {
        let is_plain = |event: &Event| self.rule(&event.key).is_none();
        if commit.events.iter().all(is_plain) {
            return Ok(commit);
        }
        let open = |key: &str, value: &Option<Bytes>| {
            let value = value.as_ref();
            value.map(|value| self.bytes(key, value)).transpose()
        };
        let events = commit.events.iter().map(|event| {
            Ok(Event {
                key: event.key.clone(),
                value: open(&event.key, &event.value)?,
                prev: open(&event.key, &event.prev)?,
            })
        });
        Ok(Arc::new(Commit {
            revision: commit.revision,
            events: events.collect::<Result<_, StoreError>>()?,
        }))
    }
}

impl Store for EncryptedStore {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn fresh(&self) -> BoxFuture<'_, store::Result<Revision>> {
        self.inner.fresh()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, store::Result<Option<Entry>>> {
        async move {
            let entry = self.inner.get(key).await?;
            entry.map(|entry| self.opener.entry(entry)).transpose()
        }
        .boxed()
    }

    fn range<'a>(&'a self, range: Range<'a>) -> BoxFuture<'a, store::Result<Page>> {
        async move {
            let page = self.inner.range(range).await?;
            let entries = page.entries.into_iter();
            let entries = entries.map(|entry| self.opener.entry(entry));
            Ok(Page {
                entries: entries.collect::<Result<_, _>>()?,
                ..page
            })
        }
        .boxed()
    }

    fn visit<'a>(
        &'a self,
        prefix: &'a str,
        visitor: Visitor<'a>,
    ) -> BoxFuture<'a, store::Result<Revision>> {
        async move {
            let mut failed = None;
            let mut open =
                |key: &str, revision: Revision, value: &[u8]| match self.opener.open(key, value) {
                    Ok(plain) => visitor(key, revision, plain.bytes()),
                    Err(error) => failed = failed.take().or(Some(error)),
                };
            let revision = self.inner.visit(prefix, &mut open).await?;
            failed.map_or(Ok(revision), Err)
        }
        .boxed()
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, store::Result<Revision>> {
        async move {
            let committed = self.inner.commit(self.sealed(writes)).await;
            match committed {
                Err(StoreError::Conflict { key, current }) => {
                    let current = current.map(|entry| self.opener.entry(*entry));
                    Err(StoreError::Conflict {
                        key,
                        current: current.transpose()?.map(Box::new),
                    })
                }
                other => other,
            }
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, from: Revision) -> store::Result<CommitStream> {
        let opener = self.opener.clone();
        let commits = self.inner.watch(prefix, from)?;
        let open = move |commit: store::Result<Arc<Commit>>| opener.commit(commit?);
        Ok(commits.map(open).boxed())
    }

    fn history<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
        limit: usize,
    ) -> BoxFuture<'a, store::Result<Chunk>> {
        async move {
            let (commits, reached) = self.inner.history(prefix, from, limit).await?;
            let commits = commits.into_iter().map(|commit| self.opener.commit(commit));
            Ok((commits.collect::<Result<_, _>>()?, reached))
        }
        .boxed()
    }

    fn compact(&self, upto: Revision) -> BoxFuture<'_, store::Result<()>> {
        self.inner.compact(upto)
    }

    fn members(&self) -> Option<store::etcd::Members> {
        self.inner.members()
    }

    fn kept(&self) -> Option<Arc<dyn Store>> {
        Some(self.inner.clone())
    }

    fn campaign<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
    ) -> BoxFuture<'a, store::Result<Leadership>> {
        self.inner.campaign(name, holder)
    }
}
