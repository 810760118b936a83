//! What is asked in a round: writes and reads with many in flight, and one write that many watch.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::connection::{Ask, Connection, Target};

pub const NAMESPACE: &str = "bench";
const LISTED: &str = "bench-list";
const WATCHED: &str = "bench-watch";
/// Requests that are on their way at once.
const IN_FLIGHT: usize = 32;
/// Bytes of a config map's data.
const DATA_BYTES: usize = 1000;
const LISTED_OBJECTS: usize = 3_000;
/// Writes that are on their way while others watch.
const WATCHED_IN_FLIGHT: usize = 4;
/// Events may take that long before the round fails.
const EVENT_TIMEOUT: Duration = Duration::from_secs(60);
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// How much is asked in a round.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub writes: usize,
    pub reads: usize,
    pub applies: usize,
    pub lists: usize,
    pub watchers: usize,
    pub watched_writes: usize,
}

/// What a load gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    pub per_second: f64,
    pub p99_ms: f64,
}

/// What watchers saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watched {
    pub rate: Rate,
    pub events: usize,
}

/// Makes namespaces and the objects that are listed.
pub async fn prepare(target: &Target) -> Result<()> {
    let mut connection = target.connect().await?;
    for name in [NAMESPACE, LISTED, WATCHED] {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        connection
            .good(Ask::post("/api/v1/namespaces", body))
            .await?;
    }
    drive(target, LISTED_OBJECTS, move |number| {
        Ask::post(config_maps(LISTED), object(&format!("listed-{number}")))
    })
    .await?;
    let hot = Ask::post(config_maps(WATCHED), object("hot"));
    connection.good(hot).await?;
    Ok(())
}

/// Creates objects of the round.
pub async fn creates(target: &Target, round: usize, sizes: Sizes) -> Result<Rate> {
    drive(target, sizes.writes, move |number| {
        Ask::post(config_maps(NAMESPACE), object(&name(round, number)))
    })
    .await
}

pub async fn gets(target: &Target, round: usize, sizes: Sizes) -> Result<Rate> {
    drive(target, sizes.reads, move |number| {
        Ask::get(path(round, number % sizes.writes))
    })
    .await
}

pub async fn merges(target: &Target, round: usize, sizes: Sizes) -> Result<Rate> {
    drive(target, sizes.writes, move |number| {
        let body = json!({"data": {"number": number.to_string()}});
        Ask::patch(path(round, number), MERGE, body)
    })
    .await
}

/// Applies a field that the manager owns then, to objects that another manager has made.
pub async fn applies(target: &Target, round: usize, sizes: Sizes) -> Result<Rate> {
    drive(target, sizes.applies, move |number| {
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name(round, number), "labels": {"applied": "yes"}},
            "data": {"applied": number.to_string()},
        });
        let path = format!("{}?fieldManager=applier&force=true", path(round, number));
        Ask::patch(path, APPLY, body)
    })
    .await
}

pub async fn deletes(target: &Target, round: usize, sizes: Sizes) -> Result<Rate> {
    drive(target, sizes.writes, move |number| {
        Ask::delete(path(round, number))
    })
    .await
}

/// Milliseconds of each list of 3,000 objects by their label.
pub async fn lists(target: &Target, sizes: Sizes) -> Result<Vec<f64>> {
    let mut connection = target.connect().await?;
    let mut times = Vec::new();
    for _ in 0..sizes.lists {
        let began = Instant::now();
        let ask = Ask::get(format!("{}?labelSelector=load%3Dyes", config_maps(LISTED)));
        let bytes = connection.drain(ask).await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(
            bytes > (LISTED_OBJECTS * DATA_BYTES) as u64,
            "the list is too short"
        );
    }
    Ok(times)
}

