//! An API server in memory that has ConfigMaps and Secrets of one namespace, to get and to watch by
//! name. It refuses everything that a node may not do.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::stream;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

type Answer = http::Response<UnsyncBoxBody<Bytes, Infallible>>;

/// By plural and name.
type Key = (String, String);

#[derive(Clone, Default)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    watches: Vec<(Key, mpsc::UnboundedSender<Bytes>)>,
    /// Reads of single objects so far.
    gets: usize,
    away: bool,
    /// Watches hear nothing.
    silent: bool,
}

impl FakeApi {
    pub fn client(&self) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let answer = this.answer(request.method(), request.uri());
            async move { answer }
        });
        Client::new(service, "default")
    }

    pub fn put(&self, plural: &str, name: &str, mut object: Value) {
        let mut state = self.state();
        state.revision += 1;
        object["metadata"]["name"] = json!(name);
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let key = (plural.to_owned(), name.to_owned());
        let old = state.objects.insert(key.clone(), object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        state.tell(&key, kind, &object);
    }

    pub fn delete(&self, plural: &str, name: &str) {
        let mut state = self.state();
        state.revision += 1;
        let key = (plural.to_owned(), name.to_owned());
        let mut object = state.objects.remove(&key).expect("an object");
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        state.tell(&key, "DELETED", &object);
    }

    /// What is there of that name.
    pub fn find(&self, plural: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), name.to_owned());
        self.state().objects.get(&key).cloned()
    }

    /// All of that plural.
    pub fn all(&self, plural: &str) -> Vec<Value> {
        let state = self.state();
        let all = state.objects.iter().filter(|((of, _), _)| of == plural);
        all.map(|(_, object)| object.clone()).collect()
    }

    /// Ends every watch and answers nothing until it is back.
    pub fn be_away(&self, away: bool) {
        let mut state = self.state();
        state.away = away;
        if away {
            state.watches.clear();
        }
    }

    /// What is written from now on is not told to watches.
    pub fn be_silent(&self) {
        self.state().silent = true;
    }

    pub fn gets(&self) -> usize {
        self.state().gets
    }

    /// Watches that have a listener.
    pub fn watches(&self) -> usize {
        let mut state = self.state();
        state.watches.retain(|(_, sender)| !sender.is_closed());
        state.watches.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("whole")
    }

    fn answer(&self, method: &http::Method, uri: &http::Uri) -> Result<Answer, std::io::Error> {
        let mut state = self.state();
        if state.away {
            return Err(std::io::Error::other("the server is away"));
        }
        let rest = uri.path().strip_prefix("/api/v1/namespaces/default/");
        let query = uri.query().unwrap_or_default();
        let parts: Vec<&str> = rest.unwrap_or_default().split('/').collect();
        let selected = query.split('&').find_map(|part| {
            let name = part.strip_prefix("fieldSelector=metadata.name%3D")?;
            (!name.is_empty() && !name.contains('%')).then(|| name.to_owned())
        });
        let watches = query.split('&').any(|part| part == "watch=true");
        match (parts.as_slice(), selected) {
            _ if method != http::Method::GET => Ok(status(405, "MethodNotAllowed")),
            ([plural, name], None) if !watches => {
                state.gets += 1;
                let key = ((*plural).to_owned(), (*name).to_owned());
                match state.objects.get(&key) {
                    Some(object) => Ok(json_answer(200, object)),
                    None => Ok(status(404, "NotFound")),
                }
            }
            ([plural], Some(name)) if watches => Ok(state.watch(((*plural).to_owned(), name))),
            _ => Ok(status(403, "Forbidden")),
        }
    }
}

impl State {
    fn watch(&mut self, key: Key) -> Answer {
        let mut first = Vec::new();
        if let Some(object) = self.objects.get(&key) {
            first.push(line("ADDED", object));
        }
        let kind = if key.0 == "secrets" {
            "Secret"
        } else {
            "ConfigMap"
        };
        let end = json!({ "apiVersion": "v1", "kind": kind, "metadata": {
            "resourceVersion": self.revision.to_string(),
            "annotations": { "k8s.io/initial-events-end": "true" },
        }});
        first.push(line("BOOKMARK", &end));
        let (sender, receiver) = mpsc::unbounded();
        self.watches.push((key, sender));
        let lines = stream::iter(first).chain(receiver);
        let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
        http::Response::new(StreamBody::new(frames).boxed_unsync())
    }

    fn tell(&self, key: &Key, kind: &str, object: &Value) {
        let of_object = self.watches.iter().filter(|(watched, _)| watched == key);
        for (_, sender) in of_object.filter(|_| !self.silent) {
            // It fails when the listener is gone.
            let _ = sender.unbounded_send(line(kind, object));
        }
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({ "type": kind, "object": object })))
}

fn status(code: u16, reason: &str) -> Answer {
    let status = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "reason": reason, "message": reason, "code": code });
    json_answer(code, &status)
}

fn json_answer(code: u16, value: &Value) -> Answer {
    let answer = http::Response::builder().status(code);
    let body = Full::from(value.to_string().into_bytes());
    answer.body(body.boxed_unsync()).expect("a response")
}
