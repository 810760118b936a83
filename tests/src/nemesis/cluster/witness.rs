//! Sees every container that starts and ends, as the Engine says it: what two agents believe does not matter. Pure
//! but for the stream of events.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::story::SINGLE;
use crate::cluster::Cluster;

/// A container that started or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub has_started: bool,
    pub id: String,
    pub namespace: String,
    pub pod: String,
    /// Empty for the pod's sandbox.
    pub container: String,
    pub node: String,
    /// Since the epoch.
    pub at_ns: i64,
}

/// Watches the Engine; it ends with this.
pub struct Witness {
    stream: Child,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Witness {
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let mut events = cluster.docker_command(&["events", "--format", "{{json .}}"]);
        events.args(["--filter", "type=container"]);
        events.args(["--filter", "event=start", "--filter", "event=die"]);
        events.args(["--filter", "label=orchestrator.pod.name"]);
        events.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut stream = events.spawn().context("run docker")?;
        let lines = BufReader::new(stream.stdout.take().context("no output")?).lines();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, of_cluster) = (seen.clone(), cluster.node(0));
        let of_cluster = of_cluster.trim_end_matches('0').to_owned();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).ok();
                let event = event.and_then(|event| read(&event));
                lock(&kept).extend(event.filter(|it| it.node.starts_with(&of_cluster)));
            }
        });
        Ok(Self { stream, seen })
    }

    /// All of a namespace.
    pub fn of(&self, namespace: &str) -> Vec<Seen> {
        let seen = lock(&self.seen);
        let own = seen.iter().filter(|it| it.namespace == namespace);
        own.cloned().collect()
    }

    /// The rounds that are over need no memory.
    pub fn forget(&self, namespace: &str) {
        lock(&self.seen).retain(|it| it.namespace != namespace);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.stream.kill();
        let _ = self.stream.wait();
    }
}

fn lock(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(event: &Value) -> Option<Seen> {
    let labels = &event["Actor"]["Attributes"];
    let label = |name: &str| labels[format!("orchestrator.{name}")].as_str();
    Some(Seen {
        has_started: event["Action"] == "start",
        id: event["Actor"]["ID"].as_str()?.to_owned(),
        namespace: label("pod.namespace")?.to_owned(),
        pod: label("pod.name")?.to_owned(),
        container: label("container").unwrap_or_default().to_owned(),
        node: label("node")?.to_owned(),
        at_ns: event["timeNano"].as_i64()?,
    })
}

/// The containers that run after all of that.
pub fn running(seen: &[Seen]) -> Vec<&Seen> {
    let mut running = BTreeMap::new();
    for event in seen {
        match event.has_started {
            true => running.insert(&event.id, event),
            false => running.remove(&event.id),
        };
    }
    running.into_values().collect()
}

/// What ran twice at one time, in sentences: a container of a pod of one name, or the writer of a volume.
pub fn twice(seen: &[Seen]) -> Vec<String> {
    let mut running: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut found = Vec::new();
    for event in seen {
        for place in places(event) {
            let all = running.entry(place.clone()).or_default();
            if !event.has_started {
                all.remove(&*event.id);
                continue;
            }
            if !all.is_empty() {
                found.push(format!(
                    "{place} runs twice: {all:?}, and {} on {} from {} ns on",
                    event.id, event.node, event.at_ns
                ));
            }
            all.insert(&event.id);
        }
    }
    found
}

/// What a container is the only one of.
fn places(event: &Seen) -> Vec<String> {
    let Seen {
        namespace,
        pod,
        container,
        ..
    } = event;
    let mut places = vec![format!("{namespace}/{pod}/{container}")];
    let has_volume = !container.is_empty() && pod.starts_with(&format!("{SINGLE}-"));
    places.extend(has_volume.then(|| format!("the writer of {namespace}/{SINGLE}")));
    places
}
