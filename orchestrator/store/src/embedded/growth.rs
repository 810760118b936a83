//! What a store costs that nothing happens in, and one that a lot happens in for long.

use super::super::{Expect, Store, Write};
use super::crash::{Disk, fresh};
use super::*;

fn value(count: usize) -> Vec<u8> {
    format!("{count} {}", "x".repeat(2000)).into_bytes()
}

#[tokio::test]
async fn leases_cost_no_write_to_the_disk() {
    let disk = Disk::new(fresh(), u64::MAX);
    let database = builder().create_with_backend(disk.clone()).unwrap();
    let store =
        EmbeddedStore::start(database, Path::new("disk"), HistoryLimits::default()).unwrap();
    let renew = || store.commit(vec![Write::put("/lease", "x", Expect::Any).volatile()]);
    // The first one sets revisions aside.
    renew().await.unwrap();
    let before = disk.calls_left();
    for _ in 0..2000 {
        renew().await.unwrap();
    }
    assert_eq!(disk.calls_left(), before);
}

#[tokio::test]
async fn the_file_and_its_history_stop_growing_and_the_newest_history_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let limits = HistoryLimits {
        rows: 200,
        bytes: 1 << 30,
    };
    let store = EmbeddedStore::open_with(&path, limits).unwrap();
    let mut sizes = Vec::new();
    for round in 0..4 {
        let commits = (0..500).map(|count| {
            let key = format!("/k/{}", count % 20);
            store.commit(vec![Write::put(
                key,
                value(round * 500 + count),
                Expect::Any,
            )])
        });
        futures::future::try_join_all(commits).await.unwrap();
        sizes.push(path.metadata().unwrap().len());
    }
    assert_eq!(sizes[1], sizes[3], "{sizes:?}");
    let now = store.revision();
    let oldest = store.shared.view_now().compacted;
    assert!(
        (180..=456).contains(&(now - oldest)),
        "kept {}",
        now - oldest
    );
    let (commits, reached) = store.history("/", oldest, usize::MAX).await.unwrap();
    assert_eq!((commits.len() as u64, reached), (now - oldest, now));
    drop(store);
    let store = EmbeddedStore::open_with(&path, limits).unwrap();
    assert_eq!(
        store.history("/", oldest, usize::MAX).await.unwrap().0,
        commits
    );
}

#[tokio::test]
async fn history_is_bounded_by_its_bytes_too() {
    let directory = tempfile::tempdir().unwrap();
    let limits = HistoryLimits {
        rows: 1_000_000,
        bytes: 100_000,
    };
    let store = EmbeddedStore::open_with(&directory.path().join("db"), limits).unwrap();
    for count in 0..200 {
        store
            .commit(vec![Write::put("/k", value(count), Expect::Any)])
            .await
            .unwrap();
    }
    let kept = store.revision() - store.shared.view_now().compacted;
    assert!((40..=50).contains(&kept), "kept {kept}");
}
