//! A store's file, written anew: pages that are free keep what they held, and so does the history.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::failure::{Failure, Malformed, OpenError};
use super::tables::{CURRENT, Meta, STATE};
use super::{EmbeddedStore, builder, create, read_meta, writer};

/// Rows that are written at once.
const ROWS: usize = 1000;

/// Writes the file anew, with what is there now alone: the new file holds nothing that is deleted or was
/// replaced, and no history. No process may have it open. A file that is there is always whole.
pub fn renew(path: &Path) -> Result<(), OpenError> {
    let fresh = path.with_extension(format!("{}.new", uuid::Uuid::new_v4().simple()));
    create(&fresh)?;
    let renewed = copy(path, &fresh).and_then(|()| {
        let io = |source| OpenError::io(path, source);
        std::fs::rename(&fresh, path).map_err(io)?;
        let directory = path
            .parent()
            .filter(|directory| !directory.as_os_str().is_empty());
        let directory = std::fs::File::open(directory.unwrap_or(Path::new("."))).map_err(io)?;
        directory.sync_all().map_err(io)
    });
    if renewed.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = std::fs::remove_file(&fresh);
    }
    renewed
}

fn copy(from: &Path, to: &Path) -> Result<(), OpenError> {
    // Whatever a killed process has left is put in order first, and a newer format is refused.
    drop(EmbeddedStore::open(from)?);
    let open = |path: &Path| {
        let opened = builder().open(path);
        opened.map_err(|error| OpenError::database(path, error.into()))
    };
    let (source, target) = (open(from)?, open(to)?);
    copy_rows(&source, &target).map_err(|failure| OpenError::failure(to, failure))
}

fn copy_rows(source: &Database, target: &Database) -> Result<(), Failure> {
    let reading = source.begin_read()?;
    let meta = read_meta(&reading)?.map_err(|_| Malformed(STATE))?;
    let current = reading.open_table(CURRENT)?;
    let mut rows = current.iter()?.peekable();
    while rows.peek().is_some() {
        let writing = target.begin_write()?;
        {
            let mut table = writing.open_table(CURRENT)?;
            for row in rows.by_ref().take(ROWS) {
                let (key, value) = row?;
                table.insert(key.value(), value.value())?;
            }
        }
        writing.commit()?;
    }
    let writing = target.begin_write()?;
    let renewed = Meta {
        compacted: meta.revision.max(meta.ceiling),
        log_bytes: 0,
        ..meta
    };
    writer::put_meta(&writing, renewed)?;
    Ok(writing.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expect, Range, Store, StoreError, Write};

    fn shows(path: &Path, text: &str) -> bool {
        let bytes = std::fs::read(path).unwrap();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }

    #[tokio::test]
    async fn a_renewed_file_holds_the_present_and_nothing_of_the_past() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = EmbeddedStore::open(&path).unwrap();
        let put = |key: &str, value: &str| vec![Write::put(key, value.to_owned(), Expect::Any)];
        store.commit(put("/a", "replaced-value")).await.unwrap();
        store.commit(put("/a", "present-value")).await.unwrap();
        store.commit(put("/b", "deleted-value")).await.unwrap();
        let deleted = vec![Write::delete("/b", Expect::Any)];
        let last = store.commit(deleted).await.unwrap();
        let before = store.range(Range::all("/")).await.unwrap();
        drop(store);
        assert!(shows(&path, "replaced-value") && shows(&path, "deleted-value"));
        renew(&path).unwrap();
        assert!(shows(&path, "present-value"));
        assert!(!shows(&path, "replaced-value") && !shows(&path, "deleted-value"));
        let store = EmbeddedStore::open(&path).unwrap();
        let after = store.range(Range::all("/")).await.unwrap();
        assert_eq!(after.entries, before.entries);
        assert!(after.revision > last);
        let gone = store.watch("/", last - 1).err();
        assert!(
            matches!(gone, Some(StoreError::Compacted { .. })),
            "{gone:?}"
        );
        // It is a store like any other.
        let next = store.commit(put("/c", "new")).await.unwrap();
        assert!(next > after.revision);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
