//! An API server in memory that has ConfigMaps and Secrets of one namespace, to get and to watch by name, and
//! ClusterTrustBundles, also to list and to watch by signer. It refuses everything that a node may not do.

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

/// What a request selects: a plural, a field, and its value.
#[derive(Clone)]
struct Selected {
    plural: String,
    field: &'static str,
    value: String,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    watches: Vec<(Selected, mpsc::UnboundedSender<Bytes>)>,
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
        state.tell(plural, kind, &object);
    }

    pub fn delete(&self, plural: &str, name: &str) {
        let mut state = self.state();
        state.revision += 1;
        let key = (plural.to_owned(), name.to_owned());
        let mut object = state.objects.remove(&key).expect("an object");
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        state.tell(plural, "DELETED", &object);
    }

    /// What is there of that name.
    pub fn find(&self, plural: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), name.to_owned());
        self.state().objects.get(&key).cloned()
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
        let path = uri.path();
        let rest = path.strip_prefix("/api/v1/namespaces/default/");
        let bundles = || path.strip_prefix("/apis/certificates.k8s.io/v1beta1/");
        let query = uri.query().unwrap_or_default();
        let parts: Vec<&str> = rest
            .or_else(bundles)
            .unwrap_or_default()
            .split('/')
            .collect();
        let selected = Selected::read(parts[0], query);
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
            ([_], Some(selected)) if watches => Ok(state.watch(selected)),
            ([_], Some(selected)) if selected.field == SIGNER => {
                state.gets += 1;
                let items: Vec<&Value> = state.all(&selected).collect();
                let list = json!({ "apiVersion": "certificates.k8s.io/v1beta1",
                    "kind": "ClusterTrustBundleList", "items": items,
                    "metadata": { "resourceVersion": state.revision.to_string() } });
                Ok(json_answer(200, &list))
            }
            _ => Ok(status(403, "Forbidden")),
        }
    }
}

const NAME: &str = "metadata.name";
const SIGNER: &str = "spec.signerName";

impl Selected {
    /// A node selects by a name, and trust bundles also by their signer.
    fn read(plural: &str, query: &str) -> Option<Selected> {
        let fields = query
            .split('&')
            .find_map(|it| it.strip_prefix("fieldSelector="))?;
        let fields = fields.replace("%3A", ":").replace("%2F", "/");
        let (field, value) = fields.split_once("%3D")?;
        let known = match plural {
            "clustertrustbundles" => &[NAME, SIGNER][..],
            _ => &[NAME],
        };
        let field = known.iter().find(|known| **known == field)?;
        (!value.is_empty() && !value.contains('%')).then(|| Selected {
            plural: plural.to_owned(),
            field,
            value: value.to_owned(),
        })
    }

    fn fits(&self, plural: &str, object: &Value) -> bool {
        let at = format!("/{}", self.field.replace('.', "/"));
        let value = object.pointer(&at).and_then(Value::as_str);
        self.plural == plural && value == Some(&self.value)
    }
}

impl State {
    fn all<'a>(&'a self, selected: &'a Selected) -> impl Iterator<Item = &'a Value> {
        let all = self.objects.iter();
        let fitting = all.filter(|((plural, _), object)| selected.fits(plural, object));
        fitting.map(|(_, object)| object)
    }

    fn watch(&mut self, selected: Selected) -> Answer {
        let all = self.all(&selected);
        let mut first: Vec<Bytes> = all.map(|object| line("ADDED", object)).collect();
        let (version, kind) = match selected.plural.as_str() {
            "secrets" => ("v1", "Secret"),
            "configmaps" => ("v1", "ConfigMap"),
            _ => ("certificates.k8s.io/v1beta1", "ClusterTrustBundle"),
        };
        let end = json!({ "apiVersion": version, "kind": kind, "metadata": {
            "resourceVersion": self.revision.to_string(),
            "annotations": { "k8s.io/initial-events-end": "true" },
        }});
        first.push(line("BOOKMARK", &end));
        let (sender, receiver) = mpsc::unbounded();
        self.watches.push((selected, sender));
        let lines = stream::iter(first).chain(receiver);
        let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
        http::Response::new(StreamBody::new(frames).boxed_unsync())
    }

    fn tell(&self, plural: &str, kind: &str, object: &Value) {
        let watches = self.watches.iter();
        let of_object = watches.filter(|(selected, _)| selected.fits(plural, object));
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
