//! What survives a crash: a disk that loses power at any moment, and a process that is killed.

use std::collections::BTreeMap;
use std::io;
use std::io::{BufRead, Write as _};
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::super::{Expect, Revision, Store, StoreError, Write};
use super::*;

/// What a disk was told and has not promised yet.
#[derive(Clone, Debug)]
enum Unsynced {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

/// A disk that keeps of what was not synced whatever it likes, sector by sector.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What survives for certain.
    synced: Vec<u8>,
    /// What the running process sees.
    seen: Vec<u8>,
    unsynced: Vec<Unsynced>,
    /// Calls until the power goes.
    calls_left: u64,
}

const SECTOR: usize = 512;

impl Disk {
    pub fn new(contents: Vec<u8>, calls_left: u64) -> Self {
        let seen = contents.clone();
        let state = State {
            synced: contents,
            seen,
            unsynced: Vec::new(),
            calls_left,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Goes down with every read, write and sync.
    pub fn calls_left(&self) -> u64 {
        self.0.lock().unwrap().calls_left
    }

    /// What the next process finds.
    fn after_power_loss(&self, dice: &mut Dice) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let mut left = state.synced.clone();
        // From "all of it reached the platter" over "every other sector" to "none of it".
        let keep = [0, 10, 50, 90, 100][dice.below(5) as usize];
        for change in &state.unsynced {
            match change {
                Unsynced::Length(length) => {
                    if dice.below(100) < keep {
                        left.resize(*length, 0);
                    }
                }
                Unsynced::Write { offset, data } => {
                    let whole = dice.below(2) == 0;
                    let all = dice.below(100) < keep;
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        let kept = if whole { all } else { dice.below(100) < keep };
                        if kept {
                            put(&mut left, offset + index * SECTOR, sector);
                        }
                    }
                }
            }
        }
        left
    }