/// Many watch one object while it is written; latency is from the write's request to the event.
pub async fn watch(
    target: &Target,
    round: usize,
    sizes: Sizes,
    before: impl FnOnce() -> Result<()>,
) -> Result<Watched> {
    let sent: Arc<Mutex<HashMap<u64, Instant>>> = Arc::default();
    let start = Arc::new(Barrier::new(sizes.watchers + 1));
    let first = (round * sizes.watched_writes) as u64;
    let mut watchers = JoinSet::new();
    for _ in 0..sizes.watchers {
        let (target, sent, start) = (target.clone(), sent.clone(), start.clone());
        watchers.spawn(async move {
            let mut connection = target.connect().await?;
            let path = format!("{}?watch=1&resourceVersion=0", config_maps(WATCHED));
            let answer = connection.open(Ask::get(path)).await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            let mut events = Events::of(answer.into_body());
            // The object as it is comes first.
            events.next().await?;
            start.wait().await;
            let mut times_ms = Vec::with_capacity(sizes.watched_writes);
            while times_ms.len() < sizes.watched_writes {
                let number = tokio::time::timeout(EVENT_TIMEOUT, events.next()).await??;
                let now = Instant::now();
                let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(at) = sent.get(&number).filter(|_| number >= first) {
                    times_ms.push(now.duration_since(*at).as_secs_f64() * 1e3);
                }
            }
            anyhow::Ok(times_ms)
        });
    }
    // A watcher that failed never comes.
    let all = tokio::time::timeout(EVENT_TIMEOUT, start.wait());
    all.await.context("not every watch was opened")?;
    before()?;
    let began = Instant::now();
    let notes = sent.clone();
    drive_with(
        target,
        WATCHED_IN_FLIGHT,
        sizes.watched_writes,
        move |number| {
            let number = first + number as u64;
            let mut sent = notes.lock().unwrap_or_else(PoisonError::into_inner);
            sent.insert(number, Instant::now());
            let body = json!({"data": {"sequence": format!("{number:012}")}});
            Ask::patch(format!("{}/hot", config_maps(WATCHED)), MERGE, body)
        },
    )
    .await?;
    let mut times_ms = Vec::new();
    while let Some(seen) = watchers.join_next().await {
        times_ms.extend(seen??);
    }
    let events = times_ms.len();
    Ok(Watched {
        rate: Rate {
            per_second: events as f64 / began.elapsed().as_secs_f64(),
            p99_ms: p99(&mut times_ms),
        },
        events,
    })
}

/// The events of one watch; only the sequence of each is looked at.
struct Events {
    body: Incoming,
    rest: Vec<u8>,
}

impl Events {
    fn of(body: Incoming) -> Self {
        Self {
            body,
            rest: Vec::new(),
        }
    }

    /// The sequence of the next event; 0 for one without.
    async fn next(&mut self) -> Result<u64> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let number = sequence(&self.rest[..end]);
                self.rest.drain(..=end);
                return Ok(number.unwrap_or(0));
            }
            let frame = self.body.frame().await.context("the watch has ended")??;
            if let Some(data) = frame.data_ref() {
                self.rest.extend_from_slice(data);
            }
        }
    }
}

/// Of `"sequence":"000000000012"`, searched from the front: data stands before metadata.
fn sequence(event: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"sequence\":\"";
    let at = event.windows(KEY.len()).position(|window| window == KEY)?;
    let digits = event.get(at + KEY.len()..at + KEY.len() + 12)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

async fn drive(
    target: &Target,
    count: usize,
    ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
) -> Result<Rate> {
    drive_with(target, IN_FLIGHT, count, ask).await
}

/// Asks `count` times over as many connections as requests are in flight.
pub async fn drive_with(
    target: &Target,
    in_flight: usize,
    count: usize,
    ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
) -> Result<Rate> {
    let mut connections: Vec<Connection> = Vec::new();
    for _ in 0..in_flight {
        connections.push(target.connect().await?);
    }
    let (ask, next) = (Arc::new(ask), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for mut connection in connections {
        let (ask, next) = (ask.clone(), next.clone());
        workers.spawn(async move {
            let mut times_ms = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(times_ms);
                }
                let request = ask(number);
                let sent = Instant::now();
                connection.good(request).await?;
                times_ms.push(sent.elapsed().as_secs_f64() * 1e3);
            }
        });
    }
    let mut times_ms = Vec::new();
    while let Some(done) = workers.join_next().await {
        times_ms.extend(done??);
    }
    Ok(Rate {
        per_second: count as f64 / began.elapsed().as_secs_f64(),
        p99_ms: p99(&mut times_ms),
    })
}

fn p99(times_ms: &mut [f64]) -> f64 {
    times_ms.sort_by(f64::total_cmp);
    let at = times_ms.len() * 99 / 100;
    times_ms.get(at).copied().unwrap_or_default()
}

fn config_maps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

fn name(round: usize, number: usize) -> String {
    format!("load-{round}-{number}")
}

fn path(round: usize, number: usize) -> String {
    format!("{}/{}", config_maps(NAMESPACE), name(round, number))
}

fn object(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"load": "yes"}},
        "data": {"text": "x".repeat(DATA_BYTES)},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_sequence_is_found_without_parsing_it() {
        let event = br#"{"type":"MODIFIED","object":{"data":{"sequence":"000000000042"}}}"#;
        assert_eq!(sequence(event), Some(42));
        assert_eq!(sequence(br#"{"type":"ADDED"}"#), None);
        assert_eq!(sequence(br#"{"sequence":"0000"#), None);
    }
}
