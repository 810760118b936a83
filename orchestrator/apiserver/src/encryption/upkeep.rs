//! Changing what the store is encrypted with, while no server has it open.
//!
//! Each step leaves a file that reads everything which is stored: a command that was interrupted is
//! run again. At the end the store is written anew, so that neither its history nor its free pages
//! hold a value in its former form. (What the file system keeps of the former file is not ours.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{self, Encryption, EncryptionError, Rule, new_key, of_keys, reading_keys};
use super::{EncryptedStore, OWN_SECRETS, announce, seal};
use store::{EmbeddedStore, Expect, Range, Store, Write};

/// Entries that are read at once.
const PAGE: usize = 200;
const ROOT: &str = "/registry/";
pub(super) const SECRETS: &str = "/registry/core/secrets/";

/// Where a server keeps what this is about.
#[derive(Clone, Debug)]
pub struct Place {
    pub store: PathBuf,
    pub file: PathBuf,
}

/// How Secrets are stored.
#[derive(Debug, Default, PartialEq)]
pub struct Status {
    /// New ones are encrypted.
    pub is_on: bool,
    /// How many there are, by what they are encrypted with; `""`: not encrypted.
    pub secrets: BTreeMap<String, usize>,
}

/// Looks at every Secret, and opens none.
pub async fn status(place: &Place) -> Result<Status, EncryptionError> {
    let encryption = Encryption::read(&place.file)?;
    let store = EmbeddedStore::open(&place.store)?;
    let mut status = Status {
        is_on: encryption.is_some_and(|encryption| encryption.is_on()),
        ..Status::default()
    };
    let mut count = |_: &str, _, value: &[u8]| {
        let by = seal::sealed_by(value).unwrap_or_default();
        *status.secrets.entry(by).or_default() += 1;
    };
    store.visit(SECRETS, &mut count).await?;
    Ok(status)
}

/// Stores everything as the file says. Without a file one is made, with a key.
pub async fn rewrite(place: &Place) -> Result<usize, EncryptionError> {
    if Encryption::read(&place.file)?.is_none() {
        config::write(&place.file, &of_keys(&[new_key()]))?;
    }
    store_again(place).await
}

/// A new key encrypts everything; the former ones go.
pub async fn rotate(place: &Place) -> Result<usize, EncryptionError> {
    let mut keys = vec![new_key()];
    keys.extend(config::own_keys(&place.file)?);
    config::write(&place.file, &of_keys(&keys))?;
    let count = store_again(place).await?;
    config::write(&place.file, &of_keys(&keys[..1]))?;
    Ok(count)
}

/// Nothing is encrypted any more, and no key is left.
pub async fn off(place: &Place) -> Result<usize, EncryptionError> {
    let keys = config::own_keys(&place.file)?;
    if !keys.is_empty() {
        config::write(&place.file, &reading_keys(&keys))?;
    }
    let count = store_again(place).await?;
    config::write(&place.file, &of_keys(&[]))?;
    Ok(count)
}

/// Writes every value that is not stored as it would be now; how many there were.
async fn store_again(place: &Place) -> Result<usize, EncryptionError> {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&place.store)?);
    let encryption = Encryption::load_or_create(&place.file, false)?;
    // Where the store is moved to, several servers may compare it.
    announce(&*store, &encryption).await?;
    let encrypted = EncryptedStore::new(store.clone(), encryption);
    let mut count = 0;
    for root in [ROOT, OWN_SECRETS] {
        count += below_again(&*store, &encrypted, root).await?;
    }
    drop((store, encrypted));
    store::renew(&place.store)?;
    Ok(count)
}

async fn below_again(
    store: &dyn Store,
    encrypted: &EncryptedStore,
    root: &str,
) -> Result<usize, EncryptionError> {
    let mut count = 0;
    let mut after: Option<String> = None;
    loop {
        let page = store.range(Range {
            after: after.as_deref(),
            limit: PAGE,
            ..Range::all(root)
        });
        let page = page.await?;
        let none = Rule::default();
        let mut writes = Vec::new();
        for entry in &page.entries {
            let rule = encrypted.opener.rule(&entry.key).unwrap_or(&none);
            if !rule.is_current(&entry.value) {
                let plain = encrypted.opener.bytes(&entry.key, &entry.value)?;
                let expect = Expect::At(entry.modified);
                writes.push(Write::put(&*entry.key, plain, expect));
            }
        }
        count += writes.len();
        encrypted.commit(writes).await?;
        after = page.entries.last().map(|entry| entry.key.to_string());
        if !page.more() {
            return Ok(count);
        }
    }
}

impl Place {
    /// In the directory of a server's data; `file` if it is elsewhere.
    pub fn in_directory(directory: &Path, file: Option<&Path>) -> Self {
        let own = || directory.join("pki").join("encryption.yaml");
        Self {
            store: directory.join("store.redb"),
            file: file.map_or_else(own, Path::to_owned),
        }
    }
}