    fn call<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        if state.calls_left == 0 {
            return Err(io::Error::other("the power is gone"));
        }
        state.calls_left -= 1;
        act(&mut state)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.call(|state| Ok(state.seen.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.call(|state| {
            let from = offset as usize;
            let found = state.seen.get(from..from + out.len());
            out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(|state| {
            state.seen.resize(len as usize, 0);
            state.unsynced.push(Unsynced::Length(len as usize));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(|state| {
            state.synced = state.seen.clone();
            state.unsynced.clear();
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.call(|state| {
            let offset = offset as usize;
            put(&mut state.seen, offset, data);
            state.unsynced.push(Unsynced::Write {
                offset,
                data: data.to_vec(),
            });
            Ok(())
        })
    }
}

fn put(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if image.len() < offset + data.len() {
        image.resize(offset + data.len(), 0);
    }
    image[offset..offset + data.len()].copy_from_slice(data);
}

/// Numbers that look random and come out of a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// What the writers know: each counts, in two keys that change together.
#[derive(Default)]
struct Known {
    /// Writer → the count that was answered for, and the one that was asked for.
    counts: BTreeMap<u64, (u64, u64)>,
    /// The newest revision that anybody was told of.
    revision: Revision,
}

fn keys(writer: u64) -> [String; 2] {
    [format!("/c/{writer}/a"), format!("/c/{writer}/b")]
}

/// A value that says its count, of a size that varies from nothing to several pages.
fn value(count: u64, dice: &mut Dice) -> Vec<u8> {
    let mut value = format!("{count} ").into_bytes();
    let size = [0, 100, 2000, 9000][dice.below(4) as usize];
    value.resize(value.len() + size, b'x');
    value
}

fn count_of(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Writers write until the power is gone.
async fn write_until_the_end(store: &EmbeddedStore, known: &mut Known, dice: &mut Dice) {
    for round in 0.. {
        let mut asked = Vec::new();
        for writer in 0..1 + dice.below(4) {
            let counts = known.counts.entry(writer).or_default();
            counts.1 += 1;
            let value = value(counts.1, dice);
            let [a, b] = keys(writer);
            let writes = vec![
                Write::put(a, value.clone(), Expect::Any),
                Write::put(b, value, Expect::Any),
            ];
            asked.push((writer, counts.1, store.commit(writes)));
        }
        let (who, commits): (Vec<_>, Vec<_>) = asked
            .into_iter()
            .map(|(writer, count, commit)| ((writer, count), commit))
            .unzip();
        let lease = Write::put("/v/lease", "x", Expect::Any).volatile();
        let (answers, lease) = futures::join!(
            futures::future::join_all(commits),
            store.commit(vec![lease])
        );
        let mut down = false;
        for ((writer, count), answer) in who.into_iter().zip(answers) {
            match answer {
                Ok(revision) => {
                    known.counts.get_mut(&writer).unwrap().0 = count;
                    known.revision = known.revision.max(revision);
                }
                Err(StoreError::Io(_)) => down = true,
                Err(other) => panic!("{other}"),
            }
        }
        known.revision = known.revision.max(lease.unwrap_or(0));
        if down {
            assert!(
                store
                    .commit(vec![Write::delete("/x", Expect::Any)])
                    .await
                    .is_err()
            );
            return;
        }
        if round % 7 == 6 {
            // An answer or the end of the power: the next round tells.
            let _ = store.compact(store.revision().saturating_sub(3)).await;
        }
    }
}

/// Everything that was answered for is there, commits are whole, and the history agrees.
async fn check(store: &EmbeddedStore, known: &mut Known) {
    assert!(
        store.revision() > known.revision,
        "revisions do not go back"
    );
    for (writer, (answered, asked)) in &mut known.counts {
        let mut found = Vec::new();
        for key in keys(*writer) {
            let entry = store.get(&key).await.unwrap();
            found.push(entry.map_or((0, 0), |entry| (count_of(&entry.value), entry.modified)));
        }
        assert_eq!(found[0], found[1], "a commit is whole");
        let count = found[0].0;
        assert!(
            (*answered..=*asked).contains(&count),
            "{answered} <= {count} <= {asked}"
        );
        (*answered, *asked) = (count, count);
    }
    let compacted = store.shared.view_now().compacted;
    let (commits, reached) = store.history("/", compacted, usize::MAX).await.unwrap();
    assert_eq!(reached, store.revision());
    let at = super::super::Range {
        at: Some(compacted),
        ..super::super::Range::all("/")
    };
    let mut state: BTreeMap<_, _> = store
        .range(at)
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| (entry.key, entry.value))
        .collect();
    for commit in commits {
        for event in &commit.events {
            assert_eq!(
                state.get(&event.key),
                event.prev.as_ref(),
                "history is a chain"
            );
            match event.value.clone() {
                Some(value) => state.insert(event.key.clone(), value),
                None => state.remove(&event.key),
            };
        }
    }
    let now = store
        .range(super::super::Range::all("/"))
        .await
        .unwrap()
        .entries;
    assert!(
        now.into_iter()
            .map(|entry| (entry.key, entry.value))
            .eq(state)
    );
}

fn start(disk: &Disk) -> Result<EmbeddedStore, String> {
    let limits = HistoryLimits {
        rows: 40,
        bytes: 60_000,
    };
    let database = builder()
        .create_with_backend(disk.clone())
        .map_err(|e| e.to_string())?;
    EmbeddedStore::start(database, Path::new("disk"), limits).map_err(|e| e.to_string())
}

/// An empty store as it is on disk after it was made.
pub(super) fn fresh() -> Vec<u8> {
    let disk = Disk::new(Vec::new(), u64::MAX);
    let database = builder().create_with_backend(disk.clone()).unwrap();
    initialise(&database).unwrap();
    drop(database);
    let state = disk.0.lock().unwrap();
    assert!(state.unsynced.is_empty(), "closing syncs");
    state.synced.clone()
}

fn survive_crashes(seed: u64, fresh: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut dice = Dice(seed);
    let mut known = Known::default();
    let mut image = fresh.to_vec();
    for _ in 0..6 {
        let disk = Disk::new(image, 1 + dice.below(400));
        // The power can go while the store recovers from the loss before.
        if let Ok(store) = start(&disk) {
            runtime.block_on(write_until_the_end(&store, &mut known, &mut dice));
        }
        image = disk.after_power_loss(&mut dice);
        let disk = Disk::new(image, u64::MAX);
        let store = start(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        runtime.block_on(check(&store, &mut known));
        // The next round begins with what this recovery has synced.
        image = disk.0.lock().unwrap().synced.clone();
    }
}

#[test]
fn whatever_the_disk_loses_nothing_answered_is_lost() {
    let fresh = fresh();
    let seeds: u64 = std::env::var("CRASH_SEEDS")
        .ok()
        .map_or(60, |text| text.parse().unwrap());
    for seed in 0..seeds {
        survive_crashes(seed, &fresh);
    }
}

#[test]
fn a_disk_that_lies_about_syncing_is_noticed_by_this_test() {
    // The test itself must be able to fail: without syncs answered commits are lost.
    let lost = (0..20).filter(|&seed| {
        let mut dice = Dice(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let disk = Disk::new(fresh(), 300);
        let synced = disk.0.lock().unwrap().synced.clone();
        let mut known = Known::default();
        if let Ok(store) = start(&disk) {
            runtime.block_on(write_until_the_end(&store, &mut known, &mut dice));
        }
        let disk = Disk::new(synced, u64::MAX);
        let store = start(&disk).unwrap();
        let found = runtime.block_on(store.get(&keys(0)[0])).unwrap();
        found.map_or(0, |entry| count_of(&entry.value)) < known.counts[&0].0
    });
    assert_eq!(lost.count(), 20);
}

const CHILD: &str = "STORE_CRASH_CHILD";

/// Not a test of its own: what the next one kills.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(EmbeddedStore::open(Path::new(&path)).unwrap());
        let from = store
            .get("/n")
            .await
            .unwrap()
            .map_or(0, |entry| count_of(&entry.value));
        for count in from + 1.. {
            let writes = vec![
                Write::put("/n", count.to_string(), Expect::Any),
                Write::put(format!("/all/{count}"), count.to_string(), Expect::Absent),
            ];
            let revision = store.commit(writes).await.unwrap();
            println!("committed {count} {revision}");
            std::io::stdout().flush().unwrap();
        }
    });
}

#[test]
fn a_killed_process_loses_nothing_that_it_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut dice = Dice(1);
    let mut told = (0, 0);
    for _ in 0..5 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["child_that_commits_until_it_is_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = 20 + dice.below(100);
        for line in lines.map_while(Result::ok) {
            let words: Vec<_> = line
                .split("committed ")
                .nth(1)
                .unwrap_or_default()
                .split(' ')
                .collect();
            if let [count, revision] = words[..] {
                told = (count.parse().unwrap(), revision.parse().unwrap());
                left -= 1;
            }
            if left == 0 {
                child.kill().unwrap();
                left = u64::MAX;
            }
        }
        child.wait().unwrap();
        let store = EmbeddedStore::open(&path).unwrap();
        runtime.block_on(async {
            let found = store.get("/n").await.unwrap().unwrap();
            let count = count_of(&found.value);
            assert!(count >= told.0 && store.revision() > told.1);
            let all = store
                .range(super::super::Range::all("/all/"))
                .await
                .unwrap();
            assert_eq!(all.entries.len() as u64, count);
        });
    }
}

#[test]
fn a_file_is_the_owners_alone_and_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let _open = EmbeddedStore::open(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds secrets");
    let error = EmbeddedStore::open(&path).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
}

#[test]
fn a_newer_format_and_a_foreign_or_damaged_file_are_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let path = directory.path().join(name);
        EmbeddedStore::open(&path)
            .map(|_| ())
            .map_err(|error| (error.to_string(), error))
    };
    let path = directory.path().join("newer");
    create(&path).unwrap();
    let database = builder().open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut meta = Meta::empty().encode();
    meta[0] = 9;
    transaction
        .open_table(META)
        .unwrap()
        .insert(STATE, meta.as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let (text, error) = open("newer").unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 9, .. }), "{text}");

    std::fs::write(directory.path().join("foreign"), "hello ".repeat(5000)).unwrap();
    let (text, error) = open("foreign").unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{text}");
    assert!(text.contains("restore a backup"), "{text}");

    create(&directory.path().join("short")).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(directory.path().join("short"))
        .unwrap();
    file.set_len(5000).unwrap();
    let (text, error) = open("short").unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{text}");
    std::fs::write(directory.path().join("empty"), "").unwrap();
    assert!(open("empty").is_err());
}
