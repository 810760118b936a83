use serde_json::{Value, json};

use super::fake::FakeApi;
use super::*;

const SOON: Duration = Duration::from_secs(5);

fn node(api: &FakeApi) -> Watched {
    let fresh = api.clone();
    Watched::new(api.client(), Box::new(move || fresh.client()))
}

/// An API in which the ConfigMap `a` says "one", and a node that has read it for a pod.
async fn node_with_a() -> (FakeApi, Watched, Arc<Notify>, Reference) {
    let api = FakeApi::default();
    api.put("configmaps", "a", data("one"));
    let node = node(&api);
    let wake = Arc::new(Notify::new());
    let mut reference = node.refer(&pod(&["a"]), &wake);
    reference.wait(SOON).await.expect("known");
    (api, node, wake, reference)
}

/// A pod with one volume of each ConfigMap.
fn pod(config_maps: &[&str]) -> Pod {
    let volumes = config_maps
        .iter()
        .map(|name| json!({ "name": "v", "configMap": { "name": name } }));
    let pod = json!({
        "metadata": { "name": "p", "namespace": "default" },
        "spec": { "containers": [], "volumes": volumes.collect::<Vec<_>>() },
    });
    serde_json::from_value(pod).expect("a pod")
}

fn data(value: &str) -> Value {
    json!({ "data": { "key": value } })
}

fn value(objects: &Objects, name: &str) -> Option<String> {
    let found = objects.get(&Wanted::Object(Kind::ConfigMap, name.to_owned()))?;
    String::from_utf8(found.entries.get("key")?.clone()).ok()
}

async fn woken(wake: &Notify) -> bool {
    tokio::time::timeout(SOON, wake.notified()).await.is_ok()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_pod_knows_its_objects_and_is_woken_by_their_changes() {
    let api = FakeApi::default();
    api.put("configmaps", "a", data("one"));
    let node = node(&api);
    let wake = Arc::new(Notify::new());
    let mut reference = node.refer(&pod(&["a", "absent"]), &wake);
    let objects = reference.wait(SOON).await.expect("known");
    assert_eq!(value(&objects, "a").as_deref(), Some("one"));
    assert_eq!(objects.len(), 1);
    let before = reference.changes();
    for wanted in ["two", "three"] {
        api.put("configmaps", "a", data(wanted));
        let known = || value(&reference.objects().expect("known"), "a");
        until(wanted, || known().as_deref() == Some(wanted)).await;
    }
    assert!(reference.changes() >= before + 2);
    assert!(woken(&wake).await);
    api.put("configmaps", "absent", data("come"));
    until("come", || reference.objects().expect("known").len() == 2).await;
    api.delete("configmaps", "a");
    until("gone", || reference.objects().expect("known").len() == 1).await;
}

#[tokio::test]
async fn a_change_wakes_only_the_pods_that_refer_to_the_object() {
    let api = FakeApi::default();
    api.put("configmaps", "a", data("one"));
    api.put("configmaps", "b", data("one"));
    let node = node(&api);
    let (of_a, of_b) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut first = node.refer(&pod(&["a"]), &of_a);
    let mut second = node.refer(&pod(&["b"]), &of_b);
    first.wait(SOON).await.expect("known");
    second.wait(SOON).await.expect("known");
    let before = first.changes();
    api.put("configmaps", "b", data("two"));
    until("told", || second.changes() > 1).await;
    assert_eq!(first.changes(), before);
    assert_eq!(api.gets(), 0, "watches say it all");
}

#[tokio::test]
async fn one_watch_serves_all_pods_and_ends_with_the_last_of_them() {
    let (api, node, wake, first) = node_with_a().await;
    let mut second = node.refer(&pod(&["a", "b"]), &wake);
    second.wait(SOON).await.expect("known");
    assert_eq!(api.watches(), 2);
    assert_eq!(node.counts(), (2, 1));
    drop(second);
    until("ended", || api.watches() == 1).await;
    drop(first);
    until("ended", || api.watches() == 0).await;
    assert_eq!(node.counts(), (0, 0));
}

#[tokio::test]
async fn an_immutable_object_is_not_watched_once_it_is_known() {
    let api = FakeApi::default();
    let immutable = json!({ "immutable": true, "data": { "key": "one" } });
    api.put("configmaps", "a", immutable);
    let node = node(&api);
    let wake = Arc::new(Notify::new());
    let mut first = node.refer(&pod(&["a"]), &wake);
    first.wait(SOON).await.expect("known");
    until("ended", || api.watches() == 0).await;
    // It can only be deleted and made anew: the next pod sees that.
    api.delete("configmaps", "a");
    api.put("configmaps", "a", data("two"));
    let mut second = node.refer(&pod(&["a"]), &wake);
    let objects = second.wait(SOON).await.expect("known");
    assert_eq!(value(&objects, "a").as_deref(), Some("two"));
    until("watched", || api.watches() == 1).await;
}

#[tokio::test]
async fn the_last_known_contents_serve_while_the_server_is_away_and_new_ones_come_after() {
    let (api, node, wake, first) = node_with_a().await;
    api.be_away(true);
    let mut second = node.refer(&pod(&["a"]), &wake);
    let objects = second.wait(SOON).await.expect("the last known ones");
    assert_eq!(value(&objects, "a").as_deref(), Some("one"));
    let mut unknown = node.refer(&pod(&["b"]), &wake);
    assert_eq!(unknown.wait(Duration::from_millis(50)).await, None);
    api.put("configmaps", "a", data("two"));
    api.be_away(false);
    let known = || value(&first.objects().expect("known"), "a");
    until("new", || known().as_deref() == Some("two")).await;
    until("said", || unknown.objects().is_some()).await;
}

#[tokio::test]
async fn a_pod_sees_what_was_written_before_it_also_when_the_watch_is_late() {
    let (api, node, wake, _first) = node_with_a().await;
    api.be_silent();
    api.put("configmaps", "a", data("two"));
    let mut second = node.refer(&pod(&["a"]), &wake);
    let objects = second.wait(SOON).await.expect("known");
    assert_eq!(value(&objects, "a").as_deref(), Some("two"));
}

#[tokio::test]
async fn a_name_that_no_object_has_is_never_asked_for() {
    let api = FakeApi::default();
    let node = node(&api);
    let wake = Arc::new(Notify::new());
    let names = ["", "../secrets/a", "a,metadata.name!=a", "A", "a%2Fb", "-a"];
    for _ in 0..2 {
        let mut reference = node.refer(&pod(&names), &wake);
        assert_eq!(reference.wait(SOON).await, Some(Objects::new()));
    }
    assert_eq!((api.watches(), api.gets()), (0, 0));
}

#[tokio::test]
async fn many_watches_are_few_connections() {
    let api = FakeApi::default();
    let node = node(&api);
    let names: Vec<String> = (0..WATCHES_PER_CONNECTION + 1)
        .map(|number| format!("c{number}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let wake = Arc::new(Notify::new());
    let mut all = node.refer(&pod(&names), &wake);
    assert_eq!(all.wait(SOON).await, Some(Objects::new()));
    assert_eq!(node.counts(), (WATCHES_PER_CONNECTION + 1, 2));
    let mut one = node.refer(&pod(&["c0"]), &wake);
    one.wait(SOON).await.expect("known");
    drop(all);
    assert_eq!(node.counts(), (1, 1));
}
