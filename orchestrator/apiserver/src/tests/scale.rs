//! What many pods cost: memory, lists, pages, watches. A test has few of them and looks only whether all
//! adds up; to measure: `PODS=150000 cargo test -p apiserver --lib scale -- --nocapture`, optimised, on a
//! quiet machine.

use std::time::Instant;

use super::*;
use crate::cache::Bucket;
use store::{EmbeddedStore, Expect, Store, Write};

/// How many pods there are if `PODS` does not say.
const FEW: usize = 2_000;
/// There is a node for so many pods.
const PODS_ON_NODE: usize = 30;
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Bytes of this process in memory: now, and at most since `forget_peak`.
fn resident() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number
            .and_then(|kib| kib.parse::<usize>().ok())
            .expect("a number")
            << 10
    };
    (line("VmRSS:"), line("VmHWM:"))
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("/proc");
}

fn mib(bytes: usize) -> usize {
    bytes >> 20
}

/// A pod of a Deployment that runs on a node, as the server stores it, with `{n}` where pods differ.
async fn template() -> String {
    let cluster = Cluster::start().await;
    let pod = serde_json::from_str(POD).expect("JSON");
    cluster.post(PODS, pod).await.expect(201);
    let path = format!("{PODS}/web-5d8c7b9f4-00000000");
    let target = json!({"kind": "Node", "name": "node-0000"});
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "target": target});
    cluster
        .post(&format!("{path}/binding"), binding)
        .await
        .expect(201);
    let status = serde_json::from_str(STATUS).expect("JSON");
    cluster
        .merge(&format!("{path}/status"), status)
        .await
        .expect(200);
    let pod = cluster.get(&path).await.expect(200);
    let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let pod = crate::objects::Current::of(
        &*cluster
            .server
            .state
            .objects
            .get(pods(), "default", "web-5d8c7b9f4-00000000")
            .expect("it"),
    );
    let text = pods().serialize(&pod.expect("JSON").value);
    let text = String::from_utf8(text).expect("text");
    let text = text
        .replace(&uid, "7a8d3c55-4c1f-4b8e-9a51-0000{n}")
        .replace("00000000", "{n}");
    text.replace("node-0000", "node-{node}")
        .replace("10.100.0.7", "10.{ip}")
}

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {
    "name": "web-5d8c7b9f4-00000000", "generateName": "web-5d8c7b9f4-",
    "labels": {"app": "web", "app.kubernetes.io/name": "web", "app.kubernetes.io/part-of": "shop",
        "pod-template-hash": "5d8c7b9f4"},
    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8c7b9f4",
        "uid": "7a8d3c55-4c1f-4b8e-9a51-0f4f5d0f9c11", "controller": true,
        "blockOwnerDeletion": true}]},
"spec": {"volumes": [{"name": "config", "configMap": {"name": "web"}}], "containers": [{
    "name": "web", "image": "registry.example.com/shop/web:1.27.3",
    "ports": [{"name": "http", "containerPort": 8080}],
    "env": [{"name": "MODE", "value": "production"},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "shop", "key": "password"}}}],
    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
    "livenessProbe": {"httpGet": {"path": "/live", "port": 8080}},
    "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}]}]}}"#;

const STATUS: &str = r#"{"status": {"phase": "Running", "startTime": "2026-11-29T12:00:00Z",
"hostIP": "172.31.0.11", "podIP": "10.100.0.7", "podIPs": [{"ip": "10.100.0.7"}],
"conditions": [
    {"type": "Initialized", "status": "True", "lastTransitionTime": "2026-11-29T12:00:00Z"},
    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-29T12:00:00Z"},
    {"type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-11-29T12:00:00Z"},
    {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-29T12:00:00Z"}],
"containerStatuses": [{"name": "web", "ready": true, "started": true, "restartCount": 0,
    "image": "registry.example.com/shop/web:1.27.3",
    "imageID": "registry.example.com/shop/web@sha256:a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
    "containerID": "docker://b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2",
    "state": {"running": {"startedAt": "2026-11-29T12:00:00Z"}}}]}}"#;

