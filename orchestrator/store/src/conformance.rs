//! The contract of `Store` as tests: each runs against every backend, and random sequences of
//! operations are compared with the reference.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use proptest::prelude::*;

use super::embedded::{EmbeddedStore, HistoryLimits};
use super::etcd::testing::Etcd;
use super::*;

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(std::sync::Arc::new(super::MemoryStore::new())).await;
            })*
        }
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                let directory = tempfile::tempdir().unwrap();
                let store = super::EmbeddedStore::open(&directory.path().join("db")).unwrap();
                super::$name(std::sync::Arc::new(store)).await;
            })*
        }
        mod etcd {
            $(#[tokio::test]
            async fn $name() {
                let etcd = super::Etcd::start();
                super::$name(std::sync::Arc::new(etcd.open().await)).await;
            })*
        }

        /// One after the other, each below a prefix of its own.
        #[tokio::test]
        async fn an_etcd_of_three_members_keeps_all_of_it() {
            let three = Etcd::start_three();
            let mut config = three[0].config();
            config.members = three.iter().map(Etcd::member).collect();
            $({
                config.prefix = concat!("/", stringify!($name)).to_owned();
                let store = EtcdStore::open(&config).await.unwrap();
                $name(Arc::new(store)).await;
            })*
        }
    };
}

conformance!(
    a_commit_takes_one_revision_for_all_its_writes,
    a_commit_happens_whole_or_not_at_all,
    an_expectation_is_checked_against_what_is_there,
    a_delete_of_what_is_absent_takes_no_revision,
    a_range_is_read_in_pages_and_in_key_order,
    a_range_can_be_read_as_it_was,
    a_watch_tells_the_past_and_then_the_present,
    a_watch_sees_only_its_prefix,
    a_slow_watch_misses_nothing,
    compaction_forgets_the_past_and_nothing_else,
    a_revision_that_is_not_reached_is_refused,
    concurrent_compare_and_set_loses_no_update,
    volatile_keys_are_read_and_watched_like_others,
    malformed_commits_are_refused,
);

type Any = Arc<dyn Store>;

async fn put(store: &Any, key: &str, value: &'static str) -> Revision {
    store
        .commit(vec![Write::put(key, value, Expect::Any)])
        .await
        .unwrap()
}

async fn keys(store: &Any, range: Range<'_>) -> Vec<String> {
    let page = store.range(range).await.unwrap();
    page.entries
        .iter()
        .map(|entry| format!("{}={}", entry.key, text(&entry.value)))
        .collect()
}

fn text(value: &Bytes) -> &str {
    std::str::from_utf8(value).unwrap()
}

/// The next commits of a watch; it has no more to tell.
async fn told(stream: &mut CommitStream, count: usize) -> Vec<Arc<Commit>> {
    let mut commits = Vec::new();
    while commits.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
        commits.push(next.expect("in time").unwrap().unwrap());
    }
    commits.extend(told_at_once(stream));
    commits
}

/// Everything that a watch has to tell without waiting.
fn told_at_once(stream: &mut CommitStream) -> Vec<Arc<Commit>> {
    std::iter::from_fn(|| stream.next().now_or_never().flatten())
        .map(|item| item.unwrap())
        .collect()
}

/// `revision key prev>value` of each event.
fn lines(commits: &[Arc<Commit>]) -> Vec<String> {
    let show = |value: &Option<Bytes>| value.as_ref().map_or("-", text).to_owned();
    let line =
        |event: &Event| format!("{} {}>{}", event.key, show(&event.prev), show(&event.value));
    commits
        .iter()
        .flat_map(|commit| commit.events.iter().map(line))
        .collect()
}

async fn a_commit_takes_one_revision_for_all_its_writes(store: Any) {
    let before = store.revision();
    let writes = vec![
        Write::put("/a", "1", Expect::Any),
        Write::put("/b", "2", Expect::Absent),
    ];
    let revision = store.commit(writes).await.unwrap();
    assert_eq!((revision, store.revision()), (before + 1, before + 1));
    for key in ["/a", "/b"] {
        let entry = store.get(key).await.unwrap().unwrap();
        assert_eq!((entry.created, entry.modified), (revision, revision));
    }
    let next = put(&store, "/a", "3").await;
    let entry = store.get("/a").await.unwrap().unwrap();
    assert_eq!(
        (entry.created, entry.modified, text(&entry.value)),
        (revision, next, "3")
    );
}

async fn a_commit_happens_whole_or_not_at_all(store: Any) {
    put(&store, "/b", "there").await;
    let before = store.revision();
    let writes = vec![
        Write::put("/a", "1", Expect::Absent),
        Write::put("/b", "2", Expect::Absent),
    ];
    let refused = store.commit(writes).await;
    assert!(matches!(refused, Err(StoreError::Conflict { ref key, .. }) if key == "/b"));
    assert_eq!(store.get("/a").await.unwrap(), None);
    assert_eq!(store.revision(), before);
}

