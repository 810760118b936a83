//! Clients that read and write, and write down what they asked and heard.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api_load::connection::{Ask, Connection, Target};
use crate::checker::history::{Action, History, Object, Operation, Outcome, Watch};
use crate::sim::rng::Rng;

/// What all clients of a round share.
pub struct Recorder {
    pub namespace: String,
    pub keys: Vec<String>,
    clock: AtomicU64,
    values: AtomicU64,
    operations: Mutex<Vec<Operation>>,
    watches: Mutex<Vec<Watch>>,
    /// What somebody last saw of each key: writes at a revision need one.
    seen: Mutex<BTreeMap<String, Object>>,
    has_load: AtomicBool,
    /// The revision that watches have to reach; 0: not known yet.
    goal: AtomicU64,
    is_given_up: AtomicBool,
}

/// A whole collection as of a revision.
#[derive(Default)]
pub struct Listed {
    pub revision: u64,
    pub objects: BTreeMap<String, Object>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two tries to reach a server.
const PAUSE: Duration = Duration::from_millis(20);
/// So many writes in a thousand are given up before they are answered.
const IMPATIENT: u64 = 8;
const MERGE: &str = "application/merge-patch+json";

impl Recorder {
    pub fn new(namespace: String, keys: usize) -> Self {
        Self {
            namespace,
            keys: (0..keys).map(|number| format!("key-{number}")).collect(),
            clock: AtomicU64::new(1),
            values: AtomicU64::new(1),
            operations: Mutex::default(),
            watches: Mutex::default(),
            seen: Mutex::default(),
            has_load: AtomicBool::new(true),
            goal: AtomicU64::new(0),
            is_given_up: AtomicBool::new(false),
        }
    }

    pub fn end_load(&self) {
        self.has_load.store(false, Ordering::SeqCst);
    }

    pub fn operations(&self) -> usize {
        lock(&self.operations).len()
    }

    pub fn set_goal(&self, revision: u64) {
        self.goal.fetch_max(revision, Ordering::SeqCst);
    }

    /// Whether a watch that has been told everything up to there may end.
    pub fn is_enough(&self, position: u64) -> bool {
        let goal = self.goal.load(Ordering::SeqCst);
        (goal > 0 && position >= goal) || self.is_given_up.load(Ordering::SeqCst)
    }

    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::SeqCst);
    }

    pub fn add_watch(&self, watch: Watch) {
        lock(&self.watches).push(watch);
    }

    pub fn history(&self) -> History {
        History {
            operations: std::mem::take(&mut *lock(&self.operations)),
            watches: std::mem::take(&mut *lock(&self.watches)),
            ..History::default()
        }
    }

    pub fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    /// The next place in the order of all that happens.
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, operation: Operation) {
        match operation.outcome {
            Outcome::Seen(Some(object)) => {
                lock(&self.seen).insert(operation.key.clone(), object);
            }
            Outcome::Seen(None) => {
                lock(&self.seen).remove(&operation.key);
            }
            _ => {}
        }
        lock(&self.operations).push(operation);
    }
}

/// Asks until the load is to end.
pub async fn run(targets: Vec<Target>, recorder: Arc<Recorder>, number: usize, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut server = number % targets.len();
    let mut open: Option<Connection> = None;
    while recorder.has_load.load(Ordering::SeqCst) {
        let Some(connection) = &mut open else {
            server = rng.below(targets.len());
            open = connect(&targets[server]).await;
            if open.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
            continue;
        };
        let client = format!("client {number}, server {server}");
        let is_good = if rng.chance(60) {
            list_by(connection, &recorder, &client).await.is_some()
        } else {
            one(connection, &recorder, &client, &mut rng).await
        };
        // Each client goes to another server now and then.
        if !is_good || rng.chance(30) {
            open = None;
        }
    }
}

pub async fn connect(target: &Target) -> Option<Connection> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, target.connect()).await;
    connected.ok()?.ok()
}

/// One list, as a read of every key.
pub async fn list(target: &Target, recorder: &Recorder, client: &str) -> Option<Listed> {
    let mut connection = connect(target).await?;
    list_by(&mut connection, recorder, client).await
}

