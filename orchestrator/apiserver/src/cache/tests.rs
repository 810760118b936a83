use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;

use super::*;
use api::{Lifetime, find};
use store::{EmbeddedStore, Expect, MemoryStore, Write};

fn resource(plural: &str) -> &Arc<Resource> {
    let found = ["", "apps", "coordination.k8s.io"]
        .iter()
        .find_map(|g| find(g, "v1", plural));
    found.expect("a served resource")
}

fn write(plural: &str, namespace: &str, name: &str, label: &str, expect: Expect) -> Write {
    let resource = resource(plural);
    let object = format!(
        r#"{{"kind":"{}","apiVersion":"{}","metadata":{{"name":"{name}","namespace":"{namespace}","labels":{{"l":"{label}"}}}}}}"#,
        resource.kind,
        resource.api_version(),
    );
    let write = Write::put(object_key(resource, namespace, name), object, expect);
    if resource.lifetime == Lifetime::Volatile {
        write.volatile()
    } else {
        write
    }
}

async fn put(store: &dyn Store, plural: &str, namespace: &str, name: &str, label: &str) -> u64 {
    store
        .commit(vec![write(plural, namespace, name, label, Expect::Any)])
        .await
        .unwrap()
}

async fn delete(store: &dyn Store, plural: &str, namespace: &str, name: &str) -> u64 {
    let key = object_key(resource(plural), namespace, name);
    store
        .commit(vec![Write::delete(key, Expect::Any)])
        .await
        .unwrap()
}

async fn cache_of(store: &MemoryStore) -> Cache {
    Cache::start(Arc::new(store.clone()), &Tasks::new(Shutdown::new()))
        .await
        .unwrap()
}

/// The events that are there, as `change name revision`.
fn told(watch: &mut Watch) -> Vec<String> {
    let next = || watch.next().now_or_never();
    std::iter::from_fn(next)
        .map(|event| line(&event.unwrap()))
        .collect()
}

