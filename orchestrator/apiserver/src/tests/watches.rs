//! Watches: where they begin, what they tell of a selection, how they end.

use axum::body::BodyDataStream;
use futures::{FutureExt, StreamExt};

use super::*;

/// A client's end of a watch.
pub struct Watcher {
    body: BodyDataStream,
    buffer: String,
}

impl Watcher {
    pub async fn open(cluster: &Cluster, path: &str, accept: &str) -> Self {
        let request = Request::get(path)
            .header("accept", accept)
            .body(Body::empty());
        let response = cluster.send(request.expect("a request")).await;
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            body: response.into_body().into_data_stream(),
            buffer: String::new(),
        }
    }

    /// The next event; None at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.buffer.split_once('\n') {
                let event = serde_json::from_str(line).expect("an event");
                self.buffer = rest.to_owned();
                return Some(event);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.body.next())
                .await
                .expect("in time")?;
            self.buffer
                .push_str(&String::from_utf8_lossy(&chunk.expect("a chunk")));
        }
    }

    /// Types and names of what is there without waiting.
    fn told_now(&mut self) -> Vec<(String, String)> {
        while let Some(Some(chunk)) = self.body.next().now_or_never() {
            let chunk = chunk.expect("a chunk");
            self.buffer.push_str(&String::from_utf8_lossy(&chunk));
        }
        let text = std::mem::take(&mut self.buffer);
        let event = |line| serde_json::from_str(line).expect("an event");
        text.lines()
            .map(event)
            .map(|event: Value| of(&event))
            .collect()
    }

    /// Type and name of the next event.
    pub async fn told(&mut self) -> (String, String) {
        of(&self.next().await.expect("an event"))
    }
}

/// Type and name of an event.
fn of(event: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (
        text(&event["type"]),
        text(&event["object"]["metadata"]["name"]),
    )
}

fn told(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_without_a_revision_begins_with_what_there_is() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("a")).await.expect(201);
    let mut watch = Watcher::open(&cluster, &format!("{PODS}?watch=true"), "*/*").await;
    assert_eq!(watch.told().await, told("ADDED", "a"));
    cluster.post(PODS, pod("b")).await.expect(201);
    assert_eq!(watch.told().await, told("ADDED", "b"));
    let patch = json!({"metadata": {"labels": {"x": "y"}}});
    cluster.merge(&format!("{PODS}/b"), patch).await.expect(200);
    assert_eq!(watch.told().await, told("MODIFIED", "b"));
    cluster.delete(&format!("{PODS}/a")).await.expect(200);
    assert_eq!(watch.told().await, told("DELETED", "a"));
}

#[tokio::test]
async fn a_watch_resumes_behind_its_revision() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("a")).await.expect(201);
    let list = cluster.get(PODS).await.expect(200);
    cluster.post(PODS, pod("b")).await.expect(201);
    let revision = list["metadata"]["resourceVersion"]
        .as_str()
        .expect("a revision");
    let path = format!("{PODS}?watch=true&resourceVersion={revision}");
    let mut watch = Watcher::open(&cluster, &path, "*/*").await;
    assert_eq!(watch.told().await, told("ADDED", "b"));
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("a")).await.expect(201);
    let path = format!("{PODS}?watch=true&labelSelector=on%3Dyes");
    let mut watch = Watcher::open(&cluster, &path, "*/*").await;
    let pod = format!("{PODS}/a");
    let label = |value: Value| json!({"metadata": {"labels": {"on": value}}});
    cluster.merge(&pod, label(json!("yes"))).await.expect(200);
    assert_eq!(watch.told().await, told("ADDED", "a"));
    let left = cluster.merge(&pod, label(Value::Null)).await.expect(200);
    let event = watch.next().await.expect("an event");
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["on"], "yes");
    assert_eq!(
        event["object"]["metadata"]["resourceVersion"],
        left["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn the_end_of_the_first_events_is_marked() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("a")).await.expect(201);
    let path = format!(
        "{PODS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
         &allowWatchBookmarks=true"
    );
    let mut watch = Watcher::open(&cluster, &path, "*/*").await;
    assert_eq!(watch.told().await, told("ADDED", "a"));
    let mark = watch.next().await.expect("a bookmark");
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["kind"], "Pod");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn one_of_many_watches_collects_events_after_a_frame_and_a_lone_one_does_not() {
    let cluster = Cluster::start().await;
    tokio::time::pause();
    let path = format!("{PODS}?watch=true");
    let mut alone = Watcher::open(&cluster, &path, "*/*").await;
    for name in ["a", "b"] {
        cluster.post(PODS, pod(name)).await.expect(201);
        assert_eq!(alone.told_now(), [told("ADDED", name)]);
    }
    let mut many = Vec::new();
    for _ in 0..100 {
        many.push(Watcher::open(&cluster, &path, "*/*").await);
    }
    let one = &mut many[0];
    assert_eq!(one.told_now(), [told("ADDED", "a"), told("ADDED", "b")]);
    cluster.post(PODS, pod("c")).await.expect(201);
    assert_eq!(one.told_now(), [told("ADDED", "c")]);
    for name in ["d", "e"] {
        cluster.post(PODS, pod(name)).await.expect(201);
        assert_eq!(one.told_now(), []);
    }
    tokio::time::advance(Duration::from_millis(10)).await;
    assert_eq!(one.told_now(), [told("ADDED", "d"), told("ADDED", "e")]);
}

#[tokio::test]
async fn a_table_watch_sends_its_columns_once() {
    let cluster = Cluster::start().await;
    for name in ["a", "b"] {
        cluster.post(PODS, pod(name)).await.expect(201);
    }
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut watch = Watcher::open(&cluster, &format!("{PODS}?watch=true"), accept).await;
    let count = |event: &Value| {
        event["object"]["columnDefinitions"]
            .as_array()
            .map(Vec::len)
    };
    let first = watch.next().await.expect("an event");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert_eq!(count(&first), Some(9));
    let second = watch.next().await.expect("an event");
    assert_eq!(count(&second), Some(0));
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout_and_when_the_server_stops() {
    let cluster = Cluster::start().await;
    let path = format!("{PODS}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true");
    let mut watch = Watcher::open(&cluster, &path, "*/*").await;
    let last = watch.next().await.expect("a bookmark before the end");
    assert_eq!(last["type"], "BOOKMARK");
    assert_eq!(watch.next().await, None);
    let mut watch = Watcher::open(&cluster, &format!("{PODS}?watch=true"), "*/*").await;
    cluster.server.state.tasks.shutdown().trigger();
    assert_eq!(watch.next().await, None);
    let ready = cluster.get("/readyz").await;
    assert_eq!(ready.code, StatusCode::SERVICE_UNAVAILABLE);
}