async fn an_expectation_is_checked_against_what_is_there(store: Any) {
    let made = put(&store, "/a", "1").await;
    let with = |expect| store.commit(vec![Write::put("/a", "2", expect)]);
    for wrong in [Expect::Absent, Expect::At(made - 1), Expect::At(made + 1)] {
        let Err(StoreError::Conflict {
            current: Some(current),
            ..
        }) = with(wrong).await
        else {
            panic!("{wrong:?} held");
        };
        assert_eq!((current.modified, text(&current.value)), (made, "1"));
    }
    let changed = with(Expect::At(made)).await.unwrap();
    let deleted = store
        .commit(vec![Write::delete("/a", Expect::At(changed))])
        .await
        .unwrap();
    assert_eq!(deleted, changed + 1);
    let missing = with(Expect::At(changed)).await;
    assert!(matches!(
        missing,
        Err(StoreError::Conflict { current: None, .. })
    ));
    with(Expect::Absent).await.unwrap();
}

async fn a_delete_of_what_is_absent_takes_no_revision(store: Any) {
    let before = put(&store, "/a", "1").await;
    let mut watch = store.watch("/", before).unwrap();
    let revision = store
        .commit(vec![Write::delete("/b", Expect::Any)])
        .await
        .unwrap();
    assert_eq!((revision, store.revision()), (before, before));
    assert_eq!(store.commit(Vec::new()).await.unwrap(), before);
    assert!(told(&mut watch, 0).await.is_empty());
}

async fn a_range_is_read_in_pages_and_in_key_order(store: Any) {
    for key in ["/p/c", "/p/a", "/q/x", "/p/d", "/o/x", "/p/b", "/p"] {
        put(&store, key, "1").await;
    }
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    for remaining in [2, 0] {
        let range = Range {
            after: after.as_deref(),
            limit: 2,
            ..Range::all("/p/")
        };
        let page = store.range(range).await.unwrap();
        assert_eq!(
            (page.remaining, page.revision),
            (remaining, store.revision())
        );
        seen.extend(page.entries.iter().map(|entry| entry.key.to_string()));
        after = seen.last().cloned();
    }
    assert_eq!(seen, ["/p/a", "/p/b", "/p/c", "/p/d"]);
}

async fn a_range_can_be_read_as_it_was(store: Any) {
    put(&store, "/a", "1").await;
    let then = put(&store, "/b", "1").await;
    put(&store, "/a", "2").await;
    put(&store, "/c", "1").await;
    store
        .commit(vec![Write::delete("/b", Expect::Any)])
        .await
        .unwrap();
    put(&store, "/b", "3").await;
    let as_of = |at| Range {
        at: Some(at),
        ..Range::all("/")
    };
    assert_eq!(keys(&store, as_of(then)).await, ["/a=1", "/b=1"]);
    assert_eq!(keys(&store, as_of(then + 3)).await, ["/a=2", "/c=1"]);
    assert_eq!(
        keys(&store, Range::all("/")).await,
        ["/a=2", "/b=3", "/c=1"]
    );
    let page = Range {
        after: Some("/a"),
        limit: 1,
        ..as_of(then)
    };
    assert_eq!(keys(&store, page).await, ["/b=1"]);
    let entries = store.range(as_of(then)).await.unwrap().entries;
    assert_eq!((entries[1].created, entries[1].modified), (then, then));
}

async fn a_watch_tells_the_past_and_then_the_present(store: Any) {
    let start = store.revision();
    put(&store, "/a", "1").await;
    let writes = vec![
        Write::put("/a", "2", Expect::Any),
        Write::put("/b", "1", Expect::Any),
    ];
    store.commit(writes).await.unwrap();
    let mut watch = store.watch("/", start).unwrap();
    let past = told(&mut watch, 2).await;
    assert_eq!(lines(&past), ["/a ->1", "/a 1>2", "/b ->1"]);
    assert_eq!(
        past.iter().map(|c| c.revision).collect::<Vec<_>>(),
        [start + 1, start + 2]
    );
    store
        .commit(vec![Write::delete("/a", Expect::Any)])
        .await
        .unwrap();
    let commit = watch.next().await.unwrap().unwrap();
    assert_eq!(
        (commit.revision, lines(&[commit])),
        (start + 3, vec!["/a 2>-".to_owned()])
    );
    assert!(told(&mut watch, 0).await.is_empty());
}

async fn a_watch_sees_only_its_prefix(store: Any) {
    let mut watch = store.watch("/a/", store.revision()).unwrap();
    put(&store, "/b/x", "1").await;
    let writes = vec![
        Write::put("/a/x", "1", Expect::Any),
        Write::put("/ab", "1", Expect::Any),
    ];
    store.commit(writes).await.unwrap();
    assert_eq!(lines(&told(&mut watch, 1).await), ["/a/x ->1"]);
}