async fn list_by(connection: &mut Connection, recorder: &Recorder, client: &str) -> Option<Listed> {
    let invoked = recorder.tick();
    let asked = connection.ask(Ask::get(recorder.collection()));
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    let returned = recorder.tick();
    let (status, body) = answer.ok()?.ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    if status != StatusCode::OK {
        return None;
    }
    let listed = Listed {
        revision: revision(&body)?,
        objects: items(&body),
    };
    for key in &recorder.keys {
        recorder.note(Operation {
            client: client.to_owned(),
            key: key.clone(),
            action: Action::Read,
            outcome: Outcome::Seen(listed.objects.get(key).copied()),
            invoked,
            returned,
        });
    }
    Some(listed)
}

/// One operation. Whether the connection is good for another one.
async fn one(
    connection: &mut Connection,
    recorder: &Recorder,
    client: &str,
    rng: &mut Rng,
) -> bool {
    let Some(key) = rng.pick(&recorder.keys).cloned() else {
        return false;
    };
    let seen = lock(&recorder.seen).get(&key).copied();
    let value = recorder.values.fetch_add(1, Ordering::Relaxed);
    let (action, ask) = choose(recorder, &key, seen, value, rng.below(100));
    let is_impatient = action != Action::Read && rng.chance(IMPATIENT);
    let patience = match is_impatient {
        true => Duration::from_micros(rng.below(5000) as u64),
        false => ANSWER_TIMEOUT,
    };
    let invoked = recorder.tick();
    let answer = tokio::time::timeout(patience, connection.ask(ask)).await;
    let returned = recorder.tick();
    let heard = match answer {
        Ok(Ok((status, body))) => hear(action, status, &body),
        _ => Some(Outcome::Unknown),
    };
    let Some(outcome) = heard else { return true };
    recorder.note(Operation {
        client: client.to_owned(),
        key,
        action,
        outcome,
        invoked,
        returned,
    });
    outcome != Outcome::Unknown
}

/// What is asked for, by a number below 100.
fn choose(
    recorder: &Recorder,
    key: &str,
    seen: Option<Object>,
    value: u64,
    dice: usize,
) -> (Action, Ask) {
    let path = format!("{}/{key}", recorder.collection());
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": key}, "data": {"value": value.to_string()},
    });
    match (dice, seen) {
        (0..40, _) => (Action::Read, Ask::get(path)),
        (40..55, _) => {
            let ask = Ask::post(recorder.collection(), object);
            (Action::Create(value), ask)
        }
        (55..73, _) => {
            let body = json!({"data": {"value": value.to_string()}});
            (Action::Put(value), Ask::patch(path, MERGE, body))
        }
        (73..90, Some(seen)) => {
            object["metadata"]["resourceVersion"] = json!(seen.revision.to_string());
            let expected = seen.value;
            let ask = Ask {
                method: Method::PUT,
                ..Ask::post(path, object)
            };
            (Action::Swap { expected, value }, ask)
        }
        _ => (Action::Delete, Ask::delete(path)),
    }
}

/// What an answer says; `None`: nothing has been done, and nothing was learned.
fn hear(action: Action, status: StatusCode, body: &Bytes) -> Option<Outcome> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_read = action == Action::Read;
    Some(match status {
        StatusCode::OK | StatusCode::CREATED if is_read => Outcome::Seen(Some(object(&body)?)),
        StatusCode::OK | StatusCode::CREATED if action == Action::Delete => Outcome::Applied(0),
        StatusCode::OK | StatusCode::CREATED => Outcome::Applied(revision(&body)?),
        StatusCode::NOT_FOUND if is_read => Outcome::Seen(None),
        StatusCode::NOT_FOUND => Outcome::Absent,
        StatusCode::CONFLICT => Outcome::Conflict,
        StatusCode::TOO_MANY_REQUESTS => return None,
        _ => Outcome::Unknown,
    })
}

/// The objects of a list by name; those that are not of the load have the value 0.
pub fn items(list: &Value) -> BTreeMap<String, Object> {
    let items = list["items"].as_array().into_iter().flatten();
    let named = items.filter_map(|item| Some((name(item)?, object(item)?)));
    named.collect()
}

pub fn name(object: &Value) -> Option<String> {
    object["metadata"]["name"].as_str().map(str::to_owned)
}

pub fn object(body: &Value) -> Option<Object> {
    let value = body["data"]["value"].as_str().unwrap_or("0");
    Some(Object {
        value: value.parse().ok()?,
        revision: revision(body)?,
    })
}

pub fn revision(body: &Value) -> Option<u64> {
    body["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