fn line(event: &WatchEvent) -> String {
    let WatchEvent { change, object, .. } = event;
    assert!(text(object).contains(&format!(r#""resourceVersion":"{}""#, object.revision)));
    format!("{change:?} {} {}", object.name(), object.revision)
}

fn text(object: &Cached) -> String {
    String::from_utf8(object.bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn objects_of_before_and_after_the_start_are_read_alike() {
    let store = MemoryStore::new();
    let first = put(&store, "pods", "a", "one", "x").await;
    put(&store, "configmaps", "a", "other", "x").await;
    let cache = cache_of(&store).await;
    let second = put(&store, "pods", "b", "two", "x").await;
    cache.wait_for(second).await;
    let pods = resource("pods");
    let names = |namespace| {
        let (revision, objects) = cache.list(pods, namespace);
        let names: Vec<String> = objects.iter().map(|object| object.name().into()).collect();
        (revision, names)
    };
    assert_eq!(names(None), (second, vec!["one".into(), "two".into()]));
    assert_eq!(names(Some("a")), (second, vec!["one".into()]));
    assert_eq!(names(Some("")), names(None));
    let one = cache.get(pods, "a", "one").unwrap();
    assert_eq!(
        (one.namespace(), one.name(), one.revision),
        ("a", "one", first)
    );
    assert_eq!(one.labels()["l"], "x");
    assert_eq!(one.fields()["metadata.name"], "one");
    assert!(text(&one).starts_with(&format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"resourceVersion":"{first}","name""#
    )));
    assert!(cache.get(pods, "b", "one").is_none());
}

#[tokio::test]
async fn a_watch_tells_each_change_once_with_the_state_before() {
    let store = MemoryStore::new();
    let cache = cache_of(&store).await;
    let from = cache.revision();
    put(&store, "pods", "a", "one", "x").await;
    put(&store, "pods", "b", "foreign", "x").await;
    put(&store, "pods", "a", "one", "y").await;
    let gone = delete(&store, "pods", "a", "one").await;
    cache.wait_for(gone).await;
    let mut watch = cache
        .watch(resource("pods"), Some("a"), None, from)
        .await
        .unwrap();
    let mut states = Vec::new();
    for _ in 0..3 {
        let event = watch.next().await.unwrap();
        let previous = event
            .previous
            .as_ref()
            .map(|object| object.labels()["l"].clone());
        states.push((line(&event), previous));
    }
    let expected = [
        (format!("Added one {}", gone - 3), None),
        (format!("Modified one {}", gone - 1), Some("x".to_owned())),
        (format!("Deleted one {gone}"), Some("y".to_owned())),
    ];
    assert_eq!(states, expected);
    assert!(watch.try_next().is_none());
    assert_eq!(cache.list(resource("pods"), Some("a")).1.len(), 0);
}

#[tokio::test]
async fn a_waiting_watch_wakes_for_its_kind_and_not_for_others() {
    let store = MemoryStore::new();
    let cache = cache_of(&store).await;
    let mut watch = cache
        .watch(resource("pods"), None, None, cache.revision())
        .await
        .unwrap();
    let other = put(&store, "configmaps", "a", "other", "x").await;
    cache.wait_for(other).await;
    assert!(watch.next().now_or_never().is_none());
    let (event, revision) = tokio::join!(watch.next(), put(&store, "pods", "a", "one", "x"));
    assert_eq!(line(&event.unwrap()), format!("Added one {revision}"));
}

#[tokio::test]
async fn progress_counts_changes_of_other_kinds_but_no_undelivered_one() {
    let store = MemoryStore::new();
    let cache = cache_of(&store).await;
    let mut watch = cache
        .watch(resource("pods"), None, None, cache.revision())
        .await
        .unwrap();
    let other = put(&store, "configmaps", "a", "other", "x").await;
    cache.wait_for(other).await;
    assert_eq!(watch.progress(), other);
    let both = [
        write("pods", "a", "one", "x", Expect::Any),
        write("pods", "a", "two", "x", Expect::Any),
    ];
    let pod = store.commit(both.into()).await.unwrap();
    let last = put(&store, "configmaps", "a", "other", "y").await;
    cache.wait_for(last).await;
    assert_eq!(watch.progress(), other);
    watch.next().await.unwrap();
    assert_eq!(watch.progress(), pod - 1);
    watch.next().await.unwrap();
    assert_eq!(watch.progress(), last);
}

#[tokio::test]
async fn a_watch_from_before_the_recent_past_is_served_from_the_log() {
    let store = MemoryStore::new();
    let start = store.revision();
    let mut expected = vec![format!("Added one {}", start + 1)];
    put(&store, "pods", "a", "one", "0").await;
    for _ in 0..600 {
        let revision = put(&store, "pods", "a", "one", "x").await;
        expected.push(format!("Modified one {revision}"));
    }
    // The cache begins here: nothing before is among its recent changes.
    let cache = cache_of(&store).await;
    expected.push(format!(
        "Deleted one {}",
        delete(&store, "pods", "a", "one").await
    ));
    let now = put(&store, "configmaps", "a", "other", "x").await;
    cache.wait_for(now).await;
    let mut watch = cache
        .watch(resource("pods"), None, None, start)
        .await
        .unwrap();
    assert_eq!(told(&mut watch), expected);
    assert_eq!(watch.progress(), now);
}

#[tokio::test]
async fn the_log_of_before_the_start_is_read_once_for_all_watches() {
    let store = MemoryStore::new();
    let start = put(&store, "configmaps", "a", "first", "x").await;
    let mut expected = Vec::new();
    for number in 0..1000 {
        let node = if number % 300 == 7 { "one" } else { "other" };
        let revision = put_on(&store, &format!("p{number}"), node, "x").await;
        expected.push((node, format!("Added p{number} {revision}")));
    }
    put(&store, "configmaps", "a", "c", "x").await;
    let all: Vec<String> = expected.iter().map(|(_, it)| it.clone()).collect();
    let of_one = expected.iter().filter(|(node, _)| *node == "one");
    let of_one: Vec<String> = of_one.map(|(_, it)| it.clone()).collect();
    let (cache, pods) = (cache_of(&store).await, resource("pods"));
    let late = cache.watch(pods, None, None, start + 500).await;
    let early = cache.watch(pods, None, None, start).await;
    // From here on nothing of it can be read any more.
    store.compact(store.revision()).await.unwrap();
    assert_eq!(told(&mut late.unwrap()), all[500..]);
    assert_eq!(told(&mut early.unwrap()), all);
    let again = cache.watch(pods, None, of_node("one"), start).await;
    assert_eq!(told(&mut again.unwrap()), of_one);
    let config_maps = cache.watch(resource("configmaps"), None, None, start).await;
    assert_eq!(told(&mut config_maps.unwrap()).len(), 1);
    let older = cache.watch(pods, None, None, start - 1).await;
    assert!(older.is_err());
}

#[tokio::test]
async fn a_quiet_watch_that_began_in_the_log_makes_progress() {
    let store = MemoryStore::new();
    let start = put(&store, "pods", "a", "one", "x").await;
    put(&store, "configmaps", "a", "other", "x").await;
    let cache = cache_of(&store).await;
    let mut watch = cache
        .watch(resource("pods"), None, None, start)
        .await
        .unwrap();
    assert!(watch.next().now_or_never().is_none());
    assert_eq!(watch.progress(), cache.revision());
}

#[tokio::test]
async fn a_slow_watch_misses_nothing_and_others_do_not_wait_for_it() {
    let store = MemoryStore::new();
    let cache = cache_of(&store).await;
    let from = cache.revision();
    let mut slow = cache
        .watch(resource("pods"), None, None, from)
        .await
        .unwrap();
    let mut fast = cache
        .watch(resource("pods"), None, None, from)
        .await
        .unwrap();
    put(&store, "pods", "a", "one", "x").await;
    slow.next().await.unwrap();
    fast.next().await.unwrap();
    // More than is kept for watches.
    let mut expected = Vec::new();
    for _ in 0..3000 {
        let revision = put(&store, "pods", "a", "one", "x").await;
        expected.push(format!("Modified one {revision}"));
        assert_eq!(
            line(&fast.next().await.unwrap()),
            expected[expected.len() - 1]
        );
    }
    assert_eq!(told(&mut slow), expected);
}

/// The bucket of the pods of a node.
fn of_node(node: &str) -> Option<Bucket> {
    Some(Bucket::Field(0, node.into()))
}

async fn put_on(store: &dyn Store, name: &str, node: &str, label: &str) -> u64 {
    let object = format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"a","labels":{{"l":"{label}"}}}},"spec":{{"nodeName":"{node}"}}}}"#,
    );
    let key = object_key(resource("pods"), "a", name);
    let write = Write::put(key, object, Expect::Any);
    store.commit(vec![write]).await.unwrap()
}