async fn a_slow_watch_misses_nothing(store: Any) {
    let mut watch = store.watch("/", store.revision()).unwrap();
    put(&store, "/a", "0").await;
    assert!(watch.next().await.is_some());
    // More than any tail holds.
    let values: Vec<Bytes> = (0..400).map(|n: u32| n.to_string().into()).collect();
    for value in &values {
        store
            .commit(vec![Write::put("/a", value.clone(), Expect::Any)])
            .await
            .unwrap();
    }
    let told = told(&mut watch, values.len()).await;
    assert_eq!(told.len(), values.len());
    let (first, reached) = store.history("/", told[9].revision, 5).await.unwrap();
    assert_eq!(
        (first.as_slice(), reached),
        (&told[10..15], told[14].revision)
    );
    let (none, reached) = store.history("/b", told[9].revision, 5).await.unwrap();
    assert_eq!((none.len(), reached), (0, store.revision()));
    for (commit, value) in told.iter().zip(&values) {
        assert_eq!(commit.events[0].value.as_ref(), Some(value));
    }
}

async fn compaction_forgets_the_past_and_nothing_else(store: Any) {
    let start = store.revision();
    for value in ["1", "2", "3", "4"] {
        put(&store, "/a", value).await;
    }
    let at = start + 2;
    store.compact(at).await.unwrap();
    store.compact(at - 1).await.unwrap();
    let range = |at| Range {
        at: Some(at),
        ..Range::all("/")
    };
    let old = store.range(range(at - 1)).await;
    assert!(matches!(old, Err(StoreError::Compacted { oldest }) if oldest == at));
    assert!(matches!(
        store.watch("/", at - 1),
        Err(StoreError::Compacted { .. })
    ));
    assert_eq!(keys(&store, range(at)).await, ["/a=2"]);
    assert_eq!(
        lines(&told(&mut store.watch("/", at).unwrap(), 2).await),
        ["/a 2>3", "/a 3>4"]
    );
    assert_eq!(keys(&store, Range::all("/")).await, ["/a=4"]);
    assert_eq!(store.revision(), start + 4);
}

async fn a_revision_that_is_not_reached_is_refused(store: Any) {
    let ahead = put(&store, "/a", "1").await + 1;
    let range = Range {
        at: Some(ahead),
        ..Range::all("/")
    };
    assert!(matches!(
        store.range(range).await,
        Err(StoreError::Future { .. })
    ));
    assert!(matches!(
        store.watch("/", ahead),
        Err(StoreError::Future { .. })
    ));
}

