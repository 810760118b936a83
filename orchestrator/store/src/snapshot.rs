//! A store in a file, and back: one format for every backend, so that a snapshot of one is restored into any.
//!
//! ```text
//!  first line   orchestrator snapshot 1
//!  second line  {"revision": …, "taken": seconds, "authority": "…"}
//!  entries      length, key, length, value …      lengths are u32, little-endian; values as the store keeps them
//!  end          0, count (u64), SHA-256 of all before
//! ```
//!
//! A file that is there under its name is whole. Values that were encrypted stay so: the snapshot is read with the
//! keys of its cluster.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Expect, Revision, Store, StoreError, Write};

const MAGIC: &str = "orchestrator snapshot 1\n";
/// The second line.
const HEADER_BYTES: u64 = 4096;
const KEY_BYTES: u32 = 64 << 10;
const VALUE_BYTES: u32 = 64 << 20;
/// Of one commit: below what etcd takes.
const COMMIT_WRITES: usize = 64;
const COMMIT_BYTES: usize = 512 << 10;
/// A restored store begins so far above its snapshot, ...
const LEAP: Revision = 1_000_000_000;
/// ... and so much further for each second since: more than any store writes.
const LEAP_PER_SECOND: Revision = 100_000;
/// etcd counts in 63 bits. What is above its half leaves no room to count on.
const HIGHEST_BASE: Revision = 1 << 62;
/// The extensions of the files beside a snapshot while it is taken.
const PARTS: [&str; 2] = ["entries", "partial"];
/// Parts that nobody has written to for so long were left by a process that was killed.
const LEFT_AFTER: Duration = Duration::from_secs(3600);

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// It holds every commit up to this one, and none of later.
    pub revision: Revision,
    /// When it was taken, in seconds since 1970.
    pub taken: i64,
    /// Fingerprint of the cluster's authority.
    pub authority: String,
}

impl Header {
    /// Where the revisions of a store begin that is made of this snapshot at `now`, in seconds since 1970: above
    /// all that its cluster has given out since, also after an earlier restore of the same snapshot. `None`: no
    /// store counts so far.
    pub fn restored_base(&self, now: i64) -> Option<Revision> {
        let seconds = u64::try_from(now.saturating_sub(self.taken)).unwrap_or(0);
        let leap = LEAP.checked_add(seconds.checked_mul(LEAP_PER_SECOND)?)?;
        let base = self.revision.checked_add(leap)?;
        (base <= HIGHEST_BASE).then_some(base)
    }
}

/// Why there is no snapshot, or nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not a whole snapshot: {why}")]
    Damaged { path: PathBuf, why: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes what the store holds into a new file, for the owner alone, and says what it holds.
pub async fn save(
    store: &dyn Store,
    path: &Path,
    authority: &str,
    taken: i64,
) -> Result<Header, SnapshotError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| SnapshotError::Io { path, source }
    };
    // The revision stands before the entries and is known after them.
    let [entries, partial] = PARTS.map(|extension| path.with_extension(extension));
    let gone = [Remove(entries.clone()), Remove(partial.clone())];
    let (revision, count) = save_entries(store, &entries).await?;
    let header = Header {
        revision,
        taken,
        authority: authority.to_owned(),
    };
    let to = Hashing::new(create(&partial).map_err(at(&partial))?);
    assemble(to, &header, (&entries, count), (&partial, path)).map_err(at(path))?;
    drop(gone);
    Ok(header)
}