#[tokio::test]
async fn a_watch_of_a_node_sleeps_while_the_pods_of_others_change() {
    let store = MemoryStore::new();
    let cache = cache_of(&store).await;
    let (pods, from) = (resource("pods"), cache.revision());
    let of = |node| cache.watch(pods, None, of_node(node), from);
    let (mut one, mut two) = (of("one").await.unwrap(), of("two").await.unwrap());
    assert!(one.next().now_or_never().is_none() && two.next().now_or_never().is_none());
    let first = put_on(&store, "p", "one", "x").await;
    cache.wait_for(first).await;
    assert!(!two.is_woken() && one.is_woken());
    assert_eq!(told(&mut one), [format!("Added p {first}")]);
    // What leaves a node concerns it, and the one that it goes to.
    let moved = put_on(&store, "p", "two", "x").await;
    let gone = delete(&store, "pods", "a", "p").await;
    cache.wait_for(gone).await;
    assert_eq!(told(&mut one), [format!("Modified p {moved}")]);
    let expected = [format!("Modified p {moved}"), format!("Deleted p {gone}")];
    assert_eq!(told(&mut two), expected);
}

#[tokio::test]
async fn a_node_sleeps_while_its_peers_say_what_does_not_concern_it() {
    let store = MemoryStore::new();
    let cache = cache_of(&store).await;
    let (nodes, from) = (resource("nodes"), cache.revision());
    let say = async |name: &str, ready: &str, heartbeat: u32| {
        let object = format!(
            r#"{{"kind":"Node","apiVersion":"v1","metadata":{{"name":"{name}"}},"status":{{"conditions":[{{"type":"Ready","status":"{ready}","message":"{heartbeat}"}}]}}}}"#
        );
        let write = Write::put(object_key(nodes, "", name), object, Expect::Any);
        let revision = store.commit(vec![write]).await.unwrap();
        cache.wait_for(revision).await;
        revision
    };
    let own = Bucket::Object(object_key(nodes, "", "own").into());
    let watch = cache.watch(nodes, None, [Bucket::Peers, own], from);
    let mut watch = watch.await.unwrap();
    let (peer, own) = (say("peer", "True", 1).await, say("own", "True", 1).await);
    let expected = [format!("Added peer {peer}"), format!("Added own {own}")];
    assert_eq!(told(&mut watch), expected);
    say("peer", "True", 2).await;
    assert!(!watch.is_woken());
    let own = say("own", "True", 2).await;
    assert_eq!(told(&mut watch), [format!("Modified own {own}")]);
    let peer = say("peer", "False", 3).await;
    assert_eq!(told(&mut watch), [format!("Modified peer {peer}")]);
    let gone = delete(&store, "nodes", "", "peer").await;
    cache.wait_for(gone).await;
    assert_eq!(told(&mut watch), [format!("Deleted peer {gone}")]);
    assert_eq!(watch.progress(), gone);
}