async fn concurrent_compare_and_set_loses_no_update(store: Any) {
    put(&store, "/n", "0").await;
    let start = store.revision();
    let add = |store: Any| async move {
        for _ in 0..20 {
            loop {
                let entry = store.get("/n").await.unwrap().unwrap();
                let next = text(&entry.value).parse::<u32>().unwrap() + 1;
                let write = Write::put("/n", next.to_string(), Expect::At(entry.modified));
                if store.commit(vec![write]).await.is_ok() {
                    break;
                }
            }
        }
    };
    let tasks: Vec<_> = (0..16).map(|_| tokio::spawn(add(store.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(text(&store.get("/n").await.unwrap().unwrap().value), "320");
    assert_eq!(store.revision(), start + 320);
}

async fn volatile_keys_are_read_and_watched_like_others(store: Any) {
    let start = store.revision();
    put(&store, "/l/b", "durable").await;
    let lease = |value: &'static str, expect| {
        store.commit(vec![Write::put("/l/a", value, expect).volatile()])
    };
    let made = lease("1", Expect::Absent).await.unwrap();
    lease("2", Expect::At(made)).await.unwrap();
    assert!(matches!(
        lease("3", Expect::At(made)).await,
        Err(StoreError::Conflict { .. })
    ));
    let entry = store.get("/l/a").await.unwrap().unwrap();
    assert_eq!(
        (entry.created, entry.modified, text(&entry.value)),
        (made, made + 1, "2")
    );
    assert_eq!(
        keys(&store, Range::all("/l/")).await,
        ["/l/a=2", "/l/b=durable"]
    );
    store
        .commit(vec![Write::delete("/l/a", Expect::Any).volatile()])
        .await
        .unwrap();
    assert_eq!(keys(&store, Range::all("/l/")).await, ["/l/b=durable"]);
    let all = lines(&told(&mut store.watch("/l/", start).unwrap(), 4).await);
    assert_eq!(all, ["/l/b ->durable", "/l/a ->1", "/l/a 1>2", "/l/a 2>-"]);
}

async fn malformed_commits_are_refused(store: Any) {
    let write = |key: &str| Write::put(key, "1", Expect::Any);
    for commit in [
        vec![write("")],
        vec![write("/a"), write("/a")],
        vec![write("/a"), write("/b").volatile()],
    ] {
        assert!(matches!(
            store.commit(commit).await,
            Err(StoreError::Invalid(_))
        ));
    }
    assert_eq!(store.get("/a").await.unwrap(), None);
}

/// One step of a random sequence.
#[derive(Clone, Debug)]
enum Step {
    Commit {
        writes: Vec<(u8, Option<u8>, u8)>,
        volatile: bool,
    },
    Compact {
        back: u64,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let write = (0..5u8, proptest::option::weighted(0.7, any::<u8>()), 0..5u8);
    prop_oneof![
        12 => (proptest::collection::vec(write, 1..4), proptest::bool::weighted(0.25))
            .prop_map(|(writes, volatile)| Step::Commit { writes, volatile }),
        1 => (0..8u64).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Restart),
    ]
}

/// Two stores that are told the same.
struct Pair {
    directory: tempfile::TempDir,
    embedded: Option<EmbeddedStore>,
    memory: MemoryStore,
    compacted: Revision,
    started: Revision,
}

impl Pair {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let embedded = Some(open(&directory));
        let memory = MemoryStore::new().restarted(1);
        Self {
            directory,
            embedded,
            memory,
            compacted: 0,
            started: 1,
        }
    }

    fn embedded(&self) -> &EmbeddedStore {
        self.embedded.as_ref().unwrap()
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Commit { writes, volatile } => {
                let writes = self.writes(writes, *volatile).await;
                let (ours, theirs) = (
                    self.embedded().commit(writes.clone()).await,
                    self.memory.commit(writes).await,
                );
                assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
            }
            Step::Compact { back } => {
                let upto = self.memory.revision().saturating_sub(*back);
                self.embedded().compact(upto).await.unwrap();
                self.memory.compact(upto).await.unwrap();
                self.compacted = self.compacted.max(upto);
            }
            Step::Restart => {
                self.embedded = None;
                let embedded = open(&self.directory);
                assert!(embedded.revision() >= self.memory.revision());
                self.memory = self.memory.restarted(embedded.revision());
                self.started = embedded.revision();
                self.embedded = Some(embedded);
            }
        }
    }

    async fn writes(&self, writes: &[(u8, Option<u8>, u8)], volatile: bool) -> Vec<Write> {
        let mut all = Vec::new();
        for (key, value, expect) in writes {
            let key = format!("/{}/{key}", if volatile { "v" } else { "d" });
            let modified = self
                .memory
                .get(&key)
                .await
                .unwrap()
                .map_or(0, |e| e.modified);
            let expect = match expect {
                0 => Expect::Absent,
                1 | 2 => Expect::At(modified),
                3 => Expect::At(modified.saturating_sub(1)),
                _ => Expect::Any,
            };
            let value = value.map(|byte| Bytes::from(vec![byte; usize::from(byte)]));
            let lifetime = if volatile {
                Lifetime::Volatile
            } else {
                Lifetime::Durable
            };
            all.push(Write {
                key,
                value,
                expect,
                lifetime,
            });
        }
        all
    }

    /// Everything that can be asked is answered the same.
    async fn compare(&self) {
        let now = self.memory.revision();
        assert_eq!(self.embedded().revision(), now);
        for prefix in ["/", "/d/", "/d/3", "/v/"] {
            for (after, limit) in [(None, 0), (Some("/d/2"), 2)] {
                let range = Range {
                    prefix,
                    after,
                    limit,
                    at: None,
                };
                let (ours, theirs) = (
                    self.embedded().range(range).await,
                    self.memory.range(range).await,
                );
                assert_eq!(ours.unwrap(), theirs.unwrap());
            }
        }
        for revision in self.compacted.saturating_sub(1)..=now + 1 {
            let range = Range {
                at: Some(revision),
                ..Range::all("/d/")
            };
            let (ours, theirs) = (
                self.embedded().range(range).await,
                self.memory.range(range).await,
            );
            assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
            // What is volatile is told of only as far back as the start.
            let prefix = if revision < self.started { "/d/" } else { "/" };
            let told_by = |store: &dyn Store| {
                store
                    .watch(prefix, revision)
                    .map(|mut watch| told_at_once(&mut watch))
            };
            let (ours, theirs) = (told_by(self.embedded()), told_by(&self.memory));
            assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        }
    }
}

fn open(directory: &tempfile::TempDir) -> EmbeddedStore {
    let limits = HistoryLimits {
        rows: 1000,
        bytes: 1 << 20,
    };
    EmbeddedStore::open_with(&directory.path().join("db"), limits).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_embedded_store_answers_as_the_reference_does(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new();
            for step in &steps {
                pair.step(step).await;
            }
            pair.compare().await;
        });
    }
}
