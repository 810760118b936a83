//! Clients that watch: each goes on where it was told last, through whichever server, until it has been told of
//! the last write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use super::clients::{Recorder, connect, items, name, object, revision};
use crate::api_load::connection::{Ask, Target};
use crate::checker::history::{Event, EventKind, Object, Step, Watch};
use crate::sim::rng::Rng;

/// Longer than any watch here asks for.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(6);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);

/// One client's state between its requests.
struct Client {
    recorder: Arc<Recorder>,
    watch: Watch,
    /// Everything up to there has been told; `None`: it has to list first.
    position: Option<u64>,
}

pub async fn run(targets: Vec<Target>, recorder: Arc<Recorder>, number: usize, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut client = Client {
        recorder: recorder.clone(),
        watch: Watch {
            name: format!("watch {number}"),
            steps: Vec::new(),
        },
        position: None,
    };
    let mut server = number % targets.len();
    while !recorder.is_enough(client.position.unwrap_or_default()) {
        let target = &targets[server];
        let went_on = match client.position {
            None if rng.chance(500) => client.list(target).await,
            None => client.initial_events(target).await,
            Some(from) => client.go_on(target, from, 1 + rng.below(3)).await,
        };
        if went_on.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
        if went_on.is_none() || rng.chance(300) {
            server = rng.below(targets.len());
        }
    }
    recorder.add_watch(client.watch);
}

impl Client {
    async fn list(&mut self, target: &Target) -> Option<()> {
        let mut connection = connect(target).await?;
        let asked = connection.ask(Ask::get(self.recorder.collection()));
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
        let (status, body) = answer.ok()?.ok()?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        if status != StatusCode::OK {
            return None;
        }
        self.listed(revision(&body)?, items(&body));
        Some(())
    }

    fn listed(&mut self, revision: u64, objects: BTreeMap<String, Object>) {
        self.watch.steps.push(Step::Listed { revision, objects });
        self.position = Some(revision);
    }

    /// A list by a watch (KEP-3157): the objects come as events, then a bookmark that says so.
    async fn initial_events(&mut self, target: &Target) -> Option<()> {
        let query = "watch=1&allowWatchBookmarks=true&sendInitialEvents=true\
                     &resourceVersionMatch=NotOlderThan&timeoutSeconds=2";
        let mut lines = self.open(target, query).await?;
        let mut objects = BTreeMap::new();
        loop {
            let line = lines.next().await?;
            let of_line = &line["object"];
            let annotations = &of_line["metadata"]["annotations"];
            if annotations["k8s.io/initial-events-end"] == "true" {
                self.listed(revision(of_line)?, objects);
                break;
            }
            objects.insert(name(of_line)?, object(of_line)?);
        }
        self.follow(lines).await;
        Some(())
    }

    /// Watches from where it is for some seconds.
    async fn go_on(&mut self, target: &Target, from: u64, seconds: usize) -> Option<()> {
        let query = format!(
            "watch=1&allowWatchBookmarks=true&resourceVersion={from}&timeoutSeconds={seconds}"
        );
        let lines = self.open(target, &query).await?;
        self.watch.steps.push(Step::Began(from));
        self.follow(lines).await;
        Some(())
    }

    /// None: no watch, but for 410: then everything has to be listed again.
    async fn open(&mut self, target: &Target, query: &str) -> Option<Lines> {
        let mut connection = connect(target).await?;
        let ask = Ask::get(format!("{}?{query}", self.recorder.collection()));
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, connection.open(ask)).await;
        let answer = answer.ok()?.ok()?;
        if answer.status() == StatusCode::GONE {
            self.position = None;
        }
        let is_good = answer.status() == StatusCode::OK;
        is_good.then(|| Lines {
            body: answer.into_body(),
            rest: Vec::new(),
        })
    }

    /// Takes events until the watch ends, however it does.
    async fn follow(&mut self, mut lines: Lines) {
        while let Some(line) = lines.next().await {
            let of_line = &line["object"];
            let kind = match line["type"].as_str() {
                Some("ADDED") => EventKind::Added,
                Some("MODIFIED") => EventKind::Modified,
                Some("DELETED") => EventKind::Deleted,
                Some("BOOKMARK") => EventKind::Bookmark,
                _ => {
                    if of_line["code"] == 410 {
                        self.position = None;
                    }
                    return;
                }
            };
            let Some(object) = object(of_line) else {
                return;
            };
            let key = name(of_line).unwrap_or_default();
            self.position = self.position.max(Some(object.revision));
            self.watch
                .steps
                .push(Step::Event(Event { kind, key, object }));
        }
    }
}

/// The lines of a body; what a broken connection leaves of a line is dropped.
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line).ok();
            }
            let frame = tokio::time::timeout(SILENCE_TIMEOUT, self.body.frame()).await;
            let frame = frame.ok()??.ok()?;
            if let Some(data) = frame.data_ref() {
                self.rest.extend_from_slice(data);
            }
        }
    }
}
