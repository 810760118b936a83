//! What only etcd does: it dies and comes back, forgets by itself, is full, is shared; and several
//! stores on one etcd.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::time::timeout;

use super::testing::Etcd;
use super::*;
use crate::{Commit, Expect};

const PATIENCE: Duration = Duration::from_secs(20);

fn put(key: &str, value: &str) -> Vec<Write> {
    vec![Write::put(key, value.to_owned(), Expect::Any)]
}

async fn next(watch: &mut CommitStream) -> Arc<Commit> {
    let next = timeout(PATIENCE, watch.next()).await;
    next.expect("in time").expect("a commit").expect("no error")
}

#[tokio::test]
async fn a_read_after_a_write_through_another_server_sees_it() {
    let etcd = Etcd::start();
    let (one, other) = (etcd.open().await, etcd.open().await);
    for value in ["1", "2", "3"] {
        let written = one.commit(put("/a", value)).await.unwrap();
        let fresh = other.fresh().await.unwrap();
        assert!(fresh >= written && other.revision() >= written);
        let (commits, _) = other.history("/", written - 1, 9).await.unwrap();
        assert_eq!(commits[0].revision, written);
    }
}

#[tokio::test]
async fn etcd_keeps_no_watch_that_nobody_reads_any_more() {
    const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";
    let etcd = Etcd::start();
    let store = etcd.open().await;
    let first = store.commit(put("/a", "1")).await.unwrap();
    store.commit(put("/a", "2")).await.unwrap();
    let before = etcd.metric(WATCHERS);
    for _ in 0..20 {
        // Reading the past is a watch that ends before etcd ends it.
        let (commits, _) = store.history("/", first - 1, 1).await.unwrap();
        assert_eq!(commits[0].revision, first);
    }
    let ended = async {
        while etcd.metric(WATCHERS) > before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = timeout(PATIENCE, ended).await;
    assert!(ended.is_ok(), "{} of {before}", etcd.metric(WATCHERS));
}

#[tokio::test]
async fn others_in_the_same_etcd_do_not_hold_reads_up() {
    let etcd = Etcd::start();
    let mut neighbour = etcd.config();
    neighbour.prefix = "/neighbour".to_owned();
    let (ours, theirs) = (
        etcd.open().await,
        EtcdStore::open(&neighbour).await.unwrap(),
    );
    for value in ["1", "2", "3"] {
        theirs.commit(put("/a", value)).await.unwrap();
        ours.fresh().await.unwrap();
    }
    assert_eq!(ours.get("/a").await.unwrap(), None);
    assert!(ours.inner.has_neighbours.load(Ordering::Relaxed));
    // What has no effect answers a revision that no key of ours has.
    let absent = vec![Write::delete("/b", Expect::Any)];
    theirs.commit(put("/a", "4")).await.unwrap();
    ours.commit(absent).await.unwrap();
}

/// Until it is known to have happened.
async fn surely_put(store: &EtcdStore, value: &str) {
    let written = async {
        while let Err(error) = store.commit(put("/a", value)).await {
            assert!(matches!(error, StoreError::Uncertain(_)), "{error:?}");
        }
    };
    timeout(PATIENCE, written).await.expect("in time");
}

#[tokio::test]
async fn a_watch_goes_on_when_etcd_was_killed() {
    let mut etcd = Etcd::start();
    let store = etcd.open().await;
    let mut watch = store.watch("/", store.revision()).unwrap();
    surely_put(&store, "1").await;
    etcd.kill();
    tokio::join!(surely_put(&store, "2"), async { etcd.start_again() });
    surely_put(&store, "3").await;
    let mut seen = Vec::new();
    let mut reached = 0;
    while seen.last().is_none_or(|last| *last != "3") {
        let commit = next(&mut watch).await;
        assert!(commit.revision > reached);
        reached = commit.revision;
        seen.extend(commit.events.iter().filter_map(|event| event.value.clone()));
    }
    // One that was not known to have happened may have happened as well.
    seen.dedup();
    assert_eq!(seen, ["1", "2", "3"]);
}

#[tokio::test]
async fn an_etcd_that_lost_what_it_answered_closes_the_store() {
    let mut etcd = Etcd::start();
    let store = etcd.open().await;
    for value in ["1", "2", "3"] {
        store.commit(put("/a", value)).await.unwrap();
    }
    etcd.kill();
    std::fs::remove_dir_all(etcd.data()).unwrap();
    etcd.start_again();
    let refused = store.fresh().await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
    assert!(matches!(
        store.commit(put("/a", "4")).await,
        Err(StoreError::Closed)
    ));
}

#[tokio::test]
async fn a_history_that_another_server_compacted_is_told_as_compacted() {
    let etcd = Etcd::start();
    let (one, other) = (etcd.open().await, etcd.open().await);
    let start = one.commit(put("/a", "0")).await.unwrap();
    // More than any tail holds.
    for value in 0..300 {
        one.commit(put("/a", &value.to_string())).await.unwrap();
    }
    other.fresh().await.unwrap();
    one.compact(start + 10).await.unwrap();
    let gone = other.history("/", start, 5).await;
    assert!(
        matches!(gone, Err(StoreError::Compacted { .. })),
        "{gone:?}"
    );
    let at = Range {
        at: Some(start),
        ..Range::all("/")
    };
    let gone = other.range(at).await;
    assert!(
        matches!(gone, Err(StoreError::Compacted { .. })),
        "{gone:?}"
    );
    let (held, _) = other.history("/", start + 10, 5).await.unwrap();
    assert_eq!(held.len(), 5);
}

#[tokio::test]
async fn a_full_etcd_is_a_clear_error_and_still_read() {
    let etcd = Etcd::start_with(&["--quota-backend-bytes", "524288"]);
    let store = etcd.open().await;
    let large = "x".repeat(60_000);
    let mut refused = None;
    for _ in 0..400 {
        if let Err(error) = store.commit(put("/a", &large)).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("no room");
    assert!(matches!(refused, StoreError::Full(_)), "{refused}");
    assert!(refused.to_string().contains("alarm disarm"));
    assert!(store.get("/a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_commit_that_is_too_large_is_refused_and_changes_nothing() {
    let etcd = Etcd::start();
    let store = etcd.open().await;
    let large = "x".repeat(2 << 20);
    for size in [large.len(), 5 << 20] {
        let refused = store
            .commit(put("/a", &large.repeat(size / large.len())))
            .await;
        assert!(
            matches!(refused, Err(StoreError::TooLarge(_))),
            "{refused:?}"
        );
    }
    assert_eq!(store.get("/a").await.unwrap(), None);
    store.commit(put("/a", "small")).await.unwrap();
}

#[tokio::test]
async fn large_values_are_watched_and_read_whole() {
    let etcd = Etcd::start();
    let store = etcd.open().await;
    let start = store.revision();
    let large = "x".repeat(1 << 20);
    for _ in 0..4 {
        store.commit(put("/a", &large)).await.unwrap();
    }
    let other = etcd.open().await;
    let mut watch = other.watch("/", start).unwrap();
    for _ in 0..4 {
        assert_eq!(
            next(&mut watch).await.events[0]
                .value
                .as_ref()
                .unwrap()
                .len(),
            1 << 20
        );
    }
}

#[tokio::test]
async fn a_commit_goes_on_when_nobody_waits_for_it() {
    let etcd = Etcd::start();
    let store = etcd.open().await;
    let mut watch = store.watch("/", store.revision()).unwrap();
    drop(store.commit(put("/a", "1")));
    assert_eq!(&*next(&mut watch).await.events[0].key, "/a");
}

#[tokio::test]
async fn a_leader_that_resigns_is_followed_at_once_and_cannot_write() {
    let etcd = Etcd::start();
    let (one, other) = (etcd.open().await, etcd.open().await);
    let first = one.campaign("work", "one").await.unwrap();
    let fence = first.fence();
    Fence::keep(fence.clone(), async { one.commit(put("/a", "1")).await })
        .await
        .unwrap();
    let waiting = tokio::spawn(async move {
        let second = other.campaign("work", "other").await.unwrap();
        (Instant::now(), second, other)
    });
    let resigned = Instant::now();
    first.resign().await;
    let (began, second, other) = waiting.await.unwrap();
    let took = began.duration_since(resigned);
    assert!(took < Duration::from_millis(500), "{took:?}");
    let refused = Fence::keep(fence, async { one.commit(put("/a", "2")).await }).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    Fence::keep(second.fence(), async { other.commit(put("/a", "3")).await })
        .await
        .unwrap();
    assert_eq!(one.get("/a").await.unwrap().unwrap().value, "3");
}

#[tokio::test]
async fn a_leader_that_dies_is_followed_in_five_seconds() {
    let etcd = Etcd::start();
    let (one, other) = (etcd.open().await, etcd.open().await);
    let first = one.campaign("work", "one").await.unwrap();
    let fence = first.fence();
    let died = Instant::now();
    drop(first);
    let _second = other.campaign("work", "other").await.unwrap();
    assert!(
        died.elapsed() < Duration::from_secs(5),
        "{:?}",
        died.elapsed()
    );
    let refused = Fence::keep(fence, async { one.commit(put("/a", "2")).await }).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
}

/// Less than a lease lasts.
const AT_ONCE: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn a_leader_that_could_not_reach_etcd_leads_again_as_soon_as_it_can() {
    let mut etcd = Etcd::start();
    let store = etcd.open().await;
    let mut first = store.campaign("work", "one").await.unwrap();
    etcd.kill();
    let lost = timeout(PATIENCE, first.lost()).await;
    lost.expect("it does not lead for ever");
    drop(first);
    etcd.start_again();
    let reached = async { while store.fresh().await.is_err() {} };
    timeout(PATIENCE, reached).await.expect("etcd is back");
    let reached = Instant::now();
    let _second = store.campaign("work", "one").await.unwrap();
    assert!(reached.elapsed() < AT_ONCE, "{:?}", reached.elapsed());
}

#[tokio::test]
async fn a_server_that_starts_again_leads_at_once_if_it_led_before() {
    let etcd = Etcd::start();
    let before = etcd.open().await;
    drop(before.campaign("work", "one").await.unwrap());
    drop(before);
    let again = etcd.open().await;
    let began = Instant::now();
    let _second = again.campaign("work", "one").await.unwrap();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn two_servers_of_one_name_do_not_take_turns() {
    let etcd = Etcd::start();
    let (one, other) = (etcd.open().await, etcd.open().await);
    let mut first = one.campaign("work", "one").await.unwrap();
    let mut second = other.campaign("work", "one").await.unwrap();
    timeout(PATIENCE, first.lost()).await.expect("it is over");
    let back = timeout(AT_ONCE, one.campaign("work", "one")).await;
    assert!(back.is_err(), "the first one took it back");
    assert!(timeout(AT_ONCE, second.lost()).await.is_err());
}

#[tokio::test]
async fn who_waits_to_lead_looks_again_when_nothing_is_said() {
    let etcd = Etcd::start();
    let store = etcd.open().await;
    let key = store.inner.keys.control("leader/work");
    let looked = store.inner.until_changed(&key, 1 << 40);
    timeout(AT_ONCE, looked).await.expect("in time");
}

#[tokio::test]
async fn etcd_is_reached_by_certificates_of_its_authority() {
    let (etcd, tls) = Etcd::start_with_certificates();
    let with = |tls: Option<EtcdTls>| {
        let mut config = etcd.config();
        config.tls = tls;
        config.timeout = Duration::from_secs(2);
        config
    };
    let store = EtcdStore::open(&with(Some(tls.clone()))).await.unwrap();
    let mut watch = store.watch("/", store.revision()).unwrap();
    store.commit(put("/a", "1")).await.unwrap();
    assert_eq!(&*next(&mut watch).await.events[0].key, "/a");
    let nameless = EtcdTls {
        identity: None,
        ..tls
    };
    let wrong = [with(None), with(Some(nameless))];
    let refused = wrong.each_ref().map(EtcdStore::open);
    for refused in futures::future::join_all(refused).await {
        let refused = refused.err().expect("refused");
        assert!(refused.to_string().contains("127.0.0.1:"), "{refused}");
    }
}

#[tokio::test]
async fn a_user_of_etcd_is_asked_for_its_password_and_no_error_says_it() {
    let etcd = Etcd::start();
    let rpc = Rpc::new(&etcd.config()).unwrap();
    let pair = |name: &str, password: &str| wire::AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    };
    // Name and password, a role, user and role: all are two strings.
    for (what, request) in [
        ("/etcdserverpb.Auth/UserAdd", pair("root", "hunter2")),
        ("/etcdserverpb.Auth/RoleAdd", pair("root", "")),
        ("/etcdserverpb.Auth/UserGrantRole", pair("root", "root")),
        ("/etcdserverpb.Auth/AuthEnable", pair("", "")),
    ] {
        let asked = rpc.ask::<_, wire::HeaderOnly>(what, &request, Repeat::Safe);
        asked.await.unwrap();
    }
    let open = async |password: Option<&str>| {
        let mut config = etcd.config();
        config.user = password.map(|password| EtcdUser {
            name: "root".to_owned(),
            password: password.to_owned(),
        });
        EtcdStore::open(&config).await
    };
    let store = open(Some("hunter2")).await.unwrap();
    let mut watch = store.watch("/", store.revision()).unwrap();
    store.commit(put("/a", "1")).await.unwrap();
    assert_eq!(&*next(&mut watch).await.events[0].key, "/a");
    for wrong in [None, Some("hunter3")] {
        let refused = open(wrong).await.err().expect("refused").to_string();
        assert!(!refused.contains("hunter3"), "{refused}");
    }
}

#[tokio::test]
async fn any_of_three_members_may_die_and_come_back() {
    let mut members = Etcd::start_three();
    let mut config = members[0].config();
    config.members = members.iter().map(Etcd::member).collect();
    let (one, other) = tokio::join!(EtcdStore::open(&config), EtcdStore::open(&config));
    let (one, other) = (one.unwrap(), other.unwrap());
    let mut watch = other.watch("/", other.revision()).unwrap();
    for (index, member) in members.iter_mut().enumerate() {
        member.kill();
        let value = index.to_string();
        surely_put(&one, &value).await;
        let fresh = other.fresh().await.unwrap();
        assert!(fresh >= one.revision());
        let mut seen = None;
        while seen.as_deref() != Some(value.as_bytes()) {
            let commit = next(&mut watch).await;
            seen = commit.events.last().and_then(|event| event.value.clone());
        }
        member.start_again();
        // Two of three are enough for the next one to die.
        let mut alone = config.clone();
        alone.members = vec![member.member()];
        EtcdStore::open(&alone).await.unwrap();
    }
}

#[tokio::test]
async fn a_restored_store_counts_from_its_base_on_every_server() {
    let etcd = Etcd::start();
    let base = 5_000_000_000;
    let one = EtcdStore::create(&etcd.config(), base).await.unwrap();
    let first = one.commit(put("/a", "1")).await.unwrap();
    assert!(first > base && first < base + 100, "{first}");
    let early = EtcdStore::open(&etcd.config()).await.err();
    assert!(matches!(early, Some(StoreError::Invalid(_))), "{early:?}");
    one.complete().await.unwrap();
    let other = etcd.open().await;
    let found = other.get("/a").await.unwrap().expect("there");
    assert_eq!((found.created, found.modified), (first, first));
    let mut watch = other.watch("/", first).unwrap();
    let second = vec![Write::put("/a", "2", Expect::At(first))];
    let second = one.commit(second).await.unwrap();
    let mut seen = next(&mut watch).await;
    // The other server's start took a revision of its own.
    while seen.events.is_empty() {
        seen = next(&mut watch).await;
    }
    assert_eq!(seen.revision, second);
    let (past, _) = other.history("/", base, 10).await.unwrap();
    assert!(past.iter().any(|commit| commit.revision == first));
    let old = Range {
        at: Some(first),
        ..Range::all("/")
    };
    assert_eq!(other.range(old).await.unwrap().entries[0].value, "1");
    // Whatever clients have from before the base is answered as compacted, and is no key of now.
    for before in [1, 3, base - 1] {
        let watch = other.watch("/", before).err();
        assert!(
            matches!(watch, Some(StoreError::Compacted { .. })),
            "{watch:?}"
        );
        let old = Range {
            at: Some(before),
            ..Range::all("/")
        };
        let read = other.range(old).await;
        assert!(
            matches!(read, Err(StoreError::Compacted { .. })),
            "{read:?}"
        );
        for key in ["/a", "/absent"] {
            let write = vec![Write::put(key, "x", Expect::At(before))];
            let refused = other.commit(write).await;
            assert!(
                matches!(refused, Err(StoreError::Conflict { .. })),
                "{refused:?}"
            );
        }
    }
    one.compact(second).await.unwrap();
    let twice = EtcdStore::create(&etcd.config(), base).await.err();
    assert!(matches!(twice, Some(StoreError::Invalid(_))), "{twice:?}");
}

#[tokio::test]
async fn a_member_joins_without_a_vote_and_gets_it_when_it_has_caught_up() {
    let first = Etcd::start();
    let store = first.open().await;
    surely_put(&store, "1").await;
    let members = store.members().expect("etcd's");
    let ports = Etcd::ports_to_join();
    let peer = format!("http://127.0.0.1:{}", ports[1]);
    let (added, all) = members.add_learner(&peer).await.unwrap();
    assert!(added.is_learner && added.name.is_empty() && all.len() == 2);
    // It is not there: neither has it a vote, nor does anybody wait for it.
    assert!(!members.promote(added.id).await.unwrap_or(false));
    surely_put(&store, "2").await;
    let more = Etcd::join(&first, ports);
    let promoted = async {
        while !members.promote(added.id).await.unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, promoted).await.expect("in time");
    let joined = more.open().await;
    assert_eq!(joined.get("/a").await.unwrap().expect("there").value, "2");
    let all = members.list().await.unwrap();
    assert!(
        all.iter()
            .all(|member| !member.is_learner && member.client.is_some())
    );
    members.remove(added.id).await.unwrap();
    surely_put(&store, "3").await;
    assert_eq!(members.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_etcd_takes_writes_again_when_room_was_made() {
    let etcd = Etcd::start_with(&["--quota-backend-bytes", "2000000"]);
    let store = etcd.open().await;
    let large = "x".repeat(100_000);
    let mut last = 0;
    let full = loop {
        match store.commit(put("/a", &large)).await {
            Ok(revision) => last = revision,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full(_)), "{full:?}");
    store.compact(last).await.unwrap();
    let members = store.members().expect("etcd's");
    members.defragment().await.unwrap();
    assert_eq!(members.disarm().await.unwrap(), 1);
    surely_put(&store, "1").await;
    assert_eq!(members.disarm().await.unwrap(), 0);
}

#[tokio::test]
async fn a_member_that_stood_still_and_comes_back_sends_nothing_twice() {
    let three = Etcd::start_three();
    let mut config = three[0].config();
    config.members = three.iter().map(Etcd::member).collect();
    let store = EtcdStore::open(&config).await.unwrap();
    let mut watch = store.watch("/", store.revision()).unwrap();
    surely_put(&store, "1").await;
    // The one that is watched.
    three[0].stand_still();
    surely_put(&store, "2").await;
    three[0].go_on();
    surely_put(&store, "3").await;
    let (mut reached, mut seen) = (0, Vec::new());
    while seen.last().is_none_or(|last| *last != "3") {
        let commit = next(&mut watch).await;
        assert!(
            commit.revision > reached,
            "{} after {reached}",
            commit.revision
        );
        reached = commit.revision;
        seen.extend(commit.events.iter().filter_map(|event| event.value.clone()));
    }
    seen.dedup();
    assert_eq!(seen, ["1", "2", "3"]);
}

/// What a writer hears whose commit etcd takes and the store never shows, as `then` happens.
async fn heard_of_a_commit_that_is_not_delivered(
    etcd: &Etcd,
    then: impl FnOnce(&EtcdStore),
) -> StoreError {
    let other = etcd.open().await;
    let mut config = etcd.config();
    config.timeout = Duration::from_secs(1);
    let store = EtcdStore::open(&config).await.unwrap();
    // It follows etcd no more.
    store.tasks[0].abort();
    let mut watch = other.watch("/", other.revision()).unwrap();
    let written = store.commit(put("/a", "1"));
    while next(&mut watch).await.events.is_empty() {}
    then(&store);
    written.await.expect_err("the store does not show it")
}

#[tokio::test]
async fn a_commit_that_etcd_has_taken_is_never_said_not_to_have_happened() {
    let etcd = Etcd::start();
    let late = heard_of_a_commit_that_is_not_delivered(&etcd, |_| etcd.stand_still()).await;
    etcd.go_on();
    assert!(matches!(late, StoreError::Uncertain(_)), "{late:?}");
    let closed = heard_of_a_commit_that_is_not_delivered(&etcd, |store| store.inner.tail.close());
    let closed = closed.await;
    assert!(matches!(closed, StoreError::Uncertain(_)), "{closed:?}");
}

#[tokio::test]
async fn a_store_goes_on_by_members_that_joined_after_its_start() {
    let mut three = Etcd::start_three();
    let store = three[0].open().await;
    surely_put(&store, "1").await;
    let members = store.members().expect("etcd's").list().await.unwrap();
    let clients = members.into_iter().filter_map(|member| member.client);
    store.inner.rpc.learn(clients).unwrap();
    three[0].kill();
    surely_put(&store, "2").await;
}