/// How many pods there are.
fn held() -> usize {
    let said = std::env::var("PODS").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(FEW)
}

fn nodes() -> usize {
    held() / PODS_ON_NODE
}

fn pods() -> &'static Arc<api::Resource> {
    api::find("", "v1", "pods").expect("pods are served")
}

fn filled(template: &str, number: usize) -> String {
    let ip = format!("{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
    let text = template
        .replace("{n}", &format!("{number:08}"))
        .replace("{ip}", &ip);
    text.replace("{node}", &format!("{:04}", number % nodes()))
}

fn key(number: usize) -> String {
    crate::cache::object_key(pods(), "default", &format!("web-5d8c7b9f4-{number:08}"))
}

async fn fill(store: &dyn Store, template: &str) {
    for first in (0..held()).step_by(1000) {
        let writes = first..(first + 1000).min(held());
        let writes = writes.map(|n| Write::put(key(n), filled(template, n), Expect::Any));
        store.commit(writes.collect()).await.expect("written");
    }
}

/// Reads a body to its end and keeps nothing of it.
async fn drain(response: axum::http::Response<Body>) -> usize {
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame
            .expect("a frame")
            .data_ref()
            .map_or(0, bytes::Bytes::len);
    }
    bytes
}

fn request(path: &str, accept: &str) -> Request<Body> {
    let request = Request::get(path).header(header::ACCEPT, accept);
    request.body(Body::empty()).expect("a request")
}

async fn measure_list(cluster: &Cluster, path: &str, accept: &str) {
    forget_peak();
    let (before, _) = resident();
    let begun = Instant::now();
    let bytes = drain(cluster.send(request(path, accept)).await).await;
    let (took, (_, peak)) = (begun.elapsed(), resident());
    let more = mib(peak.saturating_sub(before));
    assert_eq!(path.ends_with("pods"), bytes > held() * 1000, "{bytes}");
    println!(
        "GET {path} {}: {took:?}, {} MiB, {more} MiB more in memory",
        &accept[..19],
        mib(bytes)
    );
}