#[tokio::test]
async fn a_quiet_watch_of_a_node_outlives_the_history_of_all_others() {
    let store = MemoryStore::new();
    let cache = cache_of(&store).await;
    let (pods, from) = (resource("pods"), cache.revision());
    let mut quiet = cache
        .watch(pods, None, of_node("quiet"), from)
        .await
        .unwrap();
    let mut slow = cache
        .watch(pods, None, of_node("slow"), from)
        .await
        .unwrap();
    assert!(quiet.next().now_or_never().is_none());
    let mut expected = Vec::new();
    for round in 0..3000 {
        let node = if round % 500 == 7 { "slow" } else { "busy" };
        let revision = put_on(&store, &format!("p{round}"), node, "x").await;
        if node == "slow" {
            expected.push(format!("Added p{round} {revision}"));
        }
    }
    cache.wait_for(store.revision()).await;
    store.compact(store.revision()).await.unwrap();
    assert!(quiet.next().now_or_never().is_none());
    assert_eq!(quiet.progress(), store.revision());
    let last = put_on(&store, "p", "quiet", "x").await;
    cache.wait_for(last).await;
    assert_eq!(told(&mut quiet), [format!("Added p {last}")]);
    // What it missed has left the newest changes, and is unpacked.
    assert_eq!(told(&mut slow), expected);
}

#[tokio::test]
async fn a_watch_of_one_object_hears_of_it_alone_and_leaves_nothing_behind() {
    let store = MemoryStore::new();
    let cache = cache_of(&store).await;
    let (pods, from) = (resource("pods"), cache.revision());
    let bucket = || Some(Bucket::Object(object_key(pods, "a", "one").into()));
    let mut watch = cache.watch(pods, Some("a"), bucket(), from).await.unwrap();
    let again = cache.watch(pods, Some("a"), bucket(), from).await.unwrap();
    let one = put(&store, "pods", "a", "one", "x").await;
    let two = put(&store, "pods", "a", "two", "x").await;
    cache.wait_for(two).await;
    assert_eq!(told(&mut watch), [format!("Added one {one}")]);
    // Begun later, it finds what is already there.
    let mut late = cache.watch(pods, Some("a"), bucket(), from).await.unwrap();
    assert_eq!(told(&mut late), [format!("Added one {one}")]);
    let kind = cache.kind(pods).unwrap();
    assert!(!kind.state().buckets.is_empty());
    drop((watch, late, again));
    assert!(kind.state().buckets.is_empty());
}

#[tokio::test]
async fn a_watch_that_is_not_read_is_cut_off_and_the_others_miss_nothing() {
    let store = MemoryStore::new();
    let cache = cache_of(&store).await;
    let (pods, from) = (resource("pods"), cache.revision());
    let mut slow = cache.watch(pods, None, None, from).await.unwrap();
    let mut fast = cache.watch(pods, None, None, from).await.unwrap();
    let mut last = from;
    for round in 0..super::history::KEPT_EVENTS + 2000 {
        last = put(&store, "pods", "a", "one", "x").await;
        assert_eq!(fast.next().await.unwrap().object.revision, last);
        if round % 10_000 == 0 {
            store.compact(last).await.unwrap();
        }
    }
    store.compact(last).await.unwrap();
    assert!(slow.next().await.is_err());
    // One that fell less far behind is told of everything.
    let late = last - super::history::KEPT_EVENTS as u64;
    let mut late = cache.watch(pods, None, None, late).await.unwrap();
    assert_eq!(told(&mut late).len(), super::history::KEPT_EVENTS);
}