/// Removes the parts of snapshots that were never finished.
pub fn remove_leftovers(directory: &Path, now: SystemTime) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_part = PARTS
            .iter()
            .any(|part| path.extension().is_some_and(|it| it == *part));
        if !is_part {
            continue;
        }
        let written = std::fs::symlink_metadata(&path)?.modified()?;
        if now
            .duration_since(written)
            .is_ok_and(|age| age > LEFT_AFTER)
        {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Puts a snapshot together out of its parts; it is whole when it has its name.
fn assemble(
    mut to: Hashing,
    header: &Header,
    (entries, count): (&Path, u64),
    (partial, path): (&Path, &Path),
) -> io::Result<()> {
    to.write_all(MAGIC.as_bytes())?;
    to.write_all(serde_json::to_string(header)?.as_bytes())?;
    to.write_all(b"\n")?;
    io::copy(&mut File::open(entries)?, &mut to)?;
    to.write_all(&0_u32.to_le_bytes())?;
    to.write_all(&count.to_le_bytes())?;
    let (digest, mut inner) = to.finish();
    inner.write_all(&digest)?;
    let file = inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    std::fs::rename(partial, path)?;
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

async fn save_entries(store: &dyn Store, path: &Path) -> Result<(Revision, u64), SnapshotError> {
    let at = |source| SnapshotError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = BufWriter::new(create(path).map_err(at)?);
    let (mut written, mut count) = (Ok(()), 0_u64);
    let mut write = |key: &str, _: Revision, value: &[u8]| {
        if written.is_ok() {
            count += 1;
            written = put(&mut file, key.as_bytes()).and_then(|()| put(&mut file, value));
        }
    };
    let revision = store.visit("/", &mut write).await?;
    written.map_err(at)?;
    file.flush().map_err(at)?;
    Ok((revision, count))
}

fn put(to: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(bytes)
}

/// What a snapshot says of itself, whether it is whole or not.
pub fn header(path: &Path) -> Result<Header, SnapshotError> {
    Ok(Entries::open(path)?.header)
}

/// Reads what a snapshot says of itself and whether it is whole, and counts its keys.
pub fn check(path: &Path) -> Result<(Header, u64), SnapshotError> {
    let mut entries = Entries::open(path)?;
    while entries.next()?.is_some() {}
    Ok((entries.header, entries.count))
}

/// Writes a snapshot into a store that has nothing of its own yet; how many keys there are.
///
/// # Errors
/// Of a damaged file a part may be written: `check` it first.
pub async fn restore(path: &Path, store: &dyn Store) -> Result<u64, SnapshotError> {
    let mut entries = Entries::open(path)?;
    let (mut writes, mut bytes) = (Vec::new(), 0);
    while let Some((key, value)) = entries.next()? {
        let size = key.len() + value.len();
        if writes.len() == COMMIT_WRITES || bytes + size > COMMIT_BYTES {
            store.commit(std::mem::take(&mut writes)).await?;
            bytes = 0;
        }
        bytes += size;
        writes.push(Write::put(key, value, Expect::Absent));
    }
    if !writes.is_empty() {
        store.commit(writes).await?;
    }
    Ok(entries.count)
}

/// The entries of a snapshot, one after the other; after the last one the digest is found right.
struct Entries {
    path: PathBuf,
    header: Header,
    from: HashingReader,
    count: u64,
    is_over: bool,
}

impl Entries {
    fn open(path: &Path) -> Result<Self, SnapshotError> {
        let file = File::open(path).map_err(|source| SnapshotError::Io {
            path: path.to_owned(),
            source,
        })?;
        let damaged = |why| SnapshotError::Damaged {
            path: path.to_owned(),
            why,
        };
        let mut from = HashingReader {
            inner: BufReader::new(file),
            hash: Sha256::new(),
        };
        let no_snapshot = || damaged("it does not begin as one");
        let magic = from.line(MAGIC.len() as u64).ok_or_else(no_snapshot)?;
        if magic != MAGIC {
            return Err(no_snapshot());
        }
        let header = from.line(HEADER_BYTES);
        let header = header.and_then(|line| serde_json::from_str(&line).ok());
        Ok(Self {
            path: path.to_owned(),
            header: header.ok_or_else(|| damaged("its description does not read"))?,
            from,
            count: 0,
            is_over: false,
        })
    }

    fn next(&mut self) -> Result<Option<(String, Bytes)>, SnapshotError> {
        if self.is_over {
            return Ok(None);
        }
        let damaged = |why| SnapshotError::Damaged {
            path: self.path.clone(),
            why,
        };
        let cut = || damaged("it ends too early");
        let length = self.from.word().ok_or_else(cut)?;
        if length == 0 {
            let count = self.from.take::<8>().ok_or_else(cut)?;
            let digest = self.from.hash.clone().finalize();
            let kept = self.from.take::<32>().ok_or_else(cut)?;
            if u64::from_le_bytes(count) != self.count || kept[..] != digest[..] {
                return Err(damaged("its checksum is another one"));
            }
            self.is_over = true;
            return Ok(None);
        }
        let key = (length <= KEY_BYTES).then(|| self.from.bytes(length));
        let key = key.flatten().and_then(|key| String::from_utf8(key).ok());
        let key = key.ok_or_else(|| damaged("a key does not read"))?;
        let length = self.from.word().filter(|length| *length <= VALUE_BYTES);
        let value = length.and_then(|length| self.from.bytes(length));
        let value = value.ok_or_else(|| damaged("a value does not read"))?;
        self.count += 1;
        Ok(Some((key, value.into())))
    }
}

struct HashingReader {
    inner: BufReader<File>,
    hash: Sha256,
}

impl HashingReader {
    fn bytes(&mut self, length: u32) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut part = (&mut self.inner).take(length.into());
        let read = part.read_to_end(&mut bytes).ok()?;
        self.hash.update(&bytes);
        (read == length as usize).then_some(bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(u32::try_from(N).ok()?)?.try_into().ok()
    }

    fn word(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// With its end.
    fn line(&mut self, most: u64) -> Option<String> {
        let mut line = Vec::new();
        let mut part = (&mut self.inner).take(most);
        part.read_until(b'\n', &mut line).ok()?;
        self.hash.update(&line);
        let line = String::from_utf8(line).ok()?;
        line.ends_with('\n').then_some(line)
    }
}

struct Hashing {
    inner: BufWriter<File>,
    hash: Sha256,
}

impl Hashing {
    fn new(file: File) -> Self {
        Self {
            inner: BufWriter::new(file),
            hash: Sha256::new(),
        }
    }

    fn finish(self) -> ([u8; 32], BufWriter<File>) {
        (self.hash.finalize().into(), self.inner)
    }
}

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Removes a file that is in the way, or left.
struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        // Mostly it is not there any more.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A new file: one that a killed process left is removed, and a link in its place is not followed.
fn create(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EmbeddedStore, MemoryStore, Range};

    async fn filled() -> MemoryStore {
        let store = MemoryStore::default();
        for number in 0..200 {
            let key = format!("/registry/a/{number:03}");
            let value = vec![b'x'; number * 50];
            let write = Write::put(key, value, Expect::Absent);
            store.commit(vec![write]).await.unwrap();
        }
        store
    }

    fn keys_and_values(page: crate::Page) -> Vec<(String, Bytes)> {
        let entries = page.entries.into_iter();
        entries.map(|it| (it.key.to_string(), it.value)).collect()
    }

    #[tokio::test]
    async fn a_restored_store_holds_what_was_saved_and_begins_above_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.snapshot");
        let store = filled().await;
        let header = save(&store, &file, "ca", 7).await.unwrap();
        assert_eq!((header.revision, header.taken), (200, 7));
        assert_eq!(check(&file).unwrap(), (header.clone(), 200));
        // Neither of the files beside it is left.
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let base = header.restored_base(7).unwrap();
        let path = directory.path().join("store.redb");
        let restored = EmbeddedStore::create(&path, base).unwrap();
        assert_eq!(restore(&file, &restored).await.unwrap(), 200);
        let all = Range::all("/");
        let (before, after) = (store.range(all).await, restored.range(all).await);
        let after = after.unwrap();
        assert!(after.entries.iter().all(|entry| entry.modified > base));
        assert_eq!(keys_and_values(before.unwrap()), keys_and_values(after));
        for old in [header.revision, header.revision + 5000, base - 1] {
            let watch = restored.watch("/", old).err();
            assert!(matches!(watch, Some(StoreError::Compacted { .. })), "{old}");
        }
        drop(restored);
        let again = EmbeddedStore::create(&path, base)
            .err()
            .map(|it| it.to_string());
        assert!(
            again.unwrap_or_default().contains("store.redb"),
            "a store was replaced"
        );
    }

    fn header(revision: Revision, taken: i64) -> Header {
        let authority = "ca".to_owned();
        Header {
            revision,
            taken,
            authority,
        }
    }

    #[test]
    fn a_second_restore_of_a_snapshot_begins_above_what_the_first_one_gave_out() {
        let header = header(200, 7);
        let first = header.restored_base(10).unwrap();
        assert!(first > 200 + 5000);
        let given_out = first + 5000;
        assert!(header.restored_base(11).unwrap() > given_out);
        // A clock that was set back: no less than the least.
        assert_eq!(header.restored_base(0), Some(200 + LEAP));
    }

    #[test]
    fn no_snapshot_takes_the_revisions_beyond_what_is_counted() {
        for (revision, taken) in [(Revision::MAX, 7), (HIGHEST_BASE, 7), (1, i64::MIN)] {
            let base = header(revision, taken).restored_base(10);
            assert_eq!(base, None, "{revision} {taken}");
        }
    }

    #[test]
    fn parts_are_removed_that_a_killed_process_has_left() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.entries", "a.partial", "a.snapshot", "other"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let count = || std::fs::read_dir(directory.path()).unwrap().count();
        remove_leftovers(directory.path(), SystemTime::now()).unwrap();
        assert_eq!(count(), 4, "one that is being taken");
        remove_leftovers(directory.path(), SystemTime::now() + 2 * LEFT_AFTER).unwrap();
        assert_eq!(count(), 2);
        assert!(directory.path().join("a.snapshot").exists());
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let [target, part] = ["target", "a.partial"].map(|name| directory.path().join(name));
        std::fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, &part).unwrap();
        create(&part).unwrap().write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
    }

    #[tokio::test]
    async fn a_snapshot_that_was_cut_or_changed_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.snapshot");
        save(&filled().await, &file, "ca", 7).await.unwrap();
        let whole = std::fs::read(&file).unwrap();
        for cut in [0, 10, 30, 500, whole.len() - 1] {
            std::fs::write(&file, &whole[..cut]).unwrap();
            assert!(check(&file).is_err(), "cut at {cut}");
        }
        for place in [
            3,
            60,
            300,
            whole.len() / 2,
            whole.len() - 40,
            whole.len() - 1,
        ] {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            std::fs::write(&file, &changed).unwrap();
            assert!(check(&file).is_err(), "changed at {place}");
        }
    }
}