async fn measure_pages(cluster: &Cluster) {
    forget_peak();
    let (before, _) = resident();
    let begun = Instant::now();
    let (mut token, mut rows, mut pages) = (String::new(), 0, 0);
    loop {
        let path = format!("/api/v1/pods?limit=500&continue={token}");
        let page = cluster.get_as(&path, TABLE).await.expect(200);
        rows += page["rows"].as_array().map_or(0, Vec::len);
        pages += 1;
        assert_eq!(
            page["metadata"]["remainingItemCount"]
                .as_u64()
                .unwrap_or_default(),
            (held() - rows) as u64
        );
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    let (took, (_, peak)) = (begun.elapsed(), resident());
    let more = mib(peak.saturating_sub(before));
    assert_eq!(rows, held());
    println!("{pages} pages, {rows} rows of tables, parsed here: {took:?}, {more} MiB more");
}

/// A watch for each node, of the pods of one node, by an index or by looking at every event.
async fn measure_watches(cluster: &Cluster, template: &str, is_indexed: bool) {
    let objects = &cluster.server.state.objects;
    let query = |node: usize| {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-{node:04}");
        crate::request::Query::of(&path.parse().expect("a path"))
    };
    let mut tasks = tokio::task::JoinSet::new();
    for node in 0..nodes() {
        let selection =
            crate::rest::list::Selection::of(&api::Served::stored(pods()), &query(node))
                .expect("it reads");
        let bucket: Option<Bucket> = selection.bucket(pods(), None).filter(|_| is_indexed);
        let from = objects.cache.revision();
        let watch = objects.cache.watch(pods(), None, bucket, from).await;
        let mut watch = watch.expect("a watch");
        tasks.spawn(async move {
            loop {
                let event = watch.next().await.expect("an event");
                if selection.selects(&event.object) {
                    return;
                }
            }
        });
    }
    let (begun, used) = (Instant::now(), cpu());
    for number in 0..nodes() {
        let write = Write::put(key(number), filled(template, number), Expect::Any);
        let revision = objects.store.commit(vec![write]).await.expect("written");
        objects.cache.wait_for(revision).await;
    }
    while tasks.join_next().await.is_some() {}
    let (took, used, nodes) = (begun.elapsed(), cpu() - used, nodes());
    println!(
        "{nodes} watches, {nodes} events, index {is_indexed}: {took:?}, {:?} CPU an event",
        used / u32::try_from(nodes).expect("few")
    );
}

/// The processor time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|it| it.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Changes of most pods, and a watch from before them.
async fn measure_history(cluster: &Cluster, template: &str) {
    let changes = held() / 3 * 2;
    let objects = &cluster.server.state.objects;
    let from = objects.cache.revision();
    let (before, _) = resident();
    let (begun, used) = (Instant::now(), cpu());
    for first in (0..changes).step_by(250) {
        let writes = (first..(first + 250).min(changes)).map(|number| {
            let text = filled(template, number).replace("12:00:00Z", "12:34:56Z");
            Write::put(key(number), text, Expect::Any)
        });
        let revision = objects
            .store
            .commit(writes.collect())
            .await
            .expect("written");
        objects.cache.wait_for(revision).await;
    }
    println!(
        "{changes} changes: {:?}, {:?} CPU",
        begun.elapsed(),
        cpu() - used
    );
    let (after, _) = resident();
    let packed = objects.cache.past_bytes();
    println!(
        "history: {} MiB packed, {} MiB more in memory",
        mib(packed),
        mib(after.saturating_sub(before))
    );
    let begun = Instant::now();
    let watch = objects.cache.watch(pods(), None, None, from).await;
    let mut watch = watch.expect("it reaches back");
    for _ in 0..changes {
        watch.next().await.expect("an event");
    }
    println!("a watch from {changes} changes back: {:?}", begun.elapsed());
}

/// A node for so many pods is made and deleted.
async fn measure_nodes(cluster: &Cluster) {
    let all = "/api/v1/nodes";
    let begun = Instant::now();
    for number in 0..nodes() {
        let metadata = json!({"name": format!("node-{number:04}")});
        let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": metadata});
        cluster.post(all, node).await.expect(201);
    }
    println!("{} nodes made in {:?}", nodes(), begun.elapsed());
    let (begun, used) = (Instant::now(), cpu());
    for number in 0..nodes() {
        let path = format!("{all}/node-{number:04}");
        cluster.delete(&path).await.expect(200);
    }
    let used = (cpu() - used) / u32::try_from(nodes()).expect("few");
    println!("deleted in {:?}, {used:?} CPU each", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_are_held_listed_paged_and_watched() {
    let template = template().await;
    println!("a pod has {} bytes", filled(&template, 1).len());
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("db");
    let store = EmbeddedStore::open(&path).expect("a store");
    fill(&store, &template).await;
    drop(store);
    let store = Arc::new(EmbeddedStore::open(&path).expect("a store"));
    let (before, _) = resident();
    let begun = Instant::now();
    let tasks = Tasks::new(Shutdown::new());
    let server = ApiServer::build(ServerConfig::default(), store, None, tasks);
    let cluster = Cluster {
        server: server.await.expect("a server"),
        user: User::internal("test"),
    };
    let (after, _) = resident();
    println!(
        "held in {} MiB, loaded in {:?}",
        mib(after.saturating_sub(before)),
        begun.elapsed()
    );
    for accept in ["application/json   ", TABLE] {
        measure_list(&cluster, "/api/v1/pods", accept).await;
    }
    measure_pages(&cluster).await;
    let selector = "/api/v1/pods?labelSelector=app%3Dother";
    measure_list(&cluster, selector, "application/json   ").await;
    measure_list(&cluster, selector, "application/json   ").await;
    let node = "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-0007";
    measure_list(&cluster, node, "application/json   ").await;
    println!("now {} MiB", mib(resident().0.saturating_sub(before)));
    measure_nodes(&cluster).await;
    for is_indexed in [false, true] {
        measure_watches(&cluster, &template, is_indexed).await;
    }
    measure_history(&cluster, &template).await;
    println!("now {} MiB", mib(resident().0.saturating_sub(before)));
}