#[tokio::test]
async fn a_watch_from_before_compaction_is_gone_and_a_later_one_is_not() {
    let store = MemoryStore::new();
    let start = store.revision();
    put(&store, "pods", "a", "one", "x").await;
    let compacted = put(&store, "pods", "a", "two", "x").await;
    let last = put(&store, "pods", "a", "three", "x").await;
    store.compact(compacted).await.unwrap();
    let cache = cache_of(&store).await;
    let gone = cache.watch(resource("pods"), None, None, start).await.err();
    assert_eq!(
        gone,
        Some(Gone {
            asked: start,
            oldest: compacted
        })
    );
    let mut watch = cache
        .watch(resource("pods"), None, None, compacted)
        .await
        .unwrap();
    assert_eq!(told(&mut watch), [format!("Added three {last}")]);
}

#[tokio::test]
async fn a_watch_that_falls_behind_compaction_is_told_once_and_ends() {
    let store = MemoryStore::new();
    put(&store, "pods", "a", "one", "x").await;
    let from = store.revision();
    for _ in 0..3000 {
        put(&store, "pods", "a", "one", "x").await;
    }
    // It reads from the log, a part at a time: there is no room for what has been recalled.
    let cache = cache_of(&store).await;
    let pods = resource("pods");
    let mut slow = cache.watch(pods, None, None, from).await.unwrap();
    let kind = cache.kind(pods).unwrap();
    while kind.past_bytes() > 0 {
        kind.forget_some();
    }
    while slow.try_next().is_some() {}
    assert!(slow.next().await.is_ok());
    while slow.try_next().is_some() {}
    store.compact(store.revision()).await.unwrap();
    assert!(slow.next().await.is_err());
    assert!(slow.next().await.is_err());
}

#[tokio::test]
async fn volatile_objects_are_gone_after_a_restart_and_so_are_their_watches() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let tasks = Tasks::new(Shutdown::new());
    let store = EmbeddedStore::open(&path).unwrap();
    let made = put(&store, "leases", "a", "one", "x").await;
    let pod = put(&store, "pods", "a", "one", "x").await;
    drop(store);
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&path).unwrap());
    let cache = Cache::start(store, &tasks).await.unwrap();
    let leases = resource("leases");
    assert!(cache.get(leases, "a", "one").is_none());
    for from in [made, pod] {
        assert!(cache.watch(leases, None, None, from).await.is_err());
    }
    let mut pods = cache
        .watch(resource("pods"), None, None, made)
        .await
        .unwrap();
    assert_eq!(told(&mut pods), [format!("Added one {pod}")]);
    let (now, none) = cache.list(leases, None);
    assert!(none.is_empty() && cache.watch(leases, None, None, now).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_and_a_watch_from_its_revision_add_up_while_others_write() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> =
        Arc::new(EmbeddedStore::open(&directory.path().join("db")).unwrap());
    let tasks = Tasks::new(Shutdown::new());
    let cache = Cache::start(store.clone(), &tasks).await.unwrap();
    let writer = |me: usize| {
        let store = store.clone();
        async move {
            for round in 0..200 {
                let name = format!("p{}", (me * 7 + round) % 5);
                match round % 3 {
                    2 => delete(&*store, "pods", "a", &name).await,
                    _ => put(&*store, "pods", "a", &name, &round.to_string()).await,
                };
            }
        }
    };
    let writers: Vec<_> = (0..4).map(|me| tokio::spawn(writer(me))).collect();
    let readers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(reflected(cache.clone())))
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let last = put(&*store, "pods", "a", "end", "x").await;
    cache.wait_for(last).await;
    let (_, objects) = cache.list(resource("pods"), Some("a"));
    let expected: Vec<_> = objects
        .iter()
        .map(|object| (object.name().to_owned(), object.revision))
        .collect();
    for reader in readers {
        assert_eq!(
            reader.await.unwrap().into_iter().collect::<Vec<_>>(),
            expected
        );
    }
}

/// What a client knows that lists and then watches until it has seen the object `end`.
async fn reflected(cache: Cache) -> BTreeMap<String, Revision> {
    let pods = resource("pods");
    let (mut revision, objects) = cache.list(pods, Some("a"));
    let mut watch = cache.watch(pods, Some("a"), None, revision).await.unwrap();
    let mut state: BTreeMap<_, _> = objects
        .iter()
        .map(|object| (object.name().to_owned(), object.revision))
        .collect();
    while let Ok(event) = tokio::time::timeout(Duration::from_secs(30), watch.next()).await {
        let WatchEvent {
            change,
            object,
            previous,
        } = event.unwrap();
        assert!(
            object.revision > revision,
            "in order, once, and behind the list"
        );
        revision = object.revision;
        let known = state.get(object.name()).copied();
        assert_eq!(known, previous.map(|previous| previous.revision));
        assert_eq!(known.is_none(), change == Change::Added);
        match change {
            Change::Deleted => state.remove(object.name()),
            _ => state.insert(object.name().to_owned(), object.revision),
        };
        if state.contains_key("end") {
            break;
        }
    }
    state
}

/// A kind that the cache does not know at its start.
fn custom() -> Arc<Resource> {
    let views = api::views();
    let old = views
        .iter()
        .find(|view| view.resource.plural == "horizontalpodautoscalers");
    old.expect("an old version").storage.clone()
}

#[tokio::test]
async fn a_kind_is_taken_on_and_let_go_while_the_cache_runs() {
    let store = MemoryStore::new();
    let cache = cache_of(&store).await;
    let kind = custom();
    cache.forget(&kind);
    let key = |name: &str| object_key(&kind, "a", name);
    let object = |name: &str| format!(r#"{{"metadata":{{"name":"{name}","namespace":"a"}}}}"#);
    let write = |name: &str| Write::put(key(name), object(name), Expect::Any);
    let early = store.commit(vec![write("early")]).await.unwrap();
    assert!(cache.get(&kind, "a", "early").is_none());
    cache.add(&kind).await.unwrap();
    assert_eq!(cache.get(&kind, "a", "early").unwrap().revision, early);
    let mut watch = cache.watch(&kind, None, None, early).await.unwrap();
    let late = store.commit(vec![write("late")]).await.unwrap();
    cache.wait_for(late).await;
    assert_eq!(told(&mut watch), [format!("Added late {late}")]);
    // Its resource is another one: objects stay, the watch is to end.
    cache.add(&kind).await.unwrap();
    assert_eq!(cache.list(&kind, None).1.len(), 2);
    let last = store.commit(vec![write("last")]).await.unwrap();
    cache.wait_for(last).await;
    assert_eq!(cache.list(&kind, None).1.len(), 3);
    assert_eq!(told(&mut watch), [] as [&str; 0]);
    cache.forget(&kind);
    assert!(cache.get(&kind, "a", "late").is_none());
    assert_eq!(told(&mut watch), [] as [&str; 0]);
}

#[tokio::test]
async fn what_is_written_while_a_kind_is_loaded_is_seen_once() {
    let kind = Kind::new(&custom());
    let event = |name: &str| store::Event {
        key: object_key(&custom(), "a", name).into(),
        value: Some(format!(r#"{{"metadata":{{"name":"{name}"}}}}"#).into()),
        prev: None,
    };
    let (loaded, later) = (event("loaded"), event("later"));
    kind.apply(5, [&loaded].into_iter(), &mut Wake::default());
    kind.apply(7, [&later].into_iter(), &mut Wake::default());
    kind.load(&loaded.key, loaded.value.as_ref().unwrap(), 5);
    kind.loaded(6);
    let state = kind.state();
    let objects = state.objects.slice(0..state.objects.len());
    let revisions: Vec<u64> = objects.map(|object| object.revision).collect();
    assert_eq!(revisions, [7, 5]);
    assert_eq!(state.history.next(), 1);
}
